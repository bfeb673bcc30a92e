//! What calls are on the wire, as pure data.
//!
//! Both sides of a link call each other over it. Each numbers its own calls, from 1 on, and never uses a number again. A link carries
//! whole frames, in order: over a node each is a binary message of the channel `pmesh.rpc`; over the overlay they follow each other on a
//! stream of the service `pmesh.rpc`, each after its length (4 bytes), and only who dialled calls. Numbers are big-endian.
//!
//! ```text
//! frame:   kind (1 byte), and except in a hello the number of a call (4), then:
//! 0 hello    version (1), calls (4), body (4), bodies (4)   comes first: so many calls may be in progress, with bodies so large, each,
//!            and together those of more than a part
//! caller:
//! 1 call     mode (1: 0 one answer, 1 a stream, 2 none), milliseconds (4, 0 for no limit), items (2),
//!            length of the name (1), name, size (4), part      the call of a module, for so long
//! 2 request  part                                the next part of a call's body
//! 3 cancel                                       the caller wants no answer any more
//! 4 credit   items (2)                           so many further items may be sent
//! called:
//! 5 item     size (4), part                      of a stream
//! 6 answer   size (4), part                      the end of a call that did not fail; empty for a stream or a notice
//! 7 failure  code (1), size (4), part            the end of a call that failed; code 3 has the failure as JSON
//! 8 reply    part                                the next part of an item, answer or failure
//! ```
//!
//! Bodies are JSON. A body of more than [`PART`] bytes is cut, and between its parts other calls have their turns. Who gets frames of a
//! call that is over skips them: they crossed its end. Unknown kinds are skipped. All else that does not fit ends the link.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::{CallError, Failure};

/// Most bytes of a body in one frame: so much a small call waits for, for each large one.
pub(super) const PART: usize = 16 * 1024;

/// Longest name of a module, in bytes. Calls of others are not sent, and end the link if they come.
pub(super) const MAX_NAME: usize = 128;

/// Longest frame, in bytes. Longer ones end the link.
pub(super) const MAX_FRAME: usize = PART + 256;

const VERSION: u8 = 1;

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One answer.
    Call = 0,
    /// Any number of items, then the end.
    Stream = 1,
    /// Nothing: the end says that the call needs its place no more.
    Notice = 2,
}

/// How a call failed, but for what the handler says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    UnknownModule = 1,
    Refused = 2,
    Failed = 3,
    Panicked = 4,
    TimedOut = 5,
    Busy = 6,
    Closed = 7,
    TooLarge = 8,
    Streams = 9,
    Malformed = 10,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello { calls: u32, body: u32, bodies: u32 },
    Call { number: u32, head: CallHead, size: u32, part: Bytes },
    Request { number: u32, part: Bytes },
    Cancel { number: u32 },
    Credit { number: u32, items: u16 },
    Item { number: u32, size: u32, part: Bytes },
    Answer { number: u32, size: u32, part: Bytes },
    Failure { number: u32, code: u8, size: u32, part: Bytes },
    Reply { number: u32, part: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallHead {
    pub(super) mode: Mode,
    /// How long the caller waits, in milliseconds; 0 for as long as it takes.
    pub(super) millis: u32,
    /// Items that may be sent at once.
    pub(super) items: u16,
    pub(super) module: String,
}

/// What arrived is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of a call")]
pub(super) struct NoFrame;

impl Frame {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.part().map_or(0, |part| part.len() + MAX_NAME));
        let mut begin = |kind: u8, number: u32| {
            out.put_u8(kind);
            out.put_u32(number);
        };
        match self {
            Self::Hello { calls, body, bodies } => {
                out.put_slice(&[0, VERSION]);
                for number in [calls, body, bodies] {
                    out.put_u32(*number);
                }
            }
            Self::Call { number, head, size, .. } => {
                begin(1, *number);
                out.put_u8(head.mode as u8);
                out.put_u32(head.millis);
                out.put_u16(head.items);
                out.put_u8(head.module.len() as u8);
                out.put_slice(head.module.as_bytes());
                out.put_u32(*size);
            }
            Self::Request { number, .. } => begin(2, *number),
            Self::Cancel { number } => begin(3, *number),
            Self::Credit { number, items } => {
                begin(4, *number);
                out.put_u16(*items);
            }
            Self::Item { number, size, .. } => {
                begin(5, *number);
                out.put_u32(*size);
            }
            Self::Answer { number, size, .. } => {
                begin(6, *number);
                out.put_u32(*size);
            }
            Self::Failure { number, code, size, .. } => {
                begin(7, *number);
                out.put_u8(*code);
                out.put_u32(*size);
            }
            Self::Reply { number, .. } => begin(8, *number),
        }
        out.extend_from_slice(self.part().map_or(&[], |part| part));
        out.freeze()
    }

    fn part(&self) -> Option<&Bytes> {
        match self {
            Self::Call { part, .. }
            | Self::Request { part, .. }
            | Self::Item { part, .. }
            | Self::Answer { part, .. }
            | Self::Failure { part, .. }
            | Self::Reply { part, .. } => Some(part),
            _ => None,
        }
    }

    /// Reads a frame; `None` for one of a kind that a later version has added.
    pub(super) fn decode(mut from: Bytes) -> Result<Option<Self>, NoFrame> {
        if from.len() > MAX_FRAME {
            return Err(NoFrame);
        }
        let kind = from.try_get_u8().map_err(|_| NoFrame)?;
        if kind == 0 {
            // Later versions may say more.
            let version = from.try_get_u8().map_err(|_| NoFrame)?;
            let (calls, body, bodies) = (number(&mut from)?, number(&mut from)?, number(&mut from)?);
            return if version == VERSION { Ok(Some(Self::Hello { calls, body, bodies })) } else { Err(NoFrame) };
        }
        if kind > 8 {
            return Ok(None);
        }
        let call = number(&mut from)?;
        Ok(Some(match kind {
            1 => {
                let head = CallHead::decode(&mut from)?;
                let (size, part) = first_part(from)?;
                Self::Call { number: call, head, size, part }
            }
            2 => Self::Request { number: call, part: next_part(from)? },
            3 if from.is_empty() => Self::Cancel { number: call },
            4 if from.len() == 2 => Self::Credit { number: call, items: from.get_u16() },
            5 => first_part(from).map(|(size, part)| Self::Item { number: call, size, part })?,
            6 => first_part(from).map(|(size, part)| Self::Answer { number: call, size, part })?,
            7 => {
                let code = from.try_get_u8().map_err(|_| NoFrame)?;
                first_part(from).map(|(size, part)| Self::Failure { number: call, code, size, part })?
            }
            8 => Self::Reply { number: call, part: next_part(from)? },
            _ => return Err(NoFrame),
        }))
    }
}

impl CallHead {
    fn decode(from: &mut Bytes) -> Result<Self, NoFrame> {
        let mode = match from.try_get_u8().map_err(|_| NoFrame)? {
            0 => Mode::Call,
            1 => Mode::Stream,
            2 => Mode::Notice,
            _ => return Err(NoFrame),
        };
        let millis = number(from)?;
        let items = from.try_get_u16().map_err(|_| NoFrame)?;
        let length = from.try_get_u8().map_err(|_| NoFrame)?.into();
        if length > from.len() {
            return Err(NoFrame);
        }
        let module = std::str::from_utf8(&from.split_to(length)).map_err(|_| NoFrame)?.to_owned();
        if is_name(&module) { Ok(Self { mode, millis, items, module }) } else { Err(NoFrame) }
    }
}

/// Whether a module may have this name.
pub(super) fn is_name(module: &str) -> bool {
    (1..=MAX_NAME).contains(&module.len())
}

fn number(from: &mut Bytes) -> Result<u32, NoFrame> {
    from.try_get_u32().map_err(|_| NoFrame)
}

/// A part that begins a body: the size of the whole, and what is here of it.
fn first_part(mut from: Bytes) -> Result<(u32, Bytes), NoFrame> {
    let size = number(&mut from)?;
    // A body of any length begins with a part that has a part of it, so frames are not sent for nothing.
    let fits = from.len() <= PART && from.len() <= size as usize && from.is_empty() == (size == 0);
    if fits { Ok((size, from)) } else { Err(NoFrame) }
}

fn next_part(from: Bytes) -> Result<Bytes, NoFrame> {
    if (1..=PART).contains(&from.len()) { Ok(from) } else { Err(NoFrame) }
}

/// How an error of the side that is called goes on the wire, at most so many bytes of it.
pub(super) fn encode_error(error: &CallError, limit: usize) -> (Code, Bytes) {
    let code = match error {
        CallError::UnknownModule => Code::UnknownModule,
        CallError::Refused => Code::Refused,
        CallError::Failed(failure) => {
            let body = serde_json::to_vec(failure).unwrap_or_default();
            return if body.len() <= limit { (Code::Failed, body.into()) } else { (Code::TooLarge, Bytes::new()) };
        }
        CallError::Panicked => Code::Panicked,
        CallError::TimedOut => Code::TimedOut,
        CallError::Busy => Code::Busy,
        CallError::TooLarge { .. } => Code::TooLarge,
        CallError::Streams => Code::Streams,
        CallError::Malformed(why) => {
            let body = Bytes::copy_from_slice(why.as_bytes());
            return (Code::Malformed, if body.len() <= limit { body } else { Bytes::new() });
        }
        _ => Code::Closed,
    };
    (code, Bytes::new())
}

/// The error that such a failure is for the caller. `limit` is what this side takes.
pub(super) fn decode_error(code: u8, body: &[u8], limit: usize) -> CallError {
    match code {
        1 => CallError::UnknownModule,
        2 => CallError::Refused,
        4 => CallError::Panicked,
        5 => CallError::TimedOut,
        6 => CallError::Busy,
        7 => CallError::Closed,
        8 => CallError::TooLarge { limit },
        9 => CallError::Streams,
        10 => CallError::Malformed(String::from_utf8_lossy(body).into_owned()),
        _ => CallError::Failed(
            serde_json::from_slice(body).unwrap_or_else(|_| Failure::new("the other side does not say how")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body() -> impl Strategy<Value = (u32, Bytes)> {
        prop_oneof![
            Just((0, Bytes::new())),
            (proptest::collection::vec(any::<u8>(), 1..100), 0..1_000_000u32)
                .prop_map(|(part, more)| (part.len() as u32 + more, part.into())),
        ]
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let mode = prop_oneof![Just(Mode::Call), Just(Mode::Stream), Just(Mode::Notice)];
        let head = (mode, any::<u32>(), any::<u16>(), "[a-zA-Z.é]{1,40}")
            .prop_map(|(mode, millis, items, module)| CallHead { mode, millis, items, module });
        let part = || proptest::collection::vec(any::<u8>(), 1..100).prop_map(Bytes::from);
        prop_oneof![
            (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(calls, body, bodies)| Frame::Hello {
                calls,
                body,
                bodies
            }),
            (any::<u32>(), head, body()).prop_map(|(number, head, (size, part))| Frame::Call {
                number,
                head,
                size,
                part
            }),
            (any::<u32>(), part()).prop_map(|(number, part)| Frame::Request { number, part }),
            any::<u32>().prop_map(|number| Frame::Cancel { number }),
            (any::<u32>(), any::<u16>()).prop_map(|(number, items)| Frame::Credit { number, items }),
            (any::<u32>(), body()).prop_map(|(number, (size, part))| Frame::Item { number, size, part }),
            (any::<u32>(), body()).prop_map(|(number, (size, part))| Frame::Answer { number, size, part }),
            (any::<u32>(), any::<u8>(), body()).prop_map(|(number, code, (size, part))| Frame::Failure {
                number,
                code,
                size,
                part
            }),
            (any::<u32>(), part()).prop_map(|(number, part)| Frame::Reply { number, part }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frame in frames()) {
            prop_assert_eq!(Frame::decode(frame.encode()), Ok(Some(frame)));
        }

        #[test]
        fn what_is_read_is_written_as_it_was(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), kind in 0..10u8) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(Some(frame)) = Frame::decode(bytes.clone().into()) {
                let written = frame.encode();
                prop_assert!(bytes.starts_with(&written));
                prop_assert!(bytes.len() == written.len() || kind == 0);
            }
        }
    }

    #[test]
    fn frames_that_are_none() {
        let largest = Frame::Call {
            number: 1,
            head: CallHead { mode: Mode::Call, millis: 0, items: 0, module: "m".repeat(MAX_NAME) },
            size: PART as u32,
            part: vec![0; PART].into(),
        };
        assert_eq!(Frame::decode(largest.encode()), Ok(Some(largest)));
        let long_name = CallHead { mode: Mode::Call, millis: 0, items: 0, module: "m".repeat(MAX_NAME + 1) };
        let wrong = [
            Frame::Request { number: 1, part: Bytes::new() }.encode(),
            Frame::Reply { number: 1, part: vec![0; PART + 1].into() }.encode(),
            Frame::Item { number: 1, size: 1, part: Bytes::new() }.encode(),
            Frame::Answer { number: 1, size: 1, part: vec![0; 2].into() }.encode(),
            Frame::Call { number: 1, head: long_name, size: 0, part: Bytes::new() }.encode(),
            Bytes::new(),
            Bytes::from_static(&[3, 0, 0, 0, 1, 0]),
            Bytes::from_static(&[0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
            vec![9; MAX_FRAME + 1].into(),
        ];
        for wrong in wrong {
            assert_eq!(Frame::decode(wrong.clone()), Err(NoFrame), "{wrong:?}");
        }
        assert_eq!(Frame::decode(Bytes::from_static(&[9])), Ok(None));
    }

    #[test]
    fn errors() {
        let failure = Failure::new("no").with_code("E1").with_data(1);
        for error in [
            CallError::UnknownModule,
            CallError::Refused,
            CallError::Failed(failure),
            CallError::Panicked,
            CallError::TimedOut,
            CallError::Busy,
            CallError::Closed,
            CallError::TooLarge { limit: 1000 },
            CallError::Streams,
            CallError::Malformed("why".into()),
        ] {
            let (code, body) = encode_error(&error, 1000);
            assert_eq!(decode_error(code as u8, &body, 1000), error);
        }
        let (code, _) = encode_error(&CallError::Failed(Failure::new("x".repeat(1000))), 1000);
        assert_eq!(code, Code::TooLarge);
        assert!(matches!(decode_error(200, b"", 1), CallError::Failed(_)));
    }
}
