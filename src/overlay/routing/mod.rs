//! Which neighbours a peer keeps, and which of them is next on the way to an id.
//!
//! A [`Routing`] is a pure state machine: time is an argument, randomness is seeded when it is made, and what it wants done comes
//! out of [`Routing::poll_action`]. So the same code runs in a program and in a simulation of 100,000 peers.
//!
//! A *neighbour* is a peer to which there is a link.

pub mod chord;
mod kademlia;

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

pub use self::kademlia::{Kademlia, KademliaConfig};
use super::OverlayId;

/// What a routing table wants done. Who drives a table has to do all of it, so a further kind would be a breaking change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Try to make a link to this peer. [`Routing::up`] or [`Routing::unreachable`] tells how that went.
    Connect(OverlayId),
    /// The table has no use for the link to this neighbour any more. [`Routing::down`] follows if the link is closed; it
    /// stays if somebody else needs it.
    Release(OverlayId),
    /// What makes a link to this peer goes by way of another first, before the way that the routing would choose.
    ///
    /// The table says so of a peer that it hears of: who names a peer has a link to it, or has heard of it from who has. The peers
    /// that a newcomer needs most, those close to its own id, are the ones that the usual way does not lead to yet.
    Trail {
        /// The peer that was named.
        to: OverlayId,
        /// Who has named it.
        through: OverlayId,
    },
    /// Send this to a neighbour. It arrives at its [`Routing::receive`].
    Tell {
        /// The neighbour.
        to: OverlayId,
        /// What to say.
        message: Bytes,
    },
    /// Send this to whoever is closest to this id, hop by hop. It arrives at its [`Routing::receive`].
    Route {
        /// On whose way.
        to: OverlayId,
        /// What to say.
        message: Bytes,
    },
}

/// Whether a link to a peer fits into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It does.
    Yes,
    /// It does, in place of this neighbour, of which the table will then make a [`Action::Release`].
    Instead(OverlayId),
    /// It does not.
    No,
}

/// Who sent a [message of the routing](Routing::receive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A neighbour, over its link.
    Neighbour(OverlayId),
    /// It was routed, and this id is only what it says.
    Claimed(OverlayId),
}

/// A row of the table, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What the neighbour is to the table, as `bucket 157`, `successor 0`, `finger 47`, `predecessor`.
    pub role: String,
    /// The neighbour, or the peer itself if it is its own finger.
    pub peer: OverlayId,
}

/// Why a row of the finger table was not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FingerError {
    /// The routing has no fingers: it is not [`Chord`](chord::Chord).
    #[error("the routing has no fingers")]
    NoFingers,
    /// No finger table has this row: they are numbered from 0 to 47.
    #[error("no finger table has this row")]
    NoSuchRow,
}

/// Keeps a table of neighbours, and chooses among them. See the [module documentation](self).
///
/// Everything that others can make it hold is bounded. Nothing that arrives makes it panic.
pub trait Routing: fmt::Debug + Send {
    /// Who we are.
    fn id(&self) -> OverlayId;

    /// Whether a link to this peer would fit into the table. Asked before a link is accepted.
    fn admits(&self, peer: &OverlayId) -> Admission;

    /// There is a link to this peer now. A link that does not [fit](Self::admits) may come all the same, as somebody else
    /// wanted it: it is then used to send to that peer itself, and not shown to others. One whose id is not `verified`, that
    /// of an original, takes the place of no other.
    fn up(&mut self, peer: OverlayId, verified: bool, now: Instant);

    /// The link to this peer is gone.
    fn down(&mut self, peer: &OverlayId, now: Instant);

    /// A link to this peer, which the table had [wished for](Action::Connect), could not be made.
    fn unreachable(&mut self, peer: &OverlayId, now: Instant);

    /// Whether a neighbour answers at present. One that does not is chosen only if there is no other.
    fn responds(&mut self, peer: &OverlayId, responds: bool, now: Instant);

    /// The neighbour that is next on the way to `target`, leaving out those for which `avoid` is true. It is strictly closer to
    /// the target than this peer, in the terms of the routing, so that a message never goes in a circle. `None` if this peer
    /// is the closest it knows, or the target itself.
    fn next_hop(&self, target: &OverlayId, avoid: &dyn Fn(&OverlayId) -> bool) -> Option<OverlayId>;

    /// Whether this peer answers for `target`: by what it knows, nobody is closer.
    fn is_responsible(&self, target: &OverlayId) -> bool;

    /// Looks for a way to this id that may be new: the table may wish for links that bring it closer.
    fn look_for(&mut self, target: &OverlayId, now: Instant);

    /// Looks up this row of the finger table now. A row that the table does not have is added.
    ///
    /// # Errors
    ///
    /// [`FingerError`]. So it is with a routing that does not implement this.
    fn update_finger(&mut self, _row: u32, _now: Instant) -> Result<(), FingerError> {
        Err(FingerError::NoFingers)
    }

    /// Looks up all rows that the finger table has now.
    ///
    /// # Errors
    ///
    /// [`FingerError::NoFingers`]. So it is with a routing that does not implement this.
    fn update_finger_table(&mut self, _now: Instant) -> Result<(), FingerError> {
        Err(FingerError::NoFingers)
    }

    /// Takes a message of the same routing of another peer. What is malformed or not asked for is ignored and counted.
    fn receive(&mut self, from: Sender, message: &[u8], now: Instant);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest, if ever.
    fn next_timeout(&self) -> Option<Instant>;

    /// What is to be done next. Take actions until there are none, after every input.
    fn poll_action(&mut self) -> Option<Action>;

    /// The neighbours that fit into the table, in no order.
    fn neighbours(&self) -> Vec<OverlayId>;

    /// The table as it is.
    fn table(&self) -> Vec<Row>;

    /// Messages of others that were malformed or not asked for, so far.
    fn ignored(&self) -> u64;

    /// About how many bytes of memory the table takes.
    fn state_bytes(&self) -> usize;
}
