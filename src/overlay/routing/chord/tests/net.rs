//! Many peers in virtual time. Links come up after a while if the other side lets them in, messages take their time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::ideal::Ring;
use super::super::{Action, Admission, Chord, ChordConfig, Routing, Sender};
use crate::overlay::OverlayId;

const HOP_LIMIT: u32 = 32;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Told { from: OverlayId, to: OverlayId, message: Vec<u8> },
    Routed { at: OverlayId, from: OverlayId, to: OverlayId, hops: u32, message: Vec<u8> },
    Connected { from: OverlayId, to: OverlayId },
    Timeout { at: OverlayId },
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) peers: BTreeMap<OverlayId, Chord>,
    pub(super) links: BTreeSet<(OverlayId, OverlayId)>,
    /// Peers on different sides do not reach each other.
    pub(super) side: BTreeMap<OverlayId, u8>,
    pub(super) messages: u64,
    pub(super) routed_hops: u64,
    pub(super) lost: u64,
    timeouts: BTreeMap<OverlayId, Instant>,
    last_told: BTreeMap<(OverlayId, OverlayId), Instant>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    number: u64,
    pub(super) now: Instant,
    pub(super) rng: StdRng,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            links: BTreeSet::new(),
            side: BTreeMap::new(),
            messages: 0,
            routed_hops: 0,
            lost: 0,
            timeouts: BTreeMap::new(),
            last_told: BTreeMap::new(),
            events: BinaryHeap::new(),
            number: 0,
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// So many peers, each of which joins through one that is there already.
    pub(super) fn of(count: usize, config: &ChordConfig, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for _ in 0..count {
            let id = net.random_id();
            let present: Vec<OverlayId> = net.ids();
            net.add(id, config);
            if !present.is_empty() {
                let through = present[net.rng.random_range(0..present.len())];
                net.link(id, through);
            }
            net.run(Duration::from_millis(20));
        }
        net
    }

    pub(super) fn random_id(&mut self) -> OverlayId {
        OverlayId::from_bytes(self.rng.random())
    }

    pub(super) fn ids(&self) -> Vec<OverlayId> {
        self.peers.keys().copied().collect()
    }

    pub(super) fn ring(&self) -> Ring {
        Ring(self.peers.keys().copied().collect())
    }

    pub(super) fn add(&mut self, id: OverlayId, config: &ChordConfig) {
        let seed = self.rng.random();
        self.peers.insert(id, Chord::new(id, config.clone(), seed, self.now));
    }

    pub(super) fn link(&mut self, a: OverlayId, b: OverlayId) {
        if !self.links.insert((a.min(b), a.max(b))) {
            return;
        }
        self.with(a, |peer, now| peer.up(b, true, now));
        self.with(b, |peer, now| peer.up(a, true, now));
    }

    fn unlink(&mut self, a: OverlayId, b: OverlayId) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            self.with(a, |peer, now| peer.down(&b, now));
            self.with(b, |peer, now| peer.down(&a, now));
        }
    }

    /// These peers are gone, and others notice.
    pub(super) fn remove(&mut self, gone: &[OverlayId]) {
        for id in gone {
            self.peers.remove(id);
        }
        self.cut();
    }

    /// Cuts links between sides, and to peers that are gone.
    pub(super) fn cut(&mut self) {
        for (a, b) in self.links.clone() {
            if !self.reaches(&a, &b) {
                self.unlink(a, b);
            }
        }
        // Whoever has lost all links comes in again through somebody, as at first.
        for ring in self.rings() {
            let lone = |id: &&OverlayId| self.peers[*id].neighbours().is_empty();
            let (lone, others): (Vec<OverlayId>, Vec<OverlayId>) = ring.0.iter().partition(lone);
            for id in lone {
                self.link(id, others[id.as_bytes()[0] as usize % others.len()]);
            }
        }
    }

    fn reaches(&self, a: &OverlayId, b: &OverlayId) -> bool {
        self.peers.contains_key(a) && self.peers.contains_key(b) && self.side.get(a) == self.side.get(b)
    }

    pub(super) fn with(&mut self, id: OverlayId, input: impl FnOnce(&mut Chord, Instant)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        input(peer, self.now);
        let mut actions = Vec::new();
        while let Some(action) = peer.poll_action() {
            actions.push(action);
        }
        let timeout = peer.next_timeout();
        if let Some(at) = timeout
            && self.timeouts.get(&id).is_none_or(|known| at < *known || *known < self.now)
        {
            self.timeouts.insert(id, at);
            self.push(at, Event::Timeout { at: id });
        }
        for action in actions {
            self.act(id, action);
        }
    }

    fn act(&mut self, id: OverlayId, action: Action) {
        let soon = self.now + Duration::from_millis(self.rng.random_range(10..50));
        match action {
            Action::Trail { .. } => {}
            Action::Connect(to) => {
                assert_ne!(to, id, "nobody connects to itself");
                self.push(soon + Duration::from_millis(100), Event::Connected { from: id, to });
            }
            Action::Release(to) => self.unlink(id, to),
            Action::Tell { to, message } => {
                self.messages += 1;
                // Links keep the order.
                let last = self.last_told.entry((id, to)).or_insert(soon);
                let soon = soon.max(*last);
                *last = soon;
                self.push(soon, Event::Told { from: id, to, message: message.to_vec() });
            }
            Action::Route { to, message } => self.route(id, id, to, 0, message.to_vec()),
        }
    }

    fn route(&mut self, at: OverlayId, from: OverlayId, to: OverlayId, hops: u32, message: Vec<u8>) {
        let Some(peer) = self.peers.get(&at) else { return };
        match peer.next_hop(&to, &|_| false) {
            None => self.with(at, |peer, now| peer.receive(Sender::Claimed(from), &message, now)),
            Some(_) if hops >= HOP_LIMIT => self.lost += 1,
            Some(next) => {
                let soon = self.now + Duration::from_millis(self.rng.random_range(10..50));
                self.messages += 1;
                self.routed_hops += 1;
                self.push(soon, Event::Routed { at: next, from, to, hops: hops + 1, message });
            }
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, event)));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            match event {
                Event::Told { from, to, message } => {
                    if self.links.contains(&(from.min(to), from.max(to))) {
                        self.with(to, |peer, now| peer.receive(Sender::Neighbour(from), &message, now));
                    }
                }
                Event::Routed { at, from, to, hops, message } => self.route(at, from, to, hops, message),
                Event::Connected { from, to } => {
                    let open = self.links.contains(&(from.min(to), from.max(to)));
                    let reached = self.reaches(&from, &to) && self.peers[&to].admits(&from) != Admission::No;
                    if reached && !open {
                        self.link(from, to);
                    } else if !open {
                        self.with(from, |peer, now| peer.unreachable(&to, now));
                    }
                }
                Event::Timeout { at } => {
                    if self.timeouts.get(&at).is_some_and(|due| *due <= self.now) {
                        self.timeouts.remove(&at);
                        self.with(at, |peer, now| {
                            if peer.next_timeout().is_some_and(|due| due <= now) {
                                peer.handle_timeout(now);
                            }
                        });
                    }
                }
            }
        }
        self.now = end;
    }

    /// Runs until all have the neighbours that they should have, at most so long. Returns how long it took.
    pub(super) fn settle(&mut self, at_most: Duration) -> Duration {
        let start = self.now;
        while !self.is_ring() {
            assert!(self.now < start + at_most, "{}", self.wrong());
            self.run(Duration::from_millis(250));
        }
        self.now - start
    }

    fn is_right(&self, ring: &Ring, id: &OverlayId) -> bool {
        let peer = &self.peers[id];
        let mut next = *id;
        let expected = (1..ring.0.len()).map(|_| {
            next = ring.successor(&next);
            next
        });
        let count = peer.config.successors;
        peer.is_settled()
            && peer.near.iter().all(|near| peer.links.get(near).is_some_and(|link| link.settled))
            && peer.predecessor() == Some(ring.predecessor(id))
            && peer.successors() == expected.take(count).collect::<Vec<_>>()
    }

    /// For each side: a ring with the right successors and predecessors.
    pub(super) fn is_ring(&self) -> bool {
        self.rings().iter().all(|ring| ring.0.iter().all(|id| self.is_right(ring, id)))
    }

    pub(super) fn rings(&self) -> Vec<Ring> {
        let mut rings: BTreeMap<Option<u8>, Ring> = BTreeMap::new();
        for id in self.peers.keys() {
            rings.entry(self.side.get(id).copied()).or_default().0.insert(*id);
        }
        rings.into_values().collect()
    }

    fn wrong(&self) -> String {
        let rings = self.rings();
        let wrong =
            rings.iter().flat_map(|ring| ring.0.iter().filter(|id| !self.is_right(ring, id)).map(move |id| (ring, id)));
        let wrong: Vec<_> = wrong.collect();
        let (ring, id) = wrong[0];
        let peer = &self.peers[id];
        format!(
            "{} of {} peers are not in their place. {id}: settled {}, predecessor {:?} for {}, successors {:?}, first {}",
            wrong.len(),
            self.peers.len(),
            peer.is_settled(),
            peer.predecessor(),
            ring.predecessor(id),
            peer.successors(),
            ring.successor(id)
        )
    }

    /// Where a message to this id ends, and how many hops that takes, at this moment.
    pub(super) fn walk(&self, from: OverlayId, to: &OverlayId) -> (OverlayId, u32) {
        let (mut at, mut hops) = (from, 0);
        while let Some(next) = self.peers[&at].next_hop(to, &|_| false) {
            (at, hops) = (next, hops + 1);
            assert!(hops <= HOP_LIMIT, "a message to {to} goes in a circle at {at}");
        }
        (at, hops)
    }

    /// Random lookups, each of which is to end where it should. Returns the mean number of hops, and the most.
    pub(super) fn look_up(&mut self, count: usize) -> (f64, u32) {
        let (ids, ring) = (self.ids(), self.ring());
        let (mut sum, mut most) = (0, 0);
        for at in 0..count {
            let from = ids[self.rng.random_range(0..ids.len())];
            // Half of them to peers, half to any id.
            let to = if at % 2 == 0 { ids[self.rng.random_range(0..ids.len())] } else { self.random_id() };
            let (end, hops) = self.walk(from, &to);
            assert_eq!(end, ring.responsible(&to), "from {from} to {to}");
            (sum, most) = (sum + hops, most.max(hops));
        }
        (f64::from(sum) / count as f64, most)
    }

    /// Links of a peer: on average, and the most.
    pub(super) fn degree(&self) -> (f64, usize) {
        let most = self.peers.values().map(|peer| peer.neighbours().len()).max().unwrap_or(0);
        (2.0 * self.links.len() as f64 / self.peers.len() as f64, most)
    }
}
