//! Time: what it must not tell, and what others must not take from those who log in.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pmesh::onramp::accounts::{
    AccountStore as _, Accounts, Allowance, LoginError, MemoryStore, Passwords as _, Throttling,
};
use tokio::task::JoinSet;

use crate::accounts::Argon2id;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PASSWORD: &str = "correct horse";

async fn accounts(memory_kib: u32, throttling: Throttling) -> Accounts {
    let store = MemoryStore::new();
    // Of a time when hashing was to be cheaper.
    store.create("old", &Argon2id::new(memory_kib / 4, 1, 1).unwrap().hash(PASSWORD)).await.unwrap();
    let passwords = Argon2id::new(memory_kib, 2, 1).unwrap();
    let accounts = Accounts::builder(store, passwords).throttling(throttling).build();
    for name in ["alice", "bob", "gone"] {
        accounts.create(name, PASSWORD).await.unwrap();
    }
    accounts.set_active("gone", false).await.unwrap();
    accounts
}

async fn time_of(accounts: &Accounts, name: &str, password: &str, from: IpAddr) -> Duration {
    let start = Instant::now();
    let result = accounts.log_in(name, password, from).await;
    assert!(matches!(&result, Ok(_) | Err(LoginError::Wrong)), "{result:?}");
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_does_not_tell_whether_there_is_such_an_account() {
    let patient = Allowance { burst: 1000, every: Duration::ZERO };
    let throttling = Throttling { pair: patient, address: patient, account: patient, ..Throttling::default() };
    let accounts = accounts(4096, throttling).await;
    // The fastest of many, in turns, is that which nothing has disturbed.
    let mut fastest = [Duration::MAX; 4];
    for _ in 0..60 {
        for (fastest, name) in fastest.iter_mut().zip(["alice", "nobody", "gone", "old"]) {
            *fastest = time_of(&accounts, name, "wrong horse", HOME).await.min(*fastest);
        }
    }
    println!("wrong password, no such account, not active, an old hash: {fastest:?}");
    for other in &fastest[1..] {
        let ratio = other.as_secs_f64() / fastest[0].as_secs_f64();
        assert!(ratio > 0.67 && ratio < 1.5, "{fastest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_log_in_while_somebody_tries_ten_thousand_passwords() {
    let accounts = accounts(19_456, Throttling::default()).await;
    let mut quiet = Vec::new();
    for _ in 0..11 {
        quiet.push(time_of(&accounts, "bob", PASSWORD, HOME).await);
    }
    let mut flood = JoinSet::new();
    for task in 0..100_u32 {
        let accounts = accounts.clone();
        flood.spawn(async move {
            for attempt in 0..100 {
                // Half of them for one account, the others for one each.
                let name = if task % 2 == 0 { "alice".into() } else { format!("{task} {attempt}") };
                let result = accounts.log_in(&name, "wrong", Ipv4Addr::new(198, 51, 100, 1).into()).await;
                assert!(matches!(result, Err(LoginError::Wrong | LoginError::Throttled { .. } | LoginError::Busy)));
                tokio::task::yield_now().await;
            }
        });
    }
    let mut meanwhile = Vec::new();
    while !flood.is_empty() {
        meanwhile.push(time_of(&accounts, "bob", PASSWORD, HOME).await);
        while flood.try_join_next().is_some_and(|attempts| attempts.is_ok()) {}
    }
    assert!(meanwhile.len() > 2, "the flood was over too soon to mean anything");
    for times in [&mut quiet, &mut meanwhile] {
        times.sort_unstable();
    }
    let [quiet, meanwhile] = [&quiet, &meanwhile].map(|times| times[times.len() / 2]);
    println!("a login takes {quiet:?}, and {meanwhile:?} meanwhile");
    // It waits for one turn at most; the rest is for machines that are busy. Behind the whole flood it would be 50 turns.
    assert!(meanwhile < 8 * quiet, "{quiet:?}, then {meanwhile:?}");
}
