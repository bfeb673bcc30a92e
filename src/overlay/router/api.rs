//! What goes into a router and comes out of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::overlay::OverlayId;

/// What a message is for, at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A message of the application, as JSON text.
    Json,
    /// A message of the application, as bytes.
    Binary,
    /// A packet of a datagram socket.
    Datagram,
    /// A packet of a stream.
    Stream,
    /// A frame that makes a link.
    Signal,
    /// A message of the topics.
    Topic,
    /// JSON from an original peer-relay. Such are sent by [`send_foreign`](super::Router::send_foreign).
    Foreign,
}

/// Names a message that we have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub(super) u64);

/// What the router wants done, and what it tells. Who drives it has to do all of it, so a further kind would be a breaking
/// change.
#[derive(Debug)]
pub enum Output {
    /// Send this packet over the link to a neighbour.
    Transmit {
        /// The neighbour.
        to: OverlayId,
        /// At most [`MAX_PACKET_BYTES`].
        packet: Bytes,
    },
    /// Send this over the link to an original.
    Foreign {
        /// The original, a neighbour.
        to: OverlayId,
        /// What to say.
        message: ForeignMessage,
    },
    /// A neighbour has said hello: messages can be sent to it. An original never says it, and is there at once.
    NeighbourUp(OverlayId),
    /// A neighbour of which [`Self::NeighbourUp`] has told is gone.
    NeighbourDown(OverlayId),
    /// A message for us.
    Deliver {
        /// Who has sent it.
        from: OverlayId,
        /// Whether that is proven. If not, it is only what the message says.
        verified: bool,
        /// The neighbour over which it has come, or we.
        through: OverlayId,
        /// What it is for.
        kind: Kind,
        /// What it says.
        body: Bytes,
    },
    /// A message for which a confirmation was wanted has been delivered.
    Confirmed {
        /// Which.
        send: SendId,
    },
    /// A message has not been delivered as far as is known here. Of those that want no confirmation this tells only what is found
    /// out on the way to the first hop.
    Failed {
        /// Which.
        send: SendId,
        /// To whom.
        to: OverlayId,
        /// What it was for.
        kind: Kind,
        /// Why.
        reason: SendFailure,
    },
    /// Try to make a link to this peer. [`neighbour_up`](super::Router::neighbour_up) or
    /// [`connect_failed`](super::Router::connect_failed) tells how that went.
    Connect(OverlayId),
    /// The link to this neighbour is not needed for routing any more. Close it if nobody else needs it.
    Release(OverlayId),
}

/// Why a message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// Nobody on the way knows of a neighbour that is closer. Nobody has a message of the application: all that were asked have said no,
    /// and none was silent.
    #[error("no peer leads to this id")]
    NoRoute,
    /// No confirmation, or no key of the destination, has come in time. The message may have been delivered all the same.
    #[error("no answer in time")]
    TimedOut,
    /// The destination is an original peer-relay, which takes only JSON, and no confirmations are to be had.
    #[error("the destination is an original peer-relay, which takes only JSON")]
    Original,
    /// The key of the destination is none: nobody can seal for it.
    #[error("the destination has no usable key")]
    NoKey,
}

/// A message that is not taken, and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendRefused {
    /// It has more than [`MAX_BODY_BYTES`], or is foreign and has more than [`MAX_FOREIGN_BYTES`].
    #[error("the message is too large")]
    TooLarge,
    /// Too many messages wait for a confirmation or a key.
    #[error("too many messages wait")]
    Full,
    /// Foreign messages are sent by [`send_foreign`](super::Router::send_foreign), and only if the configuration says so.
    #[error("foreign messages are not sent")]
    Foreign,
}

/// A message of an original peer-relay, between neighbours of which one at least is an original.
#[derive(Debug, Clone)]
pub struct ForeignMessage {
    /// For whom.
    pub to: OverlayId,
    /// From whom, as it says.
    pub from: OverlayId,
    /// Who has relayed it.
    pub path: Vec<OverlayId>,
    /// A random number as decimal text, of at most [`MAX_FOREIGN_NONCE_BYTES`].
    pub nonce: String,
    /// What it says.
    pub data: Box<RawValue>,
}

/// The longest packet between neighbours. A longer one is not sent, and ends the link if the other side sends it.
pub const MAX_PACKET_BYTES: usize = 64 * 1024;
/// The longest message.
pub const MAX_BODY_BYTES: usize = MAX_PACKET_BYTES - 256;
/// The longest path of a foreign message: one that has come as far is dropped, as by the original.
pub const MAX_FOREIGN_PATH: usize = 20;
/// The longest nonce of a foreign message.
pub const MAX_FOREIGN_NONCE_BYTES: usize = 32;
/// The longest data of a foreign message.
pub const MAX_FOREIGN_BYTES: usize = MAX_PACKET_BYTES - 1024;

/// How a router behaves. Times are such as suit links across continents.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouterConfig {
    /// Which routing it has. Neighbours that have another do not get into the table: they are sent what is for themselves, and, where
    /// nobody else leads on, what is for those of whom we have heard over them, and what is ours.
    pub routing: u8,
    /// Whether messages of original peer-relays are taken, relayed and sent.
    pub compat: bool,
    /// How many sends a message may cause on its way, at most 63.
    pub hops: u8,
    /// How long a neighbour may take to say hello. Then it is [released](Output::Release).
    pub hello_within: Duration,
    /// How long the next hop may take to take a message that wants a confirmation. Then another is tried.
    pub take_within: Duration,
    /// After how long without a confirmation a message is sent again. Further copies follow at two and then at three times that
    /// interval, up to seven while there are neighbours that were not the first hop of an earlier one, else up to three.
    pub retry_after: Duration,
    /// How long a message may wait for the key of its destination; of one that wants no confirmation, also for a first link while there
    /// are [ways in](super::Router::set_joining).
    pub key_within: Duration,
    /// For how long after the first link, if there are ways in, it means nothing yet that nobody is closer to a destination.
    pub settle_within: Duration,
    /// How long a neighbour to which something was sent may be silent until it is asked whether it is there.
    pub ping_after: Duration,
    /// How long a quiet link is left alone.
    pub quiet_ping_after: Duration,
    /// How long the answer may take. Then others are preferred until it comes.
    pub pong_within: Duration,
    /// What is relayed and answered for all neighbours together. While half of what may come at once is left, nobody is limited
    /// further; with less, each neighbour and each source behind it has only its own budget. What peers that we know seal for us is
    /// not counted.
    pub relay_budget: Rate,
    /// What a neighbour may have of it while it is scarce.
    pub neighbour_budget: Rate,
    /// How much of that may be from one source.
    pub source_budget: Rate,
    /// How many messages of others are kept until the next hop has taken them, and how many of ours until they are confirmed or
    /// the key is there. Beyond that, others are refused, and ours are not taken. At most 8192.
    pub held_messages: usize,
    /// How many bytes of messages are kept, of others and of ours each.
    pub held_bytes: usize,
    /// How many peers are remembered: their keys, what they have sent, and where they are.
    pub remembered_peers: usize,
    /// How many messages are remembered, to know them again.
    pub remembered_messages: usize,
}

/// So many messages and bytes each second, and so many seconds' worth at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Messages each second.
    pub messages: u32,
    /// Bytes each second.
    pub bytes: u32,
    /// How much may come at once, in seconds of these.
    pub burst_seconds: u32,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            routing: 0,
            compat: false,
            hops: 32,
            hello_within: Duration::from_secs(10),
            take_within: Duration::from_millis(1500),
            retry_after: Duration::from_secs(1),
            key_within: Duration::from_secs(10),
            settle_within: Duration::from_secs(3),
            ping_after: Duration::from_secs(1),
            quiet_ping_after: Duration::from_secs(60),
            pong_within: Duration::from_millis(1500),
            // About what one core does.
            relay_budget: Rate { messages: 400_000, bytes: 1 << 30, burst_seconds: 1 },
            neighbour_budget: Rate { messages: 20_000, bytes: 64 << 20, burst_seconds: 2 },
            source_budget: Rate { messages: 5_000, bytes: 16 << 20, burst_seconds: 2 },
            held_messages: 4096,
            held_bytes: 8 << 20,
            remembered_peers: 4096,
            remembered_messages: 16_384,
        }
    }
}

/// What was done and what was dropped, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Messages of ours that have been sent off, each try of each.
    pub sent: u64,
    /// Messages of others sent on.
    pub forwarded: u64,
    /// Messages delivered here.
    pub delivered: u64,
    /// Dropped: neither a packet nor a message, or from a neighbour that has not said hello.
    pub malformed: u64,
    /// Dropped: its neighbour or its source had used up its budget.
    pub over_budget: u64,
    /// Dropped: it had been here before.
    pub duplicates: u64,
    /// Dropped: it had no hops left.
    pub out_of_hops: u64,
    /// Dropped, or refused to the previous hop: no neighbour is closer.
    pub no_route: u64,
    /// Dropped at its destination: not authentic.
    pub not_authentic: u64,
    /// Dropped at its destination: sealed for an earlier session. The sender is told.
    pub stale: u64,
    /// Dropped at its destination: it had been delivered before.
    pub replayed: u64,
    /// Refused to the previous hop, or dropped: as many are kept as may be, or the application [takes no
    /// more](super::Router::set_full).
    pub full: u64,
    /// Answers that nobody had asked for.
    pub unexpected: u64,
    /// Dropped: foreign messages, where these are not taken.
    pub foreign: u64,
    /// Messages for which another neighbour was tried.
    pub rerouted: u64,
    /// Messages of ours sent again.
    pub retried: u64,
}

impl fmt::Display for SendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "send {}", self.0)
    }
}
