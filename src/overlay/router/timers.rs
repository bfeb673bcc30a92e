//! What is due when.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::overlay::OverlayId;

/// What a timer is for. Each has one at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The message with this hop number must have been taken.
    Held(u32),
    /// Our message with this number is to be sent again, or given up.
    Send(u64),
    /// The key of this peer is to be asked for again.
    Key(OverlayId),
    /// Look after this neighbour.
    Neighbour(OverlayId),
}

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Due)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, due: Due) {
        self.0.insert((at, due));
    }

    pub(super) fn cancel(&mut self, at: Instant, due: Due) {
        self.0.remove(&(at, due));
    }

    /// Takes the next one that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, due)| due)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
