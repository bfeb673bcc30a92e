//! The service, over the store in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::*;
use crate::lock::lock;

mod throttled;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const PASSWORD: &str = "correct horse";

/// Counts what is hashed, and what is checked against nothing.
#[derive(Clone, Default)]
pub(crate) struct Plain(Arc<(AtomicUsize, AtomicUsize)>);

impl Plain {
    fn checked(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    fn against_nothing(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl Passwords for Plain {
    fn hash(&self, password: &str) -> String {
        format!("plain:{password}")
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        if hash.is_none() {
            self.0.1.fetch_add(1, Ordering::Relaxed);
        }
        hash == Some(&self.hash(password))
    }
}

async fn accounts() -> (Accounts, Plain, AccountId) {
    let passwords = Plain::default();
    let accounts = Accounts::new(MemoryStore::new(), passwords.clone());
    let alice = accounts.create("alice", PASSWORD).await.unwrap();
    (accounts, passwords, alice)
}

#[tokio::test]
async fn logging_in() {
    let (accounts, passwords, alice) = accounts().await;
    let account = accounts.log_in("alice", PASSWORD, HOME).await.unwrap();
    assert_eq!((account.id, &*account.name), (alice, "alice"));
    for (name, password) in [("alice", "wrong"), ("alice", ""), ("Alice", PASSWORD), ("bob", PASSWORD)] {
        assert!(matches!(accounts.log_in(name, password, HOME).await, Err(LoginError::Wrong)), "{name}");
    }
    assert_eq!((passwords.checked(), passwords.against_nothing()), (5, 2));
    accounts.set_active("alice", false).await.unwrap();
    assert!(matches!(accounts.log_in("alice", PASSWORD, HOME).await, Err(LoginError::Wrong)));
    assert_eq!(passwords.against_nothing(), 3, "whether it is active is not told by the time it takes");
    accounts.set_active("alice", true).await.unwrap();
    assert!(accounts.log_in("alice", PASSWORD, HOME).await.is_ok());
    // No account can have such a name or password: nothing is hashed, nothing is looked up.
    for (name, password) in [("", PASSWORD), ("a\0", PASSWORD), ("alice", &*"x".repeat(2000))] {
        assert!(matches!(accounts.log_in(name, password, HOME).await, Err(LoginError::Wrong)));
    }
    assert_eq!(passwords.checked(), 7);
}

#[tokio::test]
async fn too_many_attempts_at_once_are_turned_away() {
    let passwords = Plain::default();
    let accounts = Accounts::builder(MemoryStore::new(), passwords).attempts_at_once(10, 0).build();
    assert!(matches!(accounts.log_in("alice", PASSWORD, HOME).await, Err(LoginError::Busy)));
}

/// Passwords of which one takes for ever to check, until the sender is gone.
struct Stuck(Plain, Mutex<Receiver<()>>);

impl Passwords for Stuck {
    fn hash(&self, password: &str) -> String {
        self.0.hash(password)
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        let is_right = self.0.verify(password, hash);
        if password == "stuck" {
            let _ = lock(&self.1).recv();
        }
        is_right
    }
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// Until so many passwords have begun to be checked, and so many more attempts than that have come as far as they get.
async fn settle(passwords: &Plain, checked: usize) {
    while passwords.checked() < checked {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn strangers_do_not_keep_those_waiting_who_were_there() {
    let (passwords, (release, stuck)) = (Plain::default(), sync_channel(1));
    let builder = Accounts::builder(MemoryStore::new(), Stuck(passwords.clone(), Mutex::new(stuck)));
    let accounts = builder.hashing_at_once(1).attempts_at_once(1, 1).build();
    accounts.create("alice", PASSWORD).await.unwrap();
    accounts.log_in("alice", PASSWORD, HOME).await.unwrap();
    let strangers = [1, 2].map(|number| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.log_in("bob", "stuck", address(number)).await.is_err() })
    });
    settle(&passwords, 2).await;
    assert!(matches!(accounts.log_in("alice", PASSWORD, ELSEWHERE).await, Err(LoginError::Busy)));
    assert!(accounts.log_in("alice", PASSWORD, HOME).await.is_ok());
    drop(release);
    for stranger in strangers {
        assert!(stranger.await.unwrap());
    }
}

/// Attempts that are delayed do not have the places of those who wait for a turn, and a few addresses do not have all places.
#[tokio::test(start_paused = true)]
async fn delayed_attempts_of_few_addresses_keep_nobody_out() {
    let once = Allowance { burst: 1, every: Duration::from_secs(60) };
    let throttling = Throttling { account: once, ..Throttling::default() };
    let builder = Accounts::builder(MemoryStore::new(), Plain::default());
    let accounts = builder.throttling(throttling).attempts_at_once(4, 8).build();
    accounts.create("alice", PASSWORD).await.unwrap();
    accounts.create("bob", PASSWORD).await.unwrap();
    for name in ["x", "bob"] {
        assert!(accounts.log_in(name, "wrong", address(0)).await.is_err());
    }
    let crowd: Vec<_> = (0..8)
        .map(|number| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.log_in("x", "wrong", address(1 + number / 4)).await })
        })
        .collect();
    settle(&Plain::default(), 0).await;
    // One who has mistyped, and one whose account is delayed as well.
    assert!(accounts.log_in("alice", "wrong", HOME).await.is_err());
    assert!(accounts.log_in("alice", PASSWORD, HOME).await.is_ok());
    assert!(accounts.log_in("bob", PASSWORD, ELSEWHERE).await.is_ok());
    let mut busy = 0;
    for attempt in crowd {
        busy += usize::from(matches!(attempt.await.unwrap(), Err(LoginError::Busy)));
    }
    assert_eq!(busy, 1, "it had more than its share");
}

/// Right passwords are not throttled. An account that sends many from many addresses has not all places, nor all turns.
#[tokio::test]
async fn one_account_keeps_no_other_waiting_where_both_are_known() {
    let (passwords, (release, stuck)) = (Plain::default(), sync_channel(100));
    let builder = Accounts::builder(MemoryStore::new(), Stuck(passwords.clone(), Mutex::new(stuck)));
    let accounts = builder.hashing_at_once(1).attempts_at_once(100, 20).build();
    accounts.create("mallory", "not stuck").await.unwrap();
    accounts.create("carol", PASSWORD).await.unwrap();
    accounts.log_in("carol", PASSWORD, HOME).await.unwrap();
    for number in 0..20 {
        accounts.log_in("mallory", "not stuck", address(number)).await.unwrap();
    }
    let before = passwords.checked();
    let attempt = |number| {
        let accounts = accounts.clone();
        async move { accounts.log_in("mallory", "stuck", address(number)).await }
    };
    let crowd: Vec<_> = (0..40).map(|number| tokio::spawn(attempt(number % 20))).collect();
    settle(&passwords, before + 1).await;
    let carol = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.log_in("carol", PASSWORD, HOME).await }
    });
    settle(&passwords, 0).await;
    // That which is being checked, and the one that was next.
    release.send(()).unwrap();
    release.send(()).unwrap();
    let carol = tokio::time::timeout(Duration::from_secs(20), carol).await;
    assert!(carol.expect("she waits for more than two").unwrap().is_ok());
    drop(release);
    for attempt in crowd {
        assert!(attempt.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn whoever_has_failed_keeps_nobody_else_waiting() {
    let (passwords, (release, stuck)) = (Plain::default(), sync_channel(1));
    let builder = Accounts::builder(MemoryStore::new(), Stuck(passwords.clone(), Mutex::new(stuck)));
    let accounts = builder.hashing_at_once(2).build();
    accounts.create("alice", PASSWORD).await.unwrap();
    assert!(accounts.log_in("alice", "wrong", ELSEWHERE).await.is_err());
    let attacks: Vec<_> = ["alice", "bob", "carol"]
        .map(|name| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.log_in(name, "stuck", ELSEWHERE).await.is_err() })
        })
        .into();
    while passwords.checked() < 2 {
        tokio::task::yield_now().await;
    }
    // Nothing is known of these, and no place was ever free but one.
    accounts.create("dora", PASSWORD).await.unwrap();
    let login = tokio::time::timeout(Duration::from_secs(20), accounts.log_in("dora", PASSWORD, HOME)).await;
    assert!(login.expect("it waits for others").is_ok());
    assert_eq!(passwords.checked(), 3);
    drop(release);
    for attack in attacks {
        assert!(attack.await.unwrap());
    }
}

#[tokio::test]
async fn bearer_tokens_end_with_the_password_and_the_account() {
    let (accounts, _, alice) = accounts().await;
    assert!(matches!(accounts.log_in_by_bearer("", HOME).await, Err(LoginError::Wrong)));
    let bearer = accounts.bearer("alice", PASSWORD, HOME).await.unwrap();
    assert_eq!((bearer.token.len(), bearer.expires_in), (43, Duration::from_secs(300)));
    assert!(!format!("{bearer:?}").contains(&bearer.token) && !format!("{bearer:?}").contains(PASSWORD));
    for _ in 0..2 {
        assert_eq!(accounts.log_in_by_bearer(&bearer.token, ELSEWHERE).await.unwrap().id, alice);
    }
    accounts.change_password(alice, PASSWORD, "another horse", HOME).await.unwrap();
    assert!(matches!(accounts.log_in_by_bearer(&bearer.token, HOME).await, Err(LoginError::Wrong)));
    assert!(matches!(accounts.log_in("alice", PASSWORD, HOME).await, Err(LoginError::Wrong)));

    let bearer = accounts.bearer("alice", "another horse", HOME).await.unwrap();
    // As another process would do it, of which we hear nothing.
    accounts.0.store.set_password_hash(alice, None, "plain:a third horse").await.unwrap();
    assert!(matches!(accounts.log_in_by_bearer(&bearer.token, HOME).await, Err(LoginError::Wrong)));

    let bearer = accounts.bearer("alice", "a third horse", HOME).await.unwrap();
    accounts.set_active("alice", false).await.unwrap();
    accounts.set_active("alice", true).await.unwrap();
    assert!(matches!(accounts.log_in_by_bearer(&bearer.token, HOME).await, Err(LoginError::Wrong)));

    let bearer = accounts.bearer("alice", "a third horse", HOME).await.unwrap();
    // Nobody has looked at it in between.
    accounts.0.store.set_active(alice, false).await.unwrap();
    accounts.0.store.set_active(alice, true).await.unwrap();
    assert!(matches!(accounts.log_in_by_bearer(&bearer.token, HOME).await, Err(LoginError::Wrong)));

    let bearer = accounts.bearer("alice", "a third horse", HOME).await.unwrap();
    accounts.delete_account(alice, "a third horse", HOME).await.unwrap();
    assert!(matches!(accounts.log_in_by_bearer(&bearer.token, HOME).await, Err(LoginError::Wrong)));
}

/// Passwords, and what is done while one is checked.
#[derive(Clone, Default)]
struct Meanwhile(Plain, Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl Passwords for Meanwhile {
    fn hash(&self, password: &str) -> String {
        self.0.hash(password)
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        self.1.get().inspect(|work| work());
        self.0.verify(password, hash)
    }
}

#[tokio::test]
async fn an_account_is_not_deleted_by_a_password_that_is_changed_meanwhile() {
    let passwords = Meanwhile::default();
    let accounts = Accounts::new(MemoryStore::new(), passwords.clone());
    let alice = accounts.create("alice", PASSWORD).await.unwrap();
    let (others, runtime) = (accounts.clone(), tokio::runtime::Handle::current());
    let meanwhile = move || runtime.block_on(others.set_password("alice", "another horse")).unwrap();
    assert!(passwords.1.set(Box::new(meanwhile)).is_ok());
    let error = accounts.delete_account(alice, PASSWORD, HOME).await.unwrap_err();
    assert_eq!(error.code(), "wrongPassword");
    assert!(accounts.0.store.by_id(alice).await.unwrap().is_some());
}

/// Passwords that were hashed in another way before.
struct Renewed;

impl Passwords for Renewed {
    fn hash(&self, password: &str) -> String {
        format!("new:{password}")
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        hash.and_then(|hash| hash.split_once(':')).is_some_and(|(_, hashed)| hashed == password)
    }

    fn is_current(&self, hash: &str) -> bool {
        hash.starts_with("new:")
    }
}

#[tokio::test]
async fn an_old_hash_is_made_anew_at_the_next_login() {
    let store = MemoryStore::new();
    let alice = store.create("alice", &format!("old:{PASSWORD}")).await.unwrap();
    let accounts = Accounts::new(store, Renewed);
    let hash = async || accounts.0.store.by_id(alice).await.unwrap().unwrap().password_hash;
    assert!(accounts.log_in("alice", "wrong", HOME).await.is_err());
    assert_eq!(hash().await, format!("old:{PASSWORD}"));
    let bearer = accounts.bearer("alice", PASSWORD, HOME).await.unwrap();
    assert_eq!(hash().await, format!("new:{PASSWORD}"));
    // It is the same password: what one has got by it stays.
    assert!(accounts.log_in_by_bearer(&bearer.token, HOME).await.is_ok());
    assert!(accounts.is_current(&bearer.account).await.unwrap());
    assert!(accounts.log_in("alice", PASSWORD, HOME).await.is_ok());
}

#[tokio::test]
async fn whether_a_login_still_holds() {
    let (accounts, _, _) = accounts().await;
    let account = accounts.log_in("alice", PASSWORD, HOME).await.unwrap();
    assert!(accounts.is_current(&account).await.unwrap());
    accounts.set_password("alice", "another horse").await.unwrap();
    assert!(!accounts.is_current(&account).await.unwrap());
    let account = accounts.log_in("alice", "another horse", HOME).await.unwrap();
    accounts.set_active("alice", false).await.unwrap();
    assert!(!accounts.is_current(&account).await.unwrap());
    accounts.remove("alice").await.unwrap();
    assert!(!accounts.is_current(&account).await.unwrap());
}

#[tokio::test]
async fn changes_are_told_to_those_who_serve_sessions() {
    let (accounts, _, alice) = accounts().await;
    let bob = accounts.create("bob", PASSWORD).await.unwrap();
    let mut changes = accounts.subscribe();
    let trust = Trust { a: alice, alias_of_b: "Bob".into(), b: bob, alias_of_a: "Ali".into() };

    let token = accounts.request_token(alice, None, "Bob").await.unwrap();
    let claimed = accounts.clone().claim_token(bob, None, "Ali", &token).await.unwrap();
    assert_eq!(claimed, Claimed { issuer: alice, issuer_alias: "Bob".into() });
    assert_eq!(changes.next().await, Some(AccountChange::TrustAdded(trust.clone())));
    assert_eq!(accounts.revoke(alice, "Bob").await.unwrap(), bob);
    assert_eq!(changes.next().await, Some(AccountChange::TrustEnded(trust.clone())));
    accounts.trust("alice", "Bob", "bob", "Ali").await.unwrap();
    assert_eq!(changes.next().await, Some(AccountChange::TrustAdded(trust.clone())));
    accounts.change_password(bob, PASSWORD, "another horse", HOME).await.unwrap();
    assert_eq!(changes.next().await, Some(AccountChange::Closed(bob)));
    accounts.set_active("bob", false).await.unwrap();
    assert_eq!(changes.next().await, Some(AccountChange::Closed(bob)));
    accounts.set_active("bob", true).await.unwrap();
    accounts.delete_account(alice, PASSWORD, HOME).await.unwrap();
    assert_eq!(changes.next().await, Some(AccountChange::Closed(alice)));
    assert_eq!(changes.next().await, Some(AccountChange::TrustEnded(trust)));

    for _ in 0..2000 {
        accounts.set_password("bob", PASSWORD).await.unwrap();
    }
    assert_eq!(changes.next().await, Some(AccountChange::Lagged));
    assert_eq!(changes.next().await, Some(AccountChange::Closed(bob)));
    let mut changes = accounts.subscribe();
    drop(accounts);
    assert_eq!(changes.next().await, None);
}

#[tokio::test]
async fn invitations() {
    let (accounts, passwords, alice) = accounts().await;
    assert!(matches!(accounts.invite(alice, None, "nobody").await, Err(AccountError::InvalidEmail(Invalid::NoEmail))));
    let Invite { secret, .. } = accounts.invite(alice, None, "bob@example.org").await.unwrap();
    for (given, name, password, code) in [
        (&*secret, "", PASSWORD, "invalidName"),
        (&secret, "bob", "short", "invalidPassword"),
        ("guessed", "bob", PASSWORD, "unknownToken"),
        (&secret, "alice", PASSWORD, "nameTaken"),
    ] {
        assert_eq!(accounts.accept_invite(given, name, password, HOME).await.unwrap_err().code(), code);
    }
    let bob = accounts.accept_invite(&secret, "bob", PASSWORD, HOME).await.unwrap();
    assert_eq!(accounts.log_in("bob", PASSWORD, HOME).await.unwrap().id, bob);
    let again = accounts.accept_invite(&secret, "carol", PASSWORD, HOME).await.unwrap_err();
    assert_eq!(again.code(), "unknownToken");
    assert_eq!(passwords.checked(), 1);
}

#[tokio::test]
async fn what_is_no_name_alias_or_password_is_told() {
    let (accounts, _, alice) = accounts().await;
    let code = |result: Result<(), AccountError>| result.unwrap_err().code();
    assert_eq!(code(accounts.create("a:b", PASSWORD).await.map(drop)), "invalidName");
    assert_eq!(code(accounts.create("alice", PASSWORD).await.map(drop)), "nameTaken");
    assert_eq!(code(accounts.create("bob", "1234567").await.map(drop)), "invalidPassword");
    assert_eq!(code(accounts.request_token(alice, None, "Us").await.map(drop)), "invalidAlias");
    assert_eq!(code(accounts.claim_token(alice, None, "17", "x").await.map(drop)), "invalidAlias");
    assert_eq!(code(accounts.claim_token(alice, None, "Bob", "x").await.map(drop)), "unknownToken");
    assert_eq!(code(accounts.revoke(alice, "Bob").await.map(drop)), "unknownAlias");
    assert_eq!(code(accounts.change_password(alice, "wrong", "another horse", HOME).await), "wrongPassword");
    assert_eq!(code(accounts.change_password(alice, PASSWORD, "short", HOME).await), "invalidPassword");
    assert_eq!(code(accounts.delete_account(alice, "wrong", HOME).await), "wrongPassword");
    assert_eq!(code(accounts.remove("bob").await), "unknownAccount");
    assert_eq!(accounts.log_in("alice", PASSWORD, HOME).await.unwrap().id, alice);
}

#[tokio::test]
async fn a_login_by_an_earlier_password_opens_nothing() {
    let (accounts, _, alice) = accounts().await;
    let bob = accounts.create("bob", PASSWORD).await.unwrap();
    let token = accounts.request_token(bob, None, "Ali").await.unwrap();
    accounts.set_password("alice", "another horse").await.unwrap();
    let code = |result: Result<(), AccountError>| result.unwrap_err().code();
    assert_eq!(code(accounts.request_token(alice, Some(0), "Bob").await.map(drop)), "wrongPassword");
    assert_eq!(code(accounts.claim_token(alice, Some(0), "Bob", &token).await.map(drop)), "wrongPassword");
    assert_eq!(code(accounts.invite(alice, Some(0), "a@b").await.map(drop)), "wrongPassword");
    assert!(accounts.claim_token(alice, Some(1), "Bob", &token).await.is_ok());
}

#[tokio::test]
async fn tokens_end_in_time() {
    let accounts = Accounts::builder(MemoryStore::new(), Plain::default()).token_lifetime(Duration::ZERO).build();
    let alice = accounts.create("alice", PASSWORD).await.unwrap();
    let bob = accounts.create("bob", PASSWORD).await.unwrap();
    let token = accounts.request_token(alice, None, "Bob").await.unwrap();
    assert_eq!(accounts.claim_token(bob, None, "Ali", &token).await.unwrap_err().code(), "expired");
}

#[tokio::test]
async fn times_may_be_as_long_as_they_are() {
    let builder = Accounts::builder(MemoryStore::new(), Plain::default()).token_lifetime(Duration::MAX);
    let accounts = builder.bearer_lifetime(Duration::MAX).invite_lifetime(Duration::MAX).build();
    let alice = accounts.create("alice", PASSWORD).await.unwrap();
    let bearer = accounts.bearer("alice", PASSWORD, HOME).await.unwrap();
    assert_eq!(accounts.log_in_by_bearer(&bearer.token, HOME).await.unwrap().id, alice);
    assert!(
        accounts.request_token(alice, None, "Bob").await.is_ok() && accounts.invite(alice, None, "a@b").await.is_ok()
    );
}
