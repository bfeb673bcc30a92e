//! HyParView: which members of a topic a peer has as neighbours (Leitão, Pereira and Rodrigues, "HyParView: a Membership Protocol for
//! Reliable Gossip-Based Broadcast", 2007).
//!
//! Each member keeps a small *active* view, of neighbours that have it as theirs, and a larger *passive* view of candidates. Who joins
//! asks one member, which sends the newcomer on walks at random to some others. When a neighbour is gone, a candidate takes its place.
//! Candidates are exchanged by walks as well (`Shuffle`).
//!
//! Other than in the paper:
//!
//! - somebody becomes a neighbour when it has agreed, so an invented id costs one message;
//! - there need be no connection to a neighbour that would fail, so neighbours say from time to time that they are there;
//! - who is to go for a newcomer is first one that has come by itself, and only so many go each second: so who comes in the name of
//!   many does not get between a member and the neighbours that it has chosen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};

use super::TopicsConfig;
use super::topic::Act;
use super::wire::Packet;
use crate::node::Budget;
use crate::overlay::OverlayId;

/// How far a newcomer is sent.
const JOIN_STEPS: u8 = 6;
/// With so many steps left, it becomes a candidate of whoever it is at.
const JOIN_PASSIVE_STEPS: u8 = 3;
/// How far candidates are sent.
const SHUFFLE_STEPS: u8 = 6;
/// Of how many neighbours and candidates a shuffle tells.
const SHUFFLE_ACTIVE: usize = 3;
const SHUFFLE_PASSIVE: usize = 4;
/// The most members that are asked at once by somebody that has no neighbour.
const JOINS: usize = 2;
/// Neighbours that go for newcomers.
const EVICTIONS: Budget = Budget::new(16, 1);
/// Shuffles taken.
const SHUFFLES: Budget = Budget::new(16, 1);
/// How long until others are asked, if not enough have agreed. It doubles up to the time between shuffles.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// One in so many answers of the rendezvous is used to ask somebody who may not refuse. So the parts of a topic that have grown apart
/// find together, though none lacks neighbours.
const BRIDGE_ONE_IN: u32 = 16;

/// The members that a peer knows in a topic.
#[derive(Debug)]
pub(super) struct Membership {
    me: OverlayId,
    active: BTreeMap<OverlayId, Neighbour>,
    passive: Vec<OverlayId>,
    /// Who was asked, and until when it may answer.
    asked: BTreeMap<OverlayId, Instant>,
    shuffle_at: Instant,
    /// Until when an answer to our shuffle is taken.
    shuffled_until: Option<Instant>,
    retry_at: Option<Instant>,
    retry_after: Duration,
    evictions: Budget,
    shuffles: Budget,
    rng: StdRng,
    pub(super) acts: Vec<Act>,
}

#[derive(Debug)]
struct Neighbour {
    /// We had chosen it among the candidates.
    chosen: bool,
    heard: Instant,
    said: Instant,
}

impl Membership {
    pub(super) fn new(me: OverlayId, config: &TopicsConfig, seed: u64, now: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // The first one early, and those of different members at different times.
        let shuffle_at = now + config.shuffle_every.mul_f64(rng.random_range(0.1..1.0));
        let (active, passive, asked, acts) = Default::default();
        Self {
            me,
            active,
            passive,
            asked,
            shuffle_at,
            shuffled_until: None,
            retry_at: None,
            retry_after: RETRY_AFTER,
            evictions: EVICTIONS,
            shuffles: SHUFFLES,
            rng,
            acts,
        }
    }

    pub(super) fn is_neighbour(&self, peer: &OverlayId) -> bool {
        self.active.contains_key(peer)
    }

    pub(super) fn neighbours(&self) -> impl Iterator<Item = &OverlayId> {
        self.active.keys()
    }

    /// Takes ids that are said to be members.
    pub(super) fn candidates(&mut self, peers: &[OverlayId], config: &TopicsConfig, now: Instant) {
        for peer in peers {
            self.add_passive(*peer, config);
        }
        self.refill(config, now);
        let stranger = peers.iter().filter(|peer| self.passive.contains(peer) && !self.asked.contains_key(peer));
        let stranger = stranger.choose(&mut self.rng).copied();
        if let Some(peer) = stranger.filter(|_| self.rng.random_ratio(1, BRIDGE_ONE_IN)) {
            self.ask(peer, Packet::Neighbour { urgent: true }, config, now);
        }
    }

    /// Something came from this peer.
    pub(super) fn heard(&mut self, peer: &OverlayId, now: Instant) {
        if let Some(neighbour) = self.active.get_mut(peer) {
            neighbour.heard = now;
        }
    }

    /// Something is sent to this peer.
    pub(super) fn said(&mut self, peer: &OverlayId, now: Instant) {
        if let Some(neighbour) = self.active.get_mut(peer) {
            neighbour.said = now;
        }
    }

    pub(super) fn joined(&mut self, peer: OverlayId, config: &TopicsConfig, now: Instant) {
        if !self.admit(peer, false, config, now) {
            return;
        }
        self.send(peer, Packet::Accept);
        for other in self.active.keys().filter(|other| **other != peer) {
            self.acts.push(Act::Send(*other, Packet::ForwardJoin { peer, ttl: JOIN_STEPS }));
        }
    }

    pub(super) fn forward_joined(
        &mut self,
        from: OverlayId,
        peer: OverlayId,
        ttl: u8,
        config: &TopicsConfig,
        now: Instant,
    ) {
        if peer == self.me || self.is_neighbour(&peer) {
            return;
        }
        let ttl = ttl.min(JOIN_STEPS);
        let next = self.active.keys().filter(|other| **other != from).choose(&mut self.rng).copied();
        if let (Some(next), 1..) = (next, ttl) {
            if ttl == JOIN_PASSIVE_STEPS {
                self.add_passive(peer, config);
            }
            self.send(next, Packet::ForwardJoin { peer, ttl: ttl - 1 });
        } else if !self.asked.contains_key(&peer) {
            self.ask(peer, Packet::Neighbour { urgent: false }, config, now);
        }
    }

    pub(super) fn neighbour_asked(&mut self, peer: OverlayId, urgent: bool, config: &TopicsConfig, now: Instant) {
        if urgent || self.is_neighbour(&peer) || self.active.len() < config.active_view {
            if self.admit(peer, false, config, now) {
                self.send(peer, Packet::Accept);
            }
        } else {
            self.refuse(peer, false);
        }
    }

    pub(super) fn accepted(&mut self, peer: OverlayId, config: &TopicsConfig, now: Instant) {
        if self.asked.contains_key(&peer) {
            let chosen = self.active.len() < config.active_view;
            self.admit(peer, chosen, config, now);
        } else if !self.is_neighbour(&peer) {
            self.refuse(peer, false);
        }
    }

    pub(super) fn disconnected(
        &mut self,
        peer: OverlayId,
        leaving: bool,
        others: &[OverlayId],
        config: &TopicsConfig,
        now: Instant,
    ) {
        let was_asked = self.asked.remove(&peer).is_some();
        let was_neighbour = self.drop_neighbour(&peer);
        if leaving {
            self.forget(&peer);
        }
        if !was_asked && !was_neighbour {
            return;
        }
        for other in others {
            self.add_passive(*other, config);
        }
        if was_neighbour {
            if !leaving {
                self.add_passive(peer, config);
            }
            self.retry_after = RETRY_AFTER;
            self.refill(config, now);
        } else {
            // Not at once: two that both refuse would go on for ever.
            self.retry_later(now);
        }
    }

    pub(super) fn shuffled(
        &mut self,
        from: OverlayId,
        (origin, ttl): (OverlayId, u8),
        peers: Vec<OverlayId>,
        config: &TopicsConfig,
        now: Instant,
    ) {
        if origin == self.me || peers.len() > SHUFFLE_ACTIVE + SHUFFLE_PASSIVE {
            return;
        }
        let others = self.active.keys().filter(|other| **other != from && **other != origin);
        let next = others.choose(&mut self.rng).copied();
        if let (Some(next), 1.., true) = (next, ttl.min(SHUFFLE_STEPS), self.is_neighbour(&from)) {
            self.send(next, Packet::Shuffle { origin, ttl: ttl.min(SHUFFLE_STEPS) - 1, peers });
        } else if self.shuffles.take(now) {
            let answer = self.sample(peers.len() + 1, &origin);
            self.send(origin, Packet::ShuffleReply { peers: answer });
            for peer in peers.into_iter().chain([origin]) {
                self.add_passive(peer, config);
            }
        }
    }

    pub(super) fn shuffle_answered(&mut self, peers: &[OverlayId], config: &TopicsConfig, now: Instant) {
        if self.shuffled_until.take().is_some_and(|until| now < until) {
            for peer in peers.iter().take(SHUFFLE_ACTIVE + SHUFFLE_PASSIVE + 1) {
                self.add_passive(*peer, config);
            }
            self.refill(config, now);
        }
    }

    /// This peer cannot be reached any more.
    pub(super) fn gone(&mut self, peer: &OverlayId, config: &TopicsConfig, now: Instant) {
        self.forget(peer);
        let was_neighbour = self.drop_neighbour(peer);
        if self.asked.remove(peer).is_some() || was_neighbour {
            self.retry_after = RETRY_AFTER;
            self.refill(config, now);
        }
    }

    /// Says goodbye to all neighbours.
    pub(super) fn leave(&mut self) {
        for peer in self.active.keys().copied().collect::<Vec<_>>() {
            self.refuse(peer, true);
            self.drop_neighbour(&peer);
        }
    }

    /// This neighbour does not behave.
    pub(super) fn expel(&mut self, peer: OverlayId, config: &TopicsConfig, now: Instant) {
        if self.is_neighbour(&peer) {
            self.refuse(peer, true);
            self.drop_neighbour(&peer);
            self.refill(config, now);
        }
    }

    /// Tells that we are not neighbours, and of some others.
    pub(super) fn refuse(&mut self, peer: OverlayId, leaving: bool) {
        let others = self.sample(SHUFFLE_PASSIVE, &peer);
        self.send(peer, Packet::Disconnect { leaving, others });
    }

    pub(super) fn handle_timeout(&mut self, config: &TopicsConfig, now: Instant) {
        let silent = self.active.iter().filter(|(_, neighbour)| neighbour.heard + config.peer_timeout <= now);
        let overdue = self.asked.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| peer);
        let gone: Vec<_> = silent.map(|(peer, _)| peer).chain(overdue).copied().collect();
        for peer in gone {
            self.gone(&peer, config, now);
        }
        for (peer, neighbour) in &self.active {
            if neighbour.said + config.keepalive <= now {
                self.acts.push(Act::Send(*peer, Packet::Alive));
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.refill(config, now);
        }
        if self.shuffle_at <= now {
            self.shuffle_at = now + config.shuffle_every;
            self.shuffle(config, now);
        }
    }

    pub(super) fn next_timeout(&self, config: &TopicsConfig) -> Instant {
        let active = self.active.values();
        let active = active.map(|it| (it.heard + config.peer_timeout).min(it.said + config.keepalive));
        let asked = self.asked.values().copied();
        asked.chain(active).chain(self.retry_at).fold(self.shuffle_at, Instant::min)
    }

    fn shuffle(&mut self, config: &TopicsConfig, now: Instant) {
        let Some(to) = self.active.keys().choose(&mut self.rng).copied() else { return };
        let mut peers = self.active.keys().filter(|peer| **peer != to).copied().sample(&mut self.rng, SHUFFLE_ACTIVE);
        peers.extend(self.passive.sample(&mut self.rng, SHUFFLE_PASSIVE));
        self.shuffled_until = Some(now + config.answer_within * 2);
        self.send(to, Packet::Shuffle { origin: self.me, ttl: SHUFFLE_STEPS, peers });
    }

    /// Asks candidates until enough have agreed.
    fn refill(&mut self, config: &TopicsConfig, now: Instant) {
        let wanted = if self.active.is_empty() { JOINS } else { config.active_view };
        while self.active.len() + self.asked.len() < wanted {
            let candidates = self.passive.iter().filter(|peer| !self.asked.contains_key(peer));
            let Some(peer) = candidates.choose(&mut self.rng).copied() else { break };
            let packet = if self.active.is_empty() { Packet::Join } else { Packet::Neighbour { urgent: false } };
            self.ask(peer, packet, config, now);
        }
        if self.active.len() < config.active_view && self.retry_at.is_none() && !self.passive.is_empty() {
            self.retry_at = Some(now + self.retry_after);
            self.retry_after = (self.retry_after * 2).min(config.shuffle_every);
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.retry_at.get_or_insert(now + self.retry_after);
    }

    fn ask(&mut self, peer: OverlayId, packet: Packet, config: &TopicsConfig, now: Instant) {
        // What others say makes us ask as well: beyond so many at once they are not listened to.
        if self.asked.len() < 2 * config.active_view {
            self.asked.insert(peer, now + config.answer_within);
            self.send(peer, packet);
        }
    }

    /// Makes somebody a neighbour, if there is room or room can be made. Who is refused is told.
    fn admit(&mut self, peer: OverlayId, chosen: bool, config: &TopicsConfig, now: Instant) -> bool {
        self.asked.remove(&peer);
        if peer == self.me {
            return false;
        }
        if self.is_neighbour(&peer) {
            return true;
        }
        if self.active.len() >= config.active_view {
            if !self.evictions.take(now) {
                self.refuse(peer, false);
                return false;
            }
            self.evict(config);
        }
        self.forget(&peer);
        self.active.insert(peer, Neighbour { chosen, heard: now, said: now });
        self.acts.push(Act::Up(peer));
        if self.active.len() >= config.active_view {
            (self.retry_at, self.retry_after) = (None, RETRY_AFTER);
        } else {
            self.refill(config, now);
        }
        true
    }

    fn evict(&mut self, config: &TopicsConfig) {
        let came = self.active.iter().filter(|(_, neighbour)| !neighbour.chosen).map(|(peer, _)| *peer);
        let Some(peer) = came.choose(&mut self.rng).or_else(|| self.active.keys().copied().choose(&mut self.rng))
        else {
            return;
        };
        self.refuse(peer, false);
        self.drop_neighbour(&peer);
        self.add_passive(peer, config);
    }

    fn drop_neighbour(&mut self, peer: &OverlayId) -> bool {
        let dropped = self.active.remove(peer).is_some();
        if dropped {
            self.acts.push(Act::Down(*peer));
        }
        dropped
    }

    fn add_passive(&mut self, peer: OverlayId, config: &TopicsConfig) {
        if peer == self.me || self.is_neighbour(&peer) || self.passive.contains(&peer) {
            return;
        }
        if self.passive.len() >= config.passive_view {
            let out = self.rng.random_range(0..self.passive.len());
            self.passive.swap_remove(out);
        }
        self.passive.push(peer);
    }

    fn forget(&mut self, peer: &OverlayId) {
        self.passive.retain(|other| other != peer);
    }

    /// Some that we know, candidates first.
    fn sample(&mut self, count: usize, except: &OverlayId) -> Vec<OverlayId> {
        let passive = self.passive.iter().filter(|peer| *peer != except).copied();
        let mut some = passive.sample(&mut self.rng, count);
        let active = self.active.keys().filter(|peer| *peer != except).copied();
        some.extend(active.sample(&mut self.rng, count - some.len()));
        some
    }

    fn send(&mut self, to: OverlayId, packet: Packet) {
        self.acts.push(Act::Send(to, packet));
    }
}
