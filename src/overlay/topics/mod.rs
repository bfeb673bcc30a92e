//! Topics: messages to all who want them. Pure: time is an argument, and randomness comes from a seed.
//!
//! Each member of a topic keeps a few others as neighbours (HyParView), and messages go along a tree among these that repairs itself
//! (Plumtree). New members find others at a rendezvous, the peers that are closest to some
//! points that follow from the topic. Messages are signed by their origin, and are delivered at most once and in no order; what gets lost on its way to a neighbour is
//! mostly, but not always, fetched from another. There is no secret in a topic: who knows its name can join it.
//!
//! [`Topics`] is one machine for all topics of a peer. It sends over the overlay, to any id: a neighbour in a topic need not be one in
//! the overlay, though it is better if it is.

mod broadcast;
mod history;
mod membership;
mod message;
mod rendezvous;
#[cfg(test)]
mod tests;
mod topic;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

use self::broadcast::Gossiped;
use self::history::{Allowance, Verdict};
use self::message::Message;
use self::rendezvous::{Found, Rendezvous};
use self::topic::{Act, Topic};
use self::wire::Packet;
use super::OverlayId;
use super::router::{MAX_BODY_BYTES, Rate};
use crate::identity::Identity;

/// The longest body of a message.
pub const MAX_MESSAGE_BYTES: usize = MAX_BODY_BYTES - wire::GOSSIP_OVERHEAD - message::OVERHEAD;

/// Peers whose budget is remembered. Then the one that was silent for longest gets a new one.
const MAX_SENDERS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Keeps these hashes apart from all others of a name.
const DOMAIN: &[u8] = b"pmesh topic id 1\0";

/// A topic: 160 bits, derived from its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(OverlayId);

/// How topics behave. All members should have the same.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TopicsConfig {
    /// Topics that a peer may be in at once.
    pub topics: usize,
    /// Neighbours in a topic: one more than the base-10 logarithm of the members at least.
    pub active_view: usize,
    /// Candidates in a topic, in case that neighbours are gone.
    pub passive_view: usize,
    /// How often members exchange candidates.
    pub shuffle_every: Duration,
    /// How long somebody that is asked to be a neighbour may take to answer.
    pub answer_within: Duration,
    /// After how long without a message a neighbour is told that we are there.
    pub keepalive: Duration,
    /// After how long without a message a neighbour is taken to be gone.
    pub peer_timeout: Duration,
    /// What may come from one origin in a topic. Twice as much may come at once, as it may have been held up on its way.
    pub origin_rate: Rate,
    /// What may come from one peer, of all origins.
    pub peer_rate: Rate,
    /// How long messages of a topic are kept, so that they can be sent again.
    pub keep_for: Duration,
    /// How many bytes of them.
    pub kept_bytes: usize,
    /// How long it is remembered of a message that it was here.
    pub remember_for: Duration,
    /// Of how many messages of a topic.
    pub remembered_messages: usize,
}

/// What the topics want done, and what they tell. Who drives them has to do all of it, so a further kind would be a breaking
/// change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to a peer, sealed. It arrives at its [`Topics::receive`].
    Send {
        /// The peer, which may be this one.
        to: OverlayId,
        /// At most [`MAX_BODY_BYTES`].
        bytes: Bytes,
    },
    /// Send this to whoever is closest to an id, this peer included. It arrives at its [`Topics::receive_closest`].
    Route {
        /// The id.
        to: OverlayId,
        /// What to say.
        bytes: Bytes,
    },
    /// Send this to whoever is closest to an id besides this peer. It arrives at its [`Topics::receive_closest`].
    RouteBeyond {
        /// The id, to which this peer is closest.
        to: OverlayId,
        /// What to say.
        bytes: Bytes,
    },
    /// A message of a topic that we are in.
    Deliver {
        /// The topic.
        topic: TopicId,
        /// Who has sent it, by its signature.
        origin: OverlayId,
        /// What it says.
        body: Bytes,
    },
    /// There is a new neighbour in a topic. A link to it makes messages come faster.
    NeighbourUp {
        /// The topic.
        topic: TopicId,
        /// The neighbour.
        peer: OverlayId,
    },
    /// A neighbour in a topic is none any more.
    NeighbourDown {
        /// The topic.
        topic: TopicId,
        /// Who was the neighbour.
        peer: OverlayId,
    },
    /// This peer is not a neighbour in any topic any more: a link to it is not needed here.
    Disconnect(OverlayId),
}

/// Why a topic is not joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer is in as many topics as it may be")]
pub struct TooManyTopics;

/// A message that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastRefused {
    /// We are not in the topic.
    #[error("the topic is not joined")]
    NotJoined,
    /// It has more than [`MAX_MESSAGE_BYTES`].
    #[error("the message is too large")]
    TooLarge,
    /// More than [`TopicsConfig::origin_rate`]: others would drop it.
    #[error("too many messages at once")]
    TooFast,
}

/// What came and was dropped, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Messages delivered.
    pub delivered: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Dropped: not above the last number of its origin that was forgotten.
    pub old: u64,
    /// Dropped: not signed by its origin. Who brought it is no neighbour any more.
    pub forged: u64,
    /// Dropped: its peer, or its origin, had used up its budget.
    pub over_budget: u64,
    /// Dropped: not a packet of topics.
    pub malformed: u64,
    /// Dropped: not asked for, or of a topic that we are not in.
    pub unexpected: u64,
}

/// A peer's part in all of its topics. See the [module documentation](self).
///
/// Everything that others can make it hold is bounded. Nothing that arrives makes it panic.
#[derive(Debug)]
pub struct Topics {
    me: OverlayId,
    identity: Identity,
    config: TopicsConfig,
    topics: BTreeMap<TopicId, Topic>,
    rendezvous: Rendezvous,
    senders: LruCache<OverlayId, Allowance>,
    number: u64,
    rng: StdRng,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl TopicId {
    /// The topic with this name.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(name).finalize();
        let mut id = [0; OverlayId::BYTES];
        id.copy_from_slice(&digest[..OverlayId::BYTES]);
        Self(OverlayId::from_bytes(id))
    }

    /// As an id of the key space.
    pub const fn id(&self) -> &OverlayId {
        &self.0
    }
}

impl From<OverlayId> for TopicId {
    fn from(id: OverlayId) -> Self {
        Self(id)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            topics: 64,
            active_view: 5,
            passive_view: 30,
            shuffle_every: Duration::from_secs(30),
            answer_within: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            peer_timeout: Duration::from_secs(35),
            origin_rate: Rate { messages: 100, bytes: 1 << 20, burst_seconds: 10 },
            peer_rate: Rate { messages: 2000, bytes: 8 << 20, burst_seconds: 4 },
            keep_for: Duration::from_secs(30),
            kept_bytes: 1 << 20,
            remember_for: Duration::from_secs(120),
            remembered_messages: 8192,
        }
    }
}

impl Counters {
    fn count(&mut self, gossiped: Gossiped) {
        *match gossiped {
            Gossiped::Delivered => &mut self.delivered,
            Gossiped::Duplicate => &mut self.duplicates,
            Gossiped::Dropped(Verdict::OverBudget) => &mut self.over_budget,
            Gossiped::Dropped(_) => &mut self.old,
            Gossiped::Forged => &mut self.forged,
        } += 1;
    }
}

impl Topics {
    /// A peer that is in no topic. Its messages get numbers above `first_number`, which must be above all that it has used
    /// before, as the time in microseconds is. The `seed` must be random, and secret.
    pub fn new(identity: Identity, config: TopicsConfig, first_number: u64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            me: OverlayId::of(&identity.peer_id()),
            identity,
            config,
            topics: BTreeMap::new(),
            rendezvous: Rendezvous::new(rng.random()),
            senders: LruCache::new(MAX_SENDERS),
            number: first_number,
            rng,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Joins a topic. The `members` that are known are asked first; others are looked for at the rendezvous. In a topic that is
    /// joined already, the members are only taken note of.
    ///
    /// # Errors
    ///
    /// [`TooManyTopics`] if it is in [as many](TopicsConfig::topics) as it may be.
    pub fn join(&mut self, topic: TopicId, members: &[OverlayId], now: Instant) -> Result<(), TooManyTopics> {
        if !self.topics.contains_key(&topic) {
            if self.topics.len() >= self.config.topics {
                return Err(TooManyTopics);
            }
            let joined = Topic::new(self.me, topic, &self.config, self.rng.random(), now);
            self.topics.insert(topic, joined);
            self.rendezvous.join(topic, now);
        }
        self.with_topic(topic, now, |it, config, _| it.candidates(members, config, now));
        self.rendezvous_acts(now);
        Ok(())
    }

    /// Leaves a topic, and says so to its neighbours in it.
    pub fn leave(&mut self, topic: &TopicId, now: Instant) {
        self.with_topic(*topic, now, |it, _, _| it.leave());
        self.topics.remove(topic);
        self.rendezvous.leave(topic);
        self.rendezvous.receive(self.me, *topic, Packet::Withdraw, now);
        self.rendezvous_acts(now);
    }

    /// Sends a message to all other members of a topic.
    ///
    /// # Errors
    ///
    /// See [`BroadcastRefused`].
    pub fn broadcast(&mut self, topic: &TopicId, body: &[u8], now: Instant) -> Result<(), BroadcastRefused> {
        let joined = self.topics.get_mut(topic).ok_or(BroadcastRefused::NotJoined)?;
        if body.len() > MAX_MESSAGE_BYTES {
            return Err(BroadcastRefused::TooLarge);
        }
        if !joined.ours.take(body.len() + message::OVERHEAD, now) {
            return Err(BroadcastRefused::TooFast);
        }
        self.number += 1;
        let (number, message) = (self.number, Message::sign(&self.identity, topic, self.number, body));
        self.with_topic(*topic, now, |it, config, _| it.broadcast(number, message, config, now));
        Ok(())
    }

    /// Takes a message of another peer, whose id is proven.
    pub fn receive(&mut self, from: OverlayId, bytes: Bytes, now: Instant) {
        let Some((topic, packet)) = self.admit(from, bytes, now) else { return };
        if packet.is_of_rendezvous() {
            let expected = self.rendezvous.receive(from, topic, packet, now);
            self.counters.unexpected += u64::from(!expected);
            self.rendezvous_acts(now);
        } else if self.topics.contains_key(&topic) && from != self.me {
            self.with_topic(topic, now, |it, config, counters| it.receive(from, packet, config, counters, now));
        } else {
            self.counters.unexpected += 1;
            // Who takes us for a member is told. That is never answered, so it ends there.
            if !matches!(packet, Packet::Disconnect { .. } | Packet::Shuffle { .. } | Packet::ShuffleReply { .. }) {
                let bytes = Packet::Disconnect { leaving: true, others: Vec::new() }.encode(&topic);
                self.outputs.push_back(Output::Send { to: from, bytes });
            }
        }
    }

    /// Takes a message that was routed to whoever is closest to an id. Who has sent it is only what it says.
    pub fn receive_closest(&mut self, from: OverlayId, bytes: Bytes, now: Instant) {
        let Some((topic, packet)) = Packet::decode(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let expected = match packet {
            Packet::Find { token } if from == self.me => self.rendezvous.came_back(self.me, topic, token, now),
            packet => self.rendezvous.receive_closest(from, topic, &packet, now),
        };
        self.counters.unexpected += u64::from(!expected);
        self.rendezvous_acts(now);
    }

    /// This peer cannot be reached any more. It is noticed after a [time](TopicsConfig::peer_timeout) without this, too.
    pub fn peer_gone(&mut self, peer: &OverlayId, now: Instant) {
        self.with_all(now, |it, config| it.gone(peer, config, now));
    }

    /// Others can be reached that could not before: looks for members at once, in topics without a neighbour.
    pub fn look_again(&mut self, now: Instant) {
        self.rendezvous.look_again(now);
        self.rendezvous_acts(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.with_all(now, |it, config| it.handle_timeout(config, now));
        self.rendezvous.handle_timeout(now);
        self.rendezvous_acts(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest, if ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        let topics = self.topics.values().map(|topic| topic.next_timeout(&self.config));
        topics.chain(self.rendezvous.next_timeout()).min()
    }

    /// What is to be done next. Take outputs until there are none, after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The topics that it is in.
    pub fn topics(&self) -> impl Iterator<Item = &TopicId> {
        self.topics.keys()
    }

    /// The neighbours in a topic.
    pub fn neighbours(&self, topic: &TopicId) -> impl Iterator<Item = &OverlayId> {
        self.topics.get(topic).into_iter().flat_map(Topic::neighbours)
    }

    /// What came and was dropped, so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn admit(&mut self, from: OverlayId, bytes: Bytes, now: Instant) -> Option<(TopicId, Packet)> {
        let allowance = self.senders.get_or_insert_mut(from, || Allowance::new(self.config.peer_rate));
        if !allowance.take(bytes.len(), now) {
            self.counters.over_budget += 1;
            return None;
        }
        let decoded = Packet::decode(bytes);
        self.counters.malformed += u64::from(decoded.is_none());
        decoded
    }

    fn with_all(&mut self, now: Instant, mut input: impl FnMut(&mut Topic, &TopicsConfig)) {
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            self.with_topic(topic, now, |it, config, _| input(it, config));
        }
    }

    /// Gives an input to a topic, and takes up what comes of it.
    fn with_topic(
        &mut self,
        topic: TopicId,
        now: Instant,
        input: impl FnOnce(&mut Topic, &TopicsConfig, &mut Counters),
    ) {
        let Some(it) = self.topics.get_mut(&topic) else { return };
        input(it, &self.config, &mut self.counters);
        let acts = it.take_acts(&self.config, now);
        let alone = it.neighbours().next().is_none();
        self.rendezvous.alone(&topic, alone, now);
        for act in acts {
            let output = match act {
                Act::Send(to, packet) => Output::Send { to, bytes: packet.encode(&topic) },
                Act::Deliver { origin, body } => Output::Deliver { topic, origin, body },
                Act::Up(peer) => Output::NeighbourUp { topic, peer },
                Act::Down(peer) => {
                    self.outputs.push_back(Output::NeighbourDown { topic, peer });
                    if self.topics.values().any(|topic| topic.has_neighbour(&peer)) {
                        continue;
                    }
                    Output::Disconnect(peer)
                }
            };
            self.outputs.push_back(output);
        }
    }

    fn rendezvous_acts(&mut self, now: Instant) {
        while let Some(act) = self.rendezvous.acts.pop_front() {
            match act {
                Found::Route(to, topic, packet) => {
                    self.outputs.push_back(Output::Route { to, bytes: packet.encode(&topic) });
                }
                Found::RouteBeyond(to, topic, packet) => {
                    self.outputs.push_back(Output::RouteBeyond { to, bytes: packet.encode(&topic) });
                }
                Found::Send(to, topic, packet) => {
                    self.outputs.push_back(Output::Send { to, bytes: packet.encode(&topic) });
                }
                Found::Members(topic, members) => {
                    self.with_topic(topic, now, |it, config, _| it.candidates(&members, config, now));
                }
            }
        }
    }
}
