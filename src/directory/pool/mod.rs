//! The connections that a session makes for its calls: pure. Time is an argument, and randomness comes from a seed.
//!
//! A peer is *queued* while there are calls to it and no place, then it is dialled, and open. Calls to a peer that is open start at once,
//! as many as there are. One place is one peer that is dialled, open because of us, or being closed. Peers get places in the order in
//! which they were queued, and one whose attempt fails goes to the end.

mod action;
mod config;
mod incoming;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub(super) use action::{Action, CallId, NoConnection};
pub(super) use config::FOREVER;
pub use config::PoolConfig;
pub(super) use incoming::Incoming;

use crate::node::ConnectError;
use crate::protocol::PeerNumber;

/// How long the other side has to close a connection when it has been told that it may. It sends what is queued before, for 2 seconds at
/// most. Calls of this side wait meanwhile.
const PARTING: Duration = Duration::from_secs(5);

/// Where the connection to a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is none, and nothing waits for one.
    Apart,
    /// Waits for a place, since this ticket was drawn.
    Queued(u64),
    /// It was busy, and is queued at this time.
    Pausing(Instant),
    Dialling,
    Open {
        /// Whether it was made here, and takes a place.
        owned: bool,
        /// When it is closed, if nothing uses it.
        idle: Option<Instant>,
    },
    /// Made here, and used by the other side only: it takes no place, and is to be closed at this time.
    Lent(Instant),
    /// It takes its place until it is over.
    Closing,
    /// It is being closed, by the other side with our consent, or by us because nobody knows who it is. If it is there at this time, it is
    /// cut.
    Released(Instant),
}

impl State {
    fn takes_place(self) -> bool {
        matches!(self, Self::Dialling | Self::Open { owned: true, .. } | Self::Closing)
    }
}

#[derive(Debug)]
struct Peer {
    state: State,
    waiting: BTreeSet<CallId>,
    /// Calls over the connection that there is, the latest of which has this serial.
    active: usize,
    serial: u64,
    /// Whether a call over the connection has asked to keep it.
    keep: bool,
    /// Attempts that have failed.
    failed: u32,
    /// Whether it has said last that it is busy.
    busy: bool,
    /// Whether the directory still names it.
    there: bool,
}

#[derive(Debug)]
struct Call {
    peer: PeerNumber,
    keep: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// At most until this time.
    Waiting(Instant),
    /// Over the connection of this serial.
    Active(u64),
}

#[derive(Debug)]
pub(super) struct Pool {
    config: PoolConfig,
    rng: SmallRng,
    /// Whether the directory can introduce anybody.
    online: bool,
    peers: HashMap<PeerNumber, Peer>,
    calls: HashMap<CallId, Call>,
    queue: BTreeMap<u64, PeerNumber>,
    pausing: BTreeSet<(Instant, PeerNumber)>,
    idle: BTreeSet<(Instant, PeerNumber)>,
    lent: BTreeSet<(Instant, PeerNumber)>,
    released: BTreeSet<(Instant, PeerNumber)>,
    waiting: BTreeSet<(Instant, CallId)>,
    places: usize,
    closing: usize,
    next: u64,
    actions: VecDeque<Action>,
}

impl Pool {
    pub(super) fn new(config: PoolConfig, seed: u64) -> Self {
        Self {
            config: config.checked(),
            rng: SmallRng::seed_from_u64(seed),
            online: false,
            peers: HashMap::new(),
            calls: HashMap::new(),
            queue: BTreeMap::new(),
            pausing: BTreeSet::new(),
            idle: BTreeSet::new(),
            lent: BTreeSet::new(),
            released: BTreeSet::new(),
            waiting: BTreeSet::new(),
            places: 0,
            closing: 0,
            next: 0,
            actions: VecDeque::new(),
        }
    }

    /// A call to a peer that is there, and whether there is an open connection to it. Its `id` must be larger than all before.
    /// [`Action::Start`] or [`Action::Fail`] follows; then, or before, [`finished`](Self::finished) is to say that it is over.
    pub(super) fn call(&mut self, id: CallId, peer: PeerNumber, keep: bool, open: bool, now: Instant) {
        if open {
            self.opened(peer, now);
        }
        let starts = match self.peers.get(&peer).map(|peer| peer.state) {
            Some(State::Open { .. } | State::Lent(_)) => true,
            Some(State::Apart) | None => open,
            _ => false,
        };
        if !starts && self.waiting.len() >= self.config.waiting {
            self.actions.push_back(Action::Fail { call: id, why: NoConnection::Full });
            return;
        }
        let until = now + self.config.wait;
        self.waiting.insert((until, id));
        self.calls.insert(id, Call { peer, keep, stage: Stage::Waiting(until) });
        let entry = self.entry(peer);
        entry.there = true;
        entry.waiting.insert(id);
        if open && entry.state == State::Apart {
            self.set(peer, State::Open { owned: false, idle: None });
        }
        self.settle(peer, now);
    }

    /// A call is over, or not wanted any more.
    pub(super) fn finished(&mut self, id: CallId, now: Instant) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let Some(peer) = self.peers.get_mut(&call.peer) {
            match call.stage {
                Stage::Waiting(until) => {
                    peer.waiting.remove(&id);
                    self.waiting.remove(&(until, id));
                }
                Stage::Active(serial) if serial == peer.serial => peer.active -= 1,
                Stage::Active(_) => {}
            }
        }
        self.settle(call.peer, now);
    }

    /// What came of an attempt to connect: whether the connection was made by it, or was there. Returns false if the attempt had been
    /// abandoned: a connection that it made is to be closed.
    pub(super) fn dialled(&mut self, peer: PeerNumber, result: Result<bool, ConnectError>, now: Instant) -> bool {
        let Some(entry) = self.peers.get_mut(&peer).filter(|peer| peer.state == State::Dialling) else { return false };
        entry.busy = result == Err(ConnectError::Busy);
        match result {
            Ok(owned) => self.set(peer, State::Open { owned, idle: None }),
            // It has not noticed yet that the connection before this one is over.
            Err(ConnectError::AlreadyConnected) => {
                let until = now + self.random(self.config.pause) / 10;
                self.set(peer, State::Pausing(until));
            }
            // The latter: the directory is lost, which is not the peer's fault.
            Err(ConnectError::Busy | ConnectError::ViaClosed) => {
                let until = now + self.random(self.config.pause);
                self.set(peer, State::Pausing(until));
            }
            Err(ConnectError::TimedOut | ConnectError::Failed(_)) if entry.failed < self.config.retries => {
                entry.failed += 1;
                self.set(peer, State::Apart);
            }
            Err(error) => {
                self.set(peer, State::Apart);
                self.fail(peer, &NoConnection::Failed(error));
            }
        }
        self.settle(peer, now);
        true
    }

    /// There is a connection to a peer that was not made here.
    pub(super) fn opened(&mut self, peer: PeerNumber, now: Instant) {
        let state = self.peers.get(&peer).map(|peer| peer.state);
        if let Some(State::Queued(_) | State::Pausing(_)) = state {
            self.set(peer, State::Open { owned: false, idle: None });
            self.settle(peer, now);
        }
    }

    /// The connection to a peer is over. Calls over it end by themselves.
    pub(super) fn closed(&mut self, peer: PeerNumber, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let State::Open { .. } | State::Lent(_) | State::Closing | State::Released(_) = entry.state {
            entry.active = 0;
            self.set(peer, State::Apart);
            self.settle(peer, now);
        }
    }

    /// The connection that was to be closed serves calls of the other side. It is left for a moment.
    pub(super) fn is_used(&mut self, peer: PeerNumber, now: Instant) {
        if self.peers.get(&peer).is_some_and(|peer| peer.state == State::Closing) {
            let until = now + self.random(self.config.pause);
            self.set(peer, State::Lent(until));
            self.settle(peer, now);
        }
    }

    /// The other side would like to close the connection that there is. Returns whether it may: then no call begins over it any more, and
    /// it is cut if the other side does not do so.
    pub(super) fn release(&mut self, peer: PeerNumber, now: Instant) -> bool {
        let entry = self.entry(peer);
        match entry.state {
            State::Open { .. } if entry.active > 0 => false,
            // It is about to be used.
            State::Dialling => false,
            State::Released(_) => true,
            // Also while it is being closed here: what the other side says to that may have been so before it asked.
            _ => {
                self.set(peer, State::Released(now + PARTING));
                self.fill();
                true
            }
        }
    }

    /// The application wants the connection for itself. False if it is being closed.
    pub(super) fn give_away(&mut self, peer: PeerNumber, now: Instant) -> bool {
        if let Some(State::Closing | State::Released(_)) = self.peers.get(&peer).map(|peer| peer.state) {
            return false;
        }
        if let Some(State::Open { owned: true, .. } | State::Lent(_)) = self.peers.get(&peer).map(|peer| peer.state) {
            self.set(peer, State::Open { owned: false, idle: None });
            self.settle(peer, now);
        }
        true
    }

    /// The directory does not name a peer any more.
    pub(super) fn left(&mut self, peer: PeerNumber, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.there = false;
        self.fail(peer, &NoConnection::Gone);
        self.settle(peer, now);
    }

    /// Nobody knows any more who a peer is: all calls to it fail. If there is an open connection it is being closed, and
    /// [`closed`](Self::closed) follows.
    pub(super) fn disowned(&mut self, peer: PeerNumber, open: bool, now: Instant) {
        if open {
            // Also if nothing has used it.
            self.entry(peer);
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        (entry.there, entry.active) = (false, 0);
        let (serial, state) = (entry.serial, entry.state);
        self.fail(peer, &NoConnection::Gone);
        let active = self.calls.extract_if(|_, call| call.peer == peer && call.stage == Stage::Active(serial));
        let why = NoConnection::NotVouched;
        self.actions.extend(active.map(|(call, _)| Action::Fail { call, why: why.clone() }));
        if open && state != State::Closing {
            if state == State::Dialling {
                self.actions.push_back(Action::Abandon { peer });
            }
            self.set(peer, State::Released(now + PARTING));
        }
        self.settle(peer, now);
    }

    /// Whether the directory can introduce anybody now. It cannot at first.
    pub(super) fn set_online(&mut self, online: bool) {
        self.online = online;
        self.fill();
    }

    /// The peers to which connections were made here.
    pub(super) fn made(&self) -> impl Iterator<Item = PeerNumber> {
        let made =
            |peer: &Peer| matches!(peer.state, State::Open { owned: true, .. } | State::Lent(_) | State::Closing);
        self.peers.iter().filter(move |(_, peer)| made(peer)).map(|(number, _)| *number)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let others = [self.pausing.first(), self.idle.first(), self.lent.first(), self.released.first()];
        others.into_iter().flatten().map(|(at, _)| *at).chain(waiting).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, call)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            let busy = self.calls.get(&call).and_then(|call| self.peers.get(&call.peer)).is_some_and(|peer| peer.busy);
            let why = if busy { NoConnection::Failed(ConnectError::Busy) } else { NoConnection::TimedOut };
            self.actions.push_back(Action::Fail { call, why });
            self.finished(call, now);
        }
        while let Some((_, peer)) = self.pausing.first().copied().filter(|(at, _)| *at <= now) {
            self.set(peer, State::Apart);
            self.settle(peer, now);
        }
        while let Some((_, peer)) = self.idle.first().copied().filter(|(at, _)| *at <= now) {
            self.close(peer);
        }
        while let Some((_, peer)) = self.lent.first().copied().filter(|(at, _)| *at <= now) {
            self.close(peer);
        }
        while let Some((_, peer)) = self.released.first().copied().filter(|(at, _)| *at <= now) {
            self.set(peer, State::Released(now + PARTING));
            self.actions.push_back(Action::Cut { peer });
        }
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn entry(&mut self, peer: PeerNumber) -> &mut Peer {
        self.peers.entry(peer).or_insert_with(|| Peer {
            state: State::Apart,
            waiting: BTreeSet::new(),
            active: 0,
            serial: 0,
            keep: false,
            failed: 0,
            busy: false,
            there: true,
        })
    }

    /// Brings a peer to a state, and all that depends on it.
    fn set(&mut self, peer: PeerNumber, state: State) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let before = std::mem::replace(&mut entry.state, state);
        if !matches!(before, State::Open { .. } | State::Lent(_)) && matches!(state, State::Open { .. }) {
            self.next += 1;
            (entry.serial, entry.failed) = (self.next, 0);
            (entry.active, entry.keep) = (0, false);
        }
        self.places = self.places + usize::from(state.takes_place()) - usize::from(before.takes_place());
        self.closing = self.closing + usize::from(state == State::Closing) - usize::from(before == State::Closing);
        match before {
            State::Queued(ticket) => drop(self.queue.remove(&ticket)),
            State::Pausing(until) => drop(self.pausing.remove(&(until, peer))),
            State::Open { idle: Some(until), .. } => drop(self.idle.remove(&(until, peer))),
            State::Lent(until) => drop(self.lent.remove(&(until, peer))),
            State::Released(until) => drop(self.released.remove(&(until, peer))),
            _ => {}
        }
        match state {
            State::Queued(ticket) => drop(self.queue.insert(ticket, peer)),
            State::Pausing(until) => drop(self.pausing.insert((until, peer))),
            State::Open { idle: Some(until), .. } => drop(self.idle.insert((until, peer))),
            State::Lent(until) => drop(self.lent.insert((until, peer))),
            State::Released(until) => drop(self.released.insert((until, peer))),
            _ => {}
        }
    }

    /// Does what follows for a peer from its state and its calls.
    fn settle(&mut self, peer: PeerNumber, now: Instant) {
        let Some(entry) = self.peers.get(&peer) else { return };
        let wanted = !entry.waiting.is_empty();
        match entry.state {
            State::Apart if wanted => {
                self.next += 1;
                self.set(peer, State::Queued(self.next));
            }
            State::Queued(_) | State::Pausing(_) if !wanted => self.set(peer, State::Apart),
            State::Dialling if !wanted => {
                self.actions.push_back(Action::Abandon { peer });
                self.set(peer, State::Apart);
            }
            State::Lent(_) if wanted => {
                self.set(peer, State::Open { owned: true, idle: None });
                self.settle_open(peer, now);
            }
            State::Open { .. } => self.settle_open(peer, now),
            _ => {}
        }
        if self.peers.get(&peer).is_some_and(|entry| entry.state == State::Apart) {
            self.peers.remove(&peer);
        }
        self.fill();
    }

    fn settle_open(&mut self, peer: PeerNumber, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        for id in std::mem::take(&mut entry.waiting) {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if let Stage::Waiting(until) = std::mem::replace(&mut call.stage, Stage::Active(entry.serial)) {
                self.waiting.remove(&(until, id));
            }
            entry.active += 1;
            entry.keep |= call.keep;
            self.actions.push_back(Action::Start { call: id, peer });
        }
        let (used, kept) = (entry.active > 0, entry.keep && entry.there);
        match entry.state {
            State::Open { owned: true, .. } if used => self.set(peer, State::Open { owned: true, idle: None }),
            State::Open { owned: true, .. } if !kept => self.close(peer),
            State::Open { owned: true, idle: None } => {
                let until = now + self.random(self.config.idle);
                self.set(peer, State::Open { owned: true, idle: Some(until) });
            }
            // Whose it is closes it, and says so.
            State::Open { owned: false, .. } if !used => self.set(peer, State::Apart),
            _ => {}
        }
    }

    /// Gives places to those that are next.
    fn fill(&mut self) {
        if !self.online {
            return;
        }
        while self.places < self.config.outgoing
            && let Some((_, peer)) = self.queue.first_key_value().map(|(ticket, peer)| (*ticket, *peer))
        {
            self.set(peer, State::Dialling);
            let timeout = self.random(self.config.connect_timeout);
            self.actions.push_back(Action::Dial { peer, timeout });
        }
        // Who only might be called again makes room for who is.
        while self.closing < self.queue.len()
            && let Some((_, peer)) = self.idle.first().copied()
        {
            self.close(peer);
        }
    }

    fn close(&mut self, peer: PeerNumber) {
        self.set(peer, State::Closing);
        self.actions.push_back(Action::Close { peer });
    }

    fn fail(&mut self, peer: PeerNumber, why: &NoConnection) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        for call in std::mem::take(&mut entry.waiting) {
            if let Some(Call { stage: Stage::Waiting(until), .. }) = self.calls.remove(&call) {
                self.waiting.remove(&(until, call));
            }
            self.actions.push_back(Action::Fail { call, why: why.clone() });
        }
    }

    fn random(&mut self, (from, to): (Duration, Duration)) -> Duration {
        from.max(if from < to { self.rng.random_range(from..=to) } else { from })
    }
}

#[cfg(test)]
mod tests;
