use std::time::Duration;

use crate::overlay::RingId;

use super::PREDECESSORS;
use super::wire::MAX_IDS;

/// The part of the links that fit for those at about the same distance that only the other side needs.
const STEP_SHARE: usize = 5;

/// How a [`Chord`](super::Chord) keeps its table. Values out of range are taken as the nearest that is in range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChordConfig {
    /// The rows of the finger table, each below 48. Row `f` holds the first peer at or behind `id + 2^f` on the ring of 48 bits,
    /// which is `id + 2^(112 + f)` on that of 160 bits. Default: the 16 highest, 32 to 47.
    pub rows: Vec<u32>,
    /// Successors to keep links to, from 1 to 28. A ring heals as long as not all of them vanish at once; more of them also
    /// make ways shorter. Default: 4.
    pub successors: usize,
    /// Links that fit into the table. Beyond them only the nearest peers on the ring are let in, each in place of a link
    /// that is needed less. Peers that we do not need, at about the same distance, may take a fifth of them, besides those that have us
    /// among their successors. At least what the other settings take, and some for those that have us as a finger: two for each
    /// successor and three for every two rows. Default: 64.
    pub max_links: usize,
    /// Time between two rounds of stabilisation while something changes, at least 10 ms. Default: half a second.
    pub interval: Duration,
    /// Time between two rounds when nothing has changed for a while: the interval doubles until then. Default: 30 seconds.
    pub idle_interval: Duration,
    /// A link that neither side needs is released after this. Default: 10 seconds.
    pub grace: Duration,
}

impl Default for ChordConfig {
    fn default() -> Self {
        Self {
            rows: (32..RingId::BITS).collect(),
            successors: 4,
            max_links: 64,
            interval: Duration::from_millis(500),
            idle_interval: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}

impl ChordConfig {
    /// How many links at about the same distance are kept only because the other side needs them, besides the nearest. Of honest peers about two have us
    /// among their fingers from there; six times as many only where our predecessor is six times as far as usual.
    pub(super) fn step_share(&self) -> usize {
        (self.max_links / STEP_SHARE).max(1)
    }

    pub(super) fn in_range(mut self) -> Self {
        self.rows.retain(|row| *row < RingId::BITS);
        self.rows.sort_unstable();
        self.rows.dedup();
        self.successors = self.successors.clamp(1, MAX_IDS - PREDECESSORS);
        self.max_links = self.max_links.max(2 * self.successors + self.rows.len() * 3 / 2);
        self.interval = self.interval.max(Duration::from_millis(10));
        self.idle_interval = self.idle_interval.max(self.interval);
        self
    }
}
