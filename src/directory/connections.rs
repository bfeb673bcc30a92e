//! Carries out what the [pool](super::pool) decides, and tells it what happens in the tree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Fuse;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::core::{Core, State, now};
use super::doubts::Doubts;
use super::error::CallError;
use super::parting::Parting;
use super::pool::{Action, CallId, Incoming, NoConnection, Pool, PoolConfig};
use super::session::Peer;
use crate::node::{Connect, ConnectError, Event, Events, Node, NodeId, Root, Verdict};
use crate::protocol::{Address, PeerNumber};
use crate::rpc::Serving;
use crate::transport::introducer::Name;

mod leaving;
mod logins;

use logins::Logins;

/// How often an application's attempt to connect is repeated while the connection before it is being closed, at either end, and after
/// how long each.
const PATIENCE: u32 = 100;
const MOMENT: Duration = Duration::from_millis(50);

/// The connections of a session.
pub(super) struct Connections {
    pool: Pool,
    doubts: Doubts,
    /// By which number a peer is named now, to which there is a connection by an earlier one.
    vouchers: HashMap<PeerNumber, PeerNumber>,
    incoming: Incoming,
    logins: Logins,
    /// The open connections that the pool knows of.
    nodes: HashMap<PeerNumber, Node>,
    /// Whose they are, as long as they stand: also when the directory has not named them for long.
    users: HashMap<PeerNumber, Arc<str>>,
    calls: HashMap<CallId, Waiting>,
    /// Attempts to connect, each with a number of its own. As many as the pool has places.
    dials: HashMap<PeerNumber, (u64, AbortHandle)>,
    /// Nodes that the application has asked for.
    taken: HashSet<NodeId>,
    /// How both ends of a connection agree to close it.
    partings: HashMap<NodeId, Arc<Parting>>,
    /// Calls that are taken, of whom, over each open node.
    serving: HashMap<NodeId, (Peer, Serving)>,
    next: u64,
}

/// A call that is not over.
enum Waiting {
    /// For a connection.
    Begun(oneshot::Sender<Result<(Node, oneshot::Receiver<NoConnection>), NoConnection>>),
    /// For its answer, unless there can be none that is worth anything.
    Connected(oneshot::Sender<NoConnection>),
}

impl Connections {
    pub(super) fn new(config: PoolConfig, grace: Duration, seed: u64) -> Self {
        Self {
            incoming: Incoming::new(config.incoming),
            pool: Pool::new(config, seed),
            doubts: Doubts::new(grace),
            vouchers: HashMap::new(),
            logins: Logins::default(),
            nodes: HashMap::new(),
            users: HashMap::new(),
            calls: HashMap::new(),
            dials: HashMap::new(),
            taken: HashSet::new(),
            partings: HashMap::new(),
            serving: HashMap::new(),
            next: 0,
        }
    }

    /// This is the directory's node from now on.
    pub(super) fn introduced_by(&mut self, root: &Root, node: &Node) {
        self.logins.begin(node.id(), root.peers().iter().filter_map(Node::via));
    }

    /// Whether a peer of a user that makes an offer has a place.
    pub(super) fn room(&mut self, root: &Root, from: &Address, user: &Arc<str>) -> Verdict {
        // The tree says so to who is connected.
        let is_open = root.peer(from).is_some_and(|node| node.is_open());
        if is_open || self.incoming.admit(from, user, now()) { Verdict::Accept } else { Verdict::Busy }
    }

    /// Ends everything. Returns the connections that were made for calls, which are being closed.
    pub(super) fn end(&mut self) -> Vec<Node> {
        for (_, (_, dial)) in self.dials.drain() {
            dial.abort();
        }
        self.calls.clear();
        self.serving.clear();
        self.partings.clear();
        self.pool.set_online(false);
        let made: Vec<Node> = self.pool.made().filter_map(|peer| self.nodes.get(&peer).cloned()).collect();
        made.iter().for_each(close);
        made
    }

    /// Whether there is an open connection to a peer.
    pub(super) fn is_open(&self, peer: PeerNumber) -> bool {
        self.nodes.contains_key(&peer)
    }

    /// The peer of the directory at the other end of a node.
    fn peer(&self, node: &Node) -> Option<PeerNumber> {
        let introduced = node.via().is_some_and(|via| self.logins.contains(via));
        PeerNumber::of_address(node.address()).filter(|_| introduced)
    }

    /// The open connection to a peer, whoever made it.
    fn open(&self, root: &Root, peer: PeerNumber) -> Option<Node> {
        root.peer(&peer.address()).filter(|node| node.is_open() && self.peer(node) == Some(peer))
    }
}

/// A call that has a connection, or waits for one. Dropping it says that it is over.
pub(super) struct Lease {
    core: Arc<Core>,
    call: CallId,
    cut: Fuse<oneshot::Receiver<NoConnection>>,
}

impl Lease {
    /// Works on the call, as long as the answer is worth something.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, CallError> {
        tokio::select! {
            biased;
            Ok(why) = &mut self.cut => Err(why.into()),
            done = work => Ok(done),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.core.lock();
        state.connections.calls.remove(&self.call);
        state.connections.pool.finished(self.call, now());
        self.core.act(&mut state);
    }
}

impl Core {
    /// Waits for a connection to a peer, for as long as a call may. The connection is for this call until the lease is dropped.
    /// Dropping the future gives the wish up.
    pub(super) async fn connection(self: &Arc<Self>, peer: PeerNumber, keep: bool) -> Result<(Lease, Node), CallError> {
        let (mut lease, answer) = {
            let mut state = self.lock();
            if self.is_over() {
                return Err(CallError::Ended);
            }
            let Some(user) = state.presence.alias(peer).cloned() else { return Err(CallError::Gone) };
            let connections = &mut state.connections;
            connections.next += 1;
            let call = CallId(connections.next);
            let (sender, answer) = oneshot::channel();
            connections.calls.insert(call, Waiting::Begun(sender));
            let open = connections.open(&self.root, peer);
            let is_open = open.is_some();
            if let Some(node) = open {
                connections.connected_to(peer, &node, Some(&user));
            }
            connections.pool.call(call, peer, keep, is_open, now());
            self.act(&mut state);
            (Lease { core: self.clone(), call, cut: Fuse::terminated() }, answer)
        };
        match answer.await {
            Ok(Ok((node, cut))) => {
                lease.cut = cut.fuse();
                Ok((lease, node))
            }
            Ok(Err(why)) => Err(why.into()),
            Err(_) => Err(CallError::Ended),
        }
    }

    /// Connects to a peer for the application, which has the connection to itself from then on.
    pub(super) async fn connect(self: &Arc<Self>, peer: PeerNumber) -> Result<Node, ConnectError> {
        for _ in 0..PATIENCE {
            let connecting = {
                let state = self.lock();
                let (directory, _) = state.node.as_ref().ok_or(ConnectError::ViaClosed)?;
                directory.connect(peer.address())
            };
            let node = match connecting.await {
                // It has not noticed yet that the connection is over.
                Err(ConnectError::AlreadyConnected) => {
                    sleep(MOMENT).await;
                    continue;
                }
                result => result?,
            };
            if self.take(peer, &node)? {
                return Ok(node);
            }
            // It is being closed, unless the other side does not want that.
            let _ = timeout(MOMENT, node.closed()).await;
        }
        Err(ConnectError::Busy)
    }

    /// Makes a connection the application's. False if it is being closed.
    fn take(self: &Arc<Self>, peer: PeerNumber, node: &Node) -> Result<bool, ConnectError> {
        let mut state = self.lock();
        let connections = &mut state.connections;
        if connections.peer(node) != Some(peer) {
            return Err(elsewhere());
        }
        if !connections.pool.give_away(peer, now()) {
            return Ok(false);
        }
        if node.is_open() {
            connections.taken.insert(node.id());
        }
        self.act(&mut state);
        Ok(true)
    }

    pub(super) fn set_online(self: &Arc<Self>, state: &mut State, online: bool) {
        state.connections.pool.set_online(online);
        state.connections.doubts.set_online(online, now());
        self.act(state);
    }

    /// Does what the pool says.
    fn act(self: &Arc<Self>, state: &mut State) {
        while let Some(action) = state.connections.pool.poll_action() {
            match action {
                Action::Dial { peer, timeout } => self.dial(state, peer, timeout),
                Action::Abandon { peer } => {
                    if let Some((_, dial)) = state.connections.dials.remove(&peer) {
                        dial.abort();
                    }
                }
                Action::Start { call, peer } => {
                    let node = state.connections.nodes.get(&peer).cloned().ok_or(NoConnection::Gone);
                    state.connections.answer(call, node);
                }
                Action::Fail { call, why } => state.connections.answer(call, Err(why)),
                Action::Close { peer } => match state.connections.nodes.get(&peer).cloned() {
                    Some(node) if self.rpc.is_quiet(&node) => self.part(state, peer, node),
                    Some(_) => state.connections.pool.is_used(peer, now()),
                    None => state.connections.pool.closed(peer, now()),
                },
                Action::Cut { peer } => match state.connections.nodes.get(&peer) {
                    Some(node) => close(node),
                    None => state.connections.pool.closed(peer, now()),
                },
            }
        }
        self.timer.notify_one();
    }

    /// Closes a connection, if the other side does not use it.
    fn part(self: &Arc<Self>, state: &State, peer: PeerNumber, node: Node) {
        let Some(parting) = state.connections.partings.get(&node.id()).cloned() else { return close(&node) };
        let core = Arc::downgrade(self);
        tokio::spawn(async move {
            let may = parting.ask().await;
            let Some(core) = core.upgrade() else { return };
            let mut state = core.lock();
            if may {
                close(&node);
            } else {
                state.connections.pool.is_used(peer, now());
                core.act(&mut state);
            }
        });
    }

    /// Whether the other side may close a connection. If so, no call begins over it any more.
    pub(super) fn may_part(self: &Arc<Self>, peer: PeerNumber, node: &Node) -> bool {
        let mut state = self.lock();
        let connections = &mut state.connections;
        let may = !connections.taken.contains(&node.id())
            && (connections.nodes.get(&peer) != Some(node) || connections.pool.release(peer, now()));
        self.act(&mut state);
        may
    }

    fn dial(self: &Arc<Self>, state: &mut State, peer: PeerNumber, timeout: Duration) {
        let Some((directory, _)) = &state.node else {
            state.connections.pool.dialled(peer, Err(ConnectError::ViaClosed), now());
            return;
        };
        state.connections.next += 1;
        let dial = state.connections.next;
        let connecting = directory.connect(Connect::from(peer.address()).timeout(timeout));
        let (core, made) = (self.clone(), connecting.node().id());
        let task = tokio::spawn(async move {
            let result = connecting.await;
            core.dialled(peer, dial, made, result);
        });
        state.connections.dials.insert(peer, (dial, task.abort_handle()));
    }

    fn dialled(self: &Arc<Self>, peer: PeerNumber, dial: u64, made: NodeId, result: Result<Node, ConnectError>) {
        let mut state = self.lock();
        let connections = &mut state.connections;
        if connections.dials.get(&peer).is_none_or(|(current, _)| *current != dial) {
            // Abandoned in the last moment.
            result.iter().filter(|node| node.id() == made).for_each(close);
            return;
        }
        connections.dials.remove(&peer);
        connections.incoming.merged(&peer.address());
        if let Some(node) = result.as_ref().ok().filter(|node| connections.peer(node) == Some(peer) && node.is_open()) {
            // That it is open may be told later.
            self.begin(&mut state, peer, node);
        }
        let user = state.presence.alias(peer).cloned();
        let connections = &mut state.connections;
        let result = match result {
            Ok(node) if connections.peer(&node) != Some(peer) => Err(elsewhere()),
            Ok(node) => {
                let is_ours = node.id() == made && !connections.taken.contains(&made);
                connections.connected_to(peer, &node, user.as_ref());
                Ok(is_ours)
            }
            Err(error) => Err(error),
        };
        connections.pool.dialled(peer, result, now());
        if connections.nodes.get(&peer).is_some_and(|node| !node.is_open()) {
            // Its end has been told already.
            connections.disconnected(peer);
        }
        self.act(&mut state);
    }

    /// Keeps the pool's time. Never ends.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let at = self.lock().connections.next_timeout();
            let due = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    let mut state = self.lock();
                    state.connections.pool.handle_timeout(now());
                    state.connections.drop_doubted();
                    self.act(&mut state);
                }
                () = self.timer.notified() => {}
            }
        }
    }

    /// Follows what happens in the tree, until the root is closed.
    pub(super) async fn watch(self: Arc<Self>, mut events: Events) {
        while let Some(event) = events.next().await {
            let mut state = self.lock();
            match event {
                Event::Connection { node, .. } if state.connections.peer(&node).is_some() => {
                    state.connections.incoming.made(node.address(), node.id());
                }
                Event::Open { node } => self.opened(&mut state, &node),
                Event::Close { node, .. } => self.closed(&mut state, &node),
                Event::Lagged(_) => self.look_again(&mut state),
                _ => {}
            }
        }
    }

    fn opened(self: &Arc<Self>, state: &mut State, node: &Node) {
        if state.node.as_ref().is_some_and(|(directory, _)| directory == node) {
            return self.check_online(state);
        }
        let Some(peer) = state.connections.peer(node).filter(|_| node.is_open()) else { return };
        self.begin(state, peer, node);
        let user = state.presence.alias(peer).cloned();
        state.connections.connected_to(peer, node, user.as_ref());
        state.connections.pool.opened(peer, now());
        self.act(state);
    }

    /// A connection to a peer is open.
    fn begin(self: &Arc<Self>, state: &mut State, peer: PeerNumber, node: &Node) {
        if let Some(user) = state.presence.alias(peer).cloned() {
            self.take_calls(state, peer, node, &user);
        }
        if !state.connections.partings.contains_key(&node.id())
            && let Some(parting) = Parting::begin(self, peer, node)
        {
            state.connections.partings.insert(node.id(), Arc::new(parting));
        }
    }

    /// Takes the calls of a peer, before any is made to it: a call makes the link that its calls come over.
    fn take_calls(&self, state: &mut State, peer: PeerNumber, node: &Node, user: &str) {
        if state.connections.serving.contains_key(&node.id()) {
            return;
        }
        let caller = Peer::new(user, peer);
        match self.rpc.serve_node(node, caller.clone()) {
            Ok(serving) => drop(state.connections.serving.insert(node.id(), (caller, serving))),
            Err(error) => tracing::debug!(%peer, %error, "its calls are not taken"),
        }
    }

    fn closed(self: &Arc<Self>, state: &mut State, node: &Node) {
        if state.node.as_ref().is_some_and(|(directory, _)| directory == node) {
            // Without it nobody can be introduced.
            self.cut.notify_one();
        }
        let connections = &mut state.connections;
        connections.incoming.closed(node.id());
        connections.serving.remove(&node.id());
        connections.taken.remove(&node.id());
        connections.partings.remove(&node.id());
        if let Some(peer) =
            PeerNumber::of_address(node.address()).filter(|peer| connections.nodes.get(peer) == Some(node))
        {
            connections.disconnected(peer);
            self.act(state);
        }
    }

    /// Events were lost.
    fn look_again(self: &Arc<Self>, state: &mut State) {
        let there = self.root.peers();
        let ids: HashSet<NodeId> = there.iter().map(Node::id).collect();
        state.connections.incoming.retain(&ids);
        state.connections.serving.retain(|node, _| ids.contains(node));
        state.connections.taken.retain(|node| ids.contains(node));
        state.connections.partings.retain(|node, _| ids.contains(node));
        let over: Vec<Node> = state.connections.nodes.values().filter(|node| !node.is_open()).cloned().collect();
        over.iter().for_each(|node| self.closed(state, node));
        if let Some((directory, _)) = state.node.as_ref().filter(|(node, _)| !ids.contains(&node.id())) {
            tracing::debug!(address = %directory.address(), "the node of the directory is gone");
            self.cut.notify_one();
        }
        there.iter().filter(|node| node.is_open()).for_each(|node| self.opened(state, node));
    }
}

impl Connections {
    fn answer(&mut self, call: CallId, answer: Result<Node, NoConnection>) {
        // Who is gone has said so, or will.
        match (self.calls.remove(&call), answer) {
            (Some(Waiting::Begun(waiting)), Ok(node)) => {
                let (cut, is_cut) = oneshot::channel();
                let _ = waiting.send(Ok((node, is_cut)));
                self.calls.insert(call, Waiting::Connected(cut));
            }
            (Some(Waiting::Begun(waiting)), Err(why)) => drop(waiting.send(Err(why))),
            (Some(Waiting::Connected(cut)), Err(why)) => drop(cut.send(why)),
            (Some(Waiting::Connected(_)), Ok(_)) | (None, _) => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let both = [self.pool.next_timeout(), self.doubts.next_timeout()];
        both.into_iter().flatten().min().map(Instant::from_std)
    }
}

/// Closes a node in the background, after what is queued.
fn close(node: &Node) {
    // Once polled, the closing goes on.
    let _ = node.close().now_or_never();
}

/// Somebody else has the address that the peer would have in the tree.
fn elsewhere() -> ConnectError {
    ConnectError::Failed("the address is that of a connection that others have introduced".into())
}
