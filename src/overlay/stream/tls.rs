//! TLS 1.3 between two Ed25519 keys: raw public keys (RFC 7250) on both sides, no certificates.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureAlgorithm,
    SignatureScheme,
};

use crate::identity::{Identity, PeerId};
use crate::overlay::OverlayId;

/// The name of what is spoken above TLS, and its version.
const ALPN: &[u8] = b"pmesh-stream/1";

/// The SubjectPublicKeyInfo of an Ed25519 key (RFC 8410) is this and the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Makes the name of an id one that TLS takes for that of a server.
const NAME_SUFFIX: &str = ".pmesh";

const HAS_TLS13: &str = "the cryptography of ring has what TLS 1.3 needs";
const HAS_AES: &str = "the cryptography of ring has the cipher of QUIC's first packets";

/// The name by which TLS is told whom we dial.
pub(super) fn name(id: &OverlayId) -> String {
    format!("{id}{NAME_SUFFIX}")
}

/// Whose key the other side of an open connection has proven to hold.
pub(super) fn peer(connection: &quinn::Connection) -> Option<PeerId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    public_key(keys.first()?)
}

/// Of the side that dials.
pub(super) fn client(identity: &Identity) -> QuicClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .expect(HAS_TLS13)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection proves both keys anew, and the name is for the verifier only.
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    QuicClientConfig::try_from(config).expect(HAS_AES)
}

/// Of the side that is dialled.
pub(super) fn server(identity: &Identity) -> QuicServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .expect(HAS_TLS13)
        .with_client_cert_verifier(Arc::new(Verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).expect(HAS_AES)
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let key = CertificateDer::from(spki(&identity.peer_id()));
    Arc::new(CertifiedKey::new(vec![key], Arc::new(Key(identity.clone()))))
}

fn spki(peer: &PeerId) -> Vec<u8> {
    [&SPKI_PREFIX[..], peer.as_bytes()].concat()
}

fn public_key(spki: &CertificateDer<'_>) -> Option<PeerId> {
    PeerId::from_bytes(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?).ok()
}

/// The private key, which stays with the identity.
#[derive(Debug)]
struct Key(Identity);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0.peer_id()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Checks keys and what is signed with them. Of who dials it cannot know the address: see [`peer`].
#[derive(Debug)]
struct Verifier;

impl Verifier {
    fn signature(
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let signature = signed.signature().try_into().ok().filter(|_| signed.scheme == SignatureScheme::ED25519);
        match (public_key(key), signature) {
            (Some(peer), Some(signature)) if peer.has_signed(message, signature) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            _ => Err(CertificateError::BadSignature.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = public_key(key).ok_or(CertificateError::BadEncoding)?;
        let name = name.to_str();
        let dialled = name.strip_suffix(NAME_SUFFIX).and_then(|id| id.parse().ok());
        if dialled != Some(OverlayId::of(&peer)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        public_key(key).ok_or(CertificateError::BadEncoding)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
