//! Channels that are not ordered, or not reliable: their messages go on a stream of their own.
//!
//! Whole messages only: what is lost or overtaken is one packet, and nothing has to be put together out of order. A large
//! message of a reliable channel goes beside the stream, in parts, as those of other channels do. What may get lost costs
//! no credit, which would get lost with it: the sender waits while much is on its way, and the receiver drops the oldest.

use bytes::Bytes;

use super::lanes::Entry;
use super::{Outgoing, StreamAction};
use crate::protocol::channel::{Delivery, Reliability};
use crate::protocol::limits::MAX_PACKET_BYTES;
use crate::protocol::packet::{MAX_HEADER_BYTES, PacketBuilder, PacketError, PacketReader};

/// Small messages of a channel that may lose some share a packet of at most this size, one chunk of SCTP, in bytes: what
/// is lost is lost together.
const LOSSY_PACKET_BYTES: usize = 1160;

/// The largest message that goes on a stream.
pub(super) const MAX_STREAM_MESSAGE_BYTES: usize = MAX_PACKET_BYTES - MAX_HEADER_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unmade,
    Opening,
    Open,
}

/// The stream on which messages of a channel are sent.
#[derive(Debug)]
pub(super) struct Stream {
    state: State,
    pub(super) lossy: bool,
    /// Packets sent, where none gets lost.
    pub(super) sent: u32,
}

impl Stream {
    /// `None` if messages go with those of the other channels.
    pub(super) fn for_delivery(delivery: Delivery) -> Option<Self> {
        let lossy = delivery.reliability != Reliability::Reliable;
        (lossy || !delivery.ordered).then_some(Self { state: State::Unmade, lossy, sent: 0 })
    }

    pub(super) fn is_made(&self) -> bool {
        self.state != State::Unmade
    }

    pub(super) fn opened(&mut self) {
        self.state = State::Open;
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
    /// Whether the next message goes on a stream.
    pub(super) fn is_for_stream(&self, limits: Limits) -> bool {
        let (Some(stream), Some(message)) = (&self.stream, self.messages.front()) else { return false };
        let most = MAX_PACKET_BYTES.min(self.credit.window()).min(limits.window);
        stream.lossy || (message.offset == 0 && message.body.len() + MAX_HEADER_BYTES <= most)
    }

    /// Whether the next message, which is for a stream, can go now.
    pub(super) fn is_stream_ready(&self, limits: Limits) -> bool {
        let (Some(stream), Some(message)) = (&self.stream, self.messages.front()) else { return false };
        match stream.state {
            State::Unmade => true,
            State::Opening => false,
            State::Open if stream.lossy => !limits.paused,
            State::Open => message.body.len() + MAX_HEADER_BYTES <= limits.room.min(self.credit.room()),
        }
    }

    /// What is to be done on the stream next, what it costs in credit, and how much room came free.
    pub(super) fn next_on_stream(&mut self, limits: Limits) -> Option<(Outgoing, usize, usize)> {
        let stream = self.stream.as_mut()?;
        let id = self.lane.id;
        if stream.state == State::Unmade {
            stream.state = State::Opening;
            let action = StreamAction::Open(self.lane.delivery());
            return Some((Outgoing::Stream { id, action }, 0, 0));
        }
        let head = self.messages.front()?.body.len() + MAX_HEADER_BYTES;
        let most = if stream.lossy {
            LOSSY_PACKET_BYTES.max(head)
        } else {
            MAX_PACKET_BYTES.min(limits.room).min(self.credit.room())
        };
        let mut packet = PacketBuilder::new(most);
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
        let cost = if stream.lossy { 0 } else { packet.len() };
        if cost > 0 {
            stream.sent = stream.sent.wrapping_add(1);
            self.credit.charge(cost);
        }
        let action = StreamAction::Send { lossy: stream.lossy, packet: packet.finish() };
        Some((Outgoing::Stream { id, action }, cost, freed))
    }
}

/// Checks that a packet of a stream holds whole messages and nothing else.
pub(super) fn check(packet: &Bytes, max_message: usize) -> Result<(), PacketError> {
    if packet.is_empty() {
        return Err(PacketError::Malformed);
    }
    if packet.len() > MAX_PACKET_BYTES {
        return Err(PacketError::TooLarge);
    }
    for record in PacketReader::new(packet.clone()) {
        let record = record?;
        if !record.kind.is_message() {
            return Err(PacketError::Malformed);
        }
        if record.whole()?.len() > max_message {
            return Err(PacketError::TooLarge);
        }
    }
    Ok(())
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

    pub(super) fn is_complete(&self) -> bool {
        self.sent == Some(self.arrived)
    }
}
