//! Links to the original peer-relay: with the real npm package at the other end, and with whoever says what it likes.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod hostile;
mod original;
mod originals;

use std::future::Future;
use std::time::Duration;

use pmesh::overlay::OverlayId;
use pmesh::overlay::compat::peer_relay::{Data, Link, LinkError, accept};
use pmesh::overlay::router::ForeignMessage;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::net::TcpListener;

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fails instead of hanging.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

const fn id(first: u8) -> OverlayId {
    let mut bytes = [7; OverlayId::BYTES];
    bytes[0] = first;
    OverlayId::from_bytes(bytes)
}

/// A peer that listens.
struct Us {
    id: OverlayId,
    listener: TcpListener,
    url: String,
}

impl Us {
    async fn listen(id: OverlayId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Self { id, listener, url }
    }

    async fn accept(&self) -> Result<Link, LinkError> {
        self.accept_if(|_| true).await
    }

    async fn accept_if(&self, admit: impl FnOnce(&OverlayId) -> bool) -> Result<Link, LinkError> {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        soon(accept(stream, &self.id, admit)).await
    }
}

/// A message from us, as it goes on its way.
fn message(from: OverlayId, to: OverlayId, data: &Data<'_>) -> ForeignMessage {
    let nonce = rand::random_range(0..1_000_000_000_000_000_u64).to_string();
    ForeignMessage { to, from, path: vec![from], nonce, data: data.encode() }
}

fn send_user(link: &Link, from: OverlayId, to: OverlayId, json: &Value) {
    let json = to_raw_value(json).unwrap();
    link.sender.try_send(&message(from, to, &Data::User(&json))).unwrap();
}

/// The next message of the application. Others are passed over.
async fn next_user(link: &mut Link) -> (OverlayId, Value) {
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
