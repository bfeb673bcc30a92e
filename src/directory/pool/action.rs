use std::time::Duration;

use crate::node::ConnectError;
use crate::protocol::PeerNumber;

/// Names a call. Later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::directory) struct CallId(pub(in crate::directory) u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::directory) enum Action {
    /// Connect to a peer. [`Pool::dialled`](super::Pool::dialled) follows.
    Dial { peer: PeerNumber, timeout: Duration },
    /// Drop the attempt to connect. Nothing follows.
    Abandon { peer: PeerNumber },
    /// The connection is there.
    Start { call: CallId, peer: PeerNumber },
    /// There is none, or none any more, and the call is over.
    Fail { call: CallId, why: NoConnection },
    /// Close the connection. [`Pool::closed`](super::Pool::closed) follows, or [`Pool::is_used`](super::Pool::is_used).
    Close { peer: PeerNumber },
    /// Close the connection without asking: both sides have agreed. [`Pool::closed`](super::Pool::closed) follows.
    Cut { peer: PeerNumber },
}

/// Why a call gets no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::directory) enum NoConnection {
    /// The peer is not there any more.
    Gone,
    /// Too many calls wait.
    Full,
    /// It has waited for so long as it may.
    TimedOut,
    /// Nobody knows any more who it is: also of a call that had a connection.
    NotVouched,
    /// As the last attempt said.
    Failed(ConnectError),
}
