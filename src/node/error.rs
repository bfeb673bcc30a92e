//! One error type for each operation.

use super::{Message, Node};
use crate::error::{CloseReason, Denied};
use crate::identity::PeerId;
use crate::protocol::Address;
use crate::transport::Rejected;

/// Why a connect call gave no open node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is empty or too long, or the URL is none that can be dialled.
    #[error("not an address that can be dialled: {0}")]
    InvalidAddress(String),
    /// The offer data is larger than any peer takes. Nothing was sent.
    #[error("the offer data is larger than {limit} bytes of JSON")]
    OfferDataTooLarge {
        /// The most bytes that offer data may have as JSON.
        limit: usize,
    },
    /// The other side's firewall refused the offer. An original P refuses silently: that ends in [`TimedOut`](Self::TimedOut).
    #[error("refused by the other side's firewall")]
    Refused,
    /// The introducing node knows no such peer.
    #[error("the introducing node knows no such peer")]
    Unreachable,
    /// The other side, or the introducer, has too much to do. Try again later.
    #[error("the other side or the introducer is busy")]
    Busy,
    /// The other side still holds an open connection to this one. If it is dead, the other side will notice within
    /// seconds; try again then.
    #[error("the other side holds an open connection to this one")]
    AlreadyConnected,
    /// The address is this root's own.
    #[error("the address is this root's own")]
    OwnAddress,
    /// The proof of who the other side is does not fit, and the text says how. Somebody may be in the middle.
    #[error("the identity could not be verified: {0}")]
    Unverified(String),
    /// The other side is somebody else than [expected](crate::Connect::expect).
    #[error("{}", CloseReason::UnexpectedPeer { expected: *expected, found: *found })]
    UnexpectedPeer {
        /// Who was expected.
        expected: PeerId,
        /// Who it is; `None` for an onramp, for an original P, and for whoever passes for one.
        found: Option<PeerId>,
    },
    /// The other side has no identity, and this root [requires one](crate::RootBuilder::require_identity).
    #[error("the other side has no identity")]
    NoIdentity,
    /// The node that was to introduce the peer is not open, or closed before both sides had exchanged descriptions.
    #[error("the introducing node is not open")]
    ViaClosed,
    /// The connection was not open in time.
    #[error("not open within the connect timeout")]
    TimedOut,
    /// The node was closed on this side before it was open.
    #[error("closed on this side before it was open")]
    Cancelled,
    /// The root is closed.
    #[error("the root is closed")]
    RootClosed,
    /// The onramp has answered by a status of HTTP, 400 or more: one with accounts where one must
    /// [log in](crate::Connect::log_in), for instance.
    #[error("{0}")]
    Denied(Denied),
    /// The transport could not connect, or broke before it was open; the text says why.
    #[error("could not connect: {0}")]
    Failed(String),
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Refused => Self::Refused,
            CloseReason::Unreachable => Self::Unreachable,
            CloseReason::Busy => Self::Busy,
            CloseReason::AlreadyConnected => Self::AlreadyConnected,
            CloseReason::OwnAddress => Self::OwnAddress,
            CloseReason::Unverified(how) => Self::Unverified(how),
            CloseReason::UnexpectedPeer { expected, found } => Self::UnexpectedPeer { expected, found },
            CloseReason::NoIdentity => Self::NoIdentity,
            CloseReason::ViaClosed => Self::ViaClosed,
            CloseReason::TimedOut => Self::TimedOut,
            CloseReason::Cancelled | CloseReason::Local => Self::Cancelled,
            CloseReason::RootClosed => Self::RootClosed,
            CloseReason::Denied(denied) => Self::Denied(denied),
            CloseReason::Failed(why) => Self::Failed(why),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The node or channel is not open yet, or not any more.
    #[error("the node or channel is not open")]
    NotOpen,
    /// The message is larger than this node takes. Nothing was sent.
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes a message of this kind may have on this node.
        limit: usize,
    },
}

/// Why a message was not queued at once. Gives the message back.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrySendError {
    /// The queue is full: the other side does not read as fast as this one sends.
    #[error("the send queue is full")]
    Full(Message),
    /// The node or channel is not open yet, or not any more.
    #[error("the node or channel is not open")]
    NotOpen(Message),
    /// The message is larger than this node takes.
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes a message of this kind may have on this node.
        limit: usize,
        /// The message.
        message: Message,
    },
}

impl From<Rejected> for SendError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            // Who waits is not told that it is full.
            Rejected::Full | Rejected::NotOpen => Self::NotOpen,
            Rejected::TooLarge(limit) => Self::TooLarge { limit },
        }
    }
}

impl TrySendError {
    pub(super) fn new(rejected: Rejected, message: Message) -> Self {
        match rejected {
            Rejected::Full => Self::Full(message),
            Rejected::NotOpen => Self::NotOpen(message),
            Rejected::TooLarge(limit) => Self::TooLarge { limit, message },
        }
    }
}

/// Why there is no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The node is not open yet, or not any more.
    #[error("the node is not open")]
    NotOpen,
    /// The other side knows no channels: it is an onramp, or an original P.
    #[error("the other side knows no channels")]
    Unsupported,
    /// So many channels of this node have been opened by this side and are not over.
    #[error("{limit} channels are open")]
    TooMany {
        /// The most that each side may have opened at a time.
        limit: usize,
    },
    /// The channels that this side has opened on this node had so many kinds of delivery besides ordered and reliable, and
    /// this would be another.
    #[error("the channels are of {limit} kinds")]
    TooManyKinds {
        /// The most kinds that the channels of a side may have while the node is open.
        limit: usize,
    },
    /// The name is one of those that the library uses itself.
    #[error("names of channels that begin with {prefix} are reserved")]
    NameReserved {
        /// How they begin.
        prefix: &'static str,
    },
    /// The name is too long.
    #[error("the name of a channel is longer than {limit} bytes")]
    NameTooLong {
        /// The most bytes.
        limit: usize,
    },
}

/// Something went wrong that does not end the node.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The firewall panicked. The offer was refused.
    #[error("the firewall panicked; the offer from {from} was refused")]
    FirewallPanicked {
        /// The address whose offer was refused.
        from: Address,
    },
    /// The firewall did not decide within the accept timeout. The offer was refused.
    #[error("the firewall took too long; the offer from {from} was refused")]
    FirewallTimedOut {
        /// The address whose offer was refused.
        from: Address,
    },
    /// A connection attempt failed. The node of the attempt closes with the same reason.
    #[error("could not connect: {0}")]
    ConnectFailed(ConnectError),
    /// A message arrived that is not JSON although it says so. It was dropped, as all further ones of this node will be.
    #[error("messages that are not JSON are dropped")]
    MalformedMessage,
    /// The node is over, and what had arrived and was not read yet was forgotten: too much of that kind waits already.
    #[error("{bytes} bytes that arrived before the end and were not read are lost")]
    UnreadForgotten {
        /// How many bytes.
        bytes: usize,
    },
}

/// What happens to a node, or through it.
///
/// A node's own stream carries what concerns that node; the root's stream carries everything.
///
/// ```no_run
/// # use tokio_stream::StreamExt;
/// # async fn example(root: pmesh::Root) {
/// use pmesh::Event;
///
/// let mut events = root.events();
/// while let Some(event) = events.next().await {
///     match event {
///         Event::Open { node } => println!("{} is open", node.address()),
///         Event::Close { node, reason } => println!("{} is over: {reason}", node.address()),
///         Event::Lagged(lost) => println!("{lost} events lost; there are {} nodes", root.peers().len()),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A node was made, and is on its way to being open: `via` introduced it, or it was dialled through `via`. Listen to
    /// it now, and nothing is lost.
    Connection {
        /// The new node.
        node: Node,
        /// The introducing node; `None` for an onramp and for the overlay.
        via: Option<Node>,
    },
    /// A node is open.
    Open {
        /// The node.
        node: Node,
    },
    /// A node is over.
    Close {
        /// The node.
        node: Node,
        /// Why.
        reason: CloseReason,
    },
    /// A node that was made through `via` is over. Follows `Close`.
    Disconnection {
        /// The node that is over.
        node: Node,
        /// The node that introduced it, which may be over itself; `None` for an onramp and for the
        /// overlay.
        via: Option<Node>,
    },
    /// A neighbour said that one of its peers has left. Only onramps of pmesh say so.
    PeerLeft {
        /// The neighbour.
        via: Node,
        /// The peer that left.
        address: Address,
    },
    /// Something went wrong that does not end the node.
    Error {
        /// The node that it happened to.
        node: Node,
        /// What went wrong.
        error: NodeError,
    },
    /// The reader was too slow, and so many events are lost. Read `peers()`, `is_open()` again.
    Lagged(u64),
}
