//! A database, servers as processes, and clients that speak the discovery protocol to them.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Of all accounts.
pub(crate) const PASSWORD: &str = "correct horse";

/// Passwords cost as little as they can: it is not they that are tested.
const CHEAP: [&str; 4] = ["--argon2-memory-kib", "8", "--argon2-iterations", "1"];

/// Waits for an event, but not for ever.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), event).await.expect("nothing happened in time")
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.env_remove("RUST_LOG").kill_on_drop(true);
    command
}

/// Where accounts are kept. Each test has one of its own, which is empty.
pub(crate) struct Database {
    pub(crate) url: String,
    place: Place,
}

enum Place {
    Sqlite(TempDir),
    Postgres { server: String, schema: String },
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("accounts.db").display());
        Self { url, place: Place::Sqlite(folder) }
    }

    /// None, and a word about it past the harness, which would keep it to itself, if there is no server to test with.
    pub(crate) async fn postgres(test: &str) -> Option<Self> {
        let Ok(server) = std::env::var("PMESH_TEST_POSTGRES") else {
            let told = "SKIPPED: a test with PostgreSQL; see scripts/with-postgres.sh\n";
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return None;
        };
        let schema = format!("servers_{test}_{}", std::process::id());
        let mark = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{mark}options[search_path]={schema}");
        run(&server, format!("CREATE SCHEMA {schema}")).await;
        Some(Self { url, place: Place::Postgres { server, schema } })
    }

    pub(crate) async fn remove(self) {
        match self.place {
            Place::Sqlite(folder) => folder.close().unwrap(),
            Place::Postgres { server, schema } => run(&server, format!("DROP SCHEMA {schema} CASCADE")).await,
        }
    }

    /// Makes an account, as an administrator does.
    pub(crate) async fn add(&self, name: &str) {
        let mut command = program();
        command.args(["user", "add", name, "--password-stdin", "--accounts", &self.url]).args(CHEAP);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).await.unwrap();
        assert!(soon(child.wait()).await.unwrap().success());
    }
}

async fn run(server: &str, statement: String) {
    let mut connection = sqlx::PgConnection::connect(server).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

pub(crate) struct Server {
    child: Child,
    pub(crate) door: Door,
}

impl Server {
    /// One that listens, and reads accounts again after so many seconds.
    pub(crate) async fn start(database: &Database, refresh_interval: u32) -> Self {
        let mut command = program();
        command.args(["--host", "127.0.0.1:0", "--log", "error", "--accounts", &database.url]).args(CHEAP);
        command.args(["--refresh-interval", &refresh_interval.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        soon(BufReader::new(child.stdout.take().unwrap()).read_line(&mut first)).await.unwrap();
        let address = first.trim_end().strip_prefix("onramp listening on ws://").expect(&first).to_owned();
        Self { child, door: Door { address } }
    }

    /// Ends it as `kill -9` does, wherever it is.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Why a client did not get what it asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum NotDone {
    /// The server says so: with this status, or with this code.
    Refused(String),
    /// Nobody says anything any more.
    Lost,
}

/// Where clients knock.
#[derive(Clone)]
pub(crate) struct Door {
    address: String,
}

impl Door {
    /// Logs in as the original client does.
    pub(crate) async fn log_in(&self, name: &str) -> Result<Session, NotDone> {
        let mut request = format!("ws://{}/directory", self.address).into_client_request().unwrap();
        let cookies = format!("uun={name}; ppz={}", PASSWORD.replace(' ', "%20"));
        request.headers_mut().insert("Cookie", cookies.parse().unwrap());
        let tcp = soon(TcpStream::connect(&self.address)).await.map_err(|_| NotDone::Lost)?;
        let (socket, _) = soon(client_async(request, tcp)).await.map_err(|error| match error {
            Error::Http(response) => NotDone::Refused(response.status().as_str().to_owned()),
            _ => NotDone::Lost,
        })?;
        let mut session = Session { socket, asked: 0, number: 0, users: Vec::new() };
        session.next().await?;
        session.number = session.next().await?["data"]["peerId"].as_u64().unwrap();
        session.users = serde_json::from_value(session.next().await?["data"].take()).unwrap();
        session.next().await?;
        Ok(session)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, NotDone> {
        let (address, body) = (&self.address, body.to_string());
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut answer = String::new();
        let exchange = async {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.write_all(request.as_bytes()).await?;
            tcp.read_to_string(&mut answer).await
        };
        soon(exchange).await.map_err(|_| NotDone::Lost)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(NotDone::Lost)?;
        let body: Value = serde_json::from_str(body).map_err(|_| NotDone::Lost)?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body) } else { Err(refused(&body)) }
    }
}

fn refused(body: &Value) -> NotDone {
    NotDone::Refused(body["code"].as_str().unwrap().to_owned())
}

/// A client that has logged in and read its welcome.
pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    asked: u64,
    pub(crate) number: u64,
    /// By whom it was welcomed: the aliases of all who are trusted.
    pub(crate) users: Vec<String>,
}

impl Session {
    /// The next text of the server.
    pub(crate) async fn next(&mut self) -> Result<Value, NotDone> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(NotDone::Lost),
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    /// Asks for something, and returns what the answer has. What else comes before it is passed over.
    pub(crate) async fn ask(&mut self, kind: &str, data: Value) -> Result<Value, NotDone> {
        self.asked += 1;
        let request = json!({ "type": kind, "data": data, "id": self.asked });
        soon(self.socket.send(Message::text(request.to_string()))).await.map_err(|_| NotDone::Lost)?;
        loop {
            let mut answer = self.next().await?;
            if answer["id"] == self.asked {
                let is_done = answer["type"] == "ok";
                return if is_done { Ok(answer["data"].take()) } else { Err(refused(&answer["data"])) };
            }
        }
    }

    pub(crate) async fn token(&mut self, alias: &str) -> Result<String, NotDone> {
        Ok(self.ask("requestToken", json!({ "name": alias })).await?["token"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn claim(&mut self, alias: &str, token: &str) -> Result<(), NotDone> {
        self.ask("claimToken", json!({ "name": alias, "token": token })).await.map(drop)
    }
}
