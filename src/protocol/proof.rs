//! How two peers prove who they are, though whoever introduces them may be hostile.
//!
//! DTLS protects a data channel by certificates that the two ends make for the occasion; their fingerprints travel in the
//! offer and the answer (RFC 8122). Who relays those can exchange them and sit in the middle. So each end signs, with
//! the Ed25519 key of its [`PeerId`], what the other is to rely on:
//!
//! ```text
//! offerer, answerer = key, fingerprint, nonce, session, window, maxMessage of that side:
//!     32, 32, 16, 8, 2 x 4 bytes, then 1 and 8 bytes or a single 0; numbers are big-endian
//! O = SHA-256("pmesh offer 1", offerer, offer data as in `hash_value`)
//! A = SHA-256("pmesh answer 1", O, answerer)
//!
//! offer, in its extension field:        signature of "pmesh offer 1", O       by the offerer
//! answer, in its extension field:       signature of "pmesh answer 1", A      by the answerer
//! first message on the data channel:    signature of "pmesh offerer 1", A     by the offerer
//!                                       signature of "pmesh answerer 1", A    by the answerer
//! ```
//!
//! Until the last two are checked, and the certificate that DTLS has seen is the one of the fingerprint, the link is not
//! open: no byte of the application goes either way. `A` covers both keys, both fingerprints, both nonces and who has
//! which role, so
//!
//! - a fingerprint, a key, or anything else in the extension field that was exchanged or altered fits no signature (candidates
//!   and the rest of the descriptions are not signed: they decide which way the encrypted packets go, and no more);
//! - an old answer does not fit the nonce of a new offer; an old offer comes from nobody who holds its certificate;
//! - an answer does not pass for an offer, nor one session's for another's;
//! - an introducer that puts its own key on the fingerprint of somebody else (unknown key share, RFC 8844) is found out by the
//!   signatures inside the channel, which each end makes over both keys as it knows them. libp2p's WebRTC transport runs
//!   its Noise handshake inside the channel for the same reason.
//!
//! Like the identity assertions of RFC 8827, only that a key and not an identity provider vouches for the fingerprint.
//!
//! It does not protect from an introducer that takes the extension field away: then both ends look like original Ps,
//! which have no identity. Who does not want those says whom it expects, or requires identities. Nor does it hide
//! anything from the introducer: keys, candidates and offer data can be read, and introductions can be dropped. In offer
//! data numbers are what JavaScript has (64-bit floats), since originals may relay it: the receiver gets them in one form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::signal::Session;
use crate::identity::{Identity, PeerId};

/// A random number of one call, so that what was signed before fits nothing new.
pub(crate) type Nonce = Base64<16>;

/// Bytes that are text in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base64<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Base64<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base64<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("another length"))
    }
}

/// The member `identity` of an extension field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) key: PeerId,
    pub(crate) nonce: Nonce,
    pub(crate) signature: Base64<64>,
}

/// What else of an extension field is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) session: Session,
    pub(crate) window: (u32, u32),
    pub(crate) max_message: Option<u64>,
}

/// Why a proof is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    #[error("there is no usable proof")]
    Missing,
    #[error("the description has not one SHA-256 fingerprint")]
    Fingerprint,
    #[error("a signature does not fit")]
    Signature,
    #[error("the certificate is another than the one announced")]
    Certificate,
}

/// The SHA-256 fingerprint of a DTLS certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of_certificate(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The one in a session description.
    ///
    /// # Errors
    ///
    /// [`ProofError::Fingerprint`] if there is none, or another besides, or anything that a parser with other ideas of
    /// lines and letters could take for one.
    pub(crate) fn of_description(sdp: &str) -> Result<Self, ProofError> {
        let mut found = None;
        let mut count = 0;
        for line in sdp.split('\n') {
            let Some(value) = line.strip_prefix("a=fingerprint:sha-256 ") else { continue };
            let value = value.strip_suffix('\r').unwrap_or(value);
            let fingerprint = parse_fingerprint(value).ok_or(ProofError::Fingerprint)?;
            if found.is_some_and(|found| found != fingerprint) {
                return Err(ProofError::Fingerprint);
            }
            found = Some(fingerprint);
            count += 1;
        }
        if sdp.to_ascii_lowercase().matches("fingerprint").count() != count {
            return Err(ProofError::Fingerprint);
        }
        found.map(Self).ok_or(ProofError::Fingerprint)
    }
}

#[cfg(test)]
impl Fingerprint {
    /// The line that a description has for it.
    pub(crate) fn line(&self) -> String {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("a=fingerprint:sha-256 {}\r\n", bytes.join(":"))
    }
}

fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

const OFFER: &[u8] = b"pmesh offer 1";
const ANSWER: &[u8] = b"pmesh answer 1";
const OFFERER: &[u8] = b"pmesh offerer 1";
const ANSWERER: &[u8] = b"pmesh answerer 1";

/// What is known of one end: its key, and the certificate that it has for this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Party {
    key: PeerId,
    fingerprint: Fingerprint,
}

/// An offer whose proof was made or checked: the first half of what both ends know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    offerer: Party,
    digest: [u8; 32],
}

impl Offered {
    /// Proves an offer of ours.
    ///
    /// # Errors
    ///
    /// [`ProofError::Fingerprint`].
    pub(crate) fn sign(
        identity: &Identity,
        nonce: Nonce,
        terms: Terms,
        data: &Value,
        sdp: &str,
    ) -> Result<(Proof, Self), ProofError> {
        let offered = Self::new(identity.peer_id(), nonce, terms, data, sdp)?;
        let signature = Base64(identity.sign(&statement(OFFER, &offered.digest)));
        Ok((Proof { key: identity.peer_id(), nonce, signature }, offered))
    }

    /// Checks an offer of theirs.
    ///
    /// # Errors
    ///
    /// [`ProofError`].
    pub(crate) fn verify(proof: &Proof, terms: Terms, data: &Value, sdp: &str) -> Result<Self, ProofError> {
        let offered = Self::new(proof.key, proof.nonce, terms, data, sdp)?;
        proof.check(&statement(OFFER, &offered.digest))?;
        Ok(offered)
    }

    fn new(key: PeerId, nonce: Nonce, terms: Terms, data: &Value, sdp: &str) -> Result<Self, ProofError> {
        let fingerprint = Fingerprint::of_description(sdp)?;
        let offerer = Party { key, fingerprint };
        let mut hash = Sha256::new();
        hash.update(OFFER);
        hash_party(&mut hash, offerer, nonce, terms);
        hash_value(&mut hash, data);
        Ok(Self { offerer, digest: hash.finalize().into() })
    }

    /// Who offers.
    pub(crate) fn key(&self) -> PeerId {
        self.offerer.key
    }

    /// Proves an answer of ours to this offer.
    ///
    /// # Errors
    ///
    /// [`ProofError::Fingerprint`].
    pub(crate) fn sign_answer(
        &self,
        identity: &Identity,
        nonce: Nonce,
        terms: Terms,
        sdp: &str,
    ) -> Result<(Proof, Confirmation), ProofError> {
        let key = identity.peer_id();
        let answerer = Party { key, fingerprint: Fingerprint::of_description(sdp)? };
        let digest = self.answer_digest(answerer, nonce, terms);
        let signature = Base64(identity.sign(&statement(ANSWER, &digest)));
        let confirmation = Confirmation {
            signature: identity.sign(&statement(ANSWERER, &digest)),
            remote: self.offerer,
            expected: statement(OFFERER, &digest),
        };
        Ok((Proof { key, nonce, signature }, confirmation))
    }

    /// Checks an answer of theirs to this offer of ours.
    ///
    /// # Errors
    ///
    /// [`ProofError`].
    pub(crate) fn verify_answer(
        &self,
        identity: &Identity,
        proof: &Proof,
        terms: Terms,
        sdp: &str,
    ) -> Result<Confirmation, ProofError> {
        let remote = Party { key: proof.key, fingerprint: Fingerprint::of_description(sdp)? };
        let digest = self.answer_digest(remote, proof.nonce, terms);
        proof.check(&statement(ANSWER, &digest))?;
        let signature = identity.sign(&statement(OFFERER, &digest));
        Ok(Confirmation { signature, remote, expected: statement(ANSWERER, &digest) })
    }

    fn answer_digest(&self, answerer: Party, nonce: Nonce, terms: Terms) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(ANSWER);
        hash.update(self.digest);
        hash_party(&mut hash, answerer, nonce, terms);
        hash.finalize().into()
    }
}

impl Proof {
    fn check(&self, statement: &[u8]) -> Result<(), ProofError> {
        if self.key.has_signed(statement, &self.signature.0) { Ok(()) } else { Err(ProofError::Signature) }
    }
}

/// What the two ends tell each other inside the channel before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirmation {
    signature: [u8; 64],
    remote: Party,
    expected: Vec<u8>,
}

impl Confirmation {
    /// Who the other end says it is. Proven once its own confirmation is [checked](Self::check).
    pub(crate) fn peer_id(&self) -> PeerId {
        self.remote.key
    }

    /// The first message on the channel.
    pub(crate) fn message(&self) -> &[u8] {
        &self.signature
    }

    /// Checks the other end's first message, and the certificate that DTLS has seen.
    ///
    /// # Errors
    ///
    /// [`ProofError`]: this is not who has signed the offer or the answer.
    pub(crate) fn check(&self, message: &[u8], certificate: &[u8]) -> Result<(), ProofError> {
        if Fingerprint::of_certificate(certificate) != self.remote.fingerprint {
            return Err(ProofError::Certificate);
        }
        let signature = message.try_into().map_err(|_| ProofError::Signature)?;
        if self.remote.key.has_signed(&self.expected, signature) { Ok(()) } else { Err(ProofError::Signature) }
    }
}

fn statement(role: &[u8], digest: &[u8; 32]) -> Vec<u8> {
    [role, digest].concat()
}

/// Everything has a fixed length, or says which follows.
fn hash_party(hash: &mut Sha256, party: Party, nonce: Nonce, terms: Terms) {
    hash.update(party.key.as_bytes());
    hash.update(party.fingerprint.0);
    hash.update(nonce.0);
    hash.update(terms.session.0.to_be_bytes());
    hash.update(terms.window.0.to_be_bytes());
    hash.update(terms.window.1.to_be_bytes());
    match terms.max_message {
        Some(bytes) => {
            hash.update([1]);
            hash.update(bytes.to_be_bytes());
        }
        None => hash.update([0]),
    }
}

/// The form in which offer data is looked at: an introducer can write a number in another way, as `1.0` for `1`.
pub(crate) fn normalize(value: &mut Value) {
    /// Up to here every integer is a 64-bit float.
    const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            let float = number.as_f64().unwrap_or_default();
            *value = if float.fract() == 0.0 && float.abs() <= MAX_SAFE_INTEGER {
                Value::from(float as i64)
            } else {
                Value::from(float)
            };
        }
        Value::Array(values) => values.iter_mut().for_each(normalize),
        Value::Object(members) => members.values_mut().for_each(normalize),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The same for every text that JavaScript takes for the same value: originals parse what they relay, and write it anew.
fn hash_value(hash: &mut Sha256, value: &Value) {
    let length = |hash: &mut Sha256, tag: u8, length: usize| {
        hash.update([tag]);
        hash.update((length as u64).to_be_bytes());
    };
    match value {
        Value::Null => hash.update([0]),
        Value::Bool(value) => hash.update([1, u8::from(*value)]),
        Value::Number(number) => {
            // There is one zero in JSON of JavaScript.
            let number = number.as_f64().unwrap_or_default() + 0.0;
            hash.update([2]);
            hash.update(number.to_bits().to_be_bytes());
        }
        Value::String(text) => {
            length(hash, 3, text.len());
            hash.update(text);
        }
        Value::Array(values) => {
            length(hash, 4, values.len());
            for value in values {
                hash_value(hash, value);
            }
        }
        Value::Object(members) => {
            length(hash, 5, members.len());
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in members {
                length(hash, 3, name.len());
                hash.update(name);
                hash_value(hash, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
