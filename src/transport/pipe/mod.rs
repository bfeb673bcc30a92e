//! The two queues between a node and its link: what waits to be sent, and what waits to be read.

mod inbox;
mod outbox;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError, mpsc};

use self::inbox::Inbox;
use self::outbox::Outbox;
use super::{LinkEvent, LinkId};
use crate::error::CloseReason;
use crate::lock::lock;
use crate::protocol::frame::Frame;
use crate::protocol::limits::{MAX_PACKET_BYTES, MAX_SIGNAL_BYTES};
use crate::protocol::packet::{Kind, PacketError, PacketReader};

pub(crate) use self::inbox::Subscription;

/// User messages that may wait to be sent on one link, in bytes. At it, `send` waits and `try_send` says full.
const SEND_QUEUE_BYTES: usize = 1024 * 1024;

/// What a queued message costs beside its bytes, so that many small ones are bounded too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A transport may cut what arrives out of a shared buffer of about this size, in bytes.
const SHARED_BUFFER_BYTES: usize = 16 * 1024;

/// What a link carries: exactly what a WebSocket and a data channel both can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WireMessage {
    /// Said to be UTF-8; who reads it must check.
    Text(Bytes),
    Binary(Bytes),
}

/// How user messages and frames are put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As the original P has it: `[0, json]` as text, binary as it is, at most so many bytes each.
    Plain { max_message: usize },
    /// In packets, with this much credit at the start, and messages of at most so many bytes each, if the other side says so.
    Packets { window: (u32, u32), max_message: Option<u64> },
}

/// What to do with a plain message that finds the inbox full although somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Wait: the transport below slows the sender down.
    Wait,
    /// End the link: the transport must be drained, and has no way to slow the sender down.
    Overflow,
}

/// What an adapter is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Send this as text (UTF-8).
    Text(BytesMut),
    /// Send this as binary.
    Binary(BytesMut),
    /// All is sent, and the pipe takes no more: close the link.
    Finished,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The queue is full.
    Full,
    /// The link is not open yet, or not any more.
    NotOpen,
    /// The message is larger than so many bytes.
    TooLarge(usize),
}

/// The queues themselves, as the node sees them. They outlive an attempt to open a link: where two offers cross, the link
/// that lost is dropped, and another takes over its queues.
#[derive(Debug)]
pub(crate) struct Queues {
    outbox: Mutex<Outbox>,
    /// Bytes for which there is room in the outbox. Closed when the pipe takes no more.
    room: Semaphore,
    /// Wakes the writer.
    outgoing: Notify,
    inbox: Mutex<Inbox>,
    /// Wakes a reader that waits for room in the inbox.
    consumed: Notify,
    max_message: usize,
}

/// The end of the queues that an adapter pumps, and its way to tell the tree.
#[derive(Debug)]
pub(crate) struct Pipe {
    link: LinkId,
    events: mpsc::Sender<(LinkId, LinkEvent)>,
    queues: Arc<Queues>,
    /// Set when another link has taken over: from then on this end does nothing.
    revoked: AtomicBool,
}

impl Pipe {
    /// The end for one link. The link's predecessor, if any, must have been [revoked](Self::revoke).
    pub(crate) fn new(link: LinkId, events: mpsc::Sender<(LinkId, LinkEvent)>, queues: Arc<Queues>) -> Arc<Self> {
        Arc::new(Self { link, events, queues, revoked: AtomicBool::new(false) })
    }

    #[cfg(test)]
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// The link that this end is for.
    pub(crate) fn link(&self) -> LinkId {
        self.link
    }

    /// Cuts the link off from the queues. What it still does has no effect on them, and nobody hears of it.
    pub(crate) fn revoke(&self) {
        // Under the lock, so that a link that is just opening is either cut off before or has opened.
        let _outbox = lock(&self.queues.outbox);
        self.revoked.store(true, Ordering::Release);
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Fixes the framing: from now on messages are taken. Call it before [`LinkEvent::Opened`] is sent.
    pub(crate) fn open(&self, framing: Framing) {
        let mut outbox = lock(&self.queues.outbox);
        if !self.is_revoked() {
            outbox.open(framing);
            self.queues.outgoing.notify_one();
        }
    }

    /// Tells the tree. Waits while the tree is busy. Cancel safe.
    pub(crate) async fn emit(&self, event: LinkEvent) {
        if self.is_revoked() {
            return;
        }
        // The tree is gone only when the root is: then nobody wants to know.
        let _ = self.events.send((self.link, event)).await;
    }

    /// Takes no more messages; once the queue is sent, [`Outgoing::Finished`] comes.
    pub(crate) fn start_closing(&self) {
        if !self.is_revoked() {
            self.queues.start_closing();
        }
    }

    /// What is to be sent next, once there is something. One task only. Cancel safe: what it returns has left the queue,
    /// and nothing has before.
    pub(crate) async fn next_outgoing(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.try_next_outgoing() {
                return outgoing;
            }
            self.queues.outgoing.notified().await;
        }
    }

    /// What is to be sent next, if there is something now.
    pub(crate) fn try_next_outgoing(&self) -> Option<Outgoing> {
        if self.is_revoked() {
            // The wake-up was meant for the link that took over.
            self.queues.outgoing.notify_one();
            return Some(Outgoing::Finished);
        }
        let grant = lock(&self.queues.inbox).take_due_grant();
        let (outgoing, freed) = lock(&self.queues.outbox).next(grant, || lock(&self.queues.inbox).take_grant());
        if freed > 0 {
            self.queues.room.add_permits(freed);
        }
        outgoing
    }

    /// Takes what has arrived. Waits while the tree is busy with earlier frames, or, with [`Delivery::Wait`], while the
    /// application has not read enough. Not cancel safe.
    ///
    /// # Errors
    ///
    /// The reason to end the link: the other side closed it, broke the protocol, or sent more than is read.
    pub(crate) async fn deliver(&self, message: WireMessage, delivery: Delivery) -> Result<(), CloseReason> {
        if self.is_revoked() {
            return Err(CloseReason::Cancelled);
        }
        let packets = lock(&self.queues.outbox).is_packets();
        match (packets, message) {
            (true, WireMessage::Binary(packet)) => self.deliver_packet(packet).await,
            (true, WireMessage::Text(_)) => Err(CloseReason::Protocol("text between pmesh peers".into())),
            (false, WireMessage::Binary(bytes)) => {
                self.deliver_plain(Kind::Binary, compact(bytes, SHARED_BUFFER_BYTES), delivery).await
            }
            (false, WireMessage::Text(bytes)) => {
                let Ok(text) = std::str::from_utf8(&bytes) else {
                    self.emit(LinkEvent::Malformed).await;
                    return Ok(());
                };
                match Frame::parse(text) {
                    Ok(Frame::Message(json)) => {
                        let json = bytes.slice_ref(json.get().as_bytes());
                        self.deliver_plain(Kind::Json, compact(json, bytes.len()), delivery).await
                    }
                    Ok(_) if text.len() <= MAX_SIGNAL_BYTES => {
                        self.emit(LinkEvent::Frame(text.to_owned())).await;
                        Ok(())
                    }
                    _ => {
                        self.emit(LinkEvent::Malformed).await;
                        Ok(())
                    }
                }
            }
        }
    }

    async fn deliver_plain(&self, kind: Kind, body: Bytes, delivery: Delivery) -> Result<(), CloseReason> {
        if body.len() > self.queues.max_message {
            return Err(CloseReason::Protocol(PacketError::TooLarge.to_string()));
        }
        loop {
            if lock(&self.queues.inbox).push_plain(kind, &body) {
                return Ok(());
            }
            if delivery == Delivery::Overflow {
                return Err(CloseReason::Overflow);
            }
            self.queues.consumed.notified().await;
        }
    }

    async fn deliver_packet(&self, packet: Bytes) -> Result<(), CloseReason> {
        let violation = |what: &dyn std::fmt::Display| CloseReason::Protocol(what.to_string());
        if packet.len() > MAX_PACKET_BYTES {
            return Err(violation(&PacketError::TooLarge));
        }
        let mut closed = false;
        let mut cost = 0;
        let mut reader = PacketReader::new(packet.clone());
        loop {
            let checked = lock(&self.queues.inbox).check(&mut reader, self.queues.max_message);
            let (messages, other) = checked.map_err(|error| violation(&error))?;
            if messages {
                cost = packet.len();
            }
            let Some(record) = other else { break };
            match record.kind {
                // Those have been checked.
                Kind::Json | Kind::Binary => {}
                Kind::Frame => {
                    let frame = lock(&self.queues.inbox).push_frame(record).map_err(|error| violation(&error))?;
                    if let Some(frame) = frame {
                        match String::from_utf8(frame.into()) {
                            Ok(text) => self.emit(LinkEvent::Frame(text)).await,
                            Err(_) => self.emit(LinkEvent::Malformed).await,
                        }
                    }
                }
                Kind::Credit => {
                    let (bytes, packets) = record.credit().map_err(|error| violation(&error))?;
                    let granted = lock(&self.queues.outbox).grant(bytes, packets);
                    if granted.map_err(|error| violation(&error))? {
                        self.queues.outgoing.notify_one();
                    }
                }
                Kind::Close => closed = true,
                Kind::Unknown => {}
            }
        }
        lock(&self.queues.inbox).push_packet(packet, cost).map_err(|error| violation(&error))?;
        if closed { Err(CloseReason::Remote) } else { Ok(()) }
    }

    /// Tells the tree that the link is over. The tree then decides about the node and its queues: another link may be
    /// taking over.
    pub(crate) async fn finish(&self, reason: CloseReason) {
        self.emit(LinkEvent::Closed(reason)).await;
    }
}

impl Queues {
    /// Queues for a link that is not open yet. `window` is the credit that this side announces to a pmesh peer, in bytes
    /// and packets; `max_message` bounds user messages in both directions.
    pub(crate) fn new(window: (u32, u32), max_message: usize) -> Arc<Self> {
        Arc::new(Self {
            outbox: Mutex::new(Outbox::default()),
            room: Semaphore::new(SEND_QUEUE_BYTES),
            outgoing: Notify::new(),
            inbox: Mutex::new(Inbox::new(window)),
            consumed: Notify::new(),
            max_message,
        })
    }

    /// Ends the pipe without an event. What has arrived can still be read.
    pub(crate) fn shut(&self) {
        self.room.close();
        lock(&self.outbox).shut();
        lock(&self.inbox).shut();
        self.outgoing.notify_one();
        self.consumed.notify_one();
    }

    /// Keeps what is unread after the end within a budget shared with others, in KiB; forgets it where that is used up.
    /// Returns how many bytes were forgotten.
    pub(crate) fn keep_unread(&self, budget: &Arc<Semaphore>) -> usize {
        let mut inbox = lock(&self.inbox);
        let unread = inbox.unread();
        if unread == 0 {
            return 0;
        }
        let kib = u32::try_from(unread.div_ceil(1024)).unwrap_or(u32::MAX);
        let permit = budget.clone().try_acquire_many_owned(kib).ok();
        let forgotten = if permit.is_some() { 0 } else { unread };
        inbox.keep(permit);
        forgotten
    }

    /// Takes no more messages; once the queue is sent, [`Outgoing::Finished`] comes.
    pub(crate) fn start_closing(&self) {
        self.room.close();
        lock(&self.outbox).start_closing();
        self.outgoing.notify_one();
    }

    /// Queues a user message, once there is room. Cancel safe: a cancelled call has queued nothing.
    pub(crate) async fn send(&self, kind: Kind, body: Bytes) -> Result<(), Rejected> {
        let cost = cost(&body);
        let permits = match self.room.try_acquire_many(cost) {
            Ok(permits) => permits,
            Err(_) => {
                // What can never be sent does not wait.
                self.check(kind, &body)?;
                self.room.acquire_many(cost).await.map_err(|_| Rejected::NotOpen)?
            }
        };
        self.enqueue(kind, body, permits)
    }

    /// Queues a user message if there is room.
    pub(crate) fn try_send(&self, kind: Kind, body: Bytes) -> Result<(), Rejected> {
        match self.room.try_acquire_many(cost(&body)) {
            Ok(permits) => self.enqueue(kind, body, permits),
            Err(error) => {
                self.check(kind, &body)?;
                Err(match error {
                    TryAcquireError::Closed => Rejected::NotOpen,
                    TryAcquireError::NoPermits => Rejected::Full,
                })
            }
        }
    }

    fn check(&self, kind: Kind, body: &Bytes) -> Result<(), Rejected> {
        let limit = lock(&self.outbox).max_message(kind, self.max_message).ok_or(Rejected::NotOpen)?;
        if body.len() > limit { Err(Rejected::TooLarge(limit)) } else { Ok(()) }
    }

    /// Queues a message for which there is room. Gives the room back if it cannot be queued.
    fn enqueue(&self, kind: Kind, body: Bytes, room: SemaphorePermit<'_>) -> Result<(), Rejected> {
        let cost = cost(&body);
        let first = lock(&self.outbox).push(kind, body, cost, self.max_message)?;
        room.forget();
        if first {
            self.outgoing.notify_one();
        }
        Ok(())
    }

    /// Queues a signalling frame, ahead of user messages. Never waits: gives the frame back if the link does not keep up.
    pub(crate) fn signal(&self, frame: String) -> Result<(), String> {
        lock(&self.outbox).push_frame(frame)?;
        self.outgoing.notify_one();
        Ok(())
    }

    /// Bytes of user messages that wait to be sent.
    pub(crate) fn buffered(&self) -> usize {
        lock(&self.outbox).buffered()
    }

    /// Reads messages from here on, and those that nobody has read yet if nobody else listens.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription::new(self.clone())
    }
}

/// A copy of what is only a small part of its buffer: the rest must not stay in memory with it.
fn compact(part: Bytes, buffer: usize) -> Bytes {
    if part.len() < buffer / 2 { Bytes::copy_from_slice(&part) } else { part }
}

fn cost(body: &Bytes) -> u32 {
    (body.len() + MESSAGE_OVERHEAD_BYTES).min(SEND_QUEUE_BYTES) as u32
}

const _: () = assert!(SEND_QUEUE_BYTES <= u32::MAX as usize && MAX_PACKET_BYTES <= 65_536);
