//! Clients that speak the discovery protocol. There are thousands in this process, so they read no more than they must.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::{PASSWORD, Result};

/// By what somebody logs in.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    /// As the original client does, with the password of all.
    Name(String),
    Bearer(String),
}

impl Credentials {
    pub(crate) fn of(account: usize) -> Self {
        Self::Name(format!("user{account}"))
    }
}

/// A client that has logged in and read its welcome.
pub(crate) struct Login {
    socket: WebSocketStream<TcpStream>,
    pub(crate) number: u64,
    /// How many peers it was told of.
    pub(crate) peers: i64,
    asked: u64,
}

impl Login {
    pub(crate) async fn new(address: &str, credentials: Credentials) -> Result<Self> {
        let mut request = format!("ws://{address}/directory").into_client_request()?;
        let (header, value) = match credentials {
            Credentials::Name(name) => ("Cookie", format!("uun={name}; ppz={}", PASSWORD.replace(' ', "%20"))),
            Credentials::Bearer(token) => ("Authorization", format!("Bearer {token}")),
        };
        request.headers_mut().insert(header, value.parse()?);
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let (socket, _) = client_async_with_config(request, tcp, Some(config)).await?;
        let mut login = Self { socket, number: 0, peers: 0, asked: 0 };
        login.text().await?;
        login.number = login.json().await?["data"]["peerId"].as_u64().ok_or("no number")?;
        login.text().await?;
        login.peers = login.json().await?["data"].as_array().ok_or("no peers")?.len() as i64;
        Ok(login)
    }

    pub(crate) async fn text(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.socket.next().await.ok_or("the server is gone")?? {
                Message::Text(text) => return Ok(text),
                Message::Close(frame) => return Err(format!("closed: {frame:?}").into()),
                _ => {}
            }
        }
    }

    async fn json(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.text().await?)?)
    }

    pub(crate) async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.socket.send(Message::Text(text.into())).await?)
    }

    /// Asks for something, and returns what the answer has.
    pub(crate) async fn ask(&mut self, kind: &str, data: Value) -> Result<Value> {
        self.asked += 1;
        self.send(json!({ "type": kind, "data": data, "id": self.asked }).to_string()).await?;
        loop {
            let mut answer = self.json().await?;
            if answer["id"] == self.asked {
                return if answer["type"] == "ok" { Ok(answer["data"].take()) } else { Err(answer.to_string().into()) };
            }
        }
    }

    /// Says that it leaves, and waits for nothing.
    pub(crate) async fn leave(mut self) -> Result<()> {
        Ok(self.socket.send(Message::Close(None)).await?)
    }

    /// Counts whom it is told of, until the server is gone.
    pub(crate) async fn follow(mut self, presence: Arc<Presence>) {
        presence.add(self.peers);
        while let Ok(text) = self.text().await {
            // Both servers write the type first.
            if text.starts_with(r#"{"type":"peerConnect""#) {
                presence.add(1);
            } else if text.starts_with(r#"{"type":"peerDisconnect""#) {
                presence.add(-1);
            }
        }
    }
}

/// Sends a request and returns the JSON of its answer.
pub(crate) async fn post(address: &str, path: &str, body: Value) -> Result<Value> {
    let body = body.to_string();
    let mut tcp = TcpStream::connect(address).await?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    tcp.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(serde_json::from_str(body)?) } else { Err(answer.into()) }
}

/// How many peers all clients together know of, each counted by each who does.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    tally: Mutex<Tally>,
    reached: Notify,
}

#[derive(Debug, Default)]
struct Tally {
    known: i64,
    expected: i64,
    /// When the first and the last one heard of something, since it was last said what is expected.
    heard: Option<(Instant, Instant)>,
}

impl Presence {
    fn with<T>(&self, work: impl FnOnce(&mut Tally) -> T) -> T {
        work(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, change: i64) {
        let now = Instant::now();
        let is_reached = self.with(|tally| {
            tally.known += change;
            tally.heard = Some((tally.heard.map_or(now, |(first, _)| first), now));
            tally.known == tally.expected
        });
        if is_reached {
            self.reached.notify_one();
        }
    }

    /// Says by how much there will be more or less.
    pub(crate) fn expect(&self, change: i64) {
        self.with(|tally| {
            tally.expected += change;
            tally.heard = None;
        });
    }

    /// Waits until what is expected is so. When the first and the last client heard.
    pub(crate) async fn reached(&self) -> Result<(Instant, Instant)> {
        while !self.with(|tally| tally.known == tally.expected) {
            self.reached.notified().await;
        }
        self.with(|tally| tally.heard).ok_or_else(|| "nobody heard anything".into())
    }
}
