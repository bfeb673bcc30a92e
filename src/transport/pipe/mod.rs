//! The queues between a node and its link: what waits to be sent, and what waits to be read, on each channel.

mod inbox;
mod lane;
mod lanes;
mod outbox;
mod queues;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{LinkEvent, LinkId};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::lock::lock;
use crate::protocol::Delivery;
use crate::protocol::frame::Frame;
use crate::protocol::limits::{MAX_PACKET_BYTES, MAX_SIGNAL_BYTES};
use crate::protocol::packet::{Kind, PacketError, PacketReader};

pub(crate) use self::inbox::Subscription;
pub(crate) use self::lane::Lane;
pub(crate) use self::outbox::NoLane;
pub(crate) use self::queues::Queues;

/// User messages that may wait to be sent on the main channel of a link, in bytes. At it, `send` waits and `try_send` says full.
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
pub(crate) enum WhenFull {
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
    /// Do this with a stream beside the main one: we number them. Between pmesh peers only.
    Stream { id: u32, action: StreamAction },
    /// All is sent, and the pipe takes no more: close the link.
    Finished,
}

/// What an adapter is to do with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamAction {
    /// Make it, and say when it is [open](Pipe::stream_opened).
    Open(Delivery),
    /// Send this.
    Send { lossy: bool, packet: BytesMut },
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

    /// Fixes the framing, and who is at the other end: from now on messages are taken. Call it before anything is
    /// delivered and before [`LinkEvent::Opened`] is sent.
    pub(crate) fn open(&self, framing: Framing, peer: Option<PeerId>) {
        let mut outbox = lock(&self.queues.outbox);
        if !self.is_revoked() {
            if let Some(peer) = peer {
                // A link opens once, and no other follows one that has.
                let _ = self.queues.peer.set(peer);
            }
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
        let (outgoing, freed) = lock(&self.queues.outbox).next();
        if let Some((lane, freed)) = freed
            && freed > 0
        {
            lane.room.add_permits(freed);
        }
        outgoing
    }

    /// A stream of ours is open: messages may be sent on it.
    pub(crate) fn stream_opened(&self, id: u32) {
        if !self.is_revoked() {
            lock(&self.queues.outbox).stream_opened(id);
            self.queues.outgoing.notify_one();
        }
    }

    /// Whether to send nothing more, for now, that may get lost: too much of it is on its way.
    pub(crate) fn pause_lossy(&self, paused: bool) {
        if !self.is_revoked() {
            lock(&self.queues.outbox).pause_lossy(paused);
            self.queues.outgoing.notify_one();
        }
    }

    /// Takes what has arrived on a stream that the other side has made.
    ///
    /// # Errors
    ///
    /// The reason to end the link: the other side closed it, or broke the protocol.
    pub(crate) fn deliver_on_stream(&self, lossy: bool, packet: Bytes) -> Result<(), CloseReason> {
        if self.is_revoked() {
            return Err(CloseReason::Cancelled);
        }
        self.queues.arrived_on_stream(lossy, packet)
    }

    /// Takes what has arrived. Waits while the tree is busy with earlier frames, or, with [`WhenFull::Wait`], while the
    /// application has not read enough. Not cancel safe.
    ///
    /// # Errors
    ///
    /// The reason to end the link: the other side closed it, broke the protocol, or sent more than is read.
    pub(crate) async fn deliver(&self, message: WireMessage, when_full: WhenFull) -> Result<(), CloseReason> {
        if self.is_revoked() {
            return Err(CloseReason::Cancelled);
        }
        let packets = lock(&self.queues.outbox).is_packets();
        match (packets, message) {
            (true, WireMessage::Binary(packet)) => self.deliver_packet(packet).await,
            (true, WireMessage::Text(_)) => Err(CloseReason::Protocol("text between pmesh peers".into())),
            (false, WireMessage::Binary(bytes)) => {
                self.deliver_plain(Kind::Binary, compact(bytes, SHARED_BUFFER_BYTES), when_full).await
            }
            (false, WireMessage::Text(bytes)) => {
                let Ok(text) = std::str::from_utf8(&bytes) else {
                    self.emit(LinkEvent::Malformed).await;
                    return Ok(());
                };
                match Frame::parse(text) {
                    Ok(Frame::Message(json)) => {
                        let json = bytes.slice_ref(json.get().as_bytes());
                        self.deliver_plain(Kind::Json, compact(json, bytes.len()), when_full).await
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

    async fn deliver_plain(&self, kind: Kind, body: Bytes, when_full: WhenFull) -> Result<(), CloseReason> {
        if body.len() > self.queues.max_message {
            return Err(CloseReason::Protocol(PacketError::TooLarge.to_string()));
        }
        loop {
            if lock(&self.queues.main.inbox).push_plain(kind, &body) {
                return Ok(());
            }
            if when_full == WhenFull::Overflow {
                return Err(CloseReason::Overflow);
            }
            self.queues.consumed.notified().await;
        }
    }

    async fn deliver_packet(&self, packet: Bytes) -> Result<(), CloseReason> {
        if packet.len() > MAX_PACKET_BYTES {
            return Err(violation(PacketError::TooLarge));
        }
        let mut closed = false;
        let (mut cost, mut named) = (0, false);
        let mut lane = self.queues.main.clone();
        let mut reader = PacketReader::new(packet.clone());
        loop {
            let checked = lock(&lane.inbox).check(&mut reader, self.queues.max_message);
            let (messages, other) = checked.map_err(violation)?;
            if messages {
                cost = packet.len();
            }
            let Some(record) = other else { break };
            match record.kind {
                Kind::Channel if cost == 0 && !named => {
                    let [id] = record.numbers().map_err(violation)?;
                    lane = lock(&self.queues.outbox).lane_of_remote(id, false).map_err(violation)?;
                    named = true;
                }
                Kind::Channel => return Err(violation(PacketError::Sequence)),
                Kind::Frame => {
                    let frame = lock(&self.queues.frames).push(record).map_err(violation)?;
                    if let Some(frame) = frame {
                        match String::from_utf8(frame.into()) {
                            Ok(text) => self.emit(LinkEvent::Frame(text)).await,
                            Err(_) => self.emit(LinkEvent::Malformed).await,
                        }
                    }
                }
                Kind::Close => {
                    let [sent] = record.numbers().map_err(violation)?;
                    closed = lock(&self.queues.outbox).closed_by_remote(sent);
                }
                _ => self.queues.control(&record)?,
            }
        }
        if cost > 0 {
            lock(&lane.inbox).push_packet(packet, cost).map_err(violation)?;
            let mut outbox = lock(&self.queues.outbox);
            outbox.arrived(cost).map_err(violation)?;
            if outbox.taken(cost) {
                self.queues.outgoing.notify_one();
            }
        }
        if closed { Err(CloseReason::Remote) } else { Ok(()) }
    }

    /// Tells the tree that the link is over. The tree then decides about the node and its queues: another link may be
    /// taking over.
    pub(crate) async fn finish(&self, reason: CloseReason) {
        self.emit(LinkEvent::Closed(reason)).await;
    }
}

/// A copy of what is only a small part of its buffer: the rest must not stay in memory with it.
fn compact(part: Bytes, buffer: usize) -> Bytes {
    if part.len() < buffer / 2 { Bytes::copy_from_slice(&part) } else { part }
}

fn violation(what: impl std::fmt::Display) -> CloseReason {
    CloseReason::Protocol(what.to_string())
}

const _: () = assert!(SEND_QUEUE_BYTES <= u32::MAX as usize && MAX_PACKET_BYTES <= 65_536);
