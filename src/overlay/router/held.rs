//! Messages that are kept until the next hop has taken them.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::overlay::OverlayId;

/// Neighbours that are tried for a message, here and for this copy of it.
pub(super) const MAX_TRIES: usize = 4;
/// Slots are numbered by the lower half of a hop number.
const MAX_SLOTS: usize = 1 << 16;

/// Who is told when a message can go nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The previous hop, which calls it by this hop number.
    Neighbour { id: OverlayId, hop: u32 },
    /// It is ours, and has this number.
    Send(u64),
    /// It asks for the key of this peer.
    Key(OverlayId),
    /// It is an answer of ours, which will be asked for again.
    Answer,
}

impl Origin {
    /// The previous hop.
    pub(super) fn previous(&self) -> Option<&OverlayId> {
        match self {
            Self::Neighbour { id, .. } => Some(id),
            _ => None,
        }
    }
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) packet: Bytes,
    pub(super) origin: Origin,
    /// How many more sends it may cause.
    pub(super) hops: u8,
    /// The neighbours to which it was sent, the present one last.
    tried: [Option<OverlayId>; MAX_TRIES],
    /// When the next hop must have taken it. `None` if it has: then it is kept for a while, as it may come back.
    pub(super) due: Option<Instant>,
    /// Whether it counts against the share of the neighbour that has sent it.
    pub(super) counts: bool,
    /// Whether one of those to which it was sent has not answered: it may have it.
    pub(super) is_unsure: bool,
}

impl Held {
    pub(super) fn new(packet: Bytes, origin: Origin, hops: u8, next: OverlayId, due: Instant) -> Self {
        let mut tried = [None; MAX_TRIES];
        tried[0] = Some(next);
        Self { packet, origin, hops, tried, due: Some(due), counts: false, is_unsure: false }
    }

    pub(super) fn tried(&self) -> impl Iterator<Item = &OverlayId> {
        self.tried.iter().flatten()
    }

    /// The neighbour that has to answer.
    pub(super) fn next(&self) -> Option<OverlayId> {
        self.tried().last().copied()
    }

    /// Whether one more may be tried.
    pub(super) fn may_try(&self) -> bool {
        self.tried[MAX_TRIES - 1].is_none() && self.hops > 0
    }

    pub(super) fn now_try(&mut self, next: OverlayId, packet: Bytes, due: Instant) {
        (self.packet, self.hops) = (packet, self.hops.saturating_sub(1));
        if let Some(free) = self.tried.iter_mut().find(|tried| tried.is_none()) {
            *free = Some(next);
        }
        self.due = Some(due);
    }
}

/// The messages that are kept, by hop number. Bounded in number and bytes: those that were taken give way first.
#[derive(Debug)]
pub(super) struct HeldTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that were taken, with the time until which they are kept, in order.
    taken: VecDeque<(Instant, u32)>,
    len: usize,
    bytes: usize,
    max_len: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    /// Makes a hop number that is used again another one.
    generation: u32,
    /// Boxed: slots stay when the messages are gone.
    held: Option<Box<Held>>,
}

impl HeldTable {
    pub(super) fn new(max_len: usize, max_bytes: usize) -> Self {
        let (slots, free, taken) = Default::default();
        Self { slots, free, taken, len: 0, bytes: 0, max_len, max_bytes }
    }

    pub(super) fn get(&mut self, hop: u32) -> Option<&mut Held> {
        let slot = self.slots.get_mut(hop as usize % MAX_SLOTS)?;
        (slot.generation == hop / MAX_SLOTS as u32).then_some(&mut **slot.held.as_mut()?)
    }

    /// Whether a message of so many bytes finds room, after those that were taken have given way.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        while self.len >= self.max_len || self.bytes + bytes > self.max_bytes {
            let Some((_, hop)) = self.taken.pop_front() else { return false };
            self.remove_taken(hop);
        }
        true
    }

    /// The hop number that the next message will have.
    pub(super) fn next_hop(&self) -> u32 {
        match self.free.last() {
            Some(&slot) => slot + self.slots[slot as usize].generation * MAX_SLOTS as u32,
            None => self.slots.len() as u32,
        }
    }

    /// Keeps a message, for which there is [room](Self::make_room), under [`Self::next_hop`].
    pub(super) fn insert(&mut self, held: Held) {
        self.len += 1;
        self.bytes += held.packet.len();
        let held = Box::new(held);
        match self.free.pop() {
            Some(slot) => self.slots[slot as usize].held = Some(held),
            None => self.slots.push(Slot { generation: 0, held: Some(held) }),
        }
    }

    pub(super) fn remove(&mut self, hop: u32) -> Option<Held> {
        self.get(hop)?;
        let index = hop as usize % MAX_SLOTS;
        let slot = &mut self.slots[index];
        let held = slot.held.take()?;
        slot.generation = (slot.generation + 1) % (u32::MAX / MAX_SLOTS as u32);
        self.free.push(index as u32);
        self.len -= 1;
        self.bytes -= held.packet.len();
        Some(*held)
    }

    /// The next hop has taken it: it is kept until then, in case that it comes back.
    pub(super) fn taken(&mut self, hop: u32, until: Instant) {
        if self.taken.len() >= 2 * self.max_len
            && let Some((_, oldest)) = self.taken.pop_front()
        {
            self.remove_taken(oldest);
        }
        self.taken.push_back((until, hop));
    }

    /// Forgets those that have been kept long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.taken.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, hop)) = self.taken.pop_front() {
                self.remove_taken(hop);
            }
        }
    }

    /// The hop numbers of all that wait for this neighbour.
    pub(super) fn waiting_for(&self, neighbour: &OverlayId) -> Vec<u32> {
        let waits = |held: &Held| held.due.is_some() && held.next().as_ref() == Some(neighbour);
        let slots = self.slots.iter().enumerate();
        let waiting = slots.filter(|(_, slot)| slot.held.as_deref().is_some_and(waits));
        waiting.map(|(index, slot)| index as u32 + slot.generation * MAX_SLOTS as u32).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// It may have been sent to another hop since it was taken.
    fn remove_taken(&mut self, hop: u32) {
        if self.get(hop).is_some_and(|held| held.due.is_none()) {
            self.remove(hop);
        }
    }
}
