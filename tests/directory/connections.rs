//! Which connections calls make.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::directory::{CallError, Directory, PoolConfig};
use pmesh::rpc::Request;
use pmesh::{Address, Event, NodeKind, Offer, Policy};
use serde_json::json;

use crate::common::{builder, soon};
use crate::server::{Login, Server, all, one};

fn pool(change: impl FnOnce(&mut PoolConfig)) -> PoolConfig {
    let mut pool = PoolConfig::default();
    change(&mut pool);
    pool
}

/// The most WebRTC nodes that were there at a time, from now on until the task is aborted.
fn watch_most(login: &Login) -> tokio::sync::watch::Receiver<usize> {
    let (most, seen) = tokio::sync::watch::channel(0);
    let mut events = login.root.events();
    tokio::spawn(async move {
        let mut open = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Connection { node, .. } if node.kind() == NodeKind::WebRtc => drop(open.insert(node.id())),
                Event::Close { node, .. } => drop(open.remove(&node.id())),
                Event::Lagged(_) => panic!("too slow"),
                _ => {}
            }
            most.send_if_modified(|most| std::mem::replace(most, (*most).max(open.len())) < open.len());
        }
    });
    seen
}

#[tokio::test]
async fn a_connection_ends_with_its_last_call_unless_it_is_to_be_kept() {
    let server = Server::start(&["alice", "bob"]).await;
    let keep = pool(|pool| pool.idle = (Duration::from_millis(300), Duration::from_millis(600)));
    let (alice, bob) = (server.log_in_with("alice", keep).await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let _echo = bob.echo();
    let address = Address::new(bob.number().to_string()).unwrap();
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
    alice.parted(bob.number()).await;
    bob.parted(alice.number()).await;

    let kept = alice.session.get("bob").keep(true);
    one(kept.message("Echo", 1)).await.unwrap();
    let node = alice.root.peer(&address).unwrap();
    assert!(node.is_open());
    one(kept.message("Echo", 2)).await.unwrap();
    assert_eq!(alice.root.peer(&address), Some(node.clone()), "the same connection");
    soon(node.closed()).await;
}

#[tokio::test]
async fn thirty_peers_are_called_over_five_connections() {
    let server = Server::start(&["alice", "bob"]).await;
    let alice = server.log_in("alice").await;
    let bobs = join_all((0..30).map(|_| server.log_in("bob"))).await;
    let _echoes: Vec<_> = bobs.iter().map(Login::echo).collect();
    alice.sees(&bobs.iter().collect::<Vec<_>>()).await;
    let most = watch_most(&alice);
    for keep in [false, true] {
        let replies = all(alice.session.get("*").keep(keep).message("Echo", 1)).await;
        assert!(replies.len() == 30 && replies.iter().all(|reply| reply.result.is_ok()), "{replies:?}");
    }
    assert_eq!(*most.borrow(), 5);
}

#[tokio::test]
async fn peers_beyond_the_bound_are_told_that_it_is_busy_and_call_again() {
    let server = Server::start(&["alice", "bob"]).await;
    let pause = pool(|pool| pool.pause = (Duration::from_millis(20), Duration::from_millis(40)));
    let one_only = pool(|pool| pool.incoming = 1);
    let bob = server.log_in_with("bob", one_only).await;
    let _slow = bob
        .session
        .module("Slow", async |_| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(json!("done"))
        })
        .unwrap();
    let alices = join_all((0..6).map(|_| server.log_in_with("alice", pause.clone()))).await;
    for alice in &alices {
        alice
            .sees(&alices.iter().filter(|other| other.number() != alice.number()).chain([&bob]).collect::<Vec<_>>())
            .await;
    }
    let most = watch_most(&bob);
    let calls = alices.iter().map(|alice| one(alice.session.get("bob").message("Slow", 1)));
    assert!(join_all(calls).await.iter().all(|result| *result == Ok(json!("done"))));
    assert!(bob.root.counters().offers_refused > 0, "none was told so");
    // A connection that is being closed at one end may still be there at the other.
    assert!(*most.borrow() <= 2, "{}", *most.borrow());
}

#[tokio::test]
async fn no_user_keeps_the_others_away_and_who_waits_in_vain_hears_that_it_is_busy() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let impatient = pool(|pool| pool.wait = Duration::from_secs(3));
    let bob = server.log_in("bob").await;
    let alices = join_all((0..6).map(|_| server.log_in_with("alice", impatient.clone()))).await;
    let carol = server.log_in("carol").await;
    let _echo = bob.echo();
    let _hold = bob.session.module("Hold", async |_| std::future::pending().await).unwrap();
    carol.sees(&alices.iter().chain([&bob]).collect::<Vec<_>>()).await;
    for alice in &alices {
        while alice.session.get("bob").peers().is_empty() {
            soon(alice.session.events().next()).await.unwrap();
        }
    }
    let mut calls: Vec<_> = alices.iter().map(|alice| alice.session.get("bob").message("Hold", 1)).collect();
    // Those that have no place say so, and the others go on.
    let mut failed = futures_util::stream::select_all(&mut calls);
    for _ in 0..3 {
        let reply = soon(failed.next()).await.unwrap();
        assert_eq!(reply.result, Err(CallError::NotConnected(pmesh::ConnectError::Busy)));
    }
    assert_eq!(bob.connected().len(), 3);
    assert_eq!(one(carol.session.get("bob").message("Echo", 1)).await, Ok(json!([["carol", carol.number()], 1])));
}

#[tokio::test]
async fn everybody_calls_everybody() {
    let server = Server::start(&["alice"]).await;
    let config = pool(|pool| {
        (pool.outgoing, pool.incoming) = (2, 2);
        pool.pause = (Duration::from_millis(20), Duration::from_millis(200));
    });
    let logins = join_all((0..8).map(|_| server.log_in_with("alice", config.clone()))).await;
    let _echoes: Vec<_> = logins.iter().map(Login::echo).collect();
    for login in &logins {
        login.sees(&logins.iter().filter(|other| other.number() != login.number()).collect::<Vec<_>>()).await;
    }
    for keep in [false, true] {
        let calls = logins.iter().map(|login| all(login.session.get("*").keep(keep).message("Echo", 1)));
        for replies in join_all(calls).await {
            assert!(replies.len() == 7 && replies.iter().all(|reply| reply.result.is_ok()), "{replies:?}");
        }
    }
}

#[tokio::test]
async fn what_the_application_connects_is_used_and_stays() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let none = pool(|pool| pool.outgoing = 1);
    let alice = server.log_in_with("alice", none).await;
    let (bob, carol) = (server.log_in("bob").await, server.log_in("carol").await);
    alice.sees(&[&bob, &carol]).await;
    let (_b, _c) = (bob.echo(), carol.echo());
    let node = soon(alice.session.connect(bob.number())).await.unwrap();
    // The only place is taken by a call that does not end.
    let _hang = carol.session.module("Hang", async |_| std::future::pending().await).unwrap();
    let hanging = alice.session.get("carol").message("Hang", 1);
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
    // The other way too.
    bob.sees(&[&alice, &carol]).await;
    let _a = alice.echo();
    one(bob.session.get("alice").message("Echo", 1)).await.unwrap();
    assert!(node.is_open());
    drop(hanging);
    alice.parted(carol.number()).await;
    assert_eq!(alice.connected(), [bob.number().get()]);
}

#[tokio::test]
async fn who_only_uses_a_connection_is_not_cut_off() {
    for is_session in [true, false] {
        who_uses_a_connection_is_not_cut_off(is_session).await;
    }
}

/// By a call of the session, or by one beside it.
async fn who_uses_a_connection_is_not_cut_off(is_session: bool) {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    bob.sees(&[&alice]).await;
    let _echo = bob.echo();
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let (go, gone) = tokio::sync::watch::channel(false);
    let work = move |_: Request| {
        let (begun, mut gone) = (begun.clone(), gone.clone());
        async move {
            begun.send(()).await?;
            gone.wait_for(|go| *go).await?;
            Ok(json!("done"))
        }
    };
    let _work = alice.session.module("Work", work).unwrap();
    // Alice makes the connection, for a call that Bob answers by one of his own.
    let hold = bob.session.module("Hold", async |_| std::future::pending().await).unwrap();
    let holding = alice.session.get("bob").message("Hold", 1);
    let address = Address::new(alice.number().to_string()).unwrap();
    soon(async {
        let mut events = bob.root.events();
        while !bob.root.peer(&address).is_some_and(|node| node.is_open()) {
            events.next().await.unwrap();
        }
    })
    .await;
    let working = tokio::spawn({
        let (session, node) = (bob.session.clone(), bob.root.peer(&address).unwrap());
        async move {
            match is_session {
                true => one(session.get("alice").message("Work", 1)).await,
                false => Ok(session.rpc().on(&node).call("Work", 1).await?),
            }
        }
    });
    soon(begins.recv()).await.unwrap();
    drop((holding, hold));
    // Alice has no call any more, but Bob has.
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
    go.send_replace(true);
    assert_eq!(soon(working).await.unwrap(), Ok(json!("done")));
}

#[tokio::test]
async fn the_firewall_of_the_application_comes_first_and_says_who_calls() {
    let server = Server::start(&["alice", "bob"]).await;
    let (asked, mut questions) = tokio::sync::mpsc::channel(8);
    let firewall = move |offer: &Offer| {
        asked.try_send((offer.from().clone(), offer.via().clone(), offer.peer_id())).unwrap();
        false
    };
    let alice = server.log_in("alice").await;
    let bob = server.log_in_as("bob", builder().firewall(firewall), Directory::builder()).await;
    alice.sees(&[&bob]).await;
    let refused = one(alice.session.get("bob").message("Echo", 1)).await;
    assert_eq!(refused, Err(CallError::NotConnected(pmesh::ConnectError::Refused)));
    let (from, via, peer_id) = questions.recv().await.unwrap();
    assert_eq!(from, *alice.number().to_string());
    assert_eq!(via, *format!("{}/directory", server.url()));
    assert_eq!(peer_id, Some(alice.root.peer_id()));
    assert!(questions.try_recv().is_err(), "a refusal is final");
}

#[tokio::test]
async fn a_peer_of_a_session_introduces_others() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let (alice, bob, carol) = (server.log_in("alice").await, server.log_in("bob").await, server.log_in("carol").await);
    alice.sees(&[&bob, &carol]).await;
    bob.sees(&[&alice, &carol]).await;
    let to_bob = soon(alice.session.connect(bob.number())).await.unwrap();
    soon(bob.session.connect(carol.number())).await.unwrap();
    server.stop().await;
    let to_carol = soon(to_bob.connect(carol.number().to_string())).await.unwrap();
    assert_eq!(to_carol.peer_id(), Some(carol.root.peer_id()));
}

/// Somebody else may call itself by the number of a peer, but not in the directory.
#[tokio::test]
async fn a_number_means_a_peer_only_where_the_directory_says_so() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let _echo = bob.echo();
    // An onramp that gives a stranger the number of Bob as an address.
    let stranger = builder().firewall(Policy::accept_all()).build();
    let liar = liar::Onramp::start(&[("alice", bob.number().to_string())]).await;
    let there = soon(stranger.connect(liar.url())).await.unwrap();
    let via = soon(alice.root.connect(liar.url())).await.unwrap();
    let false_bob = soon(via.connect(bob.number().to_string())).await.unwrap();
    assert_eq!(false_bob.peer_id(), Some(stranger.peer_id()));
    let result = one(alice.session.get("bob").message("Echo", 1)).await;
    assert!(matches!(result, Err(CallError::NotConnected(pmesh::ConnectError::Failed(_)))), "{result:?}");
    soon(false_bob.close()).await;
    drop((there, via));
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
}

/// An onramp that gives addresses as it likes.
mod liar {
    use futures_util::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    pub(super) struct Onramp(String);

    impl Onramp {
        /// Two peers: the first has the given address, whoever comes then the name.
        pub(super) async fn start(names: &[(&'static str, String)]) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("ws://{}", listener.local_addr().unwrap());
            let (second, first) = names[0].clone();
            tokio::spawn(async move {
                let mut sockets = Vec::new();
                for _ in 0..2 {
                    let (stream, _) = listener.accept().await.unwrap();
                    #[allow(clippy::result_large_err, reason = "as the crate has it")]
                    let answer = |_: &Request, mut response: Response| {
                        response.headers_mut().insert("Sec-WebSocket-Protocol", "p".parse().unwrap());
                        Ok(response)
                    };
                    sockets.push(tokio_tungstenite::accept_hdr_async(stream, answer).await.unwrap());
                }
                let [a, b] = <[_; 2]>::try_from(sockets).unwrap();
                let ((mut to_a, mut from_a), (mut to_b, mut from_b)) = (a.split(), b.split());
                let turned = |text: &str, from: &str| {
                    let frame: Value = serde_json::from_str(text).unwrap();
                    json!([7, from, frame[2]]).to_string()
                };
                loop {
                    tokio::select! {
                        Some(Ok(Message::Text(text))) = from_a.next() => {
                            to_b.send(Message::text(turned(&text, &first))).await.unwrap();
                        }
                        Some(Ok(Message::Text(text))) = from_b.next() => {
                            to_a.send(Message::text(turned(&text, second))).await.unwrap();
                        }
                        else => break,
                    }
                }
            });
            Self(url)
        }

        pub(super) fn url(&self) -> String {
            self.0.clone()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_who_call_each_other_at_once_are_answered() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    let _echoes = [alice.echo(), bob.echo()];
    alice.sees(&[&bob]).await;
    bob.sees(&[&alice]).await;
    for _ in 0..30 {
        let call = |from: &Login, to: &Login| from.session.get(to.number()).message("Echo", 1);
        let (there, back) = tokio::join!(one(call(&alice, &bob)), one(call(&bob, &alice)));
        assert_eq!(there, Ok(json!([["alice", alice.number()], 1])));
        assert_eq!(back, Ok(json!([["bob", bob.number()], 1])));
        alice.parted(bob.number()).await;
        bob.parted(alice.number()).await;
    }
}
