//! The ports through which the node tree reaches the outside, and their adapters.
//!
//! The tree starts a [`Transport`] and gets a [`Link`]: a handle that takes commands and never blocks. Everything that
//! happens comes back as [`LinkEvent`]s on one bounded channel. User messages do not go that way: they pass through the
//! link's [`Pipe`], which packs them, applies credit and keeps their order. An adapter only pumps the pipe: it writes
//! what [`Pipe::next_outgoing`] yields and hands what arrives to [`Pipe::deliver`].

use std::sync::Arc;

use crate::error::CloseReason;
use crate::protocol::proof::Confirmation;
use crate::protocol::signal::{Candidate, Description};

pub(crate) mod http;
pub(crate) mod introducer;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod socket;
pub(crate) mod turned;
pub(crate) mod upgrade;
pub(crate) mod webrtc;
pub(crate) mod websocket;

pub(crate) use pipe::{
    Framing, Lane, NoLane, Outgoing, Pipe, Queues, Rejected, StreamAction, Subscription, WhenFull, WireMessage,
};

/// Names a link within its root. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// What the other end of a WebRTC link is, as its offer or answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remote {
    /// An original P: two channels, text and binary frames, no credit.
    Original,
    /// A pmesh peer: one channel, and packets.
    Pmesh {
        /// Credit for us at the start, in bytes and packets.
        window: (u32, u32),
        /// The largest message it takes, in bytes, if it says so.
        max_message: Option<u64>,
    },
}

/// What a link is to be made to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// A WebSocket server.
    Url(String),
    /// A peer that is to be sent an offer. [`LinkEvent::Description`] brings the offer.
    Offer,
    /// A peer whose offer was accepted. [`LinkEvent::Description`] brings the answer.
    Answer { offer: Description, remote: Remote },
}

/// What can be asked of a link.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// The answer to our offer has come. At most once, and only for [`Target::Offer`].
    Answer { description: Description, remote: Remote },
    /// What the two ends have to confirm inside the channel before the link to a pmesh peer is open. Comes once, after the
    /// answer of ours or before that of theirs.
    Confirm(Box<Confirmation>),
    /// A candidate of the other side. For [`Target::Offer`] only after [`Command::Answer`].
    Candidate(Candidate),
    /// Send what is queued, for a bounded time, then close. [`LinkEvent::Closed`] follows.
    Close,
}

/// On whose account an introducer passes frames on. Where many want what there is little of, each account gets a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// Tells accounts of one introducer apart.
    pub(crate) number: u64,
    /// Whether no application waits for it.
    pub(crate) background: bool,
}

/// What a link tells the tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LinkEvent {
    /// The local offer or answer.
    Description(Description),
    /// A local candidate. Candidates of before the description may come before it.
    Candidate(Candidate),
    /// The link is open: messages and frames pass in both directions.
    Opened {
        /// Whether the other end of a WebSocket agreed to the extension frames. True for a WebRTC link to a pmesh peer.
        extension: bool,
    },
    /// A signalling frame has arrived: the text of anything but a user message.
    Frame(String),
    /// The same, from an introducer that says on whose account it comes.
    FrameOf {
        /// Whose.
        account: Account,
        /// The frame.
        text: String,
    },
    /// Something arrived that could not be used, and was dropped.
    Malformed,
    /// The link is over. Nothing follows.
    Closed(CloseReason),
}

/// Makes links of one kind, or of all kinds.
#[cfg_attr(test, mockall::automock)]
pub(crate) trait Transport: Send + Sync + 'static {
    /// Starts to make a link, and returns at once. The link reports through the pipe's event channel and pumps the pipe.
    fn start(&self, target: Target, pipe: Arc<Pipe>) -> Box<dyn Link>;
}

/// A link that is being made, or is open. Dropping it ends it at once, without flushing and without an event.
#[cfg_attr(test, mockall::automock)]
pub(crate) trait Link: Send + Sync {
    /// Passes a command on, without waiting. A link that is over ignores it.
    fn command(&self, command: Command);
}
