//! What the tests with peers of peer-relay share.
#![allow(dead_code, clippy::unwrap_used, reason = "each test target uses a part of it, and a failed test may panic")]

use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmesh::Root;
use pmesh::overlay::compat::peer_relay::{Data, Link, LinkError, accept};
use pmesh::overlay::router::ForeignMessage;
use pmesh::overlay::{Overlay, OverlayBuilder, OverlayId};
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// No test waits longer for one thing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

pub(crate) const fn id(first: u8) -> OverlayId {
    let mut bytes = [7; OverlayId::BYTES];
    bytes[0] = first;
    OverlayId::from_bytes(bytes)
}

/// A peer that listens.
pub(crate) struct Us {
    pub(crate) id: OverlayId,
    pub(crate) listener: TcpListener,
    pub(crate) url: String,
}

impl Us {
    pub(crate) async fn listen(id: OverlayId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Self { id, listener, url }
    }

    pub(crate) async fn accept(&self) -> Result<Link, LinkError> {
        self.accept_if(|_| true).await
    }

    pub(crate) async fn accept_if(&self, admit: impl FnOnce(&OverlayId) -> bool) -> Result<Link, LinkError> {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        soon(accept(stream, &self.id, admit)).await
    }
}

/// A message from us, as it goes on its way.
pub(crate) fn message(from: OverlayId, to: OverlayId, data: &Data<'_>) -> ForeignMessage {
    let nonce = rand::random_range(0..1_000_000_000_000_000_u64).to_string();
    ForeignMessage { to, from, path: vec![from], nonce, data: data.encode() }
}

pub(crate) fn send_user(link: &Link, from: OverlayId, to: OverlayId, json: &Value) {
    let json = to_raw_value(json).unwrap();
    link.sender.try_send(&message(from, to, &Data::User(&json))).unwrap();
}

/// The next message of the application. Others are passed over.
pub(crate) async fn next_user(link: &mut Link) -> (OverlayId, Value) {
    soon(async {
        loop {
            let message = link.receiver.recv().await.expect("the link is gone");
            if let Ok(Some(Data::User(json))) = Data::decode(message.data.get().as_bytes()) {
                return (message.from, serde_json::from_str(json.get()).unwrap());
            }
        }
    })
    .await
}

pub(crate) type Raw = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn connect(url: &str, first: impl Into<String>) -> Raw {
    let (mut socket, _) = soon(connect_async(url)).await.unwrap();
    soon(socket.send(Message::text(first.into()))).await.unwrap();
    socket
}

/// What kills an original, with the reason, and whether it is so much as a message to us.
pub(crate) fn killers(from: OverlayId, to: OverlayId) -> Vec<(&'static str, String, bool)> {
    let whole = |data: &str| {
        // Another one for each, or they would count as the same message.
        let nonce: u32 = rand::random();
        format!(r#"{{"to":"{to}","from":"{from}","path":["{from}"],"nonce":"{nonce}","data":{data}}}"#)
    };
    let user = whole(r#"{"type":"user","data":1}"#);
    let answer = whole(r#"{"type":"handshake-answer","data":{"ws":"x","wrtc":false}}"#);
    let (neighbour, stranger) = (format!(r#""from":"{from}""#), format!(r#""from":"{}""#, id(9)));
    vec![
        ("no JSON", "{".into(), false),
        ("empty", String::new(), false),
        ("null", "null".into(), false),
        ("a number", "5".into(), false),
        ("an empty object", "{}".into(), false),
        ("no path", user.replace(&format!(r#""path":["{from}"],"#), ""), false),
        ("no to", user.replace(&format!(r#""to":"{to}","#), ""), false),
        ("no from", user.replace(&format!(r#""from":"{from}","#), ""), false),
        ("a number as nonce", user.replace(r#""nonce":""#, r#""nonce":1,"x":""#), false),
        ("null as data", whole("null"), false),
        ("findPeers without an id", whole(r#"{"type":"findPeers"}"#), true),
        ("foundPeers with null", whole(r#"{"type":"foundPeers","data":[null]}"#), true),
        ("foundPeers without a list", whole(r#"{"type":"foundPeers"}"#), true),
        ("a signal, without WebRTC", whole(r#"{"type":"signal","data":{}}"#), true),
        ("an answer that was not asked for, with a URL that is none", answer.replacen(&neighbour, &stranger, 1), true),
    ]
}

/// An overlay that takes originals, and listens.
pub(crate) async fn overlay(settings: impl FnOnce(OverlayBuilder) -> OverlayBuilder) -> Overlay {
    let localhost = "127.0.0.1:0".parse().unwrap();
    let root = Root::builder().bind([localhost]).mdns(false).build();
    soon(settings(Overlay::builder(&root).listen(localhost)).start()).await.unwrap()
}

/// Where an overlay listens.
pub(crate) fn url(overlay: &Overlay) -> String {
    format!("ws://{}", overlay.local_addr().unwrap())
}

/// Waits until these are the neighbours of an overlay.
pub(crate) async fn has_neighbours(overlay: &Overlay, of: &[OverlayId]) {
    let mut events = overlay.events();
    let all = |overlay: &Overlay| {
        let there = overlay.neighbours();
        there.len() == of.len() && of.iter().all(|id| there.contains(id))
    };
    soon(async {
        while !all(overlay) {
            events.next().await.unwrap();
        }
    })
    .await;
}
