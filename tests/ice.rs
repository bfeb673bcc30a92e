//! Which local addresses are used, and servers that tell a peer its address from outside.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Server, builder, soon};
use futures_util::StreamExt;
use pmesh::{IceServer, Root};
use tokio::net::UdpSocket;

/// A STUN server (RFC 8489) that answers binding requests. Returns its address and how many it has answered.
async fn stun_server() -> (SocketAddr, Arc<AtomicUsize>) {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    tokio::spawn(async move {
        let mut request = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut request).await {
            let SocketAddr::V4(from) = from else { continue };
            if length < 20 || request[..2] != [0, 1] {
                continue;
            }
            // Binding success, 12 bytes of attributes, the cookie and the transaction; XOR-MAPPED-ADDRESS of IPv4.
            let mut answer = vec![1, 1, 0, 12];
            answer.extend(&request[4..20]);
            answer.extend([0, 0x20, 0, 8, 0, 1]);
            answer.extend((from.port() ^ 0x2112).to_be_bytes());
            answer.extend(from.ip().octets().iter().zip(COOKIE).map(|(byte, key)| byte ^ key));
            count.fetch_add(1, Ordering::Relaxed);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (address, answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_connect_with_a_stun_server_and_with_one_that_does_not_answer() {
    let (stun, answered) = stun_server().await;
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = silent.local_addr().unwrap();
    for (server, shared) in [(stun, false), (silent, false), (stun, true), (silent, true)] {
        let onramp = Server::start().await;
        let servers = || [IceServer { urls: vec![format!("stun:{server}")], ..IceServer::default() }];
        let settings = || if shared { builder().shared_port(0) } else { builder() };
        let before = answered.load(Ordering::Relaxed);
        let a = onramp.peer_of(settings().ice_servers(servers())).await;
        let b = onramp.peer_of(settings().ice_servers(servers())).await;
        let (at_a, at_b) = a.meet(&b).await;
        let mut messages = at_b.messages();
        at_a.send("hello").await.unwrap();
        assert_eq!(soon(messages.next()).await, Some("hello".into()));
        soon(async {
            while server == stun && answered.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filter_sees_every_address_and_loopback_can_be_all_that_is_left() {
    let onramp = Server::start().await;
    let only_loopback =
        || Root::builder().mdns(false).loopback(true).address_filter(|address: IpAddr| address.is_loopback());
    let (a, b) = (onramp.peer_of(only_loopback()).await, onramp.peer_of(only_loopback()).await);
    let (at_a, at_b) = a.meet(&b).await;
    let mut messages = at_a.messages();
    at_b.send("over loopback").await.unwrap();
    assert_eq!(soon(messages.next()).await, Some("over loopback".into()));
}
