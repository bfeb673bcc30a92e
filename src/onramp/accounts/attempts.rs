//! Attempts that are under way: how many there may be, and in which order they are hashed.
//!
//! An address has at most as many passwords in the queue and at work as are hashed at once in all; its others wait outside of the queue.
//! So whoever comes from elsewhere waits behind that many of them and no more, however many passwords one address sends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// An address as far as one customer of a provider has one: IPv6 by its first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    bits: u64,
    is_v6: bool,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { bits: u64::from(address.to_bits()), is_v6: false },
            IpAddr::V6(address) => Self { bits: (address.to_bits() >> 64) as u64, is_v6: true },
        }
    }
}

/// How many attempts there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// That are hashed.
    pub(super) hashing: usize,
    /// From one address, those that wait included.
    pub(super) for_each_address: usize,
    /// In all.
    pub(super) in_all: usize,
}

pub(super) struct Attempts {
    bounds: Bounds,
    queue: Arc<Semaphore>,
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    total: usize,
    /// Those with an attempt: how many, and their places in the queue.
    present: HashMap<Source, (usize, Arc<Semaphore>)>,
}

/// One attempt, until it is dropped.
pub(super) struct Attempt {
    attempts: Arc<Attempts>,
    from: Source,
    places: Arc<Semaphore>,
}

/// An attempt whose password may be hashed.
pub(super) struct Turn {
    _queue: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
    _attempt: Attempt,
}

impl Attempts {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let queue = Arc::new(Semaphore::new(bounds.hashing));
        Arc::new(Self { bounds, queue, sources: Mutex::default() })
    }

    /// None if there are too many.
    pub(super) fn enter(self: &Arc<Self>, from: Source) -> Option<Attempt> {
        let mut sources = lock(&self.sources);
        if sources.total >= self.bounds.in_all {
            return None;
        }
        let new = || (0, Arc::new(Semaphore::new(self.bounds.hashing)));
        let (count, places) = sources.present.entry(from).or_insert_with(new);
        if *count >= self.bounds.for_each_address {
            return None;
        }
        *count += 1;
        let places = places.clone();
        sources.total += 1;
        Some(Attempt { attempts: self.clone(), from, places })
    }

    #[cfg(test)]
    pub(super) fn is_at_work(&self) -> bool {
        lock(&self.sources).total > 0
    }

    /// Waits for a place among the passwords that are hashed, for whoever has no address.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        take(&self.queue).await
    }
}

impl Attempt {
    /// Waits for its turn. Dropping the future gives the attempt up.
    pub(super) async fn turn(self) -> Turn {
        let _place = take(&self.places).await;
        let _queue = take(&self.attempts.queue).await;
        Turn { _queue, _place, _attempt: self }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut sources = lock(&self.attempts.sources);
        sources.total -= 1;
        if let Some((count, _)) = sources.present.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                sources.present.remove(&self.from);
            }
        }
    }
}

async fn take(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("it is never closed")
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_ne!(source("0.0.0.1"), source("::1"));
    }

    #[test]
    fn there_are_so_many_for_an_address_and_in_all() {
        let attempts = Attempts::new(Bounds { hashing: 1, for_each_address: 2, in_all: 3 });
        let (a, b, c) = (source("10.0.0.1"), source("10.0.0.2"), source("10.0.0.3"));
        let first = attempts.enter(a).unwrap();
        let _second = attempts.enter(a).unwrap();
        assert!(attempts.enter(a).is_none());
        let third = attempts.enter(b).unwrap();
        assert!(attempts.enter(c).is_none());
        drop(third);
        assert!(attempts.enter(c).is_some(), "it has left by now, too");
        drop(first);
        assert!(attempts.enter(a).is_some());
        assert_eq!(lock(&attempts.sources).present.len(), 1, "nothing is kept of those who are gone");
    }

    #[tokio::test]
    async fn who_comes_from_elsewhere_does_not_wait_behind_a_crowd() {
        let attempts = Attempts::new(Bounds { hashing: 2, for_each_address: 100, in_all: 100 });
        let mut crowd: Vec<_> = (0..50).map(|_| Box::pin(attempts.enter(source("10.0.0.1")).unwrap().turn())).collect();
        let mut at_work = Vec::new();
        for turn in &mut crowd {
            if let Poll::Ready(turn) = poll!(turn) {
                at_work.push(turn);
            }
        }
        assert_eq!(at_work.len(), 2);
        let mut other = Box::pin(attempts.enter(source("10.0.0.2")).unwrap().turn());
        assert!(poll!(&mut other).is_pending());
        at_work.pop();
        assert!(poll!(&mut other).is_ready(), "it is next");
    }
}
