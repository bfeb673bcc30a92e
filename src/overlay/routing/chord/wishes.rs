//! Peers without a link: those that are being connected or could not be reached, and those that were here once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::wire::MAX_IDS;
use crate::overlay::OverlayId;

/// Beyond these, nobody is wished for. Names come again with the next stabilisation.
const MAX_WISHES: usize = 256;
/// Peers on the word of one neighbour, those that could not be reached included: who names many that do not exist is
/// heard no more for a while.
const MAX_FROM_ONE: usize = MAX_IDS;
/// An attempt of which nothing was heard any more.
const ATTEMPT: Duration = Duration::from_secs(60);
/// A peer that could not be reached is not tried for so long, doubled each time.
const BACK_OFF: Duration = Duration::from_secs(5);
const MAX_BACK_OFF: Duration = Duration::from_secs(15 * 60);
/// A failure is forgotten so long after the peer might be tried again.
const FORGET_FAILURE: Duration = Duration::from_secs(60);

/// Former neighbours to remember. Who has been tried in vain most often makes room.
const MAX_FORMER: usize = 16;
/// They are forgotten after this.
const FORGET_FORMER: Duration = Duration::from_secs(24 * 60 * 60);

fn back_off(attempts: u32) -> Duration {
    BACK_OFF.saturating_mul(1 << attempts.min(16)).min(MAX_BACK_OFF)
}

#[derive(Debug)]
struct Wish {
    /// The neighbour that named it, or `None` if a lookup did.
    by: Option<OverlayId>,
    /// The row that it is for.
    row: Option<u32>,
    at: Instant,
    attempts: u32,
    failed: bool,
}

impl Wish {
    fn until(&self) -> Instant {
        self.at + if self.failed { back_off(self.attempts) } else { ATTEMPT }
    }
}

#[derive(Debug, Default)]
pub(super) struct Wishes(BTreeMap<OverlayId, Wish>);

impl Wishes {
    /// Whether to try this peer now. If so it is noted that it is tried.
    pub(super) fn wish(&mut self, id: OverlayId, by: Option<OverlayId>, row: Option<u32>, now: Instant) -> bool {
        let attempts = match self.0.get(&id) {
            Some(wish) if now < wish.until() => return false,
            Some(wish) => wish.attempts + 1,
            None if self.0.len() >= MAX_WISHES => return false,
            None => 0,
        };
        let theirs = self.0.iter().filter(|(other, wish)| **other != id && wish.by == by).count();
        if theirs >= MAX_FROM_ONE * if by.is_none() { 2 } else { 1 } {
            return false;
        }
        self.0.insert(id, Wish { by, row, at: now, attempts, failed: false });
        true
    }

    /// Whether an attempt is on its way, or this peer could not be reached lately.
    pub(super) fn is_waiting(&self, id: &OverlayId, now: Instant) -> bool {
        self.0.get(id).is_some_and(|wish| now < wish.until())
    }

    /// Whether it could not be reached lately.
    pub(super) fn has_failed(&self, id: &OverlayId, now: Instant) -> bool {
        self.0.get(id).is_some_and(|wish| wish.failed && now < wish.until())
    }

    /// Peers that may have a link soon.
    pub(super) fn open(&self) -> impl Iterator<Item = (&OverlayId, Option<OverlayId>)> {
        self.0.iter().filter(|(_, wish)| !wish.failed).map(|(id, wish)| (id, wish.by))
    }

    pub(super) fn contains(&self, id: &OverlayId) -> bool {
        self.0.get(id).is_some_and(|wish| !wish.failed)
    }

    /// Whether it was wished for.
    pub(super) fn remove(&mut self, id: &OverlayId) -> bool {
        self.0.remove(id).is_some()
    }

    /// It could not be reached. Returns the row that it was wished for.
    pub(super) fn failed(&mut self, id: &OverlayId, now: Instant) -> Option<u32> {
        let wish = self.0.get_mut(id)?;
        (wish.failed, wish.at) = (true, now);
        wish.row
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, wish| now < wish.until() + if wish.failed { FORGET_FAILURE } else { Duration::ZERO });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
struct Past {
    lost: Instant,
    try_at: Instant,
    attempts: u32,
}

/// Neighbours that were lost. When a network that fell apart is whole again, they are the only way from one ring to
/// the other.
#[derive(Debug, Default)]
pub(super) struct Former(BTreeMap<OverlayId, Past>);

impl Former {
    pub(super) fn lost(&mut self, id: OverlayId, now: Instant) {
        if self.0.len() >= MAX_FORMER {
            let most = self.0.iter().max_by_key(|(_, past)| past.attempts).map(|(id, _)| *id);
            most.and_then(|most| self.0.remove(&most));
        }
        self.0.insert(id, Past { lost: now, try_at: now + BACK_OFF, attempts: 0 });
    }

    /// Whether it was one.
    pub(super) fn remove(&mut self, id: &OverlayId) -> bool {
        self.0.remove(id).is_some()
    }

    /// One of them is back, so the others may be.
    pub(super) fn hurry(&mut self, now: Instant) {
        for past in self.0.values_mut() {
            (past.attempts, past.try_at) = (0, now);
        }
    }

    /// The next one to try, if it is time.
    pub(super) fn due(&mut self, now: Instant) -> Option<OverlayId> {
        self.0.retain(|_, past| now < past.lost + FORGET_FORMER);
        let (id, past) =
            self.0.iter_mut().filter(|(_, past)| past.try_at <= now).min_by_key(|(_, past)| past.try_at)?;
        past.attempts += 1;
        past.try_at = now + back_off(past.attempts);
        Some(*id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
