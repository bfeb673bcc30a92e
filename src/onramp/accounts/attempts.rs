//! Attempts that are under way: each waits for its turn, and gives it back when it is dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::turns::{Bounds, Standing, Turns};
use crate::lock::lock;

/// An address as far as one customer of a provider has one: IPv6 by its first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    bits: u64,
    is_v6: bool,
}

/// The first 48 bits of an address of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(u64);

impl Source {
    pub(super) fn network(self) -> Option<Network> {
        self.is_v6.then_some(Network(self.bits >> 16))
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { bits: u64::from(address.to_bits()), is_v6: false },
            IpAddr::V6(address) => Self { bits: (address.to_bits() >> 64) as u64, is_v6: true },
        }
    }
}

pub(super) struct Attempts(Mutex<Turns<oneshot::Sender<()>>>);

/// One attempt, until it is dropped.
pub(super) struct Attempt {
    attempts: Arc<Attempts>,
    standing: Standing,
    from: Source,
    waits: Option<u64>,
}

/// An attempt whose password may be hashed.
pub(super) struct Turn(#[expect(dead_code, reason = "dropping it is what matters")] Attempt);

impl Attempts {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turns::new(bounds))))
    }

    /// None if there are too many. Also says whether new ones fail often.
    pub(super) fn enter(self: &Arc<Self>, standing: Standing, from: Source, is_alarmed: bool) -> Option<Attempt> {
        let mut turns = lock(&self.0);
        turns.set_alarmed(is_alarmed);
        turns.enter(standing, from).then(|| self.attempt(standing, from))
    }

    /// For whoever has no address: there may be any number.
    pub(super) fn enter_here(self: &Arc<Self>) -> Attempt {
        let from = IpAddr::from(Ipv4Addr::UNSPECIFIED).into();
        lock(&self.0).enter_anyway(Standing::Known, from);
        self.attempt(Standing::Known, from)
    }

    fn attempt(self: &Arc<Self>, standing: Standing, from: Source) -> Attempt {
        Attempt { attempts: self.clone(), standing, from, waits: None }
    }

    #[cfg(test)]
    pub(super) fn is_at_work(&self) -> bool {
        !lock(&self.0).is_empty()
    }

    /// Tells those whose turn it is.
    fn go_on(&self) {
        loop {
            let next = lock(&self.0).next();
            // Whoever has given up meanwhile leaves, and then others are told.
            match next {
                Some(waiter) => drop(waiter.send(())),
                None => return,
            }
        }
    }
}

impl Attempt {
    /// Waits for its turn. Dropping the future gives the attempt up.
    pub(super) async fn turn(mut self) -> Turn {
        let (waiter, turn) = oneshot::channel();
        self.waits = Some(lock(&self.attempts.0).wait(self.standing, self.from, waiter));
        self.attempts.go_on();
        turn.await.expect("who waits is told or leaves");
        Turn(self)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        lock(&self.attempts.0).leave(self.standing, self.from, self.waits);
        self.attempts.go_on();
    }
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

    #[tokio::test]
    async fn who_comes_from_elsewhere_does_not_wait_behind_a_crowd() {
        let attempts = Attempts::new(Bounds { hashing: 2, for_each_address: 100, in_all: 100 });
        let enter = |from| attempts.enter(Standing::New, source(from), false).unwrap();
        let mut crowd: Vec<_> = (0..50).map(|_| Box::pin(enter("10.0.0.1").turn())).collect();
        let mut at_work = Vec::new();
        for turn in &mut crowd {
            if let Poll::Ready(turn) = poll!(turn) {
                at_work.push(turn);
            }
        }
        assert_eq!(at_work.len(), 2);
        let mut other = Box::pin(enter("10.0.0.2").turn());
        assert!(poll!(&mut other).is_pending());
        at_work.pop();
        assert!(poll!(&mut crowd[2]).is_ready(), "it was next");
        // Its turn is over at once, as it is dropped.
        assert!(poll!(&mut other).is_ready());
        // Who gives up lets the others go on, before and after it has been told.
        drop((at_work, crowd));
        let waits = poll!(&mut Box::pin(enter("10.0.0.3").turn()));
        assert!(waits.is_ready());
        drop((other, waits));
        assert!(!attempts.is_at_work());
    }
}
