//! Peers, the links between them, and virtual time.
//!
//! Each peer has the same [`Router`] as in a program. Links are reliable and keep the order; what is sent arrives after the
//! latency of the two peers, which is random and always the same for them. Whoever ends a link tells the other side. That a
//! peer has vanished is noticed after [`Settings::detect`].

mod connect;
mod harm;
mod sends;
mod settings;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pmesh::overlay::OverlayId;
use pmesh::overlay::router::{Counters, Output, Router};
use pmesh::overlay::seal::Plain;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::attack::Attacker;
use crate::observe::{self, Traffic};
use crate::queue::{Micros, Queue};
use crate::seal::Sealed;
pub use sends::{Send, Ticket};
pub use settings::{Settings, Table};

/// Names a peer of a [`World`].
pub type Peer = u32;

#[derive(Debug)]
enum Event {
    Packet { to: Peer, from: Peer, generation: u32, packet: Bytes },
    Timer(Peer),
    Up { caller: Peer, called: Peer, held: Micros },
    Down { at: Peer, peer: Peer, generation: u32 },
    Close { at: Peer, peer: Peer, generation: u32 },
    DialOver { at: Peer, attempt: u32 },
    Bootstrap(Peer),
    Attack(Peer),
}

#[derive(Debug)]
struct Link {
    id: OverlayId,
    peer: Peer,
    /// Tells it from an earlier link between the same two.
    generation: u32,
    /// Somebody else needs it until then.
    held: Micros,
}

#[derive(Debug)]
struct Node {
    id: OverlayId,
    /// None once it is gone.
    router: Option<Box<Router>>,
    links: Vec<Link>,
    dials: Vec<connect::Dial>,
    /// When the timer event that counts is due.
    timer: Micros,
    attacker: Option<Box<Attacker>>,
    /// When it left.
    gone: Micros,
}

/// What went wrong in ways that a router should not let happen, and what was to be mended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities {
    /// Packets for a peer to which there is no link.
    pub without_link: u64,
    /// Links wished for that are there.
    pub connected_twice: u64,
    /// A router was due again at once after its timers had been handled.
    pub restless: u64,
    /// Peers without any link, which were helped to a new one as by an onramp.
    pub stranded: u64,
}

/// What became of the links that the tables wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dials {
    /// Wishes.
    pub begun: u64,
    /// Turned down by the other side.
    pub refused: u64,
    /// No answer, or nobody there.
    pub failed: u64,
    /// Links that came to be, those through which peers have joined among them.
    pub made: u64,
    /// Links that a table had no use for any more.
    pub released: u64,
}

/// A simulated network.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    start: Instant,
    now: Micros,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    alive: Vec<Peer>,
    places: HashMap<OverlayId, Peer>,
    generations: u32,
    /// Two halves that cannot reach each other.
    divided: bool,
    sends: sends::Sends,
    /// How many sends have brought the message that is being received.
    arriving: Option<u8>,
    traffic: Traffic,
    oddities: Oddities,
    dials: Dials,
    rng: SmallRng,
}

impl World {
    /// A network without peers.
    pub fn new(settings: Settings) -> Self {
        let rng = SmallRng::seed_from_u64(settings.seed);
        Self {
            settings,
            start: Instant::now(),
            now: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            alive: Vec::new(),
            places: HashMap::new(),
            generations: 0,
            divided: false,
            sends: sends::Sends::default(),
            arriving: None,
            traffic: Traffic::default(),
            oddities: Oddities::default(),
            dials: Dials::default(),
            rng,
        }
    }

    /// Adds a peer with a random id, which joins through a random one that is there.
    pub fn join(&mut self) -> Peer {
        let id = OverlayId::from_bytes(self.rng.random());
        self.join_as(id, None)
    }

    /// Adds a peer with this id, which may be an attacker.
    pub fn join_as(&mut self, id: OverlayId, attacker: Option<Attacker>) -> Peer {
        let attacks = attacker.is_some();
        let peer = self.add(id, attacker);
        self.bootstrap(peer);
        if attacks {
            self.queue.push(self.now, Event::Attack(peer));
        }
        self.drain(peer);
        peer
    }

    /// Adds a peer with a random id and without links.
    pub fn add_apart(&mut self) -> Peer {
        let id = OverlayId::from_bytes(self.rng.random());
        self.add(id, None)
    }

    fn add(&mut self, id: OverlayId, attacker: Option<Attacker>) -> Peer {
        let peer = self.nodes.len() as Peer;
        let (table_seed, router_seed, session) = (self.rng.random(), self.rng.random(), self.rng.random());
        let table = self.settings.table.make(id, table_seed, self.instant());
        let router = match self.settings.authentic {
            false => Router::new(table, Box::new(Plain::new(id, session)), self.settings.router.clone(), router_seed),
            true => Router::new(table, Box::new(Sealed::new(id, session)), self.settings.router.clone(), router_seed),
        };
        self.nodes.push(Node {
            id,
            router: Some(Box::new(router)),
            links: Vec::new(),
            dials: Vec::new(),
            timer: Micros::MAX,
            attacker: attacker.map(Box::new),
            gone: Micros::MAX,
        });
        self.places.insert(id, peer);
        self.alive.push(peer);
        peer
    }

    /// A peer vanishes, without a word.
    pub fn vanish(&mut self, peer: Peer) {
        self.remove(peer, Some(self.settings.detect));
    }

    /// A peer closes all its links.
    pub fn leave(&mut self, peer: Peer) {
        self.remove(peer, None);
    }

    fn remove(&mut self, peer: Peer, detect: Option<Duration>) {
        let node = &mut self.nodes[peer as usize];
        if node.router.take().is_none() {
            return;
        }
        node.dials = Vec::new();
        node.gone = self.now;
        self.places.remove(&node.id);
        self.alive.retain(|other| *other != peer);
        for link in std::mem::take(&mut self.nodes[peer as usize].links) {
            let after = detect.map_or_else(|| self.latency(peer, link.peer), micros);
            self.queue.push(self.now + after, Event::Down { at: link.peer, peer, generation: link.generation });
        }
    }

    /// Cuts all links between two halves, which are noticed to be gone after [`Settings::detect`], or lets them reach each other
    /// again.
    pub fn divide(&mut self, divided: bool) {
        self.divided = divided;
        if !divided {
            return;
        }
        let after = self.now + micros(self.settings.detect);
        for &at in &self.alive {
            for link in self.nodes[at as usize].links.iter().filter(|link| side(link.peer) != side(at)) {
                self.queue.push(after, Event::Down { at, peer: link.peer, generation: link.generation });
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + micros(time);
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Packet { to, from, generation, packet } => self.arrive(to, from, generation, packet),
            Event::Timer(peer) => self.timer(peer),
            Event::Up { caller, called, held } => self.link_up(caller, called, held),
            Event::Down { at, peer, generation } => self.link_down(at, peer, generation),
            Event::Close { at, peer, generation } => self.close(at, peer, generation),
            Event::DialOver { at, attempt } => self.dial_over(at, attempt),
            Event::Bootstrap(peer) => self.bootstrap(peer),
            Event::Attack(peer) => self.attack(peer),
        }
    }

    fn arrive(&mut self, to: Peer, from: Peer, generation: u32, mut packet: Bytes) {
        if self.divided && side(to) != side(from) {
            return;
        }
        let now = self.instant();
        let node = &mut self.nodes[to as usize];
        let Some(link) = node.links.iter().find(|link| link.peer == from && link.generation == generation) else {
            return;
        };
        if let Some(attacker) = &mut node.attacker {
            let Some(kept) = attacker.receive(&node.id, packet) else { return self.attacker_says(to, from) };
            packet = kept;
        }
        let id = link.id;
        if let Some(router) = &mut node.router {
            self.arriving = observe::sends(&packet, self.settings.router.hops);
            router.receive(&id, packet, now);
            self.drain(to);
            self.arriving = None;
        }
        self.attacker_says(to, from);
    }

    fn timer(&mut self, peer: Peer) {
        let now = self.instant();
        let node = &mut self.nodes[peer as usize];
        let Some(router) = &mut node.router else { return };
        if node.timer != self.now {
            return;
        }
        node.timer = Micros::MAX;
        if router.next_timeout().is_some_and(|due| due <= now) {
            router.handle_timeout(now);
            if router.next_timeout().is_some_and(|due| due <= now) {
                self.oddities.restless += 1;
            }
        }
        self.drain(peer);
    }

    /// Does what the router of this peer wants done.
    fn drain(&mut self, peer: Peer) {
        while let Some(output) = self.nodes[peer as usize].router.as_mut().and_then(|router| router.poll_output()) {
            match output {
                Output::Transmit { to, packet } => self.transmit(peer, &to, packet),
                Output::Deliver { from, kind, body, .. } => self.delivered(peer, from, kind, &body),
                Output::Confirmed { send } => self.sends.over(peer, send, true),
                Output::Failed { send, .. } => {
                    self.sends.over(peer, send, false);
                    self.offer_failed(peer, send);
                }
                Output::Connect(id) => self.dial(peer, id),
                Output::Release(id) => self.release(peer, &id),
                Output::Foreign { .. } | Output::NeighbourUp(_) | Output::NeighbourDown(_) => {}
            }
        }
        let (now, start) = (self.now, self.start);
        let node = &mut self.nodes[peer as usize];
        if let Some(due) = node.router.as_ref().and_then(|router| router.next_timeout()) {
            // Rounded up, so that it is due when the event comes.
            let due = micros(due.saturating_duration_since(start) + Duration::from_nanos(999)).max(now + 1);
            if due < node.timer {
                node.timer = due;
                self.queue.push(due, Event::Timer(peer));
            }
        }
    }

    fn transmit(&mut self, from: Peer, to: &OverlayId, packet: Bytes) {
        let node = &mut self.nodes[from as usize];
        let Ok(at) = node.links.binary_search_by(|link| link.id.cmp(to)) else {
            self.oddities.without_link += 1;
            return;
        };
        let (to, generation) = (node.links[at].peer, node.links[at].generation);
        let packet = match &mut node.attacker {
            None => packet,
            Some(attacker) => match attacker.send(packet) {
                Some(packet) => packet,
                None => return,
            },
        };
        self.put(from, to, generation, packet);
    }

    fn put(&mut self, from: Peer, to: Peer, generation: u32, packet: Bytes) {
        self.traffic.count(&packet);
        let at = self.now + self.latency(from, to);
        self.queue.push(at, Event::Packet { to, from, generation, packet });
    }

    /// One way. The same in both directions, and always.
    pub(crate) fn latency(&self, a: Peer, b: Peer) -> Micros {
        let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        let mut random = SmallRng::seed_from_u64(pair ^ self.settings.seed.rotate_left(17));
        random.random_range(self.settings.latency.clone())
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// The peers that are there, in no order.
    pub fn alive(&self) -> &[Peer] {
        &self.alive
    }

    /// One of the honest peers that are there.
    pub fn random_peer(&mut self) -> Option<Peer> {
        for _ in 0..1000 {
            let peer = *self.alive.get(self.rng.random_range(0..self.alive.len().max(1)))?;
            if self.nodes[peer as usize].attacker.is_none() {
                return Some(peer);
            }
        }
        None
    }

    /// Randomness of this run.
    pub fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    /// The id of a peer, also of one that is gone.
    pub fn id(&self, peer: Peer) -> OverlayId {
        self.nodes[peer as usize].id
    }

    /// The peer with this id, if it is there.
    pub fn peer(&self, id: &OverlayId) -> Option<Peer> {
        self.places.get(id).copied()
    }

    /// Whether a peer was there at this time.
    pub fn was_there(&self, peer: Peer, at: Micros) -> bool {
        self.nodes[peer as usize].gone > at
    }

    /// The router of a peer that is there.
    pub fn router(&self, peer: Peer) -> Option<&Router> {
        self.nodes[peer as usize].router.as_deref()
    }

    /// Whether the peer is an attacker.
    pub fn attacks(&self, peer: Peer) -> bool {
        self.nodes[peer as usize].attacker.is_some()
    }

    /// To whom a peer has links, by their ids.
    pub fn links(&self, peer: Peer) -> impl ExactSizeIterator<Item = (OverlayId, Peer)> {
        self.nodes[peer as usize].links.iter().map(|link| (link.id, link.peer))
    }

    /// What was sent by anybody, so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// What should not happen.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// What became of wishes for links.
    pub fn dials(&self) -> Dials {
        self.dials
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.queue.pushed()
    }

    /// The counters of a router, if its peer is there.
    pub fn counters(&self, peer: Peer) -> Option<Counters> {
        self.router(peer).map(Router::counters)
    }
}

/// In which half a peer is.
fn side(peer: Peer) -> bool {
    peer % 2 == 1
}

fn micros(time: Duration) -> Micros {
    time.as_micros() as Micros
}
