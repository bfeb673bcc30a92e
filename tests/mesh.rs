//! Peers over real WebRTC on 127.0.0.1, introduced by a real onramp and by each other.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::{Peer, Server, builder, soon};
use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::{CloseReason, Connect, ConnectError, Message, Node, Offer, SendError, TrySendError};
use serde_json::{Value, json};

/// One message of each kind goes from one end to the other, and one back.
async fn talk(a: &Node, b: &Node) {
    for (from, to) in [(a, b), (b, a)] {
        let mut messages = to.messages();
        from.send(json!({"hello": [1, null, "ü"]})).await.unwrap();
        from.send(vec![1, 2, 3]).await.unwrap();
        assert_eq!(soon(messages.next()).await, Some(json!({"hello": [1, null, "ü"]}).into()));
        assert_eq!(soon(messages.next()).await, Some(vec![1, 2, 3].into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_messages_in_both_directions_up_to_256_kib_and_beyond() {
    let server = Server::start().await;
    let (a, b) = (server.peer().await, server.peer().await);
    let (at_a, at_b) = a.meet(&b).await;
    let sizes = [0, 1, 100, 1160, 16 * 1024, 64_959, 64_960, 65_536, 256 * 1024, 3 << 20];
    let mut expected: Vec<Message> = vec![Value::Null.into(), json!(true).into(), json!(-1.5).into(), "".into()];
    for size in sizes {
        expected.push(vec![size as u8; size].into());
        expected.push("ß".repeat(size / 2).into());
        expected.push(json!({"n": [size], "text": "x".repeat(size)}).into());
    }
    for (from, to) in [(&at_a, &at_b), (&at_b, &at_a)] {
        let mut messages = to.messages();
        let send = async {
            for message in &expected {
                from.send(message.clone()).await.unwrap();
            }
        };
        let receive = async {
            for message in &expected {
                assert!(soon(messages.next()).await.as_ref() == Some(message), "another message arrived");
            }
        };
        tokio::join!(send, receive);
    }
    assert_eq!(at_a.send(vec![0; (16 << 20) + 1]).await, Err(SendError::TooLarge { limit: 16 << 20 }));
    talk(&at_a, &at_b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_five_introduced_one_by_one_with_the_onramp_stopped_after_the_first_hop() {
    let server = Server::start().await;
    let a = server.peer().await;
    let b = server.peer().await;
    let (mut via, _) = a.meet(&b).await;
    // The others meet at onramps that the first never sees: B and C, C and D, D and E.
    let mut last = b;
    let mut rest = Vec::new();
    for _ in 0..3 {
        let next_server = Server::start().await;
        let next = next_server.peer().await;
        let onramp = soon(last.root.connect(&next_server.url)).await.unwrap();
        soon(onramp.connect(&next.address)).await.unwrap();
        next_server.stop().await;
        rest.push(std::mem::replace(&mut last, next));
    }
    rest.push(last);
    server.stop().await;
    soon(a.onramp.closed()).await;
    // A reaches C through B, D through C, E through D, each by the address its introducer knows.
    for pair in rest.windows(2) {
        let (introducer, next) = (&pair[0], &pair[1]);
        let known = introducer.root.peer(&next.address).unwrap();
        let mut arriving = next.root.connections();
        via = soon(via.connect(known.address())).await.unwrap();
        let accepted = soon(arriving.next()).await.unwrap();
        soon(accepted.opened()).await.unwrap();
        talk(&via, &accepted).await;
    }
    // None of the introducers is needed any more.
    let end = rest.pop().unwrap();
    for peer in rest {
        peer.root.close().await;
    }
    let back = end.root.peers().into_iter().find(Node::is_open).unwrap();
    talk(&via, &back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_seen_by_the_other_side_and_what_was_sent_arrives() {
    let server = Server::start().await;
    let (a, b) = (server.peer().await, server.peer().await);
    let (at_a, at_b) = a.meet(&b).await;
    let mut gone = b.root.disconnections();
    let mut messages = at_b.messages();
    for n in 0..1000 {
        at_a.send(json!(n)).await.unwrap();
    }
    let closed = tokio::spawn(async move { at_a.close().await });
    for n in 0..1000 {
        assert_eq!(soon(messages.next()).await, Some(json!(n).into()));
    }
    assert_eq!(soon(messages.next()).await, None);
    assert_eq!(soon(closed).await.unwrap(), CloseReason::Local);
    assert_eq!(soon(at_b.closed()).await, CloseReason::Remote);
    assert_eq!(soon(gone.next()).await, Some(at_b));
    // And once more, through the same onramp.
    let (at_a, at_b) = a.meet(&b).await;
    talk(&at_a, &at_b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_peers_in_a_full_mesh_opened_at_once() {
    let server = Server::start().await;
    let peers: Vec<Peer> = join_all((0..20).map(|_| server.peer())).await;
    let started = Instant::now();
    let dials = peers
        .iter()
        .enumerate()
        .flat_map(|(index, peer)| peers[index + 1..].iter().map(|other| soon(peer.onramp.connect(&other.address))));
    let nodes = join_all(dials).await;
    assert_eq!(nodes.len(), 190);
    for node in nodes {
        node.expect("every link opens");
    }
    println!("190 links in {:?}", started.elapsed());
    for (index, peer) in peers.iter().enumerate() {
        for (other_index, other) in peers.iter().enumerate() {
            if index != other_index {
                let node = peer.accepted(&other.address).await;
                node.send(json!([index, other_index])).await.unwrap();
            }
        }
    }
    for (index, peer) in peers.iter().enumerate() {
        assert_eq!(peer.root.peers().len(), 20, "19 peers and the onramp");
        for (other_index, other) in peers.iter().enumerate().filter(|(other, _)| *other != index) {
            let mut messages = peer.root.peer(&other.address).unwrap().messages();
            assert_eq!(soon(messages.next()).await, Some(json!([other_index, index]).into()));
        }
    }
    join_all(peers.iter().map(|peer| soon(peer.root.close()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glare_ends_with_one_connection_on_both_sides() {
    let server = Server::start().await;
    for _ in 0..10 {
        let (a, b) = (server.peer().await, server.peer().await);
        let (at_a, at_b) =
            soon(async { tokio::join!(a.onramp.connect(&b.address), b.onramp.connect(&a.address)) }).await;
        talk(&at_a.unwrap(), &at_b.unwrap()).await;
        assert_eq!((a.root.peers().len(), b.root.peers().len()), (2, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_at_once_and_an_unknown_address_too() {
    let server = Server::start().await;
    let guarded = server.peer_of(builder().firewall(|offer: &Offer| offer.data() == &json!("secret"))).await;
    let a = server.peer().await;
    let started = Instant::now();
    assert_eq!(soon(a.onramp.connect(&guarded.address)).await.unwrap_err(), ConnectError::Refused);
    assert_eq!(soon(a.onramp.connect("nobody")).await.unwrap_err(), ConnectError::Unreachable);
    assert_eq!(soon(a.onramp.connect(&a.address)).await.unwrap_err(), ConnectError::OwnAddress);
    assert!(started.elapsed() < Duration::from_secs(5));
    let node = soon(a.onramp.connect(Connect::to(&guarded.address).offer_data("secret"))).await.unwrap();
    talk(&node, &guarded.accepted(&a.address).await).await;
}

/// A peer that does not read stops its sender and nobody else, and after the pause nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_stops_its_sender_only() {
    let server = Server::start().await;
    let (slow, fast, sender) = (server.peer().await, server.peer().await, server.peer().await);
    let (to_slow, at_slow) = sender.meet(&slow).await;
    let (to_fast, at_fast) = sender.meet(&fast).await;
    let mut unread = at_slow.messages();
    let body = |n: u32| [n.to_be_bytes().as_slice(), &[7; 10_000]].concat();
    let mut sent = 0;
    // Full for good only when it stays full: what is queued may still be on its way.
    let full = async {
        loop {
            match to_slow.try_send(body(sent)) {
                Ok(()) => sent += 1,
                Err(TrySendError::Full(message)) => {
                    let waited = tokio::time::timeout(Duration::from_millis(500), to_slow.send(message)).await;
                    match waited {
                        Ok(result) => {
                            result.unwrap();
                            sent += 1;
                        }
                        Err(_) => return,
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    soon(full).await;
    let bytes = sent as usize * 10_004;
    assert!(bytes < 4 << 20, "{bytes} bytes are on their way to somebody who does not read");
    // Somebody else is served at full speed meanwhile, for 5 seconds.
    let mut served = at_fast.messages();
    let started = Instant::now();
    let mut count = 0u32;
    while started.elapsed() < Duration::from_secs(5) {
        to_fast.send(body(count)).await.unwrap();
        assert!(soon(served.next()).await.unwrap().as_binary().unwrap().starts_with(&count.to_be_bytes()));
        count += 1;
    }
    assert!(count > 1000, "only {count} messages in 5 s");
    // Back at full rate: what was sent, and as much again.
    let more = sent + 1000;
    let sending = tokio::spawn(async move {
        for n in sent..more {
            to_slow.send(body(n)).await.unwrap();
        }
        to_slow
    });
    let started = Instant::now();
    for n in 0..more {
        let message = soon(unread.next()).await.unwrap();
        assert!(message.as_binary().unwrap().starts_with(&n.to_be_bytes()), "message {n} is missing");
    }
    println!("{more} messages of 10 kB in {:?} after the pause", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    soon(sending).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_dropped_closes_its_connections() {
    let server = Server::start().await;
    let (a, b) = (server.peer().await, server.peer().await);
    let (at_a, at_b) = a.meet(&b).await;
    drop(a);
    assert_eq!(soon(at_b.closed()).await, CloseReason::Remote);
    assert_eq!(soon(at_a.closed()).await, CloseReason::RootClosed);
}

/// Nobody starves where there is one thread for all.
#[tokio::test]
async fn a_flood_in_both_directions_on_a_runtime_with_one_thread() {
    const COUNT: usize = 2_000;
    let server = Server::start().await;
    let (a, b) = (server.peer().await, server.peer().await);
    let (at_a, at_b) = a.meet(&b).await;
    let flood = |from: Node, to: Node| async move {
        let mut messages = to.binaries();
        let send = async {
            for n in 0..COUNT {
                from.send(vec![n as u8; 10_000]).await.unwrap();
            }
        };
        let receive = async {
            for n in 0..COUNT {
                let message = soon(messages.next()).await.unwrap();
                assert_eq!((message.len(), message[0]), (10_000, n as u8));
            }
        };
        tokio::join!(send, receive);
    };
    tokio::join!(flood(at_a.clone(), at_b.clone()), flood(at_b, at_a));
}
