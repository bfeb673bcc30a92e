//! Accounts as the server of their sessions reads them.

use super::service::Accounts;
use super::store::{Account, AccountId, StoreError, Trusted};

impl Accounts {
    /// An account, if there is one, and whom it trusts.
    pub(in crate::onramp) async fn read(&self, id: AccountId) -> Result<(Option<Account>, Vec<Trusted>), StoreError> {
        Ok((self.0.store.by_id(id).await?, self.0.store.trusted(id).await?))
    }
}
