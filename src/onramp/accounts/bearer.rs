//! Bearer tokens: who has just logged in may come back for a while without the password. A pure machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::store::{AccountId, Digest};

/// Most tokens of an account. The oldest gives way.
const MAX_FOR_EACH: usize = 32;
/// Most tokens in all. The oldest gives way.
const MAX_IN_ALL: usize = 65_536;

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) account: AccountId,
    /// In which one logged in: in a later one the token is worth nothing, whichever process has begun it.
    pub(super) epoch: i64,
}

/// Tokens by their digests. They live equally long, so the oldest is the first that expires.
pub(super) struct Bearers {
    lifetime: Duration,
    grants: HashMap<Digest, (u64, Grant)>,
    /// By age, with the end.
    order: BTreeMap<u64, (Digest, Instant)>,
    of_account: HashMap<AccountId, VecDeque<u64>>,
    last: u64,
}

impl Bearers {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, grants: HashMap::new(), order: BTreeMap::new(), of_account: HashMap::new(), last: 0 }
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn add(&mut self, token: Digest, grant: Grant, now: Instant) {
        self.expire(now);
        if self.of_account.get(&grant.account).is_some_and(|own| own.len() >= MAX_FOR_EACH) {
            let oldest = self.of_account[&grant.account][0];
            self.remove(oldest);
        }
        if self.order.len() >= MAX_IN_ALL
            && let Some((&oldest, _)) = self.order.first_key_value()
        {
            self.remove(oldest);
        }
        self.last += 1;
        self.grants.insert(token, (self.last, grant));
        self.order.insert(self.last, (token, now + self.lifetime));
        self.of_account.entry(grant.account).or_default().push_back(self.last);
    }

    pub(super) fn find(&mut self, token: Digest, now: Instant) -> Option<Grant> {
        self.expire(now);
        self.grants.get(&token).map(|&(_, grant)| grant)
    }

    /// Forgets the tokens of an account.
    pub(super) fn revoke(&mut self, account: AccountId) {
        for number in self.of_account.remove(&account).unwrap_or_default() {
            self.remove(number);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((&oldest, &(_, end))) = self.order.first_key_value()
            && end <= now
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some((token, _)) = self.order.remove(&number) else { return };
        let Some((_, Grant { account, .. })) = self.grants.remove(&token) else { return };
        if let Some(own) = self.of_account.get_mut(&account) {
            own.retain(|&other| other != number);
            if own.is_empty() {
                self.of_account.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn digest(number: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        Digest(digest)
    }

    fn grant(account: i64) -> Grant {
        Grant { account: AccountId(account), epoch: 0 }
    }

    fn is_empty(bearers: &Bearers) -> bool {
        bearers.grants.is_empty() && bearers.order.is_empty() && bearers.of_account.is_empty()
    }

    #[test]
    fn a_token_lives_for_so_long_and_is_forgotten_then() {
        let (mut bearers, now) = (Bearers::new(LIFETIME), Instant::now());
        bearers.add(digest(1), grant(1), now);
        assert_eq!(bearers.find(digest(1), now + LIFETIME - Duration::from_nanos(1)), Some(grant(1)));
        assert_eq!(bearers.find(digest(2), now), None);
        assert_eq!(bearers.find(digest(1), now + LIFETIME), None);
        assert!(is_empty(&bearers));
    }

    #[test]
    fn those_of_an_account_are_revoked_together() {
        let (mut bearers, now) = (Bearers::new(LIFETIME), Instant::now());
        for token in 0..4 {
            bearers.add(digest(token), grant(i64::from(token % 2)), now);
        }
        bearers.revoke(AccountId(0));
        let left: Vec<bool> = (0..4).map(|token| bearers.find(digest(token), now).is_some()).collect();
        assert_eq!(left, [false, true, false, true]);
        bearers.revoke(AccountId(1));
        assert!(is_empty(&bearers));
    }

    #[test]
    fn the_oldest_gives_way_and_that_of_the_account_first() {
        let (mut bearers, now) = (Bearers::new(LIFETIME), Instant::now());
        bearers.add(digest(u32::MAX), grant(-1), now);
        for token in 0..=MAX_FOR_EACH as u32 {
            bearers.add(digest(token), grant(1), now);
        }
        assert_eq!(bearers.find(digest(0), now), None);
        assert!(bearers.find(digest(1), now).is_some() && bearers.find(digest(u32::MAX), now).is_some());
        for token in 100..100 + MAX_IN_ALL as u32 {
            bearers.add(digest(token), grant(i64::from(token)), now);
        }
        assert_eq!(bearers.order.len(), MAX_IN_ALL);
        assert_eq!(bearers.find(digest(u32::MAX), now), None);
    }
}
