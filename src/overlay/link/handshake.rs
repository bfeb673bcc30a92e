//! How two pmesh peers prove who they are over a WebSocket, before anything else passes on it.
//!
//! ```text
//! dialler  -> listener   hello:   1, key, nonce, host     1, 32, 32, up to 255 bytes
//! listener -> dialler    answer:  key, nonce, signature   32, 32, 64 bytes
//! dialler  -> listener   proof:   signature               64 bytes
//!
//! D = SHA-256("pmesh overlay link 1", dialler's key, dialler's nonce, listener's key, listener's nonce, host)
//! signature = Ed25519 over "pmesh overlay listener 1" or "pmesh overlay dialler 1", and D
//! ```
//!
//! The host is that of the URL, as it was dialled. Both nonces are random and new, so nothing that was recorded fits again, and the
//! roles keep an answer from passing for a proof. So each knows that the other key's holder takes part, now, and wants to
//! talk to it.
//!
//! **In the middle.** Nobody can take the id of another. But who is on the way, or is itself dialled, can pass the whole handshake on
//! to a third, and then sits between the two. If it was dialled under its own name, a listener that knows its hosts finds the
//! wrong one in the hello. If it is on the way of a plain `ws://`, nothing shows it: the signatures bind keys, not the bytes
//! that follow. It can then do what any neighbour can: read, drop, delay and repeat packets, read who sends how much to whom, and
//! put in packets as if they came from either end, so the links and routes of the two are as good as it lets them be. It
//! cannot read messages that are sealed from end to end, alter them, or send any in another's name. `wss://` keeps off
//! those who are on the way.

use sha2::{Digest, Sha256};

use crate::identity::{Identity, PeerId};

/// Longest host of a URL, in bytes, as in DNS. A hello with a longer one is malformed.
const MAX_HOST_BYTES: usize = 255;
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const VERSION: u8 = 1;

const DOMAIN: &[u8] = b"pmesh overlay link 1";
const LISTENER: &[u8] = b"pmesh overlay listener 1";
const DIALLER: &[u8] = b"pmesh overlay dialler 1";

/// A random number of one handshake.
pub(crate) type Nonce = [u8; 32];

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// What came is no message of this handshake, or of another version.
    #[error("not the handshake of overlay neighbours")]
    Malformed,
    /// The other side has our own key: it is we, or another with the same identity.
    #[error("the other side is this peer itself")]
    OwnId,
    /// The other side meant to dial another host.
    #[error("the other side dialled another host")]
    WrongHost,
    /// The other side does not have the key that it names, or somebody has altered something.
    #[error("a signature does not fit")]
    Signature,
}

/// The side that dials.
#[derive(Debug)]
pub(crate) struct Dialling {
    identity: Identity,
    nonce: Nonce,
    host: String,
}

impl Dialling {
    /// A handshake with whoever listens at this host.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Malformed`] if the host is too long.
    pub(crate) fn new(identity: Identity, nonce: Nonce, host: String) -> Result<Self, HandshakeError> {
        if host.len() > MAX_HOST_BYTES { Err(HandshakeError::Malformed) } else { Ok(Self { identity, nonce, host }) }
    }

    /// What is to be sent first.
    pub(crate) fn hello(&self) -> Vec<u8> {
        [&[VERSION], &self.identity.peer_id().as_bytes()[..], &self.nonce, self.host.as_bytes()].concat()
    }

    /// Takes the answer. Returns who listens, proven, and what is to be sent last: then the link is open.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`].
    pub(crate) fn answer(&self, answer: &[u8]) -> Result<(PeerId, Vec<u8>), HandshakeError> {
        let (listener, nonce, signature) = keyed(answer)?;
        if listener == self.identity.peer_id() {
            return Err(HandshakeError::OwnId);
        }
        let digest = digest((self.identity.peer_id(), self.nonce), (listener, nonce), &self.host);
        check(listener, LISTENER, &digest, signature)?;
        Ok((listener, self.identity.sign(&[DIALLER, &digest].concat()).to_vec()))
    }
}

/// The side that listens, once it has answered a hello.
#[derive(Debug)]
pub(crate) struct Answered {
    dialler: PeerId,
    digest: [u8; 32],
}

impl Answered {
    /// Takes a hello. Returns the answer that is to be sent. If we know our `hosts`, in lower case, the other side must have dialled
    /// one of them.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`].
    pub(crate) fn new(
        identity: &Identity,
        nonce: Nonce,
        hosts: &[String],
        hello: &[u8],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let (&VERSION, hello) = hello.split_first().ok_or(HandshakeError::Malformed)? else {
            return Err(HandshakeError::Malformed);
        };
        let (dialler, dialler_nonce, host) = keyed(hello)?;
        let host = std::str::from_utf8(host).ok().filter(|host| host.len() <= MAX_HOST_BYTES);
        let host = host.ok_or(HandshakeError::Malformed)?;
        if !hosts.is_empty() && !hosts.iter().any(|known| known == host) {
            return Err(HandshakeError::WrongHost);
        }
        let own = identity.peer_id();
        let digest = digest((dialler, dialler_nonce), (own, nonce), host);
        let signature = identity.sign(&[LISTENER, &digest].concat());
        let answer = [&own.as_bytes()[..], &nonce, &signature].concat();
        Ok((Self { dialler, digest }, answer))
    }

    /// Takes the proof. Returns who has dialled: the link is open. Who has our own key finds that out by the answer, and sends
    /// none.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`].
    pub(crate) fn proof(self, proof: &[u8]) -> Result<PeerId, HandshakeError> {
        check(self.dialler, DIALLER, &self.digest, proof)?;
        Ok(self.dialler)
    }
}

/// A key, a nonce, and the rest.
fn keyed(message: &[u8]) -> Result<(PeerId, Nonce, &[u8]), HandshakeError> {
    let (key, rest) = message.split_first_chunk::<KEY_BYTES>().ok_or(HandshakeError::Malformed)?;
    let (nonce, rest) = rest.split_first_chunk().ok_or(HandshakeError::Malformed)?;
    let key = PeerId::from_bytes(*key).map_err(|_| HandshakeError::Malformed)?;
    Ok((key, *nonce, rest))
}

fn check(key: PeerId, role: &[u8], digest: &[u8; 32], signature: &[u8]) -> Result<(), HandshakeError> {
    let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| HandshakeError::Malformed)?;
    let fits = key.has_signed(&[role, digest].concat(), signature);
    if fits { Ok(()) } else { Err(HandshakeError::Signature) }
}

/// Everything but the last has a fixed length.
fn digest(dialler: (PeerId, Nonce), listener: (PeerId, Nonce), host: &str) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(DOMAIN);
    for (key, nonce) in [dialler, listener] {
        hash.update(key.as_bytes());
        hash.update(nonce);
    }
    hash.chain_update(host).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(secret: u8) -> Identity {
        Identity::from_secret([secret; 32])
    }

    fn dialling() -> Dialling {
        Dialling::new(peer(1), [11; 32], "host.example".into()).unwrap()
    }

    fn answered(nonce: u8, hello: &[u8]) -> (Answered, Vec<u8>) {
        Answered::new(&peer(2), [nonce; 32], &[], hello).unwrap()
    }

    #[test]
    fn both_learn_who_the_other_is() {
        let dialling = dialling();
        let (answered, answer) = answered(22, &dialling.hello());
        let (listener, proof) = dialling.answer(&answer).unwrap();
        assert_eq!(listener, peer(2).peer_id());
        assert_eq!(answered.proof(&proof), Ok(peer(1).peer_id()));
    }

    #[test]
    fn recorded_messages_fit_no_other_handshake() {
        let dialling = dialling();
        let (first, answer) = answered(22, &dialling.hello());
        let (_, proof) = dialling.answer(&answer).unwrap();
        // The same dialler once more, played back to a listener with a new nonce.
        let (second, _) = answered(23, &dialling.hello());
        assert_eq!(second.proof(&proof), Err(HandshakeError::Signature));
        // The same listener, played back to a dialler with a new nonce.
        let again = Dialling::new(peer(1), [12; 32], "host.example".into()).unwrap();
        assert_eq!(again.answer(&answer).unwrap_err(), HandshakeError::Signature);
        // An answer is no proof, not even of the same handshake.
        assert_eq!(first.proof(&answer[64..]), Err(HandshakeError::Signature));
    }

    #[test]
    fn nobody_takes_the_key_of_another() {
        let (victim, thief) = (peer(1), peer(3));
        let named = Dialling { identity: victim, nonce: [11; 32], host: String::new() };
        let (answered_victim, answer) = answered(22, &named.hello());
        let thief_dials = Dialling { identity: thief, nonce: [11; 32], host: String::new() };
        // The answer is for the key that was named.
        assert_eq!(thief_dials.answer(&answer).unwrap_err(), HandshakeError::Signature);
        let (_, answer) = answered(22, &thief_dials.hello());
        let (_, proof) = thief_dials.answer(&answer).unwrap();
        assert_eq!(answered_victim.proof(&proof), Err(HandshakeError::Signature));
    }

    #[test]
    fn the_host_is_bound_and_may_be_known() {
        let dialling = dialling();
        let hello = dialling.hello();
        let known = ["host.example".to_owned(), "10.0.0.1".to_owned()];
        assert!(Answered::new(&peer(2), [22; 32], &known, &hello).is_ok());
        let other = Answered::new(&peer(2), [22; 32], &known[1..], &hello);
        assert_eq!(other.unwrap_err(), HandshakeError::WrongHost);
        // Who sits in between says that it was dialled under the listener's name.
        let elsewhere = Dialling::new(peer(1), [11; 32], "relay.example".into()).unwrap();
        let (_, answer) = answered(22, &hello);
        assert_eq!(elsewhere.answer(&answer).unwrap_err(), HandshakeError::Signature);
        assert!(Dialling::new(peer(1), [0; 32], "x".repeat(256)).is_err());
        assert!(Answered::new(&peer(2), [22; 32], &[], &[&hello[..], &[b'x'; 250]].concat()).is_err());
    }

    #[test]
    fn who_reaches_itself_notices() {
        let dialling = dialling();
        let (_, answer) = Answered::new(&peer(1), [22; 32], &[], &dialling.hello()).unwrap();
        assert_eq!(dialling.answer(&answer).unwrap_err(), HandshakeError::OwnId);
    }

    proptest! {
        #[test]
        fn no_bytes_pass_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(dialling().answer(&bytes).is_err());
            let _ = Answered::new(&peer(2), [22; 32], &[], &bytes);
            prop_assert!(answered(22, &dialling().hello()).0.proof(&bytes).is_err());
        }

        #[test]
        fn no_altered_bit_passes(at in 1usize..400, bit in 0u8..8) {
            let dialling = dialling();
            let (mut hello, flip) = (dialling.hello(), |bytes: &mut [u8], at: usize| bytes[at] ^= 1 << bit);
            let lengths = [hello.len() - 1, 128, 64];
            let at = at % lengths.iter().sum::<usize>();
            if at < lengths[0] {
                flip(&mut hello, at + 1);
            }
            let Ok((answered, mut answer)) = Answered::new(&peer(2), [22; 32], &[], &hello) else { return Ok(()) };
            if let Some(at) = at.checked_sub(lengths[0]).filter(|at| *at < lengths[1]) {
                flip(&mut answer, at);
            }
            let Ok((_, mut proof)) = dialling.answer(&answer) else { return Ok(()) };
            flip(&mut proof, at.checked_sub(lengths[0] + lengths[1]).expect("it got past what is altered before"));
            prop_assert!(answered.proof(&proof).is_err());
        }
    }
}
