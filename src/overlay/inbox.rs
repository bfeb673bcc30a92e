//! Messages for the application, until it takes them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;

use super::OverlayId;
use super::router::{Kind, MAX_BODY_BYTES};
use crate::lock::lock;
use crate::node::Message;

/// Messages that may wait in one stream, and their bytes. At it, those that come are dropped, and not confirmed.
const MESSAGES: usize = 4096;
const BYTES: usize = 4 * 1024 * 1024;
/// Messages kept while there is no stream, and their bytes. At it, those that come are dropped, and not confirmed.
const UNREAD_MESSAGES: usize = 256;
const UNREAD_BYTES: usize = 256 * 1024;

/// A message that came over the overlay, see [`Overlay::messages`](super::Overlay::messages).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OverlayMessage {
    /// Who sent it.
    pub from: OverlayId,
    /// Whether that is proven. It is for all messages but those of original peer-relay peers, whose ids anybody can claim.
    pub verified: bool,
    /// What it says.
    pub message: Message,
}

/// A message as it came. JSON is parsed by who reads it: so the bound of a queue is one of memory.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) from: OverlayId,
    pub(super) verified: bool,
    /// [`Kind::Binary`], or JSON.
    pub(super) kind: Kind,
    pub(super) body: Bytes,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Arrived>,
    bytes: usize,
    waker: Option<Waker>,
    over: bool,
}

impl Queue {
    /// Returns whether it was taken, and whether there is room for another.
    fn push(&mut self, message: Arrived, most: (usize, usize)) -> (bool, bool) {
        let bytes = message.body.len();
        let taken = self.messages.len() < most.0 && self.bytes + bytes <= most.1;
        if taken {
            self.bytes += bytes;
            self.messages.push_back(message);
            self.wake();
        }
        (taken, self.messages.len() < most.0 && self.bytes + MAX_BODY_BYTES <= most.1)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    readers: Vec<Weak<Mutex<Queue>>>,
    /// What came while nobody read.
    unread: Queue,
}

/// The queues of all streams.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Whether there may be no room for another message.
    full: Arc<AtomicBool>,
}

impl Inbox {
    /// Takes a message. Returns whether somebody will get it.
    pub(super) fn push(&self, message: Arrived) -> bool {
        let mut state = lock(&self.state);
        state.readers.retain(|reader| reader.strong_count() > 0);
        let readers: Vec<_> = state.readers.iter().filter_map(Weak::upgrade).collect();
        let (taken, has_room) = match &readers[..] {
            [] => state.unread.push(message, (UNREAD_MESSAGES, UNREAD_BYTES)),
            [reader] => lock(reader).push(message, (MESSAGES, BYTES)),
            readers => readers.iter().fold((false, false), |(taken, has_room), reader| {
                let (takes, has) = lock(reader).push(message.clone(), (MESSAGES, BYTES));
                (taken | takes, has_room | has)
            }),
        };
        if !has_room {
            self.full.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Whether nobody has room for the largest message.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// A stream from here on, and of what nobody has read yet.
    pub(super) fn subscribe(&self) -> OverlayMessages {
        let mut state = lock(&self.state);
        let over = state.unread.over;
        let queue = Queue { over, ..std::mem::take(&mut state.unread) };
        state.unread.over = over;
        let queue = Arc::new(Mutex::new(queue));
        state.readers.retain(|reader| reader.strong_count() > 0);
        state.readers.push(Arc::downgrade(&queue));
        self.full.store(false, Ordering::Relaxed);
        OverlayMessages { queue, full: self.full.clone() }
    }

    /// Nothing will come any more.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.unread.over = true;
        for reader in state.readers.iter().filter_map(Weak::upgrade) {
            let mut queue = lock(&reader);
            queue.over = true;
            queue.wake();
        }
    }
}

/// Messages that come over the overlay, see [`Overlay::messages`](super::Overlay::messages).
///
/// Taking one is cancel safe. Dropping it stops listening; what it holds is lost.
#[derive(Debug)]
pub struct OverlayMessages {
    queue: Arc<Mutex<Queue>>,
    full: Arc<AtomicBool>,
}

impl Stream for OverlayMessages {
    type Item = OverlayMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OverlayMessage>> {
        loop {
            let mut queue = lock(&self.queue);
            let Some(Arrived { from, verified, kind, body }) = queue.messages.pop_front() else {
                if queue.over {
                    return Poll::Ready(None);
                }
                queue.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            queue.bytes -= body.len();
            drop(queue);
            // If that is not enough, the next message says so.
            self.full.store(false, Ordering::Relaxed);
            let message = match kind {
                Kind::Binary => Ok(Message::Binary(body)),
                _ => serde_json::from_slice(&body).map(Message::Json),
            };
            match message {
                Ok(message) => return Poll::Ready(Some(OverlayMessage { from, verified, message })),
                Err(error) => tracing::debug!(%from, %error, "a message that is not JSON is dropped"),
            }
        }
    }
}

impl Drop for OverlayMessages {
    fn drop(&mut self) {
        // Others may have room.
        self.full.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn bytes(length: usize) -> Arrived {
        let from = OverlayId::from_bytes([0; 20]);
        Arrived { from, verified: true, kind: Kind::Binary, body: vec![0; length].into() }
    }

    fn json(text: &'static str) -> Arrived {
        Arrived { kind: Kind::Json, body: text.into(), ..bytes(0) }
    }

    fn next(messages: &mut OverlayMessages) -> Option<Option<Message>> {
        messages.next().now_or_never().map(|message| message.map(|message| message.message))
    }

    #[test]
    fn every_stream_gets_every_message_and_the_first_what_nobody_has_read() {
        let inbox = Inbox::default();
        assert!(inbox.push(json("1")));
        let (mut a, mut b) = (inbox.subscribe(), inbox.subscribe());
        assert!(inbox.push(json("{")) && inbox.push(json("2")));
        assert_eq!(next(&mut a), Some(Some(Message::Json(1.into()))));
        assert_eq!(next(&mut a), Some(Some(Message::Json(2.into()))), "and not what is no JSON");
        assert_eq!(next(&mut b), Some(Some(Message::Json(2.into()))));
        assert_eq!(next(&mut b), None);
        inbox.end();
        assert_eq!(next(&mut b), Some(None));
        assert_eq!(next(&mut inbox.subscribe()), Some(None));
    }

    #[test]
    fn what_is_not_read_is_bounded_in_number_and_bytes() {
        let inbox = Inbox::default();
        assert_eq!((0..2 * UNREAD_MESSAGES).filter(|_| inbox.push(bytes(1))).count(), UNREAD_MESSAGES);
        let mut reader = inbox.subscribe();
        assert!(inbox.push(bytes(BYTES - UNREAD_MESSAGES)));
        assert!(!inbox.push(bytes(1)), "full");
        assert!(inbox.is_full());
        let fast = inbox.subscribe();
        assert!(inbox.push(bytes(1)), "one of two takes it");
        drop(fast);
        assert!(next(&mut reader).is_some());
        assert!(!inbox.is_full());
        assert!(inbox.push(bytes(1)));
        assert!(inbox.is_full(), "there is no room for the largest");
        drop(reader);
        assert!(!inbox.is_full() && inbox.push(bytes(1)), "it waits for the next reader");
    }
}
