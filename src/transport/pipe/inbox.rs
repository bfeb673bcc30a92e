//! What waits to be read on a channel: one log of what has arrived, and a cursor in it for each reader.
//!
//! An entry is consumed, and credit for it granted, when every reader has taken it. While nobody reads, entries wait for
//! the next reader: of a pmesh peer as many as it has credit for, of others the latest [`UNREAD_BYTES`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::lane::Lane;
use super::{MESSAGE_OVERHEAD_BYTES, Queues};
use crate::lock::lock;
use crate::protocol::credit::{CreditError, ReceiveCredit};
use crate::protocol::packet::{Assembler, Kind, PacketError, PacketReader, Record, Sequence};

/// Plain messages that may wait for a reader, in bytes. At it, the link waits or ends, see [`super::WhenFull`].
const INBOX_BYTES: usize = 8 * 1024 * 1024;

/// Plain messages kept while nobody reads, in bytes. At it, the oldest are dropped, as the original P drops all.
const UNREAD_BYTES: usize = 256 * 1024;

/// Packets of a channel that may lose messages, kept for its readers, in bytes. At it, the oldest are dropped.
const LOSSY_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone)]
enum Content {
    Packet(Bytes),
    /// A packet that costs no credit.
    Lossy(Bytes),
    Plain(Kind, Bytes),
}

#[derive(Debug, Clone)]
struct Entry {
    content: Content,
    cost: usize,
}

#[derive(Debug)]
struct Cursor {
    /// The entry to take next, counted from the first that ever arrived.
    next: u64,
    /// Whether the reader has not come back yet since it took one, which may hold several messages.
    inside: bool,
    waker: Option<Waker>,
}

/// Where the last reader stopped within a packet.
#[derive(Debug, Default)]
struct Rest {
    reader: PacketReader,
    assembler: Assembler,
}

impl Rest {
    /// Whether nothing is left but a part of a message.
    fn is_read(&self) -> bool {
        self.reader.is_empty()
    }

    fn bytes(&self) -> usize {
        self.reader.bytes() + self.assembler.bytes()
    }
}

#[derive(Debug)]
pub(super) struct Inbox {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    base: u64,
    cursors: Vec<Option<Cursor>>,
    rest: Option<Rest>,
    /// Cost of the entries that take no credit.
    plain_bytes: usize,
    credit: ReceiveCredit,
    messages: Sequence,
    closed: bool,
    /// What still arrives is not looked at: this side has shut the channel.
    discarding: bool,
    /// The permit to keep what is unread after the end, for all channels of the link.
    kept: Option<Arc<OwnedSemaphorePermit>>,
}

impl Inbox {
    pub(super) fn new((bytes, packets): (u32, u32)) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            cursors: Vec::new(),
            rest: None,
            plain_bytes: 0,
            credit: ReceiveCredit::new(bytes, packets),
            messages: Sequence::default(),
            closed: false,
            discarding: false,
            kept: None,
        }
    }

    pub(super) fn shut(&mut self) {
        self.closed = true;
        self.forget_part();
        self.wake_all();
    }

    /// Takes no further packets, and does not mind what is in them.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
    }

    /// Whether nothing will come, nothing waits, and no reader has more of what it took.
    pub(super) fn is_read(&self) -> bool {
        let inside = || self.cursors.iter().flatten().any(|cursor| cursor.inside);
        self.closed && self.entries.is_empty() && self.rest.as_ref().is_none_or(Rest::is_read) && !inside()
    }

    /// Checks the records of user messages up to the next other record. Returns whether there were any, and that other.
    pub(super) fn check(
        &mut self,
        reader: &mut PacketReader,
        max_message: usize,
    ) -> Result<(bool, Option<Record>), PacketError> {
        let mut messages = false;
        for record in reader {
            let record = record?;
            if !record.kind.is_message() {
                return Ok((messages, Some(record)));
            }
            messages = true;
            if !self.discarding {
                self.messages.accept(&record, max_message)?;
            }
        }
        Ok((messages, None))
    }

    /// Takes a packet whose records have been checked.
    pub(super) fn push_packet(&mut self, packet: Bytes, cost: usize) -> Result<(), CreditError> {
        if self.discarding {
            return Ok(());
        }
        self.credit.arrived(cost)?;
        if cost > 0 {
            self.push(Entry { content: Content::Packet(packet), cost });
        }
        Ok(())
    }

    /// Takes a plain message. Returns false if there is no room and somebody reads.
    pub(super) fn push_plain(&mut self, kind: Kind, body: &Bytes) -> bool {
        if self.closed {
            return true;
        }
        let cost = body.len() + MESSAGE_OVERHEAD_BYTES;
        let read = self.cursors.iter().any(Option::is_some);
        if read && self.plain_bytes > 0 && self.plain_bytes + cost > INBOX_BYTES {
            return false;
        }
        while !read && !self.entries.is_empty() && self.plain_bytes + cost > UNREAD_BYTES {
            self.drop_first();
        }
        self.plain_bytes += cost;
        self.push(Entry { content: Content::Plain(kind, body.clone()), cost });
        true
    }

    /// Takes a packet of whole messages that costs no credit. The oldest make room for it, even if somebody reads: all are of
    /// this kind, as nothing else comes on such a channel.
    pub(super) fn push_lossy(&mut self, packet: Bytes) {
        if self.closed {
            return;
        }
        let cost = packet.len() + MESSAGE_OVERHEAD_BYTES;
        while !self.entries.is_empty() && self.plain_bytes + cost > LOSSY_BYTES {
            self.drop_first();
        }
        for cursor in self.cursors.iter_mut().flatten() {
            cursor.next = cursor.next.max(self.base);
        }
        self.plain_bytes += cost;
        self.push(Entry { content: Content::Lossy(packet), cost });
    }

    fn push(&mut self, entry: Entry) {
        if self.closed {
            return;
        }
        self.entries.push_back(entry);
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for cursor in self.cursors.iter_mut().flatten() {
            if let Some(waker) = cursor.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether so much waits to be granted that it should go at once.
    pub(super) fn grant_is_due(&self) -> bool {
        self.credit.grant_is_due()
    }

    /// A grant that is worth a record in a packet that goes anyway: each makes work for the other side.
    pub(super) fn take_grant(&mut self) -> Option<(u32, u32)> {
        if self.credit.grant_may_ride() { self.credit.take_grant() } else { None }
    }

    /// Drops the oldest entry. Returns whether somebody waits for that: for a grant, or for room.
    fn drop_first(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.base += 1;
        match entry.content {
            Content::Packet(_) => self.credit.consumed(entry.cost),
            Content::Lossy(_) => {
                self.plain_bytes -= entry.cost;
                false
            }
            Content::Plain(..) => {
                self.plain_bytes -= entry.cost;
                true
            }
        }
    }

    /// Drops what every reader has taken. Returns whether somebody should be told: the writer of a grant that is due or
    /// of a channel that is read to its end, or a link that waits for room.
    fn trim(&mut self) -> bool {
        let Some(first) = self.cursors.iter().flatten().map(|cursor| cursor.next).min() else { return false };
        let mut tell = false;
        while self.base < first {
            tell |= self.drop_first();
        }
        if self.entries.is_empty() {
            self.kept = None;
        }
        tell || self.is_read()
    }

    /// Forgets a message of which nothing more will come.
    fn forget_part(&mut self) {
        if self.closed && self.entries.is_empty() && self.rest.as_ref().is_none_or(Rest::is_read) {
            (self.rest, self.kept) = (None, None);
        }
    }

    fn subscribe(&mut self) -> (usize, Option<Rest>) {
        let alone = self.cursors.iter().all(Option::is_none);
        let next = if alone { self.base } else { self.base + self.entries.len() as u64 };
        let rest = if alone { self.rest.take() } else { None };
        let cursor = Some(Cursor { next, inside: rest.is_some(), waker: None });
        let index = match self.cursors.iter().position(Option::is_none) {
            Some(free) => {
                self.cursors[free] = cursor;
                free
            }
            None => {
                self.cursors.push(cursor);
                self.cursors.len() - 1
            }
        };
        if self.entries.is_empty() {
            self.kept = None;
        }
        (index, rest)
    }

    fn unsubscribe(&mut self, index: usize, rest: Rest) -> bool {
        let cursor = self.cursors[index].take();
        if self.cursors.iter().any(Option::is_some) {
            return self.trim();
        }
        // The last reader: what it has not read waits for the next one. It has trimmed what it had read.
        debug_assert!(cursor.is_none_or(|cursor| cursor.next == self.base));
        self.cursors.clear();
        self.rest = Some(rest);
        self.forget_part();
        let before = self.base;
        while !self.entries.is_empty() && self.plain_bytes > UNREAD_BYTES {
            self.drop_first();
        }
        // A link may wait for room.
        self.base > before || self.is_read()
    }

    /// Bytes that wait for a reader.
    pub(super) fn unread(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, Rest::bytes);
        self.entries.iter().map(|entry| entry.cost).sum::<usize>() + rest
    }

    /// Keeps what waits although the link is over, as long as the permit allows; without one, forgets it.
    pub(super) fn keep(&mut self, permit: Option<Arc<OwnedSemaphorePermit>>) {
        if permit.is_none() {
            self.rest = None;
            while !self.entries.is_empty() {
                self.drop_first();
            }
            for cursor in self.cursors.iter_mut().flatten() {
                cursor.next = self.base;
            }
        }
        self.kept = permit.filter(|_| !self.entries.is_empty() || self.rest.is_some());
    }

    /// The next entry for a reader, `None` at the end, and whether somebody should be told as [`trim`](Self::trim) says.
    fn take(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<(Option<Content>, bool)> {
        let Some(cursor) = self.cursors[index].as_mut() else { return Poll::Ready((None, false)) };
        let at = (cursor.next - self.base) as usize;
        match self.entries.get(at) {
            Some(entry) => {
                let content = entry.content.clone();
                cursor.next += 1;
                cursor.inside = true;
                let tell = if at == 0 { self.trim() } else { false };
                Poll::Ready((Some(content), tell))
            }
            None if self.closed => {
                let inside = std::mem::replace(&mut cursor.inside, false);
                Poll::Ready((None, inside && self.is_read()))
            }
            None => {
                cursor.inside = false;
                cursor.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Reads the user messages of one channel, in order. Dropping it stops reading; what nobody has read then waits for the next.
#[derive(Debug)]
pub(crate) struct Subscription {
    queues: Arc<Queues>,
    lane: Arc<Lane>,
    index: usize,
    rest: Rest,
}

impl Subscription {
    pub(super) fn new(queues: Arc<Queues>, lane: Arc<Lane>) -> Self {
        let (index, rest) = lock(&lane.inbox).subscribe();
        Self { queues, lane, index, rest: rest.unwrap_or_default() }
    }

    /// The next message, JSON text or bytes; `None` once the channel is over and everything is read.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Kind, Bytes)>> {
        loop {
            // The reader checked the packet when it arrived, so an error cannot occur here; it would end the packet.
            while let Some(Ok(record)) = self.rest.reader.next() {
                if record.kind.is_message()
                    && let Some(message) = self.rest.assembler.push(record)
                {
                    return Poll::Ready(Some(message));
                }
            }
            let taken = lock(&self.lane.inbox).take(self.index, cx);
            let Poll::Ready((content, tell)) = taken else { return Poll::Pending };
            if tell {
                self.queues.outgoing.notify_one();
                self.queues.consumed.notify_one();
            }
            let Some(content) = content else {
                self.rest = Rest::default();
                return Poll::Ready(None);
            };
            match content {
                Content::Packet(packet) | Content::Lossy(packet) => self.rest.reader = PacketReader::new(packet),
                Content::Plain(kind, body) => return Poll::Ready(Some((kind, body))),
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        if lock(&self.lane.inbox).unsubscribe(self.index, rest) {
            self.queues.outgoing.notify_one();
            self.queues.consumed.notify_one();
        }
    }
}
