//! Whatever happens.

use proptest::prelude::*;

use super::*;

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
