//! What an application holds of a node.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{broadcast, watch};

use super::channel::{Channel, ChannelOptions, Channels};
use super::connect::{Connect, Connecting};
use super::error::{ChannelError, Event, NodeError, SendError, TrySendError};
use super::message::Message;
use super::root::{Only, Shared};
use super::streams::{Announcements, Binaries, Events, Messages, Nodes};
use super::tree::NodeId;
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::protocol::Address;
use crate::transport::Queues;

/// Events that a slow reader of one node's stream may be behind before it loses some.
const NODE_EVENTS: usize = 32;

/// What a node is connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A WebSocket, to an onramp.
    WebSocket,
    /// A WebRTC data channel, to a peer.
    WebRtc,
    /// The overlay: it introduces any peer by its overlay id. Takes no messages: those sent to it are dropped.
    Overlay,
    /// A directory: it introduces peers by their number. Takes no messages: those sent to it are dropped.
    Directory,
}

/// Where a node is in its life. It only moves forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// Not open yet.
    Connecting,
    /// Messages pass.
    Open,
    /// Over, for this reason.
    Closed(CloseReason),
}

/// A node of the tree: an onramp, a peer, the overlay, or a directory.
///
/// Handles are cheap to clone, and equal if they are of the same node. Dropping them does nothing: the tree keeps the
/// connection until either side closes it, it is lost, or the last [`Root`](super::Root) is dropped.
#[derive(Clone)]
pub struct Node {
    pub(super) inner: Arc<NodeInner>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct NodeInner {
    pub(super) id: NodeId,
    /// Who introduced it.
    pub(super) via: Option<NodeId>,
    pub(super) address: Address,
    pub(super) kind: NodeKind,
    pub(super) queues: Arc<Queues>,
    /// Written by the driver only, together with the event, under the lock of the watch: see [`Node::events`].
    pub(super) state: watch::Sender<NodeState>,
    /// There once somebody listens: it takes kilobytes.
    events: OnceLock<broadcast::Sender<Event>>,
    pub(super) own_address: OnceLock<Address>,
    /// The node that a connect call gets instead of this one.
    pub(super) instead: OnceLock<Node>,
    /// Whether it was said that messages are malformed.
    malformed: AtomicBool,
    /// See [`Node::take_calls`].
    has_calls: Arc<AtomicBool>,
}

impl Node {
    pub(super) fn new(id: NodeId, via: Option<NodeId>, address: Address, kind: NodeKind, shared: Arc<Shared>) -> Self {
        let inner = NodeInner {
            id,
            via,
            address,
            kind,
            queues: shared.new_queues(),
            state: watch::Sender::new(NodeState::Connecting),
            events: OnceLock::new(),
            own_address: OnceLock::new(),
            instead: OnceLock::new(),
            malformed: AtomicBool::new(false),
            has_calls: Arc::default(),
        };
        Self { inner: Arc::new(inner), shared }
    }

    /// What tells the node from all others of its root, for use as a key. Never used again.
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The peer's address, the URL of the onramp or directory, or the address of the overlay.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// The address by which the other side knows this root, once it has said so. An onramp of pmesh has when its node is
    /// open, a pmesh peer does soon after, an original P or onramp never does.
    pub fn own_address(&self) -> Option<&Address> {
        self.inner.own_address.get()
    }

    /// Who the peer is, proven over the connection itself, whatever the introducer says. Known before the first message
    /// comes, and when the node is open. `None` before, for an onramp, and for an original P or whoever passes for one.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.inner.queues.peer()
    }

    /// The node that introduced it: only there its address means anything.
    pub(crate) fn via(&self) -> Option<NodeId> {
        self.inner.via
    }

    /// What the node is connected by.
    pub fn kind(&self) -> NodeKind {
        self.inner.kind
    }

    /// Where the node is in its life.
    pub fn state(&self) -> NodeState {
        self.inner.state.borrow().clone()
    }

    /// Whether messages pass now.
    pub fn is_open(&self) -> bool {
        *self.inner.state.borrow() == NodeState::Open
    }

    /// Connects to a peer of this node, which introduces the two and is out of the path once they are connected.
    ///
    /// Nothing happens until the [`Connecting`] is awaited or [detached](Connecting::detach). If a connection to the
    /// address is open already, that node is what it gives.
    pub fn connect(&self, to: impl Into<Connect>) -> Connecting {
        Connecting::to_peer(self, to.into())
    }

    /// All nodes of the tree that are not closed, oldest first: those of this node, of its introducer, and of all others,
    /// as in P.
    pub fn peers(&self) -> Vec<Node> {
        self.shared.nodes()
    }

    /// Sends a message. Waits while the other side does not read as fast as this one sends.
    ///
    /// Returns when the message is queued, not when it has arrived; messages arrive whole and in order.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the node is not open, closes while this waits, or the message is too large.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a cancelled call has sent nothing.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let (kind, body) = message.into().into_encoded();
        let queues = &self.inner.queues;
        Ok(queues.send(queues.main(), kind, body).await?)
    }

    /// Sends a message if there is room for it at once.
    ///
    /// ```
    /// # fn example(node: pmesh::Node) {
    /// use pmesh::TrySendError;
    ///
    /// match node.try_send("the newest state") {
    ///     Ok(()) => {}
    ///     Err(TrySendError::Full(_)) => println!("the other side is behind: it gets the next one"),
    ///     Err(error) => println!("not sent: {error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TrySendError`], which gives the message back.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        let (kind, body) = message.encode();
        let queues = &self.inner.queues;
        queues.try_send(queues.main(), kind, body).map_err(|rejected| TrySendError::new(rejected, message))
    }

    /// Bytes of messages that are queued on this side and not yet handed to the network.
    pub fn buffered(&self) -> usize {
        let queues = &self.inner.queues;
        queues.buffered(queues.main())
    }

    /// Messages from the other side, JSON and binary, in the order of arrival.
    ///
    /// Several streams of one node each get every message. What arrives while there is no stream waits for the next one:
    /// of a pmesh peer until its credit is used up (900 kB; it then waits), of others the latest 256 KiB. A stream that is
    /// not read slows down the other side of this node and nobody else; an original P, which cannot be slowed down, is cut
    /// off when 8 MiB wait. The stream ends when the node is closed and everything is read. Dropping it stops listening.
    pub fn messages(&self) -> Messages {
        Messages::new(self.clone(), self.inner.queues.main())
    }

    /// Like [`messages`](Self::messages), of binary messages only.
    pub fn binaries(&self) -> Binaries {
        Binaries::new(self.messages())
    }

    /// Like [`messages`](Self::messages), of those that are addresses: on the node of an onramp or a directory, the peers that it
    /// announces, first those who are there, then those who come. All other messages are left out.
    pub fn announcements(&self) -> Announcements {
        Announcements::new(self.messages())
    }

    /// The channel of this name, which is opened if there is none: short for [`open_channel`](Self::open_channel) with a
    /// name alone.
    ///
    /// # Errors
    ///
    /// [`ChannelError`].
    pub fn channel(&self, name: impl Into<String>) -> Result<Channel, ChannelError> {
        self.open_channel(ChannelOptions::new(name))
    }

    /// The channel of a name, which is opened if there is none, as an own sequence of messages beside those of the node.
    ///
    /// It is open at once: the other side is told with the next packet. Whoever opens a name, it is one channel; the options
    /// count for a new one only. One that the other side has closed is had until everything is read, that is until a reader has
    /// come to the end or has stopped after the last message. So are those of a node that is over.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the node is not open, the other side knows no channels, too many are open, they are of too
    /// many kinds, or the name is too long.
    pub fn open_channel(&self, options: impl Into<ChannelOptions>) -> Result<Channel, ChannelError> {
        Channel::open(self, options.into())
    }

    /// Like [`channel`](Self::channel), of a name that applications cannot use.
    pub(crate) fn reserved_channel(&self, name: &str) -> Result<Channel, ChannelError> {
        Channel::open_reserved(self, ChannelOptions::new(name))
    }

    /// Says that somebody reads the calls that come over this node, as long as what is returned lives. `None` if somebody does.
    pub(crate) fn take_calls(&self) -> Option<Only> {
        Only::take(&self.inner.has_calls)
    }

    /// Channels that the other side opens, and that this side has not got by their name. Each comes at most once; those that
    /// nobody has taken wait, unless the other side has closed them without a message. The stream ends with the node. Dropping
    /// it stops listening.
    pub fn channels(&self) -> Channels {
        Channels::new(self.clone())
    }

    /// What happens to this node and through it, from now on; if it is open or closed already, that comes first.
    ///
    /// A reader that is more than 32 events behind loses the oldest and gets [`Event::Lagged`]. The stream ends after
    /// [`Event::Close`]. Dropping it stops listening.
    pub fn events(&self) -> Events {
        Events::of_node(self)
    }

    /// The nodes that are made through this one, from now on. They are not open yet: who is there is known when they are
    /// [`opened`](Self::opened). See [`Event::Connection`].
    pub fn connections(&self) -> Nodes {
        Nodes::connections(self.events())
    }

    /// The nodes made through this one that are over, from now on. See [`Event::Disconnection`].
    pub fn disconnections(&self) -> Nodes {
        Nodes::disconnections(self.events())
    }

    /// Waits until the node is open; at once if it is. Cancel safe.
    ///
    /// # Errors
    ///
    /// The [`CloseReason`] if it is over before.
    pub async fn opened(&self) -> Result<(), CloseReason> {
        let mut state = self.inner.state.subscribe();
        let reached = state.wait_for(|state| *state != NodeState::Connecting).await;
        match reached.as_deref() {
            Ok(NodeState::Closed(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            // The sender lives in `self`.
            Err(_) => Err(CloseReason::RootClosed),
        }
    }

    /// Waits until the node is over; at once if it is. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        let mut state = self.inner.state.subscribe();
        let reached = state.wait_for(|state| matches!(state, NodeState::Closed(_))).await;
        match reached.as_deref() {
            Ok(NodeState::Closed(reason)) => reason.clone(),
            _ => CloseReason::RootClosed,
        }
    }

    /// Closes the node: sends what is queued, for at most 2 seconds, then ends the connection.
    ///
    /// Returns the reason, which is another than [`CloseReason::Local`] if the node was over for that reason before. May be
    /// called any number of times. Nodes that this one introduced stay; those still being introduced fail.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the closing goes on.
    pub async fn close(&self) -> CloseReason {
        self.shared.close_node(self);
        self.closed().await
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody listens: nothing is lost that could not be read again.
        if let Some(events) = self.inner.events.get() {
            let _ = events.send(event);
        }
    }

    /// Events from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        self.inner.events.get_or_init(|| broadcast::Sender::new(NODE_EVENTS)).subscribe()
    }

    /// Brings the node to its terminal state, once.
    pub(super) fn end(&self, reason: CloseReason) {
        self.inner.queues.shut();
        self.inner.state.send_if_modified(|state| {
            if matches!(state, NodeState::Closed(_)) {
                return false;
            }
            *state = NodeState::Closed(reason.clone());
            self.emit(Event::Close { node: self.clone(), reason });
            true
        });
    }

    /// Says so once: a peer that sends nothing else must not push other events out of the streams.
    pub(super) fn report_malformed(&self) {
        if !self.inner.malformed.swap(true, Ordering::Relaxed) {
            self.report(NodeError::MalformedMessage);
        }
    }

    pub(super) fn report(&self, error: NodeError) {
        let event = Event::Error { node: self.clone(), error };
        self.emit(event.clone());
        self.shared.emit(event);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Node {}

impl std::hash::Hash for Node {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.id.hash(state);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.inner.address)
            .field("kind", &self.inner.kind)
            .field("state", &*self.inner.state.borrow())
            .finish_non_exhaustive()
    }
}
