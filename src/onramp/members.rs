//! What the logins of an onramp with accounts share: the hub that knows them, and the service that knows their accounts.

use std::collections::VecDeque;
use std::future::ready;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::accounts::{Account, AccountChange, AccountChanges, AccountId, Accounts, LoginError, StoreError};
use super::connection::Bell;
use super::credentials::Credentials;
use super::hub::accounts::{AccountHub, Ended, Place, Snapshot, Ticket};
use super::hub::{Limits, PeerId, Refusal};
use crate::lock::lock;

/// Logins that may be under way, more than the accounts let wait. Further ones are answered with 503.
const MAX_LOGGING_IN: usize = 8192;

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
        let hub = Mutex::new(AccountHub::new(limits));
        Self { hub, accounts, options, logging_in: Semaphore::new(MAX_LOGGING_IN) }
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
            // It was read before: what is known of it is as good as it was.
            let _ = self.read_again(other).await;
        }
        loop {
            let hash = &account.password_hash;
            let join =
                |hub: &mut AccountHub<_>, bells: &mut _| hub.join(account.id, hash, place(), bell.clone(), bells);
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

    async fn read_again(&self, account: AccountId) -> Result<Vec<AccountId>, StoreError> {
        let Some(reading) = Reading::begin_again(self, account) else { return Ok(Vec::new()) };
        let learnt = reading.learn().await;
        if let Err(error) = &learnt {
            tracing::warn!(%error, "an account cannot be read; it is tried again at the next round");
        }
        learnt
    }

    /// Follows what happens to accounts, here by `changes` and elsewhere by reading again and again. Never ends.
    pub(super) async fn watch(&self, mut changes: AccountChanges) {
        let mut rounds = interval(self.options.refresh_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: VecDeque<AccountId> = VecDeque::new();
        loop {
            // Changes do not wait for the end of a round.
            tokio::select! {
                biased;
                Some(change) = changes.next() => match change {
                    AccountChange::TrustAdded(trust) | AccountChange::TrustEnded(trust) => {
                        self.refresh(trust.a).await;
                        self.refresh(trust.b).await;
                    }
                    AccountChange::Closed(account) => self.refresh(account).await,
                    AccountChange::Lagged => due = self.with(|hub, _| hub.online()).into(),
                },
                () = ready(()), if !due.is_empty() => {
                    if let Some(account) = due.pop_front() {
                        self.refresh(account).await;
                    }
                }
                _ = rounds.tick() => due = self.with(|hub, _| hub.online()).into(),
            }
        }
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
        let password_hash = match standing {
            Some(account) if account.is_active => Ok(account.password_hash),
            Some(_) => Err(Ended::Deactivated),
            None => Err(Ended::Deleted),
        };
        let snapshot = Snapshot { password_hash, trusted };
        Ok(members.with(|hub, bells| hub.learn(*account, *ticket, snapshot, bells)))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.members.with(|hub, _| hub.finish(self.account));
    }
}
