//! One JSON command a line in, one JSON event a line out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pmesh::overlay::OverlayMessage;
use pmesh::{Address, Message, Node, NodeId, NodeKind, PeerId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::overlay;
use crate::peer::{Notice, Peer};

/// Messages that may wait for one node beside those in its own queue, in number and in bytes. At it, further ones are an
/// error: one node that does not keep up must not keep others from being served.
const SENDS: usize = 65_536;
const SEND_BYTES: usize = 64 * 1024 * 1024;

/// How long a closing node may take for messages that wait for it here.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case")]
enum Command {
    Connect {
        to: String,
        via: Option<String>,
        #[serde(default, rename = "offerData", deserialize_with = "given")]
        offer_data: Option<Value>,
        expect: Option<PeerId>,
    },
    Send {
        to: String,
        #[serde(default, deserialize_with = "given")]
        json: Option<Value>,
        base64: Option<String>,
    },
    Close {
        #[serde(alias = "to")]
        node: String,
    },
    Peers,
    OverlaySend {
        id: String,
        #[serde(default, deserialize_with = "given")]
        json: Option<Value>,
        base64: Option<String>,
        /// Seconds.
        confirm: Option<f64>,
    },
    OverlayConnect {
        id: String,
    },
    OverlayDisconnect {
        id: String,
    },
    Table,
    Quit,
}

/// A member that is there, `null` or not.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Carries out commands, in order for each node.
pub(crate) struct Commands {
    peer: Peer,
    onramp: Node,
    sends: HashMap<NodeId, Sends>,
}

/// The way to the task that sends to one node. The task ends when this is dropped and all is sent.
struct Sends {
    messages: mpsc::Sender<(Message, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Commands {
    pub(crate) fn new(peer: Peer, onramp: Node) -> Self {
        Self { peer, onramp, sends: HashMap::new() }
    }

    /// Carries out one line. Returns false if it says to quit.
    pub(crate) async fn run(&mut self, line: &str) -> bool {
        let command = match serde_json::from_str(line) {
            Ok(command) => command,
            Err(_) if line.trim().is_empty() => return true,
            Err(error) => {
                self.peer.error(None, format!("not a command: {error}")).await;
                return true;
            }
        };
        match command {
            Command::Connect { to, via, offer_data, expect } => {
                let via = match via {
                    Some(via) => self.node(&via).await,
                    None => Some(self.onramp.clone()),
                };
                if let Some(via) = via {
                    self.peer.dial(via, to, offer_data, expect);
                }
            }
            Command::Send { to, json, base64 } => {
                if let Some(message) = self.message(&to, json, base64).await
                    && let Some(node) = self.node(&to).await
                {
                    self.send(node, message, line.len()).await;
                }
            }
            Command::Close { node } => {
                if let Some(node) = self.node(&node).await {
                    let sends = self.sends.remove(&node.id());
                    tokio::spawn(async move {
                        // What was to be sent goes first, if the node takes it.
                        if let Some(Sends { messages, task, .. }) = sends {
                            drop(messages);
                            let _ = timeout(FLUSH_TIMEOUT, task).await;
                        }
                        node.close().await
                    });
                }
            }
            Command::Peers => {
                let root = &self.peer.root;
                self.peer.notify(Notice::Peers(root.peer_id(), root.peers())).await;
            }
            Command::OverlaySend { id, json, base64, confirm } => {
                if let Some(message) = self.message(&id, json, base64).await
                    && let Some(part) = self.overlay().await
                {
                    part.send(&self.peer, &id, message, confirm).await;
                }
            }
            Command::OverlayConnect { id } => {
                if let Some(part) = self.overlay().await {
                    part.connect(&self.peer, &id).await;
                }
            }
            Command::OverlayDisconnect { id } => {
                if let Some(part) = self.overlay().await {
                    part.disconnect(&self.peer, &id).await;
                }
            }
            Command::Table => {
                if let Some(part) = self.overlay().await {
                    let rows = part.overlay().table();
                    self.peer.notify(Notice::Overlay(overlay::Notice::Table(rows))).await;
                }
            }
            Command::Quit => return false,
        }
        true
    }

    async fn message(&self, to: &str, json: Option<Value>, base64: Option<String>) -> Option<Message> {
        let error = match (json, base64.map(|text| STANDARD.decode(text))) {
            (Some(json), None) => return Some(Message::from(json)),
            (None, Some(Ok(bytes))) => return Some(Message::from(bytes)),
            (None, Some(Err(error))) => format!("not base64: {error}"),
            _ => "a message is either json or base64".to_owned(),
        };
        self.peer.error(Some(to), error).await;
        None
    }

    async fn overlay(&self) -> Option<&overlay::Part> {
        if self.peer.overlay.is_none() {
            self.peer.error(None, overlay::NONE).await;
        }
        self.peer.overlay.as_ref()
    }

    async fn node(&self, address: &str) -> Option<Node> {
        let node = Address::new(address).ok().and_then(|address| self.peer.root.peer(&address));
        if node.is_none() {
            self.peer.error(Some(address), "there is no such node").await;
        }
        node
    }

    async fn send(&mut self, node: Node, message: Message, bytes: usize) {
        if !self.sends.contains_key(&node.id()) {
            self.sends.retain(|_, sends| !sends.task.is_finished());
        }
        let peer = &self.peer;
        let sends = self.sends.entry(node.id()).or_insert_with(|| {
            let (messages, receiver) = mpsc::channel(SENDS);
            let room = Arc::new(Semaphore::new(SEND_BYTES));
            Sends { messages, room, task: tokio::spawn(send_all(peer.clone(), node.clone(), receiver)) }
        });
        let room = sends.room.clone().try_acquire_many_owned(bytes as u32);
        let sent = room.map(|room| sends.messages.try_send((message, room)));
        let error = match sent {
            Ok(Ok(())) => return,
            Ok(Err(TrySendError::Closed(_))) => "the node is not open",
            Ok(Err(TrySendError::Full(_))) | Err(_) => "the node does not keep up: the message is not sent",
        };
        self.peer.error(Some(node.address().as_str()), error).await;
    }
}

async fn send_all(peer: Peer, node: Node, mut messages: mpsc::Receiver<(Message, OwnedSemaphorePermit)>) {
    while let Some((message, room)) = messages.recv().await {
        if let Err(error) = node.send(message).await {
            peer.error(Some(node.address().as_str()), error).await;
            if !node.is_open() {
                break;
            }
        }
        drop(room);
    }
    messages.close();
    let mut lost = 0;
    while messages.recv().await.is_some() {
        lost += 1;
    }
    if lost > 0 {
        peer.error(Some(node.address().as_str()), format!("{lost} more messages are not sent")).await;
    }
}

/// Writes events until there are no more, or nobody reads them.
pub(crate) async fn write(mut notices: mpsc::Receiver<Notice>) {
    let mut out = BufWriter::new(tokio::io::stdout());
    while let Some(notice) = notices.recv().await {
        let mut line = event(notice).to_string();
        line.push('\n');
        if out.write_all(line.as_bytes()).await.is_err() {
            return;
        }
        // What waits goes with it.
        if notices.is_empty() && out.flush().await.is_err() {
            return;
        }
    }
}

fn event(notice: Notice) -> Value {
    match notice {
        Notice::Open(node) => {
            json!({"event": "open", "node": node.address(), "kind": kind(&node), "peerId": node.peer_id()})
        }
        Notice::Connection { node, via } => {
            json!({"event": "connection", "node": node.address(), "via": via.address()})
        }
        Notice::Message(node, Message::Json(value)) => {
            json!({"event": "message", "node": node.address(), "json": value})
        }
        Notice::Message(node, Message::Binary(bytes)) => {
            json!({"event": "binary", "node": node.address(), "base64": STANDARD.encode(bytes)})
        }
        Notice::Close(node, reason) => {
            json!({"event": "close", "node": node.address(), "reason": reason.to_string()})
        }
        Notice::Disconnection { node, via } => {
            json!({"event": "disconnection", "node": node.address(), "via": via.address()})
        }
        Notice::Error { node, reason, message } => {
            let mut event = json!({"event": "error", "message": message});
            if let Some(node) = node {
                event["node"] = node.into();
            }
            if let Some(reason) = reason {
                event["reason"] = reason.into();
            }
            event
        }
        Notice::Peers(own, nodes) => {
            let peers: Vec<Value> = nodes
                .iter()
                .map(|node| {
                    json!({"node": node.address(), "kind": kind(node), "open": node.is_open(), "peerId": node.peer_id()})
                })
                .collect();
            json!({"event": "peers", "peerId": own, "peers": peers})
        }
        Notice::Overlay(notice) => of_overlay(notice),
    }
}

fn of_overlay(notice: overlay::Notice) -> Value {
    use overlay::Notice;
    match notice {
        Notice::Ready { id, listen } => {
            let mut event = json!({"event": "overlay-ready", "id": id});
            if let Some(address) = listen {
                event["listen"] = address.to_string().into();
            }
            event
        }
        Notice::Peer(id) => json!({"event": "overlay-peer", "id": id}),
        Notice::PeerLeft(id) => json!({"event": "overlay-peer-left", "id": id}),
        Notice::Message(OverlayMessage { from, verified, message, .. }) => {
            let mut event = match message {
                Message::Json(value) => json!({"event": "overlay-message", "from": from, "json": value}),
                Message::Binary(bytes) => {
                    json!({"event": "overlay-binary", "from": from, "base64": STANDARD.encode(bytes)})
                }
            };
            if !verified {
                event["verified"] = false.into();
            }
            event
        }
        Notice::Sent(id) => json!({"event": "overlay-sent", "id": id}),
        Notice::Connected(id) => json!({"event": "overlay-connected", "id": id}),
        Notice::Table(rows) => {
            let rows: Vec<Value> = rows.iter().map(|row| json!({"role": row.role, "peer": row.peer})).collect();
            json!({"event": "table", "rows": rows})
        }
    }
}

fn kind(node: &Node) -> &'static str {
    match node.kind() {
        NodeKind::WebSocket => "websocket",
        NodeKind::WebRtc => "webrtc",
        NodeKind::Overlay => "overlay",
        NodeKind::Directory => "directory",
    }
}
