//! What a server with accounts writes to its log.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), event).await.expect("nothing happened in time")
}

struct Server {
    _child: Child,
    address: String,
    log: Lines<BufReader<ChildStderr>>,
}

impl Server {
    async fn start(accounts: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
        command.args(["--host", "127.0.0.1:0", "--log", "off,pmesh=warn", "--accounts", accounts]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().unwrap();
        let address = first.strip_prefix("onramp listening on ws://").expect(&first).to_owned();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { _child: child, address, log }
    }

    /// Tries to log in, and returns the answer.
    async fn log_in(&self, headers: &str) -> String {
        let body = r#"{"name":"alice","password":"wrong"}"#;
        let length = body.len();
        let request = format!("POST /login HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let mut tcp = TcpStream::connect(&self.address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(tcp.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn logged(&mut self) -> String {
        soon(self.log.next_line()).await.unwrap().expect("it has ended")
    }
}

/// Makes the store fail.
async fn spoil(accounts: &str) {
    use sqlx::{Connection as _, SqliteConnection};
    let mut connection = SqliteConnection::connect(accounts).await.unwrap();
    sqlx::raw_sql("DROP TABLE accounts").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn the_log_says_why_the_database_fails_and_users_are_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!("sqlite:{}", folder.path().join("accounts.db").display());
    let mut server = Server::start(&accounts, &[]).await;
    spoil(&accounts).await;
    let answer = server.log_in("").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("table"), "{answer}");
    let logged = server.logged().await;
    assert!(logged.contains("the store of accounts failed") && logged.contains("no such table"), "{logged}");
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_is_warned_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!("sqlite:{}", folder.path().join("accounts.db").display());
    for (options, is_warned) in [(&[][..], true), (&["--trust-forwarded"], false)] {
        let mut server = Server::start(&accounts, options).await;
        for headers in ["", "X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n"] {
            let answer = server.log_in(headers).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
        if is_warned {
            let logged = server.logged().await;
            assert!(logged.contains("--trust-forwarded") && logged.contains("127.0.0.1"), "{logged}");
        }
        // Nothing else is logged before this.
        spoil(&accounts).await;
        server.log_in("").await;
        assert!(server.logged().await.contains("the store of accounts failed"));
        drop(server);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("accounts.db{suffix}")));
        }
    }
}
