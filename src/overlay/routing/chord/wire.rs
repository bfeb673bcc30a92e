//! What peers of a Chord ring say to each other.
//!
//! ```text
//! status  0, flags
//! state   1, flags, ids of predecessors, ids of successors
//! find    2, request (8 bytes), target (20), asker (20)
//! found   3, request (8 bytes), asker (20), ids
//! flags   bit 0 settled, bit 1 need, bit 2 ask (state only)
//! ids     how many (1 byte, at most 32), and 20 bytes for each
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::overlay::OverlayId;

/// Ids in one list.
pub(super) const MAX_IDS: usize = 32;

const SETTLED: u8 = 1;
const NEED: u8 = 1 << 1;
const ASK: u8 = 1 << 2;

/// What a peer is to the one that it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// It has its place in the ring, so messages may go through it.
    pub(super) settled: bool,
    /// It needs this link.
    pub(super) need: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Something of it has changed.
    Status(Status),
    /// The sender's nearest neighbours, nearest first. With `ask` it wants those of the receiver.
    State { status: Status, ask: bool, predecessors: Vec<OverlayId>, successors: Vec<OverlayId> },
    /// Who is responsible for the target?
    Find { request: u64, target: OverlayId, asker: OverlayId },
    /// Who is responsible thinks that it is, and its nearest neighbours.
    Found { request: u64, asker: OverlayId, peers: Vec<OverlayId> },
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Status(status) => bytes.put_slice(&[0, status.flags()]),
            Self::State { status, ask, predecessors, successors } => {
                bytes.put_slice(&[1, status.flags() | if *ask { ASK } else { 0 }]);
                put_ids(&mut bytes, predecessors);
                put_ids(&mut bytes, successors);
            }
            Self::Find { request, target, asker } => {
                bytes.put_u8(2);
                bytes.put_u64(*request);
                bytes.put_slice(target.as_bytes());
                bytes.put_slice(asker.as_bytes());
            }
            Self::Found { request, asker, peers } => {
                bytes.put_u8(3);
                bytes.put_u64(*request);
                bytes.put_slice(asker.as_bytes());
                put_ids(&mut bytes, peers);
            }
        }
        bytes.freeze()
    }

    /// `None` if it is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [kind] = take(&mut rest)?;
        let message = match kind {
            0 => {
                let [flags] = take(&mut rest)?;
                Self::Status(Status::from_flags(flags)?)
            }
            1 => {
                let [flags] = take(&mut rest)?;
                Self::State {
                    status: Status::from_flags(flags & !ASK)?,
                    ask: flags & ASK != 0,
                    predecessors: take_ids(&mut rest)?,
                    successors: take_ids(&mut rest)?,
                }
            }
            2 => {
                Self::Find { request: take_number(&mut rest)?, target: take_id(&mut rest)?, asker: take_id(&mut rest)? }
            }
            3 => Self::Found {
                request: take_number(&mut rest)?,
                asker: take_id(&mut rest)?,
                peers: take_ids(&mut rest)?,
            },
            _ => return None,
        };
        rest.is_empty().then_some(message)
    }
}

impl Status {
    fn flags(self) -> u8 {
        (if self.settled { SETTLED } else { 0 }) | (if self.need { NEED } else { 0 })
    }

    fn from_flags(flags: u8) -> Option<Self> {
        (flags & !(SETTLED | NEED) == 0).then_some(Self { settled: flags & SETTLED != 0, need: flags & NEED != 0 })
    }
}

fn put_ids(bytes: &mut BytesMut, ids: &[OverlayId]) {
    let ids = &ids[..ids.len().min(MAX_IDS)];
    bytes.put_u8(ids.len() as u8);
    for id in ids {
        bytes.put_slice(id.as_bytes());
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_be_bytes)
}

fn take_id(rest: &mut &[u8]) -> Option<OverlayId> {
    take(rest).map(OverlayId::from_bytes)
}

fn take_ids(rest: &mut &[u8]) -> Option<Vec<OverlayId>> {
    let [count] = take(rest)?;
    if usize::from(count) > MAX_IDS {
        return None;
    }
    (0..count).map(|_| take_id(rest)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = OverlayId> {
        any::<[u8; 20]>().prop_map(OverlayId::from_bytes)
    }

    fn status() -> impl Strategy<Value = Status> {
        any::<(bool, bool)>().prop_map(|(settled, need)| Status { settled, need })
    }

    fn message() -> impl Strategy<Value = Message> {
        let ids = || vec(id(), 0..=MAX_IDS);
        prop_oneof![
            status().prop_map(Message::Status),
            (status(), any::<bool>(), ids(), ids()).prop_map(|(status, ask, predecessors, successors)| {
                Message::State { status, ask, predecessors, successors }
            }),
            (any::<u64>(), id(), id()).prop_map(|(request, target, asker)| Message::Find { request, target, asker }),
            (any::<u64>(), id(), ids()).prop_map(|(request, asker, peers)| Message::Found { request, asker, peers }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message()) {
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes), Some(message));
            prop_assert_eq!(Message::decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(Message::decode(&[&bytes[..], &[0]].concat()), None);
        }

        #[test]
        fn what_is_read_is_written_the_same(mut bytes in vec(any::<u8>(), 0..80), kind in 0..5u8) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Some(message) = Message::decode(&bytes) {
                prop_assert_eq!(&message.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn long_lists_are_malformed() {
        let mut bytes = vec![3; 29];
        bytes.push(MAX_IDS as u8 + 1);
        bytes.extend([7; 20 * (MAX_IDS + 1)]);
        assert_eq!(Message::decode(&bytes), None);
    }
}
