//! How long others wait for a link that has no room. Pure.
//!
//! A link that is busy is full every now and then, for a millisecond or a few, and what waits that long is not lost. But who makes us
//! send to somebody who does not read shall not hold up all else that comes from there: so what counts is the time that was waited.

use std::time::{Duration, Instant};

use crate::node::Budget;

/// How long a packet that was received may wait for room on the next link. Then it is dropped: two peers could wait for each other
/// for ever.
pub(super) const HOLD: Duration = Duration::from_millis(20);
/// Microseconds for which others may wait for one link: so many at once, and in each second.
const WAITS: Budget = Budget::new(100_000, 100_000);

/// Whether to wait for a link.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when others wait for it. For [`HOLD`] from then on is paid.
    since: Option<Instant>,
    left: Budget,
}

impl Default for Patience {
    fn default() -> Self {
        Self { since: None, left: WAITS }
    }
}

impl Patience {
    /// The link has no room. Returns whether to wait for some.
    pub(super) fn full(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + HOLD) {
            self.since = self.left.take_many(micros(HOLD), now).then_some(now);
        }
        self.since.is_some()
    }

    /// The link has room. What was paid too much is given back.
    pub(super) fn has_room(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.left.give_back(micros(HOLD.saturating_sub(now.saturating_duration_since(since))));
        }
    }
}

const fn micros(duration: Duration) -> usize {
    duration.as_micros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_link_that_is_full_now_and_then_is_waited_for_each_time() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        for _ in 0..1000 {
            assert!(patience.full(now), "a wait of 2 ms, 25 ms after the last one");
            now += 2 * MILLISECOND;
            patience.has_room(now);
            now += 23 * MILLISECOND;
        }
    }

    #[test]
    fn a_link_that_takes_nothing_or_little_holds_others_up_for_a_tenth_of_the_time() {
        for takes_little in [false, true] {
            let (mut patience, start) = (Patience::default(), Instant::now());
            let waited = (0..10_000).filter(|&at| {
                let now = start + MILLISECOND * at;
                if takes_little && at % 19 == 0 {
                    patience.has_room(now);
                }
                patience.full(now)
            });
            let waited = waited.count();
            assert!((1000..=1100).contains(&waited), "{waited} ms of 10 s, and what may be at once");
        }
    }
}
