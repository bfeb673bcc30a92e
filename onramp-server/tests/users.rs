//! Accounts from the command line, over the databases that there are.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

const PASSWORD: &str = "correct horse\n";

/// Runs the program, with this on its standard input.
async fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).env_remove("RUST_LOG").spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may not read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    timeout(Duration::from_secs(20), child.wait_with_output()).await.expect("it hangs").unwrap()
}

/// `onramp-server user …`: its exit code, and what it has said on standard output and error.
async fn user(url: &str, arguments: &str, input: &str) -> (Option<i32>, String, String) {
    let words = arguments.split_whitespace();
    let arguments: Vec<&str> = ["user"].into_iter().chain(words).chain(["--accounts", url]).collect();
    let Output { status, stdout, stderr } = run(&arguments, input).await;
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(!stdout.contains("horse") && !stderr.contains("horse"), "{stdout}{stderr}");
    (status.code(), stdout, stderr)
}

async fn well(url: &str, arguments: &str, input: &str) -> String {
    let (code, stdout, stderr) = user(url, arguments, input).await;
    assert_eq!((code, &*stderr), (Some(0), ""), "{arguments}");
    stdout
}

async fn badly(url: &str, arguments: &str, input: &str) -> String {
    let (code, stdout, stderr) = user(url, arguments, input).await;
    assert_eq!((code, &*stdout), (Some(1), ""), "{arguments}: {stderr}");
    stderr.strip_prefix("onramp-server: ").expect(&stderr).trim_end().to_owned()
}

async fn users_from_the_command_line(url: &str) {
    well(url, "add bob --password-stdin", PASSWORD).await;
    well(url, "add alice --password-stdin --argon2-memory-kib 64 --argon2-iterations 1", "correct horse\r\n").await;
    assert_eq!(badly(url, "add bob --password-stdin", PASSWORD).await, "the name is taken");
    for (name, password, told) in [
        ("carol", "short\n", "invalid password: it is shorter than 8 characters"),
        ("carol", "", "invalid password: it is shorter than 8 characters"),
        ("carol", &*"x".repeat(2000), "invalid password: it is too long"),
        ("a:b", PASSWORD, "invalid name: it has a colon"),
        (&"x".repeat(129), PASSWORD, "invalid name: it is too long"),
    ] {
        assert_eq!(badly(url, &format!("add {name} --password-stdin"), password).await, told);
    }
    well(url, "passwd alice --password-stdin", "another horse").await;
    well(url, "deactivate bob", "").await;
    assert_eq!(well(url, "list", "").await, "alice\tactive\nbob\tinactive\n");
    well(url, "activate bob", "").await;
    well(url, "trust alice bob --as Ali Bobby", "").await;
    assert_eq!(badly(url, "trust alice bob", "").await, "you trust each other already");
    assert_eq!(badly(url, "trust alice alice", "").await, "an account does not trust itself");
    let reserved = badly(url, "trust alice bob --as Us Bob", "").await;
    assert!(reserved.starts_with("invalid alias: it is reserved, as `*` (all peers), `Us`"), "{reserved}");
    for unknown in [
        "remove carol",
        "activate carol",
        "deactivate carol",
        "trust alice carol",
        "trust carol alice",
        "passwd carol --password-stdin",
    ] {
        assert_eq!(badly(url, unknown, PASSWORD).await, "there is no account \"carol\"", "{unknown}");
    }
    well(url, "remove alice", "").await;
    assert_eq!(well(url, "list", "").await, "bob\tactive\n");
}

#[tokio::test]
async fn users_with_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    users_from_the_command_line(&format!("sqlite:{}", folder.path().join("accounts.db").display())).await;
}

#[tokio::test]
async fn users_with_postgres() {
    let Ok(server) = std::env::var("PMESH_TEST_POSTGRES") else {
        let told = "SKIPPED: a test with PostgreSQL; see scripts/with-postgres.sh";
        std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes()).unwrap();
        return;
    };
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server).await.unwrap();
    let name = format!("users_{}", std::process::id());
    let mut schema = async |what: &str| {
        let statement = sqlx::AssertSqlSafe(what.replace("NAME", &name));
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    };
    schema("CREATE SCHEMA NAME").await;
    let mark = if server.contains('?') { '&' } else { '?' };
    users_from_the_command_line(&format!("{server}{mark}options[search_path]={name}")).await;
    schema("DROP SCHEMA NAME CASCADE").await;
}

#[tokio::test]
async fn mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("accounts.db").display());
    for (arguments, code, told) in [
        (&["user", "add", "bob", "--accounts", &*url][..], 2, "--password-stdin"),
        (&["user", "add", "bob", "--password-stdin"], 2, "--accounts"),
        (&["user", "add", "--password-stdin", "--accounts", &url], 2, "<NAME>"),
        (&["user", "trust", "a", "b", "--as", "x", "--accounts", &url], 2, "2 values required"),
        (&["user"], 2, "Usage"),
        (&["users"], 2, "users"),
        (&["--host", ":0", "user", "list", "--accounts", &url], 2, "cannot be used with"),
        (&["--token-lifetime", "5"], 2, "--accounts"),
        (&["user", "list", "--accounts", "mysql://a:horse@b"], 1, "\"mysql\" is no database"),
        (&["user", "list", "--accounts", &url, "--argon2-memory-kib", "1"], 1, "argon2 cannot do with these numbers"),
        (&["--host", "127.0.0.1:0", "--accounts", "nonsense"], 1, "\"nonsense\" is no database"),
    ] {
        let Output { status, stdout, stderr } = run(arguments, PASSWORD).await;
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(code), 0), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told) && !stderr.contains("horse"), "{arguments:?}: {stderr}");
    }
    let help = String::from_utf8(run(&["--help"], "").await.stdout).unwrap();
    for told in ["user", "--accounts <url>", "--argon2-memory-kib <KiB>", "19456", "--token-lifetime <seconds>"] {
        assert!(help.contains(told), "{told} in\n{help}");
    }
    for arguments in [&["user", "--help"][..], &["user", "add", "--help"]] {
        let Output { status, stdout, .. } = run(arguments, "").await;
        assert_eq!(status.code(), Some(0), "{arguments:?}");
        assert!(String::from_utf8(stdout).unwrap().contains("Usage: onramp-server user"), "{arguments:?}");
    }
}

#[tokio::test]
async fn only_adding_makes_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("typo.db");
    let url = format!("sqlite:{}", file.display());
    for arguments in ["list", "remove bob", "activate bob", "trust alice bob", "passwd bob --password-stdin"] {
        let told = badly(&url, arguments, PASSWORD).await;
        assert!(told.starts_with("cannot open the accounts: there is no file ") && told.contains("typo.db"), "{told}");
        assert!(!file.exists(), "{arguments}");
    }
    well(&url, "add bob --password-stdin", PASSWORD).await;
    assert_eq!(well(&url, "list", "").await, "bob\tactive\n");
}

#[cfg(unix)]
#[tokio::test]
async fn whoever_has_read_enough_of_a_list_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("accounts.db").display());
    well(&url, "add bob --password-stdin", PASSWORD).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.args(["user", "list", "--accounts", &url]).stdout(writer).stderr(Stdio::piped()).env_remove("RUST_LOG");
    let output = timeout(Duration::from_secs(20), command.output()).await.expect("it hangs").unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
}
