//! What chat and JSON mode share: the root, one task for each node, and how it ends.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::{CloseReason, Event, Message, Node, NodeError, NodeKind, Root};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use crate::args::PeerArgs;
use crate::{chat, json};

/// Notices that may wait to be written. At it, reading from peers waits.
const NOTICES: usize = 1024;
/// Dials of --auto-connect that may go on at once.
const DIALS: usize = 64;
/// Longest input line, in bytes. A longer one is an error.
const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// How long the last lines may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the user is told. For one node: `Connection`, `Open`, messages, `Close`, `Disconnection`, in this order.
#[derive(Debug)]
pub(crate) enum Notice {
    Open(Node),
    Connection { node: Node, via: Node },
    Message(Node, Message),
    Close(Node, CloseReason),
    Disconnection { node: Node, via: Node },
    Error { node: Option<String>, message: String },
    Peers(Vec<Node>),
}

/// A running peer.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) root: Root,
    pub(crate) args: Arc<PeerArgs>,
    pub(crate) notices: mpsc::Sender<Notice>,
    dials: Arc<Semaphore>,
}

impl Peer {
    pub(crate) async fn notify(&self, notice: Notice) {
        // The writer is gone only when standard output is: then the peer ends anyway.
        let _ = self.notices.send(notice).await;
    }

    pub(crate) async fn error(&self, node: Option<&str>, message: impl ToString) {
        self.notify(Notice::Error { node: node.map(str::to_owned), message: message.to_string() }).await;
    }

    /// Dials in the background. A failure is a notice.
    pub(crate) fn dial(&self, via: Node, to: String, data: Option<Value>) {
        let peer = self.clone();
        tokio::spawn(async move {
            if let Err(error) = via.connect(peer.args.connect(&to, data)).await {
                peer.error(Some(&to), error).await;
            }
        });
    }

    /// Dials an announced peer, when it is its turn.
    fn auto_dial(&self, via: Node, to: String) {
        let peer = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = peer.dials.clone().acquire_owned().await else { return };
            if let Err(error) = via.connect(peer.args.connect(&to, None)).await {
                peer.error(Some(&to), error).await;
            }
        });
    }
}

/// Runs until it is told to quit.
pub(crate) async fn run(args: PeerArgs) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("pmesh: cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let (notices, receiver) = mpsc::channel(NOTICES);
    let peer = Peer { root: args.root(), args: Arc::new(args), notices, dials: Arc::new(Semaphore::new(DIALS)) };
    let events = peer.root.events();
    let watching = tokio::spawn(watch(peer.clone(), events));
    let mut writing = tokio::spawn(if peer.args.json {
        futures_util::future::Either::Left(json::write(receiver))
    } else {
        futures_util::future::Either::Right(chat::write(receiver))
    });
    let code = tokio::select! {
        code = serve(&peer) => code,
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        // Nobody reads what we have to say.
        _ = &mut writing => return ExitCode::FAILURE,
    };
    peer.root.close().await;
    watching.abort();
    drop(peer);
    // The tasks of the nodes end with the nodes; then the writer has everything. Nobody may be reading it, though.
    let _ = timeout(WRITE_TIMEOUT, writing).await;
    code
}

async fn serve(peer: &Peer) -> ExitCode {
    let mut onramps = Vec::new();
    for url in &peer.args.onramp {
        match peer.root.connect(url).await {
            Ok(onramp) => onramps.push(onramp),
            Err(error) => peer.error(Some(url), error).await,
        }
    }
    let Some(onramp) = onramps.first() else { return ExitCode::FAILURE };
    let mut lines = FramedRead::new(tokio::io::stdin(), LinesCodec::new_with_max_length(MAX_LINE_BYTES));
    let mut commands = json::Commands::new(peer.clone(), onramp.clone());
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) => line,
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                peer.error(None, format!("a line is longer than {MAX_LINE_BYTES} bytes")).await;
                continue;
            }
            Err(LinesCodecError::Io(error)) => {
                peer.error(None, format!("a line cannot be read: {error}")).await;
                if error.kind() == std::io::ErrorKind::InvalidData {
                    continue;
                }
                break;
            }
        };
        if !peer.args.json {
            chat::say(peer, line).await;
        } else if !commands.run(&line).await {
            return ExitCode::SUCCESS;
        }
    }
    // The end of the input does not end the peer.
    std::future::pending().await
}

/// Starts a task for each node that comes.
async fn watch(peer: Peer, mut events: pmesh::Events) {
    let mut seen: HashSet<Node> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Connection { node, via } => follow(&peer, &mut seen, node, via).await,
            Event::Error { node, error } => {
                // A failed dial is told by the dial.
                if !matches!(error, NodeError::ConnectFailed(_)) {
                    peer.error(Some(node.address().as_str()), error).await;
                }
            }
            Event::Close { node, .. } => drop(seen.remove(&node)),
            Event::Lagged(_) => {
                let nodes = peer.root.peers();
                seen.retain(|node| nodes.contains(node));
                for node in nodes {
                    follow(&peer, &mut seen, node, None).await;
                }
            }
            _ => {}
        }
    }
}

async fn follow(peer: &Peer, seen: &mut HashSet<Node>, node: Node, via: Option<Node>) {
    if !seen.insert(node.clone()) {
        return;
    }
    if let Some(via) = via.clone() {
        peer.notify(Notice::Connection { node: node.clone(), via }).await;
    }
    // Made here, so that nothing is missed.
    let messages = node.messages();
    tokio::spawn(attend(peer.clone(), node, via, messages));
}

/// One node from its beginning to its end.
async fn attend(peer: Peer, node: Node, via: Option<Node>, mut messages: pmesh::Messages) {
    if node.opened().await.is_ok() {
        peer.notify(Notice::Open(node.clone())).await;
    }
    while let Some(message) = messages.next().await {
        if node.kind() == NodeKind::WebSocket {
            if let (true, Some(address)) = (peer.args.auto_connect, message.as_str()) {
                peer.auto_dial(node.clone(), address.to_owned());
            }
        } else if peer.args.echo {
            // Waits for a peer that sends but does not read: that is its own affair.
            if let Err(error) = node.send(message.clone()).await {
                peer.error(Some(node.address().as_str()), error).await;
            }
        }
        peer.notify(Notice::Message(node.clone(), message)).await;
    }
    let reason = node.closed().await;
    peer.notify(Notice::Close(node.clone(), reason)).await;
    if let Some(via) = via {
        peer.notify(Notice::Disconnection { node, via }).await;
    }
}
