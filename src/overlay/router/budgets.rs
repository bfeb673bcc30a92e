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

#[derive(Debug)]
struct Pair {
    messages: Budget,
    bytes: Budget,
}

impl Pair {
    fn new(rate: &Rate) -> Self {
        let of = |each_second: u32| Budget::new(each_second.saturating_mul(rate.burst_seconds), each_second);
        Self { messages: of(rate.messages), bytes: of(rate.bytes) }
    }

    fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.messages.take(now) && self.bytes.take_many(bytes, now)
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

    /// Takes a packet of the neighbour itself.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.all.take(bytes, now)
    }

    /// Takes a message that a stranger has sealed for us.
    pub(super) fn take_stranger(&mut self, now: Instant) -> bool {
        self.strangers.take(now)
    }

    /// Takes a message of a source. One that is over its own budget costs the neighbour nothing, so that a flood does not use
    /// up what is for others.
    pub(super) fn take_from(&mut self, source: OverlayId, bytes: usize, now: Instant) -> bool {
        let each = &self.each;
        self.sources.get_or_insert(source, || Pair::new(each)).take(bytes, now) && self.all.take(bytes, now)
    }
}
