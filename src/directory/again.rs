//! Whom this side still has to tell by which key it is known, after a login of either: pure, time is an argument.
//!
//! So few are told at a time that other texts find room, and that the directory's answers are remembered.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::PeerNumber;

/// Texts of which the directory has not said yet what has become of them.
const UNANSWERED: usize = 32;
/// How long that may take. Not every directory answers.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a peer that could not take it is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// When somebody is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Instant),
    Never,
}

/// Whoever brings peers here [forgets](Self::forget) those that the directory does not name any more.
#[derive(Debug, Default)]
pub(super) struct Again {
    untold: BTreeSet<PeerNumber>,
    /// The `id` of a text, whom it was for, and until when an answer is expected.
    unanswered: VecDeque<(u64, PeerNumber, Instant)>,
    /// Those that were busy, and from when on they are told again.
    busy: VecDeque<(PeerNumber, Instant)>,
}

impl Again {
    /// These peers are to be told.
    pub(super) fn tell(&mut self, peers: impl IntoIterator<Item = PeerNumber>) {
        self.untold.extend(peers);
        self.busy.retain(|(busy, _)| !self.untold.contains(busy));
    }

    /// A peer is not there any more.
    pub(super) fn forget(&mut self, peer: PeerNumber) {
        self.untold.remove(&peer);
        self.busy.retain(|(busy, _)| *busy != peer);
        self.unanswered.retain(|(_, told, _)| *told != peer);
    }

    /// When [`next`](Self::next) has somebody.
    pub(super) fn due(&self, now: Instant) -> Due {
        let peer = if self.untold.is_empty() { self.busy.front().map(|(_, at)| *at) } else { Some(now) };
        let full = self.unanswered.front().filter(|_| self.unanswered.len() >= UNANSWERED);
        match (peer, full.map(|(_, _, until)| *until)) {
            (None, _) => Due::Never,
            (Some(at), until) if at.max(until.unwrap_or(now)) <= now => Due::Now,
            (Some(at), until) => Due::At(at.max(until.unwrap_or(now))),
        }
    }

    /// Somebody who is told now, by a text with this `id`.
    pub(super) fn next(&mut self, id: u64, now: Instant) -> Option<PeerNumber> {
        if self.due(now) != Due::Now {
            return None;
        }
        if self.unanswered.len() >= UNANSWERED {
            self.unanswered.pop_front();
        }
        let peer = self.untold.pop_first().or_else(|| self.busy.pop_front().map(|(peer, _)| peer))?;
        self.unanswered.push_back((id, peer, now + PATIENCE));
        Some(peer)
    }

    /// The directory has said whether the peer was busy. Returns whether the text with this `id` was one of these.
    pub(super) fn answered(&mut self, id: u64, was_busy: bool, now: Instant) -> bool {
        let Some(at) = self.unanswered.iter().position(|(asked, ..)| *asked == id) else { return false };
        if let (Some((_, peer, _)), true) = (self.unanswered.remove(at), was_busy)
            && !self.untold.contains(&peer)
            && self.busy.iter().all(|(busy, _)| *busy != peer)
        {
            self.busy.push_back((peer, now + PAUSE));
        }
        true
    }

    /// Nobody is to be told: the login is over.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u64) -> PeerNumber {
        PeerNumber::new(number).unwrap()
    }

    #[test]
    fn who_was_busy_is_told_again_after_a_pause_and_the_others_at_once() {
        let (mut again, start) = (Again::default(), Instant::now());
        assert_eq!((again.due(start), again.next(0, start)), (Due::Never, None));
        again.tell([peer(1), peer(2), peer(1)]);
        assert_eq!(again.due(start), Due::Now);
        assert_eq!([1, 2, 3].map(|id| again.next(id, start)), [Some(peer(1)), Some(peer(2)), None]);
        assert!(again.answered(2, true, start) && !again.answered(2, true, start) && !again.answered(7, true, start));
        assert_eq!((again.due(start), again.next(4, start)), (Due::At(start + PAUSE), None));
        again.tell([peer(4)]);
        assert_eq!((again.due(start), again.next(5, start)), (Due::Now, Some(peer(4))));
        let later = start + PAUSE;
        assert_eq!((again.due(later), again.next(6, later), again.due(later)), (Due::Now, Some(peer(2)), Due::Never));
        // What was not delivered for another reason is not told again.
        assert!(again.answered(6, false, later) && again.due(later) == Due::Never);
    }

    #[test]
    fn few_are_told_at_once_whether_the_directory_answers_or_not() {
        let (mut again, start) = (Again::default(), Instant::now());
        again.tell((0..100).map(peer));
        let told = |again: &mut Again, now| (0..).map_while(|id| again.next(id, now)).count();
        assert_eq!(told(&mut again, start), UNANSWERED);
        assert_eq!(again.due(start), Due::At(start + PATIENCE));
        assert!(again.answered(3, false, start));
        assert_eq!(told(&mut again, start), 1);
        assert_eq!(told(&mut again, start + PATIENCE), UNANSWERED);
    }

    #[test]
    fn who_has_gone_is_not_told() {
        let (mut again, start) = (Again::default(), Instant::now());
        again.tell([peer(1), peer(2), peer(3)]);
        again.next(1, start);
        again.next(2, start);
        assert!(again.answered(1, true, start));
        (1..=3).for_each(|number| again.forget(peer(number)));
        assert!(!again.answered(2, true, start));
        assert_eq!(again.due(start + PAUSE), Due::Never);
        again.tell([peer(4)]);
        again.clear();
        assert_eq!(again.due(start), Due::Never);
    }

    proptest! {
        /// Whatever happens, whoever asks in time tells everybody who is there, at once or after it was busy, and nobody else.
        #[test]
        fn nobody_is_forgotten(steps in prop::collection::vec((0u64..60, 0u32..5, 0u64..1500), 0..200)) {
            let (mut again, mut now, mut next) = (Again::default(), Instant::now(), 0);
            let (mut open, mut asked) = (BTreeSet::new(), Vec::new());
            for (number, what, milliseconds) in steps {
                match what {
                    0 | 1 => {
                        again.tell([peer(number)]);
                        open.insert(peer(number));
                    }
                    2 => {
                        again.forget(peer(number));
                        open.remove(&peer(number));
                    }
                    3 => if let Some((id, told)) = asked.pop() && again.answered(id, number % 2 == 0, now) && number % 2 == 0 {
                        open.insert(told);
                    },
                    _ => now += Duration::from_millis(milliseconds),
                }
                if number % 3 == 0 && again.due(now) == Due::Now {
                    next += 1;
                    let told = again.next(next, now).unwrap();
                    prop_assert!(open.remove(&told));
                    asked.push((next, told));
                }
                prop_assert!(again.unanswered.len() <= UNANSWERED);
            }
            loop {
                match again.due(now) {
                    Due::Now => {
                        next += 1;
                        prop_assert!(open.remove(&again.next(next, now).unwrap()));
                    }
                    Due::At(at) => {
                        prop_assert!(at > now);
                        now = at;
                    }
                    Due::Never => break,
                }
            }
            prop_assert!(open.is_empty());
        }
    }
}
