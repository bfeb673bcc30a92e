//! What waits to be sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::lane::{Lane, MAIN};
use super::lanes::{Entry, LaneError, Lanes, Queued};
use super::stream::{Awaited, Early, Limits, MAX_STREAM_MESSAGE_BYTES};
use super::{Framing, Outgoing, Rejected};
use crate::protocol::channel::{Delivery, Opening, Reliability};
use crate::protocol::credit::{CreditError, ReceiveCredit, SendCredit};
use crate::protocol::frame;
use crate::protocol::limits::{DEFAULT_REMOTE_MESSAGE_BYTES, MAX_PACKET_BYTES};
use crate::protocol::packet::{Kind, MAX_CHANNEL_RECORD_BYTES, MAX_HEADER_BYTES, PacketBuilder};

/// Signalling that may wait on one link: frames, and their bytes. At it, further frames are dropped and reported.
const MAX_QUEUED_FRAMES: usize = 512;
const MAX_QUEUED_FRAME_BYTES: usize = 1024 * 1024;

/// What a packet takes beside its messages, at most.
pub(super) const OVERHEAD_BYTES: usize = MAX_HEADER_BYTES + MAX_CHANNEL_RECORD_BYTES;

#[derive(Debug, Default)]
enum State {
    /// Not open yet.
    #[default]
    Waiting,
    Plain {
        max_message: usize,
    },
    Packets {
        /// Of the link: what was sent on any channel and has not arrived.
        credit: SendCredit,
        max_message: usize,
    },
    Shut,
}

/// Why there is no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLane {
    /// The link is not open yet, or not any more.
    NotOpen,
    /// The other side knows no channels.
    Unsupported,
    /// Too many are open.
    TooMany,
    /// They are of too many kinds.
    TooManyKinds,
}

/// What to send, and room of a channel that came free with it.
pub(super) type Next = (Option<Outgoing>, Option<(Arc<Lane>, usize)>);

#[derive(Debug)]
pub(super) struct Outbox {
    state: State,
    closing: bool,
    close_sent: bool,
    finished: bool,
    frames: VecDeque<Queued>,
    frame_bytes: usize,
    lanes: Lanes,
    /// What has arrived on all channels, to be granted to the other side as a whole.
    arrivals: ReceiveCredit,
    /// Packets of streams whose channels are not known yet.
    early: Early,
    /// When what was sent on streams has arrived, the other side has closed the link.
    awaited: Awaited,
    /// Packets sent on streams of reliable channels.
    on_streams: u32,
    lossy_paused: bool,
    /// A channel on a stream let a packet pass, and is next.
    yielded: bool,
}

impl Outbox {
    /// Of a link that is not open yet. `window` is the credit that we grant.
    pub(super) fn new(main: Arc<Lane>, window: (u32, u32)) -> Self {
        Self {
            state: State::default(),
            closing: false,
            close_sent: false,
            finished: false,
            frames: VecDeque::new(),
            frame_bytes: 0,
            lanes: Lanes::new(main, window),
            arrivals: ReceiveCredit::new(window.0, window.1),
            early: Early::default(),
            awaited: Awaited::default(),
            on_streams: 0,
            lossy_paused: false,
            yielded: false,
        }
    }

    pub(super) fn open(&mut self, framing: Framing) {
        if matches!(self.state, State::Waiting) {
            self.state = match framing {
                Framing::Plain { max_message } => State::Plain { max_message },
                Framing::Packets { window, max_message } => {
                    self.lanes.open(window);
                    State::Packets {
                        credit: SendCredit::new(window.0, window.1),
                        max_message: max_message
                            .map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
                    }
                }
            };
        }
    }

    pub(super) fn is_packets(&self) -> bool {
        matches!(self.state, State::Packets { .. })
    }

    pub(super) fn is_shut(&self) -> bool {
        matches!(self.state, State::Shut)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.iter().map(|entry| &entry.lane)
    }

    pub(super) fn start_closing(&mut self) {
        self.closing = true;
    }

    pub(super) fn shut(&mut self) {
        self.state = State::Shut;
        self.closing = true;
        self.frames.clear();
        self.frame_bytes = 0;
        for entry in self.lanes.iter_mut() {
            entry.forget_messages();
            entry.lane.end();
        }
    }

    /// The channel of this name, which is opened if there is none and the link is open.
    pub(super) fn open_lane(&mut self, name: &str, delivery: Delivery) -> Result<Arc<Lane>, NoLane> {
        match self.state {
            State::Packets { .. } if !self.closing => {
                self.lanes.open_named(name, delivery).map_err(|error| match error {
                    LaneError::TooManyKinds => NoLane::TooManyKinds,
                    _ => NoLane::TooMany,
                })
            }
            State::Plain { .. } if !self.closing => Err(NoLane::Unsupported),
            // What has arrived can still be read.
            _ => self.lanes.find_named(name).ok_or(NoLane::NotOpen),
        }
    }

    /// The other side has opened a channel. Returns whether the application is to be told.
    pub(super) fn opened_by_remote(&mut self, opening: Opening) -> Result<bool, LaneError> {
        self.lanes.opened_by_remote(opening)
    }

    pub(super) fn shut_by_remote(&mut self, id: u32, sent: u32) -> Result<(), LaneError> {
        self.lanes.shut_by_remote(id, sent)
    }

    /// The other side closes the link, on whose streams it sent so many packets. Returns whether all of them are here.
    pub(super) fn closed_by_remote(&mut self, sent: u32) -> bool {
        self.awaited.expect(sent);
        self.awaited.is_complete()
    }

    pub(super) fn stream_opened(&mut self, id: u32) {
        self.lanes.streams.opened(id);
    }

    pub(super) fn pause_lossy(&mut self, paused: bool) {
        self.lossy_paused = paused;
    }

    /// Keeps a packet that has arrived on the stream of a channel before the channel was announced.
    pub(super) fn hold(&mut self, id: u32, packet: Bytes) {
        self.early.hold(id, packet);
    }

    pub(super) fn take_early(&mut self, id: u32) -> Vec<Bytes> {
        self.early.take(id)
    }

    /// Counts a packet of a stream. Returns whether its channel, and whether the link is over with it.
    pub(super) fn count_on_stream(&mut self, id: u32) -> (bool, bool) {
        self.awaited.arrived();
        (self.lanes.count_on_stream(id), self.awaited.is_complete())
    }

    pub(super) fn lane_of_remote(&self, id: u32, lossy: bool) -> Result<Arc<Lane>, LaneError> {
        self.lanes.of_remote(id, lossy)
    }

    pub(super) fn close_lane(&mut self, id: u32) {
        self.lanes.start_closing(id);
    }

    pub(super) fn take_fresh_lane(&mut self) -> Option<Arc<Lane>> {
        self.lanes.take_fresh()
    }

    /// The largest message that can be taken, or `None` if the pipe takes none.
    pub(super) fn max_message(&self, lane: &Lane, kind: Kind, most: usize) -> Option<usize> {
        match &self.state {
            _ if self.closing => None,
            State::Waiting | State::Shut => None,
            State::Packets { max_message, .. } if lane.delivery().reliability != Reliability::Reliable => {
                Some(most.min(*max_message).min(MAX_STREAM_MESSAGE_BYTES))
            }
            State::Packets { max_message, .. } => Some(most.min(*max_message)),
            State::Plain { max_message } => {
                let envelope = if kind == Kind::Json { frame::message("").len() } else { 0 };
                Some(max_message.saturating_sub(envelope).min(most))
            }
        }
    }

    /// Queues a message of at most `most` bytes. Returns whether the writer is to be woken: not if others wait already.
    pub(super) fn push(
        &mut self,
        lane: &Lane,
        kind: Kind,
        body: Bytes,
        cost: u32,
        most: usize,
    ) -> Result<bool, Rejected> {
        let limit = self.max_message(lane, kind, most).ok_or(Rejected::NotOpen)?;
        if body.len() > limit {
            return Err(Rejected::TooLarge(limit));
        }
        self.lanes.get_mut(lane.id).ok_or(Rejected::NotOpen)?.push(kind, body, cost)
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

    /// Takes a grant for one channel. Returns whether something may have waited for it.
    pub(super) fn grant(&mut self, id: u32, bytes: u32, packets: u32) -> Result<bool, CreditError> {
        let entry = self.lanes.get_mut(id).ok_or(CreditError)?;
        entry.credit.grant(bytes, packets).map(|()| !entry.messages.is_empty())
    }

    /// Takes a grant for the link.
    pub(super) fn grant_link(&mut self, bytes: u32, packets: u32) -> Result<bool, CreditError> {
        match &mut self.state {
            State::Packets { credit, .. } => credit.grant(bytes, packets).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Notes a packet that arrived.
    pub(super) fn arrived(&mut self, cost: usize) -> Result<(), CreditError> {
        self.arrivals.arrived(cost)
    }

    /// Notes that a packet has reached its channel. Returns whether a grant for the link is due.
    pub(super) fn taken(&mut self, cost: usize) -> bool {
        self.arrivals.consumed(cost)
    }

    pub(super) fn buffered(&mut self, id: u32) -> usize {
        self.lanes.get_mut(id).map_or(0, |entry| entry.message_bytes)
    }

    /// What to send next.
    pub(super) fn next(&mut self) -> Next {
        match &self.state {
            State::Waiting | State::Shut => (self.take_finished(), None),
            State::Plain { .. } => self.next_plain(),
            State::Packets { .. } => self.next_packet(),
        }
    }

    fn take_finished(&mut self) -> Option<Outgoing> {
        let now = self.closing && !self.finished;
        self.finished |= now;
        now.then_some(Outgoing::Finished)
    }

    fn next_plain(&mut self) -> Next {
        if let Some(frame) = self.frames.pop_front() {
            self.frame_bytes -= frame.body.len();
            return (Some(Outgoing::Text(frame.body.into())), None);
        }
        let main = self.lanes.main_mut();
        let Some(message) = main.messages.pop_front() else { return (self.take_finished(), None) };
        main.message_bytes -= message.body.len();
        let outgoing = if message.kind == Kind::Json {
            let mut text = BytesMut::with_capacity(message.body.len() + 4);
            text.put_slice(b"[0,");
            text.put_slice(&message.body);
            text.put_u8(b']');
            Outgoing::Text(text)
        } else {
            Outgoing::Binary(message.body.into())
        };
        (Some(outgoing), Some((main.lane.clone(), message.cost as usize)))
    }

    fn charge_link(&mut self, cost: usize) {
        if let State::Packets { credit, .. } = &mut self.state {
            credit.charge(cost);
        }
    }

    /// What the next channel sends, if that goes on a stream.
    fn next_on_stream(&mut self, limits: Limits) -> Option<Next> {
        let (outgoing, cost, freed) = self.lanes.take_on_stream(limits)?;
        self.charge_link(cost);
        self.on_streams = self.on_streams.wrapping_add(u32::from(cost > 0));
        Some((Some(outgoing), Some(freed)))
    }

    /// A packet: grants, then news of channels, then frames, then messages of one channel.
    fn next_packet(&mut self) -> Next {
        let State::Packets { credit: link, .. } = &self.state else { return (None, None) };
        let limits = Limits { room: link.room(), window: link.window(), paused: self.lossy_paused };
        if !self.closing && self.frames.is_empty() && !self.arrivals.grant_is_due() && self.lanes.are_idle() {
            return (None, None);
        }
        if std::mem::take(&mut self.yielded)
            && let Some(next) = self.next_on_stream(limits)
        {
            return next;
        }
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        self.lanes.announce(&mut packet);
        let mut sending = self.lanes.next_to_send(limits);
        let may_send = !packet.is_empty() || !self.frames.is_empty() || sending.is_some();
        if may_send || self.arrivals.grant_is_due() || self.lanes.grant_is_due() {
            self.lanes.grant(&mut packet);
            if self.arrivals.grant_may_ride()
                && let Some((bytes, packets)) = self.arrivals.take_grant()
            {
                packet.push_numbers(Kind::Arrived, &[bytes, packets]);
            }
        }
        if let Some(index) = sending
            && self.lanes.at(index).is_some_and(|entry| entry.is_for_stream(limits))
        {
            self.lanes.again();
            if packet.is_empty()
                && self.frames.is_empty()
                && let Some(next) = self.next_on_stream(limits)
            {
                return next;
            }
            // After what is for a packet now, and before what comes then.
            self.yielded = true;
            sending = None;
        }
        let room = sending.and_then(|index| self.lanes.at(index)).map_or(0, |entry| self.lanes.room(entry, limits));
        let mut entry = sending.and_then(|index| self.lanes.at_mut(index));
        if may_send {
            let (bytes, count) = entry.as_ref().map_or((0, 0), |entry| (entry.message_bytes, entry.messages.len()));
            let records = self.frames.len() + count;
            packet.expect(self.frame_bytes + bytes.min(room) + records * MAX_HEADER_BYTES);
        }
        // Messages that wait get half of the packet, so that frames, which cost no credit, do not starve them.
        let most = if entry.is_none() { MAX_PACKET_BYTES } else { MAX_PACKET_BYTES / 2 };
        while let Some(frame) = self.frames.front_mut() {
            let most = most.saturating_sub(packet.len());
            if most == 0 || !packet.push(frame.kind, &frame.body, &mut frame.offset, most) {
                break;
            }
            self.frame_bytes -= frame.body.len();
            self.frames.pop_front();
        }
        let mut freed = None;
        if let Some(entry) = &mut entry
            && packet.len() + OVERHEAD_BYTES < room
        {
            if entry.lane.id != MAIN {
                packet.push_numbers(Kind::Channel, &[entry.lane.id]);
            }
            freed = Some((entry.lane.clone(), entry.fill(&mut packet, room)));
        }
        if let Some(index) = sending {
            self.lanes.charge(index, packet.cost());
            self.charge_link(packet.cost());
        }
        if self.closing && packet.is_empty() && self.frames.is_empty() && self.lanes.iter().all(Entry::is_sent) {
            if self.close_sent {
                return (self.take_finished(), None);
            }
            self.close_sent = true;
            packet.push_numbers(Kind::Close, &[self.on_streams]);
        }
        let outgoing = (!packet.is_empty()).then(|| Outgoing::Binary(packet.finish()));
        (outgoing, freed)
    }
}
