//! What happens while the directory is away.

use std::time::Duration;

use futures_util::StreamExt;
use pmesh::directory::{CallError, RequestError, SessionEvent};
use serde_json::json;

use crate::common::soon;
use crate::server::{Server, event, one};

#[tokio::test]
async fn sessions_log_in_again_and_know_who_is_there() {
    let server = Server::start(&["alice", "bob", "carol", "dave"]).await;
    let (alice, bob, carol) = (server.log_in("alice").await, server.log_in("bob").await, server.log_in("carol").await);
    alice.sees(&[&bob, &carol]).await;
    bob.sees(&[&alice, &carol]).await;
    let _echo = bob.echo();
    let before = (alice.number(), bob.number(), carol.number());
    let mut events = alice.session.events();
    let node = soon(alice.session.connect(bob.number())).await.unwrap();

    let (address, accounts) = server.stop().await;
    while soon(events.next()).await.unwrap() != SessionEvent::Disconnected {}
    assert!(!alice.session.is_connected());
    assert_eq!(soon(alice.session.trusted()).await, Err(RequestError::NotConnected));
    // Who was there counts as there, and can be called over what is open.
    assert_eq!(alice.session.peers().len(), 2);
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
    drop(carol.session);
    accounts.trust("alice", "newcomer", "dave", "alice").await.unwrap_err();
    accounts.create("erin", crate::server::PASSWORD).await.unwrap();
    accounts.trust("alice", "newcomer", "erin", "alice").await.unwrap();

    let server = Server::at(address, accounts).await;
    let number = loop {
        if let SessionEvent::Connected { number } = soon(events.next()).await.unwrap() {
            break number;
        }
    };
    assert_eq!((number, alice.session.number() == before.0), (alice.number(), false));
    event(&bob.session, |event| match event {
        SessionEvent::Connected { number } if *number != before.1 => Some(()),
        _ => None,
    })
    .await;
    alice.sees(&[&bob]).await;
    assert_eq!(alice.session.users(), ["bob", "carol", "dave", "newcomer"]);
    // Calls to the new numbers.
    assert!(node.is_open());
    assert_eq!(one(alice.session.get("bob").message("Echo", 2)).await, Ok(json!([["alice", alice.number()], 2])));
    let erin = server.log_in("erin").await;
    alice.sees(&[&bob, &erin]).await;
}

#[tokio::test]
async fn calls_wait_for_the_directory_and_fail_if_the_peer_is_gone_then() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    alice.sees(&[&bob]).await;
    let mut events = alice.session.events();
    let (address, accounts) = server.stop().await;
    while soon(events.next()).await.unwrap() != SessionEvent::Disconnected {}
    let waiting = alice.session.get(bob.number()).message("Echo", 1);
    let _server = Server::at(address, accounts).await;
    assert_eq!(one(waiting).await, Err(CallError::Gone));
}

#[tokio::test]
async fn a_node_that_is_closed_is_made_again() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    let _echo = bob.echo();
    let before = alice.number();
    soon(alice.session.node().unwrap().close()).await;
    event(&alice.session, |event| match event {
        SessionEvent::Connected { number } if *number != before => Some(()),
        _ => None,
    })
    .await;
    alice.sees(&[&bob]).await;
    one(alice.session.get("bob").message("Echo", 1)).await.unwrap();
}

#[tokio::test]
async fn disconnecting_while_the_directory_is_away_takes_no_time() {
    let server = Server::start(&["alice"]).await;
    let alice = server.log_in("alice").await;
    let mut events = alice.session.events();
    server.stop().await;
    while soon(events.next()).await.unwrap() != SessionEvent::Disconnected {}
    tokio::time::timeout(Duration::from_secs(1), alice.session.disconnect()).await.unwrap();
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Ended { error: None }));
    assert_eq!(events.next().await, None);
}
