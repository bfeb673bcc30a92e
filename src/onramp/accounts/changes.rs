//! What happens to accounts, for those who serve their sessions.

use tokio::sync::broadcast;

use super::store::{AccountId, Trust};

/// Changes that a reader may be behind.
const CAPACITY: usize = 1024;

/// Something has happened to accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountChange {
    /// Two accounts trust each other from now on.
    TrustAdded(Trust),
    /// They trust each other no more.
    TrustEnded(Trust),
    /// All sessions of the account are to end: it has another password, is no longer active, or is no more.
    Closed(AccountId),
    /// The reader was too slow and has missed some: what it knows of accounts is to be read anew.
    Lagged,
}

/// The changes made through one [`Accounts`](super::Accounts) and its clones, in their order, from the subscription on.
///
/// What other processes do to the same database is not among them.
#[derive(Debug)]
pub struct AccountChanges(broadcast::Receiver<AccountChange>);

impl AccountChanges {
    /// The next change; `None` when the service is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<AccountChange> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(AccountChange::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

pub(super) struct Announcer(broadcast::Sender<AccountChange>);

impl Announcer {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(super) fn announce(&self, change: AccountChange) {
        // Nobody may be listening.
        let _ = self.0.send(change);
    }

    pub(super) fn subscribe(&self) -> AccountChanges {
        AccountChanges(self.0.subscribe())
    }
}
