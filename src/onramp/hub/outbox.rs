//! What waits for one connection, and what it has used of its rate.

use std::collections::VecDeque;
use std::time::Instant;

use super::Limits;
use crate::onramp::Stats;
use crate::onramp::rate::Used;

/// The queue of a connection, with the bell that tells it to pull.
///
/// What is relayed to it is bounded. What the hub itself has to say comes in between: the hubs bound that. Both are counted until they have
/// been written.
pub(super) struct Outbox<B, T> {
    bell: B,
    /// The bell was rung and no pull has found the queue empty since.
    rung: bool,
    /// With their bytes, and whether they are relayed.
    queue: VecDeque<(T, usize, bool)>,
    /// Frames that are relayed, and their bytes.
    relayed: (usize, usize),
    /// Frames that are not, and their bytes.
    told: (usize, usize),
    /// Those of the latest pull, relayed and not. They count as queued until the next pull, when they have been written.
    handed: (usize, usize),
    handed_told: (usize, usize),
    used: Used,
}

impl<B: Clone, T> Outbox<B, T> {
    /// An empty one, as if its bell was rung.
    pub(super) fn new(bell: B) -> Self {
        let (queue, used) = (VecDeque::new(), Used::default());
        let none = (0, 0);
        Self { bell, rung: true, queue, relayed: none, told: none, handed: none, handed_told: none, used }
    }

    pub(super) fn ring(&mut self, bells: &mut Vec<B>) {
        if !self.rung {
            self.rung = true;
            bells.push(self.bell.clone());
        }
    }

    /// Counts a message of the peer. Some is when the next should be read from it.
    pub(super) fn charge(&mut self, limits: &Limits, now: Instant, stats: &mut Stats) -> Option<Instant> {
        let resume = self.used.charge(limits.rate?, now);
        stats.rate_limited += u64::from(resume.is_some());
        resume
    }

    /// Queues a relayed frame if there is room. A frame is never too big for an empty queue.
    pub(super) fn relay(
        &mut self,
        item: T,
        bytes: usize,
        limits: &Limits,
        stats: &mut Stats,
        bells: &mut Vec<B>,
    ) -> bool {
        let (frames, queued) = self.relayed;
        let too_many = frames >= limits.queue_frames;
        let too_much = frames > 0 && queued + self.handed.1 + bytes > limits.queue_bytes;
        let all_too_much = stats.queued_bytes + bytes > limits.total_queue_bytes;
        if too_many || too_much || all_too_much {
            return false;
        }
        self.relayed = (frames + 1, queued + bytes);
        stats.queued_frames += 1;
        stats.queued_bytes += bytes;
        self.queue.push_back((item, bytes, true));
        self.ring(bells);
        true
    }

    /// Queues what the hub has to say.
    pub(super) fn tell(&mut self, item: T, bytes: usize, stats: &mut Stats, bells: &mut Vec<B>) {
        self.told = (self.told.0 + 1, self.told.1 + bytes);
        stats.told_frames += 1;
        stats.told_bytes += bytes;
        self.queue.push_back((item, bytes, false));
        self.ring(bells);
    }

    /// Frames that wait and are not relayed, and their bytes.
    pub(super) fn told(&self) -> (usize, usize) {
        self.told
    }

    /// A pull begins: what the latest one handed out has been written.
    pub(super) fn settle(&mut self, stats: &mut Stats) {
        uncount(&mut self.handed, &mut stats.queued_frames, &mut stats.queued_bytes);
        uncount(&mut self.handed_told, &mut stats.told_frames, &mut stats.told_bytes);
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.queue.front().map(|(item, ..)| item)
    }

    /// Hands out the next, and its bytes.
    pub(super) fn next(&mut self) -> Option<(T, usize)> {
        let (item, bytes, is_relayed) = self.queue.pop_front()?;
        if is_relayed {
            self.relayed = (self.relayed.0 - 1, self.relayed.1 - bytes);
            self.handed = (self.handed.0 + 1, self.handed.1 + bytes);
            return Some((item, bytes));
        }
        self.told = (self.told.0 - 1, self.told.1 - bytes);
        self.handed_told = (self.handed_told.0 + 1, self.handed_told.1 + bytes);
        Some((item, bytes))
    }

    /// All is handed out: gives its memory back, and the bell may ring again.
    pub(super) fn rest(&mut self) {
        self.queue = VecDeque::new();
        self.rung = false;
    }

    /// Whether another pull is needed: there may be more, or what is handed out is to be counted as written.
    pub(super) fn goes_on(&self) -> bool {
        self.rung || self.handed.0 + self.handed_told.0 > 0
    }

    /// Drops what waits.
    pub(super) fn clear(&mut self, stats: &mut Stats) {
        self.settle(stats);
        uncount(&mut self.relayed, &mut stats.queued_frames, &mut stats.queued_bytes);
        uncount(&mut self.told, &mut stats.told_frames, &mut stats.told_bytes);
        self.queue = VecDeque::new();
    }

    /// Frames that are counted and their bytes, how many of them are not handed out, and whether the bell was rung.
    #[cfg(test)]
    pub(super) fn state(&self) -> (usize, usize, usize, bool) {
        let (frames, bytes) = self.relayed;
        (frames + self.handed.0, bytes + self.handed.1, frames, self.rung)
    }
}

/// Takes frames and their bytes out of the totals.
fn uncount(counted: &mut (usize, usize), frames: &mut usize, bytes: &mut usize) {
    let (less, fewer) = std::mem::take(counted);
    *frames -= less;
    *bytes -= fewer;
}
