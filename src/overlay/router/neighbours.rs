//! Links to neighbours: the hello on each, and whether it still answers.

use std::mem;
use std::time::Instant;

use bytes::Bytes;

use super::api::{MAX_PACKET_BYTES, Output, RouterConfig};
use super::budgets::Budgets;
use super::timers::Due;
use super::{Router, wire};
use crate::overlay::OverlayId;
use crate::overlay::seal::{Contact, PublicKey};

/// A peer with a link.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// `None` if it is an original.
    pub(super) key: Option<PublicKey>,
    /// Whether it has said hello.
    pub(super) is_ready: bool,
    /// Whether it has the same routing as we have, and is in the table.
    is_routed: bool,
    pub(super) budgets: Budgets,
    /// Messages and bytes that are kept for it.
    pub(super) held: (usize, usize),
    heard: Instant,
    sent: Instant,
    pinged: Option<Instant>,
    pub(super) responds: bool,
    /// When its timer goes off.
    due: Instant,
}

impl Neighbour {
    fn new(key: Option<PublicKey>, config: &RouterConfig, now: Instant) -> Self {
        Self {
            key,
            is_ready: false,
            is_routed: false,
            budgets: Budgets::new(config),
            held: (0, 0),
            heard: now,
            sent: now,
            pinged: None,
            responds: true,
            due: now,
        }
    }

    /// Something has come from it. Returns whether it did not answer before.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        (self.heard, self.pinged) = (now, None);
        !mem::replace(&mut self.responds, true)
    }

    /// Whether it is in the table.
    pub(super) fn is_routed(&self) -> bool {
        self.is_routed
    }

    pub(super) fn is_original(&self) -> bool {
        self.key.is_none()
    }
}

impl Router {
    /// There is a link to this peer now, whose id is proven by its `key`. Without a key it is an original, and the id only
    /// what it says.
    pub fn neighbour_up(&mut self, id: OverlayId, key: Option<PublicKey>, now: Instant) {
        if id == self.me || key.is_some_and(|key| self.seal.id_of(&key) != id) {
            self.counters.malformed += 1;
            return self.outputs.push_back(Output::Release(id));
        }
        self.neighbour_down(&id, now);
        self.neighbours.insert(id, Neighbour::new(key, &self.config, now));
        if key.is_some() {
            self.wake_neighbour(id, now + self.config.hello_within);
            self.say_hello(id, true, now);
        } else {
            if self.ready(id, true, now) {
                self.resume(now);
            }
        }
    }

    /// The link to this neighbour is gone.
    pub fn neighbour_down(&mut self, id: &OverlayId, now: Instant) {
        let Some(neighbour) = self.neighbours.remove(id) else { return };
        self.timers.cancel(neighbour.due, Due::Neighbour(*id));
        if neighbour.is_routed {
            self.routing.down(id, now);
        }
        if neighbour.is_ready {
            self.outputs.push_back(Output::NeighbourDown(*id));
        }
        if !self.neighbours.values().any(|neighbour| neighbour.is_ready) {
            self.linked = None;
        }
        for hop in self.held.waiting_for(id) {
            self.reroute(hop, None, now);
        }
        self.run_routing(now);
    }

    /// A link for which [`Output::Connect`] has asked could not be made.
    pub fn connect_failed(&mut self, id: &OverlayId, now: Instant) {
        self.routing.unreachable(id, now);
        self.run_routing(now);
    }

    /// Returns whether it is the first.
    fn ready(&mut self, id: OverlayId, is_routed: bool, now: Instant) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return false };
        (neighbour.is_ready, neighbour.is_routed) = (true, is_routed);
        let is_verified = !neighbour.is_original();
        self.outputs.push_back(Output::NeighbourUp(id));
        if is_routed {
            self.routing.up(id, is_verified, now);
        }
        let is_first = self.linked.is_none();
        self.linked.get_or_insert(now);
        is_first
    }

    /// Whether a first link may come, or has come just now.
    pub(super) fn settles(&self, now: Instant) -> bool {
        self.is_joining && self.linked.is_none_or(|since| now < since + self.config.settle_within)
    }

    /// Whether there is no neighbour, and none to come.
    pub(super) fn is_alone(&self) -> bool {
        !self.is_joining && self.neighbours.is_empty()
    }

    fn say_hello(&mut self, to: OverlayId, asks: bool, now: Instant) {
        let hello = wire::hello(self.config.routing, &self.contact.session, asks);
        self.transmit(to, hello, now);
    }

    pub(super) fn hello(&mut self, from: OverlayId, packet: &[u8], now: Instant) {
        let neighbour = self.neighbours.get(&from);
        let known = neighbour.and_then(|neighbour| Some((neighbour.is_ready, neighbour.key?)));
        let (Some((routing, session, asks)), Some((is_ready, key))) = (wire::parse_hello(packet), known) else {
            return self.counters.malformed += 1;
        };
        let mut is_first = false;
        if !is_ready {
            self.wake_neighbour(from, now + self.config.ping_after);
            is_first = self.ready(from, routing == self.config.routing, now);
        }
        // What waits for the key goes over this link.
        self.learn(from, Contact { key, session }, now);
        if !is_ready {
            self.run_routing(now);
            if is_first {
                self.resume(now);
            }
        } else if asks {
            // It has lost one link to us, and got another, in an order in which we always had one.
            self.say_hello(from, false, now);
        }
    }

    /// A neighbour that had not answered is there again.
    pub(super) fn responds_again(&mut self, id: &OverlayId, now: Instant) {
        if self.neighbours.get(id).is_some_and(|neighbour| neighbour.is_routed) {
            self.routing.responds(id, true, now);
            self.run_routing(now);
        }
    }

    /// A peer has begun anew. If it has a link, and that was not heard on it, the link may lead to what it was before: it is silent until it
    /// answers.
    pub(super) fn doubt(&mut self, id: OverlayId, now: Instant) {
        let is_doubtful = |link: &Neighbour| link.is_ready && !link.is_original() && link.responds && link.heard < now;
        if self.neighbours.get(&id).is_some_and(is_doubtful) {
            self.falls_silent(id, now);
            self.ping(id, now);
            self.run_routing(now);
        }
    }

    /// A neighbour counts as silent until something comes from it.
    fn falls_silent(&mut self, id: OverlayId, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        if mem::replace(&mut neighbour.responds, false) && neighbour.is_routed {
            self.routing.responds(&id, false, now);
        }
    }

    fn ping(&mut self, id: OverlayId, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        neighbour.pinged = Some(now);
        self.wake_neighbour(id, now + self.config.pong_within);
        self.transmit(id, Bytes::from_static(&[wire::PING]), now);
    }

    pub(super) fn transmit(&mut self, to: OverlayId, packet: Bytes, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&to) else { return };
        debug_assert!(packet.len() <= MAX_PACKET_BYTES);
        neighbour.sent = now;
        // A quiet link has its timer far away.
        let due = now + self.config.ping_after;
        if neighbour.is_ready && !neighbour.is_original() && neighbour.due > due {
            self.wake_neighbour(to, due);
        }
        self.outputs.push_back(Output::Transmit { to, packet });
    }

    fn wake_neighbour(&mut self, id: OverlayId, at: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        self.timers.cancel(neighbour.due, Due::Neighbour(id));
        neighbour.due = at;
        self.timers.set(at, Due::Neighbour(id));
    }

    /// Looks whether a neighbour is still there.
    pub(super) fn look_after(&mut self, id: OverlayId, now: Instant) {
        let Some(neighbour) = self.neighbours.get(&id) else { return };
        if !neighbour.is_ready {
            // It may come all the same: the link is not ours to close.
            return self.outputs.push_back(Output::Release(id));
        }
        let config = &self.config;
        let awaited = match neighbour.pinged {
            Some(pinged) => pinged + config.pong_within,
            None => {
                let was_sent = neighbour.sent > neighbour.heard;
                // Of two ends that are quiet one asks, and the other hears it.
                let quiet_ping_after = config.quiet_ping_after + config.pong_within * 2 * u32::from(self.me > id);
                neighbour.heard + if was_sent { config.ping_after } else { quiet_ping_after }
            }
        };
        if now < awaited {
            self.wake_neighbour(id, awaited);
        } else {
            if neighbour.pinged.is_some() {
                self.falls_silent(id, now);
            }
            self.ping(id, now);
        }
        self.run_routing(now);
    }
}
