//! The root of the tree, and what its handles and its driver share.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, broadcast, mpsc, watch};

use super::builder::RootBuilder;
use super::connect::{Connect, Connecting, Request};
use super::driver::Driver;
use super::error::Event;
use super::firewall::Policy;
use super::handle::{Node, NodeKind, NodeState};
use super::streams::{self, Arrivals, Events, RootBinaries, RootMessages};
use super::tree::{Counters, NodeId};
use crate::error::CloseReason;
use crate::identity::{Identity, PeerId};
use crate::lock::lock;
use crate::protocol::Address;
use crate::transport::websocket::Dialler;
use crate::transport::{Queues, Transport};

/// Events that a slow reader of the root's stream may be behind before it loses some.
const ROOT_EVENTS: usize = 1024;
/// Requests of handles that may wait for the driver. At it, connect calls wait.
const REQUESTS: usize = 256;

/// Longer timeouts count as this: the clock has an end.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Messages of nodes that are over and that are kept until they are read, in KiB, over all nodes. At it, those of further
/// nodes are forgotten.
const UNREAD_KIB: usize = 64 * 1024;

/// The root of a node tree: where a program joins meshes.
///
/// Handles are cheap to clone. When the last one is dropped, all nodes close, as with [`close`](Self::close), in the
/// background.
#[derive(Clone)]
pub struct Root {
    handle: Arc<RootHandle>,
}

/// Closes the tree when the last root handle is gone. Nodes hold [`Shared`], not this.
struct RootHandle {
    shared: Arc<Shared>,
}

impl Drop for RootHandle {
    fn drop(&mut self) {
        self.shared.close_all();
    }
}

/// The only one of its kind, see [`Root::take_overlay`].
#[derive(Debug)]
pub(crate) struct Only(Arc<AtomicBool>);

impl Only {
    /// `None` if there is one.
    pub(super) fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::Relaxed)).then(|| Self(taken.clone()))
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
pub(super) struct NodeSettings {
    pub(super) connect_timeout: Duration,
    pub(super) accept_timeout: Duration,
    pub(super) window: (u32, u32),
    pub(super) max_message: usize,
    pub(super) identity: Identity,
    pub(super) require_identity: bool,
    /// After how much silence a peer is lost.
    pub(super) peer_timeout: Duration,
    /// What opens WebSockets.
    pub(super) dialler: Dialler,
}

#[derive(Debug, Default)]
struct Nodes {
    by_id: BTreeMap<NodeId, Node>,
    /// Several while an attempt is in progress beside another.
    by_address: HashMap<Address, Vec<NodeId>>,
}

#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) abandon: Vec<NodeId>,
    pub(super) close: Vec<NodeId>,
    pub(super) close_all: bool,
}

/// The events of a root. The channel takes kilobytes, so it is made for the first who listens.
#[derive(Debug, Default)]
enum RootEvents {
    #[default]
    Unheard,
    Heard(broadcast::Sender<Event>),
    /// The driver has ended, and with it the streams.
    Over,
}

impl RootEvents {
    /// Events from now on; `None` if there are no more.
    fn subscribe(&mut self) -> Option<broadcast::Receiver<Event>> {
        if let Self::Unheard = self {
            *self = Self::Heard(broadcast::Sender::new(ROOT_EVENTS));
        }
        match self {
            Self::Heard(events) => Some(events.subscribe()),
            _ => None,
        }
    }
}

/// What handles and driver share.
pub(super) struct Shared {
    pub(super) settings: NodeSettings,
    pub(super) policy: Policy,
    pub(super) requests: mpsc::Sender<Request>,
    /// Wishes of calls that cannot wait. Bounded by the number of nodes.
    wishes: Mutex<Wishes>,
    pub(super) wake: Notify,
    ids: AtomicU64,
    nodes: Mutex<Nodes>,
    events: Mutex<RootEvents>,
    /// Room for unread messages of nodes that are over, in KiB.
    pub(super) unread: Arc<Semaphore>,
    arrivals: Mutex<Vec<Weak<Arrivals>>>,
    pub(super) counters: Mutex<Counters>,
    /// See [`Root::take_overlay`].
    has_overlay: Arc<AtomicBool>,
    /// See [`Root::take_calls`].
    has_calls: Arc<AtomicBool>,
    /// Becomes true when the driver has ended.
    pub(super) ended: watch::Sender<bool>,
}

impl Root {
    /// A root with everything at its default: accepts every offer, no ICE servers, all interfaces but loopback.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a root.
    pub fn builder() -> RootBuilder {
        RootBuilder::default()
    }

    pub(super) fn start(
        settings: NodeSettings,
        policy: Policy,
        websocket: Arc<dyn Transport>,
        webrtc: Arc<dyn Transport>,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let shared = Arc::new(Shared {
            settings,
            policy,
            requests,
            wishes: Mutex::default(),
            wake: Notify::new(),
            ids: AtomicU64::new(1),
            nodes: Mutex::default(),
            events: Mutex::default(),
            unread: Arc::new(Semaphore::new(UNREAD_KIB)),
            arrivals: Mutex::default(),
            counters: Mutex::default(),
            has_overlay: Arc::default(),
            has_calls: Arc::default(),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(Driver::new(shared.clone(), receiver, websocket, webrtc).run());
        Self { handle: Arc::new(RootHandle { shared }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Says that there is an overlay of this root's, as long as what is returned lives. `None` if there is one.
    pub(crate) fn take_overlay(&self) -> Option<Only> {
        Only::take(&self.shared().has_overlay)
    }

    /// Says that somebody takes the calls of this root's peers, as long as what is returned lives. `None` if somebody does.
    pub(crate) fn take_calls(&self) -> Option<Only> {
        Only::take(&self.shared().has_calls)
    }

    #[cfg(test)]
    pub(crate) fn emit(&self, event: Event) {
        self.shared().emit(event);
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.shared().settings.identity
    }

    /// The firewall of nodes that have none of their own.
    pub(crate) fn policy(&self) -> &Policy {
        &self.shared().policy
    }

    pub(crate) fn peer_timeout(&self) -> Duration {
        self.shared().settings.peer_timeout
    }

    pub(crate) fn dialler(&self) -> &Dialler {
        &self.shared().settings.dialler
    }

    /// Who this root is, as its peers see it.
    pub fn peer_id(&self) -> PeerId {
        self.shared().settings.identity.peer_id()
    }

    /// Connects to an onramp by its URL, `ws://` or `wss://`.
    ///
    /// Nothing happens until the [`Connecting`] is awaited or [detached](Connecting::detach).
    pub fn connect(&self, url: impl Into<Connect>) -> Connecting {
        Connecting::to_url(self, url.into())
    }

    /// Adds a node whose link this transport makes, once, and which for the rest is an onramp: it introduces peers. Its
    /// address tells it from other nodes.
    pub(crate) fn attach(
        &self,
        kind: NodeKind,
        address: impl Into<Connect>,
        transport: Arc<dyn Transport>,
    ) -> Connecting {
        Connecting::attached(self, kind, address.into(), transport)
    }

    /// All nodes that are not closed, oldest first.
    pub fn peers(&self) -> Vec<Node> {
        self.shared().nodes()
    }

    /// The node of this address: the open one if there is one, else one that is on its way.
    pub fn peer(&self, address: &Address) -> Option<Node> {
        let nodes = self.shared().lock_nodes();
        let of_address = nodes.by_address.get(address)?;
        let mut of_address = of_address.iter().filter_map(|id| nodes.by_id.get(id));
        let first = of_address.next()?;
        let open = if first.is_open() { None } else { of_address.find(|node| node.is_open()) };
        Some(open.unwrap_or(first).clone())
    }

    /// Messages of all nodes with the node that each came from, from now on: those that nobody has read yet too.
    ///
    /// In order for each node; see [`Node::messages`]. Not reading the stream slows every node down. It ends when the root
    /// is closed and everything is read.
    pub fn messages(&self) -> RootMessages {
        let shared = self.shared();
        let arrivals = Arc::new(Arrivals::default());
        // The driver adds nodes and tells the arrivals under this lock, so no node is missed and none comes twice.
        let nodes = shared.lock_nodes();
        for node in nodes.by_id.values() {
            arrivals.push(node.messages());
        }
        let mut all = lock(&shared.arrivals);
        all.retain(|arrivals| arrivals.strong_count() > 0);
        all.push(Arc::downgrade(&arrivals));
        drop((all, nodes));
        if *shared.ended.borrow() {
            arrivals.end();
        }
        RootMessages::new(arrivals)
    }

    /// Like [`messages`](Self::messages), of binary messages only.
    pub fn binaries(&self) -> RootBinaries {
        RootBinaries::new(self.messages())
    }

    /// Everything that happens in the tree, from now on.
    ///
    /// A reader that is more than 1,024 events behind loses the oldest and gets [`Event::Lagged`]. The stream ends
    /// when the root is closed. Dropping it stops listening.
    pub fn events(&self) -> Events {
        Events::of_root(lock(&self.shared().events).subscribe())
    }

    /// The nodes that are made, from now on. They are not open yet, see [`Node::opened`]. See [`Event::Connection`].
    pub fn connections(&self) -> streams::Nodes {
        streams::Nodes::connections(self.events())
    }

    /// The nodes that are over, from now on. See [`Event::Disconnection`].
    pub fn disconnections(&self) -> streams::Nodes {
        streams::Nodes::disconnections(self.events())
    }

    /// What was relayed and what was dropped so far.
    pub fn counters(&self) -> Counters {
        *lock(&self.shared().counters)
    }

    /// Closes all nodes, each as [`Node::close`] does, and waits until that is done. Later connect calls fail.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the closing goes on.
    pub async fn close(&self) {
        self.shared().close_all();
        let mut ended = self.shared().ended.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("peers", &self.peers()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new_id(&self) -> NodeId {
        NodeId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn new_queues(&self) -> Arc<Queues> {
        Queues::new(self.settings.window, self.settings.max_message)
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.lock_nodes().by_id.values().cloned().collect()
    }

    fn lock_nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    /// Adds a node, and lets the root's message streams have it. Returns false if the node is over already.
    pub(super) fn add(&self, node: &Node) -> bool {
        let mut nodes = self.lock_nodes();
        if matches!(node.state(), NodeState::Closed(_)) {
            return false;
        }
        nodes.by_address.entry(node.address().clone()).or_default().push(node.inner.id);
        nodes.by_id.insert(node.inner.id, node.clone());
        let mut arrivals = lock(&self.arrivals);
        arrivals.retain(|arrivals| match arrivals.upgrade() {
            Some(arrivals) => {
                arrivals.push(node.messages());
                true
            }
            None => false,
        });
        true
    }

    /// Takes a node out and ends it, in one: whoever learns of its end does not find it here any more.
    pub(super) fn remove(&self, node: &Node, reason: CloseReason) {
        let mut nodes = self.lock_nodes();
        let id = node.inner.id;
        nodes.by_id.remove(&id);
        if let Entry::Occupied(mut of_address) = nodes.by_address.entry(node.address().clone()) {
            of_address.get_mut().retain(|other| *other != id);
            if of_address.get().is_empty() {
                of_address.remove();
            }
        }
        node.end(reason);
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody listens: nothing is lost that could not be read again.
        if let RootEvents::Heard(events) = &*lock(&self.events) {
            let _ = events.send(event);
        }
    }

    pub(super) fn abandon(&self, node: &Node) {
        self.wish(node, CloseReason::Cancelled, |wishes| wishes.abandon.push(node.inner.id));
    }

    pub(super) fn close_node(&self, node: &Node) {
        self.wish(node, CloseReason::Local, |wishes| wishes.close.push(node.inner.id));
    }

    /// Passes a wish on to the driver; ends a node that it does not have yet, so that it will not take it.
    fn wish(&self, node: &Node, reason: CloseReason, wish: impl FnOnce(&mut Wishes)) {
        let nodes = self.lock_nodes();
        if nodes.by_id.contains_key(&node.inner.id) {
            wish(&mut lock(&self.wishes));
            self.wake.notify_one();
        } else {
            node.end(reason);
        }
    }

    fn close_all(&self) {
        lock(&self.wishes).close_all = true;
        self.wake.notify_one();
    }

    pub(super) fn take_wishes(&self) -> Wishes {
        std::mem::take(&mut lock(&self.wishes))
    }

    /// The driver has ended.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
        *lock(&self.events) = RootEvents::Over;
        for arrivals in lock(&self.arrivals).drain(..).filter_map(|arrivals| arrivals.upgrade()) {
            arrivals.end();
        }
    }
}
