//! What an application holds of an overlay.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::OverlayId;
use super::builder::OverlayBuilder;
use super::compat::peer_relay::ConnectFailure;
use super::core::Core;
use super::datagram::DatagramSocket;
use super::error::{JoinError, OverlaySendError};
use super::events::OverlayEvents;
use super::inbox::OverlayMessages;
use super::link::listener::Refused;
use super::packets::QueuedPort;
use super::router::{Counters, Kind};
use super::routing::{FingerError, Row};
use super::stream::{DialError, ListenError, Listener, Stream, Streams};
use super::topic::Topic;
use super::topics::{self, TopicId};
use crate::lock::lock;
use crate::node::{Connect, ConnectError, Message, Node, Only, Root};
use crate::protocol::packet::Kind as Encoding;

/// A root's part in an overlay: messages to any id, through the peers there are.
///
/// Handles are cheap to clone. When the last one is dropped, the overlay ends at once, and the connections that it had made for itself
/// close with its node; those of the application stay. [`close`](Self::close) does so and waits.
#[derive(Clone)]
pub struct Overlay {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) root: Root,
    pub(super) core: Arc<Core>,
    pub(super) node: Node,
    pub(super) local_addr: Option<SocketAddr>,
    pub(super) refused: Option<Refused>,
    pub(super) streams: Arc<Streams>,
    pub(super) connects_for_streams: bool,
    pub(super) datagram_port: Arc<QueuedPort>,
    pub(super) running: JoinHandle<()>,
    pub(super) only: Mutex<Option<Only>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.running.abort();
        self.core.close();
    }
}

impl Overlay {
    /// Settings for an overlay of this root's. A root has one at most.
    pub fn builder(root: &Root) -> OverlayBuilder {
        OverlayBuilder::new(root.clone())
    }

    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Who this peer is in the overlay.
    pub fn id(&self) -> OverlayId {
        self.inner.core.id()
    }

    /// The root that it belongs to.
    pub fn root(&self) -> &Root {
        &self.inner.root
    }

    /// The overlay as a node of the tree: peers can be dialled through it by their overlay id, as through an onramp.
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Where it listens for neighbours, if it does.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr
    }

    /// Sends a message to a peer, over others if there is no direct link. Waits, for 10 seconds at most, while the first
    /// link on the way has no room; then the message is lost.
    ///
    /// Returns when the message is on its way, or waits here. On its way it may get lost and be overtaken; it does not arrive twice. Nobody
    /// there can read or alter it. It waits, for 10 seconds at most, if the key of the other side is not known yet, as for
    /// each first message, until that has been asked for; and where there is no neighbour yet, but a way in, a URL to
    /// [begin](OverlayBuilder::bootstrap) at or an onramp, for the first one. What has waited in vain is lost, and told by
    /// [`OverlayEvent::Undelivered`](super::OverlayEvent::Undelivered).
    ///
    /// With [`compat_peer_relay`](OverlayBuilder::compat_peer_relay) JSON to a peer whose key is not known may go in the way of
    /// originals, where everybody on the way can read and alter it: if a peer on the way says that the id is an original's, and if
    /// no peer leads to it and originals are among the neighbours. What must not be read by others is to be sent as
    /// bytes, or with [`send_confirmed`](Self::send_confirmed): then it is sealed, or fails.
    ///
    /// # Errors
    ///
    /// [`OverlaySendError`] if it is too large, too many messages wait, or the overlay is closed; and if it is known at once that nobody
    /// leads to the id: there is no neighbour and no way in, or the key is known and the peer is gone.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have sent the message.
    pub async fn send(&self, to: OverlayId, message: impl Into<Message>) -> Result<(), OverlaySendError> {
        let (kind, body) = encoded(message.into());
        let outcome = self.inner.core.send(to, kind, body, None)?;
        if let Some(failure) = outcome.failure() {
            return Err(failure.into());
        }
        self.inner.core.count_dropped(outcome.send().await);
        Ok(())
    }

    /// Sends a message as [`send`](Self::send) does, again if it must, until the other side has confirmed that it has it.
    ///
    /// That means that it waits there for the application to read it. Where a peer on the way is silent, or there is no neighbour yet but
    /// a way in, it is tried until the time is over.
    ///
    /// # Errors
    ///
    /// [`OverlaySendError`]; [`NoRoute`](OverlaySendError::NoRoute), mostly within seconds, if all who were asked have said that nobody
    /// leads to the id, so it has not arrived; [`TimedOut`](OverlaySendError::TimedOut) if no confirmation has come within this time,
    /// of an hour at most, and it may have arrived.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have sent the message.
    pub async fn send_confirmed(
        &self,
        to: OverlayId,
        message: impl Into<Message>,
        within: Duration,
    ) -> Result<(), OverlaySendError> {
        let (kind, body) = encoded(message.into());
        let (sender, confirmed) = oneshot::channel();
        let outcome = self.inner.core.send(to, kind, body, Some((within, sender)))?;
        let (mut confirmed, mut sending) =
            (confirmed, pin!(async { self.inner.core.count_dropped(outcome.send().await) }));
        let result = tokio::select! {
            biased;
            // It may have gone another way meanwhile.
            result = &mut confirmed => result,
            () = &mut sending => confirmed.await,
        };
        match result {
            Ok(result) => Ok(result?),
            Err(_) => Err(OverlaySendError::Closed),
        }
    }

    /// Messages for this peer, from now on: those that nobody has read yet too, up to 256 of them, of 256 KiB in all.
    ///
    /// Several streams each get every message. While 4,096 messages or 4 MiB wait in a stream, further ones are lost to it; one that
    /// nobody takes is not confirmed. Dropping the stream stops listening. It ends with the overlay.
    pub fn messages(&self) -> OverlayMessages {
        OverlayMessages(self.inner.core.inbox().subscribe())
    }

    /// What happens, from now on, and before that which URLs to begin at have led to no link. A reader that is more than 1,024 events behind loses the oldest, and is told.
    pub fn events(&self) -> OverlayEvents {
        self.inner.core.all_events()
    }

    /// Connects to a peer directly: the open node to it, or a new one, which is signalled through the overlay.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(&self, to: OverlayId) -> Result<Node, ConnectError> {
        if let Some(node) = self.inner.core.keep_open_node(&to) {
            return Ok(node);
        }
        let _call = self.inner.core.call(to);
        let node = self.inner.node.connect(Connect::to(to.to_string())).await?;
        // It may have been made for something else.
        self.inner.core.keep(&node);
        Ok(node)
    }

    /// Whether this id is known as that of an original of peer-relay: it is a neighbour, or a peer on the way to it says so. There are no
    /// nodes to originals; [`link_original`](Self::link_original) makes a direct link.
    pub fn is_original(&self, id: &OverlayId) -> bool {
        self.inner.core.look(|router| router.knows_original(id))
    }

    /// Makes a direct link to an original of peer-relay, which is asked for it through the neighbours there are. Does nothing if there
    /// is one. A pmesh peer that is known by originals only becomes a neighbour of its own kind. Takes at most 10 seconds.
    ///
    /// # Errors
    ///
    /// [`ConnectFailure`]; [`NotTaken`](ConnectFailure::NotTaken) without
    /// [`compat_peer_relay`](OverlayBuilder::compat_peer_relay), and [`NotAllowed`](ConnectFailure::NotAllowed) if
    /// [`dial_answers`](super::PeerRelayCompat::dial_answers) is off.
    ///
    /// # Cancel safety
    ///
    /// The attempt goes on if the future is dropped.
    pub async fn link_original(&self, to: OverlayId) -> Result<(), ConnectFailure> {
        self.inner.core.call_original(to).await.unwrap_or(Err(ConnectFailure::NotTaken))
    }

    /// Closes the direct connections to a peer, and waits until they are closed. It can still be reached through others.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the closing goes on.
    pub async fn disconnect(&self, from: &OverlayId) {
        self.inner.core.drop_original(from);
        self.inner.core.disconnect(from);
        let is_theirs = |node: &Node| node.peer_id().is_some_and(|peer| OverlayId::of(&peer) == *from);
        let nodes: Vec<Node> = self.inner.root.peers().into_iter().filter(is_theirs).collect();
        futures_util::future::join_all(nodes.iter().map(Node::close)).await;
    }

    /// Listens for streams that others [dial](Self::dial) for this service. Dropping the listener stops that.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if the name is none, or somebody listens for it.
    pub fn listen(&self, service: &str) -> Result<Listener, ListenError> {
        self.inner.streams.listen(service)
    }

    /// Makes a stream to a service of a peer, over others if there is no direct connection.
    ///
    /// It is reliable, and encrypted and authenticated from end to end, and many of them may be open at once. When a direct connection
    /// comes up it takes that, without a break, and goes back to relays if that goes; one is made in the background, unless that
    /// is [switched off](OverlayBuilder::connect_for_streams), and closed when the streams to the peer have been over for a while. Takes at most 20 seconds.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub async fn dial(&self, to: OverlayId, service: &str) -> Result<Stream, DialError> {
        let stream = self.inner.streams.dial(to, service).await?;
        if self.inner.connects_for_streams {
            self.inner.core.approach(to);
        }
        Ok(stream)
    }

    /// A socket for datagrams to and from any id, in the shape of [`tokio::net::UdpSocket`]. What sockets receive is shared between
    /// all of an overlay: each datagram goes to one of them.
    pub fn datagram_socket(&self) -> DatagramSocket {
        DatagramSocket::new(self.inner.datagram_port.clone())
    }

    /// Joins the topic with this name, see [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub fn topic(&self, name: &str) -> Result<Topic, JoinError> {
        self.join(TopicId::of(name))
    }

    /// Joins a topic: gets what its members broadcast, and passes it on. Members are looked for in the background, see
    /// [`Topic::joined`]. A topic may be joined several times; the peer leaves it with the last of these.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if it is in too many topics, or the overlay is closed.
    pub fn join(&self, topic: TopicId) -> Result<Topic, JoinError> {
        self.inner.core.join_topic(topic).map(Topic::new)
    }

    /// What came for topics and was dropped so far.
    pub fn topic_counters(&self) -> topics::Counters {
        self.inner.core.topic_counters()
    }

    /// The peers to which there are direct links, in no order.
    pub fn neighbours(&self) -> Vec<OverlayId> {
        self.inner.core.neighbours()
    }

    /// Waits until there is a direct link to a peer; at once if there is.
    ///
    /// Never, if none comes about, or the overlay ends. Cancel safe.
    pub async fn neighbour(&self, peer: &OverlayId) {
        let mut events = self.inner.core.events();
        while !self.inner.core.is_neighbour(peer) {
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The routing table as it is.
    pub fn table(&self) -> Vec<Row> {
        self.inner.core.look(|router| router.routing().table())
    }

    /// Looks up this row of the finger table now. A row that the table does not have is added, for as long as the overlay is there.
    /// Returns at once: what is found shows in the [table](Self::table) when there is a link to it.
    ///
    /// # Errors
    ///
    /// [`FingerError`] if the routing is not [Chord](OverlayBuilder::chord), or the row is not below 48.
    pub fn update_finger(&self, row: u32) -> Result<(), FingerError> {
        self.inner.core.have(|router, now| router.update_finger(row, now))
    }

    /// Looks up all rows that the finger table has now, as [`update_finger`](Self::update_finger) does.
    ///
    /// # Errors
    ///
    /// [`FingerError::NoFingers`] if the routing is not Chord.
    pub fn update_finger_table(&self) -> Result<(), FingerError> {
        self.inner.core.have(|router, now| router.update_finger_table(now))
    }

    /// What was passed on, delivered and dropped so far.
    pub fn counters(&self) -> Counters {
        self.inner.core.look(|router| router.counters())
    }

    /// Messages and packets that were dropped so far besides those of the [`counters`](Self::counters): for lack of room on a
    /// link, or because the application did not read them.
    pub fn dropped(&self) -> u64 {
        self.inner.core.dropped()
    }

    /// Connections to the port that were turned away so far: too many at once or from one address, no WebSockets, handshakes that failed. Neighbours beyond
    /// 4,096 that came to the port, and originals that are not admitted, are not counted.
    pub fn refused(&self) -> u64 {
        self.inner.refused.as_ref().map_or(0, Refused::count)
    }

    /// Leaves all topics, ends the overlay, and waits until its node is closed. The connections that it had made for itself close too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the closing goes on.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        let closing = tokio::spawn(async move {
            inner.core.leave_topics().await;
            inner.streams.close().await;
            inner.running.abort();
            inner.core.close();
            inner.node.close().await;
            lock(&inner.only).take();
        });
        // It does not panic, and nobody aborts it.
        let _ = closing.await;
    }
}

fn encoded(message: Message) -> (Kind, bytes::Bytes) {
    let (encoding, body) = message.into_encoded();
    (if encoding == Encoding::Binary { Kind::Binary } else { Kind::Json }, body)
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay")
            .field("id", &self.id())
            .field("neighbours", &self.neighbours())
            .finish_non_exhaustive()
    }
}
