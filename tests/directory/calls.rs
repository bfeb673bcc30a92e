//! Calls to selections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::directory::{CallError, Directory, PoolConfig};
use pmesh::rpc::{self, Failure, Request, Responses, Rpc};
use pmesh::{ConnectError, Offer};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::common::{builder, soon};
use crate::server::{Server, all, caller, one};

#[tokio::test]
async fn modules_answer_fail_and_panic() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let _add = bob.session.typed("Add", async |(a, b): (i64, i64), _| Ok::<_, Failure>(a + b)).unwrap();
    let _fail = bob.session.module("Fail", async |_| Err(Failure::new("no").with_code("because"))).unwrap();
    let _panic = bob.session.module("Panic", async |_| panic!("a bug in the handler")).unwrap();
    let _slow = bob.session.module("Slow", async |_| std::future::pending().await).unwrap();
    let bob_is = alice.session.get("bob").keep(true).timeout(Duration::from_millis(500));
    assert_eq!(one(bob_is.message("Add", json!([1, 2]))).await, Ok(json!(3)));
    let error = async |module: &str| match one(bob_is.message(module, json!(null))).await {
        Err(CallError::Call(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error("Fail").await, rpc::CallError::Failed(Failure::new("no").with_code("because")));
    assert_eq!(error("Panic").await, rpc::CallError::Panicked);
    assert_eq!(error("Nothing").await, rpc::CallError::UnknownModule);
    assert_eq!(error("Slow").await, rpc::CallError::TimedOut);
    assert!(matches!(error("Add").await, rpc::CallError::Malformed(_)));
}

#[tokio::test]
async fn all_peers_are_called_and_who_fails_holds_up_nobody() {
    let server = Server::start(&["alice", "bob", "carol", "dave"]).await;
    let alice = server.log_in("alice").await;
    let (bob, carol, mute) = (server.log_in("bob").await, server.log_in("carol").await, server.log_in("dave").await);
    let refusing = builder().firewall(|_: &Offer| false);
    let refusing = server.log_in_as("dave", refusing, Directory::builder()).await;
    let _echoes = [bob.echo(), carol.echo()];
    alice.sees(&[&bob, &carol, &mute, &refusing]).await;
    let replies = all(alice.session.get("*").message("Echo", "x")).await;
    let result = |number| replies.iter().find(|reply| reply.number == number).unwrap().result.clone();
    for peer in [&bob, &carol] {
        assert_eq!(result(peer.number()), Ok(json!([["alice", alice.number()], "x"])));
    }
    assert_eq!(result(mute.number()), Err(CallError::Call(rpc::CallError::UnknownModule)));
    assert_eq!(result(refusing.number()), Err(CallError::NotConnected(ConnectError::Refused)));
    assert_eq!(replies.len(), 4);
}

#[tokio::test]
async fn streams_are_tagged_by_who_sends_them() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let alice = server.log_in("alice").await;
    let others = [server.log_in("bob").await, server.log_in("carol").await];
    alice.sees(&[&others[0], &others[1]]).await;
    let count = async |request: Request, responses: Responses| {
        for n in 0..request.body().as_u64().unwrap() {
            responses.send(n).await?;
        }
        Ok(())
    };
    let _guards = others.each_ref().map(|other| other.session.streaming("Count", count).unwrap());
    let items = all(alice.session.get("*").stream("Count", 100)).await;
    for name in ["bob", "carol"] {
        let of_one: Vec<Value> =
            items.iter().filter(|item| item.name == name).map(|item| item.result.clone().unwrap()).collect();
        assert_eq!(of_one, (0..100).map(Value::from).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn notifications_arrive() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let (arrived, mut arrivals) = mpsc::channel(8);
    let log = move |request: Request| {
        let arrived = arrived.clone();
        async move {
            arrived.send((caller(&request), request.into_body())).await?;
            Ok(Value::Null)
        }
    };
    let _log = bob.session.module("Log", log).unwrap();
    assert_eq!(one(alice.session.get("*").notify("Log", "hello")).await, Ok(Value::Null));
    let expected = (json!(["alice", alice.number()]), json!("hello"));
    assert_eq!(soon(arrivals.recv()).await, Some(expected));
    assert_eq!(one(alice.session.get("*").notify("Nobody listens", 1)).await, Ok(Value::Null));
}

#[tokio::test]
async fn dropping_the_replies_cancels_the_calls() {
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hang = {
        let (begun, dropped) = (begun.clone(), dropped.clone());
        move |_| {
            let (begun, guard) = (begun.clone(), OnDrop(dropped.clone()));
            async move {
                let _guard = guard;
                begun.notify_one();
                std::future::pending().await
            }
        }
    };
    let _hang = bob.session.module("Hang", hang).unwrap();
    let replies = alice.session.get("bob").message("Hang", json!(null));
    soon(begun.notified()).await;
    drop(replies);
    soon(dropped.notified()).await;
    alice.parted(bob.number()).await;
}

#[tokio::test]
async fn a_peer_that_is_lost_in_a_call_ends_it() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let alice = server.log_in("alice").await;
    let (bob, carol) = (server.log_in("bob").await, server.log_in("carol").await);
    alice.sees(&[&bob, &carol]).await;
    let root = bob.root.clone();
    let die = move |_| {
        let root = root.clone();
        async move {
            root.close().await;
            std::future::pending().await
        }
    };
    let _die = bob.session.module("Work", die).unwrap();
    let _work = carol.session.module("Work", async |_| Ok(json!("done"))).unwrap();
    let replies = all(alice.session.get("*").message("Work", json!(null))).await;
    assert_eq!(replies[0].result, Err(CallError::Call(rpc::CallError::Closed)));
    assert_eq!(replies[1].result, Ok(json!("done")));
}

#[tokio::test]
async fn an_rpc_may_serve_a_directory_and_the_rest_of_the_tree() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, rpc) = (server.log_in("alice").await, Rpc::new());
    let bob = server.log_in_as("bob", builder(), Directory::builder().rpc(&rpc)).await;
    let _serving = rpc.serve(&bob.root).unwrap();
    let _echo = bob.echo();
    alice.sees(&[&bob]).await;
    let said = json!([["alice", alice.number()], 1]);
    assert_eq!(one(alice.session.get("bob").message("Echo", 1)).await, Ok(said));
    assert_eq!(rpc.stray(), 0);
}

#[tokio::test]
async fn two_hundred_peers_that_do_not_answer_make_two_hundred_replies() {
    let names: Vec<String> = (0..200).map(|n| format!("user {n}")).collect();
    let server = Server::start(&["alice"]).await;
    // The bound of one connection and little time: most calls get none.
    let mut others = Vec::new();
    for name in &names {
        server.accounts.create(name, crate::server::PASSWORD).await.unwrap();
        server.accounts.trust("alice", name, name, "alice").await.unwrap();
        others.push(server.connect(name, crate::server::PASSWORD, Directory::builder()).await.unwrap());
    }
    let mut pool = PoolConfig::default();
    pool.wait = Duration::from_millis(100);
    pool.outgoing = 1;
    let alice = server.log_in_with("alice", pool).await;
    assert_eq!(alice.session.peers().len(), 200);
    let mut replies = alice.session.get("*").message("Echo", 1);
    assert!(soon(replies.next()).await.is_some());
    drop(replies);
    let replies = all(alice.session.get("*").message("Echo", 1)).await;
    assert_eq!(replies.len(), 200, "each peer has one");
}

#[tokio::test]
async fn many_peers_that_are_slow_hold_up_nobody() {
    let server = Server::start(&["alice", "bob", "carol"]).await;
    let alice = server.log_in("alice").await;
    let slow: Vec<_> = futures_util::future::join_all((0..80).map(|_| server.log_in("bob"))).await;
    let quick = server.log_in("carol").await;
    alice.sees(&slow.iter().chain([&quick]).collect::<Vec<_>>()).await;
    let hang = async |_| std::future::pending().await;
    let _hang: Vec<_> = slow.iter().map(|bob| bob.session.module("Echo", hang).unwrap()).collect();
    let _echo = quick.echo();
    for bob in &slow {
        soon(alice.session.connect(bob.number())).await.unwrap();
    }
    let mut replies = alice.session.get("*").message("Echo", 1);
    let first = soon(replies.next()).await.unwrap();
    assert_eq!((first.number, first.result), (quick.number(), Ok(json!([["alice", alice.number()], 1]))));
}
