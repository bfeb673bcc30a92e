//! Whom this side still has to tell by which key it is known, after a login of either: pure, time is an argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::protocol::PeerNumber;

/// How long a peer that could not take it is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Whoever brings peers here brings only those whom the directory names.
#[derive(Debug, Default)]
pub(super) struct Again {
    untold: BTreeSet<PeerNumber>,
    /// Those that were busy, and when they are told again.
    busy: BTreeSet<PeerNumber>,
    at: Option<Instant>,
}

impl Again {
    /// These peers are to be told.
    pub(super) fn tell(&mut self, peers: impl IntoIterator<Item = PeerNumber>) {
        self.untold.extend(peers);
    }

    /// A peer that was told could not take it.
    pub(super) fn was_busy(&mut self, peer: PeerNumber, now: Instant) {
        self.busy.insert(peer);
        self.at.get_or_insert(now + PAUSE);
    }

    /// When [`next`](Self::next) has somebody.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.untold.is_empty() { self.at } else { Some(now) }
    }

    /// Somebody who is to be told now.
    pub(super) fn next(&mut self, now: Instant) -> Option<PeerNumber> {
        if self.at.take_if(|at| *at <= now).is_some() {
            self.untold.append(&mut self.busy);
        }
        self.untold.pop_first()
    }

    /// Nobody is to be told: the login is over.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u64) -> PeerNumber {
        PeerNumber::new(number).unwrap()
    }

    #[test]
    fn who_was_busy_is_told_again_after_a_pause_and_the_others_at_once() {
        let (mut again, start) = (Again::default(), Instant::now());
        assert_eq!((again.due(start), again.next(start)), (None, None));
        again.tell([peer(1), peer(2), peer(1)]);
        assert_eq!(again.due(start), Some(start));
        assert_eq!([again.next(start), again.next(start), again.next(start)], [Some(peer(1)), Some(peer(2)), None]);
        again.was_busy(peer(2), start);
        again.was_busy(peer(3), start + PAUSE / 2);
        assert_eq!((again.due(start), again.next(start)), (Some(start + PAUSE), None));
        again.tell([peer(4)]);
        assert_eq!((again.due(start), again.next(start), again.next(start)), (Some(start), Some(peer(4)), None));
        let later = start + PAUSE;
        assert_eq!([again.next(later), again.next(later), again.next(later)], [Some(peer(2)), Some(peer(3)), None]);
        assert_eq!(again.due(later), None);
        again.tell([peer(5)]);
        again.was_busy(peer(6), later);
        again.clear();
        assert_eq!((again.due(later), again.next(later + PAUSE)), (None, None));
    }
}
