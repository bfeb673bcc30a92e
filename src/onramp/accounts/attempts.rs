//! Attempts that are under way: each waits for its turn, and gives it back when it is dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::store::Digest;
use super::turns::{Bounds, Standing, Turns, Who};
use crate::lock::lock;

/// An address as far as one customer of a provider has one: IPv6 by its first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::onramp) struct Source {
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

/// One attempt that waits or is hashed, until it is dropped.
struct Attempt {
    attempts: Arc<Attempts>,
    who: Who,
    ticket: u64,
}

/// An attempt whose password may be hashed.
pub(super) struct Turn(#[expect(dead_code, reason = "dropping it is what matters")] Attempt);

impl Attempts {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turns::new(bounds))))
    }

    /// Waits for its turn. None if there are too many. Also says whether new ones fail often. Dropping the future gives the attempt up.
    pub(super) async fn turn(self: &Arc<Self>, who: Who, is_alarmed: bool) -> Option<Turn> {
        let (attempt, turn) = self.enter(who, is_alarmed)?;
        self.go_on();
        // Whoever has more than others may lose the place to one of them.
        turn.await.ok()?;
        Some(Turn(attempt))
    }

    /// For whoever has no address: there may be any number.
    pub(super) async fn turn_here(self: &Arc<Self>) -> Turn {
        let from = IpAddr::from(Ipv4Addr::UNSPECIFIED).into();
        let is_alarmed = lock(&self.0).is_alarmed();
        let who = Who { standing: Standing::Own, account: Digest([0; 32]), from };
        self.turn(who, is_alarmed).await.expect("there is always a place")
    }

    /// Waits for so long before it may have a turn. None if there are too many. Dropping the future gives the attempt up.
    pub(super) async fn delay(self: &Arc<Self>, account: Digest, from: Source, delay: Duration) -> Option<()> {
        let is_alarmed = lock(&self.0).is_alarmed();
        let (_attempt, lost) = self.enter(Who { standing: Standing::Delayed, account, from }, is_alarmed)?;
        timeout(delay, lost).await.is_err().then_some(())
    }

    fn enter(self: &Arc<Self>, who: Who, is_alarmed: bool) -> Option<(Attempt, oneshot::Receiver<()>)> {
        let (waiter, turn) = oneshot::channel();
        let mut turns = lock(&self.0);
        turns.set_alarmed(is_alarmed);
        let ticket = turns.enter(who, waiter)?;
        Some((Attempt { attempts: self.clone(), who, ticket }, turn))
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

impl Drop for Attempt {
    fn drop(&mut self) {
        lock(&self.attempts.0).leave(self.who, self.ticket);
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

    fn new(from: &str) -> Who {
        Who { standing: Standing::New, account: Digest([1; 32]), from: source(from) }
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
        let attempts = Attempts::new(Bounds { hashing: 2, for_each: 100, in_all: 100 });
        let enter = async |from| attempts.turn(new(from), false).await.unwrap();
        let mut crowd: Vec<_> = (0..50).map(|_| Box::pin(enter("10.0.0.1"))).collect();
        let mut at_work = Vec::new();
        for turn in &mut crowd {
            if let Poll::Ready(turn) = poll!(turn) {
                at_work.push(turn);
            }
        }
        assert_eq!(at_work.len(), 2);
        let mut other = Box::pin(enter("10.0.0.2"));
        assert!(poll!(&mut other).is_pending());
        at_work.pop();
        assert!(poll!(&mut crowd[2]).is_ready(), "it was next");
        // Its turn is over at once, as it is dropped.
        assert!(poll!(&mut other).is_ready());
        // Who gives up lets the others go on, before and after it has been told.
        drop((at_work, crowd));
        let waits = poll!(&mut Box::pin(enter("10.0.0.3")));
        assert!(waits.is_ready());
        drop((other, waits));
        assert!(!attempts.is_at_work());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_delayed_waits_for_so_long_and_shares_the_places() {
        let attempts = Attempts::new(Bounds { hashing: 1, for_each: 2, in_all: 2 });
        let (account, delay) = (Digest([1; 32]), Duration::from_secs(3));
        let enter = |from| Box::pin(attempts.delay(account, source(from), delay));
        let (mut first, mut second, mut other) = (enter("10.0.0.1"), enter("10.0.0.1"), enter("10.0.0.2"));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        assert_eq!(poll!(enter("10.0.0.1")), Poll::Ready(None));
        assert!(poll!(&mut other).is_pending());
        assert_eq!(poll!(second), Poll::Ready(None), "another address had none");
        // None of them keeps from its turn who is not delayed.
        drop(attempts.turn(new("10.0.0.3"), false).await.unwrap());
        let start = tokio::time::Instant::now();
        assert_eq!((first.await, other.await), (Some(()), Some(())));
        assert_eq!(start.elapsed(), delay);
        assert!(!attempts.is_at_work());
    }
}
