//! Messages to any id, hop by hop. Pure: time is an argument, and randomness comes from a seed.

mod api;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

pub use api::{
    Counters, ForeignMessage, Kind, MAX_BODY_BYTES, MAX_FOREIGN_BYTES, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH,
    MAX_PACKET_BYTES, Output, Rate, RouterConfig, SendFailure, SendId, SendRefused,
};

use super::OverlayId;
use super::routing::Routing;
use super::seal::{PublicKey, Seal};

/// A peer's part in the overlay. See the [module documentation](self).
#[derive(Debug)]
pub struct Router {
    me: OverlayId,
    routing: Box<dyn Routing>,
    seal: Box<dyn Seal>,
    config: RouterConfig,
    neighbours: BTreeMap<OverlayId, Option<PublicKey>>,
    outputs: VecDeque<Output>,
    counters: Counters,
    sends: u64,
}

impl Router {
    /// A router without neighbours. The `seed` must be random and secret, and another one at each start.
    pub fn new(routing: Box<dyn Routing>, seal: Box<dyn Seal>, config: RouterConfig, seed: u64) -> Self {
        let me = routing.id();
        let _ = seed;
        let (neighbours, outputs) = Default::default();
        Self { me, routing, seal, config, neighbours, outputs, counters: Counters::default(), sends: 0 }
    }

    /// There is a link to this peer now, whose id is proven by its `key`. Without a key it is an original, and the id only
    /// what it says.
    pub fn neighbour_up(&mut self, id: OverlayId, key: Option<PublicKey>, now: Instant) {
        debug_assert!(key.is_none_or(|key| self.seal.id_of(&key) == id));
        self.neighbours.insert(id, key);
        self.routing.up(id, key.is_some(), now);
        self.outputs.push_back(Output::NeighbourUp(id));
    }

    /// The link to this neighbour is gone.
    pub fn neighbour_down(&mut self, id: &OverlayId, now: Instant) {
        if self.neighbours.remove(id).is_some() {
            self.routing.down(id, now);
            self.outputs.push_back(Output::NeighbourDown(*id));
        }
    }

    /// A link for which [`Output::Connect`] has asked could not be made.
    pub fn connect_failed(&mut self, id: &OverlayId, now: Instant) {
        self.routing.unreachable(id, now);
    }

    /// Takes a packet from a neighbour's link. What is malformed is dropped and counted.
    pub fn receive(&mut self, from: &OverlayId, packet: Bytes, _now: Instant) {
        let kind = match packet.first() {
            Some(0) => Kind::Json,
            Some(1) => Kind::Binary,
            Some(2) => Kind::Datagram,
            Some(3) => Kind::Stream,
            Some(4) => Kind::Signal,
            Some(5) => Kind::Topic,
            _ => return self.counters.malformed += 1,
        };
        self.counters.delivered += 1;
        self.outputs.push_back(Output::Deliver { from: *from, verified: true, kind, body: packet.slice(1..) });
    }

    /// Takes a message from an original's link.
    pub fn receive_foreign(&mut self, from: &OverlayId, message: ForeignMessage, now: Instant) {
        let _ = (from, message, now, self.config.compat);
        self.counters.foreign += 1;
    }

    /// Sends a message. With `confirm` [`Output::Confirmed`] or [`Output::Failed`] follows within that time.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send(
        &mut self,
        to: OverlayId,
        kind: Kind,
        body: Bytes,
        confirm: Option<Duration>,
        _now: Instant,
    ) -> Result<SendId, SendRefused> {
        if body.len() > MAX_BODY_BYTES {
            return Err(SendRefused::TooLarge);
        }
        self.sends += 1;
        let send = SendId(self.sends);
        if to == self.me {
            self.outputs.push_back(Output::Deliver { from: to, verified: true, kind, body });
        } else if self.neighbours.contains_key(&to) {
            let mut packet = BytesMut::with_capacity(1 + body.len());
            packet.put_u8(kind as u8);
            packet.put_slice(&body);
            self.outputs.push_back(Output::Transmit { to, packet: packet.freeze() });
        } else {
            self.outputs.push_back(Output::Failed { send, reason: SendFailure::NoRoute });
            return Ok(send);
        }
        self.counters.sent += 1;
        if confirm.is_some() {
            self.outputs.push_back(Output::Confirmed { send });
        }
        Ok(send)
    }

    /// Sends a message to whichever peer is closest to an id, by the terms of the routing: that may be this one. It is not sealed,
    /// may get lost, and is delivered with a `from` that is not verified.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send_closest(&mut self, to: OverlayId, kind: Kind, body: Bytes, now: Instant) -> Result<(), SendRefused> {
        self.send(to, kind, body, None, now).map(|_| ())
    }

    /// Sends JSON in the way of the originals: anybody on the way can read and alter it, and it may get lost.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send_foreign(&mut self, to: OverlayId, data: Box<RawValue>, now: Instant) -> Result<(), SendRefused> {
        let _ = (to, data, now);
        Err(SendRefused::Foreign)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.routing.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest, if ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.routing.next_timeout()
    }

    /// What is to be done next. Take outputs until there are none, after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The routing table.
    pub fn routing(&self) -> &dyn Routing {
        &*self.routing
    }

    /// What was done and what was dropped, so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
