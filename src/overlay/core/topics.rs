//! Topics, and who of the application is in them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Core, State, now};
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::error::JoinError;
use crate::overlay::inbox::Inbox;
use crate::overlay::router::Kind;
use crate::overlay::topics::{BroadcastRefused, Counters, Output, TopicId, Topics};

/// How long a message to a topic may wait for room on its first links. Then it is dropped there, and comes by another way, if there is
/// one: a neighbour that reads nothing must not hold it up for all.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// How long a message to a member to which there is no direct link is tried. It goes by ways that need not all be there: a newcomer is
/// not in the tables of others yet.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// The topics of this peer.
pub(super) struct Joined {
    machine: Topics,
    rooms: HashMap<TopicId, Room>,
    /// When the machine is due.
    due: Option<Instant>,
}

/// A topic of the application's.
struct Room {
    holders: usize,
    inbox: Arc<Inbox<(OverlayId, Bytes)>>,
    /// How many neighbours there are.
    neighbours: watch::Sender<usize>,
}

/// The application is in a topic, as long as this lives.
pub(in crate::overlay) struct Membership {
    core: Arc<Core>,
    topic: TopicId,
    inbox: Arc<Inbox<(OverlayId, Bytes)>>,
    neighbours: watch::Receiver<usize>,
}

impl Joined {
    pub(super) fn new(machine: Topics) -> Self {
        Self { machine, rooms: HashMap::new(), due: None }
    }

    fn deliver(&self, topic: &TopicId, origin: OverlayId, body: Bytes) -> bool {
        let bytes = body.len();
        self.rooms.get(topic).is_some_and(|room| room.inbox.push((origin, body), bytes))
    }

    fn count_neighbours(&self, topic: &TopicId) {
        if let Some(room) = self.rooms.get(topic) {
            room.neighbours.send_replace(self.machine.neighbours(topic).count());
        }
    }
}

impl State {
    /// When the router, the topics or the originals have something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.router.next_timeout().into_iter().chain(self.topics.due).chain(self.originals_due()).min()
    }

    pub(super) fn topics_arrived(&mut self, from: OverlayId, verified: bool, body: Bytes, now: Instant) {
        self.with_topics(now, |topics| match verified {
            true => topics.receive(from, body, now),
            false => topics.receive_closest(from, body, now),
        });
    }

    pub(super) fn topics_timeout(&mut self, now: Instant) {
        if self.topics.due.is_some_and(|due| due <= now) {
            self.with_topics(now, |topics| topics.handle_timeout(now));
        }
    }

    /// There is a further neighbour. With the first one this peer has come into the overlay.
    pub(super) fn topics_neighbour_up(&mut self, now: Instant) {
        if self.neighbours.len() == 1 {
            self.with_topics(now, |topics| topics.look_again(now));
        }
    }

    /// A message could not be sent to a peer.
    pub(super) fn topics_peer_gone(&mut self, peer: &OverlayId, now: Instant) {
        // Who is cut off itself should know whom to ask when it is not any more.
        if !self.neighbours.is_empty() {
            self.with_topics(now, |topics| topics.peer_gone(peer, now));
        }
    }

    /// Leaves all topics. Their handles are of no use any more.
    pub(super) fn leave_topics(&mut self, now: Instant) {
        for (topic, room) in std::mem::take(&mut self.topics.rooms) {
            room.inbox.end();
            self.with_topics(now, |topics| topics.leave(&topic, now));
        }
    }

    /// Brings the topics something, and has the router do what they decide.
    fn with_topics<T>(&mut self, now: Instant, act: impl FnOnce(&mut Topics) -> T) -> T {
        let Self { topics, router, neighbours, dropped, .. } = self;
        let result = act(&mut topics.machine);
        while let Some(output) = topics.machine.poll_output() {
            let is_done = match output {
                Output::Send { to, bytes } => {
                    let confirm = (!neighbours.contains(&to)).then_some(CONFIRM_WITHIN);
                    router.send(to, Kind::Topic, bytes, confirm, now).is_ok()
                }
                Output::Route { to, bytes } => router.send_closest(to, Kind::Topic, bytes, now).is_ok(),
                Output::RouteBeyond { to, bytes } => router.send_closest_other(to, Kind::Topic, bytes, now).is_ok(),
                Output::Deliver { topic, origin, body } => topics.deliver(&topic, origin, body),
                Output::NeighbourUp { topic, .. } | Output::NeighbourDown { topic, .. } => {
                    topics.count_neighbours(&topic);
                    true
                }
                // Links are made for the routing only.
                Output::Disconnect(_) => true,
            };
            *dropped += u64::from(!is_done);
        }
        topics.due = topics.machine.next_timeout();
        result
    }
}

impl Core {
    pub(in crate::overlay) fn join_topic(self: &Arc<Self>, topic: TopicId) -> Result<Membership, JoinError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(JoinError::Closed);
        }
        if !state.topics.rooms.contains_key(&topic) {
            let now = now();
            // Its first neighbours are found later, so the room comes in time.
            state.with_topics(now, |topics| topics.join(topic, &[], now))?;
            let room = Room { holders: 0, inbox: Arc::default(), neighbours: watch::Sender::new(0) };
            state.topics.rooms.insert(topic, room);
            self.drive_on(&mut state, now);
        }
        let room = state.topics.rooms.get_mut(&topic).ok_or(JoinError::Closed)?;
        room.holders += 1;
        let (inbox, neighbours) = (room.inbox.clone(), room.neighbours.subscribe());
        Ok(Membership { core: self.clone(), topic, inbox, neighbours })
    }

    /// Leaves all topics, and waits a moment until that is said.
    pub(in crate::overlay) async fn leave_topics(&self) {
        let outcome = {
            let mut state = lock(&self.state);
            let now = now();
            state.leave_topics(now);
            self.carry_out(&mut state, true, now)
        };
        self.count_dropped(outcome.wait(ROOM_WITHIN).await);
    }

    pub(in crate::overlay) fn topic_counters(&self) -> Counters {
        lock(&self.state).topics.machine.counters()
    }
}

impl Membership {
    pub(in crate::overlay) fn topic(&self) -> TopicId {
        self.topic
    }

    pub(in crate::overlay) fn inbox(&self) -> &Inbox<(OverlayId, Bytes)> {
        &self.inbox
    }

    /// How many neighbours there are, while the topic is.
    pub(in crate::overlay) fn neighbour_count(&self) -> watch::Receiver<usize> {
        self.neighbours.clone()
    }

    pub(in crate::overlay) fn neighbours(&self) -> Vec<OverlayId> {
        let state = lock(&self.core.state);
        state.topics.machine.neighbours(&self.topic).copied().collect()
    }

    /// Sends a message to the topic, and waits a moment for room.
    pub(in crate::overlay) async fn broadcast(&self, body: &[u8]) -> Result<(), BroadcastRefused> {
        let outcome = {
            let mut state = lock(&self.core.state);
            let now = now();
            state.with_topics(now, |topics| topics.broadcast(&self.topic, body, now))?;
            self.core.carry_out(&mut state, true, now)
        };
        self.core.count_dropped(outcome.wait(ROOM_WITHIN).await);
        Ok(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = lock(&self.core.state);
        let Some(room) = state.topics.rooms.get_mut(&self.topic) else { return };
        room.holders -= 1;
        if room.holders == 0 {
            room.inbox.end();
            state.topics.rooms.remove(&self.topic);
            let now = now();
            state.with_topics(now, |topics| topics.leave(&self.topic, now));
            self.core.drive_on(&mut state, now);
        }
    }
}
