//! One error type for each operation.

use std::io;

use super::router::{MAX_BODY_BYTES, SendFailure, SendRefused};
use super::topics::{BroadcastRefused, TooManyTopics};
use crate::error::Denied;

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// The address to listen at could not be bound.
    #[error("cannot listen for neighbours: {0}")]
    Listen(#[source] io::Error),
    /// A URL to start from is none that can be dialled. The text has neither its user nor its query, which may be secret.
    #[error("not a URL of a neighbour: {0}")]
    InvalidUrl(String),
    /// The root has an overlay already, which is not closed.
    #[error("the root has an overlay already")]
    AlreadyRunning,
    /// The root is closed.
    #[error("the root is closed")]
    RootClosed,
}

/// Why a URL to begin at has led to no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapFailure {
    /// There is no connection, or it broke; the text says why.
    #[error("could not connect: {0}")]
    Failed(String),
    /// Nothing was open in time.
    #[error("not open in time")]
    TimedOut,
    /// Who listens there is this peer itself, or another with its key.
    #[error("who listens there is this peer itself, or has its key")]
    OwnId,
    /// The server there has answered by a status of HTTP, 400 or more: an onramp, perhaps, or a neighbour that is busy (429, 503).
    #[error("{0}")]
    Denied(Denied),
    /// Who listens there is none who can be a neighbour: an original where a pmesh peer was to be, perhaps, or the reverse; the text says
    /// how that showed.
    #[error("who listens there is no such peer of an overlay: {0}")]
    NoPeer(String),
    /// An original has no room for this peer.
    #[error("the other side has no room for this peer")]
    NoRoom,
}

/// Why a message was not sent, or is not known to have arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverlaySendError {
    /// The message is larger than this. Nothing was sent.
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that a message may have; as JSON, if it is that.
        limit: usize,
    },
    /// No peer that is known is closer to the id than this one: it is not there, or this peer has no neighbours. The message has not
    /// arrived: all peers that were asked have said no.
    #[error("no peer leads to this id")]
    NoRoute,
    /// No confirmation, or no key of the other side, has come in time. The message may have arrived all the same: a peer on the way that
    /// is silent may have passed it on.
    #[error("not confirmed in time")]
    TimedOut,
    /// Too many messages wait for a confirmation, or for the key of their destination. Nothing was sent.
    #[error("too many messages wait")]
    Full,
    /// The other side is an original peer-relay, which takes only JSON, and confirms nothing.
    #[error("the other side is an original peer-relay, which takes JSON only and confirms nothing")]
    Original,
    /// The other side has no usable key.
    #[error("the other side has no usable key")]
    NoKey,
    /// The overlay is closed.
    #[error("the overlay is closed")]
    Closed,
}

impl OverlaySendError {
    pub(super) fn refused(refused: SendRefused) -> Self {
        match refused {
            SendRefused::TooLarge => Self::TooLarge { limit: MAX_BODY_BYTES },
            _ => Self::Full,
        }
    }
}

impl From<SendFailure> for OverlaySendError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::NoRoute => Self::NoRoute,
            SendFailure::Original => Self::Original,
            SendFailure::NoKey => Self::NoKey,
            _ => Self::TimedOut,
        }
    }
}

/// Why this peer is not in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It is in [as many](super::topics::TopicsConfig::topics) topics as it may be.
    #[error("the peer is in as many topics as it may be")]
    TooManyTopics,
    /// The overlay is closed.
    #[error("the overlay is closed")]
    Closed,
}

impl From<TooManyTopics> for JoinError {
    fn from(TooManyTopics: TooManyTopics) -> Self {
        Self::TooManyTopics
    }
}

/// Why a message was not sent to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The message is larger than this.
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that a message may have; as JSON, if it is that.
        limit: usize,
    },
    /// More than [`origin_rate`](super::topics::TopicsConfig::origin_rate) allows: other members would drop it. Try again a little
    /// later.
    #[error("too many messages at once")]
    TooFast,
    /// The overlay is closed.
    #[error("the overlay is closed")]
    Closed,
}

impl BroadcastError {
    pub(super) fn refused(refused: BroadcastRefused, limit: usize) -> Self {
        match refused {
            BroadcastRefused::TooLarge => Self::TooLarge { limit },
            BroadcastRefused::TooFast => Self::TooFast,
            BroadcastRefused::NotJoined => Self::Closed,
        }
    }
}
