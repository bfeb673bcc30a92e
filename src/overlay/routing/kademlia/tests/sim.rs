//! Many tables in virtual time. Messages and links take a while; a link is made if the other side admits it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::super::*;

const LATENCY: Duration = Duration::from_millis(50);
const DIAL: Duration = Duration::from_millis(200);
/// How long a newcomer may stay with its first peer, if that has no use for it.
const WELCOME: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Timer,
    Message(usize, Bytes),
    Dial(OverlayId),
    Leave(usize),
}

pub(super) struct Sim {
    pub(super) tables: Vec<Option<Kademlia>>,
    names: Vec<OverlayId>,
    ids: HashMap<OverlayId, usize>,
    links: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize, Event)>>,
    timers: Vec<Option<Instant>>,
    events: u64,
    pub(super) now: Instant,
    pub(super) messages: u64,
    pub(super) message_bytes: u64,
    pub(super) dials: u64,
    pub(super) refused: u64,
    pub(super) released: u64,
    rng: SmallRng,
    config: KademliaConfig,
}

impl Sim {
    pub(super) fn new(config: KademliaConfig, seed: u64) -> Self {
        Self {
            tables: Vec::new(),
            names: Vec::new(),
            ids: HashMap::new(),
            links: BTreeSet::new(),
            queue: BinaryHeap::new(),
            timers: Vec::new(),
            events: 0,
            now: Instant::now(),
            messages: 0,
            message_bytes: 0,
            dials: 0,
            refused: 0,
            released: 0,
            rng: SmallRng::seed_from_u64(seed),
            config,
        }
    }

    /// A new peer, with a link to the first.
    pub(super) fn join(&mut self) {
        let id = OverlayId::from_bytes(self.rng.random());
        let peer = self.tables.len();
        self.tables.push(Some(Kademlia::new(id, self.config.clone(), self.rng.random(), self.now)));
        self.timers.push(None);
        self.names.push(id);
        self.ids.insert(id, peer);
        if peer > 0 {
            self.link(peer, 0);
            self.schedule(WELCOME, peer, Event::Leave(0));
        }
        self.settle(peer);
    }

    /// These vanish, and their neighbours notice.
    pub(super) fn vanish(&mut self, peers: &[usize]) {
        for peer in peers {
            self.tables[*peer] = None;
        }
        for (a, b) in self.links.clone() {
            if self.tables[a].is_none() || self.tables[b].is_none() {
                self.unlink(a, b);
            }
        }
    }

    /// The even and the odd peers lose each other.
    pub(super) fn divide(&mut self) {
        for (a, b) in self.links.clone() {
            if a % 2 != b % 2 {
                self.unlink(a, b);
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, _, _, _))) = self.queue.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, peer, event))) = self.queue.pop() else { break };
            self.now = at;
            if self.tables[peer].is_some() {
                self.handle(peer, event);
            }
        }
        self.now = end;
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.tables.len()).filter(|peer| self.tables[*peer].is_some()).collect()
    }

    /// The way of a message, without its source. Fails if a hop is not closer than the one before.
    pub(super) fn way(&self, from: usize, target: &OverlayId) -> Vec<usize> {
        let mut way = vec![from];
        while let Some(next) = self.tables[way[way.len() - 1]].as_ref().unwrap().next_hop(target, &|_| false) {
            assert!(target.xor(&next) < target.xor(&self.id(way[way.len() - 1])));
            way.push(self.ids[&next]);
        }
        way.split_off(1)
    }

    pub(super) fn id(&self, peer: usize) -> OverlayId {
        self.names[peer]
    }

    pub(super) fn closest(&self, target: &OverlayId) -> usize {
        self.alive().into_iter().min_by_key(|peer| target.xor(&self.id(*peer))).unwrap()
    }

    fn handle(&mut self, peer: usize, event: Event) {
        let now = self.now;
        match event {
            Event::Timer => {
                if self.timers[peer].take_if(|at| *at <= now).is_none() {
                    return;
                }
                self.table(peer).handle_timeout(now);
            }
            Event::Message(from, message) => {
                let from = Sender::Neighbour(self.names[from]);
                self.table(peer).receive(from, &message, now);
            }
            Event::Dial(id) => {
                let (own, other) = (self.id(peer), self.ids[&id]);
                // What makes a link is relayed, so there must be a way.
                let is_reached = self.leads_to(peer, other);
                let table = self.tables[other].as_ref().filter(|_| is_reached);
                let admission = table.map_or(Admission::No, |table| table.admits(&own));
                if admission == Admission::No {
                    self.refused += u64::from(self.tables[other].is_some());
                    self.table(peer).unreachable(&id, now);
                } else {
                    self.link(peer, other);
                }
            }
            Event::Leave(first) => {
                let own = self.id(peer);
                if self.tables[first].as_ref().is_none_or(|table| !table.links.fits(&own)) {
                    self.unlink(peer, first);
                }
            }
        }
        self.settle(peer);
    }

    fn table(&mut self, peer: usize) -> &mut Kademlia {
        self.tables[peer].as_mut().unwrap()
    }

    fn schedule(&mut self, after: Duration, peer: usize, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((self.now + after, self.events, peer, event)));
    }

    /// Whether one can reach the other: over the links that there are, however far, unless they are of two parts.
    fn leads_to(&self, a: usize, b: usize) -> bool {
        a % 2 == b % 2 || self.links.iter().any(|(a, b)| a % 2 != b % 2)
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        if self.links.insert((a.min(b), a.max(b))) {
            let (now, id_a, id_b) = (self.now, self.id(a), self.id(b));
            self.table(a).up(id_b, true, now);
            self.table(b).up(id_a, true, now);
            self.settle(a);
            self.settle(b);
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            for (peer, other) in [(a, self.names[b]), (b, self.names[a])] {
                if let Some(table) = &mut self.tables[peer] {
                    table.down(&other, self.now);
                    self.settle(peer);
                }
            }
        }
    }

    /// Does what a table wants, and wakes it in time.
    fn settle(&mut self, peer: usize) {
        while let Some(action) = self.table(peer).poll_action() {
            match action {
                Action::Connect(id) => {
                    self.dials += 1;
                    self.schedule(DIAL, peer, Event::Dial(id));
                }
                Action::Release(id) => {
                    self.released += 1;
                    self.unlink(peer, self.ids[&id]);
                }
                Action::Tell { to, message } => {
                    self.messages += 1;
                    self.message_bytes += message.len() as u64;
                    self.schedule(LATENCY, self.ids[&to], Event::Message(peer, message));
                }
                Action::Trail { .. } => {}
                Action::Route { .. } => panic!("it routes nothing"),
            }
        }
        let Some(at) = self.table(peer).next_timeout() else { return };
        if self.timers[peer].is_none_or(|timer| at < timer) {
            self.timers[peer] = Some(at);
            self.schedule(at.saturating_duration_since(self.now), peer, Event::Timer);
        }
    }
}
