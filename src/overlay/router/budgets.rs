//! What a neighbour may make us do, and within that each source behind it.

use std::time::Instant;

use super::api::{Rate, RouterConfig};
use super::cache::Cache;
use crate::node::Budget;
use crate::overlay::OverlayId;

/// Senders of whom we know no key: to open what they have sealed takes far longer than anything else.
const STRANGERS: Budget = Budget::new(500, 200);

/// Sources that are told apart for each neighbour. Who is forgotten starts anew, within the budget of the neighbour.
const MAX_SOURCES: usize = 512;

/// Messages and bytes.
#[derive(Debug)]
pub(super) struct Pair {
    messages: Budget,
    bytes: Budget,
}

impl Pair {
    pub(super) fn new(rate: &Rate) -> Self {
        let of = |each_second: u32| Budget::new(each_second.saturating_mul(rate.burst_seconds), each_second);
        Self { messages: of(rate.messages), bytes: of(rate.bytes) }
    }

    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.messages.take(now) && self.bytes.take_many(bytes, now)
    }

    /// Takes a message if half is left, which is for those who are within their own budgets.
    pub(super) fn take_spare(&mut self, bytes: usize, now: Instant) -> bool {
        let (messages, half) = (self.messages.half() + 1, self.bytes.half());
        self.messages.has(messages, now) && self.bytes.has(half + bytes, now) && self.take(bytes, now)
    }
}

/// The budgets of a neighbour.
#[derive(Debug)]
pub(super) struct Budgets {
    all: Pair,
    each: Rate,
    sources: Cache<OverlayId, Pair>,
    strangers: Budget,
}

impl Budgets {
    pub(super) fn new(config: &RouterConfig) -> Self {
        Self {
            all: Pair::new(&config.neighbour_budget),
            each: config.source_budget,
            sources: Cache::new(MAX_SOURCES),
            strangers: STRANGERS,
        }
    }

    /// Takes a message that a stranger has sealed for us.
    pub(super) fn take_stranger(&mut self, now: Instant) -> bool {
        self.strangers.take(now)
    }

    /// Takes a packet of the neighbour itself, or of a source behind it: as long as there is plenty for all, or within their own
    /// budgets. A source that is over its own costs the neighbour nothing, so that a flood does not use up what is for others.
    pub(super) fn take(&mut self, source: Option<OverlayId>, bytes: usize, relayed: &mut Pair, now: Instant) -> bool {
        if relayed.take_spare(bytes, now) {
            return true;
        }
        let each = &self.each;
        let of_source = |source| self.sources.get_or_insert(source, || Pair::new(each)).take(bytes, now);
        source.is_none_or(of_source) && self.all.take(bytes, now) && relayed.take(bytes, now)
    }
}
