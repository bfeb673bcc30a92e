//! A message of a topic, signed by its origin.
//!
//! ```text
//! message:   the origin's key 32, its number 8, signature 64, body
//! signature: Ed25519 over "pmesh topic message 1", 0, topic 20, number 8, body
//! id:        the first 16 bytes of SHA-256 over the topic and the message
//! ```
//!
//! So nobody on the way can alter it or make one in the name of another, nor bring it into another topic. Anybody in the topic
//! can read it. Numbers of an origin grow: see [`History`](super::history::History) for how that ends replays.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::TopicId;
use crate::identity::{Identity, PeerId};
use crate::overlay::OverlayId;

/// Keeps these signatures apart from all others of a key.
const DOMAIN: &[u8] = b"pmesh topic message 1\0";

/// Bytes of a message beside its body.
pub(super) const OVERHEAD: usize = 32 + 8 + 64;

/// Names a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MessageId(pub(super) [u8; Self::BYTES]);

impl MessageId {
    pub(super) const BYTES: usize = 16;

    /// That of a message as it travels.
    pub(super) fn of(topic: &TopicId, message: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(topic.id().as_bytes()).chain_update(message).finalize();
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&digest[..Self::BYTES]);
        Self(id)
    }
}

/// A message whose signature is good.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) origin: OverlayId,
    pub(super) number: u64,
    pub(super) body: Bytes,
}

impl Message {
    /// A new one, as it travels.
    pub(super) fn sign(identity: &Identity, topic: &TopicId, number: u64, body: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(OVERHEAD + body.len());
        message.put_slice(identity.peer_id().as_bytes());
        message.put_u64(number);
        message.put_slice(&identity.sign(&signed(topic, number, body)));
        message.put_slice(body);
        message.freeze()
    }

    /// `None` if it is malformed, or the signature is not good.
    pub(super) fn open(topic: &TopicId, mut message: Bytes) -> Option<Self> {
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        message.try_copy_to_slice(&mut key).ok()?;
        let number = message.try_get_u64().ok()?;
        message.try_copy_to_slice(&mut signature).ok()?;
        let peer = PeerId::from_bytes(key).ok()?;
        let authentic = peer.has_signed(&signed(topic, number, &message), &signature);
        authentic.then(|| Self { origin: OverlayId::of(&peer), number, body: message })
    }
}

fn signed(topic: &TopicId, number: u64, body: &[u8]) -> Vec<u8> {
    [DOMAIN, topic.id().as_bytes(), &number.to_be_bytes(), body].concat()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {}, {} bytes)", self.origin, self.number, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_can_be_changed() {
        let (identity, topic) = (Identity::from_secret([1; 32]), TopicId::of("topic"));
        let message = Message::sign(&identity, &topic, 7, b"words");
        let opened = Message::open(&topic, message.clone()).unwrap();
        assert_eq!((opened.origin, opened.number), (OverlayId::of(&identity.peer_id()), 7));
        assert_eq!(&opened.body[..], b"words");
        assert_eq!(message.len(), OVERHEAD + 5);
        for bit in 0..message.len() * 8 {
            let mut changed = message.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(MessageId::of(&topic, &changed), MessageId::of(&topic, &message));
            assert_eq!(Message::open(&topic, changed.into()), None);
        }
        for length in 0..message.len() {
            assert_eq!(Message::open(&topic, message.slice(..length)), None);
        }
        let other = TopicId::of("another topic");
        assert_eq!(Message::open(&other, message.clone()), None);
        assert_ne!(MessageId::of(&other, &message), MessageId::of(&topic, &message));
    }
}
