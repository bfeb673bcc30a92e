//! Topics, as an application holds them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, ready};

use super::OverlayId;
use super::core::Membership;
use super::error::{BroadcastError, JoinError};
use super::inbox::Reader;
use super::topics::{MAX_MESSAGE_BYTES, TopicId};
use crate::node::Message;
use crate::protocol::packet::Kind as Encoding;

/// What a message is: the first byte of its body.
const JSON: u8 = 0;
const BINARY: u8 = 1;

/// A topic that this peer is in: messages to all of its members. Made by [`Overlay::topic`](super::Overlay::topic).
///
/// Who knows the name of a topic can join it, read it and send to it; nobody can send in the name of another. Messages arrive once at
/// most, and in no order. What gets lost on its way is mostly, but not always, fetched again: members that are there and can be reached get
/// nearly everything. Who comes later, or could not be reached, also gets some of the last
/// [half a minute](super::topics::TopicsConfig::keep_for).
///
/// Handles are cheap to clone. When the last one is dropped, the peer leaves the topic, and the streams of its messages end. They also
/// end with the overlay.
#[derive(Clone)]
pub struct Topic(Arc<Membership>);

/// A message of a topic, see [`Topic::messages`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TopicMessage {
    /// Who has sent it. That is proven by its signature.
    pub origin: OverlayId,
    /// What it says.
    pub message: Message,
}

/// So many messages are lost, as the reader was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} messages of the topic are lost, as they were not read in time")]
pub struct TopicLagged(pub u64);

/// Messages of a topic, see [`Topic::messages`].
///
/// Taking one is cancel safe. Dropping it stops listening; what it holds is lost.
#[derive(Debug)]
pub struct TopicMessages(Reader<(OverlayId, Bytes)>);

impl Topic {
    pub(super) fn new(membership: Membership) -> Self {
        Self(Arc::new(membership))
    }

    /// Which topic it is.
    pub fn id(&self) -> TopicId {
        self.0.topic()
    }

    /// Sends a message to all other members, of 63 KiB at most. Waits up to a second while the first links on the way have no room.
    ///
    /// Nobody is told who gets it. Without a [neighbour](Self::neighbours) in the topic, it waits
    /// [half a minute](super::topics::TopicsConfig::keep_for) for one to come.
    ///
    /// # Errors
    ///
    /// [`BroadcastError`] if it is too large, too many were sent at once, or the overlay is closed. Then nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call has sent the message, but perhaps not to all neighbours; others pass it on.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), BroadcastError> {
        let body = encode(message.into());
        self.0.broadcast(&body).await.map_err(|refused| BroadcastError::refused(refused, MAX_MESSAGE_BYTES - 1))
    }

    /// Messages of the other members, from now on: those that nobody has read yet too, up to 256 of them, of 256
    /// KiB in all.
    ///
    /// Several streams each get every message. While 4,096 messages or 4 MiB wait in a stream, further ones are lost to it; it then
    /// says [how many](TopicLagged), before what it still holds. The stream ends when the topic is left, or with the overlay.
    pub fn messages(&self) -> TopicMessages {
        TopicMessages(self.0.inbox().subscribe())
    }

    /// The members with which this peer exchanges messages of the topic: some of all.
    pub fn neighbours(&self) -> Vec<OverlayId> {
        self.0.neighbours()
    }

    /// Waits until there is a neighbour in the topic. The first member of all waits for the second.
    ///
    /// # Errors
    ///
    /// [`JoinError::Closed`] if the overlay is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn joined(&self) -> Result<(), JoinError> {
        let mut count = self.0.neighbour_count();
        let found = count.wait_for(|count| *count > 0).await;
        found.map(drop).map_err(|_| JoinError::Closed)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("id", &self.id()).field("neighbours", &self.neighbours()).finish()
    }
}

impl TopicMessage {
    /// `None` if it is no message of an application.
    pub(super) fn decode(origin: OverlayId, mut body: Bytes) -> Option<Self> {
        let encoding = match *body.first()? {
            JSON => Encoding::Json,
            BINARY => Encoding::Binary,
            _ => return None,
        };
        let message = Message::decode(encoding, body.split_off(1)).ok()?;
        Some(Self { origin, message })
    }
}

fn encode(message: Message) -> Bytes {
    let (encoding, content) = message.into_encoded();
    let mut body = BytesMut::with_capacity(1 + content.len());
    body.put_u8(if encoding == Encoding::Binary { BINARY } else { JSON });
    body.put_slice(&content);
    body.freeze()
}

impl Stream for TopicMessages {
    type Item = Result<TopicMessage, TopicLagged>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lost = self.0.take_lost();
        if lost > 0 {
            return Poll::Ready(Some(Err(TopicLagged(lost))));
        }
        loop {
            let Some((origin, body)) = ready!(self.0.poll_next(cx)) else { return Poll::Ready(None) };
            match TopicMessage::decode(origin, body) {
                Some(message) => return Poll::Ready(Some(Ok(message))),
                None => tracing::debug!(%origin, "a message that is none is dropped"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use serde_json::json;

    use super::*;
    use crate::overlay::inbox::Inbox;

    const ORIGIN: OverlayId = OverlayId::from_bytes([1; 20]);

    #[test]
    fn messages_are_as_they_were_sent() {
        for message in [Message::from("text"), json!({"a": [1, 2]}).into(), vec![0u8, 1, 2].into(), vec![0u8; 0].into()]
        {
            let decoded = TopicMessage::decode(ORIGIN, encode(message.clone())).unwrap();
            assert_eq!((decoded.origin, decoded.message), (ORIGIN, message));
        }
        for junk in [&b""[..], b"\x00", b"\x00{", b"\x02x", b"\xff"] {
            assert_eq!(TopicMessage::decode(ORIGIN, Bytes::from_static(junk)), None);
        }
    }

    #[test]
    fn a_slow_reader_is_told_how_many_it_has_lost() {
        let inbox = Inbox::default();
        let mut messages = TopicMessages(inbox.subscribe());
        let message = TopicMessage { origin: ORIGIN, message: "hello".into() };
        let body = encode("hello".into());
        let taken = (0..5000).filter(|_| inbox.push((ORIGIN, body.clone()), 5)).count();
        assert_eq!(messages.next().now_or_never(), Some(Some(Err(TopicLagged(5000 - taken as u64)))));
        for _ in 0..taken {
            assert_eq!(messages.next().now_or_never(), Some(Some(Ok(message.clone()))));
        }
        assert_eq!(messages.next().now_or_never(), None);
    }
}
