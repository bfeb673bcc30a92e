//! Named channels: what each promises, and the record by which one is announced.
//!
//! A channel has a name, which is the same on both sides, and a number for each direction, given by the side that sends.
//! `open` says that the sender will use a number for a channel of that name, `shut` that it is done with it. For each life
//! of a channel each side sends exactly one of both. An `open` says which `open` of the other side it answers; one that
//! answers none belongs to the oldest channel of that name that has none of the other side yet, so both sides may open a
//! name at once, and names can be used again.

use std::time::Duration;

use bytes::BytesMut;

use super::limits::MAX_CHANNEL_NAME_BYTES;
use super::packet::{PacketError, Record, number_at, put_number};

/// What a channel promises about the messages that are sent on it. By default they arrive all, and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// Whether messages arrive in the order in which they were sent.
    pub ordered: bool,
    /// Whether messages may get lost, for the sake of those that follow.
    pub reliability: Reliability,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { ordered: true, reliability: Reliability::Reliable }
    }
}

/// Whether messages of a channel may get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reliability {
    /// None is lost while the connection lasts.
    Reliable,
    /// A message is given up after it was sent again so often.
    MaxRetransmits(u16),
    /// A message is given up after this time, in whole milliseconds, at most 65,535.
    MaxLifetime(Duration),
}

const UNORDERED: u8 = 1;

/// The body of an `open` record: the two numbers, options (bit 0 unordered, bits 1-2 reliability), its limit, and the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) id: u32,
    /// The number that the other side gave the same channel, or 0.
    pub(crate) answers: u32,
    pub(crate) delivery: Delivery,
    pub(crate) name: String,
}

/// The most bytes that the body of an `open` record has.
pub(crate) const MAX_OPENING_BYTES: usize = 5 + 5 + 1 + 3 + MAX_CHANNEL_NAME_BYTES;

impl Opening {
    pub(crate) fn encode(&self) -> BytesMut {
        let (reliability, limit) = match self.delivery.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::MaxRetransmits(times) => (1, u64::from(times)),
            Reliability::MaxLifetime(time) => (2, time.as_millis().min(u16::MAX.into()) as u64),
        };
        let mut body = BytesMut::with_capacity(MAX_OPENING_BYTES);
        put_number(&mut body, self.id.into());
        put_number(&mut body, self.answers.into());
        body.extend_from_slice(&[reliability << 1 | if self.delivery.ordered { 0 } else { UNORDERED }]);
        put_number(&mut body, limit);
        body.extend_from_slice(self.name.as_bytes());
        body
    }

    /// # Errors
    ///
    /// The record is malformed, the name too long, or the delivery is none that this version knows.
    pub(crate) fn decode(record: &Record) -> Result<Self, PacketError> {
        let body = record.whole()?;
        let mut at = 0;
        let id = number_at(body, &mut at)?;
        let answers = number_at(body, &mut at)?;
        let options = *body.get(at).ok_or(PacketError::Malformed)?;
        at += 1;
        let limit = u16::try_from(number_at(body, &mut at)?).map_err(|_| PacketError::Malformed)?;
        let reliability = match options >> 1 {
            0 => Reliability::Reliable,
            1 => Reliability::MaxRetransmits(limit),
            2 => Reliability::MaxLifetime(Duration::from_millis(limit.into())),
            _ => return Err(PacketError::Malformed),
        };
        let name = std::str::from_utf8(&body[at..]).map_err(|_| PacketError::Malformed)?;
        if name.len() > MAX_CHANNEL_NAME_BYTES {
            return Err(PacketError::TooLarge);
        }
        let delivery = Delivery { ordered: options & UNORDERED == 0, reliability };
        Ok(Self { id, answers, delivery, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::packet::Kind;
    use proptest::prelude::*;

    fn record(body: impl Into<bytes::Bytes>) -> Record {
        Record { kind: Kind::Open, first: true, last: true, body: body.into() }
    }

    #[test]
    fn what_is_no_opening() {
        let long =
            Opening { id: 1, answers: 0, delivery: Delivery::default(), name: "n".repeat(MAX_CHANNEL_NAME_BYTES + 1) };
        assert_eq!(Opening::decode(&record(long.encode())), Err(PacketError::TooLarge));
        for body in [&[][..], &[1, 0], &[1, 0, 0], &[1, 0, 6, 0], &[1, 0, 0, 0, 0xff], &[1, 0, 2, 0x80, 0x80, 0x08]] {
            assert_eq!(Opening::decode(&record(body.to_vec())), Err(PacketError::Malformed), "{body:?}");
        }
        let part = Record { last: false, ..record(vec![1, 0, 0, 0]) };
        assert_eq!(Opening::decode(&part), Err(PacketError::Malformed));
    }

    proptest! {
        #[test]
        fn openings_come_back(id: u32, answers: u32, ordered: bool, reliability in 0..3, limit: u16, name in ".{0,64}") {
            let reliability = match reliability {
                0 => Reliability::Reliable,
                1 => Reliability::MaxRetransmits(limit),
                _ => Reliability::MaxLifetime(Duration::from_millis(limit.into())),
            };
            let opening = Opening { id, answers, delivery: Delivery { ordered, reliability }, name };
            prop_assert!(opening.encode().len() <= MAX_OPENING_BYTES);
            prop_assert_eq!(Opening::decode(&record(opening.encode())), Ok(opening));
        }
    }
}
