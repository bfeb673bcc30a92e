//! Packets from id to id, as the overlay carries them: what datagrams and streams stand on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::OverlayId;
use crate::lock::lock;

/// Largest packet in bytes. A [`PacketPort`] may drop what is longer.
pub const MAX_PACKET: usize = 60 * 1024;

/// Most tasks that are remembered as waiting for a queue.
const MAX_WAITING: usize = 4096;

/// There is no room for another packet now. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another packet now")]
pub struct Full;

/// Sends packets to any id, and receives them. They may get lost, overtake each other and arrive twice, but not be cut.
///
/// Any number of tasks may wait for the same thing; all are woken. Nothing in it waits or panics, and its queues are bounded.
pub trait PacketPort: fmt::Debug + Send + Sync + 'static {
    /// Whose port it is: the source of what it sends.
    fn id(&self) -> OverlayId;

    /// Sends a packet of at most [`MAX_PACKET`] bytes. When the port is closed, it is lost.
    ///
    /// # Errors
    ///
    /// [`Full`] if nothing can be sent at all. [`poll_writable`](Self::poll_writable) is then pending until that may work. If
    /// only the way to this id is full, the packet is lost.
    fn try_send(&self, to: &OverlayId, packet: Bytes) -> Result<(), Full>;

    /// Whether something may be sent.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// The next packet that has arrived and from whom, or `None` when the port is closed.
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<(OverlayId, Bytes)>>;
}

/// A port that takes packets out of one queue and puts them into another. Whoever carries them is at the other ends.
#[derive(Debug)]
pub struct QueuedPort {
    id: OverlayId,
    outbound: Arc<PacketQueue>,
    inbound: Arc<PacketQueue>,
}

impl QueuedPort {
    /// A port of `id` that sends to `outbound` and receives from `inbound`.
    pub fn new(id: OverlayId, outbound: Arc<PacketQueue>, inbound: Arc<PacketQueue>) -> Self {
        Self { id, outbound, inbound }
    }
}

impl PacketPort for QueuedPort {
    fn id(&self) -> OverlayId {
        self.id
    }

    fn try_send(&self, to: &OverlayId, packet: Bytes) -> Result<(), Full> {
        self.outbound.try_push(*to, packet)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbound.poll_room(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<(OverlayId, Bytes)>> {
        self.inbound.poll_pop(cx)
    }
}

/// A bounded queue of packets and the ids they are for, or from.
#[derive(Debug)]
pub struct PacketQueue {
    max_packets: usize,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<(OverlayId, Bytes)>,
    bytes: usize,
    refused: u64,
    closed: bool,
    /// Tasks that wait for a packet, and for room.
    poppers: Vec<Waker>,
    pushers: Vec<Waker>,
}

impl PacketQueue {
    /// An empty queue that takes another packet while it holds less than `max_packets` and less than `max_bytes`.
    pub fn new(max_packets: usize, max_bytes: usize) -> Self {
        Self { max_packets, max_bytes, state: Mutex::default() }
    }

    /// Puts a packet in. When the queue is closed, it is lost.
    ///
    /// # Errors
    ///
    /// [`Full`], which is [counted](Self::refused).
    pub fn try_push(&self, id: OverlayId, packet: Bytes) -> Result<(), Full> {
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(());
        }
        if self.is_full(&state) {
            state.refused += 1;
            return Err(Full);
        }
        state.bytes += packet.len();
        state.packets.push_back((id, packet));
        wake(std::mem::take(&mut state.poppers), state);
        Ok(())
    }

    /// Takes the oldest packet out, or gives `None` when the queue is closed and empty.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<(OverlayId, Bytes)>> {
        let mut state = lock(&self.state);
        let was_full = self.is_full(&state);
        match state.packets.pop_front() {
            Some((id, packet)) => {
                state.bytes -= packet.len();
                if was_full {
                    wake(std::mem::take(&mut state.pushers), state);
                }
                Poll::Ready(Some((id, packet)))
            }
            None if state.closed => Poll::Ready(None),
            None => {
                remember(&mut state.poppers, cx);
                Poll::Pending
            }
        }
    }

    /// Whether [`try_push`](Self::try_push) takes a packet.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.closed || !self.is_full(&state) {
            return Poll::Ready(());
        }
        remember(&mut state.pushers, cx);
        Poll::Pending
    }

    /// Ends it: what is in it can still be taken out, nothing is taken any more. Wakes all who wait.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let mut wakers = std::mem::take(&mut state.poppers);
        wakers.append(&mut state.pushers);
        wake(wakers, state);
    }

    /// How many packets were refused because it was full.
    pub fn refused(&self) -> u64 {
        lock(&self.state).refused
    }

    fn is_full(&self, state: &State) -> bool {
        state.packets.len() >= self.max_packets || state.bytes >= self.max_bytes
    }
}

/// Each task is there once. Those that have given up cannot be told from others: at the bound all are woken, to ask again.
fn remember(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if wakers.len() >= MAX_WAITING {
        wakers.drain(..).for_each(Waker::wake);
    }
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// Without the lock, which those who are woken want.
fn wake(wakers: Vec<Waker>, lock: std::sync::MutexGuard<'_, State>) {
    drop(lock);
    wakers.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn id(last: u8) -> OverlayId {
        let mut bytes = [0; OverlayId::BYTES];
        bytes[OverlayId::BYTES - 1] = last;
        OverlayId::from_bytes(bytes)
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_packets_and_bytes() {
        let queue = PacketQueue::new(2, 10);
        assert_eq!(queue.try_push(id(1), Bytes::from_static(b"one")), Ok(()));
        assert_eq!(queue.try_push(id(2), Bytes::from_static(b"two")), Ok(()));
        assert_eq!(queue.try_push(id(3), Bytes::from_static(b"three")), Err(Full));
        assert_eq!(queue.refused(), 1);
        assert_eq!(poll_fn(|cx| queue.poll_pop(cx)).await, Some((id(1), Bytes::from_static(b"one"))));
        poll_fn(|cx| queue.poll_room(cx)).await;
        assert_eq!(queue.try_push(id(4), Bytes::from(vec![0; 10])), Ok(()), "the last may be long");
        poll_fn(|cx| queue.poll_pop(cx)).await;
        assert_eq!(queue.try_push(id(5), Bytes::new()), Err(Full), "ten bytes are in it");
    }

    #[tokio::test]
    async fn all_who_wait_are_woken() {
        let queue = Arc::new(PacketQueue::new(1, 10));
        let pop = |queue: Arc<PacketQueue>| tokio::spawn(async move { poll_fn(|cx| queue.poll_pop(cx)).await });
        let (a, b) = (pop(queue.clone()), pop(queue.clone()));
        tokio::task::yield_now().await;
        queue.try_push(id(1), Bytes::new()).unwrap();
        poll_fn(|cx| queue.poll_room(cx)).await;
        queue.close();
        let mut got = [a.await.unwrap(), b.await.unwrap()];
        got.sort();
        assert_eq!(got, [None, Some((id(1), Bytes::new()))]);
        assert_eq!(queue.try_push(id(1), Bytes::new()), Ok(()), "lost, not refused");
        assert_eq!(poll_fn(|cx| queue.poll_pop(cx)).await, None);
    }
}
