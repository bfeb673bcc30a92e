//! Reading accounts again: what others do to them is seen, whatever the store and the other accounts do.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{AccountId, Accounts, StoreError};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::harness::*;
use crate::shared::SharedStore;

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with these users, another service at the same store, and the ids of the users.
async fn two<const N: usize>(
    store: &SharedStore,
    refresh_interval: Duration,
    users: [&str; N],
) -> (Server, Accounts, [AccountId; N]) {
    let builder = Onramp::builder().refresh_interval(refresh_interval);
    let server = Server::start(builder, Accounts::new(store.clone(), Cheap)).await;
    let elsewhere = Accounts::new(store.clone(), Cheap);
    let mut ids = [AccountId(0); N];
    for (id, name) in ids.iter_mut().zip(users) {
        *id = elsewhere.create(name, &password_of(name)).await.unwrap();
    }
    (server, elsewhere, ids)
}

#[tokio::test]
async fn changes_without_end_do_not_hide_what_another_process_does() {
    let store = SharedStore::default();
    let (server, elsewhere, [noisy, ..]) = two(&store, Duration::from_millis(20), ["noisy", "a", "b"]).await;
    let (mut listener, mut a) = (server.peer("noisy").await, server.directory("a").await.0);
    // Who does not read is disconnected.
    let listener = tokio::spawn(async move { while listener.next().await.is_ok() {} });
    // Whenever it is read it has changed once more.
    let accounts = server.accounts.clone();
    store.on_read(move |id| {
        let accounts = accounts.clone();
        async move {
            if id == noisy && accounts.trust("noisy", "b", "b", "noisy").await.is_err() {
                accounts.revoke(noisy, "b").await.unwrap();
            }
            Ok(())
        }
    });
    server.accounts.trust("noisy", "b", "b", "noisy").await.unwrap();
    elsewhere.set_password("a", "another password").await.unwrap();
    assert_eq!(a.closed().await.0, 4001);
    assert!(!listener.is_finished());
}

#[tokio::test]
async fn an_account_that_cannot_be_read_holds_no_other_up() {
    let store = SharedStore::default();
    let (server, _, [stuck, ..]) = two(&store, NEVER, ["stuck", "a"]).await;
    let (_stuck, mut a) = (server.directory("stuck").await, server.directory("a").await.0);
    let stuck_once = Arc::new(AtomicBool::new(false));
    let is_stuck = stuck_once.clone();
    store.on_read(move |id| {
        let is_stuck = is_stuck.clone();
        async move {
            if id == stuck {
                is_stuck.store(true, Ordering::Relaxed);
                pending::<()>().await;
            }
            Ok(())
        }
    });
    server.accounts.set_password("stuck", "another password").await.unwrap();
    soon(async {
        while !stuck_once.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.accounts.set_password("a", "another password").await.unwrap();
    assert_eq!(a.closed().await.0, 4001);
}

#[tokio::test]
async fn a_reading_that_fails_is_done_again_soon() {
    let store = SharedStore::default();
    let (server, elsewhere, [..]) = two(&store, NEVER, ["a", "b"]).await;
    elsewhere.trust("a", "b", "b", "a").await.unwrap();
    let (mut a, (mut b, _)) = (server.directory("a").await.0, server.directory("b").await);
    b.arrived().await;
    a.arrived().await;
    // Those of the session that revokes, those that the change asks for, and the first attempt to do better.
    let failures = AtomicUsize::new(6);
    store.on_read(move |_| {
        let fails = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        async move { if fails { Err(StoreError::Failed("out of order".into())) } else { Ok(()) } }
    });
    assert_eq!(a.answer("revokeTrust", json!({ "name": "b" })).await, Ok(json!(null)));
    while b.json().await != json!({ "type": "userRemove", "data": "a" }) {}
}

#[tokio::test]
async fn a_watch_that_fails_begins_anew() {
    let store = SharedStore::default();
    let (server, _, [fatal, ..]) = two(&store, NEVER, ["fatal", "a"]).await;
    let (_fatal, mut a) = (server.directory("fatal").await, server.directory("a").await.0);
    let panics = AtomicBool::new(true);
    store.on_read(move |id| {
        assert!(id != fatal || !panics.swap(false, Ordering::Relaxed), "this is the panic that is expected");
        async { Ok(()) }
    });
    // Both changes wait when the watch comes to the first.
    server.accounts.set_password("fatal", "another password").await.unwrap();
    server.accounts.set_password("a", "another password").await.unwrap();
    assert_eq!(a.closed().await.0, 4001);
    // And later ones are seen.
    let mut a = server.cookies("a", "another password").await.unwrap();
    a.welcome().await;
    server.accounts.remove("a").await.unwrap();
    assert_eq!(a.closed().await, (4001, "the account was deleted".into()));
}

#[tokio::test]
async fn a_password_is_not_said_to_have_changed_that_may_not_have() {
    let store = SharedStore::default();
    let (server, elsewhere, _) = two(&store, NEVER, ["a", "b"]).await;
    let (mut a, _) = server.directory("a").await;
    for is_active in [false, true] {
        elsewhere.set_active("a", is_active).await.unwrap();
    }
    // Then it is read again.
    server.accounts.trust("a", "b", "b", "a").await.unwrap();
    let (_, told) = a.closed().await;
    assert!(told.contains("deactivated for a while"), "{told}");
}

/// A store serves those who write one after the other. An account with many sessions has one place there.
#[tokio::test]
async fn sessions_of_an_account_write_one_after_the_other() {
    let store = SharedStore::default();
    let (server, _, [many, _]) = two(&store, NEVER, ["many", "one"]).await;
    let (writes, release) = hold(&store, many);
    let mut sessions = Vec::new();
    for number in 0..10 {
        let (mut session, _) = server.directory("many").await;
        let data = json!({ "name": format!("friend {number}") });
        session.send(json!({ "type": "requestToken", "data": data, "id": 1 }).to_string()).await;
        sessions.push(session);
    }
    for number in 0..10 {
        let mut one = server.directory("one").await.0;
        one.answer("requestToken", json!({ "name": format!("friend {number}") })).await.unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    release.add_permits(10);
    for mut session in sessions {
        while session.json().await["type"] != "ok" {}
    }
    assert_eq!(writes.load(Ordering::Relaxed), 10);
}

/// What is asked for by a password that was changed comes to nothing, whoever has changed it and whether or not we have heard of it.
#[tokio::test]
async fn a_login_by_an_earlier_password_opens_nothing() {
    let store = SharedStore::default();
    let (server, elsewhere, [_, friend]) = two(&store, NEVER, ["a", "friend"]).await;
    let (mut thief, _) = server.directory("a").await;
    let token = elsewhere.request_token(friend, None, "a").await.unwrap();
    // Nobody hears of it.
    store.on_read(|_| async { Err(StoreError::Failed("out of order".into())) });
    elsewhere.set_password("a", "another password").await.unwrap();
    let wrong = Err("wrongPassword".to_owned());
    assert_eq!(thief.answer("requestToken", json!({ "name": "thief" })).await, wrong);
    assert_eq!(thief.answer("claimToken", json!({ "name": "thief", "token": token })).await, wrong);
    assert_eq!(thief.answer("inviteUser", json!({ "email": "thief@example.org" })).await, wrong);
    assert_eq!(elsewhere.revoke(friend, "a").await.unwrap_err().code(), "unknownAlias");
}

/// Adding a token of this account takes until it is released. How often that was begun, and what releases it.
fn hold(store: &SharedStore, account: AccountId) -> (Arc<AtomicUsize>, Arc<Semaphore>) {
    let (begun, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let held = (begun.clone(), release.clone());
    store.on_token(move |id| {
        let (begun, release) = held.clone();
        async move {
            if id == account {
                begun.fetch_add(1, Ordering::Relaxed);
                release.acquire().await.unwrap().forget();
            }
            Ok(())
        }
    });
    (begun, release)
}

async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn request_token(name: &str) -> String {
    json!({ "type": "requestToken", "data": { "name": name }, "id": 1 }).to_string()
}

#[tokio::test]
async fn what_waits_when_a_login_ends_is_not_done() {
    let store = SharedStore::default();
    let (server, _, [a, _]) = two(&store, NEVER, ["a", "b"]).await;
    server.accounts.trust("a", "b", "b", "a").await.unwrap();
    let ((mut first, _), (mut second, _), (mut idle, _)) =
        (server.directory("a").await, server.directory("a").await, server.directory("a").await);
    let (begun, release) = hold(&store, a);
    first.send(request_token("x")).await;
    until(|| begun.load(Ordering::Relaxed) == 1).await;
    second.send(json!({ "type": "revokeTrust", "data": { "name": "b" }, "id": 1 }).to_string()).await;
    // It is answered after what was sent before, of which the server has heard by then.
    server.directory("b").await.0.arrived().await;
    server.accounts.set_password("a", "another password").await.unwrap();
    assert_eq!(idle.closed().await.0, 4001);
    release.add_permits(1);
    for session in [&mut first, &mut second] {
        assert_eq!(session.closed().await.0, 4001);
    }
    assert_eq!(server.accounts.trusted(a).await.unwrap().len(), 1);
}

/// The line of an account is no longer than it has logins, and what those have asked for who have gone keeps nobody waiting.
#[tokio::test]
async fn what_waits_when_a_login_goes_is_not_done() {
    let store = SharedStore::default();
    let accounts = Accounts::new(store.clone(), Cheap);
    let a = accounts.create("a", &password_of("a")).await.unwrap();
    accounts.create("b", &password_of("b")).await.unwrap();
    let server =
        Server::start(Onramp::builder().max_logins(2).ping_interval(Duration::from_millis(100)), accounts).await;
    let (begun, release) = hold(&store, a);
    server.directory("a").await.0.send(request_token("first")).await;
    until(|| begun.load(Ordering::Relaxed) == 1).await;
    for _ in 0..5 {
        let session = soon(async {
            loop {
                if let Ok(session) = server.cookies("a", &password_of("a")).await {
                    return session;
                }
            }
        });
        session.await.send(request_token("other")).await;
    }
    until(|| server.handle.stats().open == 0).await;
    let (mut owner, _) = server.directory("a").await;
    owner.send(request_token("last")).await;
    // It has a place in the line by the time that somebody else is answered.
    server.directory("b").await.0.arrived().await;
    release.add_permits(100);
    assert_eq!(owner.json().await["type"], "ok");
    assert_eq!(begun.load(Ordering::Relaxed), 2);
}
