//! How often one may try passwords: a pure machine.
//!
//! Wrong passwords are counted three ways. For an account from one address, strictly; for an address, and for a network of IPv6, over all
//! accounts, loosely; for an account over all addresses, where many only make attempts slower: otherwise anybody could lock a user out.
//! Whoever has logged in to an account from an address is there held to the first count only, whatever others do to the account or from
//! the address.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attempts::{Network, Source};
use super::store::Digest;
use super::turns::Standing;

/// Keys of each kind that are remembered. The one that was used longest ago gives way.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not 0");

/// Longest time for one more attempt: beyond, time would overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Wrong passwords of those of whom nothing was known, all together: beyond, an attack from many addresses is under way.
const ALARM: Allowance = Allowance { burst: 20, every: Duration::from_secs(1) };

/// How many wrong passwords are let pass at once, and how long it takes until one more is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// At once, after a rest. At least 1.
    pub burst: u32,
    /// For each further one. At most a day.
    pub every: Duration,
}

/// How wrong passwords are held against those who send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    /// For one account from one address. Further attempts are refused.
    pub pair: Allowance,
    /// From one address, over all accounts. Further attempts are refused, but for accounts that have logged in from there. Ten times as
    /// many, ten times as fast, from the first 48 bits of an address of IPv6, which many a customer has whole.
    pub address: Allowance,
    /// For one account, from all addresses from which it has not logged in. Further attempts wait for `delay`.
    pub account: Allowance,
    /// See `account`.
    pub delay: Duration,
}

impl Default for Throttling {
    /// 10 and one each half a minute; 100 and one each two seconds; 20 and one each five seconds, else 3 seconds of delay.
    fn default() -> Self {
        Self {
            pair: Allowance { burst: 10, every: Duration::from_secs(30) },
            address: Allowance { burst: 100, every: Duration::from_secs(2) },
            account: Allowance { burst: 20, every: Duration::from_secs(5) },
            delay: Duration::from_secs(3),
        }
    }
}

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// It may go on after this.
    Slow(Duration),
    /// Not before this has passed.
    Refuse(Duration),
}

/// Until when the failures of a key use up its allowance.
type Counts<K> = LruCache<K, Instant>;

/// Names of accounts are known by their digests, which are short.
pub(super) struct Throttle {
    throttling: Throttling,
    pairs: Counts<(Digest, Source)>,
    addresses: Counts<Source>,
    networks: Counts<Network>,
    accounts: Counts<Digest>,
    /// From where an account has logged in.
    known: LruCache<(Digest, Source), ()>,
    /// Until when wrong passwords of those of whom nothing was known use up their allowance.
    alarm: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(mut throttling: Throttling) -> Self {
        let Throttling { pair, address, account, .. } = &mut throttling;
        for Allowance { every, .. } in [pair, address, account] {
            *every = (*every).min(LONGEST);
        }
        Self {
            throttling,
            pairs: cache(),
            addresses: cache(),
            networks: cache(),
            accounts: cache(),
            known: cache(),
            alarm: None,
        }
    }

    /// What is known of an attempt that is made now.
    pub(super) fn standing(&self, account: Digest, from: Source, now: Instant) -> Standing {
        let failures = [self.pairs.peek(&(account, from)), self.addresses.peek(&from), self.accounts.peek(&account)];
        if self.knows(account, from) {
            Standing::Known
        } else if failures.into_iter().flatten().any(|used| *used > now) {
            Standing::Suspect
        } else {
            Standing::New
        }
    }

    /// Whether many of those of whom nothing was known have failed lately.
    pub(super) fn is_alarmed(&self, now: Instant) -> bool {
        ALARM.wait(self.alarm.as_ref(), now).is_some()
    }

    /// Whether one has logged in to this account from there.
    fn knows(&self, account: Digest, from: Source) -> bool {
        self.known.contains(&(account, from))
    }

    /// Whether an attempt may be made now.
    pub(super) fn check(&mut self, account: Digest, from: Source, now: Instant) -> Verdict {
        let Throttling { pair, address, account: slow, delay } = self.throttling;
        let refused = pair.wait(self.pairs.peek(&(account, from)), now);
        if self.known.get(&(account, from)).is_some() {
            return refused.map_or(Verdict::Pass, Verdict::Refuse);
        }
        let network = from.network().and_then(|of| address.of_network().wait(self.networks.peek(&of), now));
        match refused.max(address.wait(self.addresses.peek(&from), now)).max(network) {
            Some(wait) => Verdict::Refuse(wait),
            None if slow.wait(self.accounts.peek(&account), now).is_some() => Verdict::Slow(delay),
            None => Verdict::Pass,
        }
    }

    /// The password was wrong, or there is no such account. `standing` is what was known before.
    pub(super) fn failed(&mut self, account: Digest, from: Source, standing: Standing, now: Instant) {
        let Throttling { pair, address, account: slow, .. } = self.throttling;
        pair.charge(&mut self.pairs, (account, from), now);
        if !self.knows(account, from) {
            address.charge(&mut self.addresses, from, now);
            if let Some(network) = from.network() {
                address.of_network().charge(&mut self.networks, network, now);
            }
            slow.charge(&mut self.accounts, account, now);
        }
        if standing == Standing::New {
            self.alarm = Some(ALARM.charged(self.alarm, now));
        }
    }

    /// The password was right.
    pub(super) fn succeeded(&mut self, account: Digest, from: Source) {
        self.pairs.pop(&(account, from));
        self.known.put((account, from), ());
    }
}

/// A cache that takes memory as it fills.
fn cache<K: Hash + Eq, V>() -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(MAX_KEYS);
    cache
}

impl Allowance {
    /// How long until one more is let pass, if that is not now.
    fn wait(self, used: Option<&Instant>, now: Instant) -> Option<Duration> {
        let full = self.every.saturating_mul(self.burst.max(1) - 1);
        let wait = used?.saturating_duration_since(now).saturating_sub(full);
        (!wait.is_zero()).then_some(wait)
    }

    /// That of all addresses in a network, if this is that of one.
    fn of_network(self) -> Self {
        Self { burst: self.burst.saturating_mul(10), every: self.every / 10 }
    }

    fn charge<K: Hash + Eq>(self, counts: &mut Counts<K>, key: K, now: Instant) {
        let used = self.charged(counts.get(&key).copied(), now);
        counts.put(key, used);
    }

    fn charged(self, used: Option<Instant>, now: Instant) -> Instant {
        // Attempts that were under way at once may be more than are let pass: they are not held against anybody for longer.
        let most = now + self.every.saturating_mul(self.burst.max(1));
        (used.filter(|&used| used > now).unwrap_or(now) + self.every).min(most)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn throttle() -> (Throttle, Throttling, Instant) {
        (Throttle::new(Throttling::default()), Throttling::default(), Instant::now())
    }

    #[test]
    fn a_pair_has_its_burst_and_then_its_rate() {
        let (mut throttle, Throttling { pair, .. }, mut now) = throttle();
        let from = source("192.0.2.1");
        for _ in 0..pair.burst {
            assert_eq!(throttle.check(A, from, now), Verdict::Pass);
            throttle.failed(A, from, Standing::New, now);
        }
        assert_eq!(throttle.check(A, from, now), Verdict::Refuse(pair.every));
        assert_eq!(throttle.check(B, from, now), Verdict::Pass, "another account");
        assert_eq!(throttle.check(A, source("192.0.2.2"), now), Verdict::Pass, "another address");
        now += pair.every;
        assert_eq!(throttle.check(A, from, now), Verdict::Pass);
        throttle.failed(A, from, Standing::New, now);
        assert_eq!(throttle.check(A, from, now), Verdict::Refuse(pair.every));
        now += pair.every * pair.burst;
        for _ in 0..pair.burst {
            assert_eq!(throttle.check(A, from, now), Verdict::Pass, "a rest gives the burst back");
            throttle.failed(A, from, Standing::New, now);
        }
    }

    #[test]
    fn a_success_resets_its_pair_only() {
        let (mut throttle, Throttling { pair, .. }, now) = throttle();
        let from = source("192.0.2.1");
        for account in [A, B] {
            for _ in 0..pair.burst {
                throttle.failed(account, from, Standing::New, now);
            }
        }
        throttle.succeeded(A, from);
        assert!(throttle.knows(A, from) && !throttle.knows(B, from));
        assert_eq!(throttle.check(A, from, now), Verdict::Pass);
        assert!(matches!(throttle.check(B, from, now), Verdict::Refuse(_)));
    }

    #[test]
    fn an_address_that_tries_many_accounts_is_refused_but_not_those_who_were_there() {
        let (mut throttle, Throttling { address, .. }, now) = throttle();
        let from = source("192.0.2.1");
        throttle.succeeded(A, from);
        for account in 0..address.burst {
            throttle.failed(Digest([account as u8 + 10; 32]), from, Standing::New, now);
        }
        assert_eq!(throttle.check(B, from, now), Verdict::Refuse(address.every));
        assert_eq!(throttle.check(A, from, now), Verdict::Pass);
        assert_eq!(throttle.check(B, source("192.0.2.2"), now), Verdict::Pass);
    }

    #[test]
    fn a_network_with_many_addresses_is_refused_but_not_those_who_were_there() {
        let (mut throttle, Throttling { address, .. }, now) = throttle();
        let from = |network: u16, number: u32| source(&format!("2001:db8:{network:x}:{number:x}::1"));
        let account = |number: u32| Digest([(number % 251) as u8; 32]);
        throttle.succeeded(A, from(1, 0));
        for number in 0..10 * address.burst {
            assert_eq!(throttle.check(account(number), from(1, number), now), Verdict::Pass, "{number}");
            throttle.failed(account(number), from(1, number), Standing::New, now);
        }
        assert_eq!(throttle.check(B, from(1, 0xffff), now), Verdict::Refuse(address.every / 10));
        assert_eq!(throttle.check(B, from(1, 0xffff), now + address.every / 10), Verdict::Pass);
        assert_eq!(throttle.check(A, from(1, 0), now), Verdict::Pass);
        assert_eq!(throttle.check(B, from(2, 0xffff), now), Verdict::Pass);
    }

    #[test]
    fn an_account_that_many_addresses_try_is_slowed_but_never_refused() {
        let (mut throttle, Throttling { account, delay, .. }, now) = throttle();
        let (home, cafe) = (source("192.0.2.1"), source("192.0.2.2"));
        throttle.succeeded(A, home);
        for address in 0..account.burst + 1000 {
            let from = source(&format!("10.0.{}.{}", address / 200, address % 200));
            assert!(!matches!(throttle.check(A, from, now), Verdict::Refuse(_)));
            throttle.failed(A, from, Standing::New, now);
        }
        assert_eq!(throttle.check(A, cafe, now), Verdict::Slow(delay));
        assert_eq!(throttle.check(A, home, now), Verdict::Pass, "it has logged in from there");
        assert_eq!(throttle.check(A, cafe, now + account.every * account.burst), Verdict::Pass);
    }

    #[test]
    fn what_went_wrong_before_is_known_for_a_while() {
        let (mut throttle, Throttling { pair, address, account, .. }, now) = throttle();
        let [home, cafe] = ["192.0.2.1", "192.0.2.2"].map(source);
        let standing = |throttle: &Throttle, account, from, after| throttle.standing(account, from, now + after);
        assert_eq!(standing(&throttle, A, home, Duration::ZERO), Standing::New);
        throttle.failed(A, home, Standing::New, now);
        let just_before = |time: Duration| time - Duration::from_nanos(1);
        for (who, from, lasts) in [(A, home, pair.every), (A, cafe, account.every), (B, home, address.every)] {
            assert_eq!(standing(&throttle, who, from, just_before(lasts)), Standing::Suspect);
            assert_eq!(standing(&throttle, who, from, lasts), Standing::New);
        }
        assert_eq!(standing(&throttle, B, cafe, Duration::ZERO), Standing::New);
        throttle.succeeded(A, home);
        throttle.failed(A, cafe, Standing::Suspect, now);
        assert_eq!(standing(&throttle, A, home, Duration::ZERO), Standing::Known, "whatever others do");
    }

    #[test]
    fn many_who_are_new_and_fail_are_an_alarm() {
        let (mut throttle, _, now) = throttle();
        for number in 0..1000 {
            let from = IpAddr::from(u32::to_be_bytes(number)).into();
            let standing = if number < 500 { Standing::Suspect } else { Standing::New };
            assert_eq!(throttle.is_alarmed(now), number >= 500 + ALARM.burst, "{number}");
            throttle.failed(Digest([number as u8; 32]), from, standing, now);
        }
        assert!(throttle.is_alarmed(now) && !throttle.is_alarmed(now + ALARM.every));
    }

    #[test]
    fn numbers_may_be_as_large_as_they_are() {
        let most = Allowance { burst: u32::MAX, every: Duration::MAX };
        let delay = Duration::MAX;
        let mut throttle = Throttle::new(Throttling { pair: most, address: most, account: most, delay });
        let (from, now) = (source("192.0.2.1"), Instant::now());
        throttle.failed(A, from, Standing::New, now);
        throttle.failed(A, from, Standing::New, now);
        assert_eq!(throttle.check(A, from, now), Verdict::Pass);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut throttle, _, now) = throttle();
        for number in 0..70_000_u32 {
            let from = IpAddr::from(number.to_be_bytes()).into();
            let mut name = [0; 32];
            name[..4].copy_from_slice(&number.to_be_bytes());
            throttle.failed(Digest(name), from, Standing::New, now);
            throttle.succeeded(Digest(name), from);
        }
        assert!(throttle.known.len() <= MAX_KEYS.get() && throttle.accounts.len() <= MAX_KEYS.get());
        assert!(throttle.addresses.len() <= MAX_KEYS.get() && throttle.pairs.len() <= MAX_KEYS.get());
    }
}
