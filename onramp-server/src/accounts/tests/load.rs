//! Time: what it must not tell, and what others must not take from those who log in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pmesh::onramp::accounts::{
    AccountStore as _, Accounts, Allowance, LoginError, MemoryStore, Passwords as _, Throttling,
};
use tokio::task::JoinSet;

use crate::accounts::Argon2id;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PASSWORD: &str = "correct horse";

/// How many times longer a login may take while others are attacked. Measured: 0.5 to 2.8 times, at load 4 to 9 on two cores.
const BOUND: f64 = 4.0;
/// How often it is measured: whatever else the machine has to do may make one of them slow.
const ROUNDS: usize = 3;

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

/// An attempt of attackers, by its number: a name, and an address.
type Attempt = fn(u32) -> (String, IpAddr);

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Bob logs in about as fast while many wrong passwords are tried. His addresses are those of his attempts.
async fn others_are_as_fast(attack: &str, attempts: u32, attempt: Attempt, from: fn(u32) -> IpAddr) {
    let mut ratios = Vec::new();
    while ratios.len() < ROUNDS {
        ratios.push(times_as_long(attack, attempts, attempt, from).await);
        if ratios.last().is_some_and(|ratio| *ratio < BOUND) {
            return;
        }
    }
    panic!("{attack}: {ratios:?} times as long");
}

/// How many times as long bob waits to log in meanwhile as alone.
async fn times_as_long(attack: &str, attempts: u32, attempt: Attempt, from: fn(u32) -> IpAddr) -> f64 {
    let accounts = accounts(19_456, Throttling::default()).await;
    let mut alone = Vec::new();
    for number in 0..11 {
        alone.push(time_of(&accounts, "bob", PASSWORD, from(number)).await);
    }
    let next = Arc::new(AtomicU32::new(0));
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        let (accounts, next) = (accounts.clone(), next.clone());
        flood.spawn(async move {
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && number < attempts
            {
                let (name, from) = attempt(number);
                let result = accounts.log_in(&name, &format!("wrong {number}"), from).await;
                assert!(matches!(result, Err(LoginError::Wrong | LoginError::Throttled { .. } | LoginError::Busy)));
                tokio::task::yield_now().await;
            }
        });
    }
    let mut meanwhile = Vec::new();
    while !flood.is_empty() && meanwhile.len() < 31 {
        meanwhile.push(time_of(&accounts, "bob", PASSWORD, from(100 + meanwhile.len() as u32)).await);
        while flood.try_join_next().is_some_and(|attempts| attempts.is_ok()) {}
    }
    flood.shutdown().await;
    let logins = meanwhile.len();
    assert!(logins > 2, "the attack was over too soon to mean anything");
    let [alone, meanwhile] = [alone, meanwhile].map(median);
    let ratio = meanwhile.as_secs_f64() / alone.as_secs_f64();
    println!("{attack}: a login takes {alone:?}, and {meanwhile:?} meanwhile, {ratio:.2} times ({logins} logins)");
    ratio
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_log_in_while_somebody_tries_ten_thousand_passwords() {
    // Half of them for one account, the others for one each.
    let attempt = |number: u32| {
        let name = if number.is_multiple_of(2) { "alice".into() } else { format!("guess {number}") };
        (name, Ipv4Addr::new(198, 51, 100, 1).into())
    };
    others_are_as_fast("from one address", 10_000, attempt, |_| HOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_for_the_first_time_does_so_while_somebody_tries_ten_thousand_passwords() {
    let attempt = |number: u32| (format!("guess {number}"), Ipv4Addr::new(198, 51, 100, 1).into());
    let from = |number| Ipv4Addr::from_bits(0xcb00_7100 + number).into();
    others_are_as_fast("from one address, bob from others", 10_000, attempt, from).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_for_the_first_time_does_so_while_a_few_addresses_try_ten_thousand_passwords() {
    // From six addresses, half of them for one account that is delayed soon, the others for one each.
    let attempt = |number: u32| {
        let name = if number.is_multiple_of(2) { "alice".into() } else { format!("guess {number}") };
        (name, address(number / 2 % 6))
    };
    let from = |number| Ipv4Addr::from_bits(0xcb00_7100 + number).into();
    others_are_as_fast("from six addresses, bob from others", 10_000, attempt, from).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_log_in_while_many_addresses_try_many_accounts() {
    let attempt = |number: u32| (format!("guess {number}"), address(number));
    others_are_as_fast("from many addresses", u32::MAX, attempt, |_| HOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_logs_in_while_many_addresses_try_the_account() {
    let attempt = |number: u32| ("bob".into(), address(number));
    others_are_as_fast("at bob's account", u32::MAX, attempt, |_| HOME).await;
}
