//! Plumtree: who sends messages on to whom (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", 2007).
//!
//! Messages go to the *eager* neighbours at once; the others get only announcements of them. Who gets a message a second time makes
//! the link lazy (`Prune`), so that the eager links become a tree. Who gets an announcement and not the message asks for
//! it (`Graft`), and makes that link eager: so the tree is repaired, and meanwhile nothing gets lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::history::{Allowance, History, Verdict};
use super::message::{Message, MessageId};
use super::topic::Act;
use super::wire::{MAX_ANNOUNCED, Packet};
use super::{TopicId, TopicsConfig};
use crate::overlay::OverlayId;

/// How long announcements are collected before they are sent.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(50);
/// How long an announced message may take to come by itself: longer than [`ANNOUNCE_AFTER`] and some hops.
const GRAFT_AFTER: Duration = Duration::from_millis(400);
/// How long the next to announce it has to wait until it is asked, if the first does not send it.
const GRAFT_NEXT_AFTER: Duration = Duration::from_millis(200);
/// A lazy link takes the place of an eager one if messages would come over it with so many hops less.
const WORTH_HOPS: u8 = 4;
/// Messages that a neighbour has announced and that have not come. Further announcements of it are ignored.
const MAX_CLAIMS: usize = 256;

/// The broadcast in a topic.
#[derive(Debug)]
pub(super) struct Broadcast {
    me: OverlayId,
    topic: TopicId,
    links: BTreeMap<OverlayId, Link>,
    history: History,
    missing: HashMap<MessageId, Missing>,
    /// When to ask for those that are missing.
    due: BTreeSet<(Instant, MessageId)>,
    announce_at: Option<Instant>,
    pub(super) acts: Vec<Act>,
}

#[derive(Debug)]
struct Link {
    eager: bool,
    /// What is to be announced.
    queue: Vec<(MessageId, u8)>,
    /// In how many of those that are missing it stands.
    claims: usize,
    /// What it may ask for.
    served: Allowance,
}

#[derive(Debug)]
struct Missing {
    due: Instant,
    /// Who has it, and so many hops behind its origin.
    claims: VecDeque<(OverlayId, u8)>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gossiped {
    Delivered,
    Duplicate,
    /// Its origin has used up its budget, or it is a replay.
    Dropped(Verdict),
    /// No honest peer sends it on.
    Forged,
}

impl Broadcast {
    pub(super) fn new(me: OverlayId, topic: TopicId) -> Self {
        let (links, missing, due, acts) = Default::default();
        Self { me, topic, links, history: History::new(), missing, due, announce_at: None, acts }
    }

    /// There is a new neighbour. It is told of what is kept: it may have missed that, or we were alone when we sent it.
    pub(super) fn up(&mut self, peer: OverlayId, config: &TopicsConfig, now: Instant) {
        // There must be room for more until it is told.
        let queue = self.history.kept(MAX_ANNOUNCED / 2);
        if !queue.is_empty() {
            self.announce_at.get_or_insert(now + ANNOUNCE_AFTER);
        }
        self.links.insert(peer, Link { eager: true, queue, claims: 0, served: Allowance::new(config.peer_rate) });
    }

    pub(super) fn down(&mut self, peer: &OverlayId) {
        self.links.remove(peer);
        for missing in self.missing.values_mut() {
            missing.claims.retain(|(claimed_by, _)| claimed_by != peer);
        }
    }

    /// Sends a message of ours to all.
    pub(super) fn broadcast(&mut self, number: u64, message: Bytes, config: &TopicsConfig, now: Instant) {
        let id = MessageId::of(&self.topic, &message);
        self.history.add(id, (self.me, number, 0), Some(message.clone()), config, now);
        self.pass_on(id, 0, message, None, now);
    }

    /// Takes a message from anybody. Only neighbours are told what to do with their links.
    pub(super) fn gossip(
        &mut self,
        from: OverlayId,
        hops: u8,
        bytes: Bytes,
        config: &TopicsConfig,
        now: Instant,
    ) -> Gossiped {
        let id = MessageId::of(&self.topic, &bytes);
        if self.history.has_seen(&id) {
            self.prune_link(from);
            return Gossiped::Duplicate;
        }
        let Some(message) = Message::open(&self.topic, bytes.clone()) else { return Gossiped::Forged };
        let claims = self.found(&id);
        let verdict = self.history.judge(&message, bytes.len(), config, now);
        let hops = hops.saturating_add(1);
        let fresh = verdict == Verdict::Fresh && message.origin != self.me;
        self.history.add(id, (message.origin, message.number, hops), fresh.then(|| bytes.clone()), config, now);
        if !fresh {
            return Gossiped::Dropped(verdict);
        }
        self.acts.push(Act::Deliver { origin: message.origin, body: message.body });
        if let Some(link) = self.links.get_mut(&from) {
            link.eager = true;
        }
        self.pass_on(id, hops, bytes, Some(from), now);
        self.optimise(from, hops, &claims);
        Gossiped::Delivered
    }

    /// A neighbour has these messages.
    pub(super) fn announced(&mut self, from: OverlayId, messages: Vec<(MessageId, u8)>, now: Instant) {
        let Some(link) = self.links.get_mut(&from) else { return };
        for (id, hops) in messages {
            if link.claims >= MAX_CLAIMS {
                return;
            }
            if self.history.has_seen(&id) {
                continue;
            }
            let missing = self.missing.entry(id).or_insert_with(|| {
                let due = now + GRAFT_AFTER;
                self.due.insert((due, id));
                Missing { due, claims: VecDeque::new() }
            });
            if missing.claims.iter().all(|(peer, _)| *peer != from) {
                missing.claims.push_back((from, hops));
                link.claims += 1;
            }
        }
    }

    /// A neighbour wants messages from us, and perhaps one at once.
    pub(super) fn graft(&mut self, from: OverlayId, message: Option<MessageId>, now: Instant) {
        let Some(link) = self.links.get_mut(&from) else { return };
        link.eager = true;
        let Some((message, hops)) = message.and_then(|id| self.history.message(&id)) else { return };
        if link.served.take(message.len(), now) {
            self.acts.push(Act::Send(from, Packet::Gossip { hops, message }));
        }
    }

    /// A neighbour wants announcements only.
    pub(super) fn prune(&mut self, from: &OverlayId) {
        if let Some(link) = self.links.get_mut(from) {
            link.eager = false;
        }
    }

    pub(super) fn handle_timeout(&mut self, config: &TopicsConfig, now: Instant) {
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            for (peer, link) in &mut self.links {
                announce(&mut self.acts, *peer, link);
            }
        }
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            self.ask(id, now);
        }
        self.history.forget(config, now);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.due.first().map(|(due, _)| *due);
        self.announce_at.into_iter().chain(due).min()
    }

    /// Asks who was the first to announce it, and forgets it if there is nobody left.
    fn ask(&mut self, id: MessageId, now: Instant) {
        let Some(missing) = self.missing.get_mut(&id) else { return };
        let Some((peer, _)) = missing.claims.pop_front() else {
            self.missing.remove(&id);
            return;
        };
        missing.due = now + GRAFT_NEXT_AFTER;
        self.due.insert((missing.due, id));
        if let Some(link) = self.links.get_mut(&peer) {
            link.claims -= 1;
            link.eager = true;
            self.acts.push(Act::Send(peer, Packet::Graft(Some(id))));
        }
    }

    /// It is not missing any more. Returns who has announced it.
    fn found(&mut self, id: &MessageId) -> VecDeque<(OverlayId, u8)> {
        let Some(missing) = self.missing.remove(id) else { return VecDeque::new() };
        self.due.remove(&(missing.due, *id));
        for (peer, _) in &missing.claims {
            if let Some(link) = self.links.get_mut(peer) {
                link.claims -= 1;
            }
        }
        missing.claims
    }

    fn pass_on(&mut self, id: MessageId, hops: u8, message: Bytes, from: Option<OverlayId>, now: Instant) {
        for (peer, link) in &mut self.links {
            if Some(*peer) == from {
                continue;
            }
            if link.eager {
                self.acts.push(Act::Send(*peer, Packet::Gossip { hops, message: message.clone() }));
                continue;
            }
            link.queue.push((id, hops));
            if link.queue.len() >= MAX_ANNOUNCED {
                announce(&mut self.acts, *peer, link);
            }
            self.announce_at.get_or_insert(now + ANNOUNCE_AFTER);
        }
    }

    /// Makes the way shorter: if somebody had the message with many hops less, its link takes the place of the one that it came over.
    fn optimise(&mut self, from: OverlayId, hops: u8, claims: &VecDeque<(OverlayId, u8)>) {
        let Some((peer, fewer)) = claims.iter().min_by_key(|(_, hops)| *hops).copied() else { return };
        if peer == from || fewer.saturating_add(1).saturating_add(WORTH_HOPS) > hops {
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        if !link.eager {
            link.eager = true;
            self.acts.push(Act::Send(peer, Packet::Graft(None)));
        }
        self.prune_link(from);
    }

    fn prune_link(&mut self, peer: OverlayId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.eager = false;
            self.acts.push(Act::Send(peer, Packet::Prune));
        }
    }
}

fn announce(acts: &mut Vec<Act>, peer: OverlayId, link: &mut Link) {
    if !link.queue.is_empty() {
        acts.push(Act::Send(peer, Packet::IHave(std::mem::take(&mut link.queue))));
    }
}
