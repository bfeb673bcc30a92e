//! The settings of the service of accounts.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Duration;

use super::attempts::Attempts;
use super::bearer::Bearers;
use super::changes::Announcer;
use super::guess::Guesses;
use super::service::Inner;
use super::throttle::{Throttle, Throttling};
use super::turns::Bounds;
use super::{AccountStore, Accounts, Passwords};

/// Longer is not needed, and time would overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The options of [`Accounts`]. Lifetimes are 100 years at most.
#[must_use = "nothing happens before it is built"]
pub struct AccountsBuilder {
    store: Box<dyn AccountStore>,
    passwords: Arc<dyn Passwords>,
    token_lifetime: Duration,
    bearer_lifetime: Duration,
    invite_lifetime: Duration,
    throttling: Throttling,
    bounds: Bounds,
}

impl AccountsBuilder {
    pub(super) fn new(store: impl AccountStore, passwords: impl Passwords) -> Self {
        Self {
            store: Box::new(store),
            passwords: Arc::new(passwords),
            token_lifetime: Duration::from_secs(10 * 60),
            bearer_lifetime: Duration::from_secs(5 * 60),
            invite_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            throttling: Throttling::default(),
            bounds: Bounds {
                hashing: available_parallelism().map_or(1, NonZeroUsize::get),
                for_each: 256,
                in_all: 1024,
            },
        }
    }

    /// How long a token can be claimed. Default: 10 minutes.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime.min(FOREVER);
        self
    }

    /// How long one can log in by a bearer token. Default: 5 minutes.
    pub fn bearer_lifetime(mut self, lifetime: Duration) -> Self {
        self.bearer_lifetime = lifetime.min(FOREVER);
        self
    }

    /// How long an invitation can be accepted. Default: 7 days.
    pub fn invite_lifetime(mut self, lifetime: Duration) -> Self {
        self.invite_lifetime = lifetime.min(FOREVER);
        self
    }

    /// How wrong passwords are held against those who send them.
    pub fn throttling(mut self, throttling: Throttling) -> Self {
        self.throttling = throttling;
        self
    }

    /// Passwords that are hashed at a time, each on a thread, with the memory that hashing one takes. At least 1. Default: the number of
    /// cores. Others wait, and addresses take turns.
    ///
    /// Those who have logged in from where they are wait for nobody else: where others are being hashed already, there may be as many
    /// besides. After wrong passwords for the account or from the address a quarter of the cores is to be had, at least one.
    pub fn hashing_at_once(mut self, passwords: usize) -> Self {
        self.bounds.hashing = passwords.max(1);
        self
    }

    /// Attempts to log in that may wait for their turn: from one address (of IPv6: the first 64 bits) and for one account, at least 1, and in all.
    /// Default: 256 and 1,024 each of those who have logged in from where they are, of those of whom nothing is known, of those after wrong
    /// passwords, and of those that are delayed.
    ///
    /// When all places are taken, an address that has many gives one up for another that has fewer; among those who have logged in from
    /// where they are accounts do so. Who gets none gets [`LoginError::Busy`](super::LoginError::Busy).
    pub fn attempts_at_once(mut self, for_each: usize, in_all: usize) -> Self {
        self.bounds.for_each = for_each.max(1);
        self.bounds.in_all = in_all;
        self
    }

    /// The service.
    pub fn build(self) -> Accounts {
        Accounts(Arc::new(Inner {
            store: self.store,
            passwords: self.passwords,
            token_lifetime: self.token_lifetime,
            invite_lifetime: self.invite_lifetime,
            attempts: Attempts::new(self.bounds),
            throttle: Arc::new(Mutex::new(Throttle::new(self.throttling))),
            guesses: Guesses::new(rand::random()),
            bearers: Mutex::new(Bearers::new(self.bearer_lifetime)),
            changes: Announcer::new(),
            cleaned: Mutex::new(None),
        }))
    }
}
