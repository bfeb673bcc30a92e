//! Named channels of a node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, hash};

use futures_util::{Stream, StreamExt, ready};
use tokio_stream::wrappers::WatchStream;

use super::error::{ChannelError, SendError, TrySendError};
use super::handle::Node;
use super::message::Message;
use super::streams::{Binaries, Messages};
use crate::protocol::limits::{MAX_CHANNEL_NAME_BYTES, MAX_CHANNELS, MAX_KINDS, RESERVED_CHANNELS};
use crate::protocol::{Delivery, Reliability};
use crate::transport::{Lane, NoLane};

/// A channel to be opened: its name, and what it promises. See [`Node::open_channel`].
///
/// A name alone stands for a channel on which all messages arrive, in order.
///
/// ```
/// # fn example(node: pmesh::Node) -> Result<(), pmesh::ChannelError> {
/// use pmesh::ChannelOptions;
///
/// // Where somebody is: an old place is of no use once a newer one is there.
/// let places = node.open_channel(ChannelOptions::new("places").unordered().max_retransmits(0))?;
/// # let _ = places;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ChannelOptions {
    name: String,
    delivery: Delivery,
}

impl ChannelOptions {
    /// A channel of this name, at most 256 bytes long, on which all messages arrive, in order. Names that begin with `pmesh.`
    /// are the library's own.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), delivery: Delivery::default() }
    }

    /// Messages may overtake each other: one that is sent again, because the network lost it, holds up no other.
    pub fn unordered(mut self) -> Self {
        self.delivery.ordered = false;
        self
    }

    /// A message is sent again so often at most, then it is given up: 0 for never again. Replaces a lifetime.
    ///
    /// When the channel is closed, messages that are still on their way are lost. Messages are 64,949 bytes long at most. Sending waits while the network has not taken the earlier ones, and not for
    /// the reader of the other side: if that is slow, the oldest of more than 256 KiB are dropped there.
    pub fn max_retransmits(mut self, times: u16) -> Self {
        self.delivery.reliability = Reliability::MaxRetransmits(times);
        self
    }

    /// A message that did not arrive within this time, in whole milliseconds and at most 65,535, is given up. Else as
    /// [`max_retransmits`](Self::max_retransmits), which it replaces.
    pub fn max_lifetime(mut self, time: Duration) -> Self {
        let millis = u16::try_from(time.as_millis()).unwrap_or(u16::MAX);
        self.delivery.reliability = Reliability::MaxLifetime(Duration::from_millis(millis.into()));
        self
    }
}

impl<T: Into<String>> From<T> for ChannelOptions {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// A named channel of a node: messages of their own, beside those of the node and of other channels.
///
/// A channel has its own queues, streams and backpressure. Who does not read one slows down who sends on it, and no other
/// channel. All channels of a node take turns on the wire, packet by packet, so a small message does not wait behind a
/// large one of another channel. Messages of one channel keep their order, if it is [ordered](Delivery::ordered);
/// between channels there is no order.
///
/// Handles are cheap to clone, and equal if they are of the same channel. Dropping them does nothing: a channel lives
/// until one of the sides [closes](Self::close) it, or the node is over. Then its streams end when everything is read.
///
/// ```
/// # use tokio_stream::StreamExt;
/// # async fn example(here: pmesh::Node, there: pmesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let files = here.channel("files")?;
/// let chat = here.channel("chat")?;
/// files.send(vec![0; 10_000_000]).await?;
/// chat.send("this does not wait for the file").await?;
///
/// // The other side names the channel too, or takes those that are opened.
/// let chat = there.channel("chat")?;
/// println!("{:?}", chat.messages().next().await);
/// let files = there.channels().next().await.ok_or("no channel")?;
/// println!("{}", files.name());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel {
    node: Node,
    lane: Arc<Lane>,
}

impl Channel {
    fn new(node: Node, lane: Arc<Lane>) -> Self {
        Self { node, lane }
    }

    pub(super) fn open(node: &Node, options: ChannelOptions) -> Result<Self, ChannelError> {
        if options.name.starts_with(RESERVED_CHANNELS) {
            return Err(ChannelError::NameReserved { prefix: RESERVED_CHANNELS });
        }
        if options.name.len() > MAX_CHANNEL_NAME_BYTES {
            return Err(ChannelError::NameTooLong { limit: MAX_CHANNEL_NAME_BYTES });
        }
        Self::open_reserved(node, options)
    }

    /// Like [`open`](Self::open), of any name.
    pub(super) fn open_reserved(node: &Node, options: ChannelOptions) -> Result<Self, ChannelError> {
        let lane = node.inner.queues.open_lane(&options.name, options.delivery).map_err(|reason| match reason {
            NoLane::NotOpen => ChannelError::NotOpen,
            NoLane::Unsupported => ChannelError::Unsupported,
            NoLane::TooMany => ChannelError::TooMany { limit: MAX_CHANNELS },
            NoLane::TooManyKinds => ChannelError::TooManyKinds { limit: MAX_KINDS },
        })?;
        Ok(Self::new(node.clone(), lane))
    }

    /// The name, the same on both sides.
    pub fn name(&self) -> &str {
        self.lane.name()
    }

    /// What holds for messages that are sent here. Chosen by the side that opened the channel; if both did at once, by
    /// each for what it sends.
    pub fn delivery(&self) -> Delivery {
        self.lane.delivery()
    }

    /// The node that the channel belongs to.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Sends a message. Waits while the other side does not read as fast as this one sends, or, if messages may get
    /// lost, while the network does not take them.
    ///
    /// Returns when the message is queued, not when it has arrived; messages arrive whole, if they do.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the channel is closed, by either side, before or while this waits, or the message is too large.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a cancelled call has sent nothing.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let (kind, body) = message.into().into_encoded();
        Ok(self.node.inner.queues.send(&self.lane, kind, body).await?)
    }

    /// Sends a message if there is room for it at once.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], which gives the message back.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        let (kind, body) = message.encode();
        let sent = self.node.inner.queues.try_send(&self.lane, kind, body);
        sent.map_err(|rejected| TrySendError::new(rejected, message))
    }

    /// Bytes of messages that are queued on this side and not yet handed to the network.
    pub fn buffered(&self) -> usize {
        self.node.inner.queues.buffered(&self.lane)
    }

    /// Waits until about so many bytes are [buffered](Self::buffered) at most, or nothing more can be sent. Cancel safe.
    pub(crate) async fn drained(&self, to: usize) {
        self.node.inner.queues.drained(&self.lane, to).await;
    }

    /// Messages from the other side, JSON and binary, in the order of arrival.
    ///
    /// Several streams of one channel each get every message. What arrives while there is no stream waits for the next
    /// one, until 256 KiB or 64 packets wait; then the other side does. The stream ends when the channel is closed, by
    /// either side, and everything is read. Dropping it stops listening.
    pub fn messages(&self) -> Messages {
        Messages::new(self.node.clone(), &self.lane)
    }

    /// Like [`messages`](Self::messages), of binary messages only.
    pub fn binaries(&self) -> Binaries {
        Binaries::new(self.messages())
    }

    /// Whether messages are taken to be sent.
    pub fn is_open(&self) -> bool {
        self.lane.is_open()
    }

    /// Waits until the channel is over: closed by this side and everything is sent, closed by the other side, or over
    /// with its node. At once if it is. Cancel safe.
    pub async fn closed(&self) {
        self.lane.over().await;
    }

    /// Closes the channel: sends what is queued, then tells the other side, whose sends fail from then on, and whose
    /// streams end when everything is read. What it still had on its way is dropped.
    ///
    /// Returns when all is sent, which waits for the other side to read if it has to. May be called any number of times.
    /// The name can be used again at once, for another channel. Until the other side has read everything, or closed its
    /// side too, the old one counts as one of the 32 that may be open.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the closing goes on.
    pub async fn close(&self) {
        self.node.inner.queues.close_lane(&self.lane);
        self.closed().await;
    }
}

impl PartialEq for Channel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lane, &other.lane)
    }
}

impl Eq for Channel {}

impl hash::Hash for Channel {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.lane).hash(state);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.name())
            .field("delivery", &self.delivery())
            .field("node", &self.node.address())
            .finish_non_exhaustive()
    }
}

/// Channels that the other side opens, see [`Node::channels`].
#[derive(Debug)]
pub struct Channels {
    node: Node,
    opened: WatchStream<()>,
}

impl Channels {
    pub(super) fn new(node: Node) -> Self {
        let opened = WatchStream::new(node.inner.queues.opened());
        Self { node, opened }
    }
}

impl Stream for Channels {
    type Item = Channel;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Channel>> {
        loop {
            let over = self.node.inner.queues.is_shut();
            if let Some(lane) = self.node.inner.queues.take_opened() {
                return Poll::Ready(Some(Channel::new(self.node.clone(), lane)));
            }
            if over || ready!(self.opened.poll_next_unpin(cx)).is_none() {
                return Poll::Ready(None);
            }
        }
    }
}
