//! Peers that are connected and that the directory does not name any more: pure, time is an argument.
//!
//! Who has left may only have lost the directory, and what is under way with it should go on. But who has left is not ended with its
//! account any more, so nobody would notice if it was to be. So it is *doubted*, and over when it has been so for a grace period.
//! Time counts only while the directory is there: without it nobody can be named.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::pool::FOREVER;
use crate::protocol::PeerNumber;

/// Whoever brings peers here keeps only those that are connected.
#[derive(Debug)]
pub(super) struct Doubts {
    grace: Duration,
    /// How long the directory was there before, and since when it is there now.
    before: Duration,
    since: Option<Instant>,
    /// Until when, in the time of the directory.
    doubted: HashMap<PeerNumber, Duration>,
    order: BTreeSet<(Duration, PeerNumber)>,
}

impl Doubts {
    pub(super) fn new(grace: Duration) -> Self {
        let grace = grace.min(FOREVER);
        Self { grace, before: Duration::ZERO, since: None, doubted: HashMap::new(), order: BTreeSet::new() }
    }

    /// Whether the directory is there. It is not at first.
    pub(super) fn set_online(&mut self, online: bool, now: Instant) {
        self.before = self.time(now);
        self.since = online.then_some(now);
    }

    /// The directory does not name a peer any more.
    pub(super) fn left(&mut self, peer: PeerNumber, now: Instant) {
        let until = self.time(now).saturating_add(self.grace);
        if let Some(earlier) = self.doubted.insert(peer, until) {
            self.order.remove(&(earlier, peer));
        }
        self.order.insert((until, peer));
    }

    /// The directory names a peer again, or it is connected no more. Returns whether it was doubted.
    pub(super) fn clear(&mut self, peer: PeerNumber) -> bool {
        self.doubted.remove(&peer).is_some_and(|until| self.order.remove(&(until, peer)))
    }

    /// A peer that is over now. It is doubted no more.
    pub(super) fn next_over(&mut self, now: Instant) -> Option<PeerNumber> {
        self.since?;
        let (_, peer) = self.order.first().copied().filter(|(until, _)| *until <= self.time(now))?;
        self.clear(peer);
        Some(peer)
    }

    /// When [`next_over`](Self::next_over) has one.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let (until, _) = self.order.first()?;
        self.since?.checked_add(until.saturating_sub(self.before))
    }

    /// How long the directory was there.
    fn time(&self, now: Instant) -> Duration {
        self.before.saturating_add(self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u64) -> PeerNumber {
        PeerNumber::new(number).unwrap()
    }

    #[test]
    fn who_is_not_named_again_is_over_after_the_grace() {
        let (mut doubts, start) = (Doubts::new(60 * SECOND), Instant::now());
        doubts.set_online(true, start);
        doubts.left(peer(1), start);
        doubts.left(peer(2), start + SECOND);
        assert_eq!(doubts.next_timeout(), Some(start + 60 * SECOND));
        assert_eq!(doubts.next_over(start + 59 * SECOND), None);
        doubts.clear(peer(1));
        assert_eq!(doubts.next_over(start + 60 * SECOND), None);
        assert_eq!(doubts.next_over(start + 61 * SECOND), Some(peer(2)));
        assert_eq!((doubts.next_over(start + 100 * SECOND), doubts.next_timeout()), (None, None));
    }

    #[test]
    fn time_without_the_directory_does_not_count() {
        let (mut doubts, start) = (Doubts::new(60 * SECOND), Instant::now());
        doubts.left(peer(1), start);
        let late = start + 1000 * SECOND;
        assert_eq!((doubts.next_over(late), doubts.next_timeout()), (None, None));
        doubts.set_online(true, late);
        assert_eq!(doubts.next_timeout(), Some(late + 60 * SECOND));
        doubts.set_online(false, late + 59 * SECOND);
        assert_eq!((doubts.next_over(late + 100 * SECOND), doubts.next_timeout()), (None, None));
        doubts.set_online(true, late + 100 * SECOND);
        assert_eq!(doubts.next_timeout(), Some(late + 101 * SECOND));
        assert_eq!(doubts.next_over(late + 101 * SECOND), Some(peer(1)));
    }

    #[test]
    fn the_grace_may_be_nothing_or_for_ever() {
        for (grace, over) in [(Duration::ZERO, Some(peer(1))), (Duration::MAX, None)] {
            let (mut doubts, start) = (Doubts::new(grace), Instant::now());
            doubts.set_online(true, start);
            doubts.left(peer(1), start + SECOND);
            // A timer can be set to it.
            assert_eq!(doubts.next_timeout(), Some(start + SECOND + grace.min(FOREVER)));
            assert_eq!(doubts.next_over(start + SECOND), over);
        }
    }

    proptest! {
        /// Whatever happens, who is over has been doubted for the grace, and whoever asks in time misses nobody.
        #[test]
        fn nobody_is_missed(steps in prop::collection::vec((0u64..5, 0u32..4, 0u32..20), 0..60)) {
            let (grace, mut now) = (30 * SECOND, Instant::now());
            let (mut doubts, mut online) = (Doubts::new(grace), false);
            let mut passed: HashMap<PeerNumber, Duration> = HashMap::new();
            for (number, what, seconds) in steps {
                match what {
                    0 => drop((doubts.left(peer(number), now), passed.insert(peer(number), Duration::ZERO))),
                    1 => prop_assert_eq!(doubts.clear(peer(number)), passed.remove(&peer(number)).is_some()),
                    2 => {
                        online = !online;
                        doubts.set_online(online, now);
                    }
                    _ => {
                        let end = now + seconds * SECOND;
                        while let Some(at) = doubts.next_timeout().filter(|at| *at <= end) {
                            prop_assert!(online);
                            passed.values_mut().for_each(|passed| *passed += at - now);
                            now = now.max(at);
                            while let Some(over) = doubts.next_over(now) {
                                prop_assert_eq!(passed.remove(&over), Some(grace));
                            }
                        }
                        passed.values_mut().filter(|_| online).for_each(|passed| *passed += end - now);
                        now = end;
                        prop_assert!(passed.values().all(|passed| *passed < grace));
                    }
                }
                prop_assert_eq!(doubts.doubted.len(), passed.len());
                prop_assert_eq!(doubts.order.len(), passed.len());
            }
        }
    }
}
