//! What becomes of the router's decisions.
//!
//! The router lies under one lock. Who brings it something, a link's reader, a handle or the timer, carries out what it decides
//! before letting go of the lock; nothing in that waits. So a message that is passed on costs no trip through the scheduler beside
//! those of its two links.
//!
//! - `mod.rs`: what is behind the lock, and what the router wants done
//! - `links.rs`: links to neighbours
//! - `patience.rs`: how long others wait for one that has no room
//! - `signals.rs`: how new connections are made
//! - `topics.rs`: topics, and who of the application is in them
//! - `originals.rs`: links to originals of peer-relay
//! - `told.rs`: what the application is told

mod links;
mod originals;
mod patience;
mod signals;
mod told;
mod topics;

use self::links::{Entry, Handed, Linked, Purposes};
use self::originals::Originals;
pub(super) use self::originals::{Dial, Reserved};
use self::patience::HOLD;
use self::signals::Callers;
use self::told::Told;
pub(super) use self::told::shown;
use self::topics::Joined;
pub(super) use self::topics::Membership;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use lru::LruCache;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout_at;

use super::OverlayId;
use super::error::OverlaySendError;
use super::events::OverlayEvent;
use super::inbox::{Arrived, Inbox};
use super::link::Sender;
use super::link::signal::ToTree;
use super::packets::PacketQueue;
use super::router::{Kind, Output, Router, SendFailure, SendId};
use super::topics::Topics;
use crate::lock::lock;
use crate::node::{Budget, Node};
use crate::protocol::frame::Undeliverable;

/// What the tasks may still have to do. At it, links that the routing wishes for fail at once.
const WISHES: usize = 1024;
/// Packets of streams, or of the datagram socket, that may wait in each direction, and their bytes. At it, those that come are
/// dropped.
const QUEUED_PACKETS: usize = 4096;
const QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Peers whose frames of negotiations are counted. Beyond, who was longest quiet starts anew.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");
/// How long a link may take nothing at all. Then it is closed, and who waits for it does no more.
const STUCK: Duration = Duration::from_secs(10);

/// How a neighbour is reached.
#[derive(Debug)]
pub(super) enum Reach {
    /// Over this node of the tree. `routed` says that it was made through the overlay.
    Node {
        node: Node,
        routed: bool,
    },
    WebSocket,
}

/// Who waits for the outcome of a message.
#[derive(Debug)]
enum Waiting {
    Confirm(oneshot::Sender<Result<(), SendFailure>>),
    /// The tree, for a frame to this peer.
    Signal(OverlayId),
}

/// A packet for which its link had no room.
#[derive(Debug)]
struct Held {
    sender: Arc<Sender>,
    packet: Bytes,
}

/// What is left of an input after all that could be done at once.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Outcome {
    held: Vec<Held>,
    /// The message that is sent, and why it failed, if it did at once.
    own: Option<SendId>,
    failure: Option<SendFailure>,
}

/// Messages that nobody waits for, and that failed after they were taken.
#[derive(Debug)]
struct Undelivered {
    to: OverlayId,
    why: OverlaySendError,
    messages: u64,
}

impl Outcome {
    /// Waits a moment for room for what found none, and drops it then. Returns how many packets were dropped.
    pub(super) async fn hold(self) -> u64 {
        self.wait(HOLD).await
    }

    /// Waits until there is room for all, on links that take something from time to time. Returns how many packets were dropped.
    pub(super) async fn send(self) -> u64 {
        self.wait(STUCK).await
    }

    async fn wait(self, most: Duration) -> u64 {
        let until = Instant::now() + most;
        let sends = self.held.into_iter().map(|Held { sender, packet }| async move {
            matches!(timeout_at(until.into(), sender.send(packet)).await, Ok(Ok(())))
        });
        join_all(sends).await.into_iter().filter(|sent| !sent).count() as u64
    }

    /// Why the message that was to be sent failed, if it did at once.
    pub(super) fn failure(&self) -> Option<SendFailure> {
        self.failure
    }
}

/// What the tasks are to do.
#[derive(Debug)]
pub(super) enum Wish {
    /// Connect to this peer, for the routing.
    Connect(OverlayId),
    /// This peer has declined to.
    Declined(OverlayId),
    /// Close this node.
    Close(Node),
    /// Connect to this peer directly, as long as there are streams to it.
    Approach(OverlayId),
}

/// What is behind the lock.
struct State {
    router: Router,
    /// The best first.
    links: HashMap<OverlayId, Vec<Entry>>,
    last_link: u64,
    waiting: HashMap<SendId, Waiting>,
    /// Peers that have said hello.
    neighbours: HashSet<OverlayId>,
    /// Peers that the application calls, and how many of its calls there are.
    called: HashMap<OverlayId, usize>,
    /// Peers whose applications call us.
    callers: Callers,
    /// Peers to which the routing wishes for a link.
    wished: HashSet<OverlayId>,
    /// Peers that are connected to directly because there are streams to them.
    approached: HashSet<OverlayId>,
    purposes: Purposes,
    /// Frames of negotiations that each peer may send.
    frames: LruCache<OverlayId, Budget>,
    /// If they are taken.
    originals: Option<Originals>,
    /// For when the timer is set.
    armed: Option<Instant>,
    topics: Joined,
    dropped: u64,
    closed: bool,
}

/// See the [module documentation](self).
pub(super) struct Core {
    id: OverlayId,
    /// Whether connections are made for the routing.
    makes_links: bool,
    state: Mutex<State>,
    timer: Notify,
    inbox: Inbox<Arrived>,
    /// What has arrived for the streams, and for the datagram socket.
    streams: Arc<PacketQueue>,
    datagrams: Arc<PacketQueue>,
    told: Mutex<Told>,
    signals: ToTree,
    wishes: mpsc::Sender<Wish>,
}

impl Core {
    pub(super) fn new(
        router: Router,
        topics: Topics,
        signals: ToTree,
        makes_links: bool,
    ) -> (Arc<Self>, mpsc::Receiver<Wish>) {
        let (wishes, receiver) = mpsc::channel(WISHES);
        let id = router.routing().id();
        let state = State {
            router,
            links: HashMap::new(),
            last_link: 0,
            waiting: HashMap::new(),
            neighbours: HashSet::new(),
            called: HashMap::new(),
            callers: Callers::default(),
            wished: HashSet::new(),
            approached: HashSet::new(),
            purposes: Purposes::default(),
            frames: LruCache::new(REMEMBERED),
            originals: None,
            armed: None,
            topics: Joined::new(topics),
            dropped: 0,
            closed: false,
        };
        let core = Self {
            id,
            makes_links,
            state: Mutex::new(state),
            timer: Notify::new(),
            inbox: Inbox::default(),
            streams: packets(),
            datagrams: packets(),
            told: Mutex::default(),
            signals,
            wishes,
        };
        (Arc::new(core), receiver)
    }

    pub(super) fn id(&self) -> OverlayId {
        self.id
    }

    pub(super) fn inbox(&self) -> &Inbox<Arrived> {
        &self.inbox
    }

    /// What has arrived for the streams.
    pub(super) fn streams(&self) -> &Arc<PacketQueue> {
        &self.streams
    }

    /// What has arrived for the datagram socket.
    pub(super) fn datagrams(&self) -> &Arc<PacketQueue> {
        &self.datagrams
    }

    /// Looks at the router.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Router) -> T) -> T {
        look(&lock(&self.state).router)
    }

    /// Has the router do something, and carries out what it decides.
    pub(super) fn have<T>(&self, act: impl FnOnce(&mut Router, Instant) -> T) -> T {
        let mut state = lock(&self.state);
        let now = now();
        let done = act(&mut state.router, now);
        self.drive_on(&mut state, now);
        done
    }

    /// What was dropped besides what the router counts.
    pub(super) fn dropped(&self) -> u64 {
        lock(&self.state).dropped + self.signals.dropped()
    }

    pub(super) fn count_dropped(&self, count: u64) {
        if count > 0 {
            lock(&self.state).dropped += count;
        }
    }

    /// Brings the router packets that have come over a link, and carries out what it decides. Takes them all.
    pub(super) fn receive(&self, from: &Linked, packets: &mut Vec<Bytes>) -> Outcome {
        let mut state = lock(&self.state);
        let (now, mut outcome) = (now(), Outcome::default());
        state.heard_over(from, now);
        for packet in packets.drain(..) {
            state.router.set_full(self.inbox.is_full());
            state.router.receive(&from.peer(), packet, now);
            // Before the next: what is delivered may fill the inbox.
            self.poll_outputs(&mut state, &mut outcome, false, now);
        }
        self.arm(&mut state);
        outcome
    }

    /// Carries out what the router has decided, without a wait for what finds no room: it is dropped.
    fn drive_on(&self, state: &mut State, now: Instant) {
        let outcome = self.carry_out(state, false, now);
        state.dropped += outcome.held.len() as u64;
    }

    /// Sends a message, and lets `confirm` know what comes of it.
    pub(super) fn send(
        &self,
        to: OverlayId,
        kind: Kind,
        body: Bytes,
        confirm: Option<(Duration, oneshot::Sender<Result<(), SendFailure>>)>,
    ) -> Result<Outcome, OverlaySendError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(OverlaySendError::Closed);
        }
        let now = now();
        let (within, waiting) = confirm.unzip();
        let send = state.router.send(to, kind, body, within, now).map_err(OverlaySendError::refused)?;
        if let Some(waiting) = waiting {
            state.waiting.insert(send, Waiting::Confirm(waiting));
        }
        let mut outcome = Outcome { own: Some(send), ..Outcome::default() };
        self.poll_outputs(&mut state, &mut outcome, true, now);
        self.arm(&mut state);
        Ok(outcome)
    }

    /// Does what is due, again and again.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = {
                let mut state = lock(&self.state);
                state.armed = state.due();
                state.armed
            };
            tokio::select! {
                () = self.timer.notified() => continue,
                () = sleep_until(due) => {}
            }
            // Without a wait a link that is busy would be taken for one that does not answer.
            let outcome = {
                let mut state = lock(&self.state);
                let now = now();
                state.router.handle_timeout(now);
                state.topics_timeout(now);
                self.originals_timeout(&mut state, now);
                self.carry_out(&mut state, false, now)
            };
            self.count_dropped(outcome.hold().await);
        }
    }

    /// Carries out what the router has decided. What is `patient` waits for room on links that are full already.
    fn carry_out(&self, state: &mut State, patient: bool, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.poll_outputs(state, &mut outcome, patient, now);
        self.arm(state);
        outcome
    }

    fn poll_outputs(&self, state: &mut State, outcome: &mut Outcome, patient: bool, now: Instant) {
        let mut undelivered = Vec::new();
        while let Some(output) = state.router.poll_output() {
            match output {
                Output::Transmit { to, packet } => match state.hand(&to, packet, patient, now) {
                    Handed::Taken => {}
                    Handed::Wait(held) => outcome.held.push(held),
                    Handed::Dropped | Handed::Over => state.dropped += 1,
                },
                Output::Deliver { from, verified, through, kind: Kind::Signal, body } if verified => {
                    self.signal_arrived(state, from, through, body, now);
                }
                Output::Deliver { from, verified, kind, body, .. } => {
                    self.deliver(state, from, verified, kind, body, now);
                }
                Output::NeighbourUp(peer) => {
                    state.neighbours.insert(peer);
                    state.topics_neighbour_up(now);
                    self.emit(OverlayEvent::NeighbourUp(peer));
                }
                Output::NeighbourDown(peer) => {
                    state.neighbours.remove(&peer);
                    self.emit(OverlayEvent::NeighbourDown(peer));
                }
                Output::Confirmed { send } => {
                    if let Some(Waiting::Confirm(waiting)) = state.waiting.remove(&send) {
                        let _ = waiting.send(Ok(()));
                    }
                }
                Output::Failed { send, to, kind, reason } => match state.waiting.remove(&send) {
                    Some(Waiting::Confirm(waiting)) => drop(waiting.send(Err(reason))),
                    // If there was no answer, the tree has its own patience.
                    Some(Waiting::Signal(to)) if reason == SendFailure::NoRoute => {
                        self.signals.undeliverable(to, Undeliverable::Unknown);
                    }
                    Some(Waiting::Signal(_)) => {}
                    None if kind == Kind::Topic => state.topics_peer_gone(&to, now),
                    None if outcome.own == Some(send) => outcome.failure = Some(reason),
                    None => told::add(&mut undelivered, to, kind, reason),
                },
                Output::Connect(peer) => {
                    if self.makes_links && self.wishes.try_send(Wish::Connect(peer)).is_ok() {
                        state.wished.insert(peer);
                    } else {
                        state.router.connect_failed(&peer, now);
                    }
                }
                Output::Release(peer) => self.release(state, &peer),
                Output::Foreign { to, message } => state.send_to_original(&to, &message),
            }
        }
        self.tell_undelivered(undelivered);
    }

    /// Has the timer go off earlier, if it must.
    fn arm(&self, state: &mut State) {
        let due = state.due();
        if due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            state.armed = due;
            self.timer.notify_one();
        }
    }

    fn deliver(&self, state: &mut State, from: OverlayId, verified: bool, kind: Kind, body: Bytes, now: Instant) {
        let taken = match kind {
            Kind::Json | Kind::Binary if verified => {
                let bytes = body.len();
                self.inbox.push(Arrived { from, verified, kind, body }, bytes)
            }
            Kind::Stream if verified => self.streams.try_push(from, body).is_ok(),
            Kind::Datagram if verified => self.datagrams.try_push(from, body).is_ok(),
            Kind::Topic => return state.topics_arrived(from, verified, body, now),
            Kind::Foreign => return self.foreign_arrived(state, from, &body, now),
            _ => false,
        };
        state.dropped += u64::from(!taken);
    }

    /// Nothing comes or goes any more.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        let now = now();
        state.leave_topics(now);
        self.drive_on(&mut state, now);
        state.closed = true;
        state.waiting.clear();
        for entry in state.links.values().flatten() {
            entry.sender.close();
            if let Some(node) = entry.node.as_ref().filter(|node| state.purposes.is_ours(node)) {
                // Once polled, the closing goes on.
                let _ = node.close().now_or_never();
            }
        }
        state.links.clear();
        state.neighbours.clear();
        state.originals = None;
        drop(state);
        self.inbox.end();
        self.streams.close();
        self.datagrams.close();
        lock(&self.told).end();
    }
}

/// A queue of packets between the overlay and its streams or datagram socket.
pub(super) fn packets() -> Arc<PacketQueue> {
    Arc::new(PacketQueue::new(QUEUED_PACKETS, QUEUED_BYTES))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
