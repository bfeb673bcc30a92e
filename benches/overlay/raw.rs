//! QUIC as it comes, over UDP on loopback, both ends in this process: what a stream costs without the overlay.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Result;

const NAME: &str = "localhost";
const CHUNK: usize = 64 * 1024;

/// MB each second.
pub(crate) async fn quic(megabytes: usize) -> Result<f64> {
    let own = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = CertificateDer::from(own.cert.der().to_vec());
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let listening = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into())?;
    let dialling = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = listening.local_addr()?;
    let reading = tokio::spawn(async move {
        let connection = listening.accept().await.ok_or("nobody comes")?.await?;
        let mut stream = connection.accept_uni().await?;
        let begin = Instant::now();
        let (mut buffer, mut bytes) = (vec![0; 4 * CHUNK], 0);
        while let Some(some) = stream.read(&mut buffer).await? {
            bytes += some;
        }
        Result::Ok((bytes, begin.elapsed().as_secs_f64()))
    });
    let connection = dialling.connect_with(client, address, NAME)?.await?;
    let mut stream = connection.open_uni().await?;
    let chunk = vec![7; CHUNK];
    for at in (0..megabytes * 1_000_000).step_by(CHUNK) {
        stream.write_all(&chunk[..CHUNK.min(megabytes * 1_000_000 - at)]).await?;
    }
    stream.finish()?;
    let (bytes, seconds) = reading.await??;
    Ok(bytes as f64 / 1e6 / seconds)
}
