//! Questions to neighbours, those of others that are passed on, and the answers.

use std::collections::VecDeque;

use rand::RngExt;

use super::budget::Moment;
use super::links::Link;
use super::wire::{MAX_FOUND, Message};
use super::{Action, Kademlia};
use crate::overlay::OverlayId;

/// How often a question is passed on at most. Each time it gets closer, by 3 bits and more on average.
const HOPS: u8 = 16;
/// Questions of others that wait for an answer. Beyond, the oldest gets none.
const MAX_RELAYS: usize = 32;

/// Questions that were passed on.
#[derive(Debug, Default)]
pub(super) struct Relays(VecDeque<Relay>);

#[derive(Debug)]
struct Relay {
    /// Who asked, and with which token.
    asker: (OverlayId, u32),
    /// Who was asked, and with which token.
    asked: (OverlayId, u32),
    /// About which id.
    target: OverlayId,
}

impl Relays {
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Relay>()
    }
}

impl Kademlia {
    /// Asks the neighbour closest to this id about it.
    pub(super) fn ask_closest(&mut self, target: OverlayId, now: Moment) {
        let links = self.links.fit().iter().filter(|link| link.may_be_asked(now));
        if let Some(peer) = links.min_by_key(|link| target.xor(&link.id)).map(|link| link.id) {
            self.ask(peer, target, now);
        }
    }

    pub(super) fn ask(&mut self, peer: OverlayId, target: OverlayId, now: Moment) {
        // The closest to us are asked themselves: what only the very closest knows is not all there is.
        let known = target == self.id && self.links.fit().len() >= self.config.near;
        let hops = if known { 0 } else { HOPS };
        let token = self.rng.random();
        let Some(link) = self.links.get_mut(&peer).filter(|link| link.asked.is_free(now)) else { return };
        link.asked.ask(token, now);
        self.tell(peer, &Message::Find { token, hops, target });
    }

    /// A neighbour asks. None if it asks too often.
    pub(super) fn asked(
        &mut self,
        from: OverlayId,
        token: u32,
        hops: u8,
        target: OverlayId,
        now: Moment,
    ) -> Option<()> {
        if !self.links.get_mut(&from)?.served.take(now) {
            return None;
        }
        // Not to the target itself: it would like to know who else is there.
        let closer = |link: &Link| link.may_be_named() && link.id != from && link.id != target;
        match self.best(self.links.fit(), &target, closer).filter(|_| hops > 0) {
            Some(next) => {
                let ours = self.rng.random();
                if self.relays.0.len() >= MAX_RELAYS {
                    self.relays.0.pop_front();
                }
                self.relays.0.push_back(Relay { asker: (from, token), asked: (next, ours), target });
                self.tell(next, &Message::Find { token: ours, hops: hops.min(HOPS) - 1, target });
            }
            None => {
                let ids = self.closest_known(&target, &from, Vec::new());
                self.tell(from, &Message::Found { token, ids });
            }
        }
        Some(())
    }

    /// Of those that were named and of our neighbours, the closest to an id, but not who asks.
    fn closest_known(&self, target: &OverlayId, asker: &OverlayId, named: Vec<OverlayId>) -> Vec<OverlayId> {
        let fit = self.links.fit().iter().filter(|link| link.may_be_named()).map(|link| link.id);
        let mut ids: Vec<OverlayId> = named.into_iter().chain(fit).filter(|id| id != asker && *id != self.id).collect();
        ids.sort_by_cached_key(|id| target.xor(id));
        ids.dedup();
        ids.truncate(MAX_FOUND);
        ids
    }

    /// A neighbour answers. None if it was not asked.
    pub(super) fn told(&mut self, from: OverlayId, token: u32, ids: Vec<OverlayId>, now: Moment) -> Option<()> {
        let link = self.links.get_mut(&from)?;
        if !link.asked.answer(token) {
            let at = self.relays.0.iter().position(|relay| relay.asked == (from, token))?;
            let Relay { asker: (asker, token), target, .. } = self.relays.0.remove(at)?;
            self.lay_trails(from, &ids);
            if self.links.get(&asker).is_some() {
                // Who answered does not name itself, and knows less than all on the way do.
                let ids = self.closest_known(&target, &asker, ids);
                self.tell(asker, &Message::Found { token, ids });
            }
            return Some(());
        }
        let (informant, junk) = (link.serial, link.junk);
        self.lay_trails(from, &ids);
        for id in ids {
            if self.links.get(&id).is_none() {
                self.candidates.hear(id, informant, junk, now);
            }
        }
        self.populate(now);
        Some(())
    }

    fn lay_trails(&mut self, through: OverlayId, named: &[OverlayId]) {
        self.actions.extend(named.iter().map(|id| Action::Trail { to: *id, through }));
    }

    fn tell(&mut self, to: OverlayId, message: &Message) {
        self.actions.push_back(Action::Tell { to, message: message.encode() });
    }
}

impl Link {
    fn may_be_named(&self) -> bool {
        self.verified && self.responds
    }

    pub(super) fn may_be_asked(&self, now: Moment) -> bool {
        self.may_be_named() && self.asked.is_free(now)
    }
}
