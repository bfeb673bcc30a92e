//! Who is responsible for an id: questions that are routed to it, and what is done with the answers.
//!
//! Answers only name candidates. A link proves who somebody is.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::wire::{MAX_IDS, Message, Status};
use super::{Action, Chord, PREDECESSORS};
use crate::overlay::OverlayId;
use crate::overlay::routing::Routing;

/// Questions of ours that may be open. Further ones are not asked.
const MAX_LOOKUPS: usize = 64;
/// A question is given up after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The largest distance: one step against the clock.
const LAST: OverlayId = OverlayId::from_bytes([0xff; OverlayId::BYTES]);
const ZERO: OverlayId = OverlayId::from_bytes([0; OverlayId::BYTES]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Who is next to us, in the ring of this neighbour.
    Place(Option<OverlayId>),
    /// The finger of this row.
    Row(u32),
    /// A way to this id.
    Way(OverlayId),
}

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct Lookup {
    purpose: Purpose,
    pub(super) expires: Instant,
}

impl Chord {
    /// Asks through `peer` who is responsible for the id before ours, that is, who is our successor in its ring. In our own ring
    /// the question comes back.
    pub(super) fn find_place(&mut self, peer: OverlayId, now: Instant) {
        let purpose = Purpose::Place(Some(peer));
        match self.note(purpose, now) {
            Some(request) => {
                let target = self.id.at(&ZERO.clockwise(&LAST));
                self.tell(peer, &Message::Find { request, target, asker: self.id });
            }
            None => self.close(purpose),
        }
    }

    pub(super) fn look_up(&mut self, purpose: Purpose, target: OverlayId, now: Instant) {
        if self.is_responsible(&target) {
            return;
        }
        if let Some(request) = self.note(purpose, now) {
            let message = Message::Find { request, target, asker: self.id }.encode();
            self.actions.push_back(Action::Route { to: target, message });
        }
    }

    /// Whether the successors reach beyond the start of the row, so that it needs no lookup.
    pub(super) fn is_covered(&self, row: u32) -> bool {
        let successors = self.successors();
        let full = successors.len() == self.config.successors;
        successors.last().is_some_and(|last| full && self.start(row).is_between(&self.id, last))
    }

    pub(super) fn look_up_row(&mut self, row: u32, now: Instant) {
        if !self.is_covered(row) {
            self.look_up(Purpose::Row(row), self.start(row), now);
        }
    }

    pub(super) fn give_up_lookups(&mut self, now: Instant) {
        let old = self.lookups.iter().filter(|(_, lookup)| lookup.expires <= now).map(|(request, _)| *request);
        for request in old.collect::<Vec<_>>() {
            if let Some(lookup) = self.lookups.remove(&request) {
                self.close(lookup.purpose);
            }
        }
    }

    /// A lookup is over. If it was for our place in the ring of a neighbour, messages may come through us from there.
    fn close(&mut self, purpose: Purpose) {
        let Purpose::Place(Some(peer)) = purpose else { return };
        if let Some(link) = self.links.get_mut(&peer)
            && std::mem::take(&mut link.foreign)
            && self.settled
        {
            let status = Status { settled: true, need: link.needed };
            self.tell(peer, &Message::Status(status));
        }
    }

    fn note(&mut self, purpose: Purpose, now: Instant) -> Option<u64> {
        if self.lookups.len() >= MAX_LOOKUPS {
            return None;
        }
        let request = self.rng.random();
        self.lookups.insert(request, Lookup { purpose, expires: now + ANSWER_WITHIN });
        Some(request)
    }

    /// Us and those near us, for somebody else.
    fn surroundings(&self, asker: &OverlayId) -> Vec<OverlayId> {
        let near = self.links.predecessors().take(PREDECESSORS).chain(self.links.successors());
        let near = near.take(PREDECESSORS + self.config.successors).filter(|id| id != asker);
        std::iter::once(self.id).chain(near).take(MAX_IDS).collect()
    }

    /// A neighbour asks, which is perhaps no part of the ring yet: others could not answer it.
    pub(super) fn find_for(&mut self, request: u64, target: OverlayId, asker: OverlayId) -> bool {
        match self.next_hop(&target, &|_| false) {
            Some(hop) if hop != asker => {
                let message = Message::Find { request, target, asker }.encode();
                self.actions.push_back(Action::Route { to: target, message });
            }
            _ => self.tell(asker, &Message::Found { request, asker, peers: self.surroundings(&asker) }),
        }
        true
    }

    /// Answers a routed question, to the one who routed it.
    pub(super) fn answer(&mut self, from: OverlayId, request: u64, asker: OverlayId) -> bool {
        if asker == self.id {
            // Nobody is nearer than we are.
            let lookup = self.lookups.remove(&request);
            return lookup.map(|lookup| self.close(lookup.purpose)).is_some();
        }
        let message = Message::Found { request, asker, peers: self.surroundings(&asker) };
        if self.links.get(&asker).is_some() {
            self.tell(asker, &message);
        } else {
            self.actions.push_back(Action::Route { to: from, message: message.encode() });
        }
        true
    }

    pub(super) fn take_found(&mut self, request: u64, asker: OverlayId, peers: &[OverlayId], now: Instant) -> bool {
        if asker != self.id {
            let waits = self.links.get(&asker).is_some_and(|link| link.verified);
            if waits {
                self.tell(asker, &Message::Found { request, asker, peers: peers.to_vec() });
            }
            return waits;
        }
        let Some(lookup) = self.lookups.remove(&request) else { return false };
        match lookup.purpose {
            Purpose::Place(_) => {}
            Purpose::Row(row) => self.consider(self.start(row), Some(row), peers, now),
            Purpose::Way(target) => self.consider(target, None, peers, now),
        }
        self.consider_near(peers.to_vec(), None, now);
        self.close(lookup.purpose);
        true
    }

    /// Wishes for a link to the first of these peers at or behind `start` that can be reached, unless a neighbour is better.
    fn consider(&mut self, start: OverlayId, row: Option<u32>, peers: &[OverlayId], now: Instant) {
        let best = start.clockwise(&self.links.finger(&start));
        let better = peers.iter().filter(|peer| start.clockwise(peer) < best && !self.wishes.has_failed(peer, now));
        if let Some(first) = better.min_by_key(|peer| start.clockwise(peer)).copied() {
            self.wish(first, None, row, now);
        }
    }
}
