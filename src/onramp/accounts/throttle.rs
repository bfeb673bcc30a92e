//! How often one may try passwords: a pure machine.
//!
//! Wrong passwords are counted three ways. For an account from one address, strictly; for an address, and for a network of IPv6, over all
//! accounts, loosely; for an account over all addresses, where many only make attempts slower: otherwise anybody could lock a user out.
//! Whoever has logged in to an account from an address is there held to the first count only, whatever others do to the account or from
//! the address.
//!
//! The same wrong password for an account from one address counts once while it is remembered, as many sessions that do not know yet of
//! a new password would lock their owner out otherwise. Repetitions have a loose count of their own, of the address, which bounds the work;
//! they are checked as any other, so the time tells nothing, and the password may be the right one by now. Who is refused as it is does not
//! learn what is remembered, and who is not pays for each password that is not remembered. So few are remembered since those can be
//! tried again for nothing when the account gets another password.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attempts::{Network, Source};
use super::guess::Guess;
use super::store::Digest;
use super::turns::Standing;

/// Keys of each kind that are remembered. The one that was used longest ago gives way.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not 0");

/// Wrong passwords that are remembered of an account from one address. The oldest gives way.
const REMEMBERED: usize = 4;

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
    /// For one account from one address. Further attempts are refused. The same wrong password again counts only in a count of the address
    /// that is like `address`.
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

/// An account from one address.
struct Pair {
    /// Until when its failures use up its allowance.
    used: Instant,
    /// The latest wrong passwords.
    wrong: Vec<Guess>,
}

/// What comes from an address, and from its network.
struct Origins {
    addresses: Counts<Source>,
    networks: Counts<Network>,
}

/// Names of accounts are known by their digests, which are short.
pub(super) struct Throttle {
    throttling: Throttling,
    pairs: LruCache<(Digest, Source), Pair>,
    origins: Origins,
    /// Wrong passwords that were remembered.
    repeats: Origins,
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
            origins: Origins::new(),
            repeats: Origins::new(),
            accounts: cache(),
            known: cache(),
            alarm: None,
        }
    }

    /// What is known of an attempt that is made now.
    pub(super) fn standing(&self, account: Digest, from: Source, now: Instant) -> Standing {
        let pair = self.pairs.peek(&(account, from)).map(|pair| &pair.used);
        let addresses = [&self.origins, &self.repeats].map(|origins| origins.addresses.peek(&from));
        let failures = [pair, addresses[0], addresses[1], self.accounts.peek(&account)];
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

    fn remembers(&self, account: Digest, from: Source, guess: Guess) -> bool {
        self.pairs.peek(&(account, from)).is_some_and(|pair| pair.wrong.contains(&guess))
    }

    /// Whether an attempt may be made now.
    pub(super) fn check(&mut self, account: Digest, from: Source, guess: Guess, now: Instant) -> Verdict {
        let Throttling { pair, address, account: slow, delay } = self.throttling;
        let is_known = self.known.get(&(account, from)).is_some();
        let of_pair = pair.wait(self.pairs.peek(&(account, from)).map(|pair| &pair.used), now);
        let of_origin = if is_known { None } else { self.origins.wait(address, from, now) };
        let refused = of_pair.max(of_origin).or_else(|| {
            let is_repeated = self.remembers(account, from, guess);
            is_repeated.then(|| self.repeats.wait(address, from, now)).flatten()
        });
        match refused {
            Some(wait) => Verdict::Refuse(wait),
            None if !is_known && slow.wait(self.accounts.peek(&account), now).is_some() => Verdict::Slow(delay),
            None => Verdict::Pass,
        }
    }

    /// The password was wrong, or there is no such account. `standing` is what was known before.
    pub(super) fn failed(&mut self, account: Digest, from: Source, guess: Guess, standing: Standing, now: Instant) {
        let Throttling { pair, address, account: slow, .. } = self.throttling;
        if standing == Standing::New {
            self.alarm = Some(ALARM.charged(self.alarm, now));
        }
        let of_pair = self.pairs.get_or_insert_mut((account, from), || Pair { used: now, wrong: Vec::new() });
        if let Some(at) = of_pair.wrong.iter().position(|wrong| *wrong == guess) {
            // What is tried again and again is not forgotten for what is tried once.
            of_pair.wrong[..=at].rotate_right(1);
            return self.repeats.charge(address, from, now);
        }
        of_pair.used = pair.charged(Some(of_pair.used), now);
        of_pair.wrong.truncate(REMEMBERED - 1);
        of_pair.wrong.insert(0, guess);
        if !self.knows(account, from) {
            self.origins.charge(address, from, now);
            slow.charge(&mut self.accounts, account, now);
        }
    }

    /// The password was right.
    pub(super) fn succeeded(&mut self, account: Digest, from: Source) {
        self.pairs.pop(&(account, from));
        self.known.put((account, from), ());
    }
}

impl Origins {
    fn new() -> Self {
        Self { addresses: cache(), networks: cache() }
    }

    /// How long until one more is let pass, by the allowance of an address.
    fn wait(&self, address: Allowance, from: Source, now: Instant) -> Option<Duration> {
        let network = from.network().and_then(|of| address.of_network().wait(self.networks.peek(&of), now));
        address.wait(self.addresses.peek(&from), now).max(network)
    }

    fn charge(&mut self, address: Allowance, from: Source, now: Instant) {
        address.charge(&mut self.addresses, from, now);
        if let Some(network) = from.network() {
            address.of_network().charge(&mut self.networks, network, now);
        }
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// A password that was never tried.
    fn fresh() -> Guess {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut guess = [0; 32];
        guess[..8].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Guess(guess)
    }

    fn throttle() -> (Throttle, Throttling, Instant) {
        (Throttle::new(Throttling::default()), Throttling::default(), Instant::now())
    }

    #[test]
    fn a_pair_has_its_burst_and_then_its_rate() {
        let (mut throttle, Throttling { pair, .. }, mut now) = throttle();
        let from = source("192.0.2.1");
        for _ in 0..pair.burst {
            assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass);
            throttle.failed(A, from, fresh(), Standing::New, now);
        }
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Refuse(pair.every));
        assert_eq!(throttle.check(B, from, fresh(), now), Verdict::Pass, "another account");
        assert_eq!(throttle.check(A, source("192.0.2.2"), fresh(), now), Verdict::Pass, "another address");
        now += pair.every;
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass);
        throttle.failed(A, from, fresh(), Standing::New, now);
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Refuse(pair.every));
        now += pair.every * pair.burst;
        for _ in 0..pair.burst {
            assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass, "a rest gives the burst back");
            throttle.failed(A, from, fresh(), Standing::New, now);
        }
    }

    #[test]
    fn a_success_resets_its_pair_only() {
        let (mut throttle, Throttling { pair, .. }, now) = throttle();
        let from = source("192.0.2.1");
        for account in [A, B] {
            for _ in 0..pair.burst {
                throttle.failed(account, from, fresh(), Standing::New, now);
            }
        }
        throttle.succeeded(A, from);
        assert!(throttle.knows(A, from) && !throttle.knows(B, from));
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass);
        assert!(matches!(throttle.check(B, from, fresh(), now), Verdict::Refuse(_)));
    }

    #[test]
    fn the_same_wrong_password_counts_once_for_its_pair() {
        let (mut throttle, Throttling { pair, address, .. }, now) = throttle();
        let (from, old) = (source("2001:db8::1"), fresh());
        throttle.succeeded(B, from);
        for attempt in 0..=address.burst {
            assert_eq!(throttle.check(A, from, old, now), Verdict::Pass, "{attempt}");
            throttle.failed(A, from, old, Standing::Suspect, now);
        }
        // The work has a bound, over all accounts, those that are known too, and there are others in the network.
        assert_eq!(throttle.check(A, from, old, now), Verdict::Refuse(address.every));
        assert_eq!(throttle.check(A, from, old, now + address.every), Verdict::Pass);
        throttle.failed(B, from, old, Standing::Known, now);
        assert_eq!(throttle.check(B, from, old, now), Verdict::Refuse(address.every));
        assert_eq!(throttle.repeats.networks.len(), 1);
        // It has counted once, so others have the rest of the burst.
        for _ in 1..pair.burst {
            let new = fresh();
            assert_eq!(throttle.check(A, from, new, now), Verdict::Pass);
            throttle.failed(A, from, new, Standing::Suspect, now);
        }
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Refuse(pair.every));
    }

    #[test]
    fn what_is_tried_again_is_suspect_and_is_remembered_longest() {
        let (mut throttle, Throttling { pair, .. }, now) = throttle();
        let (from, old) = (source("192.0.2.1"), fresh());
        throttle.failed(A, from, old, Standing::New, now);
        // What counted then is over.
        let later = now + 2 * pair.every;
        assert_eq!(throttle.standing(A, from, later), Standing::New);
        throttle.failed(A, from, old, Standing::New, later);
        assert_eq!([A, B].map(|account| throttle.standing(account, from, later)), [Standing::Suspect; 2]);
        for _ in 0..2 * REMEMBERED {
            throttle.failed(A, from, fresh(), Standing::Suspect, later);
            throttle.failed(A, from, old, Standing::Suspect, later);
        }
        assert!(throttle.remembers(A, from, old));
    }

    #[test]
    fn the_same_wrong_password_counts_for_another_account_or_address() {
        let (mut throttle, _, now) = throttle();
        let (from, same) = (source("192.0.2.1"), fresh());
        for address in 0..1000_u32 {
            throttle.failed(A, IpAddr::from(address.to_be_bytes()).into(), same, Standing::New, now);
        }
        assert!(matches!(throttle.check(A, from, same, now), Verdict::Slow(_)), "the account has counted them");
        for account in 0..100 {
            throttle.failed(Digest([account; 32]), from, same, Standing::New, now);
        }
        assert!(matches!(throttle.check(B, from, same, now), Verdict::Refuse(_)), "the address has counted them");
    }

    #[test]
    fn few_wrong_passwords_are_remembered_and_who_is_refused_does_not_learn_which() {
        let (mut throttle, Throttling { pair, .. }, now) = throttle();
        let (from, old) = (source("192.0.2.1"), fresh());
        throttle.failed(A, from, old, Standing::New, now);
        for _ in 1..pair.burst {
            throttle.failed(A, from, fresh(), Standing::Suspect, now);
        }
        let last = throttle.pairs.peek(&(A, from)).unwrap().wrong.clone();
        assert!(last.len() == REMEMBERED && !last.contains(&old));
        for guess in [last[0], fresh()] {
            assert_eq!(throttle.check(A, from, guess, now), Verdict::Refuse(pair.every));
        }
        // What was forgotten counts again.
        let later = now + pair.every;
        assert_eq!(throttle.check(A, from, old, later), Verdict::Pass);
        throttle.failed(A, from, old, Standing::Suspect, later);
        assert_eq!(throttle.check(A, from, old, later), Verdict::Refuse(pair.every));
        // So it does once the password was right.
        throttle.succeeded(A, from);
        assert!(!throttle.remembers(A, from, old));
    }

    #[test]
    fn an_address_that_tries_many_accounts_is_refused_but_not_those_who_were_there() {
        let (mut throttle, Throttling { address, .. }, now) = throttle();
        let from = source("192.0.2.1");
        throttle.succeeded(A, from);
        for account in 0..address.burst {
            throttle.failed(Digest([account as u8 + 10; 32]), from, fresh(), Standing::New, now);
        }
        assert_eq!(throttle.check(B, from, fresh(), now), Verdict::Refuse(address.every));
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass);
        assert_eq!(throttle.check(B, source("192.0.2.2"), fresh(), now), Verdict::Pass);
    }

    #[test]
    fn a_network_with_many_addresses_is_refused_but_not_those_who_were_there() {
        let (mut throttle, Throttling { address, .. }, now) = throttle();
        let from = |network: u16, number: u32| source(&format!("2001:db8:{network:x}:{number:x}::1"));
        let account = |number: u32| Digest([(number % 251) as u8; 32]);
        throttle.succeeded(A, from(1, 0));
        for number in 0..10 * address.burst {
            assert_eq!(throttle.check(account(number), from(1, number), fresh(), now), Verdict::Pass, "{number}");
            throttle.failed(account(number), from(1, number), fresh(), Standing::New, now);
        }
        assert_eq!(throttle.check(B, from(1, 0xffff), fresh(), now), Verdict::Refuse(address.every / 10));
        assert_eq!(throttle.check(B, from(1, 0xffff), fresh(), now + address.every / 10), Verdict::Pass);
        assert_eq!(throttle.check(A, from(1, 0), fresh(), now), Verdict::Pass);
        assert_eq!(throttle.check(B, from(2, 0xffff), fresh(), now), Verdict::Pass);
    }

    #[test]
    fn an_account_that_many_addresses_try_is_slowed_but_never_refused() {
        let (mut throttle, Throttling { account, delay, .. }, now) = throttle();
        let (home, cafe) = (source("192.0.2.1"), source("192.0.2.2"));
        throttle.succeeded(A, home);
        for address in 0..account.burst + 1000 {
            let from = source(&format!("10.0.{}.{}", address / 200, address % 200));
            assert!(!matches!(throttle.check(A, from, fresh(), now), Verdict::Refuse(_)));
            throttle.failed(A, from, fresh(), Standing::New, now);
        }
        assert_eq!(throttle.check(A, cafe, fresh(), now), Verdict::Slow(delay));
        assert_eq!(throttle.check(A, home, fresh(), now), Verdict::Pass, "it has logged in from there");
        assert_eq!(throttle.check(A, cafe, fresh(), now + account.every * account.burst), Verdict::Pass);
    }

    #[test]
    fn what_went_wrong_before_is_known_for_a_while() {
        let (mut throttle, Throttling { pair, address, account, .. }, now) = throttle();
        let [home, cafe] = ["192.0.2.1", "192.0.2.2"].map(source);
        let standing = |throttle: &Throttle, account, from, after| throttle.standing(account, from, now + after);
        assert_eq!(standing(&throttle, A, home, Duration::ZERO), Standing::New);
        throttle.failed(A, home, fresh(), Standing::New, now);
        let just_before = |time: Duration| time - Duration::from_nanos(1);
        for (who, from, lasts) in [(A, home, pair.every), (A, cafe, account.every), (B, home, address.every)] {
            assert_eq!(standing(&throttle, who, from, just_before(lasts)), Standing::Suspect);
            assert_eq!(standing(&throttle, who, from, lasts), Standing::New);
        }
        assert_eq!(standing(&throttle, B, cafe, Duration::ZERO), Standing::New);
        throttle.succeeded(A, home);
        throttle.failed(A, cafe, fresh(), Standing::Suspect, now);
        assert_eq!(standing(&throttle, A, home, Duration::ZERO), Standing::Known, "whatever others do");
    }

    #[test]
    fn many_who_are_new_and_fail_are_an_alarm() {
        let (mut throttle, _, now) = throttle();
        for number in 0..1000 {
            let from = IpAddr::from(u32::to_be_bytes(number)).into();
            let standing = if number < 500 { Standing::Suspect } else { Standing::New };
            assert_eq!(throttle.is_alarmed(now), number >= 500 + ALARM.burst, "{number}");
            throttle.failed(Digest([number as u8; 32]), from, fresh(), standing, now);
        }
        assert!(throttle.is_alarmed(now) && !throttle.is_alarmed(now + ALARM.every));
    }

    #[test]
    fn numbers_may_be_as_large_as_they_are() {
        let most = Allowance { burst: u32::MAX, every: Duration::MAX };
        let delay = Duration::MAX;
        let mut throttle = Throttle::new(Throttling { pair: most, address: most, account: most, delay });
        let (from, now) = (source("192.0.2.1"), Instant::now());
        throttle.failed(A, from, fresh(), Standing::New, now);
        throttle.failed(A, from, fresh(), Standing::New, now);
        assert_eq!(throttle.check(A, from, fresh(), now), Verdict::Pass);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut throttle, _, now) = throttle();
        for number in 0..70_000_u32 {
            let from = IpAddr::from(number.to_be_bytes()).into();
            let mut name = [0; 32];
            name[..4].copy_from_slice(&number.to_be_bytes());
            throttle.failed(Digest(name), from, fresh(), Standing::New, now);
            throttle.succeeded(Digest(name), from);
        }
        assert!(throttle.known.len() <= MAX_KEYS.get() && throttle.accounts.len() <= MAX_KEYS.get());
        assert!(throttle.origins.addresses.len() <= MAX_KEYS.get() && throttle.pairs.len() <= MAX_KEYS.get());
    }
}
