//! Messages for the application, until it takes them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{Stream, ready};

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

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<(T, usize)>,
    bytes: usize,
    /// Messages that found no room, since the reader was told.
    lost: u64,
    waker: Option<Waker>,
    over: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { messages: VecDeque::new(), bytes: 0, lost: 0, waker: None, over: false }
    }
}

impl<T> Queue<T> {
    /// Returns whether it was taken, and whether there is room for another.
    fn push(&mut self, message: T, bytes: usize, most: (usize, usize)) -> (bool, bool) {
        let taken = self.messages.len() < most.0 && self.bytes + bytes <= most.1;
        self.lost += u64::from(!taken);
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

#[derive(Debug)]
struct State<T> {
    readers: Vec<Weak<Mutex<Queue<T>>>>,
    /// What came while nobody read.
    unread: Queue<T>,
}

/// The queues of all streams.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    /// Whether there may be no room for another message.
    full: Arc<AtomicBool>,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State { readers: Vec::new(), unread: Queue::default() };
        Self { state: Mutex::new(state), full: Arc::default() }
    }
}

impl<T: Clone> Inbox<T> {
    /// Takes a message that was so many bytes long. Returns whether somebody will get it.
    pub(super) fn push(&self, message: T, bytes: usize) -> bool {
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
}

impl<T> Inbox<T> {
    /// A stream from here on, and of what nobody has read yet.
    pub(super) fn subscribe(&self) -> Reader<T> {
        let mut state = lock(&self.state);
        let over = state.unread.over;
        let queue = Queue { over, ..std::mem::take(&mut state.unread) };
        state.unread.over = over;
        let queue = Arc::new(Mutex::new(queue));
        state.readers.retain(|reader| reader.strong_count() > 0);
        state.readers.push(Arc::downgrade(&queue));
        self.full.store(false, Ordering::Relaxed);
        Reader { queue, full: self.full.clone() }
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

/// One of the streams of an [`Inbox`].
#[derive(Debug)]
pub(super) struct Reader<T> {
    queue: Arc<Mutex<Queue<T>>>,
    full: Arc<AtomicBool>,
}

impl<T> Reader<T> {
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
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

    /// How many messages have found no room since it was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut lock(&self.queue).lost)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        // Others may have room.
        self.full.store(false, Ordering::Relaxed);
    }
}

/// Messages that come over the overlay, see [`Overlay::messages`](super::Overlay::messages).
///
/// Taking one is cancel safe. Dropping it stops listening; what it holds is lost.
#[derive(Debug)]
pub struct OverlayMessages(pub(super) Reader<Arrived>);

impl Stream for OverlayMessages {
    type Item = OverlayMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OverlayMessage>> {
        loop {
            let Some(Arrived { from, verified, kind, body }) = ready!(self.0.poll_next(cx)) else {
                return Poll::Ready(None);
            };
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

    fn push(inbox: &Inbox<Arrived>, message: Arrived) -> bool {
        let bytes = message.body.len();
        inbox.push(message, bytes)
    }

    fn next(messages: &mut OverlayMessages) -> Option<Option<Message>> {
        messages.next().now_or_never().map(|message| message.map(|message| message.message))
    }

    #[test]
    fn every_stream_gets_every_message_and_the_first_what_nobody_has_read() {
        let inbox = Inbox::default();
        assert!(push(&inbox, json("1")));
        let (mut a, mut b) = (OverlayMessages(inbox.subscribe()), OverlayMessages(inbox.subscribe()));
        assert!(push(&inbox, json("{")) && push(&inbox, json("2")));
        assert_eq!(next(&mut a), Some(Some(Message::Json(1.into()))));
        assert_eq!(next(&mut a), Some(Some(Message::Json(2.into()))), "and not what is no JSON");
        assert_eq!(next(&mut b), Some(Some(Message::Json(2.into()))));
        assert_eq!(next(&mut b), None);
        inbox.end();
        assert_eq!(next(&mut b), Some(None));
        assert_eq!(next(&mut OverlayMessages(inbox.subscribe())), Some(None));
    }

    #[test]
    fn what_is_not_read_is_bounded_in_number_and_bytes() {
        let inbox = Inbox::default();
        assert_eq!((0..2 * UNREAD_MESSAGES).filter(|_| push(&inbox, bytes(1))).count(), UNREAD_MESSAGES);
        let mut reader = OverlayMessages(inbox.subscribe());
        assert_eq!((reader.0.take_lost(), reader.0.take_lost()), (UNREAD_MESSAGES as u64, 0));
        assert!(push(&inbox, bytes(BYTES - UNREAD_MESSAGES)));
        assert!(!push(&inbox, bytes(1)), "full");
        assert!(inbox.is_full());
        let fast = inbox.subscribe();
        assert!(push(&inbox, bytes(1)), "one of two takes it");
        drop(fast);
        assert!(next(&mut reader).is_some());
        assert!(!inbox.is_full());
        assert!(push(&inbox, bytes(1)));
        assert!(inbox.is_full(), "there is no room for the largest");
        drop(reader);
        assert!(!inbox.is_full() && push(&inbox, bytes(1)), "it waits for the next reader");
    }
}
