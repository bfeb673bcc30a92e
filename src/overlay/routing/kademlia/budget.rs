//! Time, and what is counted by it. All of it is small, as each link has some.

use std::time::{Duration, Instant};

/// Tenths of a second since the table was made.
pub(super) type Moment = u32;

/// Tenths of a second between two answers to one neighbour, in the long run.
const ANSWER: Moment = 2;
/// Answers that a neighbour gets at once, after a rest. Beyond, its questions are ignored.
const ANSWERS: Moment = 50;
/// Tenths of a second after which a question counts as not answered.
const PATIENCE: Moment = 100;

pub(super) fn tenths(duration: Duration) -> Moment {
    u32::try_from(duration.as_millis() / 100).unwrap_or(u32::MAX / 2)
}

pub(super) fn instant(start: Instant, moment: Moment) -> Instant {
    start + Duration::from_millis(u64::from(moment) * 100)
}

/// What a neighbour has used of the answers it may get: the generic cell rate algorithm.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served(Moment);

impl Served {
    /// Whether another answer fits.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let used = self.0.max(now) + ANSWER;
        let fits = used - now <= ANSWER * ANSWERS;
        if fits {
            self.0 = used;
        }
        fits
    }
}

/// The question that a neighbour has not answered yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked(Option<(u32, Moment)>);

impl Asked {
    /// Whether another question may be asked: one at a time.
    pub(super) fn is_free(&self, now: Moment) -> bool {
        self.0.is_none_or(|(_, at)| now.saturating_sub(at) >= PATIENCE)
    }

    pub(super) fn ask(&mut self, token: u32, now: Moment) {
        self.0 = Some((token, now));
    }

    /// Whether this is the token of the question. There is none any more then.
    pub(super) fn answer(&mut self, token: u32) -> bool {
        self.0.take_if(|(asked, _)| *asked == token).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_answers_and_then_the_rate() {
        let mut served = Served::default();
        assert_eq!((0..100).filter(|_| served.take(7)).count(), ANSWERS as usize);
        assert!(!served.take(7 + ANSWER - 1) && served.take(7 + ANSWER) && !served.take(7 + ANSWER));
    }

    #[test]
    fn one_question_at_a_time() {
        let mut asked = Asked::default();
        assert!(asked.is_free(0) && !asked.answer(0));
        asked.ask(3, 5);
        assert!(!asked.is_free(5) && asked.is_free(5 + PATIENCE));
        assert!(!asked.answer(4) && asked.answer(3) && !asked.answer(3) && asked.is_free(5));
    }
}
