//! Links over real sockets on 127.0.0.1, and within the process over channels of nodes and, under a paused clock, over pipes.

mod channel;
mod hostile;
mod liveness;
mod secure;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::handshake::{Dialling, HandshakeError};
use super::listener::{Accepted, ListenOptions, Listener, listen};
use super::websocket::{DialError, dial};
use super::*;
use crate::identity::Identity;
use crate::transport::websocket::{Dialler, Socket};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

fn peer(secret: u8) -> Identity {
    Identity::from_secret([secret; 32])
}

fn options() -> ListenOptions {
    ListenOptions { hosts: Vec::new(), plain: false, links_per_address: None, peer_timeout: PEER_TIMEOUT }
}

async fn listener(options: ListenOptions) -> (Listener, String) {
    let listener = listen(ANY_PORT, peer(1), options).await.unwrap();
    let url = format!("ws://{}/any/path", listener.local_addr());
    (listener, url)
}

async fn dialled(url: &str, identity: &Identity) -> Result<Link, DialError> {
    dial(&Dialler::default(), url, identity, PEER_TIMEOUT).await
}

async fn accepted(listener: &mut Listener) -> Link {
    match in_time(listener.accept()).await {
        Accepted::Pmesh(link, _) => *link,
        plain => panic!("{plain:?}"),
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// A link, as each side has it: the listener's first.
async fn pair() -> (Link, Link) {
    let (mut listener, url) = listener(options()).await;
    let there = dialled(&url, &peer(2)).await.unwrap();
    (accepted(&mut listener).await, there)
}

/// Waits until so many have been turned away.
async fn refused(listener: &Listener, count: u64) {
    in_time(async {
        while listener.refused().count() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(listener.refused().count(), count);
}

#[tokio::test]
async fn two_know_each_other_and_packets_pass_in_order() {
    let (mut here, mut there) = pair().await;
    assert_eq!((there.key, there.id), (peer(1).peer_id(), OverlayId::of(&peer(1).peer_id())));
    assert_eq!((here.key, here.id), (peer(2).peer_id(), OverlayId::of(&peer(2).peer_id())));
    for (from, to) in [(&here.sender, &mut there.packets), (&there.sender, &mut here.packets)] {
        for size in [0, 1, 100, MAX_PACKET_BYTES] {
            from.try_send(vec![7; size].into()).unwrap();
        }
        for size in [0, 1, 100, MAX_PACKET_BYTES] {
            assert_eq!(in_time(to.next()).await.unwrap(), vec![7; size]);
        }
        assert_eq!(from.try_send(vec![0; MAX_PACKET_BYTES + 1].into()), Err(NotSent::TooLarge));
    }
}

#[tokio::test]
async fn closing_on_either_side_sends_what_is_queued_and_ends_both() {
    for here_closes in [true, false] {
        let (here, there) = pair().await;
        let (closes, mut stays) = if here_closes { (here, there) } else { (there, here) };
        let Link { sender, packets: mut unread, .. } = closes;
        for n in 0..100u8 {
            sender.try_send(vec![n; 1000].into()).unwrap();
        }
        drop(sender);
        for n in 0..100u8 {
            assert_eq!(in_time(stays.packets.next()).await.unwrap(), vec![n; 1000]);
        }
        assert_eq!(in_time(stays.packets.next()).await, None);
        assert_eq!(stays.sender.try_send(Bytes::new()), Err(NotSent::Closed));
        assert_eq!(in_time(unread.next()).await, None);
    }
}

#[tokio::test]
async fn who_reads_no_more_has_closed() {
    let (here, mut there) = pair().await;
    drop(here.packets);
    assert_eq!(in_time(there.packets.next()).await, None);
}

#[tokio::test]
async fn a_slow_reader_fills_the_link_and_loses_nothing() {
    let (mut here, there) = pair().await;
    let mut sent = 0u32;
    // So many in a row without a turn of the link: the queue is full, nobody waits.
    let packet = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[0; 60_000]].concat());
    while there.sender.try_send(packet(sent)).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 17, "1 MiB");
    // The system's buffers are bounded too.
    in_time(async {
        let mut idle = 0;
        while idle < 1000 {
            match there.sender.try_send(packet(sent)) {
                Ok(()) => (sent, idle) = (sent + 1, 0),
                Err(NotSent::Full(_)) => idle += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(sent < 1000, "{sent}");
    for n in 0..sent {
        assert_eq!(in_time(here.packets.next()).await.unwrap()[..4], n.to_be_bytes());
    }
    there.sender.try_send(packet(sent)).unwrap();
    assert!(in_time(here.packets.next()).await.is_some());
}

#[tokio::test]
async fn small_packets_are_bounded_too() {
    let (_here, there) = pair().await;
    let queued = (0..100_000).take_while(|_| there.sender.try_send(Bytes::new()).is_ok()).count();
    assert_eq!(queued, 8192);
}

#[tokio::test]
async fn a_hundred_at_once() {
    let (mut listener, url) = listener(options()).await;
    let diallers: Vec<Identity> = (0..100).map(|_| Identity::generate()).collect();
    let dialling = join_all(diallers.iter().map(|identity| dialled(&url, identity)));
    let accepting = async {
        let mut links = Vec::new();
        for _ in 0..100 {
            links.push(accepted(&mut listener).await);
        }
        links
    };
    let (there, mut here) = in_time(async { tokio::join!(dialling, accepting) }).await;
    for link in there {
        let link = link.unwrap();
        link.sender.try_send(Bytes::copy_from_slice(link.key.as_bytes())).unwrap();
        // Nobody closes it before it has arrived.
        std::mem::forget(link.packets);
        std::mem::forget(link.sender);
    }
    for link in &mut here {
        assert_eq!(in_time(link.packets.next()).await.unwrap(), &peer(1).peer_id().as_bytes()[..]);
    }
    let ids: BTreeSet<OverlayId> = here.iter().map(|link| link.id).collect();
    assert_eq!(ids, diallers.iter().map(|identity| OverlayId::of(&identity.peer_id())).collect());
    assert_eq!(listener.refused().count(), 0);
}

#[tokio::test]
async fn who_dials_itself_notices() {
    let (listener, url) = listener(options()).await;
    assert_eq!(dialled(&url, &peer(1)).await.unwrap_err(), DialError::Handshake(HandshakeError::OwnId));
    refused(&listener, 1).await;
}

#[tokio::test]
async fn a_listener_may_know_its_hosts() {
    let known = |host: &str| ListenOptions { hosts: vec![host.into()], ..options() };
    let (other, url) = listener(known("elsewhere.example")).await;
    assert!(matches!(dialled(&url, &peer(2)).await, Err(DialError::Failed(_))));
    refused(&other, 1).await;
    let (mut own, url) = listener(known("127.0.0.1")).await;
    let _there = dialled(&url, &peer(2)).await.unwrap();
    accepted(&mut own).await;
}

#[tokio::test]
async fn originals_are_told_apart() {
    let (mut open, url) = listener(ListenOptions { plain: true, ..options() }).await;
    let (mut original, protocol) = Dialler::default().dial(&url, &[], 1000).await.unwrap();
    assert_eq!(protocol, None);
    let Accepted::Plain(mut socket, _) = in_time(open.accept()).await else { panic!("not plain") };
    original.send(Frame::text("hello")).await.unwrap();
    assert_eq!(in_time(socket.next()).await.unwrap().unwrap(), Frame::text("hello"));
    let _there = dialled(&url, &peer(2)).await.unwrap();
    accepted(&mut open).await;
    // Unless they are wanted.
    let (closed, url) = listener(options()).await;
    assert!(Dialler::default().dial(&url, &[], 1000).await.is_err());
    refused(&closed, 1).await;
}

#[tokio::test]
async fn links_outlive_their_listener() {
    let (mut listener, url) = listener(options()).await;
    let mut there = dialled(&url, &peer(2)).await.unwrap();
    let here = accepted(&mut listener).await;
    drop(listener);
    // The port is closed as soon as the task is gone.
    in_time(async { while dialled(&url, &peer(2)).await.is_ok() {} }).await;
    here.sender.try_send("still here".into()).unwrap();
    assert_eq!(in_time(there.packets.next()).await.unwrap(), "still here");
}
