//! Who a peer is: an Ed25519 key pair for each root (RFC 8032), and the id that others know it by.
//!
//! How two peers prove their ids to each other is told in [`crate::protocol::proof`].

mod file;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::file::IdentityFileError;

/// Who a peer is: its Ed25519 public key.
///
/// As text it has 52 characters, the base32 of RFC 4648 in lower case and without padding; upper case is read too. It
/// never changes as long as the root keeps its [`Identity`], whatever addresses introducers give it.
///
/// ```
/// use pmesh::{Identity, PeerId};
///
/// let id = Identity::generate().peer_id();
/// assert_eq!(id.to_string().parse::<PeerId>(), Ok(id));
/// assert!("nobody".parse::<PeerId>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

/// The text or the bytes are no [`PeerId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a peer id")]
pub struct InvalidPeerId;

static TEXT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification: Specification = BASE32_NOPAD.specification();
    specification.symbols.make_ascii_lowercase();
    specification.translate.from = ('A'..='Z').collect();
    specification.translate.to = ('a'..='z').collect();
    specification.encoding().expect("the alphabet of base32 in lower case is one")
});

impl PeerId {
    /// The id of this public key.
    ///
    /// # Errors
    ///
    /// [`InvalidPeerId`] for bytes that are no public key, and for the few keys of small order, for which anybody can make
    /// signatures.
    pub fn from_bytes(key: [u8; 32]) -> Result<Self, InvalidPeerId> {
        match VerifyingKey::from_bytes(&key) {
            Ok(valid) if !valid.is_weak() => Ok(Self(key)),
            _ => Err(InvalidPeerId),
        }
    }

    /// The public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the holder of the private key has signed this.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&TEXT.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<Self, InvalidPeerId> {
        let bytes = TEXT.decode(text.as_bytes()).map_err(|_| InvalidPeerId)?;
        Self::from_bytes(bytes.try_into().map_err(|_| InvalidPeerId)?)
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'_, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Keeps [derived secrets](Identity::secret_for) apart from all other hashes of a key.
const SECRET_DOMAIN: &[u8] = b"pmesh derived secret 1\0";

/// The key pair of a root. Whoever has it can pass for the root.
///
/// A root makes a new one at its start, unless it is [given one](crate::RootBuilder::identity). Cloning shares the key; the last
/// clone erases it from its memory. Printing it shows the [`PeerId`] only.
#[derive(Clone)]
pub struct Identity(Arc<SigningKey>);

impl Identity {
    /// A new one, from a cryptographic random number generator.
    pub fn generate() -> Self {
        Self::from_secret(rand::random())
    }

    /// The one of this secret: an Ed25519 private key, 32 bytes that nobody can guess.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(&secret)))
    }

    /// Who this is.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// A secret that only we and this peer can compute: X25519 (RFC 7748) with both keys converted from Ed25519 to its curve. One
    /// key for signing and for this is safe: Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021.
    ///
    /// `None` if it would be zero, as for a key of small order (RFC 7748, section 6.1). It has structure: derive keys from it.
    pub(crate) fn agree(&self, peer: &PeerId) -> Option<Zeroizing<[u8; 32]>> {
        let theirs = VerifyingKey::from_bytes(&peer.0).ok()?.to_montgomery();
        let ours = Zeroizing::new(self.0.to_scalar_bytes());
        let secret = Zeroizing::new(theirs.mul_clamped(*ours).to_bytes());
        (*secret != [0; 32]).then_some(secret)
    }

    /// A secret for one purpose: the same whenever the identity is. Who knows it learns nothing about the key or others.
    pub(crate) fn secret_for(&self, purpose: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(SECRET_DOMAIN)
            .chain_update(self.0.as_bytes())
            .chain_update(purpose)
            .finalize()
            .into()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.peer_id() == other.peer_id()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_survive_text_and_json(secret: [u8; 32]) {
            let id = Identity::from_secret(secret).peer_id();
            let text = id.to_string();
            prop_assert_eq!(text.len(), 52);
            prop_assert_eq!(text.parse(), Ok(id));
            prop_assert_eq!(text.to_uppercase().parse(), Ok(id));
            prop_assert_eq!(serde_json::from_str::<PeerId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text: String) {
            if let Ok(id) = text.parse::<PeerId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn only_the_key_signs() {
        let (ours, theirs) = (Identity::generate(), Identity::generate());
        let signature = ours.sign(b"words");
        assert!(ours.peer_id().has_signed(b"words", &signature));
        assert!(!ours.peer_id().has_signed(b"other words", &signature));
        assert!(!theirs.peer_id().has_signed(b"words", &signature));
    }

    #[test]
    fn a_known_key_has_its_known_id() {
        // RFC 8032, section 7.1, test 1.
        let secret = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let id = Identity::from_secret(secret.try_into().unwrap()).peer_id();
        assert_eq!(id.to_string(), "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena");
    }

    #[test]
    fn two_peers_agree_on_a_known_secret() {
        // Computed with Python's `cryptography` (OpenSSL): X25519 of the scalars that RFC 8032, section 5.1.5, makes of the secrets.
        let (a, b) = (Identity::from_secret([1; 32]), Identity::from_secret([2; 32]));
        let secret = a.agree(&b.peer_id()).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&*secret),
            "4181d7302557342bdb6d061c4b1eebea828ecb625c3368b7111680793307220b"
        );
        assert_eq!(b.agree(&a.peer_id()), Some(secret.clone()));
        let c = Identity::from_secret([3; 32]);
        assert_ne!(c.agree(&a.peer_id()), Some(secret));
    }

    #[test]
    fn there_is_no_secret_with_a_key_of_small_order() {
        // y = -1 and y = 0: the points of order 2 and 4.
        let mut minus_one = [255; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for key in [minus_one, [0; 32]] {
            assert_eq!(Identity::generate().agree(&PeerId(key)), None);
        }
    }

    #[test]
    fn keys_for_which_anybody_can_sign_are_no_ids() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        for key in [[0; 32], neutral] {
            assert_eq!(PeerId::from_bytes(key), Err(InvalidPeerId));
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = [7; 32];
        let printed = format!("{:?}", Identity::from_secret(secret));
        assert_eq!(printed, format!("Identity({})", Identity::from_secret(secret).peer_id()));
    }
}
