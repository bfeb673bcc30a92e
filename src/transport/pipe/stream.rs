//! Channels that are not ordered, or not reliable: their messages go on streams beside the main one.
//!
//! There is one stream for each kind of delivery, which the channels of that kind share, and which stays: to make one takes
//! a round trip. A packet on it holds whole messages only: what is lost or overtaken is one packet, and nothing has to be
//! put together out of order. A large message of a reliable channel goes on the main stream, in parts, as those of other
//! channels do. What may get lost costs no credit, which would get lost with it: the sender waits while much is on its way,
//! and the receiver drops the oldest.

use bytes::Bytes;

use super::lanes::{Entry, LaneError};
use super::outbox::OVERHEAD_BYTES;
use super::{Outgoing, StreamAction};
use crate::protocol::channel::{Delivery, Reliability};
use crate::protocol::limits::{MAX_KINDS, MAX_PACKET_BYTES};
use crate::protocol::packet::{Kind, MAX_HEADER_BYTES, PacketBuilder, PacketError, PacketReader};

/// Small messages of a channel that may lose some share a packet of at most this size, one chunk of SCTP, in bytes: what
/// is lost is lost together.
const LOSSY_PACKET_BYTES: usize = 1160;

/// The largest message that goes on a stream.
pub(super) const MAX_STREAM_MESSAGE_BYTES: usize = MAX_PACKET_BYTES - OVERHEAD_BYTES;

/// The streams on which this side sends.
#[derive(Debug, Default)]
pub(super) struct Streams {
    made: Vec<Made>,
    last_id: u32,
    /// The kinds of channels that a side has opened, and whether that was the other one.
    kinds: Vec<(bool, Delivery)>,
}

#[derive(Debug)]
struct Made {
    id: u32,
    delivery: Delivery,
    open: bool,
}

impl Streams {
    fn of(&self, delivery: Delivery) -> Option<&Made> {
        self.made.iter().find(|made| made.delivery == delivery)
    }

    fn make(&mut self, delivery: Delivery) -> Outgoing {
        self.last_id = self.last_id.wrapping_add(1);
        self.made.push(Made { id: self.last_id, delivery, open: false });
        Outgoing::Stream { id: self.last_id, action: StreamAction::Open(delivery) }
    }

    pub(super) fn opened(&mut self, id: u32) {
        if let Some(made) = self.made.iter_mut().find(|made| made.id == id) {
            made.open = true;
        }
    }

    /// Notes that a side opens a channel. Each may have some kinds over the life of the link, so that is how many streams
    /// this side makes.
    pub(super) fn admit(&mut self, by_remote: bool, delivery: Delivery) -> Result<(), LaneError> {
        let kind = (by_remote, delivery);
        if OnStream::for_delivery(delivery).is_none() || self.kinds.contains(&kind) {
            return Ok(());
        }
        if self.kinds.iter().filter(|kind| kind.0 == by_remote).count() >= MAX_KINDS {
            return Err(LaneError::TooManyKinds);
        }
        self.kinds.push(kind);
        Ok(())
    }
}

/// What a channel has sent on its stream.
#[derive(Debug)]
pub(super) struct OnStream {
    lossy: bool,
    /// Packets, where none gets lost.
    pub(super) sent: u32,
}

impl OnStream {
    /// `None` if messages go with those of the other channels.
    pub(super) fn for_delivery(delivery: Delivery) -> Option<Self> {
        let lossy = delivery.reliability != Reliability::Reliable;
        (lossy || !delivery.ordered).then_some(Self { lossy, sent: 0 })
    }
}

/// What limits sending on a stream now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Credit of the link that is left, and that there is at all.
    pub(super) room: usize,
    pub(super) window: usize,
    /// Too much is on its way of what may get lost.
    pub(super) paused: bool,
}

impl Entry {
    /// Whether the next message goes on a stream. A reliable one does so if it takes at most half of a window: of the rest
    /// up to a quarter may never come back, see [`ReceiveCredit`](crate::protocol::credit::ReceiveCredit::grant_is_due).
    pub(super) fn is_for_stream(&self, limits: Limits) -> bool {
        let (Some(stream), Some(message)) = (&self.stream, self.messages.front()) else { return false };
        let most = MAX_PACKET_BYTES.min(self.credit.window().min(limits.window) / 2);
        stream.lossy || (message.offset == 0 && message.body.len() + OVERHEAD_BYTES <= most)
    }

    /// The credit of the link that the next message needs, which is for a stream, or `None` if it cannot go anyway.
    pub(super) fn needed_on_stream(&self, streams: &Streams, limits: Limits) -> Option<usize> {
        let (Some(stream), Some(message)) = (&self.stream, self.messages.front()) else { return None };
        let needed = message.body.len() + OVERHEAD_BYTES;
        match streams.of(self.lane.delivery()) {
            None => Some(0),
            Some(made) if !made.open => None,
            Some(_) if stream.lossy => (!limits.paused).then_some(0),
            Some(_) => (needed <= self.credit.room()).then_some(needed),
        }
    }

    /// What is to be done on the stream next, what it costs in credit, and how much room came free.
    pub(super) fn next_on_stream(&mut self, streams: &mut Streams, limits: Limits) -> Option<(Outgoing, usize, usize)> {
        let delivery = self.lane.delivery();
        let Some(id) = streams.of(delivery).map(|made| made.id) else { return Some((streams.make(delivery), 0, 0)) };
        let stream = self.stream.as_mut()?;
        let head = self.messages.front()?.body.len() + OVERHEAD_BYTES;
        let most = if stream.lossy {
            LOSSY_PACKET_BYTES.max(head)
        } else {
            MAX_PACKET_BYTES.min(limits.room).min(self.credit.room())
        };
        let mut packet = PacketBuilder::new(most);
        packet.push_numbers(Kind::Channel, &[self.lane.id]);
        let mut freed = 0;
        while let Some(message) = self.messages.front_mut() {
            if message.offset > 0 || packet.len() + MAX_HEADER_BYTES + message.body.len() > most {
                break;
            }
            packet.push(message.kind, &message.body, &mut message.offset, usize::MAX);
            freed += message.cost as usize;
            self.message_bytes -= message.body.len();
            self.messages.pop_front();
        }
        let lossy = stream.lossy;
        let packet = packet.finish();
        let cost = if lossy { 0 } else { packet.len() };
        if cost > 0 {
            stream.sent = stream.sent.wrapping_add(1);
            self.credit.charge(cost);
        }
        Some((Outgoing::Stream { id, action: StreamAction::Send { lossy, packet } }, cost, freed))
    }
}

/// Checks that a packet of a stream holds whole messages and nothing else. Returns the number of their channel.
pub(super) fn check(packet: &Bytes, max_message: usize) -> Result<u32, PacketError> {
    if packet.len() > MAX_PACKET_BYTES {
        return Err(PacketError::TooLarge);
    }
    let mut records = PacketReader::new(packet.clone());
    let first = records.next().ok_or(PacketError::Malformed)??;
    if first.kind != Kind::Channel {
        return Err(PacketError::Sequence);
    }
    for record in records {
        let record = record?;
        if !record.kind.is_message() {
            return Err(PacketError::Sequence);
        }
        if record.whole()?.len() > max_message {
            return Err(PacketError::TooLarge);
        }
    }
    first.numbers().map(|[id]| id)
}

/// Packets of channels that have not been announced yet: the record about them was overtaken.
#[derive(Debug, Default)]
pub(super) struct Early {
    packets: Vec<(u32, Bytes)>,
}

impl Early {
    /// Keeps a packet. It has been counted as arrived, which bounds this by the credit of the link.
    pub(super) fn hold(&mut self, id: u32, packet: Bytes) {
        self.packets.push((id, packet));
    }

    pub(super) fn take(&mut self, id: u32) -> Vec<Bytes> {
        self.packets.extract_if(.., |(of, _)| *of == id).map(|(_, packet)| packet).collect()
    }
}

/// Waits until as many packets have arrived on streams as the other side has sent there.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    arrived: u32,
    sent: Option<u32>,
}

impl Awaited {
    pub(super) fn arrived(&mut self) {
        self.arrived = self.arrived.wrapping_add(1);
    }

    pub(super) fn expect(&mut self, sent: u32) {
        self.sent = Some(sent);
    }

    /// Whether it is known how many were sent.
    pub(super) fn is_announced(&self) -> bool {
        self.sent.is_some()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.sent == Some(self.arrived)
    }
}
