//! Who is near on the ring, and which links are needed.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::IteratorRandom;

use super::lookup::Purpose;
use super::wire::{Message, Status};
use super::{Action, Chord, PREDECESSORS};
use crate::overlay::{Distance, OverlayId};

/// Changes that come together are told together, and those that go on once in so long.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(50);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Missing rows to look up in one round.
const ROWS_IN_ROUND: usize = 4;

impl Chord {
    /// One round: asks the successor, looks up what is missing.
    pub(super) fn tick(&mut self, now: Instant) {
        self.give_up_lookups(now);
        self.wishes.expire(now);
        if let Some(peer) = self.former.due(now)
            && self.links.get(&peer).is_none()
        {
            self.actions.push_back(Action::Connect(peer));
        }
        let responding = self.links.successors().find(|id| self.links.get(id).is_some_and(|link| link.responds));
        if let Some(successor) = responding.or_else(|| self.links.successors().next()) {
            self.send_state(successor, true);
            self.fix_fingers(now);
        }
        let busy = self.changed || (!self.settled && self.links.len() > 0) || !self.due.is_empty();
        self.changed = false;
        self.interval = if busy { self.config.interval } else { (self.interval * 2).min(self.config.idle_interval) };
        self.tick_at = now + self.interval.mul_f64(self.rng.random_range(0.75..1.25));
    }

    fn fix_fingers(&mut self, now: Instant) {
        if !self.settled {
            if let Some(peer) = self.links.members().choose(&mut self.rng) {
                self.find_place(peer, now);
            }
            return;
        }
        if std::mem::take(&mut self.seek_successor) {
            self.look_up(Purpose::Place(None), self.id.at(&Distance::power_of_two(0)), now);
        }
        if !self.due.is_empty() {
            for _ in 0..ROWS_IN_ROUND {
                let Some(row) = self.due.pop_last() else { break };
                self.look_up_row(row, now);
            }
            return;
        }
        // All rows in turn, and our own place through a peer far away: two rings in one show themselves there.
        let rows = &self.config.rows;
        let far = rows.iter().copied().filter(|row| !self.is_covered(*row)).collect::<Vec<_>>();
        self.turn = (self.turn + 1) % (far.len() + 1);
        match far.get(self.turn) {
            Some(row) => self.look_up_row(*row, now),
            None => {
                if let Some(peer) = self.links.members().choose(&mut self.rng) {
                    self.find_place(peer, now);
                }
            }
        }
    }

    /// When a link that neither side needs is to be released.
    pub(super) fn next_release(&self) -> Option<Instant> {
        let releases = self.links.iter().filter_map(|(_, link)| link.release_at(self.config.grace));
        releases.min()
    }

    pub(super) fn release_idle(&mut self, now: Instant) {
        for (id, link) in self.links.iter_mut() {
            if link.release_at(self.config.grace).is_some_and(|at| at <= now) {
                (link.released, link.idle_since) = (true, None);
                self.actions.push_back(Action::Release(*id));
            }
        }
    }

    /// Brings all that depends on the links up to date, after each input.
    pub(super) fn refresh(&mut self, now: Instant) {
        if std::mem::take(&mut self.stale) {
            self.read_near(now);
            self.read_needs(now);
            self.thin_out();
        }
        if self.changed || !self.due.is_empty() || self.seek_successor {
            self.interval = self.config.interval;
            self.tick_at = self.tick_at.min(now + self.interval);
        }
    }

    fn read_near(&mut self, now: Instant) {
        let near: Vec<OverlayId> = self.predecessor().into_iter().chain(self.successors()).collect();
        if near != self.near {
            self.near = near;
            self.changed = true;
            let next = self.announced.map(|at| at + ANNOUNCE_INTERVAL);
            self.announce_at.get_or_insert(next.unwrap_or(now).max(now + ANNOUNCE_DELAY));
        }
    }

    /// Tells the neighbours what we need, and that we have our place when we get it.
    fn read_needs(&mut self, now: Instant) {
        let settles = !self.settled && self.has_its_place();
        self.settled = (self.settled || settles) && !self.near.is_empty();
        if settles {
            self.due.extend(&self.config.rows);
        } else if self.near.is_empty() {
            // Nobody can be asked.
            self.due.clear();
            self.seek_successor = false;
        }
        let fingers = self.config.rows.iter().map(|row| self.links.finger(&self.start(*row)));
        let mut needed: Vec<OverlayId> = self.near.iter().copied().chain(fingers).collect();
        needed.sort_unstable();
        let settled = self.settled;
        for (id, link) in self.links.iter_mut().filter(|(_, link)| link.verified) {
            let need = link.member && needed.binary_search(id).is_ok();
            if need && std::mem::take(&mut link.released) {
                self.actions.push_back(Action::Connect(*id));
            }
            if need != link.needed || settles {
                link.needed = need;
                let settled = settled && !link.foreign;
                let message = Message::Status(Status { settled, need }).encode();
                self.actions.push_back(Action::Tell { to: *id, message });
            }
            if need || link.wanted || link.released {
                link.idle_since = None;
            } else {
                link.idle_since.get_or_insert(now);
            }
        }
    }

    /// Whether the successor knows of nobody between it and us, or us and our predecessor, who may still get a link.
    fn has_its_place(&self) -> bool {
        let successor = self.links.successors().next();
        let (Some(successor), Some(predecessor)) = (successor, self.predecessor()) else { return false };
        let between = |id: &OverlayId| id.is_between(&self.id, &successor) || id.is_between(&predecessor, &self.id);
        self.confirmed == Some(successor) && !self.wishes.open().any(|(id, _)| between(id))
    }

    pub(super) fn send_state(&mut self, to: OverlayId, ask: bool) {
        let Some(link) = self.links.get(&to) else { return };
        let message = Message::State {
            status: Status { settled: self.settled && !link.foreign, need: link.needed },
            ask,
            predecessors: self.links.predecessors().take(PREDECESSORS).collect(),
            successors: self.successors(),
        };
        self.tell(to, &message);
    }

    /// Tells those whose own neighbours may be different now: the predecessor, the one before it, and the successor.
    pub(super) fn announce(&mut self, now: Instant) {
        (self.announce_at, self.announced) = (None, Some(now));
        let mut to: Vec<OverlayId> = self.links.predecessors().take(2).collect();
        to.extend(self.links.successors().next());
        to.sort_unstable();
        to.dedup();
        for peer in to {
            self.send_state(peer, false);
        }
    }

    /// `false` if it is not one of those that speak here.
    pub(super) fn take_status(&mut self, from: &OverlayId, status: Status) -> bool {
        let link = self.links.get_mut(from).filter(|link| link.verified);
        let known = link.is_some();
        if let Some(link) = link {
            self.stale |= link.wanted != status.need;
            (link.settled, link.wanted) = (status.settled, status.need);
        }
        known
    }

    pub(super) fn take_state(
        &mut self,
        from: OverlayId,
        ask: bool,
        predecessors: &[OverlayId],
        successors: &[OverlayId],
        now: Instant,
    ) {
        let names: Vec<OverlayId> = predecessors.iter().chain(successors).copied().collect();
        self.lay_trails(from, &names);
        self.consider_near(names, Some(from), now);
        if self.links.successors().next() == Some(from) {
            self.stale |= self.confirmed != Some(from);
            self.confirmed = Some(from);
        }
        if ask {
            self.send_state(from, false);
        }
    }

    /// Wishes for links to those of these peers that are nearer than the neighbours that are near.
    pub(super) fn consider_near(&mut self, mut names: Vec<OverlayId>, by: Option<OverlayId>, now: Instant) {
        let predecessor = self.predecessor().unwrap_or(self.id);
        let successors = self.successors();
        let last = successors.last().filter(|_| successors.len() == self.config.successors).unwrap_or(&self.id);
        let is_behind = |name: &OverlayId| name.is_between(&predecessor, &self.id);
        names.retain(|name| is_behind(name) || name.is_between(&self.id, last));
        names.retain(|name| *name != self.id && self.links.get(name).is_none_or(|link| !link.member));
        names.retain(|name| !self.wishes.is_waiting(name, now));
        names.sort_unstable_by_key(|name| self.id.clockwise(name));
        names.dedup();
        let nearest_behind = names.last().copied().filter(is_behind);
        // What the same peer has named before may still take a place.
        let open: Vec<OverlayId> = self.wishes.open().filter(|(_, other)| *other == by).map(|(id, _)| *id).collect();
        for (at, name) in names.iter().enumerate() {
            let ahead = self.id.clockwise(name);
            let before = open.iter().filter(|id| self.id.clockwise(id) < ahead).count();
            let (rank, _) = self.links.ranks(name);
            if rank + at + before < self.config.successors || nearest_behind == Some(*name) {
                self.wish(*name, by, None, now);
            }
        }
    }

    pub(super) fn wish(&mut self, id: OverlayId, by: Option<OverlayId>, row: Option<u32>, now: Instant) {
        if let Some(link) = self.links.get_mut(&id) {
            // It was for somebody else, and we have use for it now.
            link.member |= link.verified;
            self.stale = true;
        } else if self.wishes.wish(id, by, row, now) {
            self.actions.push_back(Action::Connect(id));
        }
    }
}
