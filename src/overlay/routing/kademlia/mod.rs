//! Kademlia (Maymounkov and Mazières 2002), with links instead of addresses.
//!
//! - `mod.rs`: the table, and what it does on each input
//! - `wish.rs`: to whom it wants links, and whom it asks
//! - `links.rs`: the links, and the rule by which they fit
//! - `candidates.rs`, `former.rs`: peers that were heard of, and neighbours that were lost
//! - `lookup.rs`: questions, passing them on, and answers
//! - `wire.rs`, `budget.rs`: messages; time, and what is counted by it

mod budget;
mod candidates;
mod config;
mod former;
mod links;
mod lookup;
#[cfg(test)]
mod tests;
mod wire;
mod wish;

use std::collections::VecDeque;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::budget::{Moment, Served, instant, tenths};
use self::candidates::Candidates;
pub use self::config::KademliaConfig;
use self::former::Former;
use self::links::{Link, Links};
use self::lookup::Relays;
use self::wire::Message;
use super::{Action, Admission, Routing, Row, Sender};
use crate::overlay::OverlayId;

/// Links that do not fit and are kept all the same. Further ones are released.
const MAX_GUESTS: usize = 1024;
/// Tenths of a second before the table asks again when it lacks neighbours; doubled each time.
const HURRY: Moment = 20;
/// Tenths of a second for which buckets that have links are not filled up, after an attempt has failed. Doubled by each
/// further one, up to 10 minutes, until one succeeds.
const PAUSE: Moment = 5;
const LONGEST_PAUSE: Moment = 6000;
/// One in so many neighbours lost before all is quiet again: the network may have fallen apart.
const MANY: usize = 4;
/// New links after which it asks again then.
const HOPEFUL: u8 = 64;

/// A routing table after Kademlia: distance is XOR, and neighbours are kept in buckets by the length of the prefix that they
/// share with us.
///
/// **Which neighbours.** The [closest](KademliaConfig::near) peers, and some of each bucket further out. A bucket of which any
/// peer exists has at least one link, so each hop gets strictly closer, and a message ends at the closest peer there is. All
/// peers of the closest bucket are wished for: to each of them we may be the only way into ours.
///
/// **Who is admitted.** Anybody while there is room. Peers that answer are not given up for newcomers of a full bucket. At the
/// [cap](KademliaConfig::cap), the youngest of the fullest bucket gives way to a peer that is near or whose bucket has clearly
/// less. The same rule says whom the table wishes for, so that links do not come and go. One that is not verified may always
/// be replaced by one that is.
///
/// **Who has ids close to ours** is near, whoever it is: with some ids in each of the closest buckets, which takes more hashes than
/// there are peers for each, somebody is all of our closest neighbours, and sees, delays or drops what is sent to us by those who have
/// no link to us. It does not get the places of peers further out, by which we reach others; and copies of what is confirmed
/// come by those of our neighbours that are honest.
///
/// **How others are found.** By asking neighbours who is closest to us, or to a random id in a bucket that lacks links. Each
/// passes the question on to a neighbour that is closer, and the answer comes back the same way; so links to those on the way
/// are not needed. An answer counts if it was asked for, names at most 20 ids, and only makes candidates: who they are is
/// proven by the link.
///
/// **When the network falls apart.** Some former neighbours are tried again, more and more seldom, and a candidate that could not be
/// reached is tried again when a newcomer names it. Who has lost a quarter of its neighbours asks again at each of the next new links.
/// So two parts become one as soon as there is a link between them.
///
/// Candidates are shared out among those who named them, and who names peers that cannot be reached is believed less.
///
/// [`Action::Route`] is never used, and what is not from a neighbour is ignored.
#[derive(Debug)]
pub struct Kademlia {
    id: OverlayId,
    config: KademliaConfig,
    rng: SmallRng,
    start: Instant,
    links: Links,
    candidates: Candidates,
    former: Former,
    /// Links lost since all was quiet. When they are many, there is perhaps another part of the network, and so many new links are
    /// reason to ask again.
    losses: usize,
    hopeful: u8,
    relays: Relays,
    actions: VecDeque<Action>,
    /// Of the latest link. 0 is nobody's.
    serial: u32,
    refresh_at: Moment,
    interval: Moment,
    /// Until when there are no attempts to fill up buckets that have links, and how long the last such pause was.
    pause_until: Moment,
    pause: Moment,
    /// What the router has used of the lookups that it may ask for.
    lookups: Served,
    ignored: u64,
}

impl Kademlia {
    /// An empty table of the peer with this id. The same seed and inputs lead to the same actions.
    pub fn new(id: OverlayId, mut config: KademliaConfig, seed: u64, now: Instant) -> Self {
        (config.near, config.parallel) = (config.near.max(1), config.parallel.max(1));
        let interval = tenths(config.refresh).max(1);
        Self {
            id,
            rng: SmallRng::seed_from_u64(seed),
            start: now,
            links: Links::new(id),
            candidates: Candidates::new(id),
            former: Former::default(),
            losses: 0,
            hopeful: 0,
            relays: Relays::default(),
            actions: VecDeque::new(),
            serial: 0,
            refresh_at: interval,
            interval,
            pause_until: 0,
            pause: 0,
            lookups: Served::default(),
            ignored: 0,
            config,
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        tenths(now.saturating_duration_since(self.start))
    }

    /// Neighbours are missing: ask soon.
    fn hurry(&mut self, now: Moment) {
        self.interval = HURRY.min(self.interval);
        self.refresh_at = self.refresh_at.min(now.saturating_add(self.interval));
    }

    fn failed(&mut self, peer: &OverlayId, now: Moment) {
        self.pause = (self.pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        self.pause_until = now.saturating_add(self.pause);
        let informant = self.candidates.fail(peer, self.serial, now);
        if let Some(link) = informant.and_then(|informant| self.links.by_serial(informant)) {
            link.junk = link.junk.saturating_add(1);
        }
    }

    fn best(&self, links: &[Link], target: &OverlayId, suits: impl Fn(&Link) -> bool) -> Option<OverlayId> {
        let own = self.id.xor(target);
        let closer = links.iter().map(|link| (target.xor(&link.id), link));
        let best =
            closer.filter(|(distance, link)| *distance < own && suits(link)).min_by_key(|(distance, _)| *distance);
        best.map(|(_, link)| link.id)
    }
}

impl Routing for Kademlia {
    fn id(&self) -> OverlayId {
        self.id
    }

    fn admits(&self, peer: &OverlayId) -> Admission {
        self.links.admission(peer, &self.config)
    }

    fn up(&mut self, peer: OverlayId, verified: bool, now: Instant) {
        let now = self.moment(now);
        if let Some(link) = self.links.get_mut(&peer) {
            link.verified |= verified;
            return;
        }
        let candidate = self.candidates.remove(&peer);
        let wished = candidate.as_ref().is_some_and(|candidate| candidate.pending);
        if let Some(informant) = candidate.and_then(|candidate| self.links.by_serial(candidate.informant)) {
            informant.junk = informant.junk.saturating_sub(2);
        }
        if wished {
            self.pause = 0;
        }
        if peer == self.id || self.links.guests().len() >= MAX_GUESTS {
            self.actions.push_back(Action::Release(peer));
            return;
        }
        if self.links.fit().is_empty() {
            self.hurry(now);
        }
        self.serial += 1;
        let displaced = self.links.insert(Link::new(peer, self.serial, verified), &self.config);
        self.actions.extend(displaced.map(Action::Release));
        if self.former.remove(&peer) {
            self.former.hurry(now);
        }
        if self.links.fits(&peer) {
            self.ask_newcomer(peer, now);
            if self.hopeful > 0 {
                self.hopeful -= 1;
                self.hurry(now);
            }
        } else if wished {
            self.actions.push_back(Action::Release(peer));
        }
        self.populate(now);
    }

    fn down(&mut self, peer: &OverlayId, now: Instant) {
        let now = self.moment(now);
        let Some((link, fitted)) = self.links.remove(peer) else { return };
        if link.verified && fitted {
            self.candidates.lost(link.id, self.serial, now);
            self.former.lost(link.id, now);
        }
        if fitted {
            self.losses += 1;
            if self.losses * MANY >= self.links.fit().len() + self.losses {
                self.hopeful = HOPEFUL;
            }
            self.links.promote(&self.config);
            if self.lacks(&link.id) {
                self.hurry(now);
            }
        }
        self.populate(now);
    }

    fn unreachable(&mut self, peer: &OverlayId, now: Instant) {
        let now = self.moment(now);
        if self.candidates.iter().any(|candidate| candidate.pending && candidate.id == *peer) {
            self.failed(peer, now);
            self.populate(now);
        }
    }

    fn responds(&mut self, peer: &OverlayId, responds: bool, _now: Instant) {
        if let Some(link) = self.links.get_mut(peer) {
            link.responds = responds;
        }
    }

    fn next_hop(&self, target: &OverlayId, avoid: &dyn Fn(&OverlayId) -> bool) -> Option<OverlayId> {
        let range = self.links.range(self.links.bucket(target)?);
        let direct = self.links.get(target).filter(|link| !avoid(&link.id));
        if let Some(link) = direct.filter(|link| link.responds) {
            return Some(link.id);
        }
        // All of the target's bucket are closer to it than we are, and than all in the buckets below.
        let (below, bucket) = (&self.links.fit()[..range.start], &self.links.fit()[range]);
        let best = |responds: bool| {
            let suits = |link: &Link| link.responds == responds && !avoid(&link.id);
            self.best(bucket, target, suits).or_else(|| self.best(below, target, suits))
        };
        best(true).or_else(|| direct.map(|link| link.id)).or_else(|| best(false))
    }

    fn is_responsible(&self, target: &OverlayId) -> bool {
        self.next_hop(target, &|_| false).is_none()
    }

    fn look_for(&mut self, target: &OverlayId, now: Instant) {
        let now = self.moment(now);
        if *target != self.id && self.lookups.take(now) {
            self.ask_closest(*target, now);
        }
    }

    fn receive(&mut self, from: Sender, message: &[u8], now: Instant) {
        let now = self.moment(now);
        let done = match (from, Message::decode(message)) {
            (Sender::Neighbour(from), Some(Message::Find { token, hops, target })) => {
                self.asked(from, token, hops, target, now)
            }
            (Sender::Neighbour(from), Some(Message::Found { token, ids })) => self.told(from, token, ids, now),
            (Sender::Claimed(_), _) | (_, None) => None,
        };
        self.ignored += u64::from(done.is_none());
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.moment(now);
        while let Some(peer) = self.candidates.overdue(now) {
            self.failed(&peer, now);
        }
        if self.refresh_at <= now {
            self.refresh(now);
        }
        if let Some(peer) = self.former.due(now)
            && self.links.get(&peer).is_none()
            && self.links.admission(&peer, &self.config) != Admission::No
        {
            self.actions.push_back(Action::Connect(peer));
        }
        self.populate(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let attempt = self.candidates.next_timeout().into_iter().chain(self.former.next_timeout()).min();
        Some(instant(self.start, self.refresh_at.min(attempt.unwrap_or(Moment::MAX))))
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn neighbours(&self) -> Vec<OverlayId> {
        self.links.fit().iter().map(|link| link.id).collect()
    }

    fn table(&self) -> Vec<Row> {
        let row = |link: &Link| {
            let bucket = self.links.bucket(&link.id)?;
            Some(Row { role: format!("bucket {bucket}"), peer: link.id })
        };
        self.links.fit().iter().filter_map(row).collect()
    }

    fn ignored(&self) -> u64 {
        self.ignored
    }

    fn state_bytes(&self) -> usize {
        let actions = self.actions.capacity() * size_of::<Action>();
        size_of::<Self>()
            + self.links.bytes()
            + self.candidates.bytes()
            + self.former.bytes()
            + self.relays.bytes()
            + actions
    }
}
