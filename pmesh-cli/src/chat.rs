//! A readable chat: who came, who left, lines typed go to everyone.

use pmesh::overlay::OverlayMessage;
use pmesh::{Message, Node, NodeKind};
use serde_json::Value;
use tokio::io::{AsyncWriteExt, stdout};
use tokio::sync::mpsc;

use crate::overlay;
use crate::peer::{Notice, Peer};

/// What a line that begins with a slash may be.
const HELP: &str =
    "/to ID text sends to one of the overlay, //text sends what begins with a slash, all else goes to everybody";

/// What a line is for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    All(&'a str),
    One { id: &'a str, text: &'a str },
    Mistake(String),
}

fn parse(line: &str) -> Line<'_> {
    let Some(command) = line.strip_prefix('/') else { return Line::All(line) };
    if command.starts_with('/') {
        return Line::All(command);
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match (word, rest.trim_start().split_once(' ')) {
        ("to", Some((id, text))) => Line::One { id, text },
        // Never to everyone what is for one.
        ("to", None) => Line::Mistake("it is: /to ID text".to_owned()),
        ("help", _) => Line::Mistake(HELP.to_owned()),
        (word, _) => Line::Mistake(format!("there is no /{word}: {HELP}")),
    }
}

/// Sends a line to every peer, or as `/to ID text` to one of the overlay. One that does not keep up misses it, and the user is told.
pub(crate) async fn say(peer: &Peer, line: String) {
    match (parse(&line), &peer.overlay) {
        (Line::All(text), _) => say_all(peer, text).await,
        (Line::One { id, text }, Some(part)) => part.send(peer, id, Message::from(text), None).await,
        (Line::One { .. }, None) => peer.error(None, overlay::NONE).await,
        (Line::Mistake(why), _) => peer.error(None, why).await,
    }
}

async fn say_all(peer: &Peer, text: &str) {
    let mut nodes = peer.root.peers();
    nodes.retain(|node| node.kind() == NodeKind::WebRtc && node.is_open());
    if nodes.is_empty() && !text.is_empty() {
        peer.error(None, "nobody is there to read this").await;
    }
    for node in nodes {
        if let Err(error) = node.try_send(text) {
            peer.error(Some(node.address().as_str()), error).await;
        }
    }
}

/// Writes what happens until nothing more does, or nobody reads it.
pub(crate) async fn write(mut notices: mpsc::Receiver<Notice>) {
    let mut out = stdout();
    while let Some(notice) = notices.recv().await {
        let Some(mut line) = line(notice) else { continue };
        line.push('\n');
        if out.write_all(line.as_bytes()).await.is_err() || out.flush().await.is_err() {
            return;
        }
    }
}

fn line(notice: Notice) -> Option<String> {
    match notice {
        Notice::Open(node) if node.kind() == NodeKind::WebSocket => Some(format!("* at the onramp {}", node.address())),
        // It says itself when it is ready, and is over when the program is.
        Notice::Open(node) | Notice::Close(node, _) if node.kind() == NodeKind::Overlay => None,
        Notice::Open(node) => Some(format!("* {} is here", name(&node))),
        // The addresses that an onramp announces.
        Notice::Message(node, _) if node.kind() == NodeKind::WebSocket => None,
        Notice::Message(node, Message::Json(value)) => Some(format!("{}: {}", name(&node), text(&value))),
        Notice::Message(node, Message::Binary(bytes)) => Some(format!("{}: {} bytes", name(&node), bytes.len())),
        Notice::Close(node, reason) if node.kind() == NodeKind::WebSocket => {
            Some(format!("* the onramp is gone: {reason}"))
        }
        Notice::Close(node, reason) => {
            Some(format!("* {} has left: {}", name(&node), reason.to_string().escape_debug()))
        }
        Notice::Error { node: Some(node), message, .. } => {
            Some(format!("! {}: {}", node.escape_debug(), message.escape_debug()))
        }
        Notice::Error { node: None, message, .. } => Some(format!("! {}", message.escape_debug())),
        Notice::Overlay(notice) => of_overlay(notice),
        Notice::Connection { .. } | Notice::Disconnection { .. } | Notice::Peers(..) => None,
    }
}

fn of_overlay(notice: overlay::Notice) -> Option<String> {
    use overlay::Notice;
    match notice {
        Notice::Ready { id, listen: None } => Some(format!("* in the overlay as {id}")),
        Notice::Ready { id, listen: Some(address) } => Some(format!("* in the overlay as {id}, at ws://{address}")),
        Notice::Peer(id) => Some(format!("* {id} is a neighbour")),
        Notice::PeerLeft(id) => Some(format!("* {id} is no neighbour any more")),
        Notice::Message(OverlayMessage { from, verified, message, .. }) => {
            let text = match message {
                Message::Json(value) => text(&value),
                Message::Binary(bytes) => format!("{} bytes", bytes.len()),
            };
            let doubt = if verified { "" } else { " (claimed)" };
            Some(format!("{from}{doubt}: {text}"))
        }
        Notice::Sent(_) | Notice::Connected(_) | Notice::Table(_) => None,
    }
}

/// Quoted unless it is plain text, so that a peer cannot pretend or disturb the terminal.
fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => value.to_string(),
    }
}

/// Enough of the address to tell peers apart.
fn name(node: &Node) -> String {
    let address = node.address().as_str();
    address.chars().take(8).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_slash_is_a_command() {
        for (line, meant) in [
            ("hello /to", Line::All("hello /to")),
            ("", Line::All("")),
            ("//to be", Line::All("/to be")),
            ("/to  ab  two words", Line::One { id: "ab", text: " two words" }),
            ("/to", Line::Mistake("it is: /to ID text".into())),
            ("/to ab", Line::Mistake("it is: /to ID text".into())),
            ("/help", Line::Mistake(HELP.into())),
            ("/tot ab c", Line::Mistake(format!("there is no /tot: {HELP}"))),
            ("/", Line::Mistake(format!("there is no /: {HELP}"))),
        ] {
            assert_eq!(parse(line), meant, "{line}");
        }
    }
}
