//! Why things end: shared by every layer, depends on none.

use std::fmt;

use crate::identity::PeerId;

/// Why a node closed, or why an attempt to open one was given up.
///
/// The reason is terminal: a node has at most one, and it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side called `close`.
    Local,
    /// The other side closed the connection in an orderly way.
    Remote,
    /// The last handle to the root was dropped, or the root was closed.
    RootClosed,
    /// The connection died: nothing was heard from the other side for the ICE failure time, or the socket broke.
    Lost(String),
    /// The other side broke the protocol; the text says how.
    Protocol(String),
    /// An original P, which grants no credit, sent faster than the application read, and the bounded queue is full.
    Overflow,
    /// Another connection to the same address won.
    Duplicate,
    /// The attempt did not open within its connect timeout.
    TimedOut,
    /// The attempt was abandoned because its `Connecting` was dropped.
    Cancelled,
    /// The node that carried the negotiation closed before the connection was open.
    ViaClosed,
    /// The other side's firewall, or ours, refused.
    Refused,
    /// The address is not known to the node that should have introduced it.
    Unreachable,
    /// The other side already has an open connection to this one, under the address it was dialled from.
    AlreadyConnected,
    /// The other side, or the introducer, has too much to do right now.
    Busy,
    /// The address is this node's own.
    OwnAddress,
    /// The other side's proof of who it is does not fit, and the text says how: somebody may be in the middle.
    Unverified(String),
    /// The other side is somebody else than the connect call expected.
    UnexpectedPeer {
        /// Who was expected.
        expected: PeerId,
        /// Who it is; `None` for an original P, which has no identity, and for whoever passes for one.
        found: Option<PeerId>,
    },
    /// The other side has no identity, and this root requires one.
    NoIdentity,
    /// The server has answered the upgrade to a WebSocket by a status of HTTP, 400 or more.
    Denied(Denied),
    /// The transport could not be set up; the text says why.
    Failed(String),
}

impl std::error::Error for CloseReason {}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this side"),
            Self::Remote => f.write_str("closed by the other side"),
            Self::RootClosed => f.write_str("the root was closed"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Protocol(what) => write!(f, "protocol violation: {what}"),
            Self::Overflow => f.write_str("messages came faster than they were read, from a peer without flow control"),
            Self::Duplicate => f.write_str("another connection to the same address is open"),
            Self::TimedOut => f.write_str("not open within the connect timeout"),
            Self::Cancelled => f.write_str("the attempt was abandoned"),
            Self::ViaClosed => f.write_str("the introducing node closed during the negotiation"),
            Self::Refused => f.write_str("refused by the firewall"),
            Self::Unreachable => f.write_str("the introducing node does not know this address"),
            Self::AlreadyConnected => f.write_str("the other side has an open connection to this one already"),
            Self::Busy => f.write_str("the other side or the introducer is busy"),
            Self::OwnAddress => f.write_str("the address is this node's own"),
            Self::Unverified(how) => write!(f, "the identity could not be verified: {how}"),
            Self::UnexpectedPeer { expected, found: Some(found) } => write!(f, "not {expected} but {found}"),
            Self::UnexpectedPeer { expected, found: None } => write!(f, "not {expected} but a peer without identity"),
            Self::NoIdentity => f.write_str("the other side has no identity"),
            Self::Denied(denied) => denied.fmt(f),
            Self::Failed(why) => write!(f, "could not connect: {why}"),
        }
    }
}

/// What a server has answered that opens no WebSocket: who has not logged in where that is needed, for instance, is told so.
///
/// All of it is as the server says, which may be anybody. What repeats the header with the credentials, or a value of the URL's query, as it
/// was sent is left out: that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Denied {
    /// As in HTTP, 400 or more: 401 who has not logged in, 403 whose name or password is wrong, 429 who comes too often, 503 if there is
    /// no room.
    pub status: u16,
    /// A word for programs, if the server says one, as onramps with accounts do: `noCredentials`, `wrongPassword`, `throttled`,
    /// `tooManyLogins`, `busy` or `failed`. At most 32 letters.
    pub code: Option<String>,
    /// A sentence for people, in one line of at most 200 characters, none of which is a control character. If the server says none, it is
    /// the usual phrase for the status, and empty if there is none for it.
    pub why: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answers with status {}", self.status)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}
