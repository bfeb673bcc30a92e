//! What the logins of an onramp with accounts share: the hub that knows them, and the service that knows their accounts.

use std::collections::HashMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, OwnedMutexGuard, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::accounts::{Account, AccountChange, AccountChanges, AccountId, Accounts, Chain, LoginError, StoreError};
use super::agenda::Agenda;
use super::connection::Bell;
use super::credentials::Credentials;
use super::hub::accounts::{AccountHub, Ended, Place, Snapshot, Ticket};
use super::hub::{Limits, PeerId, Refusal};
use crate::lock::lock;

/// Logins that may be under way, more than the accounts let wait. Further ones are answered with 503.
const MAX_LOGGING_IN: usize = 8192;

/// Accounts that are read again at a time: a store that is slow with one does not keep the others waiting, and logins have it too.
const READINGS: usize = 4;

/// What an onramp with accounts is told of its surroundings.
#[derive(Debug, Clone)]
pub(super) struct AccountOptions {
    pub(super) origins: Vec<String>,
    pub(super) trusts_forwarded: bool,
    pub(super) login_timeout: Duration,
    pub(super) refresh_interval: Duration,
}

pub(super) struct Members {
    hub: Mutex<AccountHub<Arc<Bell>>>,
    pub(super) accounts: Accounts,
    pub(super) options: AccountOptions,
    pub(super) logging_in: Semaphore,
    /// Whether it was told that proxies are not trusted though there seems to be one.
    pub(super) warned_of_proxy: AtomicBool,
    /// Accounts that write to the store, or wait for that.
    writing: Mutex<HashMap<AccountId, Weak<tokio::sync::Mutex<()>>>>,
    /// Most of an account that do.
    max_writing: usize,
    agenda: Mutex<Agenda>,
    /// Rings when the agenda has something that could not be read.
    has_failed: Notify,
}

/// Why somebody did not become a member.
#[derive(Debug)]
pub(super) enum NotIn {
    Login(LoginError),
    Refused(Refusal),
}

impl From<StoreError> for NotIn {
    fn from(error: StoreError) -> Self {
        Self::Login(LoginError::Failed(error))
    }
}

impl Members {
    pub(super) fn new(accounts: Accounts, limits: Limits, options: AccountOptions) -> Self {
        let (max_writing, hub) = (limits.max_logins, Mutex::new(AccountHub::new(limits)));
        let (logging_in, agenda, has_failed) = (Semaphore::new(MAX_LOGGING_IN), Mutex::default(), Notify::new());
        let writing = Mutex::default();
        let warned_of_proxy = AtomicBool::new(false);
        Self { hub, accounts, options, logging_in, warned_of_proxy, writing, max_writing, agenda, has_failed }
    }

    /// Works on the hub, and then, without its lock, rings the bells that this asked for.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut AccountHub<Arc<Bell>>, &mut Vec<Arc<Bell>>) -> T) -> T {
        let mut bells = Vec::new();
        let result = work(&mut lock(&self.hub), &mut bells);
        for bell in bells {
            bell.ring();
        }
        result
    }

    /// The account of these credentials.
    pub(super) async fn log_in(&self, credentials: &Credentials, from: IpAddr) -> Result<Account, LoginError> {
        match credentials {
            Credentials::Password { name, password } => self.accounts.log_in(name, password, from).await,
            Credentials::Bearer(token) => self.accounts.log_in_by_bearer(token, from).await,
        }
    }

    /// Waits until no other session of the account writes to the store, until what is returned is dropped. A store serves those who write
    /// one after the other: so an account with many sessions has one place among the others. None if as many of it wait or write as may be
    /// logged in. Dropping the future leaves the line.
    pub(super) async fn may_write(&self, account: AccountId) -> Option<OwnedMutexGuard<()>> {
        let gate = {
            let mut writing = lock(&self.writing);
            let gate = writing.get(&account).and_then(Weak::upgrade);
            let gate = gate.unwrap_or_else(|| {
                writing.retain(|_, gate| gate.strong_count() > 0);
                let gate = Arc::default();
                writing.insert(account, Arc::downgrade(&gate));
                gate
            });
            // Each of them holds it, this one too.
            (Arc::strong_count(&gate) <= self.max_writing).then_some(gate)
        };
        Some(gate?.lock_owned().await)
    }

    /// Lets a login of an account in, at a place that is made until one is free.
    ///
    /// The place is left by [`AccountHub::disconnect`] only: nothing awaits between joining and returning.
    pub(super) async fn join(
        &self,
        account: &Account,
        bell: Arc<Bell>,
        place: impl Fn() -> Place,
    ) -> Result<PeerId, NotIn> {
        let reading = Reading::begin(self, account.id);
        for other in reading.learn().await? {
            // It was read before: what is known of it is as good as it was, and it is read once more if this fails.
            let _ = self.read_again(other).await;
        }
        loop {
            let Account { id, epoch, .. } = *account;
            let join = |hub: &mut AccountHub<_>, bells: &mut _| hub.join(id, epoch, place(), bell.clone(), bells);
            match self.with(join) {
                Ok(id) => return Ok(id),
                Err(Refusal::Taken) => {}
                Err(refusal) => return Err(NotIn::Refused(refusal)),
            }
        }
    }

    /// Reads an account that is logged in, after it has changed, and those that this tells something new of.
    pub(super) async fn refresh(&self, account: AccountId) {
        let others = self.read_again(account).await;
        for other in others.unwrap_or_default() {
            let _ = self.read_again(other).await;
        }
    }

    /// Reads an account that is logged in. If that fails it is done again soon.
    async fn read_again(&self, account: AccountId) -> Result<Vec<AccountId>, StoreError> {
        let learnt = match Reading::begin_again(self, account) {
            Some(reading) => reading.learn().await,
            None => Ok(Vec::new()),
        };
        match &learnt {
            Ok(_) => lock(&self.agenda).succeeded(account),
            Err(error) => {
                // One word about an outage, not one for each account.
                if lock(&self.agenda).failed(account, Instant::now().into_std()) {
                    tracing::warn!(error = %Chain(error), "an account cannot be read; it is tried again soon");
                }
                self.has_failed.notify_one();
            }
        }
        learnt
    }

    /// Follows what happens to accounts, here by `changes` and elsewhere by reading again and again. Never ends.
    pub(super) async fn watch(&self, mut changes: AccountChanges) {
        // What a watch before this one was reading would be waited for.
        *lock(&self.agenda) = Agenda::default();
        let mut rounds = interval(self.options.refresh_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readings = FuturesUnordered::new();
        loop {
            let mut retry = None;
            while readings.len() < READINGS {
                let mut agenda = lock(&self.agenda);
                let Some(account) = agenda.next(Instant::now().into_std()) else {
                    retry = agenda.next_retry();
                    break;
                };
                readings.push(self.read_next(account));
            }
            let retry = async {
                match retry {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            // In no order: whatever comes often, the others have their turn.
            tokio::select! {
                Some(change) = changes.next() => self.note(change),
                Some(()) = readings.next() => {}
                _ = rounds.tick() => self.begin_round(),
                () = self.has_failed.notified() => {}
                () = retry => {}
            }
        }
    }

    async fn read_next(&self, account: AccountId) {
        let others = self.read_again(account).await.unwrap_or_default();
        let mut agenda = lock(&self.agenda);
        others.into_iter().for_each(|other| agenda.changed(other));
        agenda.done(account);
    }

    fn note(&self, change: AccountChange) {
        let changed = match change {
            AccountChange::TrustAdded(trust) | AccountChange::TrustEnded(trust) => [Some(trust.a), Some(trust.b)],
            AccountChange::Closed(account) => [Some(account), None],
            AccountChange::Lagged => return self.begin_round(),
        };
        for account in changed.into_iter().flatten() {
            // Who logs in later reads later.
            if self.with(|hub, _| hub.knows(account)) {
                lock(&self.agenda).changed(account);
            }
        }
    }

    fn begin_round(&self) {
        let online = self.with(|hub, _| hub.online());
        lock(&self.agenda).round(online);
    }
}

/// A reading of an account that is under way. Dropping it ends it.
struct Reading<'a> {
    members: &'a Members,
    account: AccountId,
    ticket: Ticket,
}

impl<'a> Reading<'a> {
    fn begin(members: &'a Members, account: AccountId) -> Self {
        let ticket = members.with(|hub, _| hub.begin(account));
        Self { members, account, ticket }
    }

    fn begin_again(members: &'a Members, account: AccountId) -> Option<Self> {
        let ticket = members.with(|hub, _| hub.begin_again(account))?;
        Some(Self { members, account, ticket })
    }

    async fn learn(&self) -> Result<Vec<AccountId>, StoreError> {
        let Self { members, account, ticket } = self;
        let (standing, trusted) = members.accounts.read(*account).await?;
        let epoch = match standing {
            Some(account) if account.is_active => Ok(account.epoch),
            Some(_) => Err(Ended::Deactivated),
            None => Err(Ended::Deleted),
        };
        let snapshot = Snapshot { epoch, trusted };
        Ok(members.with(|hub, bells| hub.learn(*account, *ticket, snapshot, bells)))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.members.with(|hub, _| hub.finish(self.account));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;
    use crate::onramp::accounts::MemoryStore;
    use crate::onramp::accounts::tests::Plain;

    #[tokio::test]
    async fn only_so_many_of_an_account_wait_to_write() {
        let limits = Limits {
            announce: true,
            max_connections: 100,
            max_logins: 3,
            rate: None,
            queue_frames: 8,
            queue_bytes: 4000,
            total_queue_bytes: 100_000,
        };
        let options = AccountOptions {
            origins: Vec::new(),
            trusts_forwarded: false,
            login_timeout: Duration::MAX,
            refresh_interval: Duration::MAX,
        };
        let members = Members::new(Accounts::new(MemoryStore::new(), Plain::default()), limits, options);
        let enter = |account| Box::pin(members.may_write(AccountId(account)));
        let writing = enter(1).await;
        assert!(writing.is_some());
        let [mut second, mut third] = [enter(1), enter(1)];
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        assert!(matches!(poll!(enter(1)), Poll::Ready(None)));
        assert!(enter(2).await.is_some(), "another account has a line of its own");
        // Who gives up leaves the line, and whoever has written too.
        drop(second);
        let mut fourth = enter(1);
        assert!(poll!(&mut fourth).is_pending());
        drop(writing);
        assert!(third.await.is_some() && fourth.await.is_some());
    }
}
