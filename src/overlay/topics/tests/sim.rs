//! Many members in virtual time, on links with delays, from a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::wire::Packet;
use super::super::{Output, TopicId, Topics, TopicsConfig};
use crate::identity::Identity;
use crate::overlay::OverlayId;

pub(super) fn identity(number: usize) -> Identity {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Identity::from_secret(secret)
}

pub(super) fn topics(number: usize, config: &TopicsConfig) -> Topics {
    Topics::new(identity(number), config.clone(), 1_000_000, number as u64)
}

pub(super) struct Peer {
    pub(super) id: OverlayId,
    pub(super) topics: Topics,
    pub(super) alive: bool,
    wakes: Option<Instant>,
    /// How often it got each body.
    pub(super) got: HashMap<Bytes, usize>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Packet { from: usize, to: usize, bytes: Bytes, closest: bool },
    Wake(usize),
}

/// What was sent.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    pub(super) gossip: usize,
    pub(super) announcements: usize,
    pub(super) grafts: usize,
    pub(super) prunes: usize,
    pub(super) others: usize,
}

pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) peers: Vec<Peer>,
    pub(super) sent: Sent,
    pub(super) loss: f64,
    /// Whether peers with even numbers and those with odd ones do not reach each other.
    pub(super) split: bool,
    pub(super) rng: StdRng,
    pub(super) config: TopicsConfig,
    index: BTreeMap<OverlayId, usize>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    order: u64,
    seed: u64,
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            peers: Vec::new(),
            sent: Sent::default(),
            loss: 0.0,
            split: false,
            rng: StdRng::seed_from_u64(seed),
            config: TopicsConfig::default(),
            index: BTreeMap::new(),
            events: BinaryHeap::new(),
            order: 0,
            seed,
        }
    }

    /// So many more peers, in no topic.
    pub(super) fn add(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.peers.len();
            let identity = identity(number);
            let id = OverlayId::of(&identity.peer_id());
            let topics = Topics::new(identity, self.config.clone(), 1_000_000, self.rng.random());
            self.index.insert(id, number);
            self.peers.push(Peer { id, topics, alive: true, wakes: None, got: HashMap::new() });
        }
    }

    pub(super) fn join(&mut self, peer: usize, topic: TopicId) {
        let now = self.now;
        self.peers[peer].topics.join(topic, &[], now).unwrap();
        self.settle(peer);
    }

    pub(super) fn broadcast(&mut self, peer: usize, topic: TopicId, body: &[u8]) {
        let now = self.now;
        self.peers[peer].topics.broadcast(&topic, body, now).unwrap();
        self.settle(peer);
    }

    pub(super) fn with(&mut self, peer: usize, input: impl FnOnce(&mut Topics, Instant)) {
        input(&mut self.peers[peer].topics, self.now);
        self.settle(peer);
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|peer| self.peers[*peer].alive).collect()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.events.peek().filter(|event| event.0.0 <= end) {
            self.now = *at;
            let Some(Reverse((_, _, event))) = self.events.pop() else { break };
            let peer = match event {
                Event::Packet { to, .. } | Event::Wake(to) => to,
            };
            if !self.peers[peer].alive {
                continue;
            }
            match event {
                Event::Packet { from, to, bytes, closest } => {
                    let from = self.peers[from].id;
                    let topics = &mut self.peers[to].topics;
                    if closest {
                        topics.receive_closest(from, bytes, self.now);
                    } else {
                        topics.receive(from, bytes, self.now);
                    }
                }
                Event::Wake(peer) => {
                    self.peers[peer].wakes = None;
                    self.peers[peer].topics.handle_timeout(self.now);
                }
            }
            self.settle(peer);
        }
        self.now = end;
    }

    fn settle(&mut self, peer: usize) {
        while let Some(output) = self.peers[peer].topics.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    self.count(&bytes);
                    if let Some(to) = self.index.get(&to).copied() {
                        self.deliver(peer, to, bytes, false);
                    }
                }
                Output::Route { to, bytes } => {
                    let alive = self.peers.iter().enumerate().filter(|(_, peer)| peer.alive);
                    let there = alive.filter(|(at, _)| !self.split || at % 2 == peer % 2);
                    let closest = there.min_by_key(|(_, peer)| peer.id.xor(&to)).map(|(at, _)| at);
                    self.deliver(peer, closest.unwrap(), bytes, true);
                }
                Output::RouteBeyond { to, bytes } => {
                    let alive = self.peers.iter().enumerate().filter(|(at, other)| other.alive && *at != peer);
                    let there = alive.filter(|(at, _)| !self.split || at % 2 == peer % 2);
                    if let Some((closest, _)) = there.min_by_key(|(_, peer)| peer.id.xor(&to)) {
                        self.deliver(peer, closest, bytes, true);
                    }
                }
                Output::Deliver { body, .. } => *self.peers[peer].got.entry(body).or_default() += 1,
                Output::NeighbourUp { .. } | Output::NeighbourDown { .. } | Output::Disconnect(_) => {}
            }
        }
        let next = self.peers[peer].topics.next_timeout();
        if let Some(at) = next.filter(|at| self.peers[peer].wakes.is_none_or(|wakes| *at < wakes)) {
            self.peers[peer].wakes = Some(at);
            self.push(at.max(self.now), Event::Wake(peer));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Bytes, closest: bool) {
        if self.split && from % 2 != to % 2 {
            return;
        }
        if self.loss > 0.0 && self.rng.random_bool(self.loss) {
            return;
        }
        // Each pair of peers has its own delay, the same in both directions, so nothing is overtaken between two.
        let pair = (from.min(to) * 100_003 + from.max(to)) as u64 ^ self.seed;
        let delay = Duration::from_millis(2 + (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 78);
        self.push(self.now + delay, Event::Packet { from, to, bytes, closest });
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn count(&mut self, bytes: &Bytes) {
        let (_, packet) = Packet::decode(bytes.clone()).unwrap();
        *match packet {
            Packet::Gossip { .. } => &mut self.sent.gossip,
            Packet::IHave(_) => &mut self.sent.announcements,
            Packet::Graft(_) => &mut self.sent.grafts,
            Packet::Prune => &mut self.sent.prunes,
            _ => &mut self.sent.others,
        } += 1;
    }
}
