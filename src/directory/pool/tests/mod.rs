//! The pool in virtual time.

mod any;
mod calls;
mod ends;

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn peer(number: u64) -> PeerNumber {
    PeerNumber::new(number).unwrap()
}

/// Carries out what the pool says, and checks that it may say so.
struct World {
    pool: Pool,
    config: PoolConfig,
    now: Instant,
    next: u64,
    dialling: BTreeSet<PeerNumber>,
    /// And whether the pool has made it.
    open: BTreeMap<PeerNumber, bool>,
    closing: BTreeSet<PeerNumber>,
    waiting: BTreeMap<CallId, PeerNumber>,
    started: BTreeMap<CallId, PeerNumber>,
    failed: BTreeMap<CallId, NoConnection>,
    /// Over whose connections the other side makes calls.
    used: BTreeSet<PeerNumber>,
    /// That were left to the other side: they take no place.
    lent: BTreeSet<PeerNumber>,
    /// Which the other side may close.
    released: BTreeSet<PeerNumber>,
    /// Which are closed without asking.
    cut: BTreeSet<PeerNumber>,
    /// Of connections that are over.
    lost: BTreeSet<CallId>,
    /// In order.
    dials: Vec<PeerNumber>,
}

impl World {
    fn new(config: PoolConfig) -> Self {
        Self::with_seed(config, 7)
    }

    fn with_seed(config: PoolConfig, seed: u64) -> Self {
        let mut pool = Pool::new(config.clone(), seed);
        pool.set_online(true);
        Self {
            pool,
            config,
            now: Instant::now(),
            next: 0,
            dialling: BTreeSet::new(),
            open: BTreeMap::new(),
            closing: BTreeSet::new(),
            waiting: BTreeMap::new(),
            started: BTreeMap::new(),
            failed: BTreeMap::new(),
            used: BTreeSet::new(),
            released: BTreeSet::new(),
            cut: BTreeSet::new(),
            lent: BTreeSet::new(),
            lost: BTreeSet::new(),
            dials: Vec::new(),
        }
    }

    fn call(&mut self, number: u64, keep: bool) -> CallId {
        self.next += 1;
        let id = CallId(self.next);
        self.waiting.insert(id, peer(number));
        let open = self.open.contains_key(&peer(number));
        self.pool.call(id, peer(number), keep, open, self.now);
        self.act();
        id
    }

    fn finish(&mut self, call: CallId) {
        self.started.remove(&call);
        self.lost.remove(&call);
        self.waiting.remove(&call);
        self.pool.finished(call, self.now);
        self.act();
    }

    fn dialled(&mut self, number: u64, result: Result<(), ConnectError>) {
        let peer = peer(number);
        assert!(self.dialling.remove(&peer), "{peer} is not dialled");
        if result.is_ok() {
            self.open.insert(peer, true);
        }
        assert!(self.pool.dialled(peer, result.map(|()| true), self.now));
        self.act();
    }

    /// The connection is over, for whatever reason.
    fn closed(&mut self, number: u64) {
        let peer = peer(number);
        self.open.remove(&peer);
        self.closing.remove(&peer);
        self.released.remove(&peer);
        self.cut.remove(&peer);
        self.lent.remove(&peer);
        self.lost.extend(self.started.extract_if(.., |_, used| *used == peer).map(|(call, _)| call));
        self.pool.closed(peer, self.now);
        self.act();
    }

    fn release(&mut self, number: u64) -> bool {
        let (peer, may) = (peer(number), self.pool.release(peer(number), self.now));
        assert!(!may || self.started.values().all(|used| *used != peer), "{peer} is used");
        if may && self.closing.remove(&peer) {
            self.released.insert(peer);
        }
        if may && self.open.contains_key(&peer) {
            self.released.insert(peer);
            // It takes no place any more.
            self.open.insert(peer, false);
        }
        self.act();
        may
    }

    fn disowned(&mut self, number: u64) {
        let peer = peer(number);
        let is_open = self.open.contains_key(&peer);
        self.pool.disowned(peer, is_open, self.now);
        if let Some(owned) = self.open.get_mut(&peer) {
            // It is being closed, and takes no place.
            *owned = false;
            self.released.insert(peer);
        }
        self.act();
        assert!(self.waiting.values().chain(self.started.values()).all(|called| *called != peer), "{peer} is called");
    }

    fn left(&mut self, number: u64) {
        self.pool.left(peer(number), self.now);
        self.act();
        assert!(self.waiting.values().all(|waiting| *waiting != peer(number)));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.pool.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.pool.handle_timeout(self.now);
            self.act();
        }
        self.now = end;
    }

    fn act(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            match action {
                Action::Dial { peer, timeout } => {
                    assert!(!self.open.contains_key(&peer) && !self.closing.contains(&peer), "{peer} is open");
                    assert!(self.dialling.insert(peer), "{peer} is dialled already");
                    let (from, to) = self.config.connect_timeout;
                    assert!((from..=to).contains(&timeout));
                    self.dials.push(peer);
                }
                Action::Abandon { peer } => assert!(self.dialling.remove(&peer)),
                Action::Start { call, peer } => {
                    assert_eq!(self.waiting.remove(&call), Some(peer));
                    assert!(self.open.contains_key(&peer) && !self.released.contains(&peer), "{peer} is not open");
                    self.started.insert(call, peer);
                }
                Action::Fail { call, why } => {
                    let cut = why == NoConnection::NotVouched;
                    let calls = if cut { &mut self.started } else { &mut self.waiting };
                    assert!(calls.remove(&call).is_some());
                    self.failed.insert(call, why);
                }
                Action::Close { peer } if self.used.contains(&peer) => {
                    self.lent.insert(peer);
                    self.pool.is_used(peer, self.now);
                }
                Action::Cut { peer } => {
                    assert!(self.released.contains(&peer), "{peer} is not to be closed");
                    self.cut.insert(peer);
                }
                Action::Close { peer } => {
                    assert_eq!(self.open.remove(&peer), Some(true), "{peer} is not the pool's");
                    assert!(self.started.values().all(|used| *used != peer), "{peer} is used");
                    assert!(self.closing.insert(peer));
                }
            }
        }
        let owned = self.open.iter().filter(|(peer, owned)| **owned && !self.lent.contains(peer)).count();
        let closing = self.closing.difference(&self.lent).count();
        assert!(owned + self.dialling.len() + closing <= self.config.outgoing);
        assert!(self.waiting.len() <= self.config.waiting);
    }
}

fn slots(outgoing: usize) -> PoolConfig {
    PoolConfig { outgoing, ..PoolConfig::default() }
}
