//! How fast one peer may send: the generic cell rate algorithm, one instant of state for each peer.

use std::time::{Duration, Instant};

/// A rate with a burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    interval: Duration,
    tolerance: Duration,
}

impl Rate {
    /// `per_second` frames, and `burst` of them at once. None if `per_second` is 0, which means no limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        Some(Self { interval, tolerance: interval.saturating_mul(burst.max(1)) })
    }
}

/// What one peer has used of its rate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used(Option<Instant>);

impl Used {
    /// Counts one frame. Some is the instant from which the next fits, if that is not now.
    pub(super) fn charge(&mut self, rate: Rate, now: Instant) -> Option<Instant> {
        let used = self.0.filter(|&used| used > now).unwrap_or(now) + rate.interval;
        self.0 = Some(used);
        let resume = (used + rate.interval).checked_sub(rate.tolerance)?;
        (resume > now).then_some(resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate::new(200, 1000).unwrap();
        let start = Instant::now();
        let mut used = Used::default();
        for _ in 0..999 {
            assert_eq!(used.charge(rate, start), None);
        }
        let mut now = start;
        for _ in 0..400 {
            let resume = used.charge(rate, now).expect("over the burst");
            assert!(resume > now);
            now = resume;
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(1990) && took <= Duration::from_millis(2010), "{took:?}");
    }

    #[test]
    fn rest_gives_the_burst_back() {
        let rate = Rate::new(10, 5).unwrap();
        let start = Instant::now();
        let mut used = Used::default();
        while used.charge(rate, start).is_none() {}
        let later = start + Duration::from_secs(10);
        for _ in 0..4 {
            assert_eq!(used.charge(rate, later), None);
        }
        assert!(used.charge(rate, later).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Rate::new(0, 10).is_none());
        assert!(Rate::new(u32::MAX, u32::MAX).is_some());
    }
}
