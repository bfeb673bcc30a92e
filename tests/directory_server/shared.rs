//! One store for several services of accounts, as processes share a database.

use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use pmesh::onramp::accounts::*;

/// What happens when an account is read whose trust is asked for.
pub(crate) type OnRead =
    Box<dyn Fn(AccountId) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct SharedStore(Arc<MemoryStore>, Arc<OnceLock<OnRead>>, Arc<OnceLock<OnRead>>);

impl SharedStore {
    /// From now on this happens before the trust of an account is read.
    pub(crate) fn on_read<F>(&self, happens: impl Fn(AccountId) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        assert!(self.1.set(Box::new(move |id| Box::pin(happens(id)))).is_ok());
    }

    /// From now on this happens before a token of an account is added.
    pub(crate) fn on_token<F>(&self, happens: impl Fn(AccountId) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        assert!(self.2.set(Box::new(move |id| Box::pin(happens(id)))).is_ok());
    }
}

macro_rules! delegate {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl AccountStore for SharedStore {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result, StoreError> {
                self.0.$name($($argument),*).await
            })*

            async fn add_token(
                &self,
                token: NewToken,
                epoch: Option<i64>,
                now: SystemTime,
            ) -> Result<(), StoreError> {
                self.2.get().map_or_else(|| Box::pin(ready(Ok(()))) as _, |happens| happens(token.issuer)).await?;
                self.0.add_token(token, epoch, now).await
            }

            async fn trusted(&self, id: AccountId) -> Result<Vec<Trusted>, StoreError> {
                self.1.get().map_or_else(|| Box::pin(ready(Ok(()))) as _, |happens| happens(id)).await?;
                self.0.trusted(id).await
            }
        }
    };
}

delegate! {
    create(name: &str, password_hash: &str) -> AccountId;
    by_name(name: &str) -> Option<Account>;
    by_id(id: AccountId) -> Option<Account>;
    list(after: Option<&str>, limit: usize) -> Vec<Account>;
    set_password_hash(id: AccountId, epoch: Option<i64>, hash: &str) -> ();
    rehash(id: AccountId, old: &str, new: &str) -> ();
    set_active(id: AccountId, is_active: bool) -> ();
    delete(id: AccountId, epoch: Option<i64>) -> Vec<Trust>;
    trust(a: AccountId, alias_of_b: &str, b: AccountId, alias_of_a: &str) -> ();
    revoke(id: AccountId, alias: &str) -> Trust;
    claim(digest: Digest, claimer: AccountId, epoch: Option<i64>, alias: &str, now: SystemTime) -> Claimed;
    add_invite(invite: NewInvite, epoch: Option<i64>, now: SystemTime) -> ();
    check_invite(digest: Digest, now: SystemTime) -> ();
    accept_invite(digest: Digest, name: &str, password_hash: &str, now: SystemTime) -> AccountId;
    forget_expired(before: SystemTime) -> ();
}
