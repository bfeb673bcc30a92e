//! What only databases do.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pmesh::onramp::accounts::{AccountStore, Digest, NewToken};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::places::Schema;
use crate::accounts::SqlStore;
use crate::accounts::database::{Database, OpenError, is_exposed};

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("accounts.db").display())
}

async fn names(store: &SqlStore) -> Vec<String> {
    store.list(None, 100).await.unwrap().into_iter().map(|account| account.name).collect()
}

/// As several processes would do it.
async fn many_make_the_tables_at_once(url: String) {
    let mut attempts = JoinSet::new();
    for number in 0..8 {
        let url = url.clone();
        attempts.spawn(async move {
            let store = SqlStore::open(&url).await.unwrap();
            for account in 0..5 {
                store.create(&format!("{number} {account}"), "hash").await.unwrap();
            }
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        attempt.unwrap();
    }
    assert_eq!(names(&SqlStore::open(&url).await.unwrap()).await.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_make_the_tables_of_sqlite_at_once() {
    let folder = tempfile::tempdir().unwrap();
    many_make_the_tables_at_once(url(&folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_make_the_tables_of_postgres_at_once() {
    let Some(schema) = Schema::make().await else { return };
    many_make_the_tables_at_once(schema.url.clone()).await;
    schema.remove().await;
}

/// As two servers would do it, on one database.
async fn of_two_claims_from_two_processes_one_succeeds(url: &str) {
    let stores = [SqlStore::open(url).await.unwrap(), SqlStore::open(url).await.unwrap()];
    let [a, b] = ["a", "b"].map(|name| stores[0].create(name, "hash"));
    let (issuer, claimer) = (a.await.unwrap(), b.await.unwrap());
    let (now, other) = (SystemTime::now(), stores[1].create("c", "hash").await.unwrap());
    for round in 0..50 {
        let digest = Digest([round; 32]);
        let token = NewToken { issuer, alias: "X".into(), digest, expires: now + Duration::from_secs(600) };
        stores[0].add_token(token, None, now).await.unwrap();
        let claims = (stores[0].claim(digest, claimer, None, "A", now), stores[1].claim(digest, other, None, "A", now));
        let code = match tokio::join!(claims.0, claims.1) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => error.code(),
            (first, second) => panic!("{first:?} and {second:?}"),
        };
        assert_eq!(code, "unknownToken");
        stores[1].revoke(issuer, "X").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_claims_on_one_file_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    of_two_claims_from_two_processes_one_succeeds(&url(&folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_claims_on_one_server_one_succeeds() {
    let Some(schema) = Schema::make().await else { return };
    of_two_claims_from_two_processes_one_succeeds(&schema.url).await;
    schema.remove().await;
}

#[tokio::test]
async fn sqlite_writes_through_and_minds_references() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&url(&folder)).await.unwrap();
    for (pragma, expected) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1), ("PRAGMA busy_timeout", 10_000)] {
        assert_eq!(database.rows(pragma, &[]).await.unwrap()[0].get::<i64>(0).unwrap(), expected, "{pragma}");
    }
}

#[tokio::test]
async fn postgres_takes_its_lock_back() {
    let Some(schema) = Schema::make().await else { return };
    let database = Database::open(&schema.url).await.unwrap();
    let rows = database.rows("SHOW idle_in_transaction_session_timeout", &[]).await.unwrap();
    assert_eq!(rows[0].get::<String>(0).unwrap(), "20s");
    schema.remove().await;
}

#[tokio::test]
async fn a_transaction_that_is_given_up_leaves_nothing_and_lets_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::make().await;
    for url in [Some(url(&folder)), schema.as_ref().map(|schema| schema.url.clone())].into_iter().flatten() {
        let (ours, theirs) = (Database::open(&url).await.unwrap(), Database::open(&url).await.unwrap());
        let insert = "INSERT INTO accounts (name, password_hash, is_active) VALUES ('x', 'x', 1)";
        let mut transaction = ours.begin().await.unwrap();
        assert_eq!(transaction.execute(insert, &[]).await.unwrap(), 1);
        let mut other = Box::pin(theirs.begin());
        let waits = timeout(Duration::from_millis(300), &mut other).await;
        assert!(waits.is_err(), "one at a time, over all processes");
        drop(transaction);
        let mut other = other.await.unwrap();
        assert!(other.rows("SELECT id FROM accounts", &[]).await.unwrap().is_empty());
        other.commit().await.unwrap();
    }
    if let Some(schema) = schema {
        schema.remove().await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_of_sqlite_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = SqlStore::open(&url(&folder)).await.unwrap();
    store.create("alice", "hash").await.unwrap();
    let mut modes: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    modes.sort();
    let expected = ["accounts.db", "accounts.db-shm", "accounts.db-wal"].map(|name| (name.into(), 0o600));
    assert_eq!(modes, expected);
}

#[tokio::test]
async fn what_is_in_a_file_stays_and_is_never_of_a_newer_version() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqlStore::open(&url(&folder)).await.unwrap();
    first.create("alice", "hash").await.unwrap();
    // The first has not let go of it.
    let second = SqlStore::open(&url(&folder)).await.unwrap();
    assert_eq!(names(&second).await, ["alice"]);
    drop((first, second));

    let options = SqliteConnectOptions::new().filename(folder.path().join("accounts.db"));
    let mut connection = options.connect().await.unwrap();
    let mode = sqlx::query("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
    assert_eq!(mode.get::<String, _>(0), "wal");
    sqlx::raw_sql("UPDATE schema_version SET version = 1000").execute(&mut connection).await.unwrap();
    assert!(matches!(SqlStore::open(&url(&folder)).await, Err(OpenError::Newer)));
}

const ALICE: &str = "INSERT INTO accounts (name, password_hash, is_active) VALUES ('alice', 'hash', 1);
    CREATE TABLE schema_version (version BIGINT NOT NULL);
    INSERT INTO schema_version VALUES (1);";

/// Of a server before epochs.
async fn what_an_older_server_has_kept_is_kept(url: &str) {
    for _ in 0..2 {
        let store = SqlStore::open(url).await.unwrap();
        let alice = store.by_name("alice").await.unwrap().unwrap();
        assert_eq!((&*alice.password_hash, alice.is_active, alice.epoch), ("hash", true, 0));
    }
    let store = SqlStore::open(url).await.unwrap();
    let alice = store.by_name("alice").await.unwrap().unwrap();
    store.set_active(alice.id, false).await.unwrap();
    assert_eq!(store.by_id(alice.id).await.unwrap().unwrap().epoch, 1);
}

#[tokio::test]
async fn what_an_older_server_has_kept_in_a_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("accounts.db")).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    for statements in [include_str!("../migrations/sqlite-1.sql"), ALICE] {
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    }
    drop(connection);
    what_an_older_server_has_kept_is_kept(&url(&folder)).await;
}

#[tokio::test]
async fn what_an_older_server_has_kept_in_postgres_is_kept() {
    let Some(schema) = Schema::make().await else { return };
    let mut connection = sqlx::PgConnection::connect(&schema.url).await.unwrap();
    for statements in [include_str!("../migrations/postgres-1.sql"), ALICE] {
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    }
    what_an_older_server_has_kept_is_kept(&schema.url).await;
    schema.remove().await;
}

#[tokio::test]
async fn what_is_no_database_is_told_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no.db");
    std::fs::write(&file, "this is not a database, and it is longer than the head of one would have to be.".repeat(4))
        .unwrap();
    let (no_database, no_folder) = (format!("sqlite:{}", file.display()), "sqlite:/no/such/folder/a.db".to_owned());
    for (url, told) in [
        ("accounts.db", "\"accounts.db\" is no database"),
        ("mysql://me:secret@localhost/x", "\"mysql\" is no database"),
        ("sqlite:", "\"sqlite:\" is no database"),
        ("sqlite::memory:", "\"sqlite::memory:\" is no database"),
        (&no_folder, "/no/such/folder/a.db: "),
        (&no_database, "not a database"),
        ("postgres://me:secret@localhost:nowhere/x", "port"),
        ("postgres://me:secret@127.0.0.1:1/x", "refused"),
    ] {
        let error = SqlStore::open(url).await.err().unwrap().to_string();
        assert!(error.contains(told) && !error.contains("secret"), "{url}: {error}");
    }
    assert!(!Path::new("/no/such/folder").exists());
}

#[test]
fn databases_elsewhere_are_exposed_without_tls() {
    let exposed = |url: &str| is_exposed(&url.parse().unwrap());
    for here in ["postgres://localhost/x", "postgres://127.0.0.2/x", "postgres://[::1]/x", "postgres://a/x?host=/run"] {
        assert!(!exposed(here), "{here}");
    }
    assert!(exposed("postgres://db.example.org/x") && exposed("postgres://192.0.2.1/x?sslmode=prefer"));
    assert!(exposed("postgres://[2001:db8::1]/x?sslmode=disable"));
    assert!(!exposed("postgres://db.example.org/x?sslmode=verify-full"));
    assert!(!exposed("postgres://192.0.2.1/x?sslmode=require"));
}

/// As servers that are started together do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_open_a_new_file_at_once_all_succeed() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("accounts.db").display());
        let mut opened = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let url = url.clone();
            opened.spawn(async move { SqlStore::open(&url).await.map(drop) });
        }
        while let Some(opened) = opened.join_next().await {
            opened.unwrap().unwrap();
        }
    }
}
