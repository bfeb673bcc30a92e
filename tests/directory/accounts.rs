//! Logging in, trust, and who is there.

use std::time::Duration;

use futures_util::StreamExt;
use pmesh::directory::{Credentials, Directory, LoginError, RequestError, SessionEvent};
use pmesh::onramp::Onramp;
use pmesh::rpc::CallError;
use pmesh::{Root, directory};
use serde_json::json;

use crate::common::{builder, soon};
use crate::server::{PASSWORD, Server, all, event, one};
use crate::tls;

#[tokio::test]
async fn two_accounts_come_to_trust_each_other_by_a_token_and_call() {
    let server = Server::start(&[]).await;
    for name in ["alice", "bob"] {
        server.accounts.create(name, PASSWORD).await.unwrap();
    }
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    let (_a, _b) = (alice.echo(), bob.echo());
    assert!(alice.session.users().is_empty() && bob.session.peers().is_empty());
    let mut events = alice.session.events();
    assert_eq!(events.next().await, Some(SessionEvent::Connected { number: alice.number() }));
    assert!(all(alice.session.get(bob.number()).message("Echo", json!(1))).await.is_empty());

    let token = soon(alice.session.request_token("Bobby")).await.unwrap();
    soon(bob.session.claim_token("Al", &token)).await.unwrap();
    assert_eq!(soon(events.next()).await, Some(SessionEvent::NewUser { alias: "Bobby".into() }));
    let bob_is_there = SessionEvent::PeerConnect { name: "Bobby".into(), number: bob.number() };
    assert_eq!(soon(events.next()).await, Some(bob_is_there));
    bob.sees(&[&alice]).await;
    assert_eq!((alice.session.users(), bob.session.users()), (vec!["Bobby".into()], vec!["Al".into()]));
    assert_eq!(soon(bob.session.trusted()).await.unwrap(), ["Al"]);

    let number = bob.number().get();
    let said = json!([["Al", alice.number()], "hello"]);
    for target in ["*".into(), "Bobby".into(), number.into(), number.to_string().into(), bob.number().into()] {
        let target: directory::Target = target;
        assert_eq!(one(alice.session.get(target).message("Echo", "hello")).await.unwrap(), said);
    }
    assert!(all(alice.session.get("Us").message("Echo", json!(1))).await.is_empty());

    // Trust ends, and with it the connections that it has brought about.
    let node = soon(alice.session.connect(bob.number())).await.unwrap();
    let beside = alice.session.rpc().on(&node);
    assert_eq!(soon(beside.call("Echo", "hello")).await, Ok(said));
    soon(alice.session.revoke("Bobby")).await.unwrap();
    bob.sees(&[]).await;
    assert!(bob.session.peers().is_empty() && bob.session.users().is_empty());
    alice.sees(&[]).await;
    soon(node.closed()).await;
    assert_eq!(soon(beside.call("Echo", "hello")).await, Err(CallError::NotOpen));
}

#[tokio::test]
async fn other_logins_of_an_account_are_us() {
    let server = Server::start(&["alice", "bob"]).await;
    let (first, second, bob) = (server.log_in("alice").await, server.log_in("alice").await, server.log_in("bob").await);
    let _echoes = [first.echo(), second.echo(), bob.echo()];
    first.sees(&[&second, &bob]).await;
    let us = all(first.session.get("Us").message("Echo", json!(1))).await;
    assert_eq!(us.len(), 1);
    assert_eq!((us[0].name.as_str(), us[0].number), ("Us", second.number()));
    assert_eq!(us[0].result, Ok(json!([["Us", first.number()], 1])));
    bob.sees(&[&first, &second]).await;
    let names: Vec<_> = all(bob.session.get("alice").message("Echo", json!(1))).await;
    assert!(names.len() == 2 && names.iter().all(|reply| reply.name == "alice" && reply.result.is_ok()));
    second.session.disconnect().await;
    first.sees(&[&bob]).await;
    assert!(!first.session.users().contains(&"Us".into()));
}

#[tokio::test]
async fn tokens_fail_with_reasons() {
    let server = Server::start(&["alice", "bob"]).await;
    server.accounts.create("carol", PASSWORD).await.unwrap();
    let (alice, carol) = (server.log_in("alice").await, server.log_in("carol").await);
    let claim = async |token: &str| soon(carol.session.claim_token("Al", token)).await;
    assert_eq!(claim("nonsense").await, Err(RequestError::UnknownToken));
    assert_eq!(soon(alice.session.request_token("bob")).await, Err(RequestError::AliasTaken));
    assert!(matches!(soon(alice.session.request_token("*")).await, Err(RequestError::Invalid(_))));
    let token = soon(alice.session.request_token("Carol")).await.unwrap();
    assert_eq!(soon(alice.session.claim_token("Me", &token)).await, Err(RequestError::OwnToken));
    claim(&token).await.unwrap();
    assert_eq!(claim(&token).await, Err(RequestError::UnknownToken));
    assert_eq!(soon(carol.session.revoke("Nobody")).await, Err(RequestError::UnknownAlias));
    let invitation = soon(alice.session.invite("dave@example.org")).await.unwrap();
    assert!(!invitation.secret.is_empty() && invitation.expires_in.as_secs() > 3600);
    assert!(matches!(soon(alice.session.invite("nobody")).await, Err(RequestError::Invalid(_))));
}

#[tokio::test]
async fn logins_fail_with_reasons() {
    let server = Server::start(&["alice"]).await;
    let log_in =
        async |name: &str, password: &str| server.connect(name, password, Directory::builder()).await.map(drop);
    assert_eq!(log_in("nobody", PASSWORD).await, Err(LoginError::WrongPassword));
    for wrong in ["wrong", "wrong too", "wrong", "not right"] {
        assert_eq!(log_in("alice", wrong).await, Err(LoginError::WrongPassword));
    }
    let throttled = log_in("alice", "wrong").await;
    assert!(matches!(throttled, Err(LoginError::Throttled { retry_after: Some(_) })), "{throttled:?}");
    assert_eq!(log_in("a:b", PASSWORD).await, Err(LoginError::InvalidName));

    // An onramp without accounts, a port where nobody is, and a host beyond loopback.
    let open = Onramp::bind("127.0.0.1:0").await.unwrap();
    let url = open.url();
    let running = tokio::spawn(open.run(std::future::pending::<()>()));
    let at = async |url: &str| soon(Directory::connect(url, "alice", PASSWORD)).await.map(drop);
    assert!(matches!(at(&url).await, Err(LoginError::NotADirectory { .. })));
    running.abort();
    let (address, _) = server.stop().await;
    assert!(matches!(at(&format!("ws://{address}")).await, Err(LoginError::Unreachable(_))));
    assert_eq!(at("ws://directory.invalid").await, Err(LoginError::Plaintext));
    assert!(matches!(at("http://127.0.0.1").await, Err(LoginError::InvalidUrl(_))));
}

#[tokio::test]
async fn who_is_logged_in_too_often_hears_that() {
    let server = Server::start(&["alice"]).await;
    let onramp = Onramp::builder().accounts(server.accounts.clone()).max_logins(1);
    let onramp = onramp.bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    let _running = tokio::spawn(onramp.run(std::future::pending::<()>()));
    let log_in = || soon(Directory::connect(&url, "alice", PASSWORD));
    let _first = log_in().await.unwrap();
    let second = log_in().await.map(drop);
    assert_eq!(second, Err(LoginError::TooManyLogins { retry_after: Some(Duration::from_secs(60)) }));
}

#[tokio::test]
async fn directories_are_reached_by_wss_if_their_certificate_is_trusted() {
    let server = Server::start(&["alice", "bob"]).await;
    let (url, certificate) = tls::front(&server.url()).await;
    let log_in = async |root: &Root| {
        soon(Directory::builder().root(root).connect(&url, Credentials::new("alice", PASSWORD))).await
    };
    let error = log_in(&builder().build()).await.unwrap_err();
    assert!(matches!(error, LoginError::Unreachable(_)), "{error:?}");
    let root = builder().trust_certificate(certificate).build();
    let (alice, bob) = (log_in(&root).await.unwrap(), server.log_in("bob").await);
    let _echo = bob.echo();
    bob.sees(&[&crate::server::Login { session: alice.clone(), root }]).await;
    while alice.peers().is_empty() {
        event(&alice, |event| matches!(event, SessionEvent::PeerConnect { .. }).then_some(())).await;
    }
    one(alice.get("bob").message("Echo", 1)).await.unwrap();
}

#[tokio::test]
async fn a_session_survives_a_new_password_and_ends_with_its_account() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob) = (server.log_in("alice").await, server.log_in("bob").await);
    let before = alice.number();
    let wrong = soon(alice.session.change_password("not mine", "battery staple")).await;
    assert_eq!(wrong, Err(RequestError::WrongPassword));
    soon(alice.session.change_password(PASSWORD, "battery staple")).await.unwrap();
    let number = event(&alice.session, |event| match event {
        SessionEvent::Connected { number } if *number != before => Some(*number),
        _ => None,
    });
    assert_eq!(number.await, alice.number());
    alice.sees(&[&bob]).await;
    // The other one has no way to know the new one.
    server.accounts.set_password("bob", "changed by somebody").await.unwrap();
    let error = event(&bob.session, |event| match event {
        SessionEvent::Ended { error } => Some(error.clone()),
        _ => None,
    });
    let Some(LoginError::Ended { reason }) = error.await else { panic!("the password was changed") };
    assert!(reason.starts_with("the password was changed"), "{reason}");
    assert_eq!(soon(bob.session.trusted()).await, Err(RequestError::NotConnected));
    soon(alice.session.connected()).await.unwrap();
    soon(alice.session.delete_account("battery staple")).await.unwrap();
    event(&alice.session, |event| matches!(event, SessionEvent::Ended { .. }).then_some(())).await;
    // The root is the application's.
    assert!(alice.root.peers().is_empty());
    soon(alice.root.close()).await;
}

#[tokio::test]
async fn a_session_ends_with_its_last_handle_and_with_its_root() {
    let server = Server::start(&["alice", "bob"]).await;
    let (alice, bob, again) = (server.log_in("alice").await, server.log_in("bob").await, server.log_in("bob").await);
    alice.sees(&[&bob, &again]).await;
    drop(bob.session);
    alice.sees(&[&again]).await;
    let mut events = again.session.events();
    again.root.close().await;
    alice.sees(&[]).await;
    let mut last = None;
    while let Some(event) = soon(events.next()).await {
        last = Some(event);
    }
    assert_eq!(last, Some(SessionEvent::Ended { error: Some(LoginError::RootClosed) }));
    // A session with a root of its own closes it.
    let own = soon(Directory::connect(&server.url(), "bob", PASSWORD)).await.unwrap();
    let root: Root = own.root().clone();
    soon(own.disconnect()).await;
    let late = root.connect(server.url()).await;
    assert_eq!(late.unwrap_err(), pmesh::ConnectError::RootClosed);
    let closed = builder().build();
    closed.close().await;
    let directory = Directory::builder().root(&closed);
    let error = soon(directory.connect(&server.url(), Credentials::new("bob", PASSWORD))).await;
    assert_eq!(error.unwrap_err(), LoginError::RootClosed);
}

#[tokio::test]
async fn the_tree_is_told_who_is_there() {
    let server = Server::start(&["alice", "bob"]).await;
    let bob = server.log_in("bob").await;
    let alice = server.log_in("alice").await;
    let directory = alice.session.node().unwrap();
    assert_eq!(directory.kind(), pmesh::NodeKind::Directory);
    assert_eq!(directory.own_address().unwrap(), alice.number().to_string().as_str());
    let mut announced = directory.announcements();
    assert_eq!(soon(announced.next()).await.unwrap(), bob.number().to_string().as_str());
    let again = server.log_in("bob").await;
    assert_eq!(soon(announced.next()).await.unwrap(), again.number().to_string().as_str());
    let mut events = alice.root.events();
    soon(again.session.disconnect()).await;
    loop {
        if let pmesh::Event::PeerLeft { via, address } = soon(events.next()).await.unwrap() {
            assert_eq!((via, address.as_str()), (directory, again.number().to_string().as_str()));
            break;
        }
    }
}
