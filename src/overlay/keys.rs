//! Seals messages by the peers' keys. Pure: the session is an argument.
//!
//! ```text
//! secret = X25519 of the two peers' keys, converted from Ed25519 (RFC 7748)
//! key    = HKDF-SHA256 (RFC 5869): salt "pmesh overlay seal 1", input secret,
//!          info the sender's key, the receiver's key, the receiver's session: 32, 32, 8 bytes
//! sealed = AES-256-GCM (RFC 5116) under key, with the nonce and the header of the message
//! ```
//!
//! So there is one key for each direction and each run of the receiver. Only the two peers can compute it, and with it
//!
//! - nobody between them reads a message, alters it or its header, or makes one in the name of either;
//! - a message sent back to its sender, or passed on to a third, does not open, nor does one for an earlier run;
//! - one for the present run is opened as often as it comes: that it is taken once is the [router](super::router)'s part.
//!
//! It is what NaCl's `crypto_box` does (Bernstein, Lange and Schwabe, 2012), with an extra session and header. As there,
//!
//! - there is no forward secrecy: who has recorded messages, and later gets the private key of either peer, reads them. Streams
//!   have it, by a handshake of their own;
//! - the receiver cannot show to others who has sent a message: it could have made it;
//! - who has the private key of a peer can send to it in anybody's name (key compromise impersonation);
//! - lengths, headers and times can be seen.
//!
//! No two messages under one key may have the same nonce. It begins with 48 random bits of the sender's run and ends with a count:
//! a sender would have to start some million times in one run of a receiver for two of its runs to have the same bits.

use std::num::NonZeroUsize;

use lru::LruCache;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

use super::OverlayId;
use super::seal::{Contact, NONCE_BYTES, NotAuthentic, PublicKey, Seal, Session, TAG_BYTES, Tag};
use crate::identity::{Identity, PeerId};

/// Keeps these keys apart from all others of a pair of peers.
const DOMAIN: &[u8] = b"pmesh overlay seal 1";

/// Peers whose keys are kept. Those that were not used for longest are forgotten, and computed again when needed, in less than 0.1 ms.
const MAX_PAIRS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Seals by the key of an [`Identity`]. See the [module documentation](self).
///
/// It keeps the keys of at most 4,096 peers. Somebody is among them who was sent a message, or has sent an authentic one.
pub struct Keys {
    identity: Identity,
    contact: Contact,
    pairs: LruCache<PublicKey, Pair>,
}

/// What we share with a peer.
struct Pair {
    secret: Prk,
    to: Option<(Session, LessSafeKey)>,
    from: LessSafeKey,
}

impl Keys {
    /// For this identity. The `session` must be random, and another one at each start.
    pub fn new(identity: Identity, session: Session) -> Self {
        let contact = Contact { key: identity.peer_id().into(), session };
        Self { identity, contact, pairs: LruCache::new(MAX_PAIRS) }
    }

    fn pair(&self, other: &PublicKey) -> Option<Pair> {
        let peer = PeerId::from_bytes(*other.as_bytes()).ok()?;
        let secret = Salt::new(HKDF_SHA256, DOMAIN).extract(&*self.identity.agree(&peer)?);
        let from = key(&secret, other, &self.contact)?;
        Some(Pair { secret, to: None, from })
    }
}

impl Pair {
    fn to(&mut self, us: &PublicKey, them: &Contact) -> Option<&LessSafeKey> {
        if self.to.as_ref().is_none_or(|(session, _)| *session != them.session) {
            self.to = Some((them.session, key(&self.secret, us, them)?));
        }
        self.to.as_ref().map(|(_, key)| key)
    }
}

fn key(secret: &Prk, sender: &PublicKey, receiver: &Contact) -> Option<LessSafeKey> {
    let info = [&sender.as_bytes()[..], receiver.key.as_bytes(), receiver.session.as_bytes()];
    let key = secret.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

fn open(key: &LessSafeKey, header: &[u8], nonce: &[u8; NONCE_BYTES], sealed: &mut [u8]) -> Result<(), NotAuthentic> {
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_in_place(nonce, Aad::from(header), sealed).map(|_| ()).map_err(|_| NotAuthentic)
}

impl Seal for Keys {
    fn contact(&self) -> Contact {
        self.contact
    }

    fn id_of(&self, key: &PublicKey) -> OverlayId {
        OverlayId::of_key(key.as_bytes())
    }

    fn seal(&mut self, to: &Contact, header: &[u8], nonce: &[u8; NONCE_BYTES], body: &mut [u8]) -> Option<Tag> {
        if !self.pairs.contains(&to.key) {
            let pair = self.pair(&to.key)?;
            self.pairs.put(to.key, pair);
        }
        let key = self.pairs.get_mut(&to.key)?.to(&self.contact.key, to)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), body).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open(
        &mut self,
        from: &PublicKey,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        if let Some(pair) = self.pairs.get(from) {
            return open(&pair.from, header, nonce, sealed);
        }
        // Kept only if it opens something: junk in many names puts nobody out.
        let pair = self.pair(from).ok_or(NotAuthentic)?;
        open(&pair.from, header, nonce, sealed)?;
        self.pairs.put(*from, pair);
        Ok(())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("contact", &self.contact).finish_non_exhaustive()
    }
}

const _: () = assert!(TAG_BYTES == 16, "what AES-GCM has");

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"header";
    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn keys(secret: u8, session: u8) -> Keys {
        Keys::new(Identity::from_secret([secret; 32]), Session::from_bytes([session; 8]))
    }

    fn sealed(from: &mut Keys, to: &Contact, body: &[u8]) -> Vec<u8> {
        let mut sealed = body.to_vec();
        let tag = from.seal(to, HEADER, &NONCE, &mut sealed).unwrap();
        sealed.extend(tag);
        sealed
    }

    #[test]
    fn a_known_message_has_its_known_form() {
        // Computed with Python's `cryptography` (OpenSSL).
        let (mut a, mut b) = (keys(1, 8), keys(2, 9));
        let mut message = sealed(&mut a, &b.contact(), b"words");
        assert_eq!(data_encoding::HEXLOWER.encode(&message), "b2a668a51e2531a68c195b474a08da3834b44c6654");
        b.open(&a.contact().key, HEADER, &NONCE, &mut message).unwrap();
        assert_eq!(&message[..5], b"words");
    }

    #[test]
    fn an_empty_message_and_answers() {
        let (mut a, mut b) = (keys(1, 8), keys(2, 9));
        for _ in 0..2 {
            let mut message = sealed(&mut a, &b.contact(), b"");
            assert_eq!(b.open(&a.contact().key, HEADER, &NONCE, &mut message), Ok(()));
            let mut answer = sealed(&mut b, &a.contact(), b"answer");
            assert_eq!(a.open(&b.contact().key, HEADER, &NONCE, &mut answer), Ok(()));
            assert_eq!(&answer[..6], b"answer");
        }
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let (mut a, mut b) = (keys(1, 8), keys(2, 9));
        let from = a.contact().key;
        let message = sealed(&mut a, &b.contact(), b"words");
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&from, HEADER, &NONCE, &mut changed), Err(NotAuthentic));
        }
        for bit in 0..HEADER.len() * 8 {
            let mut header = HEADER.to_vec();
            header[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&from, &header, &NONCE, &mut message.clone()), Err(NotAuthentic));
        }
        for bit in 0..NONCE_BYTES * 8 {
            let mut nonce = NONCE;
            nonce[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&from, HEADER, &nonce, &mut message.clone()), Err(NotAuthentic));
        }
        for bit in 0..PublicKey::BYTES * 8 {
            let mut key = *from.as_bytes();
            key[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&PublicKey::from_bytes(key), HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic));
        }
        for length in 0..message.len() {
            assert_eq!(b.open(&from, HEADER, &NONCE, &mut message.clone()[..length]), Err(NotAuthentic));
        }
        assert_eq!(b.open(&from, HEADER, &NONCE, &mut message.clone()), Ok(()));
    }

    #[test]
    fn only_the_receiver_opens_it_in_its_present_session() {
        let (mut a, mut b, mut c) = (keys(1, 8), keys(2, 9), keys(3, 9));
        let from = a.contact().key;
        let message = sealed(&mut a, &b.contact(), b"words");
        assert_eq!(c.open(&from, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic));
        assert_eq!(keys(2, 10).open(&from, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic), "a later run");
        assert_eq!(b.open(&c.contact().key, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic), "another sender");
        let of_b = b.contact().key;
        assert_eq!(a.open(&of_b, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic), "sent back");
        let mut a = keys(1, 9);
        assert_eq!(a.open(&of_b, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic), "the same session");
        assert_eq!(a.open(&from, HEADER, &NONCE, &mut message.clone()), Err(NotAuthentic), "as its own");
    }

    #[test]
    fn a_later_session_has_another_key() {
        let (mut a, b, mut later) = (keys(1, 8), keys(2, 9), keys(2, 10));
        let first = sealed(&mut a, &b.contact(), b"words");
        let mut second = sealed(&mut a, &later.contact(), b"words");
        assert_ne!(first, second);
        assert_eq!(later.open(&a.contact().key, HEADER, &NONCE, &mut second), Ok(()));
        assert_eq!(sealed(&mut a, &b.contact(), b"words"), first);
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let mut a = keys(1, 8);
        let mut body = *b"words";
        let no_point = (1..).map(|byte| [byte; 32]).find(|key| PeerId::from_bytes(*key).is_err()).unwrap();
        for bytes in [[0; 32], no_point] {
            let contact = Contact { key: PublicKey::from_bytes(bytes), session: a.contact().session };
            assert_eq!(a.seal(&contact, HEADER, &NONCE, &mut body), None);
            assert_eq!(&body, b"words");
            assert_eq!(a.open(&contact.key, HEADER, &NONCE, &mut [0; 32]), Err(NotAuthentic));
        }
    }

    #[test]
    fn junk_puts_nobody_out() {
        let (mut a, mut b) = (keys(1, 8), keys(2, 9));
        b.pairs.resize(NonZeroUsize::MIN);
        let mut message = sealed(&mut a, &b.contact(), b"words");
        b.open(&a.contact().key, HEADER, &NONCE, &mut message).unwrap();
        for other in 3..10 {
            assert!(b.open(&keys(other, 1).contact().key, HEADER, &NONCE, &mut [0; 32]).is_err());
        }
        assert!(b.pairs.contains(&a.contact().key));
        sealed(&mut b, &keys(3, 1).contact(), b"words");
        assert_eq!(b.pairs.len(), 1, "bounded");
    }
}
