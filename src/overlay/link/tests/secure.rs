//! `wss`: with something in front that ends TLS, as a proxy does.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use super::*;

/// Returns the port and the certificate, which is for `localhost`.
async fn front(behind: SocketAddr) -> (u16, Vec<u8>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut front) = acceptor.accept(stream).await else { return };
                let mut back = TcpStream::connect(behind).await.unwrap();
                let _ = copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    (port, certificate.to_vec())
}

#[tokio::test]
async fn over_tls_to_a_listener_that_knows_its_host() {
    let (mut listener, plain) = listener(ListenOptions { hosts: vec!["localhost".into()], ..options() }).await;
    let (port, certificate) = front(listener.local_addr()).await;
    let trusting = Dialler::new(vec![certificate.into()]);
    let url = format!("wss://LOCALHOST:{port}/neighbours");
    let there = in_time(dial(&trusting, &url, &peer(2), PEER_TIMEOUT)).await.unwrap();
    let mut here = accepted(&mut listener).await;
    assert_eq!((here.key, there.key), (peer(2).peer_id(), peer(1).peer_id()));
    there.sender.try_send("over TLS".into()).unwrap();
    assert_eq!(in_time(here.packets.next()).await.unwrap(), "over TLS");
    assert!(matches!(dialled(&url, &peer(2)).await, Err(DialError::Failed(_))), "an unknown certificate");
    assert!(matches!(dialled(&plain, &peer(2)).await, Err(DialError::Failed(_))), "another host");
}
