//! A server in memory, and clients that speak raw HTTP and WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
use pmesh::onramp::{Builder, Onramp, OnrampHandle};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event, but not for ever.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("nothing happened in time")
}

/// Passwords that cost nothing.
pub(crate) struct Cheap;

impl Passwords for Cheap {
    fn hash(&self, password: &str) -> String {
        format!("cheap {password}")
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        hash == Some(&self.hash(password))
    }
}

pub(crate) fn accounts() -> Accounts {
    Accounts::new(MemoryStore::new(), Cheap)
}

/// The password of a user of the tests.
pub(crate) fn password_of(name: &str) -> String {
    format!("password of {name}")
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handle: OnrampHandle,
    pub(crate) accounts: Accounts,
    stop: oneshot::Sender<()>,
    run: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(builder: Builder, accounts: Accounts) -> Self {
        let onramp = builder.accounts(accounts.clone()).bind("127.0.0.1:0").await.unwrap();
        let (address, handle) = (onramp.local_addr(), onramp.handle());
        let (stop, stopped) = oneshot::channel();
        Self { address, handle, accounts, stop, run: tokio::spawn(onramp.run(stopped)) }
    }

    /// One with these users; those of each pair trust each other, by their names.
    pub(crate) async fn with(users: &[&str], trust: &[(&str, &str)]) -> Self {
        let server = Self::start(Onramp::builder(), accounts()).await;
        for name in users {
            server.accounts.create(name, &password_of(name)).await.unwrap();
        }
        for (a, b) in trust {
            server.accounts.trust(a, b, b, a).await.unwrap();
        }
        server
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        soon(self.run).await.unwrap();
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    /// A WebSocket with these headers, or the status that it is refused with.
    pub(crate) async fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> Result<Peer, u16> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        match soon(client_async(request, self.tcp().await)).await {
            Ok((socket, response)) => {
                let protocol = response.headers().get("Sec-WebSocket-Protocol");
                Ok(Peer { socket, protocol: protocol.map(|value| value.to_str().unwrap().to_owned()), asked: 0 })
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// As the original client logs in.
    pub(crate) async fn cookies(&self, name: &str, password: &str) -> Result<Peer, u16> {
        let cookie = format!("uun={}; ppz={}", escape(name), escape(password));
        self.upgrade("/directory", &[("Cookie", &cookie)]).await
    }

    pub(crate) async fn peer(&self, name: &str) -> Peer {
        self.cookies(name, &password_of(name)).await.unwrap()
    }

    /// A user's peer of the directory that has read its welcome, and its number.
    pub(crate) async fn directory(&self, name: &str) -> (Peer, u64) {
        let mut peer = self.peer(name).await;
        let number = peer.welcome().await.number;
        (peer, number)
    }

    /// Sends bytes and returns the answer to them, to its end.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut tcp = self.tcp().await;
        tcp.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let (address, length) = (self.address, body.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
        Answer::of(&self.raw(format!("{head}{body}")).await)
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

/// What a session is told first.
#[derive(Debug, PartialEq)]
pub(crate) struct Welcome {
    pub(crate) number: u64,
    pub(crate) users: Value,
    pub(crate) peers: Value,
}

pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) protocol: Option<String>,
    asked: u64,
}

impl Peer {
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        soon(self.socket.send(Message::text(text.into()))).await.unwrap();
    }

    /// The next text, or the code and reason of the close frame.
    pub(crate) async fn next(&mut self) -> Result<String, (u16, String)> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => return Err((frame.code.into(), frame.reason.to_string())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(error)) => return Err((0, error.to_string())),
                None => return Err((0, String::new())),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        self.next().await.unwrap()
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> Welcome {
        assert_eq!(self.text().await, r#"{"type":"userAdd","data":"Us"}"#);
        let own = self.json().await;
        assert_eq!(own["type"], "setPeerId");
        let users = self.json().await;
        assert_eq!(users["type"], "userList");
        let peers = self.json().await;
        assert_eq!(peers["type"], "peerList");
        let number = own["data"]["peerId"].as_u64().unwrap();
        Welcome { number, users: users["data"].clone(), peers: peers["data"].clone() }
    }

    /// Sends a request with an id, and returns what came before its answer, and the answer.
    pub(crate) async fn ask(&mut self, kind: &str, data: Value) -> (Vec<Value>, Value) {
        self.asked += 1;
        self.send(json!({ "type": kind, "data": data, "id": self.asked }).to_string()).await;
        let mut before = Vec::new();
        loop {
            let message = self.json().await;
            if message["id"] == self.asked {
                return (before, message);
            }
            before.push(message);
        }
    }

    /// The same, of which only the answer counts: what it has, or the code of the error.
    pub(crate) async fn answer(&mut self, kind: &str, data: Value) -> Result<Value, String> {
        let (_, answer) = self.ask(kind, data).await;
        match answer["type"].as_str().unwrap() {
            "ok" => Ok(answer["data"].clone()),
            "error" => Err(answer["data"]["code"].as_str().unwrap().to_owned()),
            other => panic!("{other}"),
        }
    }

    /// What has arrived, up to now: all that was queued before the answer to a request which does nothing.
    pub(crate) async fn arrived(&mut self) -> Vec<Value> {
        let (before, answer) = self.ask("nothing", Value::Null).await;
        assert_eq!(answer["data"]["code"], "malformed");
        before
    }

    /// The same of a peer of P with this address.
    pub(crate) async fn arrived_at(&mut self, own: &str) -> Vec<Value> {
        self.send(json!([6, own, "marker"]).to_string()).await;
        let mut before = Vec::new();
        loop {
            match self.json().await {
                marker if marker == json!([7, own, "marker"]) => return before,
                other => before.push(other),
            }
        }
    }
}

/// JavaScript's `escape`.
pub(crate) fn escape(text: &str) -> String {
    let one = |unit: u16| match char::from_u32(unit.into()) {
        Some(c) if c.is_ascii_alphanumeric() || "@*_+-./".contains(c) => c.to_string(),
        _ if unit < 256 => format!("%{unit:02X}"),
        _ => format!("%u{unit:04X}"),
    };
    text.encode_utf16().map(one).collect()
}
