//! The queues as the node sees them.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError, watch};

use super::inbox::Subscription;
use super::lane::Lane;
use super::lanes::LaneError;
use super::outbox::{NoLane, Outbox};
use super::{MESSAGE_OVERHEAD_BYTES, Rejected, stream, violation};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::lock::lock;
use crate::protocol::channel::{Delivery, Opening};
use crate::protocol::limits::MAX_SIGNAL_BYTES;
use crate::protocol::packet::{Assembler, Kind, PacketError, Record, Sequence};

/// The queues themselves. They outlive an attempt to open a link: where two offers cross, the link that lost is dropped,
/// and another takes over its queues.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Also has the table of the channels. Taken before the lock of an inbox, never after.
    pub(super) outbox: Mutex<Outbox>,
    /// Wakes the writer.
    pub(super) outgoing: Notify,
    pub(super) main: Arc<Lane>,
    pub(super) frames: Mutex<Frames>,
    /// Wakes a link that waits for room in the main inbox.
    pub(super) consumed: Notify,
    /// Changes when the other side has opened a channel, and at the end.
    opened: watch::Sender<()>,
    /// Who is at the other end, of an open link to a pmesh peer.
    pub(super) peer: OnceLock<PeerId>,
    pub(super) max_message: usize,
}

/// Puts the frames of packets together.
#[derive(Debug, Default)]
pub(super) struct Frames {
    sequence: Sequence,
    assembler: Assembler,
}

impl Frames {
    /// Takes a record of a frame, and returns the frame if it is now complete.
    pub(super) fn push(&mut self, record: Record) -> Result<Option<Bytes>, PacketError> {
        self.sequence.accept(&record, MAX_SIGNAL_BYTES)?;
        Ok(self.assembler.push(record).map(|(_, frame)| frame))
    }
}

impl Queues {
    /// Queues for a link that is not open yet. `window` is the credit that this side announces to a pmesh peer, in bytes
    /// and packets; `max_message` bounds user messages in both directions.
    pub(crate) fn new(window: (u32, u32), max_message: usize) -> Arc<Self> {
        let main = Lane::main(window);
        Arc::new(Self {
            outbox: Mutex::new(Outbox::new(main.clone(), window)),
            outgoing: Notify::new(),
            main,
            frames: Mutex::default(),
            consumed: Notify::new(),
            opened: watch::Sender::new(()),
            peer: OnceLock::new(),
            max_message,
        })
    }

    /// Who is at the other end, once the link is open, if that has proven it.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.peer.get().copied()
    }

    /// The main channel.
    pub(crate) fn main(&self) -> &Arc<Lane> {
        &self.main
    }

    /// Ends the pipe without an event. What has arrived can still be read.
    pub(crate) fn shut(&self) {
        lock(&self.outbox).shut();
        self.opened.send_replace(());
        self.outgoing.notify_one();
        self.consumed.notify_one();
    }

    /// Keeps what is unread after the end within a budget shared with others, in KiB; forgets it where that is used up.
    /// Returns how many bytes were forgotten.
    pub(crate) fn keep_unread(&self, budget: &Arc<Semaphore>) -> usize {
        let outbox = lock(&self.outbox);
        let unread = outbox.lanes().map(|lane| lock(&lane.inbox).unread()).sum::<usize>();
        if unread == 0 {
            return 0;
        }
        let kib = u32::try_from(unread.div_ceil(1024)).unwrap_or(u32::MAX);
        let permit = budget.clone().try_acquire_many_owned(kib).ok().map(Arc::new);
        for lane in outbox.lanes() {
            lock(&lane.inbox).keep(permit.clone());
        }
        if permit.is_some() { 0 } else { unread }
    }

    /// Takes no more messages; once the queue is sent, [`Outgoing::Finished`](super::Outgoing::Finished) comes.
    pub(crate) fn start_closing(&self) {
        let mut outbox = lock(&self.outbox);
        outbox.start_closing();
        for lane in outbox.lanes() {
            lane.room.close();
        }
        drop(outbox);
        self.outgoing.notify_one();
    }

    /// The channel of this name, which is opened if there is none: at once, as the other side is told with the first
    /// packet. The delivery counts only for a new one.
    pub(crate) fn open_lane(&self, name: &str, delivery: Delivery) -> Result<Arc<Lane>, NoLane> {
        let lane = lock(&self.outbox).open_lane(name, delivery)?;
        self.outgoing.notify_one();
        Ok(lane)
    }

    /// Takes no more messages on a channel, and ends it once its queue is sent.
    pub(crate) fn close_lane(&self, lane: &Lane) {
        lane.room.close();
        lock(&self.outbox).close_lane(lane.id);
        self.outgoing.notify_one();
    }

    /// A channel that the other side has opened, and that nobody has got yet.
    pub(crate) fn take_opened(&self) -> Option<Arc<Lane>> {
        lock(&self.outbox).take_fresh_lane()
    }

    /// Tells when [`take_opened`](Self::take_opened) may have something, or the link is over.
    pub(crate) fn opened(&self) -> watch::Receiver<()> {
        self.opened.subscribe()
    }

    /// Whether the link is over.
    pub(crate) fn is_shut(&self) -> bool {
        lock(&self.outbox).is_shut()
    }

    /// Queues a user message, once there is room. Cancel safe: a cancelled call has queued nothing.
    pub(crate) async fn send(&self, lane: &Lane, kind: Kind, body: Bytes) -> Result<(), Rejected> {
        let cost = cost(lane, &body);
        let permits = match lane.room.try_acquire_many(cost) {
            Ok(permits) => permits,
            Err(_) => {
                // What can never be sent does not wait.
                self.check(lane, kind, &body)?;
                lane.room.acquire_many(cost).await.map_err(|_| Rejected::NotOpen)?
            }
        };
        self.enqueue(lane, kind, body, permits)
    }

    /// Queues a user message if there is room.
    pub(crate) fn try_send(&self, lane: &Lane, kind: Kind, body: Bytes) -> Result<(), Rejected> {
        match lane.room.try_acquire_many(cost(lane, &body)) {
            Ok(permits) => self.enqueue(lane, kind, body, permits),
            Err(error) => {
                self.check(lane, kind, &body)?;
                Err(match error {
                    TryAcquireError::Closed => Rejected::NotOpen,
                    TryAcquireError::NoPermits => Rejected::Full,
                })
            }
        }
    }

    fn check(&self, lane: &Lane, kind: Kind, body: &Bytes) -> Result<(), Rejected> {
        let limit = lock(&self.outbox).max_message(lane, kind, self.max_message).ok_or(Rejected::NotOpen)?;
        if body.len() > limit { Err(Rejected::TooLarge(limit)) } else { Ok(()) }
    }

    /// Waits until no more bytes than this wait to be sent on a channel, with the overhead of their messages; at once if it is over.
    /// Cancel safe.
    pub(crate) async fn drained(&self, lane: &Lane, to: usize) {
        let room = lane.capacity.saturating_sub(to);
        let _ = lane.room.acquire_many(u32::try_from(room).unwrap_or(u32::MAX)).await;
    }

    /// Queues a message for which there is room. Gives the room back if it cannot be queued.
    fn enqueue(&self, lane: &Lane, kind: Kind, body: Bytes, room: SemaphorePermit<'_>) -> Result<(), Rejected> {
        let cost = cost(lane, &body);
        let first = lock(&self.outbox).push(lane, kind, body, cost, self.max_message)?;
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

    /// Bytes of user messages that wait to be sent on a channel.
    pub(crate) fn buffered(&self, lane: &Lane) -> usize {
        lock(&self.outbox).buffered(lane.id)
    }

    /// Reads messages from here on, and those that nobody has read yet if nobody else listens.
    pub(crate) fn subscribe(self: &Arc<Self>, lane: &Arc<Lane>) -> Subscription {
        Subscription::new(self.clone(), lane.clone())
    }

    /// Takes a record that grants credit, or opens or shuts a channel; skips those of later versions.
    pub(super) fn control(&self, record: &Record) -> Result<(), CloseReason> {
        let wake = match record.kind {
            Kind::Credit => {
                let [id, bytes, packets] = record.numbers().map_err(violation)?;
                lock(&self.outbox).grant(id, bytes, packets).map_err(violation)?
            }
            Kind::Arrived => {
                let [bytes, packets] = record.numbers().map_err(violation)?;
                lock(&self.outbox).grant_link(bytes, packets).map_err(violation)?
            }
            Kind::Open => {
                let opening = Opening::decode(record).map_err(violation)?;
                let id = opening.id;
                let fresh = lock(&self.outbox).opened_by_remote(opening).map_err(violation)?;
                let early = lock(&self.outbox).take_early(id);
                for packet in early {
                    self.take_on_stream(id, packet)?;
                }
                if fresh {
                    self.opened.send_replace(());
                }
                false
            }
            Kind::Shut => {
                let [id, sent] = record.numbers().map_err(violation)?;
                lock(&self.outbox).shut_by_remote(id, sent).map_err(violation)?;
                true
            }
            _ => false,
        };
        if wake {
            self.outgoing.notify_one();
        }
        Ok(())
    }

    /// Takes a packet of a stream.
    pub(super) fn arrived_on_stream(&self, lossy: bool, packet: Bytes) -> Result<(), CloseReason> {
        let id = stream::check(&packet, self.max_message).map_err(violation)?;
        let mut outbox = lock(&self.outbox);
        let lane = match outbox.lane_of_remote(id, lossy) {
            Err(error) if error != LaneError::Unknown => return Err(violation(error)),
            lane => lane.ok(),
        };
        if lossy {
            // Of an unknown channel: it is not announced yet, or over. It counts as lost.
            if let Some(lane) = lane {
                lock(&lane.inbox).push_lossy(packet);
            }
            return Ok(());
        }
        outbox.arrived(packet.len()).map_err(violation)?;
        if lane.is_none() {
            outbox.hold(id, packet);
            return Ok(());
        }
        drop(outbox);
        self.take_on_stream(id, packet)
    }

    /// Takes a packet of a reliable channel, which has been counted as arrived.
    fn take_on_stream(&self, id: u32, packet: Bytes) -> Result<(), CloseReason> {
        let mut outbox = lock(&self.outbox);
        let lane = outbox.lane_of_remote(id, false).map_err(violation)?;
        let cost = packet.len();
        lock(&lane.inbox).push_packet(packet, cost).map_err(violation)?;
        let grant_is_due = outbox.taken(cost);
        let (shut, closed) = outbox.count_on_stream(id);
        drop(outbox);
        if grant_is_due || shut {
            self.outgoing.notify_one();
        }
        if closed { Err(CloseReason::Remote) } else { Ok(()) }
    }
}

fn cost(lane: &Lane, body: &Bytes) -> u32 {
    (body.len() + MESSAGE_OVERHEAD_BYTES).min(lane.capacity) as u32
}
