//! Links to neighbours: what carries packets between two peers, reliably and in order.
//!
//! - [`signal`]: how new WebRTC nodes come about, through the overlay itself
//! - [`websocket`], [`listener`], [`places`]: links to peers that listen, that listening, and what one address may have of it
//! - [`handshake`]: how the two ends of such a WebSocket prove who they are. Pure.

pub(crate) mod handshake;
pub(crate) mod listener;
pub(crate) mod places;
pub(crate) mod signal;
pub(crate) mod websocket;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;

use super::OverlayId;
use super::router::MAX_PACKET_BYTES;
use crate::identity::PeerId;
use crate::node::{Channel, Message, Messages, SendError, TrySendError};

/// The named channel of a node that carries packets.
pub(crate) const CHANNEL: &str = "pmesh.overlay";

/// A link to a neighbour whose id is proven.
#[derive(Debug)]
pub(crate) struct Link {
    /// The neighbour.
    pub(crate) id: OverlayId,
    /// Its key, of which the id is derived.
    pub(crate) key: PeerId,
    /// Where packets to it go.
    pub(crate) sender: Sender,
    /// Packets from it.
    pub(crate) packets: Packets,
}

impl Link {
    /// The link that is a [channel](CHANNEL) of an open node. `None` if its peer has no identity.
    pub(crate) fn over(channel: Channel) -> Option<Self> {
        let key = channel.node().peer_id()?;
        let packets = Packets(Source::Channel { messages: channel.messages(), channel: channel.clone() });
        Some(Self { id: OverlayId::of(&key), key, sender: Sender::new(Sink::Channel(channel)), packets })
    }
}

/// Why a packet was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    /// The neighbour does not keep up. Gives the packet back.
    #[error("the link is full")]
    Full(Bytes),
    /// The link is over.
    #[error("the link is over")]
    Closed,
    /// The packet is larger than [`MAX_PACKET_BYTES`].
    #[error("the packet is too large")]
    TooLarge,
}

/// Sends packets over a link. Dropping it closes the link, after what is queued is sent, for a bounded time.
pub(crate) struct Sender {
    sink: Sink,
    taken: AtomicU64,
}

enum Sink {
    Channel(Channel),
    WebSocket(websocket::Queue),
}

impl Sender {
    fn new(sink: Sink) -> Self {
        Self { sink, taken: AtomicU64::new(0) }
    }

    /// How many packets the link has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Queues a packet. Never waits.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: then it is dropped.
    pub(crate) fn try_send(&self, packet: Bytes) -> Result<(), NotSent> {
        if packet.len() > MAX_PACKET_BYTES {
            return Err(NotSent::TooLarge);
        }
        match &self.sink {
            Sink::Channel(channel) => channel.try_send(packet).map_err(|error| match error {
                TrySendError::Full(Message::Binary(packet)) => NotSent::Full(packet),
                TrySendError::Full(_) => NotSent::Closed,
                TrySendError::NotOpen(_) => NotSent::Closed,
                TrySendError::TooLarge { .. } => NotSent::TooLarge,
            }),
            Sink::WebSocket(queue) => queue.try_send(packet),
        }?;
        self.count();
        Ok(())
    }

    /// Queues a packet, once there is room.
    ///
    /// # Errors
    ///
    /// [`NotSent`], never because the link is full.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call has sent nothing.
    pub(crate) async fn send(&self, packet: Bytes) -> Result<(), NotSent> {
        if packet.len() > MAX_PACKET_BYTES {
            return Err(NotSent::TooLarge);
        }
        match &self.sink {
            Sink::Channel(channel) => channel.send(packet).await.map_err(|error| match error {
                SendError::TooLarge { .. } => NotSent::TooLarge,
                _ => NotSent::Closed,
            }),
            Sink::WebSocket(queue) => queue.send(packet).await,
        }?;
        self.count();
        Ok(())
    }

    fn count(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the link, after what is queued is sent, for a bounded time.
    pub(crate) fn close(&self) {
        match &self.sink {
            Sink::Channel(channel) => close(channel),
            Sink::WebSocket(queue) => queue.close(),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sink {
            Sink::Channel(_) => "Sender(channel)",
            Sink::WebSocket(_) => "Sender(WebSocket)",
        })
    }
}

/// The packets that arrive on a link, in order: a stream that ends with the link. Who does not read slows the neighbour down.
/// Dropping it closes the link too.
#[derive(Debug)]
pub(crate) struct Packets(Source);

#[derive(Debug)]
enum Source {
    Channel { messages: Messages, channel: Channel },
    WebSocket(mpsc::Receiver<Bytes>),
}

impl Stream for Packets {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.0 {
            Source::Channel { messages, channel } => match ready!(messages.poll_next_unpin(cx)) {
                Some(Message::Binary(packet)) if packet.len() <= MAX_PACKET_BYTES => Poll::Ready(Some(packet)),
                Some(_) => {
                    // No packet: the neighbour has another idea of the protocol.
                    close(channel);
                    Poll::Ready(None)
                }
                None => Poll::Ready(None),
            },
            Source::WebSocket(packets) => packets.poll_recv(cx),
        }
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        if let Source::Channel { channel, .. } = &self.0 {
            close(channel);
        }
    }
}

fn close(channel: &Channel) {
    // Once polled, the closing goes on.
    let _ = channel.close().now_or_never();
}

#[cfg(test)]
mod tests;
