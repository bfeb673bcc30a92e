//! Messages to any id, hop by hop. Pure: time is an argument, and randomness comes from a seed.
//!
//! Each message goes to one neighbour, which by the terms of the routing is closer to its destination, and so on. One that wants
//! a confirmation passes these states at each hop:
//!
//! ```text
//!            receive                          taken                       a while
//! previous ----------> waiting for the next ----------> kept, as it may ----------> forgotten
//!     ^     (taken)       |          ^                  come back
//!     |                   | refused, |                      |
//!     |                   | too late | another neighbour    | refused
//!     |                   v link gone|                      |
//!     +---- refused ---- is there another? <----------------+
//!              no
//! ```
//!
//! At its source it waits for the key of the destination (`keys`), then for the receipt (`sends`), and is sent again along
//! another way if that does not come. That there is no way is known when all who were tried have refused it: a hop that was silent,
//! here or further on, may have passed it on, so it is tried until its time is over. At its destination it is opened, and delivered once (`arrive`).
//!
//! - `wire`: what travels, and the rules for reading it
//! - `neighbours`, `budgets`: links, and what may come over them
//! - `forward`, `held`: messages of others
//! - `sends`, `keys`, `ways`: messages of ours
//! - `arrive`, `window`: messages for us
//! - `foreign`: messages of original peer-relays
//! - `cache`, `timers`: what is remembered, and what is due
//!
//! # What others can do
//!
//! A hop can drop, delay and repeat messages, and it sees who writes to whom, when and how much. It cannot read, alter or invent what
//! is sealed, nor have it delivered twice. Whatever others send, memory stays within the bounds of the [`RouterConfig`].
//!
//! - *A message causes so many sends, and no more.* Each forwarding and each way back uses up one. A hop handles a message once and
//!   tries four neighbours. Only where a hop is too slow to answer in time both it and another may send the message on. The source
//!   sends at most eight copies of a message that is to be confirmed, each over another first hop as long as there is one, so that
//!   it gets around hops that say they have taken it and drop it. Each copy that arrives is answered by one receipt.
//! - *Replays.* For each source a window tells which numbers have been here. Of at least
//!   [`remembered_peers`](RouterConfig::remembered_peers) sources it is kept: with as many keys an attacker that has recorded what was
//!   sealed for us since our start can have it delivered again; or when the sender has started anew more than 30 times meanwhile. So what must not come twice needs more, as streams have.
//! - *Routing messages, requests for keys and their answers are open.* They only name candidates, as a link proves the id;
//!   a key is proven by its hash, and an answer by the random number of the question. An on-path hop can answer with a wrong session:
//!   then the destination says that it is stale.
//! - *Foreign messages go where originals would send them*, as nothing in a net of originals leads closer to an id: at most 20 peers of
//!   ours pass one on, each once, to one of the others and to two originals.
//! - *Foreign messages can be read and altered by every hop.* With [`compat`](RouterConfig::compat) a hop can claim that an unknown
//!   destination is an original, and then reads the JSON that is sent there without a confirmation. So can whoever drops our questions
//!   for the key, if originals are among our neighbours: what nobody leads to may be one of theirs. Nothing goes that way to a peer
//!   whose key is known, or if a confirmation is wanted.

mod api;
mod arrive;
mod budgets;
mod cache;
mod foreign;
mod forward;
mod held;
mod keys;
mod neighbours;
mod sends;
mod timers;
mod ways;
mod window;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use api::{
    Counters, ForeignMessage, Kind, MAX_BODY_BYTES, MAX_FOREIGN_BYTES, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH,
    MAX_PACKET_BYTES, Output, Rate, RouterConfig, SendFailure, SendId, SendRefused,
};

use super::OverlayId;
use super::routing::{Action, FingerError, Routing, Sender};
use super::seal::{Contact, Seal};
use crate::node::Budget;

use budgets::Pair;
use cache::Cache;
use held::HeldTable;
use keys::{Known, Numbers, Wanted};
use neighbours::Neighbour;
use sends::Pending;
use timers::{Due, Timers};
use window::Windows;
use wire::{Head, Mode, Purpose};

/// No more messages are kept, whatever the configuration says.
const MAX_HELD: usize = 8192;
/// Links that the table is given again, one after the other. Those beyond count as unreachable.
const MAX_AGAIN: usize = 64;
/// Messages of the table to itself, one after the other. Those beyond are dropped.
const MAX_TO_ITSELF: usize = 64;
/// How many senders are told at once, and each second, that they seal for an earlier session.
const NOTICES: Budget = Budget::new(100, 20);

/// A peer's part in the overlay. See the [module documentation](self).
#[derive(Debug)]
pub struct Router {
    me: OverlayId,
    contact: Contact,
    routing: Box<dyn Routing>,
    seal: Box<dyn Seal>,
    config: RouterConfig,
    neighbours: HashMap<OverlayId, Neighbour>,
    /// Whether somebody makes the first links, and since when there is one.
    is_joining: bool,
    linked: Option<Instant>,
    contacts: Cache<OverlayId, Known>,
    windows: Cache<OverlayId, Windows>,
    /// Numbers of sends that were confirmed, with the neighbour to which the last receipt went.
    delivered: Cache<(OverlayId, u64), Option<OverlayId>>,
    /// Fingerprints of messages that have passed.
    seen: Cache<u64, ()>,
    /// From which neighbour the last message of a peer has come.
    trails: Cache<OverlayId, OverlayId>,
    held: HeldTable,
    sends: BTreeMap<u64, Pending>,
    sends_bytes: usize,
    next_send: u64,
    wanted: BTreeMap<OverlayId, Wanted>,
    timers: Timers,
    notices: Budget,
    /// What is left for all neighbours together.
    relayed: Pair,
    /// For messages that are not sealed.
    numbers: Numbers,
    rng: StdRng,
    hash_key: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// Whether the application takes no more.
    is_full: bool,
}

impl Router {
    /// A router without neighbours. The `seed` must be random and secret, and another one at each start: nonces depend on it.
    pub fn new(routing: Box<dyn Routing>, seal: Box<dyn Seal>, config: RouterConfig, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let held_messages = config.held_messages.min(MAX_HELD);
        let config = RouterConfig { hops: config.hops.clamp(1, 63), held_messages, ..config };
        let (peers, messages) = (config.remembered_peers, config.remembered_messages);
        Self {
            me: routing.id(),
            contact: seal.contact(),
            routing,
            seal,
            neighbours: HashMap::new(),
            is_joining: false,
            linked: None,
            contacts: Cache::new(peers),
            windows: Cache::new(peers),
            delivered: Cache::new(messages),
            seen: Cache::new(messages),
            trails: Cache::new(peers),
            held: HeldTable::new(held_messages, config.held_bytes),
            sends: BTreeMap::new(),
            sends_bytes: 0,
            // Numbers of an earlier run are not met again.
            next_send: rng.next_u64(),
            wanted: BTreeMap::new(),
            timers: Timers::default(),
            notices: NOTICES,
            relayed: Pair::new(&config.relay_budget),
            numbers: Numbers::new(rng.next_u64()),
            hash_key: rng.next_u64(),
            rng,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            is_full: false,
            config,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.held.expire(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Held(hop) => self.reroute(hop, None, now),
                Due::Send(number) => self.send_due(number, now),
                Due::Key(id) => self.key_due(id, now),
                Due::Neighbour(id) => self.look_after(id, now),
            }
        }
        self.routing.handle_timeout(now);
        self.run_routing(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest, if ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.routing.next_timeout()).min()
    }

    /// What is to be done next. Take outputs until there are none, after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether the application takes no more messages at present. Then those that want a confirmation are dropped: their senders send
    /// them again, or hear that they were not confirmed. All others are delivered as always.
    pub fn set_full(&mut self, full: bool) {
        self.is_full = full;
    }

    /// Whether there are ways in: URLs that are dialled, onramps, whatever may lead to a first link. Then messages of the application
    /// wait for it, and until the table has [settled](RouterConfig::settle_within). Without any, and without a neighbour, they fail at
    /// once. At first there are none.
    pub fn set_joining(&mut self, joining: bool) {
        self.is_joining = joining;
    }

    /// The routing table.
    pub fn routing(&self) -> &dyn Routing {
        &*self.routing
    }

    /// Looks up this row of the finger table now, see [`Routing::update_finger`].
    ///
    /// # Errors
    ///
    /// [`FingerError`].
    pub fn update_finger(&mut self, row: u32, now: Instant) -> Result<(), FingerError> {
        self.routing.update_finger(row, now)?;
        self.run_routing(now);
        Ok(())
    }

    /// Looks up all rows of the finger table now.
    ///
    /// # Errors
    ///
    /// [`FingerError::NoFingers`].
    pub fn update_finger_table(&mut self, now: Instant) -> Result<(), FingerError> {
        self.routing.update_finger_table(now)?;
        self.run_routing(now);
        Ok(())
    }

    /// What was done and what was dropped, so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Does what the table wants done.
    fn run_routing(&mut self, now: Instant) {
        let mut to_itself = 0;
        let mut again = 0;
        while let Some(action) = self.routing.poll_action() {
            match action {
                Action::Trail { to, through } => self.lay_trail(to, through),
                Action::Connect(id) => match self.neighbours.get(&id) {
                    // It was released, and the link stayed as somebody else needed it.
                    Some(neighbour) if neighbour.is_routed() && again < MAX_AGAIN => {
                        again += 1;
                        self.routing.up(id, !neighbour.is_original(), now);
                    }
                    Some(_) => self.routing.unreachable(&id, now),
                    None => self.outputs.push_back(Output::Connect(id)),
                },
                Action::Release(id) => self.outputs.push_back(Output::Release(id)),
                Action::Tell { to, message } => {
                    if self.neighbours.get(&to).is_some_and(|neighbour| !neighbour.is_original()) {
                        self.transmit(to, wire::routing(&message), now);
                    }
                }
                Action::Route { to, message } => {
                    let head = self.open_head(to, Purpose::Routing, true, false);
                    match self.choose(&head, &|_| false) {
                        Some(next) => {
                            self.counters.sent += 1;
                            self.transmit(next, head.open(&message), now);
                        }
                        None if to_itself < MAX_TO_ITSELF => {
                            to_itself += 1;
                            self.routing.receive(Sender::Claimed(self.me), &message, now);
                        }
                        None => {}
                    }
                }
            }
        }
    }

    /// Notes by whom a peer was named. The way to who named it is the way to it.
    fn lay_trail(&mut self, to: OverlayId, through: OverlayId) {
        let next =
            if self.neighbours.contains_key(&through) { Some(through) } else { self.trails.peek(&through).copied() };
        if let Some(next) = next.filter(|_| to != self.me && !self.neighbours.contains_key(&to)) {
            self.trails.insert(to, next);
        }
    }

    fn look_for(&mut self, id: &OverlayId, now: Instant) {
        self.routing.look_for(id, now);
        self.run_routing(now);
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// By which a message is known again. Who does not know the tag cannot have it taken for known.
    fn fingerprint(&self, head: &Head, packet: &Bytes) -> Option<u64> {
        if head.mode == Mode::Foreign {
            let body = wire::body(packet);
            let (nonce, _, _) = wire::parse_foreign(&body)?;
            return Some(self.foreign_fingerprint(&head.from, nonce));
        }
        let mut hasher = DefaultHasher::new();
        (self.hash_key, head.from, head.nonce, wire::end(packet)).hash(&mut hasher);
        Some(hasher.finish())
    }

    fn foreign_fingerprint(&self, from: &OverlayId, nonce: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.hash_key, from, nonce).hash(&mut hasher);
        hasher.finish()
    }
}
