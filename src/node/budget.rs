//! A token bucket (as in RFC 2697, section 3, with one rate and one burst): what a peer may make us do.

use std::time::Instant;

/// So many tokens at the start and at most, so many more each second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    burst: u32,
    per_second: u32,
    tokens: f64,
    at: Option<Instant>,
}

impl Budget {
    pub(crate) const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, tokens: burst as f64, at: None }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many tokens, if there are as many.
    pub(crate) fn take_many(&mut self, count: usize, now: Instant) -> bool {
        let has = self.has(count, now);
        if has {
            self.tokens -= count as f64;
        }
        has
    }

    /// Puts back so many tokens that were taken.
    pub(crate) fn give_back(&mut self, count: usize) {
        self.tokens = (self.tokens + count as f64).min(f64::from(self.burst));
    }

    /// Whether there are so many tokens.
    pub(crate) fn has(&mut self, count: usize, now: Instant) -> bool {
        let elapsed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.tokens = (self.tokens + elapsed * f64::from(self.per_second)).min(f64::from(self.burst));
        self.tokens >= count as f64
    }

    /// Half of what there may be at once.
    pub(crate) fn half(&self) -> usize {
        self.burst as usize / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn burst_and_refill() {
        let start = Instant::now();
        let mut budget = Budget::new(2, 10);
        assert!(budget.take(start) && budget.take(start) && !budget.take(start));
        assert!(budget.take(start + Duration::from_millis(100)));
        assert!(!budget.take(start + Duration::from_millis(150)));
        let later = start + Duration::from_secs(60);
        assert!(budget.take(later) && budget.take(later) && !budget.take(later));
        let later = later + Duration::from_secs(60);
        assert!(!budget.take_many(3, later) && budget.take_many(2, later) && !budget.take(later));
        budget.give_back(1);
        assert!(budget.take(later) && !budget.take(later));
        budget.give_back(3);
        assert!(budget.take_many(2, later) && !budget.take(later), "no more than there may be at once");
    }
}
