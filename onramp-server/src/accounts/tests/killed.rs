//! Processes that write and are killed: what they have told to be done is done, and nothing is done by halves.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use pmesh::onramp::accounts::{AccountId, AccountStore, Digest, NewToken, StoreError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::places::Schema;
use crate::accounts::SqlStore;

const URL: &str = "PMESH_TEST_KILLED_URL";
const NAME: &str = "PMESH_TEST_KILLED_NAME";

/// The test that a process of this program runs, and then writes instead.
const SELF: &str = "accounts::tests::killed::nothing_told_is_lost_with_sqlite";

const ROUNDS: u64 = 12;
const AT_ONCE: u64 = 3;

/// Of the token that the account of this name can claim.
fn digest(name: &str) -> Digest {
    let mut digest = [0; 32];
    digest[..name.len()].copy_from_slice(name.as_bytes());
    Digest(digest)
}

fn never() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1_000_000)
}

/// What this process is to do instead of the test, if it has been started by one: whose store, and as whom.
fn told_to_write() -> Option<(String, String)> {
    std::env::var(URL).ok().zip(std::env::var(NAME).ok())
}

/// Writes, and says what is done, until the process is killed.
async fn write(url: &str, own: &str) -> ! {
    let say = |line: String| writeln!(std::io::stdout(), "{line}").unwrap();
    let store = SqlStore::open(url).await.unwrap();
    let mut previous: Option<(String, AccountId)> = None;
    let mut number = 0;
    loop {
        let name = format!("{own}-{number}");
        let account = store.create(&name, "hash").await.unwrap();
        say(format!("account {name}"));
        if let Some((issuer_name, issuer)) = &previous {
            let token = NewToken { issuer: *issuer, alias: name.clone(), digest: digest(&name), expires: never() };
            store.add_token(token, None, SystemTime::now()).await.unwrap();
            say(format!("token {name} {issuer_name}"));
            if number % 2 == 0 {
                store.claim(digest(&name), account, None, issuer_name, SystemTime::now()).await.unwrap();
                say(format!("claimed {name} {issuer_name}"));
            }
        }
        previous = Some((name, account));
        number += 1;
    }
}

/// What a process has told until it was killed, after so many lines and some time more.
async fn told_by_one_that_is_killed(url: String, name: String, lines: u64, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", SELF, "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    for _ in 0..lines {
        let read = timeout(Duration::from_secs(60), out.read_line(&mut told)).await.expect("it hangs").unwrap();
        assert!(read > 0, "it has ended by itself: {told}");
    }
    // Not to wait for something, but to kill it anywhere between two lines.
    tokio::time::sleep(after).await;
    child.kill().await.unwrap();
    out.read_to_string(&mut told).await.unwrap();
    // What has no end was not told.
    told.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

async fn nothing_told_is_lost(url: &str) {
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    println!("seed {random}");
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let mut told: HashSet<String> = HashSet::new();
    for round in 0..ROUNDS {
        let mut children = JoinSet::new();
        for number in 0..AT_ONCE {
            let (lines, after) = (1 + next() % 60, Duration::from_micros(next() % 8000));
            let name = format!("{round}-{number}");
            children.spawn(told_by_one_that_is_killed(url.to_owned(), name, lines, after));
        }
        while let Some(child) = children.join_next().await {
            told.extend(child.unwrap());
        }
    }

    let store = SqlStore::open(url).await.unwrap();
    let probe = store.create("probe", "hash").await.unwrap();
    let id = async |name: &str| store.by_name(name).await.unwrap().unwrap_or_else(|| panic!("{name} is lost")).id;
    let trusts = async |a: AccountId, alias: &str, b: AccountId| {
        store.trusted(a).await.unwrap().iter().any(|trusted| trusted.alias == alias && trusted.account == b)
    };
    let (mut accounts, mut claims, mut open) = (0, 0, 0);
    for line in &told {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["account", name] => {
                id(name).await;
                accounts += 1;
            }
            ["claimed", name, issuer] => {
                let (claimer, issuer_id) = (id(name).await, id(issuer).await);
                assert!(trusts(claimer, issuer, issuer_id).await && trusts(issuer_id, name, claimer).await, "{line}");
                claims += 1;
            }
            ["token", name, issuer] if !told.contains(&format!("claimed {name} {issuer}")) => {
                let (claimer, issuer_id) = (id(name).await, id(issuer).await);
                let both = (trusts(claimer, issuer, issuer_id).await, trusts(issuer_id, name, claimer).await);
                match store.claim(digest(name), probe, None, name, SystemTime::now()).await {
                    Ok(_) => assert_eq!(both, (false, false), "{line}"),
                    // It was claimed, and killed before it could tell.
                    Err(StoreError::UnknownToken) => assert_eq!(both, (true, true), "{line}"),
                    other => panic!("{line}: {other:?}"),
                }
                open += 1;
            }
            // Of the harness, too.
            _ => {}
        }
    }
    println!("{accounts} accounts, {claims} claims, {open} open tokens, {} processes killed", ROUNDS * AT_ONCE);
    assert!(accounts > 50 && claims > 10 && open > 10, "too little was told to mean anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost_with_sqlite() {
    if let Some((url, own)) = told_to_write() {
        write(&url, &own).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.db");
    nothing_told_is_lost(&format!("sqlite:{}", file.display())).await;
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let check = sqlx::query("PRAGMA integrity_check").fetch_all(&mut connection).await.unwrap();
    let found: Vec<String> = check.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost_with_postgres() {
    let Some(schema) = Schema::make().await else { return };
    nothing_told_is_lost(&schema.url).await;
    schema.remove().await;
}
