//! One store for several services of accounts, as processes share a database.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use pmesh::onramp::accounts::*;

#[derive(Clone, Default)]
pub(crate) struct SharedStore(Arc<MemoryStore>);

macro_rules! delegate {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl AccountStore for SharedStore {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result, StoreError> {
                self.0.$name($($argument),*).await
            })*
        }
    };
}

delegate! {
    create(name: &str, password_hash: &str) -> AccountId;
    by_name(name: &str) -> Option<Account>;
    by_id(id: AccountId) -> Option<Account>;
    list(after: Option<&str>, limit: usize) -> Vec<Account>;
    set_password_hash(id: AccountId, old: Option<&str>, new: &str) -> ();
    set_active(id: AccountId, is_active: bool) -> ();
    delete(id: AccountId, password_hash: Option<&str>) -> Vec<Trust>;
    trusted(id: AccountId) -> Vec<Trusted>;
    trust(a: AccountId, alias_of_b: &str, b: AccountId, alias_of_a: &str) -> ();
    revoke(id: AccountId, alias: &str) -> Trust;
    add_token(token: NewToken, now: SystemTime) -> ();
    claim(digest: Digest, claimer: AccountId, alias: &str, now: SystemTime) -> Claimed;
    add_invite(invite: NewInvite, now: SystemTime) -> ();
    check_invite(digest: Digest, now: SystemTime) -> ();
    accept_invite(digest: Digest, name: &str, password_hash: &str, now: SystemTime) -> AccountId;
    forget_expired(before: SystemTime) -> ();
}
