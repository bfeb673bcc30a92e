//! What two tables say to each other. All numbers are big-endian.
//!
//! ```text
//! find   1  token: 4 bytes  hops: 1 byte  target: 20 bytes  who is closest to the target? Pass it on at most so often
//! found  2  token: 4 bytes  ids: 20 bytes each, 0..=20      these are, the closest first
//! ```
//!
//! Who passes a question on puts in a token of its own; the answer comes back the same way.

use bytes::{BufMut, Bytes, BytesMut};

use crate::overlay::OverlayId;

/// Ids that an answer names at most. One with more is malformed.
pub(super) const MAX_FOUND: usize = 20;

const FIND: u8 = 1;
const FOUND: u8 = 2;
const HEAD: usize = 5;
const MAX_BYTES: usize = HEAD + MAX_FOUND * OverlayId::BYTES;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Asks for the peers closest to the target.
    Find { token: u32, hops: u8, target: OverlayId },
    /// Answers the question with this token.
    Found { token: u32, ids: Vec<OverlayId> },
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(HEAD + OverlayId::BYTES);
        match self {
            Self::Find { token, hops, target } => {
                message.put_u8(FIND);
                message.put_u32(*token);
                message.put_u8(*hops);
                message.put_slice(target.as_bytes());
            }
            Self::Found { token, ids } => {
                message.put_u8(FOUND);
                message.put_u32(*token);
                ids.iter().for_each(|id| message.put_slice(id.as_bytes()));
            }
        }
        message.freeze()
    }

    /// None if it is malformed.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let ([kind, token @ ..], rest) = message.split_first_chunk::<HEAD>()?;
        let token = u32::from_be_bytes(*token);
        match *kind {
            FIND => {
                let (hops, target) = rest.split_first()?;
                Some(Self::Find { token, hops: *hops, target: OverlayId::from_bytes(target.try_into().ok()?) })
            }
            FOUND => {
                let (ids, rest) = rest.as_chunks::<{ OverlayId::BYTES }>();
                let ids = || ids.iter().copied().map(OverlayId::from_bytes).collect();
                (rest.is_empty() && message.len() <= MAX_BYTES).then(|| Self::Found { token, ids: ids() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<OverlayId> {
        (0..count).map(|at| OverlayId::from_bytes([at as u8; 20])).collect()
    }

    #[test]
    fn bytes_on_the_wire() {
        let find = Message::Find { token: 0x0102_0304, hops: 5, target: ids(8)[7] };
        assert_eq!(find.encode()[..8], [1, 1, 2, 3, 4, 5, 7, 7]);
        assert_eq!(find.encode().len(), 26);
        assert_eq!(Message::decode(&find.encode()), Some(find));
        let found = Message::Found { token: 5, ids: ids(MAX_FOUND) };
        assert_eq!(found.encode().len(), 405);
        assert_eq!(Message::decode(&found.encode()), Some(found));
    }

    #[test]
    fn more_than_twenty_ids_are_malformed() {
        for count in [MAX_FOUND + 1, 255] {
            assert_eq!(Message::decode(&Message::Found { token: 5, ids: ids(count) }.encode()), None);
        }
        let mut two_targets = Message::Find { token: 5, hops: 5, target: ids(1)[0] }.encode().to_vec();
        two_targets.extend([0; 20]);
        assert_eq!(Message::decode(&two_targets), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(message in proptest::collection::vec(any::<u8>(), 0..500)) {
            if let Some(read) = Message::decode(&message) {
                prop_assert_eq!(&read.encode()[..], &message[..]);
            }
        }

        #[test]
        fn round_trip(token: u32, ids in proptest::collection::vec(any::<[u8; 20]>(), 0..=MAX_FOUND)) {
            let ids = ids.into_iter().map(OverlayId::from_bytes).collect();
            let found = Message::Found { token, ids };
            prop_assert_eq!(Message::decode(&found.encode()), Some(found));
        }
    }
}
