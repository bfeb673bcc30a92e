//! Servers with accounts from outside: two processes over one database, and what is left when they are killed.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), event).await.expect("nothing happened in time")
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.kill_on_drop(true).env_remove("RUST_LOG");
    command
}

async fn user(url: &str, arguments: &str) {
    let arguments: Vec<&str> = ["user"].into_iter().chain(arguments.split(' ')).chain(["--accounts", url]).collect();
    let mut child = program(&arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(b"correct horse\n").await;
    drop(stdin);
    assert!(soon(child.wait()).await.unwrap().success(), "{arguments:?}");
}

async fn add(url: &str, name: &str) {
    user(url, &format!("add {name} --password-stdin --argon2-memory-kib 64 --argon2-iterations 1")).await;
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    async fn start(accounts: &str) -> Self {
        let arguments = ["--host", "127.0.0.1:0", "--accounts", accounts, "--refresh-interval", "1"];
        let mut child = program(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().unwrap();
        let url = first.strip_prefix("onramp listening on ").expect(&first).to_owned();
        Self { child, url }
    }

    async fn kill(mut self) {
        soon(self.child.kill()).await.unwrap();
    }
}

struct Session {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    asked: u64,
}

/// The server is gone.
#[derive(Debug, PartialEq)]
struct Gone;

impl Session {
    async fn log_in(url: &str, name: &str) -> Result<Self, Error> {
        let mut request = format!("{url}/directory").into_client_request().unwrap();
        let cookie = format!("uun={name}; ppz=correct%20horse");
        request.headers_mut().insert("Cookie", cookie.parse().unwrap());
        let (socket, _) = soon(connect_async(request)).await?;
        Ok(Self { socket, asked: 0 })
    }

    async fn next(&mut self) -> Result<Value, Gone> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Gone),
            }
        }
    }

    /// What a request is answered with: data, or the code of an error.
    async fn ask(&mut self, kind: &str, data: Value) -> Result<Result<Value, String>, Gone> {
        self.asked += 1;
        let text = json!({ "type": kind, "data": data, "id": self.asked }).to_string();
        soon(self.socket.send(Message::text(text))).await.map_err(|_| Gone)?;
        loop {
            let message = self.next().await?;
            if message["id"] == self.asked {
                let is_ok = message["type"] == "ok";
                let code = message["data"]["code"].as_str().unwrap_or_default().to_owned();
                return Ok(if is_ok { Ok(message["data"].clone()) } else { Err(code) });
            }
        }
    }
}

#[tokio::test]
async fn two_processes_serve_one_database() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!("sqlite:{}", folder.path().join("accounts.db").display());
    for name in ["alice", "bob"] {
        add(&accounts, name).await;
    }
    let servers = [Server::start(&accounts).await, Server::start(&accounts).await];
    let Err(Error::Http(refused)) = Session::log_in(&servers[0].url, "carol").await else { panic!("let in") };
    assert_eq!(refused.status(), 403);
    let mut alice = Session::log_in(&servers[0].url, "alice").await.unwrap();
    let mut bob = Session::log_in(&servers[0].url, "bob").await.unwrap();
    // A token of one server is claimed at the other.
    let mut elsewhere = Session::log_in(&servers[1].url, "bob").await.unwrap();
    let token = alice.ask("requestToken", json!({ "name": "Bob" })).await.unwrap().unwrap()["token"].clone();
    let claimed = elsewhere.ask("claimToken", json!({ "name": "Alice", "token": token })).await.unwrap();
    assert_eq!(claimed, Ok(Value::Null));
    for (session, name) in [(&mut alice, "Bob"), (&mut bob, "Alice")] {
        while session.next().await.unwrap() != json!({ "type": "userAdd", "data": name }) {}
        assert_eq!(session.next().await.unwrap()["type"], "peerConnect");
    }
    user(&accounts, "remove bob").await;
    while let Ok(message) = bob.next().await {
        assert_ne!(message["type"], "userRemove", "it ends");
    }
    while alice.next().await.unwrap() != json!({ "type": "userRemove", "data": "Bob" }) {}
}

/// What a pair of users was told last, and what they have asked for without being told.
#[derive(Debug, Clone, Default)]
struct Told {
    token: Option<Value>,
    are_trusted: bool,
    asked: Option<&'static str>,
}

/// Two users make and revoke trust until the server is gone.
async fn load(url: &str, pair: usize, told: &mut Told, done: &watch::Sender<usize>) -> Result<(), Gone> {
    let [first, second] = [0, 1].map(|one| format!("user{}", 2 * pair + one));
    loop {
        // Logging in is part of the load.
        let mut a = Session::log_in(url, &first).await.map_err(|_| Gone)?;
        let mut b = Session::log_in(url, &second).await.map_err(|_| Gone)?;
        if !told.are_trusted {
            told.asked = Some("requestToken");
            let token = a.ask("requestToken", json!({ "name": "b" })).await?.unwrap()["token"].clone();
            (told.token, told.asked) = (Some(token.clone()), Some("claimToken"));
            b.ask("claimToken", json!({ "name": "a", "token": token })).await?.unwrap();
            told.are_trusted = true;
        }
        done.send_modify(|done| *done += 1);
        told.asked = Some("revokeTrust");
        a.ask("revokeTrust", json!({ "name": "b" })).await?.unwrap();
        *told = Told::default();
    }
}

#[tokio::test]
async fn what_users_were_told_is_so_after_the_servers_are_killed() {
    const PAIRS: usize = 3;
    const ROUNDS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!("sqlite:{}", folder.path().join("accounts.db").display());
    for user in 0..2 * PAIRS {
        add(&accounts, &format!("user{user}")).await;
    }
    let mut pairs = vec![Told::default(); PAIRS];
    let done = watch::Sender::new(0);
    for round in 1..=ROUNDS {
        let servers = [Server::start(&accounts).await, Server::start(&accounts).await];
        let urls = [servers[0].url.clone(), servers[1].url.clone()];
        let loads = pairs.iter_mut().enumerate().map(|(pair, told)| load(&urls[pair % 2], pair, told, &done));
        let kill = async {
            let mut progress = done.subscribe();
            soon(progress.wait_for(|done| *done >= 15 * round)).await.unwrap();
            for server in servers {
                server.kill().await;
            }
        };
        let (ended, ()) = tokio::join!(join_all(loads), kill);
        assert!(ended.iter().all(|ended| *ended == Err(Gone)));

        let server = Server::start(&accounts).await;
        for (pair, told) in pairs.iter_mut().enumerate() {
            let mut a = Session::log_in(&server.url, &format!("user{}", 2 * pair)).await.unwrap();
            let mut b = Session::log_in(&server.url, &format!("user{}", 2 * pair + 1)).await.unwrap();
            let of_a = a.ask("listTrusted", Value::Null).await.unwrap().unwrap();
            let of_b = b.ask("listTrusted", Value::Null).await.unwrap().unwrap();
            let are_trusted = of_a == json!(["b"]) && of_b == json!(["a"]);
            assert!(are_trusted || (of_a == json!([]) && of_b == json!([])), "{of_a} {of_b}: trust is mutual");
            let may_be_otherwise = matches!(told.asked, Some("claimToken" | "revokeTrust"));
            assert!(are_trusted == told.are_trusted || may_be_otherwise, "{told:?}, and now {are_trusted}");
            // A token that is told of can be claimed once: now, or it has been.
            if let Some(token) = &told.token {
                let again = b.ask("claimToken", json!({ "name": "a", "token": token })).await.unwrap();
                let is_open = !told.are_trusted && !are_trusted;
                assert_eq!(again.is_ok(), is_open, "{told:?}, and {again:?}");
                let twice = b.ask("claimToken", json!({ "name": "a2", "token": token })).await.unwrap();
                assert_eq!(twice, Err("unknownToken".into()));
            }
            let are_trusted = a.ask("listTrusted", Value::Null).await.unwrap() == Ok(json!(["b"]));
            *told = Told { are_trusted, ..Told::default() };
        }
        server.kill().await;
    }
    println!("{} claims were told in {ROUNDS} rounds", *done.borrow());
}
