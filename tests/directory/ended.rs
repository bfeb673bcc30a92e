//! Who is not believed any more to be who it was, although it is connected.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use pmesh::directory::{CallError, Directory, DirectoryBuilder, LoginError, SessionEvent, SessionEvents};
use pmesh::rpc::{self, Rpc};
use pmesh::{Address, Node, PeerNumber};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::common::{builder, soon};
use crate::scripted::{Scene, Script};
use crate::server::{Login, PASSWORD, Server, event, one};

fn grace(grace: Duration) -> DirectoryBuilder {
    Directory::builder().grace(grace)
}

/// Whether the other end takes calls over a node.
pub(crate) async fn is_served(rpc: &Rpc, node: &Node) -> bool {
    match soon(rpc.on(node).call("Echo", 1)).await {
        Ok(_) => true,
        Err(rpc::CallError::Refused | rpc::CallError::Closed | rpc::CallError::NotOpen) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits until a peer has left, and returns whether its login was ended.
async fn has_left(events: &mut SessionEvents, peer: PeerNumber) -> bool {
    soon(async {
        loop {
            match events.next().await.unwrap() {
                SessionEvent::PeerDisconnect { number, ended } if number == peer => return ended,
                _ => {}
            }
        }
    })
    .await
}

/// Somebody is logged in as Bob, and has connected to Alice.
struct Stolen {
    server: Server,
    alice: Login,
    thief: Login,
    to_alice: Node,
    /// What happens to Alice.
    events: SessionEvents,
}

impl Stolen {
    async fn begin(grace_of_alice: Duration) -> Self {
        let server = Server::start(&["alice", "bob"]).await;
        let alice = server.log_in_as("alice", builder(), grace(grace_of_alice)).await;
        let thief = server.log_in("bob").await;
        alice.sees(&[&thief]).await;
        thief.sees(&[&alice]).await;
        let to_alice = soon(thief.session.connect(alice.number())).await.unwrap();
        let events = alice.session.events();
        Self { server, alice, thief, to_alice, events }
    }
}

#[tokio::test]
async fn who_was_ended_is_served_no_more_and_every_connection_to_it_is_closed() {
    for change in ["password", "deactivated", "removed", "trust"] {
        let Stolen { server, alice, thief, to_alice, mut events } = Stolen::begin(Duration::MAX).await;
        let _echo = alice.echo();
        let number = thief.number();
        assert!(is_served(thief.session.rpc(), &to_alice).await);
        // She has made the connection her own.
        let to_thief = soon(alice.session.connect(number)).await.unwrap();
        let (begun, mut begins) = mpsc::channel(1);
        let hang = move |_| {
            let begun = begun.clone();
            async move {
                begun.send(()).await?;
                std::future::pending().await
            }
        };
        let _hang = thief.session.module("Hang", hang).unwrap();
        let asked = alice.session.get(number).message("Hang", 1);
        soon(begins.recv()).await.unwrap();
        match change {
            "password" => server.accounts.set_password("bob", "battery staple").await.unwrap(),
            "deactivated" => server.accounts.set_active("bob", false).await.unwrap(),
            "removed" => server.accounts.remove("bob").await.unwrap(),
            _ => soon(alice.session.revoke("bob")).await.unwrap(),
        }
        assert_eq!(one(asked).await, Err(CallError::NotVouched), "{change}");
        soon(to_thief.closed()).await;
        soon(to_alice.closed()).await;
        assert!(has_left(&mut events, number).await);
        assert!(alice.connected().is_empty(), "{change}");
    }
}

#[tokio::test]
async fn the_other_logins_of_an_account_whose_password_was_changed_are_served_no_more() {
    let server = Server::start(&["alice"]).await;
    let alice = server.log_in_as("alice", builder(), grace(Duration::MAX)).await;
    let thief = server.log_in("alice").await;
    alice.sees(&[&thief]).await;
    let _echo = alice.echo();
    let to_alice = soon(thief.session.connect(alice.number())).await.unwrap();
    assert!(is_served(thief.session.rpc(), &to_alice).await);
    soon(alice.session.change_password(PASSWORD, "battery staple")).await.unwrap();
    soon(to_alice.closed()).await;
    assert!(alice.session.peers().is_empty());
    // She is logged in again, by the new password.
    soon(alice.session.connected()).await.unwrap();
}

#[tokio::test]
async fn who_has_left_is_served_until_the_grace_is_over() {
    for short in [false, true] {
        let grace = if short { Duration::from_millis(200) } else { Duration::MAX };
        let Stolen { server, alice, thief, to_alice, mut events } = Stolen::begin(grace).await;
        let _echo = alice.echo();
        let rpc = thief.session.rpc().clone();
        assert!(is_served(&rpc, &to_alice).await);
        // His login cannot be ended any more: he has left by himself.
        thief.session.disconnect().await;
        assert!(!has_left(&mut events, thief.number()).await);
        server.accounts.set_password("bob", "battery staple").await.unwrap();
        if short {
            soon(to_alice.closed()).await;
        } else {
            assert!(is_served(&rpc, &to_alice).await);
        }
    }
}

#[tokio::test]
async fn a_call_to_who_has_left_ends_with_the_grace_and_its_connection() {
    let Stolen { server, alice, thief, to_alice, mut events } = Stolen::begin(Duration::from_millis(200)).await;
    soon(to_alice.close()).await;
    alice.parted(thief.number()).await;
    let (begun, mut begins) = mpsc::channel(1);
    let hang = move |_| {
        let begun = begun.clone();
        async move {
            begun.send(()).await?;
            std::future::pending::<Result<Value, rpc::Failure>>().await
        }
    };
    let _hang = thief.session.module("Hang", hang).unwrap();
    let asked = alice.session.get("bob").message("Hang", 1);
    soon(begins.recv()).await.unwrap();
    // His socket is lost, and he cannot log in again.
    let before = thief.number();
    soon(thief.session.node().unwrap().close()).await;
    assert!(!has_left(&mut events, before).await);
    server.accounts.set_password("bob", "battery staple").await.unwrap();
    assert_eq!(one(asked).await, Err(CallError::NotVouched));
    alice.parted(before).await;
}

#[tokio::test]
async fn who_is_missed_after_an_absence_has_the_grace_from_then_on() {
    let Stolen { server, alice, thief, to_alice, mut events } = Stolen::begin(Duration::from_millis(200)).await;
    let _echo = alice.echo();
    let rpc = thief.session.rpc().clone();
    assert!(is_served(&rpc, &to_alice).await);
    let (address, accounts) = server.stop().await;
    while soon(events.next()).await.unwrap() != SessionEvent::Disconnected {}
    accounts.set_password("bob", "battery staple").await.unwrap();
    // Nobody could say anything against him.
    assert!(is_served(&rpc, &to_alice).await);
    let _server = Server::at(address, accounts).await;
    assert!(!has_left(&mut events, thief.number()).await);
    soon(to_alice.closed()).await;
}

/// Logs in again by itself, with another number.
async fn logs_in_again(login: &Login) {
    let before = login.number();
    event(&login.session, |event| match event {
        SessionEvent::Connected { number } if *number != before => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn who_comes_again_with_the_same_key_goes_on_being_served_over_the_same_connection() {
    for everybody in [false, true] {
        let server = Server::start(&["alice", "bob", "carol"]).await;
        // Longer than it takes to log in again.
        let short = || grace(Duration::from_secs(3));
        let alice = server.log_in_as("alice", builder(), short()).await;
        let bob = server.log_in_as("bob", builder(), short()).await;
        alice.sees(&[&bob]).await;
        bob.sees(&[&alice]).await;
        let _echoes = [alice.echo(), bob.echo()];
        let to_alice = soon(bob.session.connect(alice.number())).await.unwrap();
        let to_bob = soon(alice.session.connect(bob.number())).await.unwrap();
        // Whoever it is that has lost the directory.
        let server = if everybody {
            let (address, accounts) = server.stop().await;
            let again = async { tokio::join!(logs_in_again(&alice), logs_in_again(&bob)) };
            tokio::join!(again, Server::at(address, accounts)).1
        } else {
            let closing = async { bob.session.node().unwrap().close().await };
            tokio::join!(logs_in_again(&bob), soon(closing));
            server
        };
        alice.sees(&[&bob]).await;
        bob.sees(&[&alice]).await;
        // Of who left later the time is over.
        let carol = server.log_in("carol").await;
        alice.sees(&[&bob, &carol]).await;
        bob.sees(&[&alice, &carol]).await;
        for other in [&alice, &bob] {
            let connected = soon(carol.session.connect(other.number())).await.unwrap();
            drop(connected);
        }
        let (a, b) = (carol.root.peer(&address(&alice)).unwrap(), carol.root.peer(&address(&bob)).unwrap());
        carol.session.disconnect().await;
        soon(a.closed()).await;
        soon(b.closed()).await;
        assert!(is_served(bob.session.rpc(), &to_alice).await, "{everybody}");
        assert!(is_served(alice.session.rpc(), &to_bob).await, "{everybody}");
        // What becomes of the new login becomes of the connection.
        server.accounts.set_password("bob", "battery staple").await.unwrap();
        soon(to_bob.closed()).await;
    }
}

fn address(of: &Login) -> Address {
    Address::new(of.number().to_string()).unwrap()
}

#[tokio::test]
async fn who_is_ended_does_not_try_the_password_that_was_ended() {
    let mut scene = Scene::begin().await;
    let close = |reason: &'static str| CloseFrame { code: CloseCode::Library(4001), reason: reason.into() };
    // Without a reason it may be a mistake.
    scene.script.0.close(Some(close(""))).await.unwrap();
    scene.script = Script::accept(&scene.listener).await;
    scene.script.welcome(1, serde_json::json!([]), serde_json::json!([])).await;
    soon(scene.session.connected()).await.unwrap();
    scene.script.0.close(Some(close("the password was changed"))).await.unwrap();
    let error = event(&scene.session, |event| match event {
        SessionEvent::Ended { error } => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error.await, Some(LoginError::Ended { reason: "the password was changed".into() }));
    assert!(scene.listener.accept().now_or_never().is_none(), "nobody has dialled");
}
