//! Who is connected and what each is still to get: a pure state machine, without sockets and without a clock.
//!
//! The driver feeds in what happened and carries out two things: it rings the bells it is handed, and a peer
//! whose bell rang *pulls* what is due to it. Nothing is pushed, so a peer that does not read costs no more than
//! its bounded queue, and nobody waits for it.
//!
//! Announcements are not queued at all. Peers are numbered in the order in which they came; what a peer was
//! told of is one number, and what it is still to be told is the rest of the roster. So 10,000 newcomers cost
//! 10,000 numbers, not 10^8 queued frames. Departures are a shared, bounded log with a position for each peer.

pub(super) mod accounts;
mod outbox;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use accounts::Ended;
use outbox::Outbox;

use super::Stats;
use super::rate::Rate;
use crate::protocol::Address;
use crate::protocol::frame::{self, Frame, Undeliverable};

/// Most frames handed out by one pull.
const BATCH_FRAMES: usize = 128;

/// A pull ends with the frame that reaches this many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// Fewest departures that the log keeps; it keeps as many as there may be connections if that is more.
const LOGGED_DEPARTURES: usize = 4096;

/// The number of a connected peer, in the order of coming. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct PeerId(u64);

/// The subprotocol that a peer chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `p`: exactly what the original sends.
    P,
    /// `pmesh.1`: the extension frames too.
    Pmesh,
}

/// The bounds that the hub keeps. See [`Builder`](super::Builder).
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) announce: bool,
    pub(super) max_connections: usize,
    /// Of one account, where there are accounts.
    pub(super) max_logins: usize,
    pub(super) rate: Option<Rate>,
    pub(super) queue_frames: usize,
    pub(super) queue_bytes: usize,
    pub(super) total_queue_bytes: usize,
}

/// What a text message asks for. Reading one needs no state, so it is done outside the hub's lock.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A frame for `to`, rendered as it will arrive there.
    Relay { to: Address, text: Utf8Bytes },
    /// A frame, but none that an onramp acts on.
    Ignored,
    /// Not a frame.
    Malformed,
}

impl Inbound {
    /// Reads a text message of the peer `from`.
    pub(super) fn read(text: &str, from: &Address) -> Self {
        match Frame::parse(text) {
            Ok(Frame::Relay { to, payload }) => Self::Relay { to, text: frame::relayed(from, payload.get()).into() },
            Ok(_) | Err(frame::FrameError::UnknownType(_)) => Self::Ignored,
            Err(frame::FrameError::Malformed) => Self::Malformed,
        }
    }
}

/// Why a newcomer is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many peers as allowed are connected.
    Full,
    /// The onramp is shutting down.
    Closed,
    /// The address is in use.
    Taken,
    /// The account is logged in as often as allowed.
    TooMany,
    /// The account was closed, or has another password, since.
    Ended,
}

/// Why a peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It left, its connection broke, or the onramp shuts down.
    Left,
    /// It did not take what was sent to it.
    Slow,
    /// It answered no ping.
    Silent,
    /// It sent a frame above the size limit.
    TooBig,
    /// It broke the WebSocket protocol.
    Broken,
}

impl Reason {
    fn count(self, stats: &mut Stats) {
        match self {
            Self::Left => {}
            Self::Slow => stats.slow += 1,
            Self::Silent => stats.silent += 1,
            Self::TooBig => stats.too_big += 1,
            Self::Broken => stats.broken += 1,
        }
    }
}

/// What a peer does after a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing more is due: wait for the bell.
    Wait,
    /// Write the batch, then pull again.
    Pull,
    /// The onramp shuts down.
    GoAway,
    /// It is so far behind that it cannot be told any more what it should have been: disconnect it as slow.
    TooFarBehind,
    /// It is logged in no more.
    Ended(Ended),
}

struct Peer<B> {
    address: Address,
    /// The frame that tells others of this peer, rendered once.
    announcement: Utf8Bytes,
    dialect: Dialect,
    welcomed: bool,
    /// It was told of everybody up to this number.
    announced: PeerId,
    /// It was told of all departures before this position.
    departures: u64,
    outbox: Outbox<B, Queued>,
}

struct Queued {
    text: Utf8Bytes,
    /// Position of the departure log when this was queued: what left before is told before.
    after: u64,
}

struct Departure {
    id: PeerId,
    announcement: Utf8Bytes,
    left: Utf8Bytes,
}

/// The hub. `B` is the driver's bell for one peer.
pub(super) struct Hub<B> {
    limits: Limits,
    peers: BTreeMap<PeerId, Peer<B>>,
    names: HashMap<Address, PeerId>,
    last: PeerId,
    log: VecDeque<Departure>,
    /// Departures ever logged; the log holds the last of them.
    departed: u64,
    closed: bool,
    stats: Stats,
}

impl<B: Clone> Hub<B> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: BTreeMap::new(),
            names: HashMap::new(),
            last: PeerId(0),
            log: VecDeque::new(),
            departed: 0,
            closed: false,
            stats: Stats::default(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { open: self.peers.len(), ..self.stats }
    }

    /// Counts a connection that did not become a peer.
    pub(super) fn refused(&mut self, full: bool) {
        self.stats.refused += 1;
        self.stats.refused_full += u64::from(full);
    }

    /// Whether a newcomer would be refused now.
    pub(super) fn room(&self) -> Result<(), Refusal> {
        if self.closed {
            Err(Refusal::Closed)
        } else if self.peers.len() >= self.limits.max_connections {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// A peer came. It should pull at once.
    pub(super) fn connect(
        &mut self,
        address: Address,
        dialect: Dialect,
        bell: B,
        bells: &mut Vec<B>,
    ) -> Result<PeerId, Refusal> {
        self.room()?;
        if self.names.contains_key(&address) {
            return Err(Refusal::Taken);
        }
        if self.limits.announce {
            for peer in self.peers.values_mut() {
                peer.outbox.ring(bells);
            }
        }
        self.last.0 += 1;
        let id = self.last;
        self.names.insert(address.clone(), id);
        let peer = Peer {
            announcement: frame::announcement(&address).into(),
            address,
            dialect,
            welcomed: dialect == Dialect::P,
            announced: PeerId(0),
            departures: self.departed,
            outbox: Outbox::new(bell),
        };
        self.peers.insert(id, peer);
        self.stats.accepted += 1;
        Ok(id)
    }

    /// A peer is gone. Nothing happens if it was gone already.
    pub(super) fn disconnect(&mut self, id: PeerId, reason: Reason, bells: &mut Vec<B>) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        self.names.remove(&peer.address);
        peer.outbox.clear(&mut self.stats);
        reason.count(&mut self.stats);
        if self.limits.announce {
            let left = frame::left(&peer.address).into();
            self.log.push_back(Departure { id, announcement: peer.announcement, left });
            self.departed += 1;
            if self.peers.is_empty() {
                self.log.clear();
            } else if self.log.len() > LOGGED_DEPARTURES.max(self.limits.max_connections) {
                self.log.pop_front();
            }
            for other in self.peers.values_mut().filter(|other| other.dialect == Dialect::Pmesh) {
                other.outbox.ring(bells);
            }
        }
    }

    /// A peer sent a text message. Returns when the next message should be read from it, if not at once.
    pub(super) fn text(&mut self, id: PeerId, inbound: Inbound, now: Instant, bells: &mut Vec<B>) -> Option<Instant> {
        let resume = self.charge(id, now);
        match inbound {
            Inbound::Relay { to, text } => {
                if let Err(why) = self.relay(&to, text, bells) {
                    self.undeliverable(id, &to, why, bells);
                }
            }
            Inbound::Ignored => self.stats.ignored += 1,
            Inbound::Malformed => self.stats.malformed += 1,
        }
        resume
    }

    /// A peer sent a binary message. Returns as [`text`](Self::text) does.
    pub(super) fn binary(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.stats.ignored += 1;
        self.charge(id, now)
    }

    /// A peer sent a ping or a pong. Returns as [`text`](Self::text) does.
    pub(super) fn control(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.charge(id, now)
    }

    /// Lets nobody in any more and sends everybody away.
    pub(super) fn close(&mut self, bells: &mut Vec<B>) {
        self.closed = true;
        for peer in self.peers.values_mut() {
            peer.outbox.ring(bells);
        }
    }

    /// Appends the next frames that are due to a peer to `batch`.
    pub(super) fn pull(&mut self, id: PeerId, batch: &mut Vec<Utf8Bytes>) -> Next {
        if self.closed {
            return Next::GoAway;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return Next::GoAway };
        peer.outbox.settle(&mut self.stats);
        if !peer.welcomed {
            peer.welcomed = true;
            batch.push(frame::welcome(&peer.address).into());
        }
        if self.limits.announce && !self.pull_announcements(id, batch) {
            return Next::Pull;
        }
        self.pull_queue(id, batch)
    }

    /// Appends announcements, oldest peer first. Returns whether those were all.
    fn pull_announcements(&mut self, id: PeerId, batch: &mut Vec<Utf8Bytes>) -> bool {
        let Some(peer) = self.peers.get(&id) else { return true };
        if peer.announced == self.last {
            return true;
        }
        let room = BATCH_FRAMES.saturating_sub(batch.len());
        let since = peer.announced;
        let mut due: Vec<(PeerId, &Utf8Bytes)> = self
            .peers
            .range((Bound::Excluded(since), Bound::Unbounded))
            .filter(|(other, _)| **other != id)
            .take(room)
            .map(|(other, peer)| (*other, &peer.announcement))
            .collect();
        // Who came and left before this pull is announced all the same, as the original does.
        let log_start = self.departed - self.log.len() as u64;
        let seen = usize::try_from(peer.departures.saturating_sub(log_start)).unwrap_or(usize::MAX);
        let left = self.log.iter().skip(seen).filter(|departure| departure.id > since);
        let live = due.len();
        due.extend(left.map(|departure| (departure.id, &departure.announcement)));
        if due.len() > live {
            due.sort_by_key(|(other, _)| *other);
        }
        let all = due.len() < room;
        due.truncate(room);
        let told = if all { self.last } else { due.last().map_or(since, |(other, _)| *other) };
        self.stats.announced += due.len() as u64;
        batch.extend(due.into_iter().map(|(_, announcement)| announcement.clone()));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.announced = told;
        }
        all
    }

    /// Appends relayed frames and departures, in the order in which they happened.
    fn pull_queue(&mut self, id: PeerId, batch: &mut Vec<Utf8Bytes>) -> Next {
        let Some(peer) = self.peers.get_mut(&id) else { return Next::GoAway };
        let log_start = self.departed - self.log.len() as u64;
        if peer.dialect == Dialect::P {
            peer.departures = self.departed;
        } else if peer.departures < log_start {
            return Next::TooFarBehind;
        }
        let mut bytes = 0;
        while batch.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
            let before = peer.outbox.front().map_or(self.departed, |queued| queued.after);
            if peer.departures < before {
                let logged = usize::try_from(peer.departures - log_start).ok().and_then(|at| self.log.get(at));
                if let Some(departure) = logged {
                    batch.push(departure.left.clone());
                }
                peer.departures += 1;
            } else if let Some((Queued { text, .. }, length)) = peer.outbox.next() {
                bytes += length;
                batch.push(text);
            } else {
                peer.outbox.rest();
                break;
            }
        }
        if peer.outbox.goes_on() { Next::Pull } else { Next::Wait }
    }

    fn charge(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.peers.get_mut(&id)?.outbox.charge(&self.limits, now, &mut self.stats)
    }

    fn relay(&mut self, to: &Address, text: Utf8Bytes, bells: &mut Vec<B>) -> Result<(), Undeliverable> {
        let Some(&id) = self.names.get(to) else {
            self.stats.undeliverable += 1;
            return Err(Undeliverable::Unknown);
        };
        let bytes = text.as_str().len() as u64;
        if !self.enqueue(id, text, bells) {
            self.stats.busy += 1;
            return Err(Undeliverable::Busy);
        }
        self.stats.relayed += 1;
        self.stats.relayed_bytes += bytes;
        Ok(())
    }

    fn undeliverable(&mut self, id: PeerId, to: &Address, why: Undeliverable, bells: &mut Vec<B>) {
        if self.peers.get(&id).is_some_and(|peer| peer.dialect == Dialect::Pmesh) {
            // Best effort: a peer that reads nothing is not told what it lost.
            self.enqueue(id, frame::undeliverable(to, why).into(), bells);
        }
    }

    /// Queues a frame if there is room.
    fn enqueue(&mut self, id: PeerId, text: Utf8Bytes, bells: &mut Vec<B>) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let bytes = text.as_str().len();
        let queued = Queued { text, after: self.departed };
        peer.outbox.relay(queued, bytes, &self.limits, &mut self.stats, bells)
    }
}

#[cfg(test)]
mod tests;
