//! The links of a peer, around the ring.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::overlay::{Distance, OverlayId};

/// What is known of a neighbour.
#[derive(Debug)]
pub(super) struct Link {
    /// Its id is proven. Only such peers are in the ring.
    pub(super) verified: bool,
    /// It fits into the table. Others get what is for themselves, nothing more.
    pub(super) member: bool,
    /// By its own word it has its place in the ring.
    pub(super) settled: bool,
    pub(super) responds: bool,
    /// We need the link.
    pub(super) needed: bool,
    /// The other side needs it. So it is taken to be, until it says something else.
    pub(super) wanted: bool,
    /// We have said that we do not need it any more.
    pub(super) released: bool,
    /// It came unasked, so it may be of another ring, in which we do not know our place yet.
    pub(super) foreign: bool,
    pub(super) since: Instant,
    /// Since when neither side needs it.
    pub(super) idle_since: Option<Instant>,
}

impl Link {
    pub(super) fn new(verified: bool, member: bool, now: Instant) -> Self {
        Self {
            verified,
            member,
            settled: false,
            responds: true,
            needed: false,
            wanted: true,
            released: false,
            foreign: false,
            since: now,
            idle_since: None,
        }
    }

    /// When it is to be released, if neither side comes to need it.
    pub(super) fn release_at(&self, grace: Duration) -> Option<Instant> {
        self.idle_since.filter(|_| self.member && !self.released).map(|since| since + grace)
    }

    /// Whether it is in the table only because it wants to be.
    pub(super) fn is_guest(&self) -> bool {
        self.member && !self.needed
    }
}

#[derive(Debug)]
pub(super) struct Links {
    id: OverlayId,
    map: BTreeMap<OverlayId, Link>,
}

impl Links {
    pub(super) fn new(id: OverlayId) -> Self {
        Self { id, map: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, id: &OverlayId) -> Option<&Link> {
        self.map.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &OverlayId) -> Option<&mut Link> {
        self.map.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: OverlayId, link: Link) {
        self.map.insert(id, link);
    }

    pub(super) fn remove(&mut self, id: &OverlayId) -> Option<Link> {
        self.map.remove(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OverlayId, &Link)> {
        self.map.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&OverlayId, &mut Link)> {
        self.map.iter_mut()
    }

    /// Those that fit into the table, in no particular order.
    pub(super) fn members(&self) -> impl Iterator<Item = OverlayId> {
        self.map.iter().filter(|(_, link)| link.member).map(|(id, _)| *id)
    }

    /// Once around the ring clockwise, beginning at `from`.
    pub(super) fn clockwise(&self, from: &OverlayId) -> impl Iterator<Item = (&OverlayId, &Link)> {
        self.map.range(*from..).chain(self.map.range(..*from))
    }

    /// Once around the ring against the clock, beginning before `from`.
    pub(super) fn counterclockwise(&self, from: &OverlayId) -> impl Iterator<Item = (&OverlayId, &Link)> {
        self.map.range(..*from).rev().chain(self.map.range(*from..).rev())
    }

    pub(super) fn successors(&self) -> impl Iterator<Item = OverlayId> {
        self.clockwise(&self.id).filter(|(_, link)| link.member).map(|(id, _)| *id)
    }

    pub(super) fn predecessors(&self) -> impl Iterator<Item = OverlayId> {
        self.counterclockwise(&self.id).filter(|(_, link)| link.member).map(|(id, _)| *id)
    }

    /// The first peer at or behind `start`, which may be this one.
    pub(super) fn finger(&self, start: &OverlayId) -> OverlayId {
        let own = start.clockwise(&self.id);
        let first = self.clockwise(start).find(|(_, link)| link.member).map(|(id, _)| *id);
        first.filter(|id| start.clockwise(id) < own).unwrap_or(self.id)
    }

    /// How many members are nearer than this peer, clockwise and against the clock.
    pub(super) fn ranks(&self, id: &OverlayId) -> (usize, usize) {
        let (ahead, behind) = (self.id.clockwise(id), id.clockwise(&self.id));
        let ahead = self.successors().take_while(|other| self.id.clockwise(other) < ahead).count();
        let behind = self.predecessors().take_while(|other| other.clockwise(&self.id) < behind).count();
        (ahead, behind)
    }

    /// The next hop to `target` among the peers that are `usable` as hops, or the target itself.
    ///
    /// A peer that is before the target goes on to the one nearest to it, on either side, or to its successor if there is none;
    /// one that is behind it goes back. So a message passes the target at most once, and gets nearer with each hop but
    /// that one. The nearer side of the ring decides where a peer is.
    pub(super) fn next_hop(&self, target: &OverlayId, usable: impl Fn(&OverlayId, &Link) -> bool) -> Option<OverlayId> {
        let (before, behind) = (self.id.clockwise(target), target.clockwise(&self.id));
        let after = self.clockwise(target).find(|(id, link)| usable(id, link)).map(|(id, _)| *id)?;
        let after_by = target.clockwise(&after);
        if target == &self.id || after_by > behind {
            return None;
        }
        if behind <= before || after_by == Distance::ZERO {
            return Some(after);
        }
        let closest = self.counterclockwise(target).find(|(id, link)| usable(id, link)).map(|(id, _)| *id)?;
        let closest_by = closest.clockwise(target);
        Some(if closest_by < before && closest_by < after_by { closest } else { after })
    }
}
