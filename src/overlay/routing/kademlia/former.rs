//! Neighbours that were lost.

use super::budget::Moment;
use crate::overlay::OverlayId;

/// Former neighbours to remember. Who has been tried in vain most often makes room.
const MAX: usize = 16;
/// Tenths of a second after which they are forgotten: 24 hours.
const LIFETIME: Moment = 864_000;
/// Tenths of a second before one is tried again, doubled each time, up to 4 hours.
const BACK_OFF: Moment = 300;
const LONGEST_BACK_OFF: Moment = 144_000;
/// Tenths of a second from one attempt to the next.
const SPACING: Moment = 5;

#[derive(Debug)]
struct Past {
    id: OverlayId,
    expires: Moment,
    try_at: Moment,
    attempts: u8,
}

/// When a network that fell apart is whole again, they are the only way from one part to the other: to the candidates of the
/// other part all attempts have failed by then.
#[derive(Debug, Default)]
pub(super) struct Former {
    list: Vec<Past>,
    /// No attempt before.
    next: Moment,
}

impl Former {
    pub(super) fn lost(&mut self, id: OverlayId, now: Moment) {
        self.remove(&id);
        if self.list.len() >= MAX {
            let most = self.list.iter().enumerate().max_by_key(|(_, past)| past.attempts).map(|(at, _)| at);
            most.map(|at| self.list.swap_remove(at));
        }
        let (expires, try_at) = (now.saturating_add(LIFETIME), now.saturating_add(BACK_OFF));
        self.list.push(Past { id, expires, try_at, attempts: 0 });
    }

    /// Whether it was one.
    pub(super) fn remove(&mut self, id: &OverlayId) -> bool {
        let at = self.list.iter().position(|past| past.id == *id);
        at.map(|at| self.list.swap_remove(at)).is_some()
    }

    /// One of them is back, so the others may be.
    pub(super) fn hurry(&mut self, now: Moment) {
        self.list.iter_mut().for_each(|past| (past.attempts, past.try_at) = (0, now));
    }

    /// The next one to try, if it is time.
    pub(super) fn due(&mut self, now: Moment) -> Option<OverlayId> {
        if now < self.next {
            return None;
        }
        self.list.retain(|past| now < past.expires);
        let past = self.list.iter_mut().filter(|past| past.try_at <= now).min_by_key(|past| past.try_at)?;
        let wait = BACK_OFF.saturating_mul(2 << past.attempts.min(16)).min(LONGEST_BACK_OFF);
        (past.attempts, past.try_at) = (past.attempts.saturating_add(1), now.saturating_add(wait));
        self.next = now.saturating_add(SPACING);
        Some(past.id)
    }

    /// When the next one is to be tried.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.list.iter().map(|past| past.try_at.max(self.next)).min()
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Past>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> OverlayId {
        OverlayId::from_bytes([number; 20])
    }

    #[test]
    fn they_are_tried_more_and_more_seldom_and_forgotten_in_the_end() {
        let mut former = Former::default();
        former.lost(id(1), 0);
        let mut times = Vec::new();
        while let Some(at) = former.next_timeout() {
            times.extend(former.due(at).map(|_| at));
        }
        assert_eq!(times[..4], [300, 900, 2100, 4500]);
        assert!(times.len() < 20 && times.last() < Some(&LIFETIME));
    }

    #[test]
    fn the_latest_few_are_remembered_and_one_that_is_back_brings_the_others() {
        let mut former = Former::default();
        (0..200).for_each(|number| former.lost(id(number), 0));
        assert_eq!(former.list.len(), MAX);
        assert!(former.remove(&id(199)) && !former.remove(&id(199)));
        former.hurry(7);
        let tried: Vec<Option<OverlayId>> = (7..107).map(|now| former.due(now)).collect();
        assert_eq!(tried.iter().flatten().count(), MAX - 1);
        assert!(tried.windows(SPACING as usize).all(|some| some.iter().flatten().count() <= 1));
    }
}
