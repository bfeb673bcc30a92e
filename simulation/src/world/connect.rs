//! Links come and go. Offers and answers travel as messages, as in programs.

use bytes::{BufMut, Bytes, BytesMut};
use pmesh::overlay::OverlayId;
use pmesh::overlay::router::{Kind, SendId};
use pmesh::overlay::routing::Admission;
use pmesh::overlay::seal::Plain;
use rand::RngExt;

use super::{Event, Link, Peer, World, micros, side};
use crate::queue::Micros;

/// About as long as a description with candidates and a proof of identity.
const DESCRIPTION_BYTES: usize = 900;

const OFFER: u8 = 0;
const ANSWER: u8 = 1;
const REFUSAL: u8 = 2;

/// A link that somebody tries to make.
#[derive(Debug)]
pub(super) struct Dial {
    to: OverlayId,
    attempt: u32,
    send: Option<SendId>,
    answered: bool,
}

impl Dial {
    pub(super) fn is_to(&self, id: &OverlayId) -> bool {
        self.to == *id
    }
}

fn signal(kind: u8, attempt: u32) -> Bytes {
    let mut body = BytesMut::zeroed(if kind == REFUSAL { 16 } else { DESCRIPTION_BYTES });
    (&mut body[..]).put_u8(kind);
    (&mut body[1..]).put_u32(attempt);
    body.freeze()
}

impl World {
    /// Links a peer to a random one, as through an onramp.
    pub(super) fn bootstrap(&mut self, peer: Peer) {
        let node = &self.nodes[peer as usize];
        if node.router.is_none() || !node.links.is_empty() {
            return;
        }
        if self.alive.len() < 2 {
            return self.queue.push(self.now + 100_000, Event::Bootstrap(peer));
        }
        let other = self.alive[self.rng.random_range(0..self.alive.len())];
        if other == peer
            || self.is_cut(peer, other)
            || self.nodes[other as usize].links.is_empty() && self.alive.len() > 2
        {
            return self.queue.push(self.now + 100_000, Event::Bootstrap(peer));
        }
        let up = self.now + 2 * self.latency(peer, other);
        let held = up + micros(self.settings.hold);
        self.queue.push(up, Event::Up { caller: peer, called: other, held });
    }

    /// Links two peers, as when an application has found out that there are two networks.
    pub fn introduce(&mut self, caller: Peer, called: Peer) {
        let up = self.now + 2 * self.latency(caller, called);
        let held = up + micros(self.settings.hold);
        self.queue.push(up, Event::Up { caller, called, held });
    }

    fn is_cut(&self, a: Peer, b: Peer) -> bool {
        self.divided && side(a) != side(b)
    }

    pub(super) fn dial(&mut self, peer: Peer, to: OverlayId) {
        let now = self.instant();
        let node = &mut self.nodes[peer as usize];
        if node.links.iter().any(|link| link.id == to) || node.dials.iter().any(|dial| dial.to == to) {
            self.oddities.connected_twice += 1;
            return;
        }
        self.dials.begun += 1;
        let attempt = self.dials.begun as u32;
        let within = self.settings.connect_within;
        let Some(router) = &mut node.router else { return };
        let send = router.send(to, Kind::Signal, signal(OFFER, attempt), Some(within), now).ok();
        node.dials.push(Dial { to, attempt, send, answered: false });
        let over = if send.is_some() { micros(self.settings.connect_within) } else { 1 };
        self.queue.push(self.now + over, Event::DialOver { at: peer, attempt });
    }

    pub(super) fn offer_failed(&mut self, peer: Peer, send: SendId) {
        let dials = &self.nodes[peer as usize].dials;
        if let Some(dial) = dials.iter().find(|dial| dial.send == Some(send)) {
            self.queue.push(self.now, Event::DialOver { at: peer, attempt: dial.attempt });
        }
    }

    pub(super) fn dial_over(&mut self, peer: Peer, attempt: u32) {
        let now = self.instant();
        let node = &mut self.nodes[peer as usize];
        let Some(at) = node.dials.iter().position(|dial| dial.attempt == attempt && !dial.answered) else { return };
        let dial = node.dials.swap_remove(at);
        self.dials.failed += 1;
        if let Some(router) = &mut node.router {
            router.connect_failed(&dial.to, now);
            self.drain(peer);
        }
    }

    /// An offer or an answer to one has come.
    pub(super) fn signalled(&mut self, peer: Peer, from: OverlayId, body: &[u8]) {
        let Some((&[kind, a, b, c, d], _)) = body.split_first_chunk() else { return };
        let attempt = u32::from_be_bytes([a, b, c, d]);
        let dial = self.nodes[peer as usize].dials.iter_mut().find(|dial| dial.to == from && dial.attempt == attempt);
        match (kind, dial) {
            (OFFER, _) => self.offered(peer, from, attempt),
            (ANSWER, Some(dial)) if !dial.answered => {
                dial.answered = true;
                let called = self.places.get(&from).copied();
                let Some(called) = called else { return };
                let up = self.now + 2 * self.latency(peer, called);
                self.queue.push(up, Event::Up { caller: peer, called, held: 0 });
            }
            (REFUSAL, Some(_)) => {
                self.dials.refused += 1;
                self.dial_over(peer, attempt);
            }
            _ => {}
        }
    }

    fn offered(&mut self, peer: Peer, from: OverlayId, attempt: u32) {
        let (now, within) = (self.instant(), self.settings.connect_within);
        let node = &mut self.nodes[peer as usize];
        let Some(router) = &mut node.router else { return };
        // Of two offers that cross, that of the larger id counts.
        let crossed = node.dials.iter().any(|dial| dial.to == from);
        if crossed && node.id > from {
            return;
        }
        let linked = node.links.iter().any(|link| link.id == from);
        let admitted = match &node.attacker {
            Some(_) => true,
            None => router.routing().admits(&from) != Admission::No,
        };
        let answer = if !linked && (crossed || admitted) { ANSWER } else { REFUSAL };
        // What cannot be sent is as good as lost.
        let _ = router.send(from, Kind::Signal, signal(answer, attempt), Some(within), now);
        self.drain(peer);
    }

    pub(super) fn link_up(&mut self, caller: Peer, called: Peer, held: Micros) {
        let now = self.instant();
        let ids = [self.id(caller), self.id(called)];
        let possible = [caller, called].iter().all(|peer| self.nodes[*peer as usize].router.is_some());
        let linked = self.nodes[caller as usize].links.iter().any(|link| link.peer == called);
        if !possible || linked || self.is_cut(caller, called) {
            let node = &mut self.nodes[caller as usize];
            node.dials.retain(|dial| dial.to != ids[1]);
            if !linked && let Some(router) = &mut node.router {
                router.connect_failed(&ids[1], now);
                self.drain(caller);
                self.queue.push(self.now + 1_000_000, Event::Bootstrap(caller));
            }
            return;
        }
        self.dials.made += 1;
        self.generations += 1;
        let generation = self.generations;
        for (at, peer, id) in [(caller, called, ids[1]), (called, caller, ids[0])] {
            let node = &mut self.nodes[at as usize];
            node.dials.retain(|dial| dial.to != id);
            let place = node.links.partition_point(|link| link.id < id);
            node.links.insert(place, Link { id, peer, generation, held });
        }
        for (at, id) in [(caller, ids[1]), (called, ids[0])] {
            if let Some(router) = &mut self.nodes[at as usize].router {
                router.neighbour_up(id, Some(Plain::key_of(&id)), now);
            }
            self.drain(at);
        }
    }

    /// Takes a link out of the list of a peer.
    fn unlink(&mut self, at: Peer, peer: Peer, generation: u32) -> bool {
        let now = self.instant();
        let node = &mut self.nodes[at as usize];
        let Some(place) = node.links.iter().position(|link| link.peer == peer && link.generation == generation) else {
            return false;
        };
        let link = node.links.remove(place);
        if let Some(router) = &mut node.router {
            router.neighbour_down(&link.id, now);
            self.drain(at);
        }
        if self.nodes[at as usize].links.is_empty() {
            self.oddities.stranded += 1;
            self.queue.push(self.now + 1_000_000, Event::Bootstrap(at));
        }
        true
    }

    pub(super) fn link_down(&mut self, at: Peer, peer: Peer, generation: u32) {
        self.unlink(at, peer, generation);
    }

    pub(super) fn release(&mut self, at: Peer, id: &OverlayId) {
        let Some(link) = self.nodes[at as usize].links.iter().find(|link| link.id == *id) else { return };
        let (peer, generation) = (link.peer, link.generation);
        // Not from within the router's own outputs, and not while somebody else needs it.
        self.queue.push(link.held.max(self.now), Event::Close { at, peer, generation });
    }

    pub(super) fn close(&mut self, at: Peer, peer: Peer, generation: u32) {
        if self.unlink(at, peer, generation) {
            self.dials.released += 1;
            let then = self.now + self.latency(at, peer);
            self.queue.push(then, Event::Down { at: peer, peer: at, generation });
        }
    }
}
