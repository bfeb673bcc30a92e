//! To whom the table wants links, and whom it asks for more.

use std::cmp::Reverse;
use std::ops::Range;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::budget::{Moment, tenths};
use super::candidates::Candidate;
use super::{Action, Admission, Kademlia};
use crate::overlay::OverlayId;

impl Kademlia {
    /// Starts to make links that are wished for, as many as may be at once.
    pub(super) fn populate(&mut self, now: Moment) {
        let pending = self.candidates.iter().filter(|candidate| candidate.pending).count();
        for _ in pending..self.config.parallel {
            let Some(peer) = self.wish(now) else { break };
            self.candidates.try_now(&peer, now);
            self.actions.push_back(Action::Connect(peer));
        }
    }

    /// Whether a peer like this one is missing.
    pub(super) fn lacks(&self, peer: &OverlayId) -> bool {
        let Some(bucket) = self.links.bucket(peer) else { return false };
        self.links.closer(peer) < self.config.near
            || self.far().contains(&bucket) && self.links.count(bucket) < self.aim()
    }

    /// Asks a new neighbour, if something is missing that it may know of.
    pub(super) fn ask_newcomer(&mut self, peer: OverlayId, now: Moment) {
        if self.links.closer(&peer) < self.config.near {
            self.ask(peer, self.id, now);
        } else if let Some(bucket) = self.weakest().filter(|bucket| self.links.count(*bucket) < self.aim()) {
            let target = self.random_id(bucket);
            self.ask(peer, target, now);
        }
    }

    /// Asks a neighbour that is near for peers near us, and another for some of the bucket that needs them most.
    pub(super) fn refresh(&mut self, now: Moment) {
        let slowest = tenths(self.config.refresh).max(1);
        if self.interval >= slowest {
            self.links.fit_mut().iter_mut().for_each(|link| link.junk /= 2);
            self.losses = 0;
        }
        let near = &self.links.fit()[..self.links.fit().len().min(self.config.near)];
        let near: Vec<OverlayId> = near.iter().filter(|link| link.may_be_asked(now)).map(|link| link.id).collect();
        if let Some(peer) = near.choose(&mut self.rng) {
            self.ask(*peer, self.id, now);
        }
        if let Some(bucket) = self.weakest() {
            let target = self.random_id(bucket);
            self.ask_closest(target, now);
        }
        self.interval = self.interval.saturating_mul(2).min(slowest);
        // Peers that came together do not ask together for ever.
        let jitter = self.rng.random_range(0..=self.interval / 4);
        self.refresh_at = now.saturating_add(self.interval - jitter);
    }

    /// The buckets further out than the closest peers, of which there are enough for all wishes. Empty before those are
    /// known.
    pub(super) fn far(&self) -> Range<u32> {
        let last = self.config.near.checked_sub(1).and_then(|last| self.links.fit().get(last));
        let first = last.and_then(|last| self.links.bucket(&last.id)).unwrap_or(OverlayId::BITS);
        first..OverlayId::BITS
    }

    /// How many links each bucket further out should have.
    pub(super) fn aim(&self) -> usize {
        self.config.target.saturating_sub(self.config.near).div_ceil(self.far().len().max(1)).max(1)
    }

    /// One of the buckets further out that have the fewest links.
    fn weakest(&mut self) -> Option<u32> {
        let aim = self.aim();
        let mut rng = self.rng.clone();
        let weakest = self.far().min_by_key(|bucket| (self.links.count(*bucket).min(aim), rng.random::<u32>()));
        self.rng = rng;
        weakest
    }

    /// To whom a link should be made next.
    fn wish(&mut self, now: Moment) -> Option<OverlayId> {
        self.wish_near(now).or_else(|| self.wish_far(now))
    }

    /// The closest, and all of the closest bucket there is: to each peer in it we may be the only one in ours.
    fn wish_near(&self, now: Moment) -> Option<OverlayId> {
        let closest = self.links.fit().first().and_then(|link| self.links.bucket(&link.id));
        let mut pending = 0;
        let mut candidates = self.candidates.iter().take_while(|candidate| {
            pending += usize::from(candidate.pending);
            self.links.closer(&candidate.id) + pending < self.config.near || self.links.bucket(&candidate.id) <= closest
        });
        candidates.find(|candidate| self.may_try(candidate, now)).map(|candidate| candidate.id)
    }

    /// One of the bucket that has the fewest links, if it lacks any: one that was tried the fewest times, then the one that is
    /// furthest from the links there, so that they are spread over the bucket.
    fn wish_far(&mut self, now: Moment) -> Option<OverlayId> {
        let pending = |bucket| self.candidates.bucket(bucket).iter().filter(|candidate| candidate.pending).count();
        let has = |bucket| (self.links.count(bucket) + pending(bucket), Reverse(bucket));
        let aim = self.aim();
        let mut lacking: Vec<_> = self.far().map(has).filter(|(links, _)| *links < aim).collect();
        lacking.sort_unstable();
        let mut rng = self.rng.clone();
        let wish = lacking.into_iter().find_map(|(links, Reverse(bucket))| {
            // Whom a bucket could do without is not tried again and again.
            let vital = links == 0;
            if !vital && now < self.pause_until {
                return None;
            }
            let linked = &self.links.fit()[self.links.range(bucket)];
            let apart = |id: &OverlayId| linked.iter().filter_map(|link| link.id.xor(id).log2()).min();
            (self.candidates.bucket(bucket).iter())
                .filter(|candidate| (vital || candidate.failures == 0) && self.may_try(candidate, now))
                .min_by_key(|candidate| (candidate.failures, Reverse(apart(&candidate.id)), rng.random::<u32>()))
                .map(|candidate| candidate.id)
        });
        self.rng = rng;
        wish
    }

    /// Whether a link to this candidate may be tried now. Those of an informant who has named junk are tried one at a time.
    fn may_try(&self, candidate: &Candidate, now: Moment) -> bool {
        let doubtful = || self.links.junk(candidate.informant) > 0;
        let busy = || self.candidates.iter().any(|other| other.pending && other.informant == candidate.informant);
        candidate.is_ready(now)
            && self.links.admission(&candidate.id, &self.config) != Admission::No
            && !(doubtful() && busy())
    }

    /// A random id in this bucket.
    fn random_id(&mut self, bucket: u32) -> OverlayId {
        let mut bytes = *self.id.as_bytes();
        let at = OverlayId::BYTES - 1 - bucket as usize / 8;
        let bit = 1u8 << (bucket % 8);
        bytes[at] ^= bit | self.rng.random::<u8>() & (bit - 1);
        self.rng.fill(&mut bytes[at + 1..]);
        OverlayId::from_bytes(bytes)
    }
}
