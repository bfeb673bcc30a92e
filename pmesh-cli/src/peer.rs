//! What chat and JSON mode share: the root, one task for each node, and how it ends.

use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::{
    Address, CloseReason, Connect, ConnectError, Event, Message, Node, NodeError, NodeId, NodeKind, PeerId, Root,
};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::PeerArgs;
use crate::output::{note, print_blocking, unread};
use crate::{chat, json, mesh, overlay, reason, stop};

/// Notices that may wait to be written. At it, reading from peers waits.
const NOTICES: usize = 1024;
/// Dials of --auto-connect that may go on at once.
const DIALS: usize = 64;
/// Announced peers that may wait to be dialled. At it, further ones are an error.
const ANNOUNCED: usize = 16_384;
/// Longest input line, in bytes. A longer one is an error.
const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// How long the last lines may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the user is told. For one node: `Connection`, `Open`, messages, `Close`, `Disconnection`, in this order.
#[derive(Debug)]
pub(crate) enum Notice {
    Open(Node),
    Connection {
        node: Node,
        via: Node,
    },
    Message(Node, Message),
    Close(Node, CloseReason),
    Disconnection {
        node: Node,
        via: Node,
    },
    Error {
        node: Option<String>,
        reason: Option<&'static str>,
        message: String,
    },
    /// Who this root is, and its nodes.
    Peers(PeerId, Vec<Node>),
    /// Of the overlay, if there is one.
    Overlay(overlay::Notice),
}

/// A running peer.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) root: Root,
    pub(crate) args: Arc<PeerArgs>,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) overlay: Option<overlay::Part>,
    announced: mpsc::Sender<(Node, Address)>,
}

impl Peer {
    pub(crate) async fn notify(&self, notice: Notice) {
        // The writer is gone only when standard output is: then the peer ends anyway.
        let _ = self.notices.send(notice).await;
    }

    pub(crate) async fn error(&self, node: Option<&str>, message: impl ToString) {
        let message = message.to_string();
        self.notify(Notice::Error { node: node.map(str::to_owned), reason: None, message }).await;
    }

    /// An error with a [`reason`].
    pub(crate) async fn failure(&self, node: String, reason: &'static str, message: impl ToString) {
        self.notify(Notice::Error { node: Some(node), reason: Some(reason), message: message.to_string() }).await;
    }

    pub(crate) async fn connect_error(&self, to: &str, error: ConnectError) {
        self.failure(to.to_owned(), reason::of_connect(&error), reason::told(&error)).await;
    }

    /// Dials in the background. A failure is a notice.
    pub(crate) fn dial(&self, via: Node, to: String, data: Option<Value>, expect: Option<PeerId>) {
        tokio::spawn(self.clone().connect(via, to, data, expect));
    }

    async fn connect(self, via: Node, to: String, data: Option<Value>, expect: Option<PeerId>) {
        if let Err(error) = via.connect(self.args.connect(&to, data, expect)).await {
            self.connect_error(&to, error).await;
        }
    }

    /// Dials an announced peer, when it is its turn.
    async fn auto_dial(&self, via: &Node, to: &str) {
        let Ok(address) = Address::new(to) else { return };
        if self.announced.try_send((via.clone(), address)).is_err() {
            self.error(Some(to), "more peers are announced than can be dialled").await;
        }
    }

    async fn auto_dial_all(self, mut announced: mpsc::Receiver<(Node, Address)>) {
        let mut dials = JoinSet::new();
        while let Some((via, to)) = announced.recv().await {
            if dials.len() >= DIALS {
                dials.join_next().await;
            }
            dials.spawn(self.clone().connect(via, to.to_string(), None, None));
            while dials.try_join_next().is_some() {}
        }
    }
}

/// Runs until it is told to quit.
pub(crate) async fn run(args: PeerArgs) -> ExitCode {
    let root = match args.root() {
        Ok(root) => root,
        Err(error) => {
            return not_started(&args, reason::of_identity_file(&error), error);
        }
    };
    let onramps = match args.mesh.onramps() {
        Ok(onramps) => onramps,
        Err(error) => return not_started(&args, "login", error),
    };
    let events = root.events();
    let overlay = if args.mesh.has_overlay() {
        match mesh::start(&root, &args.mesh).await {
            Ok(overlay) => Some(overlay),
            Err(error) => return not_started(&args, "overlay", error),
        }
    } else {
        None
    };
    // Until here, where a name may be looked up, a signal ends it at once.
    let stopped = stop::stopped();
    let (notices, receiver) = mpsc::channel(NOTICES);
    let (announced, to_dial) = mpsc::channel(ANNOUNCED);
    let mut peer = Peer { root, args: Arc::new(args), notices, overlay: None, announced };
    if let Some(overlay) = overlay {
        peer.overlay = Some(overlay::Part::new(&peer, overlay).await);
    }
    let watching = tokio::spawn(watch(peer.clone(), events));
    let dialling = tokio::spawn(peer.clone().auto_dial_all(to_dial));
    let mut writing = tokio::spawn(if peer.args.json {
        futures_util::future::Either::Left(json::write(receiver))
    } else {
        futures_util::future::Either::Right(chat::write(receiver))
    });
    let code = tokio::select! {
        code = serve(&peer, onramps) => code,
        () = stopped => ExitCode::SUCCESS,
        // Nobody reads what we have to say.
        _ = &mut writing => ExitCode::FAILURE,
        () = unread() => ExitCode::FAILURE,
    };
    if let Some(part) = &peer.overlay {
        part.close().await;
    }
    peer.root.close().await;
    watching.abort();
    dialling.abort();
    drop(peer);
    if writing.is_finished() {
        return code;
    }
    // The tasks of the nodes end with the nodes; then the writer has everything. Nobody may be reading it, though.
    let _ = timeout(WRITE_TIMEOUT, writing).await;
    code
}

fn not_started(args: &PeerArgs, reason: &'static str, error: impl Display) -> ExitCode {
    if args.json {
        let event = serde_json::json!({"event": "error", "reason": reason, "message": error.to_string()});
        let _ = print_blocking(event);
    }
    note!("pmesh peer: {error}");
    ExitCode::FAILURE
}

async fn serve(peer: &Peer, calls: Vec<(String, Connect)>) -> ExitCode {
    let mut onramps = Vec::new();
    for (url, connect) in calls {
        match peer.root.connect(connect).await {
            Ok(onramp) => onramps.push(onramp),
            Err(error) => peer.connect_error(&url, error).await,
        }
    }
    // In an overlay peers can be met without any.
    let overlay = peer.overlay.as_ref().map(|part| part.overlay().node());
    let Some(onramp) = onramps.first().or(overlay) else { return ExitCode::FAILURE };
    let mut input = BufReader::new(tokio::io::stdin());
    let mut commands = json::Commands::new(peer.clone(), onramp.clone());
    loop {
        let line = match read_line(&mut input).await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                peer.error(None, error).await;
                continue;
            }
            Err(error) => {
                peer.error(None, format!("standard input cannot be read: {error}")).await;
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

/// The next line without its end; `None` at the end of the input. A line that is too long or not UTF-8 is read to its end
/// and gives `InvalidData`.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let limit = (MAX_LINE_BYTES + 1).saturating_sub(line.len()) as u64;
        let read = (&mut *input).take(limit.max(1)).read_until(b'\n', &mut line).await?;
        if line.last() == Some(&b'\n') || read == 0 {
            break;
        }
        if line.len() > MAX_LINE_BYTES {
            too_long = true;
            line.clear();
        }
    }
    if too_long {
        let error = format!("a line is longer than {MAX_LINE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    if line.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(line);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line is not UTF-8"))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Starts a task for each node that comes.
async fn watch(peer: Peer, mut events: pmesh::Events) {
    let mut seen = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Connection { node, via } => follow(&peer, &mut seen, node, via).await,
            // A failed dial is told by the dial.
            Event::Error { error: NodeError::ConnectFailed(_), .. } => {}
            Event::Error { node, error } => peer.error(Some(node.address().as_str()), error).await,
            Event::Close { node, .. } => drop(seen.remove(&node.id())),
            Event::Lagged(_) => {
                let nodes = peer.root.peers();
                let ids: HashSet<NodeId> = nodes.iter().map(Node::id).collect();
                seen.retain(|id| ids.contains(id));
                for node in nodes {
                    follow(&peer, &mut seen, node, None).await;
                }
            }
            _ => {}
        }
    }
}

async fn follow(peer: &Peer, seen: &mut HashSet<NodeId>, node: Node, via: Option<Node>) {
    if !seen.insert(node.id()) {
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
    let mut open = node.opened().await.is_ok();
    if open {
        peer.notify(Notice::Open(node.clone())).await;
    }
    while let Some(message) = messages.next().await {
        if !open {
            // It was open for so short a time that we did not see it.
            open = true;
            peer.notify(Notice::Open(node.clone())).await;
        }
        if node.kind() == NodeKind::WebSocket {
            if let (true, Some(address)) = (peer.args.auto_connect, message.as_str()) {
                peer.auto_dial(&node, address).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_cannot_be_read_do_not_end_the_input() {
        let mut input = b"one\r\n\xff\xff\ntwo\n".to_vec();
        input.extend(std::iter::repeat_n(b'x', 2 * MAX_LINE_BYTES + 1000));
        input.extend(b"\n\nlast");
        let mut input = input.as_slice();
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).await.transpose() {
            lines.push(line.map_err(|error| error.kind()));
        }
        let bad = || Err(io::ErrorKind::InvalidData);
        assert_eq!(lines, [Ok("one".into()), bad(), Ok("two".into()), bad(), Ok(String::new()), Ok("last".into())]);
    }
}
