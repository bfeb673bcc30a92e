//! What has been here: so that each message is delivered once, and can be sent again for a while.
//!
//! The ids of messages are kept for a time. When one is forgotten, its number becomes the *floor* of its origin, and what has no
//! larger number is refused from then on: it was here and is forgotten, or is as late. So a message that somebody recorded and
//! brings again is delivered once only, however late, as long as its origin is remembered.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Instant;

use bytes::Bytes;
use lru::LruCache;

use super::TopicsConfig;
use super::message::{Message, MessageId};
use crate::node::Budget;
use crate::overlay::OverlayId;
use crate::overlay::router::Rate;

/// Origins whose floor and budget are remembered in a topic. Then the one that was silent for longest is forgotten.
const MAX_ORIGINS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// A budget for messages and bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    messages: Budget,
    bytes: Budget,
}

/// The messages of a topic.
#[derive(Debug)]
pub(super) struct History {
    seen: HashMap<MessageId, Seen>,
    /// All that are seen, in their order.
    order: VecDeque<(Instant, MessageId)>,
    /// Those that are kept as a whole, in their order.
    kept: VecDeque<(Instant, MessageId)>,
    kept_bytes: usize,
    origins: LruCache<OverlayId, Origin>,
}

#[derive(Debug)]
struct Seen {
    origin: OverlayId,
    number: u64,
    hops: u8,
    message: Option<Bytes>,
}

#[derive(Debug)]
struct Origin {
    floor: u64,
    allowance: Allowance,
}

/// What becomes of a message that was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fresh,
    /// Not above the floor of its origin.
    Old,
    OverBudget,
}

impl Allowance {
    pub(super) fn new(rate: Rate) -> Self {
        let bucket = |rate: u32, seconds: u32| Budget::new(rate.saturating_mul(seconds), rate);
        Self { messages: bucket(rate.messages, rate.burst_seconds), bytes: bucket(rate.bytes, rate.burst_seconds) }
    }

    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.messages.take(now) && self.bytes.take_many(bytes, now)
    }
}

impl History {
    pub(super) fn new() -> Self {
        let (seen, order, kept) = Default::default();
        Self { seen, order, kept, kept_bytes: 0, origins: LruCache::new(MAX_ORIGINS) }
    }

    pub(super) fn has_seen(&self, id: &MessageId) -> bool {
        self.seen.contains_key(id)
    }

    /// A message and its hops, if it is still kept.
    pub(super) fn message(&self, id: &MessageId) -> Option<(Bytes, u8)> {
        let seen = self.seen.get(id)?;
        Some((seen.message.clone()?, seen.hops))
    }

    /// The newest messages that are kept, and their hops.
    pub(super) fn kept(&self, most: usize) -> Vec<(MessageId, u8)> {
        let newest = self.kept.iter().rev().take(most);
        newest.filter_map(|(_, id)| self.seen.get(id).map(|seen| (*id, seen.hops))).collect()
    }

    /// Judges a message of somebody else.
    pub(super) fn judge(&mut self, message: &Message, bytes: usize, config: &TopicsConfig, now: Instant) -> Verdict {
        let origin = self.origin(message.origin, config);
        if message.number <= origin.floor {
            Verdict::Old
        } else if origin.allowance.take(bytes, now) {
            Verdict::Fresh
        } else {
            Verdict::OverBudget
        }
    }

    /// Remembers a message, and keeps it as a whole if it is given.
    pub(super) fn add(
        &mut self,
        id: MessageId,
        (origin, number, hops): (OverlayId, u64, u8),
        message: Option<Bytes>,
        config: &TopicsConfig,
        now: Instant,
    ) {
        self.order.push_back((now, id));
        if let Some(message) = &message {
            self.kept.push_back((now, id));
            self.kept_bytes += message.len();
        }
        self.seen.insert(id, Seen { origin, number, hops, message });
        self.forget(config, now);
    }

    /// Forgets what is old, or too much.
    pub(super) fn forget(&mut self, config: &TopicsConfig, now: Instant) {
        while let Some((at, id)) = self.kept.front().copied() {
            if self.kept_bytes <= config.kept_bytes && now < at + config.keep_for {
                break;
            }
            self.kept.pop_front();
            let message = self.seen.get_mut(&id).and_then(|seen| seen.message.take());
            self.kept_bytes -= message.map_or(0, |message| message.len());
        }
        while let Some((at, id)) = self.order.front().copied() {
            if self.order.len() <= config.remembered_messages && now < at + config.remember_for {
                break;
            }
            self.order.pop_front();
            let Some(seen) = self.seen.remove(&id) else { continue };
            self.kept_bytes -= seen.message.map_or(0, |message| message.len());
            let origin = self.origin(seen.origin, config);
            origin.floor = origin.floor.max(seen.number);
        }
    }

    fn origin(&mut self, id: OverlayId, config: &TopicsConfig) -> &mut Origin {
        self.origins.get_or_insert_mut(id, || {
            // Twice what an origin may send at once: what it has sent may have been held up and come together.
            let rate = Rate { burst_seconds: config.origin_rate.burst_seconds.saturating_mul(2), ..config.origin_rate };
            Origin { floor: 0, allowance: Allowance::new(rate) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(origin: u8, number: u64) -> Message {
        Message { origin: OverlayId::from_bytes([origin; 20]), number, body: Bytes::new() }
    }

    fn add(history: &mut History, message: &Message, config: &TopicsConfig, now: Instant) -> MessageId {
        let mut id = [message.origin.as_bytes()[0]; 16];
        id[..8].copy_from_slice(&message.number.to_be_bytes());
        let id = MessageId(id);
        let bytes = Bytes::from(vec![0; 1000]);
        history.add(id, (message.origin, message.number, 0), Some(bytes), config, now);
        id
    }

    #[test]
    fn what_is_forgotten_is_old() {
        let (config, start) = (TopicsConfig::default(), Instant::now());
        let mut history = History::new();
        let (first, second) = (message(1, 5), message(1, 7));
        let id = add(&mut history, &first, &config, start);
        assert!(history.has_seen(&id));
        assert_eq!(history.judge(&message(1, 4), 1, &config, start), Verdict::Fresh, "late, and was not here");
        let later = start + config.remember_for / 2;
        add(&mut history, &second, &config, later);
        assert_eq!(history.message(&id), None, "kept for a shorter time");
        history.forget(&config, start + config.remember_for);
        assert!(!history.has_seen(&id));
        let after = start + config.remember_for;
        assert_eq!(history.judge(&first, 1, &config, after), Verdict::Old);
        assert_eq!(history.judge(&message(1, 4), 1, &config, after), Verdict::Old);
        assert_eq!(history.judge(&message(1, 6), 1, &config, after), Verdict::Fresh);
        assert_eq!(history.judge(&message(2, 1), 1, &config, after), Verdict::Fresh, "of another origin");
    }

    #[test]
    fn it_is_bounded() {
        let (config, start) =
            (TopicsConfig { remembered_messages: 100, kept_bytes: 10_000, ..TopicsConfig::default() }, Instant::now());
        let mut history = History::new();
        for number in 1..=5000 {
            add(&mut history, &message(number as u8, number), &config, start);
            history.judge(&message((number % 251) as u8, number), 1, &config, start);
        }
        assert_eq!((history.seen.len(), history.order.len(), history.kept.len()), (100, 100, 10));
        assert_eq!(history.kept_bytes, 10_000);
        history.forget(&config, start + Duration::from_secs(3600));
        assert_eq!((history.seen.len(), history.kept.len(), history.kept_bytes), (0, 0, 0));
        for origin in 0..5000u32 {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&origin.to_be_bytes());
            history.origin(OverlayId::from_bytes(bytes), &config);
        }
        assert_eq!(history.origins.len(), MAX_ORIGINS.get());
    }
}
