//! Sealing: messages are encrypted and authenticated from end to end, by the keys of the two peers.

use std::fmt;

use super::OverlayId;
use crate::identity::PeerId;

/// A public key as it travels: bytes that need not be one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; Self::BYTES]);

/// Which run of a peer a message is sealed for: random at its start, so that what was sent to an earlier run cannot be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session([u8; Self::BYTES]);

/// What it takes to seal a message for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Contact {
    /// Its public key. The [id](Seal::id_of) of the peer is derived from it.
    pub key: PublicKey,
    /// Its present session.
    pub session: Session,
}

/// Authenticates a message: it is sent behind it.
pub type Tag = [u8; TAG_BYTES];

/// Bytes of a [`Tag`].
pub const TAG_BYTES: usize = 16;

/// Bytes of a nonce: no two messages of a sender have the same.
pub const NONCE_BYTES: usize = 12;

/// The bytes are no message that this peer has sealed for us in our present session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is not authentic")]
pub struct NotAuthentic;

/// Seals messages for others, and opens those that are sealed for us.
///
/// The header is not encrypted, but authenticated. Buffers are changed in place, so that nothing is copied.
pub trait Seal: fmt::Debug + Send {
    /// Our key and session: what others need to seal for us.
    fn contact(&self) -> Contact;

    /// The id of the peer with this key. Nobody can find a key that has a given id.
    fn id_of(&self, key: &PublicKey) -> OverlayId;

    /// Encrypts `body` for a peer, and gives the tag of it and the header. `None` if the key of the contact is none: then the
    /// body is as it was.
    fn seal(&mut self, to: &Contact, header: &[u8], nonce: &[u8; NONCE_BYTES], body: &mut [u8]) -> Option<Tag>;

    /// Decrypts what `from` has sealed for us in our present session: the body, and behind it the tag, which stays.
    ///
    /// # Errors
    ///
    /// [`NotAuthentic`] if anything of it was altered, or somebody else has sealed it, or for another session. What is then in the
    /// buffer is of no use.
    fn open(
        &mut self,
        from: &PublicKey,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic>;
}

/// No cryptography, for simulations: messages can be read and altered on their way.
///
/// Only the session is checked. The first 20 bytes of a key are the id, so that peers of any id can be made.
#[derive(Debug, Clone)]
pub struct Plain {
    contact: Contact,
}

impl PublicKey {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// The key with these bytes, if they are one.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl From<PeerId> for PublicKey {
    fn from(peer: PeerId) -> Self {
        Self(*peer.as_bytes())
    }
}

impl Session {
    /// Bytes of a session.
    pub const BYTES: usize = 8;

    /// The session with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Plain {
    /// For the peer with this id, in the session with this number.
    pub fn new(id: OverlayId, session: u64) -> Self {
        Self { contact: Contact { key: Self::key_of(&id), session: Session(session.to_be_bytes()) } }
    }

    /// The key of a peer: its id, and zeros.
    pub fn key_of(id: &OverlayId) -> PublicKey {
        let mut key = [0; PublicKey::BYTES];
        key[..OverlayId::BYTES].copy_from_slice(id.as_bytes());
        PublicKey(key)
    }
}

impl Seal for Plain {
    fn contact(&self) -> Contact {
        self.contact
    }

    fn id_of(&self, key: &PublicKey) -> OverlayId {
        let mut id = [0; OverlayId::BYTES];
        id.copy_from_slice(&key.0[..OverlayId::BYTES]);
        OverlayId::from_bytes(id)
    }

    fn seal(&mut self, to: &Contact, _: &[u8], _: &[u8; NONCE_BYTES], _: &mut [u8]) -> Option<Tag> {
        let mut tag = Tag::default();
        tag[..Session::BYTES].copy_from_slice(&to.session.0);
        Some(tag)
    }

    fn open(&mut self, _: &PublicKey, _: &[u8], _: &[u8; NONCE_BYTES], sealed: &mut [u8]) -> Result<(), NotAuthentic> {
        let mut tag = Tag::default();
        tag[..Session::BYTES].copy_from_slice(&self.contact.session.0);
        if sealed.ends_with(&tag) { Ok(()) } else { Err(NotAuthentic) }
    }
}
