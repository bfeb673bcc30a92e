//! The channels of one link: the main one, and the named ones while they live.
//!
//! A [`Lane`] is what the two sides of the pipe and the application share of a channel. The table holds one for each name,
//! or more while the earlier ones are still being shut: a channel is over on a side when that side has sent `shut`, and
//! forgotten when the other side has too. A side answers `shut` when its application has read everything, so channels that
//! nobody looks at use up the bound of those who open them, and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::lane::{Lane, MAIN};
use super::outbox::OVERHEAD_BYTES;
use super::stream::{Awaited, Limits, OnStream, Streams};
use super::{Outgoing, Rejected};
use crate::lock::lock;
use crate::protocol::channel::{Delivery, Opening, Reliability};
use crate::protocol::credit::SendCredit;
use crate::protocol::limits::{CHANNEL_CREDIT, CREDIT_PACKETS, MAX_CHANNELS, RESERVED_CHANNELS};
use crate::protocol::packet::{Kind, MAX_HEADER_BYTES, PacketBuilder};

/// Channels that both sides have shut while packets of them are still on their way. Each has one at least, which takes
/// credit of the link, so an honest side never has more. They count as too many channels.
const MAX_LEAVING: usize = CREDIT_PACKETS as usize;

/// When the main channel has sent so many windows of the link and no other channel anything, it has the link for itself.
const ALONE_WINDOWS: usize = 8;

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) offset: usize,
    /// Room to give back once it is sent.
    pub(super) cost: u32,
}

/// What the table knows of a channel.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) lane: Arc<Lane>,
    pub(super) messages: VecDeque<Queued>,
    pub(super) message_bytes: usize,
    pub(super) credit: SendCredit,
    /// By what the other side announced it, and whether what it sends may get lost.
    remote: Option<u32>,
    remote_lossy: bool,
    /// When what was sent on its stream has arrived, the other side has shut it.
    awaited: Awaited,
    remote_shut: bool,
    /// If messages go on a stream beside the main one.
    pub(super) stream: Option<OnStream>,
    /// Opened by the other side, and our application has not got it yet.
    fresh: bool,
    by_remote: bool,
    /// Whether it is to be announced, though nothing waits to be sent.
    announce: bool,
    announced: bool,
    closing: bool,
    shut: bool,
}

impl Entry {
    fn new(lane: Arc<Lane>, credit: SendCredit) -> Self {
        let main = lane.id == MAIN;
        Self {
            stream: OnStream::for_delivery(lane.delivery()),
            lane,
            messages: VecDeque::new(),
            message_bytes: 0,
            credit,
            remote: main.then_some(MAIN),
            remote_lossy: false,
            awaited: Awaited::default(),
            remote_shut: false,
            fresh: false,
            by_remote: false,
            announce: false,
            announced: main,
            closing: false,
            shut: false,
        }
    }

    pub(super) fn push(&mut self, kind: Kind, body: Bytes, cost: u32) -> Result<bool, Rejected> {
        if self.closing || self.remote_shut {
            return Err(Rejected::NotOpen);
        }
        let first = self.messages.is_empty();
        self.message_bytes += body.len();
        self.messages.push_back(Queued { kind, body, offset: 0, cost });
        Ok(first)
    }

    pub(super) fn forget_messages(&mut self) {
        self.messages.clear();
        self.message_bytes = 0;
    }

    /// Whether no message waits.
    pub(super) fn is_sent(&self) -> bool {
        self.messages.is_empty()
    }

    /// Puts messages into a packet until it, the room or the queue is at its end. Returns how much room came free.
    pub(super) fn fill(&mut self, packet: &mut PacketBuilder, room: usize) -> usize {
        let mut freed = 0;
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
        freed
    }

    /// Whether all is done that has to be done before `shut`.
    fn may_shut(&self) -> bool {
        let read = || lock(&self.lane.inbox).is_read();
        !self.shut && ((self.closing && self.messages.is_empty()) || (self.remote_shut && read()))
    }

    /// Whether both sides are done with it, and only packets are awaited that were sent before.
    fn is_leaving(&self) -> bool {
        self.shut && self.awaited.is_announced()
    }

    /// The number under which the other side waits for grants.
    fn granting(&self) -> Option<u32> {
        self.remote.filter(|_| !self.shut && !self.remote_shut)
    }
}

/// The other side opened, used or shut channels as it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaneError {
    #[error("too many channels")]
    TooMany,
    #[error("channels of too many kinds")]
    TooManyKinds,
    #[error("a channel that is not open")]
    Unknown,
    #[error("a channel number that is in use")]
    InUse,
    #[error("messages of a channel on the wrong stream")]
    Delivery,
}

/// The channels of a link. The first entry is the main one.
#[derive(Debug)]
pub(super) struct Lanes {
    entries: Vec<Entry>,
    last_id: u32,
    pub(super) streams: Streams,
    /// Where to look first for something to send, now and before the last look.
    turn: usize,
    last_turn: usize,
    /// Bytes that the main channel has sent since another one has.
    alone: usize,
    /// Credit that each side gives for a new channel: `(by us, to us)`.
    windows: ((u32, u32), (u32, u32)),
}

fn lane_window(link: (u32, u32)) -> (u32, u32) {
    (link.0.min(CHANNEL_CREDIT.0), link.1.min(CHANNEL_CREDIT.1))
}

impl Lanes {
    pub(super) fn new(main: Arc<Lane>, own_window: (u32, u32)) -> Self {
        let main = Entry::new(main, SendCredit::new(0, 0));
        Self {
            entries: vec![main],
            last_id: MAIN,
            streams: Streams::default(),
            turn: 0,
            last_turn: 0,
            alone: usize::MAX,
            windows: (lane_window(own_window), (0, 0)),
        }
    }

    /// The link is open, and the other side grants this much.
    pub(super) fn open(&mut self, window: (u32, u32)) {
        self.windows.1 = lane_window(window);
        self.main_mut().credit = SendCredit::new(window.0, window.1);
    }

    pub(super) fn main_mut(&mut self) -> &mut Entry {
        // Nothing removes it.
        &mut self.entries[0]
    }

    /// The channel with our number.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.lane.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    fn make(&mut self, name: String, delivery: Delivery) -> Result<&mut Entry, LaneError> {
        self.last_id = self.last_id.checked_add(1).ok_or(LaneError::TooMany)?;
        let lane = Lane::named(self.last_id, name, delivery, self.windows.0);
        self.entries.push(Entry::new(lane, SendCredit::new(self.windows.1.0, self.windows.1.1)));
        self.entries.last_mut().ok_or(LaneError::TooMany)
    }

    fn named(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().skip(1)
    }

    /// Checks that a side may open one more channel, of this kind.
    fn admit(&mut self, by_remote: bool, delivery: Delivery) -> Result<(), LaneError> {
        let count = |leaving| {
            let counted = |entry: &&Entry| entry.by_remote == by_remote && entry.is_leaving() == leaving;
            self.entries.iter().skip(1).filter(counted).count()
        };
        if count(false) >= MAX_CHANNELS || count(true) >= MAX_LEAVING {
            return Err(LaneError::TooMany);
        }
        self.streams.admit(by_remote, delivery)
    }

    /// The channel of this name, if it is not over.
    pub(super) fn find_named(&mut self, name: &str) -> Option<Arc<Lane>> {
        let mut named = self.named();
        let entry = named.find(|entry| entry.lane.name() == name && !entry.closing && !entry.may_shut())?;
        entry.fresh = false;
        Some(entry.lane.clone())
    }

    /// The channel of this name, which is opened if there is none.
    pub(super) fn open_named(&mut self, name: &str, delivery: Delivery) -> Result<Arc<Lane>, LaneError> {
        if let Some(lane) = self.find_named(name) {
            return Ok(lane);
        }
        self.admit(false, delivery)?;
        let entry = self.make(name.to_owned(), delivery)?;
        entry.announce = true;
        Ok(entry.lane.clone())
    }

    /// The other side has announced a channel. Returns whether the application is to be told.
    pub(super) fn opened_by_remote(&mut self, opening: Opening) -> Result<bool, LaneError> {
        if self.entries.iter().any(|entry| entry.remote == Some(opening.id)) {
            return Err(LaneError::InUse);
        }
        let found = self.named().find(|entry| match opening.answers {
            0 => entry.remote.is_none() && entry.lane.name() == opening.name,
            id => entry.remote.is_none() && entry.lane.id == id,
        });
        let lossy = opening.delivery.reliability != Reliability::Reliable;
        if let Some(entry) = found {
            (entry.remote, entry.remote_lossy) = (Some(opening.id), lossy);
            return Ok(false);
        }
        if opening.answers != 0 {
            return Err(LaneError::Unknown);
        }
        self.admit(true, opening.delivery)?;
        let fresh = !opening.name.starts_with(RESERVED_CHANNELS);
        let entry = self.make(opening.name, opening.delivery)?;
        (entry.remote, entry.remote_lossy) = (Some(opening.id), lossy);
        (entry.by_remote, entry.fresh) = (true, fresh);
        Ok(fresh)
    }

    /// The channel on which the other side sends under this number, as what may get lost or not.
    pub(super) fn of_remote(&self, id: u32, lossy: bool) -> Result<Arc<Lane>, LaneError> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.remote == Some(id) && !entry.remote_shut).ok_or(LaneError::Unknown)?;
        if entry.remote_lossy == lossy { Ok(entry.lane.clone()) } else { Err(LaneError::Delivery) }
    }

    /// The other side has shut a channel on whose stream it sent so many packets.
    pub(super) fn shut_by_remote(&mut self, id: u32, sent: u32) -> Result<(), LaneError> {
        let found = self.named().find(|entry| entry.remote == Some(id) && !entry.remote_shut);
        found.ok_or(LaneError::Unknown)?.awaited.expect(sent);
        self.complete(id);
        Ok(())
    }

    /// A packet has arrived on the stream of a channel. Returns whether the channel is over with it.
    pub(super) fn count_on_stream(&mut self, id: u32) -> bool {
        if let Some(entry) = self.named().find(|entry| entry.remote == Some(id)) {
            entry.awaited.arrived();
        }
        self.complete(id)
    }

    /// Ends a channel that the other side has shut, once all of it is here. What waits to be sent on it is dropped.
    fn complete(&mut self, id: u32) -> bool {
        let Some(entry) = self.named().find(|entry| entry.remote == Some(id)) else { return false };
        if entry.remote_shut || !entry.awaited.is_complete() {
            return false;
        }
        entry.remote_shut = true;
        entry.forget_messages();
        entry.lane.end();
        self.forget_done();
        true
    }

    /// Takes no more messages on that channel, and ends it once those that wait are sent.
    pub(super) fn start_closing(&mut self, id: u32) {
        if let Some(entry) = self.named().find(|entry| entry.lane.id == id) {
            entry.closing = true;
        }
    }

    /// A channel that the other side has opened, and that nobody took yet.
    pub(super) fn take_fresh(&mut self) -> Option<Arc<Lane>> {
        let entry = self.named().find(|entry| entry.fresh)?;
        entry.fresh = false;
        Some(entry.lane.clone())
    }

    /// Announces channels and shuts them, as far as that is due and fits.
    pub(super) fn announce(&mut self, packet: &mut PacketBuilder) {
        let mut done = false;
        for entry in self.entries.iter_mut().skip(1) {
            let may_shut = entry.may_shut();
            if !entry.announced && (entry.announce || !entry.is_sent() || may_shut) {
                let lane = &entry.lane;
                let (id, answers) = (lane.id, entry.remote.unwrap_or_default());
                let opening = Opening { id, answers, delivery: lane.delivery(), name: lane.name().to_owned() };
                if !packet.push_whole(Kind::Open, &opening.encode()) {
                    // The rest in the next packet: they go in the order in which they were opened.
                    break;
                }
                entry.announced = true;
            }
            let sent = entry.stream.as_ref().map_or(0, |stream| stream.sent);
            if may_shut && packet.push_numbers(Kind::Shut, &[entry.lane.id, sent]) {
                entry.shut = true;
                entry.lane.end();
                lock(&entry.lane.inbox).discard();
                done |= entry.remote_shut;
            }
        }
        if done {
            self.forget_done();
        }
    }

    fn forget_done(&mut self) {
        self.entries.retain(|entry| !(entry.shut && entry.remote_shut));
    }

    /// Whether there is only the main channel, and it has nothing to send and no grant that is due.
    pub(super) fn are_idle(&self) -> bool {
        matches!(&self.entries[..], [main] if main.is_sent()) && !self.grant_is_due()
    }

    /// Whether some channel must not wait any longer for a grant.
    pub(super) fn grant_is_due(&self) -> bool {
        self.entries.iter().any(|entry| entry.granting().is_some() && lock(&entry.lane.inbox).grant_is_due())
    }

    /// Puts the grants that are worth a record into a packet that goes anyway.
    pub(super) fn grant(&mut self, packet: &mut PacketBuilder) {
        for entry in &self.entries {
            let Some(id) = entry.granting() else { continue };
            if let Some((bytes, packets)) = lock(&entry.lane.inbox).take_grant() {
                // An empty packet has room for all of them.
                packet.push_numbers(Kind::Credit, &[id, bytes, packets]);
            }
        }
    }

    /// Where the next channel is, in turn, that has something to send and may. Who only waits for credit of the link is not
    /// overtaken by those that need less of it, or it could wait for ever.
    pub(super) fn next_to_send(&mut self, limits: Limits) -> Option<usize> {
        let (first, count) = (self.turn, self.entries.len());
        self.last_turn = first;
        let mut waits = false;
        for index in (0..count).map(|step| (first + step) % count) {
            let Some(needed) = self.needed(&self.entries[index], limits) else { continue };
            if needed == 0 || (!waits && needed <= limits.room) {
                if !waits {
                    self.turn = index + 1;
                }
                return Some(index);
            }
            if !waits {
                (waits, self.turn) = (true, index);
            }
        }
        None
    }

    /// The credit of the link that a channel needs to send what is next, or `None` if that cannot go anyway.
    fn needed(&self, entry: &Entry, limits: Limits) -> Option<usize> {
        if !entry.announced || entry.is_sent() {
            None
        } else if entry.is_for_stream(limits) {
            entry.needed_on_stream(&self.streams, limits)
        } else {
            (self.own_room(entry, limits) > OVERHEAD_BYTES).then_some(OVERHEAD_BYTES + 1)
        }
    }

    /// What is to be done if the next channel sends on a stream: what to send, what it costs in credit, and the room that
    /// came free.
    pub(super) fn take_on_stream(&mut self, limits: Limits) -> Option<(Outgoing, usize, (Arc<Lane>, usize))> {
        let index = self.next_to_send(limits)?;
        let entry = self.entries.get_mut(index)?;
        if !entry.is_for_stream(limits) {
            self.again();
            return None;
        }
        let (outgoing, cost, freed) = entry.next_on_stream(&mut self.streams, limits)?;
        self.alone = 0;
        Some((outgoing, cost, (entry.lane.clone(), freed)))
    }

    /// Bytes that the next packet of a channel on the main stream may have.
    pub(super) fn room(&self, entry: &Entry, limits: Limits) -> usize {
        self.own_room(entry, limits).min(limits.room)
    }

    /// What a channel may send as far as its own credit goes. While others send too, the main one uses no more than half of
    /// the link: they then need not wait for what it has on its way to arrive, and wait for less of it. It does not mind that
    /// the link is full of what others send.
    fn own_room(&self, entry: &Entry, limits: Limits) -> usize {
        let room = entry.credit.room();
        if entry.lane.id != MAIN || self.alone >= limits.window.saturating_mul(ALONE_WINDOWS) {
            return room;
        }
        room.min(room.max(limits.room).saturating_sub(limits.window / 2))
    }

    /// Charges the channel there for a packet.
    pub(super) fn charge(&mut self, index: usize, cost: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.credit.charge(cost);
        self.alone = if entry.lane.id == MAIN { self.alone.saturating_add(cost) } else { 0 };
    }

    /// Gives the turn back to the channel that got it last and could not use it.
    pub(super) fn again(&mut self) {
        self.turn = self.last_turn;
    }

    pub(super) fn at(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }
}
