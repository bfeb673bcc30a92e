//! What a session knows and does, under one lock. Who brings something, a task or a handle, carries out what follows before it lets
//! go, and nothing in that waits. What is about connections to peers is in [`super::connections`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::again::Again;
use super::connections::Connections;
use super::error::{LoginError, RequestError};
use super::event::SessionEvent;
use super::link::{FromTree, ToTree};
use super::pool::PoolConfig;
use super::presence::Presence;
use crate::lock::lock;
use crate::node::{Connect, Node, NodeKind, NodeState, Offer, Root, Verdict};
use crate::protocol::directory::{Notice, OWN_ALIAS, Refused, Request};
use crate::protocol::{Address, PeerNumber};
use crate::rpc::Rpc;
use crate::transport::introducer::{Name, introducer};

/// Events that a slow reader may be behind before it loses some.
const EVENTS: usize = 1024;
/// Requests that may wait for their answers. Further ones fail.
const REQUESTS: usize = 64;
/// How long a request waits for its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not logged in, at first or any more.
    Joining,
    /// Everybody who is there is known, and may be called.
    Online,
    /// Over, and why if it was not this side that ended it.
    Over(Option<LoginError>),
}

/// What was dropped or ignored in a session so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionCounters {
    /// Texts of the directory that are none.
    pub malformed: u64,
    /// Notices that contradict what is known, or are beyond what is kept.
    pub ignored: u64,
    /// Introductions from or for somebody whom the directory has not named.
    pub foreign: u64,
    /// Introductions by originals of BoneValue, whose data channels are others.
    pub originals: u64,
    /// What the node tree could not take in time, or was no introduction of its.
    pub dropped: u64,
}

pub(super) struct Core {
    pub(super) root: Root,
    pub(super) rpc: Rpc,
    url: Address,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    events: broadcast::Sender<SessionEvent>,
    /// When the pool's timer is due may have changed.
    pub(super) timer: Notify,
    /// The connection to the directory is of no use any more.
    pub(super) cut: Notify,
}

pub(super) struct State {
    pub(super) presence: Presence,
    pub(super) connections: Connections,
    /// The latest own number.
    number: Option<PeerNumber>,
    /// What is to be sent to the directory. `None` if there is no connection.
    pub(super) texts: Option<mpsc::Sender<String>>,
    /// The directory as a node, once our number is known.
    pub(super) node: Option<(Node, ToTree)>,
    requests: HashMap<u64, oneshot::Sender<Result<Value, Refused>>>,
    pub(super) introductions: VecDeque<(u64, PeerNumber)>,
    pub(super) again: Again,
    next: u64,
    /// Its `ignored` is counted by the presence.
    pub(super) counters: SessionCounters,
}

impl Core {
    pub(super) fn new(root: Root, rpc: Rpc, url: &str, pool: PoolConfig, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            root,
            rpc,
            url: Address::new(url).unwrap_or_else(|_| Address::new("directory").expect("it has 1 to 512 bytes")),
            state: Mutex::new(State {
                presence: Presence::new(),
                connections: Connections::new(pool, grace, rand::random()),
                number: None,
                texts: None,
                node: None,
                requests: HashMap::new(),
                introductions: VecDeque::new(),
                again: Again::default(),
                next: 0,
                counters: SessionCounters::default(),
            }),
            phase: watch::Sender::new(Phase::Joining),
            events: broadcast::Sender::new(EVENTS),
            timer: Notify::new(),
            cut: Notify::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Over(_))
    }

    pub(super) fn is_online(&self) -> bool {
        *self.phase.borrow() == Phase::Online
    }

    /// Whether the directory's node is over, without which nobody can be introduced.
    pub(super) fn is_cut(&self) -> bool {
        let state = self.lock();
        state.node.as_ref().is_some_and(|(node, _)| matches!(node.state(), NodeState::Closed(_)))
    }

    pub(super) fn number(&self) -> Option<PeerNumber> {
        self.lock().number
    }

    pub(super) fn counters(&self) -> SessionCounters {
        let state = self.lock();
        let now = state.node.as_ref().map_or(0, |(_, to_tree)| to_tree.dropped());
        SessionCounters { ignored: state.presence.ignored(), dropped: state.counters.dropped + now, ..state.counters }
    }

    /// What is there, and what happens from now on.
    pub(super) fn listen(&self) -> (Vec<SessionEvent>, broadcast::Receiver<SessionEvent>) {
        let state = self.lock();
        let mut known = state.presence.snapshot();
        if let Phase::Over(error) = &*self.phase.borrow() {
            known.push(SessionEvent::Ended { error: error.clone() });
        }
        (known, self.events.subscribe())
    }

    fn emit(&self, event: SessionEvent) {
        // Nobody listens: nothing is lost that could not be read again.
        let _ = self.events.send(event);
    }

    // The connection to the directory.

    /// There is a connection, to which these texts go.
    pub(super) fn joining(&self, texts: mpsc::Sender<String>) {
        let mut state = self.lock();
        state.presence.begin();
        state.texts = Some(texts);
    }

    /// Takes a text of the directory. Returns what the tree wants to say, when there is a node for it.
    pub(super) fn receive(self: &Arc<Self>, text: &str) -> Option<FromTree> {
        let mut state = self.lock();
        match Notice::parse(text) {
            Ok(Notice::Ok { id, data }) => state.answered(id, Ok(data)),
            Ok(Notice::Error { id: Some(id), refused }) => {
                let refused =
                    refused.unwrap_or(Refused { code: "failed".into(), message: "the directory refused".into() });
                state.answered(id, Err(refused));
            }
            Ok(Notice::Introduce { what, route, data }) => self.introduced(&mut state, what, route, &data),
            // Nothing is asked without an `id`.
            Ok(Notice::Error { id: None, .. } | Notice::TokenResponse { .. }) => state.counters.malformed += 1,
            Ok(notice) => return self.noticed(&mut state, &notice),
            Err(_) => state.counters.malformed += 1,
        }
        None
    }

    fn noticed(self: &Arc<Self>, state: &mut State, notice: &Notice) -> Option<FromTree> {
        let mut events = Vec::new();
        let was_complete = state.presence.is_complete();
        state.presence.handle(notice, &mut events);
        let (mut here, from_tree) = self.happened(state, events);
        if !was_complete && state.presence.is_complete() {
            // To the new node all are new.
            here = state.presence.peers().map(|(number, _)| number).collect();
            self.check_online(state);
        }
        if let Some((_, to_tree)) = state.node.as_ref().filter(|_| state.presence.is_complete()) {
            if !here.is_empty() {
                // They may be at the other end of a connection that stands since an earlier login, of this side or of theirs.
                let users = state.connections.users();
                let is_connected =
                    |peer: &PeerNumber| state.presence.alias(*peer).is_some_and(|user| users.contains(user));
                state.again.tell(here.iter().copied().filter(is_connected));
            }
            to_tree.here(here);
        }
        from_tree
    }

    /// Does what follows, and tells it. Returns who has come, and what the tree wants to say, when there is a node for it.
    fn happened(self: &Arc<Self>, state: &mut State, events: Vec<SessionEvent>) -> (Vec<PeerNumber>, Option<FromTree>) {
        let (mut here, mut from_tree, mut disowned) = (Vec::new(), None, HashSet::new());
        for event in events {
            match &event {
                SessionEvent::Connected { number } => {
                    state.number = Some(*number);
                    from_tree = Some(self.attach(state, *number));
                }
                SessionEvent::PeerConnect { name, number } => {
                    here.push(*number);
                    if state.connections.named(*number, name) {
                        disowned.insert(*number);
                    }
                }
                SessionEvent::PeerDisconnect { number, ended } => {
                    if *ended {
                        disowned.insert(*number);
                    } else {
                        self.peer_left(state, *number);
                    }
                    here.retain(|peer| peer != number);
                    state.again.forget(*number);
                    if let Some((_, to_tree)) = &state.node {
                        to_tree.left(*number);
                    }
                }
                SessionEvent::UserRemoved { alias } => disowned.extend(state.connections.connected(alias)),
                _ => {}
            }
            self.emit(event);
        }
        if !disowned.is_empty() {
            self.disown(state, disowned);
        }
        (here, from_tree)
    }

    /// Makes the node of this login.
    fn attach(self: &Arc<Self>, state: &mut State, own: PeerNumber) -> FromTree {
        let (transport, from_tree, to_tree) = introducer(own);
        let core = Arc::downgrade(self);
        let room = move |offer: &Offer| core.upgrade().map_or(Verdict::Refuse, |core| core.room(offer));
        let connect = Connect::from(&self.url).firewall(self.root.policy().clone().and(room));
        let node = self.root.attach(NodeKind::Directory, connect, transport).detach();
        state.connections.introduced_by(&self.root, &node);
        state.node = Some((node, to_tree));
        from_tree
    }

    /// What the firewall of the application has accepted needs a place. Who comes through a peer has inherited this, and needs none.
    fn room(&self, offer: &Offer) -> Verdict {
        if *offer.via() != self.url {
            return Verdict::Accept;
        }
        let mut state = self.lock();
        let user = PeerNumber::of_address(offer.from()).and_then(|peer| state.presence.alias(peer)).cloned();
        user.map_or(Verdict::Refuse, |user| state.connections.room(&self.root, offer.from(), &user))
    }

    /// Whether everybody is known, and the node open: then calls may be made.
    pub(super) fn check_online(self: &Arc<Self>, state: &mut State) {
        let is_open = state.node.as_ref().is_some_and(|(node, _)| node.is_open());
        if is_open && state.presence.is_complete() && *self.phase.borrow() == Phase::Joining {
            self.phase.send_replace(Phase::Online);
            self.set_online(state, true);
        }
    }

    /// The connection is lost. Who was there counts as there, but for the other logins of the own account if the directory has `ended`
    /// this one: it has ended all of them.
    pub(super) fn lost(self: &Arc<Self>, ended: bool) {
        let mut state = self.lock();
        self.forget_link(&mut state);
        if state.presence.own().is_some() {
            state.presence.begin();
            self.emit(SessionEvent::Disconnected);
        }
        if ended {
            let mut events = Vec::new();
            state.presence.account_ended(&mut events);
            self.happened(&mut state, events);
            let ours = state.connections.connected(OWN_ALIAS).collect();
            self.disown(&mut state, ours);
        }
        self.phase.send_if_modified(|phase| {
            let was_online = *phase == Phase::Online;
            if was_online {
                *phase = Phase::Joining;
            }
            was_online
        });
        self.set_online(&mut state, false);
    }

    fn forget_link(&self, state: &mut State) {
        state.texts = None;
        if let Some((_, to_tree)) = state.node.take() {
            state.counters.dropped += to_tree.dropped();
        }
        // Who waits is told that the answer is lost.
        state.requests.clear();
        state.introductions.clear();
        state.again.clear();
    }

    /// The session is over. Returns the connections that it had made and that are being closed.
    pub(super) fn end(&self, error: Option<LoginError>) -> Vec<Node> {
        let mut state = self.lock();
        // The task of the session and its last handle may both come here.
        if self.is_over() {
            return Vec::new();
        }
        self.forget_link(&mut state);
        self.phase.send_replace(Phase::Over(error.clone()));
        self.emit(SessionEvent::Ended { error });
        state.connections.end()
    }

    /// Asks the directory for something. Dropping the future forgets the answer; what was asked for may be done all the same.
    pub(super) async fn request(&self, request: Request<'_>) -> Result<Value, RequestError> {
        let (id, answer) = {
            let mut state = self.lock();
            let texts =
                state.texts.clone().filter(|_| state.presence.is_complete()).ok_or(RequestError::NotConnected)?;
            // Those that nobody waits for any more.
            state.requests.retain(|_, request| !request.is_closed());
            if state.requests.len() >= REQUESTS {
                return Err(RequestError::Busy);
            }
            let id = state.next_id();
            texts.try_send(request.to_json(Some(id))).map_err(|_| RequestError::Busy)?;
            let (sender, answer) = oneshot::channel();
            state.requests.insert(id, sender);
            (id, answer)
        };
        match timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(RequestError::Lost),
            Err(_) => {
                self.lock().requests.remove(&id);
                Err(RequestError::TimedOut)
            }
        }
    }
}

impl State {
    /// For something that the directory is to answer.
    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answered(&mut self, id: u64, answer: Result<Value, Refused>) {
        if let Some(request) = self.requests.remove(&id) {
            // Nobody may wait any more.
            let _ = request.send(answer);
            return;
        }
        self.introduction_answered(id, answer);
    }
}

/// In the time of the runtime, for what is pure.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn the_end_is_told_once() {
        for _ in 0..100 {
            let (root, grace) = (Root::default(), Duration::ZERO);
            let core = Core::new(root, Rpc::new(), "ws://localhost", PoolConfig::default(), grace);
            let (_, mut events) = core.listen();
            // The task of the session and its last handle are there at the same time.
            let (held, both) = (core.lock(), Barrier::new(3));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        both.wait();
                        core.end(None)
                    });
                }
                both.wait();
                std::thread::yield_now();
                drop(held);
            });
            assert_eq!(events.try_recv(), Ok(SessionEvent::Ended { error: None }));
            assert!(events.try_recv().is_err());
        }
    }
}
