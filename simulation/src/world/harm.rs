//! What attackers do in a world.

use rand::RngExt;

use super::{Event, Peer, World, micros};
use crate::attack::{TICK, Way};

impl World {
    /// An attacker acts by itself.
    pub(super) fn attack(&mut self, at: Peer) {
        let other = self.alive[self.rng.random_range(0..self.alive.len())];
        let other = self.id(other);
        let node = &mut self.nodes[at as usize];
        let Some(attacker) = &mut node.attacker else { return };
        if node.router.is_none() {
            return;
        }
        attacker.tick(other);
        if let Some(victim) = attacker.wants() {
            let there =
                node.links.iter().any(|link| link.id == victim) || node.dials.iter().any(|dial| dial.is_to(&victim));
            if !there && !node.links.is_empty() {
                self.dial(at, victim);
                self.drain(at);
            }
        }
        self.attacker_says(at, at);
        self.queue.push(self.now + micros(TICK), Event::Attack(at));
    }

    /// Sends the packets that an attacker has made; `from` is who has sent it what it answers.
    pub(super) fn attacker_says(&mut self, at: Peer, from: Peer) {
        let Some(attacker) = &mut self.nodes[at as usize].attacker else { return };
        for (way, packet) in attacker.says() {
            let links = &self.nodes[at as usize].links;
            let link = match way {
                Way::Back => links.iter().find(|link| link.peer == from),
                Way::Any if links.is_empty() => None,
                Way::Any => links.get(self.rng.random_range(0..links.len())),
            };
            if let Some((to, generation)) = link.map(|link| (link.peer, link.generation)) {
                self.put(at, to, generation, packet);
            }
        }
    }
}
