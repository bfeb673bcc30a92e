//! Sealing that only attackers cannot do.

use std::hash::{DefaultHasher, Hash, Hasher};

use pmesh::overlay::OverlayId;
use pmesh::overlay::seal::{Contact, NONCE_BYTES, NotAuthentic, Plain, PublicKey, Seal, TAG_BYTES, Tag};

/// Messages can be read on their way, but neither altered nor forged: whoever seals or opens goes by this type, with its own key,
/// and simulated attackers write packets by other ways.
#[derive(Debug)]
pub struct Sealed(Plain);

impl Sealed {
    /// For the peer with this id, in the session with this number.
    pub fn new(id: OverlayId, session: u64) -> Self {
        Self(Plain::new(id, session))
    }
}

fn tag(from: &PublicKey, to: &Contact, header: &[u8], nonce: &[u8; NONCE_BYTES], body: &[u8]) -> Tag {
    let mut hasher = DefaultHasher::new();
    (from, to, header, nonce, body).hash(&mut hasher);
    let mut tag = Tag::default();
    tag[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    tag
}

impl Seal for Sealed {
    fn contact(&self) -> Contact {
        self.0.contact()
    }

    fn id_of(&self, key: &PublicKey) -> OverlayId {
        self.0.id_of(key)
    }

    fn seal(&mut self, to: &Contact, header: &[u8], nonce: &[u8; NONCE_BYTES], body: &mut [u8]) -> Option<Tag> {
        Some(tag(&self.0.contact().key, to, header, nonce, body))
    }

    fn open(
        &mut self,
        from: &PublicKey,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let (body, theirs) = sealed.split_at(sealed.len().saturating_sub(TAG_BYTES));
        if theirs == tag(from, &self.0.contact(), header, nonce, body) { Ok(()) } else { Err(NotAuthentic) }
    }
}
