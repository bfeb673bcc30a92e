//! Messages for the application, until it takes them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

use super::OverlayId;
use super::router::MAX_BODY_BYTES;
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

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(OverlayMessage, usize)>,
    bytes: usize,
    waker: Option<Waker>,
    over: bool,
}

impl Queue {
    /// Returns whether it was taken, and whether there is room for another.
    fn push(&mut self, message: OverlayMessage, bytes: usize, most: (usize, usize)) -> (bool, bool) {
        let taken = self.messages.len() < most.0 && self.bytes + bytes <= most.1;
        if taken {
            self.bytes += bytes;
            self.messages.push_back((message, bytes));
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
    /// Takes a message that was so many bytes long. Returns whether somebody will get it.
    pub(super) fn push(&self, message: OverlayMessage, bytes: usize) -> bool {
        let mut state = lock(&self.state);
        state.readers.retain(|reader| reader.strong_count() > 0);
        let readers: Vec<_> = state.readers.iter().filter_map(Weak::upgrade).collect();
        let (taken, has_room) = match &readers[..] {
            [] => state.unread.push(message, bytes, (UNREAD_MESSAGES, UNREAD_BYTES)),
            [reader] => lock(reader).push(message, bytes, (MESSAGES, BYTES)),
            readers => readers.iter().fold((false, false), |(taken, has_room), reader| {
                let (takes, has) = lock(reader).push(message.clone(), bytes, (MESSAGES, BYTES));
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
        let mut queue = lock(&self.queue);
        if let Some((message, bytes)) = queue.messages.pop_front() {
            queue.bytes -= bytes;
            // If that is not enough, the next message says so.
            self.full.store(false, Ordering::Relaxed);
            return Poll::Ready(Some(message));
        }
        if queue.over {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn message(n: usize) -> OverlayMessage {
        let from = OverlayId::from_bytes([0; 20]);
        OverlayMessage { from, verified: true, message: Message::Json(n.into()) }
    }

    #[test]
    fn every_stream_gets_every_message_and_the_first_what_nobody_has_read() {
        let inbox = Inbox::default();
        assert!(inbox.push(message(1), 1));
        let (mut a, mut b) = (inbox.subscribe(), inbox.subscribe());
        assert!(inbox.push(message(2), 1));
        assert_eq!(a.next().now_or_never(), Some(Some(message(1))));
        assert_eq!(a.next().now_or_never(), Some(Some(message(2))));
        assert_eq!(b.next().now_or_never(), Some(Some(message(2))));
        assert_eq!(b.next().now_or_never(), None);
        inbox.end();
        assert_eq!(b.next().now_or_never(), Some(None));
        assert_eq!(inbox.subscribe().next().now_or_never(), Some(None));
    }

    #[test]
    fn what_is_not_read_is_bounded_in_number_and_bytes() {
        let inbox = Inbox::default();
        assert_eq!((0..2 * UNREAD_MESSAGES).filter(|n| inbox.push(message(*n), 1)).count(), UNREAD_MESSAGES);
        let mut reader = inbox.subscribe();
        assert!(inbox.push(message(0), BYTES - UNREAD_MESSAGES));
        assert!(!inbox.push(message(0), 1), "full");
        assert!(inbox.is_full());
        let fast = inbox.subscribe();
        assert!(inbox.push(message(0), 1), "one of two takes it");
        drop(fast);
        assert!(reader.next().now_or_never().is_some());
        assert!(!inbox.is_full());
        assert!(inbox.push(message(0), 1));
        assert!(inbox.is_full(), "there is no room for the largest");
    }
}
