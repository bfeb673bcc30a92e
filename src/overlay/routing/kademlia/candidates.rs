//! Peers that were heard of, to which there is no link.

use std::collections::BTreeMap;
use std::ops::Range;

use super::budget::Moment;
use crate::overlay::OverlayId;

/// Candidates that are held at most, and of them in one bucket. At these, one that has failed gives way to a newcomer, or else
/// the latest of the informant who has named the most there, if that are more than the newcomer's informant has.
const MAX: usize = 192;
const MAX_IN_BUCKET: usize = 16;
/// Candidates that one informant may have named, less those of its that were junk.
const SHARE: usize = 40;
/// Tenths of a second after which a candidate is forgotten if nobody names it again: 30 minutes.
const LIFETIME: Moment = 18_000;
/// Tenths of a second before a candidate that was not reached is tried again, doubled each time.
const BACK_OFF: Moment = 300;
/// Attempts that failed after which a candidate is not tried again before it is forgotten.
const ATTEMPTS: u8 = 3;
/// Tenths of a second that an attempt may take. Then it counts as failed.
const ATTEMPT: Moment = 900;

#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) id: OverlayId,
    /// The serial number of the link over which it was named.
    pub(super) informant: u32,
    expires: Moment,
    /// When it may be tried again, or when the attempt is given up.
    retry: Moment,
    pub(super) failures: u8,
    /// The number of the latest link when it could not be reached.
    failed_at: u32,
    pub(super) pending: bool,
}

impl Candidate {
    /// Whether it may be tried now.
    pub(super) fn is_ready(&self, now: Moment) -> bool {
        !self.pending && self.failures < ATTEMPTS && self.retry <= now
    }
}

/// Ordered, the closest first.
#[derive(Debug)]
pub(super) struct Candidates {
    own: OverlayId,
    list: Vec<Candidate>,
}

impl Candidates {
    pub(super) fn new(own: OverlayId) -> Self {
        Self { own, list: Vec::new() }
    }

    /// The closest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// Those in one bucket.
    pub(super) fn bucket(&self, bucket: u32) -> &[Candidate] {
        &self.list[self.range(Some(bucket))]
    }

    /// A peer was named by somebody of whose candidates so many were junk.
    pub(super) fn hear(&mut self, id: OverlayId, informant: u32, junk: u8, now: Moment) {
        let expires = now.saturating_add(LIFETIME);
        let known = self.position(&id);
        if let Ok(at) = known
            && self.list[at].failures == 0
        {
            return self.list[at].expires = expires;
        }
        let named = self.list.iter().filter(|candidate| candidate.informant == informant).count();
        if named >= SHARE.saturating_sub(usize::from(junk)) || id == self.own {
            return;
        }
        let new = Candidate { id, informant, expires, retry: now, failures: 0, failed_at: 0, pending: false };
        let at = match known {
            // That one could not be reached is not forgotten later because it is named again, unless by a newcomer: it may come
            // from where there is a way.
            Ok(at) if self.list[at].pending || informant <= self.list[at].failed_at => return,
            Ok(at) => return self.list[at] = new,
            Err(at) => at,
        };
        let range = self.range(self.own.xor(&id).log2());
        let scope = if range.len() >= MAX_IN_BUCKET {
            range
        } else if self.list.len() >= MAX {
            0..self.list.len()
        } else {
            return self.list.insert(at, new);
        };
        if let Some(old) = gives_way(&self.list[scope.clone()], informant) {
            self.list.remove(scope.start + old);
            self.list.insert(if scope.start + old < at { at - 1 } else { at }, new);
        }
    }

    /// An attempt to reach it begins.
    pub(super) fn try_now(&mut self, id: &OverlayId, now: Moment) {
        if let Ok(at) = self.position(id) {
            let candidate = &mut self.list[at];
            (candidate.pending, candidate.retry) = (true, now.saturating_add(ATTEMPT));
        }
    }

    /// A link was lost: it may be tried again later.
    pub(super) fn lost(&mut self, id: OverlayId, latest: u32, now: Moment) {
        self.hear(id, 0, 0, now);
        if let Ok(at) = self.position(&id) {
            self.list[at].fail(latest, now);
        }
    }

    /// It was not reached, by the time of the link with this number. Returns who named it.
    pub(super) fn fail(&mut self, id: &OverlayId, latest: u32, now: Moment) -> Option<u32> {
        let at = self.position(id).ok()?;
        let candidate = &mut self.list[at];
        candidate.fail(latest, now);
        Some(candidate.informant)
    }

    /// There is a link to it now.
    pub(super) fn remove(&mut self, id: &OverlayId) -> Option<Candidate> {
        let at = self.position(id).ok()?;
        Some(self.list.remove(at))
    }

    /// Forgets the old ones. Returns one whose attempt takes too long.
    pub(super) fn overdue(&mut self, now: Moment) -> Option<OverlayId> {
        self.list.retain(|candidate| candidate.pending || candidate.expires > now);
        if self.list.capacity() > 2 * self.list.len() + MAX_IN_BUCKET {
            self.list.shrink_to_fit();
        }
        self.list.iter().find(|candidate| candidate.pending && candidate.retry <= now).map(|candidate| candidate.id)
    }

    /// When the next attempt takes too long.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.list.iter().filter(|candidate| candidate.pending).map(|candidate| candidate.retry).min()
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Candidate>()
    }

    fn range(&self, bucket: Option<u32>) -> Range<usize> {
        let of = |candidate: &Candidate| self.own.xor(&candidate.id).log2();
        self.list.partition_point(|candidate| of(candidate) < bucket)
            ..self.list.partition_point(|candidate| of(candidate) <= bucket)
    }

    fn position(&self, id: &OverlayId) -> Result<usize, usize> {
        self.list.binary_search_by_key(&self.own.xor(id), |candidate| self.own.xor(&candidate.id))
    }
}

impl Candidate {
    fn fail(&mut self, latest: u32, now: Moment) {
        self.failed_at = latest;
        self.failures = (self.failures + 1).min(ATTEMPTS);
        self.pending = false;
        self.retry = now.saturating_add(BACK_OFF << self.failures);
    }
}

/// Which of these makes room for one of this informant.
fn gives_way(list: &[Candidate], informant: u32) -> Option<usize> {
    let idle = || list.iter().enumerate().filter(|(_, candidate)| !candidate.pending);
    if let Some((at, _)) = idle().filter(|(_, candidate)| candidate.failures > 0).max_by_key(|(_, c)| c.failures) {
        return Some(at);
    }
    let mut named = BTreeMap::<u32, usize>::new();
    list.iter().for_each(|candidate| *named.entry(candidate.informant).or_default() += 1);
    let (most, count) = named.iter().max_by_key(|(_, count)| **count)?;
    if *count <= named.get(&informant).copied().unwrap_or(0) + 1 {
        return None;
    }
    idle().filter(|(_, candidate)| candidate.informant == *most).max_by_key(|(_, c)| c.expires).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id in the bucket with this number.
    fn id(bucket: u32, number: u16) -> OverlayId {
        let mut bytes = [0; 20];
        bytes[(19 - bucket / 8) as usize] = 1 << (bucket % 8);
        bytes[18..].copy_from_slice(&number.to_be_bytes());
        OverlayId::from_bytes(bytes)
    }

    fn candidates() -> Candidates {
        Candidates::new(OverlayId::from_bytes([0; 20]))
    }

    fn named_by(candidates: &Candidates, informant: u32) -> usize {
        candidates.iter().filter(|candidate| candidate.informant == informant).count()
    }

    #[test]
    fn one_informant_does_not_drive_out_others() {
        let mut candidates = candidates();
        (0..5).for_each(|number| candidates.hear(id(150, number), 1 + u32::from(number), 0, 0));
        (100..1000).for_each(|number| candidates.hear(id(150, number), 9, 0, 0));
        assert_eq!(candidates.iter().count(), MAX_IN_BUCKET);
        assert!((1..=5).all(|informant| named_by(&candidates, informant) == 1));
        candidates.hear(id(150, 99), 6, 0, 0);
        assert_eq!((named_by(&candidates, 6), named_by(&candidates, 9)), (1, MAX_IN_BUCKET - 6));
        (0..100).for_each(|number| candidates.hear(id(20 + number, 0), 9, 0, 0));
        assert_eq!(named_by(&candidates, 9), SHARE);
    }

    #[test]
    fn bounded_in_all() {
        let mut candidates = candidates();
        for informant in 1..100 {
            (16..160).for_each(|bucket| candidates.hear(id(bucket, informant), informant.into(), 0, 0));
        }
        assert_eq!(candidates.iter().count(), MAX);
        assert!(candidates.list.is_sorted_by_key(|candidate| candidates.own.xor(&candidate.id)));
    }

    #[test]
    fn junk_costs_its_informant_its_share() {
        let mut candidates = candidates();
        (0..10).for_each(|number| candidates.hear(id(100 + number, 0), 1, SHARE as u8 - 3, 0));
        assert_eq!(named_by(&candidates, 1), 3);
        candidates.hear(id(90, 0), 2, u8::MAX, 0);
        assert_eq!(named_by(&candidates, 2), 0);
    }

    #[test]
    fn what_fails_waits_longer_each_time_and_is_forgotten_in_the_end() {
        let mut candidates = candidates();
        candidates.hear(id(100, 0), 1, 0, 0);
        let mut now = 0;
        for attempt in 1..=ATTEMPTS {
            let candidate = candidates.iter().next().unwrap();
            assert!(candidate.is_ready(now));
            candidates.try_now(&id(100, 0), now);
            assert!(!candidates.iter().next().unwrap().is_ready(now));
            assert_eq!(candidates.next_timeout(), Some(now + ATTEMPT));
            assert_eq!(candidates.overdue(now + ATTEMPT - 1), None);
            assert_eq!(candidates.overdue(now + ATTEMPT), Some(id(100, 0)));
            assert_eq!(candidates.fail(&id(100, 0), 5, now), Some(1));
            let wait = BACK_OFF << attempt;
            assert!(!candidates.iter().next().unwrap().is_ready(now + wait - 1));
            now += wait;
        }
        candidates.hear(id(100, 0), 1, 0, now);
        assert!(!candidates.iter().next().unwrap().is_ready(now), "naming it again does not help");
        candidates.hear(id(100, 0), 5, 0, now);
        assert!(!candidates.iter().next().unwrap().is_ready(now), "nor if another does that was here then");
        assert_eq!((candidates.overdue(LIFETIME), candidates.iter().count()), (None, 0));
    }

    #[test]
    fn what_has_failed_is_tried_again_when_a_newcomer_names_it() {
        let mut candidates = candidates();
        candidates.hear(id(100, 0), 1, 0, 0);
        for _ in 0..ATTEMPTS {
            candidates.fail(&id(100, 0), 5, 0);
        }
        candidates.hear(id(100, 0), 6, u8::MAX, 0);
        assert!(!candidates.iter().next().unwrap().is_ready(0), "it has named too much junk");
        candidates.hear(id(100, 0), 6, 0, 0);
        assert!(candidates.iter().next().unwrap().is_ready(0));
        assert_eq!(candidates.fail(&id(100, 0), 7, 0), Some(6), "and costs the newcomer its share");
        candidates.hear(id(100, 0), 6, 0, 0);
        assert!(!candidates.iter().next().unwrap().is_ready(0));
    }
}
