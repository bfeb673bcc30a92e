//! The pool in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

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

#[test]
fn a_call_that_does_not_keep_its_connection_closes_it_at_once() {
    let mut world = World::new(slots(5));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&call));
    let other = world.call(1, false);
    assert!(world.started.contains_key(&other), "a connection serves many calls");
    world.finish(call);
    assert!(world.closing.is_empty());
    world.finish(other);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn a_kept_connection_is_closed_five_to_ten_seconds_after_its_last_call() {
    for seed in 0..20 {
        let mut world = World::with_seed(slots(5), seed);
        let kept = world.call(1, true);
        world.dialled(1, Ok(()));
        world.finish(kept);
        world.pass(Duration::from_millis(4999));
        let other = world.call(1, false);
        assert!(world.started.contains_key(&other), "it is there for the next call");
        world.pass(Duration::from_secs(60));
        world.finish(other);
        world.pass(Duration::from_millis(4999));
        assert!(world.closing.is_empty());
        world.pass(Duration::from_millis(5002));
        assert_eq!(world.closing, [peer(1)].into());
    }
}

#[test]
fn a_hundred_peers_get_their_turns_in_five_places() {
    let mut world = World::new(slots(5));
    for number in 0..100 {
        world.call(number, number >= 50);
    }
    let mut done = 0;
    while let Some(dialled) = world.dialling.first().copied() {
        world.dialled(dialled.get(), Ok(()));
        let calls: Vec<_> = world.started.keys().copied().collect();
        for call in calls {
            world.finish(call);
            done += 1;
        }
        for peer in world.closing.clone() {
            world.closed(peer.get());
        }
    }
    assert_eq!(done, 100);
    // Without any time: who is only kept gives way.
    assert_eq!(world.dials, (0..100).map(peer).collect::<Vec<_>>());
    assert_eq!(world.open.len(), 5, "the last ones are kept, as nobody waits");
}

#[test]
fn who_is_connected_is_called_without_a_place() {
    let mut world = World::new(slots(1));
    world.call(1, false);
    world.open.insert(peer(2), false);
    let call = world.call(2, false);
    assert!(world.started.contains_key(&call));
    world.finish(call);
    // A peer that waits for a place calls by itself.
    let other = world.call(3, false);
    world.open.insert(peer(3), false);
    world.pool.opened(peer(3), world.now);
    world.act();
    assert!(world.started.contains_key(&other));
    world.finish(other);
    assert!(world.closing.is_empty(), "what others have made stays");
}

#[test]
fn who_does_not_answer_is_dialled_again_behind_the_others() {
    let mut world = World::new(PoolConfig { retries: 1, ..slots(1) });
    let (silent, other) = (world.call(1, false), world.call(2, false));
    world.dialled(1, Err(ConnectError::TimedOut));
    assert_eq!(world.dials, [peer(1), peer(2)]);
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    world.dialled(1, Err(ConnectError::TimedOut));
    assert_eq!(world.failed[&silent], NoConnection::Failed(ConnectError::TimedOut));
    assert_eq!(world.dials.len(), 3);
}

#[test]
fn who_is_busy_is_asked_again_after_a_pause_and_holds_no_place() {
    let mut world = World::new(PoolConfig { retries: 0, ..slots(1) });
    let (call, other) = (world.call(1, false), world.call(2, false));
    world.dialled(1, Err(ConnectError::Busy));
    assert_eq!(world.dialling, [peer(2)].into(), "the place is free");
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    world.pass(Duration::from_millis(1500));
    for _ in 0..10 {
        world.dialled(1, Err(ConnectError::Busy));
        world.pass(Duration::from_millis(499));
        assert!(world.dialling.is_empty());
        world.pass(Duration::from_millis(1002));
    }
    world.dialled(1, Err(ConnectError::Refused));
    assert_eq!(world.failed[&call], NoConnection::Failed(ConnectError::Refused));
}

#[test]
fn no_call_waits_for_ever() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.pass(Duration::from_millis(59_999));
    assert!(world.failed.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.failed[&call], NoConnection::TimedOut);
    assert!(world.dialling.is_empty(), "an attempt that nobody waits for is dropped");
}

#[test]
fn calls_to_a_peer_that_leaves_fail_unless_they_are_on_their_way() {
    let mut world = World::new(slots(1));
    let (active, waiting) = (world.call(1, true), world.call(2, true));
    world.dialled(1, Ok(()));
    world.left(1);
    world.left(2);
    assert_eq!(world.failed[&waiting], NoConnection::Gone);
    assert!(world.started.contains_key(&active));
    world.finish(active);
    assert_eq!(world.closing, [peer(1)].into(), "nobody can be called there any more");
    world.closed(1);
    world.call(3, true);
    world.left(3);
    assert!(world.dialling.is_empty());
}

#[test]
fn no_call_to_a_peer_that_is_disowned_goes_on() {
    let mut world = World::new(slots(2));
    let (active, kept) = (world.call(1, false), world.call(1, true));
    world.dialled(1, Ok(()));
    world.finish(kept);
    let (waiting, other) = (world.call(2, false), world.call(3, false));
    world.disowned(1);
    world.disowned(2);
    assert_eq!(world.failed[&active], NoConnection::NotVouched);
    assert_eq!(world.failed[&waiting], NoConnection::Gone, "it was not called");
    assert_eq!(world.dialling, [peer(3)].into(), "the attempt is dropped, and the places are free");
    // The number is somebody else's now.
    let again = world.call(1, false);
    assert!(!world.started.contains_key(&again) && !world.dialling.contains(&peer(1)), "not over the old connection");
    world.finish(active);
    world.closed(1);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&again));
    world.dialled(3, Ok(()));
    assert!(world.started.contains_key(&other));
    world.finish(again);
    world.finish(other);
    // It has connected while it is dialled.
    world.closed(1);
    world.closed(3);
    world.call(4, false);
    world.open.insert(peer(4), false);
    world.pool.opened(peer(4), world.now);
    world.disowned(4);
    assert!(world.dialling.is_empty());
    world.pool.disowned(peer(9), false, world.now);
    assert_eq!(world.pool.poll_action(), None);
}

#[test]
fn a_connection_that_the_other_side_uses_is_left_for_a_moment_and_takes_no_place() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.used.insert(peer(1));
    world.call(2, false);
    world.finish(call);
    assert_eq!(world.dialling, [peer(2)].into());
    for _ in 0..3 {
        assert!(world.closing.is_empty());
        world.pass(Duration::from_millis(1500));
    }
    let again = world.call(1, false);
    assert!(world.started.contains_key(&again));
    world.used.clear();
    world.pass(Duration::from_secs(5));
    assert!(world.closing.is_empty(), "it is used by this side too");
    world.finish(again);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn a_connection_that_the_other_side_may_close_is_not_used_any_more() {
    let mut world = World::new(slots(1));
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    assert!(!world.release(1), "it is used");
    world.finish(call);
    assert!(world.release(1));
    assert!(!world.pool.give_away(peer(1), world.now));
    let (waiting, other) = (world.call(1, false), world.call(2, false));
    assert_eq!(world.dialling, [peer(2)].into(), "the place is free");
    world.closed(1);
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    assert_eq!(world.dialling, [peer(1)].into());
    world.finish(waiting);
    // One that nobody here has used.
    world.open.insert(peer(3), false);
    assert!(world.release(3));
    let call = world.call(3, false);
    assert!(!world.started.contains_key(&call));
    world.closed(3);
    assert_eq!(world.dialling, [peer(3)].into());
}

#[test]
fn who_has_let_the_other_side_close_a_connection_does_not_use_it_although_that_one_did() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert_eq!(world.closing, [peer(1)].into());
    // The other side has said that it uses it, and is done: what it said comes later than that it asks.
    assert!(world.release(1));
    world.pool.is_used(peer(1), world.now);
    let call = world.call(1, false);
    assert!(!world.started.contains_key(&call));
    world.closed(1);
    assert_eq!(world.dialling, [peer(1)].into());
}

#[test]
fn a_connection_that_the_other_side_may_close_and_does_not_is_cut() {
    let mut world = World::new(slots(1));
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert!(world.release(1));
    let waiting = world.call(1, false);
    world.pass(Duration::from_secs(3));
    assert!(world.release(1), "it may ask again, and has no more time");
    world.pass(Duration::from_millis(1999));
    assert!(world.cut.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.cut, [peer(1)].into());
    world.closed(1);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&waiting));
    world.finish(waiting);
    world.closed(1);
    assert_eq!(world.pool.next_timeout(), None);
}

#[test]
fn what_the_application_takes_over_is_not_closed_and_frees_its_place() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.open.insert(peer(1), false);
    assert!(world.pool.give_away(peer(1), world.now));
    world.call(2, false);
    assert_eq!(world.dialling, [peer(2)].into());
    world.finish(call);
    assert!(world.closing.is_empty());
}

#[test]
fn without_the_directory_calls_wait() {
    let mut world = World::new(slots(5));
    world.call(1, false);
    world.pool.set_online(false);
    world.dialled(1, Err(ConnectError::ViaClosed));
    let other = world.call(2, false);
    world.pass(Duration::from_secs(30));
    assert!(world.dialling.is_empty() && world.failed.is_empty());
    world.pool.set_online(true);
    world.act();
    assert_eq!(world.dialling, [peer(1), peer(2)].into());
    world.dialled(2, Ok(()));
    assert!(world.started.contains_key(&other));
}

#[test]
fn the_calls_of_a_connection_that_is_lost_do_not_count_for_the_next_one() {
    let mut world = World::new(slots(1));
    let old = world.call(1, false);
    world.dialled(1, Ok(()));
    world.closed(1);
    let new = world.call(1, false);
    world.dialled(1, Ok(()));
    world.finish(old);
    assert!(world.closing.is_empty(), "the new call uses it");
    world.finish(new);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn too_many_calls_fail_at_once() {
    let mut world = World::new(PoolConfig { waiting: 3, ..slots(1) });
    for number in 0..3 {
        world.call(number, false);
    }
    let beyond = world.call(3, false);
    assert_eq!(world.failed[&beyond], NoConnection::Full);
    world.dialled(0, Ok(()));
    let call = world.call(0, false);
    assert!(world.started.contains_key(&call));
}

#[test]
fn times_may_be_for_ever() {
    let ever = (Duration::MAX, Duration::MAX);
    let config = PoolConfig { wait: Duration::MAX, connect_timeout: ever, pause: ever, idle: ever, ..slots(1) };
    let mut world = World::new(config);
    world.config.connect_timeout = (FOREVER, FOREVER);
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert_eq!(world.pool.next_timeout(), Some(world.now + FOREVER));
    world.used.insert(peer(1));
    world.call(2, false);
    assert!(world.lent.contains(&peer(1)));
    world.dialled(2, Err(ConnectError::Busy));
    world.call(3, false);
    world.dialled(3, Err(ConnectError::AlreadyConnected));
    world.pass(Duration::from_secs(100_000_000));
    assert!(world.failed.is_empty() && world.dialling.is_empty());
}

#[test]
fn a_call_that_has_waited_for_who_is_busy_says_so() {
    let mut world = World::new(PoolConfig { wait: Duration::from_secs(5), ..slots(2) });
    let (busy, silent) = (world.call(1, false), world.call(2, false));
    while !world.failed.contains_key(&busy) {
        if world.dialling.contains(&peer(1)) {
            world.dialled(1, Err(ConnectError::Busy));
        }
        world.pass(Duration::from_millis(100));
    }
    let was_busy = NoConnection::Failed(ConnectError::Busy);
    assert_eq!((&world.failed[&busy], &world.failed[&silent]), (&was_busy, &NoConnection::TimedOut));
    // It was so before.
    let later = world.call(1, false);
    world.dialled(1, Err(ConnectError::Busy));
    world.pass(Duration::from_millis(1500));
    world.dialled(1, Err(ConnectError::TimedOut));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.failed[&later], NoConnection::TimedOut);
}

#[derive(Debug, Clone)]
enum Op {
    Call(u64, bool),
    Finish(usize),
    Dialled(usize, Option<ConnectError>),
    Closed(usize),
    OpenedElsewhere(u64),
    Left(u64),
    Disowned(u64),
    Online(bool),
    Used(u64, bool),
    Release(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let error = prop_oneof![
        Just(ConnectError::TimedOut),
        Just(ConnectError::Busy),
        Just(ConnectError::Refused),
        Just(ConnectError::ViaClosed),
        Just(ConnectError::Unreachable),
    ];
    prop_oneof![
        6 => (0u64..12, any::<bool>()).prop_map(|(peer, keep)| Op::Call(peer, keep)),
        4 => any::<usize>().prop_map(Op::Finish),
        4 => (any::<usize>(), proptest::option::weighted(0.4, error)).prop_map(|(n, error)| Op::Dialled(n, error)),
        3 => any::<usize>().prop_map(Op::Closed),
        1 => (0u64..12).prop_map(Op::OpenedElsewhere),
        1 => (0u64..12).prop_map(Op::Left),
        1 => (0u64..12).prop_map(Op::Disowned),
        1 => any::<bool>().prop_map(Op::Online),
        2 => (0u64..12, any::<bool>()).prop_map(|(peer, used)| Op::Used(peer, used)),
        1 => any::<usize>().prop_map(Op::Release),
        2 => (0u64..20_000).prop_map(Op::Pass),
    ]
}

impl World {
    fn apply(&mut self, op: Op) {
        fn nth<T: Copy>(mut items: impl ExactSizeIterator<Item = T>, n: usize) -> Option<T> {
            let len = items.len();
            items.nth(n.checked_rem(len)?)
        }
        match op {
            Op::Call(number, keep) => drop(self.call(number, keep)),
            Op::Finish(n) => {
                let calls: Vec<_> = self.lost.iter().chain(self.started.keys()).copied().collect();
                if let Some(call) = nth(calls.iter().copied(), n) {
                    self.finish(call);
                }
            }
            Op::Dialled(n, error) => {
                if let Some(peer) = nth(self.dialling.iter().copied(), n) {
                    self.dialled(peer.get(), error.map_or(Ok(()), Err));
                }
            }
            Op::Closed(n) => {
                let closing: Vec<_> = self.closing.iter().chain(self.open.keys()).copied().collect();
                if let Some(peer) = nth(closing.iter().copied(), n) {
                    self.closed(peer.get());
                }
            }
            Op::OpenedElsewhere(number) => {
                let peer = peer(number);
                if !self.dialling.contains(&peer) && !self.closing.contains(&peer) && !self.open.contains_key(&peer) {
                    self.open.insert(peer, false);
                    self.pool.opened(peer, self.now);
                    self.act();
                }
            }
            Op::Left(number) => self.left(number),
            Op::Disowned(number) => self.disowned(number),
            Op::Online(online) => {
                self.pool.set_online(online);
                self.act();
            }
            Op::Used(number, used) => {
                if used {
                    self.used.insert(peer(number))
                } else {
                    self.used.remove(&peer(number))
                };
            }
            Op::Release(n) => {
                let there: Vec<_> = self.open.keys().chain(&self.closing).copied().collect();
                if let Some(peer) = nth(there.into_iter(), n).filter(|peer| !self.dialling.contains(peer)) {
                    self.release(peer.get());
                }
            }
            Op::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
        }
    }
}

proptest! {
    /// Whatever happens, the checks of [`World`] hold; in the end every call is over, and nothing is left behind.
    #[test]
    fn every_call_ends_and_nothing_is_left(
        ops in prop::collection::vec(op(), 1..200),
        outgoing in 1usize..4,
        seed: u64,
    ) {
        let mut world = World::with_seed(PoolConfig { waiting: 20, ..slots(outgoing) }, seed);
        for op in ops {
            world.apply(op);
        }
        world.pool.set_online(true);
        world.act();
        // From now on everybody answers, and calls nobody.
        world.used.clear();
        for _ in 0..1000 {
            if let Some(peer) = world.dialling.first().copied() {
                world.dialled(peer.get(), Ok(()));
            } else if let Some(call) = world.lost.first().or(world.started.keys().next()).copied() {
                world.finish(call);
            } else if let Some(peer) = world.closing.first().or(world.released.first()).copied() {
                world.closed(peer.get());
            } else if !world.waiting.is_empty() || world.open.values().any(|owned| *owned) {
                world.pass(Duration::from_secs(2));
            } else {
                break;
            }
        }
        prop_assert!(world.waiting.is_empty() && world.started.is_empty());
        let pool = &world.pool;
        prop_assert!(pool.peers.is_empty() && pool.calls.is_empty() && pool.queue.is_empty());
        prop_assert!(pool.pausing.is_empty() && pool.idle.is_empty() && pool.waiting.is_empty());
        prop_assert_eq!((pool.places, pool.closing, pool.next_timeout()), (0, 0, None));
    }
}
