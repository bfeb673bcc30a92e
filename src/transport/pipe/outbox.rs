//! What waits to be sent.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Framing, Outgoing, Rejected};
use crate::protocol::credit::{CreditError, SendCredit};
use crate::protocol::frame;
use crate::protocol::limits::{DEFAULT_REMOTE_MESSAGE_BYTES, MAX_PACKET_BYTES};
use crate::protocol::packet::{Kind, MAX_HEADER_BYTES, PacketBuilder};

/// Signalling that may wait on one link: frames, and their bytes. At it, further frames are dropped and reported.
const MAX_QUEUED_FRAMES: usize = 512;
const MAX_QUEUED_FRAME_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
enum State {
    /// Not open yet.
    #[default]
    Waiting,
    Plain {
        max_message: usize,
    },
    Packets {
        credit: SendCredit,
        max_message: usize,
    },
    Shut,
}

#[derive(Debug)]
struct Queued {
    kind: Kind,
    body: Bytes,
    offset: usize,
    /// Room to give back once it is sent.
    cost: u32,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: State,
    closing: bool,
    close_sent: bool,
    finished: bool,
    frames: VecDeque<Queued>,
    frame_bytes: usize,
    messages: VecDeque<Queued>,
    message_bytes: usize,
}

impl Outbox {
    pub(super) fn open(&mut self, framing: Framing) {
        if matches!(self.state, State::Waiting) {
            self.state = match framing {
                Framing::Plain { max_message } => State::Plain { max_message },
                Framing::Packets { window: (bytes, packets), max_message } => State::Packets {
                    credit: SendCredit::new(bytes, packets),
                    max_message: max_message.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
                },
            };
        }
    }

    pub(super) fn is_packets(&self) -> bool {
        matches!(self.state, State::Packets { .. })
    }

    pub(super) fn start_closing(&mut self) {
        self.closing = true;
    }

    pub(super) fn shut(&mut self) {
        self.state = State::Shut;
        self.closing = true;
        self.frames.clear();
        self.messages.clear();
        self.frame_bytes = 0;
        self.message_bytes = 0;
    }

    /// The largest message that can be taken, or `None` if the pipe takes none.
    pub(super) fn max_message(&self, kind: Kind, most: usize) -> Option<usize> {
        match &self.state {
            _ if self.closing => None,
            State::Waiting | State::Shut => None,
            State::Packets { max_message, .. } => Some(most.min(*max_message)),
            State::Plain { max_message } => {
                let envelope = if kind == Kind::Json { frame::message("").len() } else { 0 };
                Some(max_message.saturating_sub(envelope).min(most))
            }
        }
    }

    /// Queues a message of at most `most` bytes. Returns whether the writer is to be woken: not if others wait already.
    pub(super) fn push(&mut self, kind: Kind, body: Bytes, cost: u32, most: usize) -> Result<bool, Rejected> {
        let limit = self.max_message(kind, most).ok_or(Rejected::NotOpen)?;
        if body.len() > limit {
            return Err(Rejected::TooLarge(limit));
        }
        let first = self.messages.is_empty();
        self.message_bytes += body.len();
        self.messages.push_back(Queued { kind, body, offset: 0, cost });
        Ok(first)
    }

    pub(super) fn push_frame(&mut self, frame: String) -> Result<(), String> {
        let too_large = match self.state {
            State::Plain { max_message } => frame.len() > max_message.max(DEFAULT_REMOTE_MESSAGE_BYTES),
            _ => false,
        };
        if self.closing
            || too_large
            || self.frames.len() >= MAX_QUEUED_FRAMES
            || self.frame_bytes + frame.len() > MAX_QUEUED_FRAME_BYTES
        {
            return Err(frame);
        }
        self.frame_bytes += frame.len();
        self.frames.push_back(Queued { kind: Kind::Frame, body: frame.into(), offset: 0, cost: 0 });
        Ok(())
    }

    /// Takes a grant. Returns whether something may have waited for it.
    pub(super) fn grant(&mut self, bytes: u32, packets: u32) -> Result<bool, CreditError> {
        match &mut self.state {
            State::Packets { credit, .. } => credit.grant(bytes, packets).map(|()| !self.messages.is_empty()),
            _ => Ok(false),
        }
    }

    pub(super) fn buffered(&self) -> usize {
        self.message_bytes
    }

    /// What to send next, and how much room came free. `due` is a grant that must go now; `any_grant` takes one that
    /// need not, but may travel along.
    pub(super) fn next(
        &mut self,
        due: Option<(u32, u32)>,
        any_grant: impl FnOnce() -> Option<(u32, u32)>,
    ) -> (Option<Outgoing>, usize) {
        match &self.state {
            State::Waiting => (self.take_finished(), 0),
            State::Shut => (self.take_finished(), 0),
            State::Plain { .. } => self.next_plain(),
            State::Packets { .. } => self.next_packet(due, any_grant),
        }
    }

    fn take_finished(&mut self) -> Option<Outgoing> {
        let now = self.closing && !self.finished;
        self.finished |= now;
        now.then_some(Outgoing::Finished)
    }

    fn next_plain(&mut self) -> (Option<Outgoing>, usize) {
        if let Some(frame) = self.frames.pop_front() {
            self.frame_bytes -= frame.body.len();
            return (Some(Outgoing::Text(frame.body.into())), 0);
        }
        let Some(message) = self.messages.pop_front() else { return (self.take_finished(), 0) };
        self.message_bytes -= message.body.len();
        let outgoing = if message.kind == Kind::Json {
            let mut text = BytesMut::with_capacity(message.body.len() + 4);
            text.put_slice(b"[0,");
            text.put_slice(&message.body);
            text.put_u8(b']');
            Outgoing::Text(text)
        } else {
            Outgoing::Binary(message.body.into())
        };
        (Some(outgoing), message.cost as usize)
    }

    fn next_packet(
        &mut self,
        due: Option<(u32, u32)>,
        any_grant: impl FnOnce() -> Option<(u32, u32)>,
    ) -> (Option<Outgoing>, usize) {
        let State::Packets { credit, .. } = &mut self.state else { return (None, 0) };
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        let may_send = !self.frames.is_empty() || (!self.messages.is_empty() && credit.room() > MAX_HEADER_BYTES);
        if let Some((bytes, packets)) = due.or_else(|| if may_send { any_grant() } else { None }) {
            // An empty packet has room for it.
            packet.push_credit(bytes, packets);
        }
        if may_send {
            let records = self.frames.len() + self.messages.len();
            packet.expect(self.frame_bytes + self.message_bytes.min(credit.room()) + records * MAX_HEADER_BYTES);
        }
        // Messages that wait get half of the packet, so that frames, which cost no credit, do not starve them.
        let most = if self.messages.is_empty() { MAX_PACKET_BYTES } else { MAX_PACKET_BYTES / 2 };
        while let Some(frame) = self.frames.front_mut() {
            let most = most.saturating_sub(packet.len());
            if most == 0 || !packet.push(frame.kind, &frame.body, &mut frame.offset, most) {
                break;
            }
            self.frame_bytes -= frame.body.len();
            self.frames.pop_front();
        }
        let mut freed = 0;
        let room = credit.room();
        while let Some(message) = self.messages.front_mut() {
            let most = room.saturating_sub(packet.len() + MAX_HEADER_BYTES);
            // An empty message too needs an open window, or it would overtake what closed it.
            if most == 0 || !packet.push(message.kind, &message.body, &mut message.offset, most) {
                break;
            }
            freed += message.cost as usize;
            self.message_bytes -= message.body.len();
            self.messages.pop_front();
        }
        credit.charge(packet.cost());
        if self.closing && self.frames.is_empty() && self.messages.is_empty() && packet.is_empty() {
            if self.close_sent {
                return (self.take_finished(), freed);
            }
            self.close_sent = true;
            packet.push(Kind::Close, &[], &mut 0, 0);
        }
        let outgoing = (!packet.is_empty()).then(|| Outgoing::Binary(packet.finish()));
        (outgoing, freed)
    }
}
