//! The overlay over real sockets: WebSockets to begin with, and WebRTC signalled through the overlay itself.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::time::Duration;

use common::{builder, soon};
use futures_util::StreamExt;
use pmesh::onramp::Onramp;
use pmesh::overlay::routing::FingerError;
use pmesh::overlay::routing::chord::ChordConfig;
use pmesh::overlay::{BootstrapFailure, Overlay, OverlayError, OverlayEvent, OverlayId, OverlaySendError};
use pmesh::{Identity, Message, NodeKind, Root};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WITHIN: Duration = Duration::from_secs(20);

/// An overlay that listens.
async fn listening() -> Overlay {
    soon(Overlay::builder(&builder().build()).listen("127.0.0.1:0".parse().unwrap()).start()).await.unwrap()
}

fn url(overlay: &Overlay) -> String {
    format!("ws://{}", overlay.local_addr().unwrap())
}

/// An overlay that begins at others, and has a neighbour.
async fn joined(at: &[&Overlay]) -> Overlay {
    let root = builder().build();
    let builder = at.iter().fold(Overlay::builder(&root), |builder, other| builder.bootstrap(url(other)));
    let overlay = soon(builder.start()).await.unwrap();
    soon(overlay.neighbour(&at[0].id())).await;
    overlay
}

#[tokio::test]
async fn two_that_know_a_third_send_to_each_other() {
    let a = listening().await;
    let (b, c) = (joined(&[&a]).await, joined(&[&a]).await);
    let mut at_c = c.messages();
    soon(b.send_confirmed(c.id(), json!({"hello": 1}), WITHIN)).await.unwrap();
    let message = soon(at_c.next()).await.unwrap();
    assert_eq!((message.from, message.verified), (b.id(), true));
    assert_eq!(message.message, Message::Json(json!({"hello": 1})));
    let mut at_b = b.messages();
    soon(c.send(b.id(), vec![1u8, 2, 3])).await.unwrap();
    assert_eq!(soon(at_b.next()).await.unwrap().message, Message::from(vec![1u8, 2, 3]));
}

#[tokio::test]
async fn a_direct_connection_is_signalled_through_the_overlay() {
    let a = listening().await;
    let (b, c) = (joined(&[&a]).await, joined(&[&a]).await);
    let node = soon(b.connect(c.id())).await.unwrap();
    assert_eq!(node.kind(), NodeKind::WebRtc);
    assert_eq!(node.peer_id().map(|peer| OverlayId::of(&peer)), Some(c.id()));
    a.close().await;
    soon(b.send_confirmed(c.id(), "without the first", WITHIN)).await.unwrap();
    soon(b.disconnect(&c.id())).await;
    assert!(!node.is_open());
}

#[tokio::test]
async fn nobody_has_that_id() {
    let a = listening().await;
    let b = joined(&[&a]).await;
    let nobody = OverlayId::from_bytes([7; 20]);
    let error = soon(b.send_confirmed(nobody, "hello", WITHIN)).await.unwrap_err();
    assert_eq!(error, OverlaySendError::NoRoute);
}

#[tokio::test]
async fn what_was_taken_and_not_sent_is_told_once_for_all() {
    let a = listening().await;
    let b = joined(&[&a]).await;
    let nobody = OverlayId::from_bytes([7; 20]);
    let mut events = b.events();
    for _ in 0..3 {
        soon(b.send(nobody, "hello")).await.unwrap();
    }
    let undelivered = async {
        loop {
            if let Some(OverlayEvent::Undelivered { to, why, messages }) = events.next().await {
                break (to, why, messages);
            }
        }
    };
    assert_eq!(soon(undelivered).await, (nobody, OverlaySendError::NoRoute, 3));
}

#[tokio::test]
async fn urls_that_lead_to_nobody_are_told() {
    let onramp = Onramp::bind("127.0.0.1:0").await.unwrap();
    let at_onramp = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let root = builder().build();
    let nowhere = "ws://127.0.0.1:1/path";
    let overlay = Overlay::builder(&root).listen(address).bootstrap(format!("ws://{address}"));
    let overlay = overlay.bootstrap(format!("{nowhere}?token=secret")).bootstrap(&at_onramp);
    let overlay = soon(overlay.start()).await.unwrap();
    // Who begins to listen late is told too.
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let mut events = overlay.events();
        while found.len() < 3 {
            let event = soon(events.next()).await.unwrap();
            let OverlayEvent::BootstrapFailed { url, why } = event else { continue };
            assert!(found.insert(url.clone(), why).is_none(), "{url} is told again");
        }
        let why = |url: &str| found[url].clone();
        assert_eq!(why(&format!("ws://{address}")), BootstrapFailure::OwnId);
        assert!(matches!(why(nowhere), BootstrapFailure::Failed(_)), "{found:?}");
        let at_onramp = found.keys().find(|url| at_onramp.starts_with(url.trim_end_matches('/'))).unwrap();
        let BootstrapFailure::Denied(denied) = why(at_onramp) else { panic!("{found:?}") };
        assert_eq!((denied.status, &*denied.why), (400, "Offer the WebSocket subprotocol \"pmesh.1\" or \"p\""));
        found.clear();
    }
}

#[tokio::test]
async fn messages_wait_for_who_is_to_be_dialled() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let root = builder().build();
    let b = soon(Overlay::builder(&root).bootstrap(format!("ws://{address}")).start()).await.unwrap();
    let identity = Identity::generate();
    let id = OverlayId::of(&identity.peer_id());
    soon(b.send(id, "plain")).await.unwrap();
    let confirmed = tokio::spawn({
        let b = b.clone();
        async move { b.send_confirmed(id, "confirmed", WITHIN).await }
    });
    let a = builder().identity(identity).build();
    let a = soon(Overlay::builder(&a).listen(address).start()).await.unwrap();
    let mut at_a = a.messages();
    assert_eq!(soon(at_a.next()).await.unwrap().message, Message::from("plain"));
    assert_eq!(soon(confirmed).await.unwrap(), Ok(()));
    // Whom nobody dials, and who dials nobody, waits for nothing.
    b.close().await;
    let alone = builder().build();
    let alone = soon(Overlay::builder(&alone).start()).await.unwrap();
    assert_eq!(soon(alone.send(id, "plain")).await, Err(OverlaySendError::NoRoute));
}

#[tokio::test]
async fn a_stream_starts_over_a_relay_and_goes_on_without_it() {
    let a = listening().await;
    let (b, c) = (joined(&[&a]).await, joined(&[&a]).await);
    let mut listener = c.listen("echo").unwrap();
    tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let stream = soon(b.dial(c.id(), "echo")).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut got = vec![0; 1_000_000];
    soon(read.read_exact(&mut got)).await.unwrap();
    soon(b.connect(c.id())).await.unwrap();
    a.close().await;
    soon(read.read_to_end(&mut got)).await.unwrap();
    soon(writing).await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn datagrams() {
    let a = listening().await;
    let (b, c) = (joined(&[&a]).await, joined(&[&a]).await);
    let (here, there) = (b.datagram_socket(), c.datagram_socket());
    assert_eq!(here.local_addr(), b.id());
    soon(here.send_to(b"ping", c.id())).await.unwrap();
    let mut buffer = [0; 16];
    let (length, from) = soon(there.recv_from(&mut buffer)).await.unwrap();
    assert_eq!((&buffer[..length], from), (&b"ping"[..], b.id()));
}

#[tokio::test]
async fn streams_get_a_direct_connection_by_themselves() {
    let a = listening().await;
    let quiet = |root: &Root| Overlay::builder(root).bootstrap(url(&a)).make_links(false);
    let (b, c) = (builder().build(), builder().build());
    let (b, c) = (soon(quiet(&b).start()).await.unwrap(), soon(quiet(&c).start()).await.unwrap());
    soon(b.neighbour(&a.id())).await;
    soon(c.neighbour(&a.id())).await;
    let mut listener = c.listen("any").unwrap();
    let mut here = soon(b.dial(c.id(), "any")).await.unwrap();
    let mut there = soon(listener.accept()).await.unwrap();
    soon(b.neighbour(&c.id())).await;
    a.close().await;
    soon(here.write_all(b"without the relay")).await.unwrap();
    let mut got = [0; 17];
    soon(there.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"without the relay");
}

#[tokio::test]
async fn peers_of_an_onramp_are_neighbours_and_chord_routes_too() {
    let server = common::Server::start().await;
    let chord = |peer: &common::Peer| Overlay::builder(&peer.root).chord(ChordConfig::default());
    let (a, b, c) = (server.peer().await, server.peer().await, server.peer().await);
    let overlays = [soon(chord(&a).start()).await, soon(chord(&b).start()).await, soon(chord(&c).start()).await];
    let [at_a, at_b, at_c] = overlays.map(Result::unwrap);
    a.meet(&b).await;
    b.meet(&c).await;
    soon(at_a.neighbour(&at_b.id())).await;
    soon(at_c.neighbour(&at_b.id())).await;
    server.stop().await;
    soon(at_a.send_confirmed(at_c.id(), "hello", WITHIN)).await.unwrap();
    // Each is the other's successor or predecessor, and the connection for that is made without the onramp.
    soon(at_a.neighbour(&at_c.id())).await;
    let table = at_a.table();
    assert!(table.iter().any(|row| row.role == "predecessor"), "{table:?}");
}

#[tokio::test]
async fn rows_of_a_finger_table_are_added() {
    let root = builder().build();
    let chord = soon(Overlay::builder(&root).chord(ChordConfig::default()).start()).await.unwrap();
    let rows = |overlay: &Overlay| overlay.table().into_iter().filter(|row| row.role.starts_with("finger")).count();
    assert_eq!(rows(&chord), ChordConfig::default().rows.len());
    assert_eq!(chord.update_finger(3), Ok(()));
    assert_eq!(chord.update_finger_table(), Ok(()));
    assert_eq!(rows(&chord), ChordConfig::default().rows.len() + 1);
    assert_eq!(chord.update_finger(48), Err(FingerError::NoSuchRow));
    let kademlia = listening().await;
    assert_eq!(kademlia.update_finger(3), Err(FingerError::NoFingers));
    assert_eq!(kademlia.update_finger_table(), Err(FingerError::NoFingers));
}

#[tokio::test]
async fn ten_peers_know_each_other_and_lose_the_first() {
    let first = listening().await;
    let mut all = Vec::new();
    for _ in 0..9 {
        all.push(joined(&[&first]).await);
    }
    for a in &all {
        for b in &all {
            if a.id() != b.id() {
                soon(a.neighbour(&b.id())).await;
            }
        }
    }
    first.close().await;
    for pair in all.windows(2) {
        soon(pair[0].send_confirmed(pair[1].id(), "still here", WITHIN)).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_tells_when_the_other_side_has_everything() {
    let a = listening().await;
    let b = joined(&[&a]).await;
    let mut listener = a.listen("any").unwrap();
    let mut here = soon(b.dial(a.id(), "any")).await.unwrap();
    here.write_all(b"all of it").await.unwrap();
    soon(here.delivered()).await.unwrap();
    b.close().await;
    let mut got = String::new();
    soon(soon(listener.accept()).await.unwrap().read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "all of it");
}

#[tokio::test]
async fn a_closed_overlay_says_so_and_makes_room_for_another() {
    let a = listening().await;
    let root = builder().build();
    let b = soon(Overlay::builder(&root).bootstrap(url(&a)).start()).await.unwrap();
    let second = soon(Overlay::builder(&root).start()).await;
    assert!(matches!(second, Err(OverlayError::AlreadyRunning)));
    soon(b.neighbour(&a.id())).await;
    let (socket, mut listener, mut messages) = (b.datagram_socket(), b.listen("any").unwrap(), b.messages());
    let mut at_a = a.messages();
    b.send(a.id(), "the last word").await.unwrap();
    soon(b.close()).await;
    assert_eq!(soon(at_a.next()).await.unwrap().message, "the last word".into(), "what was sent is not lost");
    assert_eq!(b.send(a.id(), "too late").await, Err(OverlaySendError::Closed));
    assert_eq!(b.send_confirmed(a.id(), "too late", WITHIN).await, Err(OverlaySendError::Closed));
    assert!(b.neighbours().is_empty());
    assert!(soon(messages.next()).await.is_none() && soon(listener.accept()).await.is_none());
    for _ in 0..10_000 {
        let _ = soon(socket.send_to(b"nowhere", a.id())).await;
    }
    let c = soon(Overlay::builder(&root).bootstrap(url(&a)).start()).await.unwrap();
    soon(c.neighbour(&a.id())).await;
    soon(root.close()).await;
    assert_eq!(c.send_confirmed(a.id(), "too late", WITHIN).await, Err(OverlaySendError::Closed));
}

#[tokio::test]
async fn what_is_no_url_is_said_at_once() {
    for wrong in ["", "http://localhost", "ws:", "localhost:1"] {
        let started = soon(Overlay::builder(&builder().build()).bootstrap(wrong).start()).await;
        assert!(matches!(started, Err(OverlayError::InvalidUrl(_))), "{wrong}");
    }
}

#[tokio::test]
async fn an_overlay_that_begins_anew_gets_its_neighbours_back() {
    let server = common::Server::start().await;
    let (a, b) = (server.peer().await, server.peer().await);
    a.meet(&b).await;
    let at_a = soon(Overlay::builder(&a.root).start()).await.unwrap();
    let at_b = soon(Overlay::builder(&b.root).start()).await.unwrap();
    soon(at_a.neighbour(&at_b.id())).await;
    at_b.close().await;
    let again = soon(Overlay::builder(&b.root).start()).await.unwrap();
    soon(again.neighbour(&at_a.id())).await;
    soon(again.send_confirmed(at_a.id(), "here again", WITHIN)).await.unwrap();
}
