//! Accounts in memory, for tests and for small servers inside of programs: all is lost with the process.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use async_trait::async_trait;

use super::store::{
    Account, AccountId, AccountStore, Claimed, Digest, MAX_OPEN_TOKENS, MAX_TRUSTED, NewInvite, NewToken, StoreError,
    Trust, Trusted,
};
use crate::lock::lock;

/// An [`AccountStore`] in memory. It never fails, and keeps as many accounts as are made.
#[derive(Default)]
pub struct MemoryStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    last: i64,
    accounts: BTreeMap<AccountId, Kept>,
    names: BTreeMap<String, AccountId>,
    tokens: BTreeMap<Digest, NewToken>,
    invites: BTreeMap<Digest, NewInvite>,
}

struct Kept {
    account: Account,
    /// By alias.
    trusted: BTreeMap<String, AccountId>,
    /// What each of them is called.
    aliases: BTreeMap<AccountId, String>,
}

impl MemoryStore {
    /// A store without accounts.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Tables {
    fn account(&mut self, id: AccountId) -> Result<&mut Kept, StoreError> {
        self.accounts.get_mut(&id).ok_or(StoreError::UnknownAccount)
    }

    /// The same in this epoch, should one be given.
    fn account_of(&mut self, id: AccountId, epoch: Option<i64>) -> Result<&mut Kept, StoreError> {
        let kept = self.account(id)?;
        let is_in = epoch.is_none_or(|epoch| epoch == kept.account.epoch);
        if is_in { Ok(kept) } else { Err(StoreError::PasswordChanged) }
    }

    fn create(&mut self, name: &str, password_hash: &str) -> Result<AccountId, StoreError> {
        if self.names.contains_key(name) {
            return Err(StoreError::NameTaken);
        }
        self.last += 1;
        let id = AccountId(self.last);
        let account = Account { id, name: name.into(), password_hash: password_hash.into(), is_active: true, epoch: 0 };
        self.names.insert(name.into(), id);
        self.accounts.insert(id, Kept { account, trusted: BTreeMap::new(), aliases: BTreeMap::new() });
        Ok(id)
    }

    /// Whether `id` may know `other` by this alias.
    fn may_trust(&mut self, id: AccountId, other: AccountId, alias: &str) -> Result<(), StoreError> {
        let kept = self.account(id)?;
        if kept.aliases.contains_key(&other) {
            Err(StoreError::AlreadyTrusted)
        } else if kept.trusted.contains_key(alias) {
            Err(StoreError::AliasTaken)
        } else if kept.trusted.len() >= MAX_TRUSTED {
            Err(StoreError::TooMany("trusted accounts"))
        } else {
            Ok(())
        }
    }

    fn trust(&mut self, trust: Trust) -> Result<(), StoreError> {
        let Trust { a, alias_of_b, b, alias_of_a } = trust;
        if a == b {
            return Err(StoreError::OwnToken);
        }
        self.may_trust(a, b, &alias_of_b)?;
        self.may_trust(b, a, &alias_of_a)?;
        for (id, other, alias) in [(a, b, alias_of_b), (b, a, alias_of_a)] {
            let kept = self.account(id)?;
            kept.trusted.insert(alias.clone(), other);
            kept.aliases.insert(other, alias);
        }
        Ok(())
    }

    fn revoke(&mut self, a: AccountId, alias_of_b: String) -> Result<Trust, StoreError> {
        let unknown = || StoreError::UnknownAlias;
        let kept = self.accounts.get_mut(&a).ok_or_else(unknown)?;
        let b = kept.trusted.remove(&alias_of_b).ok_or_else(unknown)?;
        kept.aliases.remove(&b);
        let other = self.accounts.get_mut(&b).ok_or_else(unknown)?;
        let alias_of_a = other.aliases.remove(&a).ok_or_else(unknown)?;
        other.trusted.remove(&alias_of_a);
        Ok(Trust { a, alias_of_b, b, alias_of_a })
    }

    /// Forgets what is open of an account.
    fn close(&mut self, id: AccountId) {
        self.tokens.retain(|_, token| token.issuer != id);
        self.invites.retain(|_, invite| invite.inviter != id);
    }

    fn check_invite(&self, digest: Digest, now: SystemTime) -> Result<(), StoreError> {
        let invite = self.invites.get(&digest).ok_or(StoreError::UnknownToken)?;
        if invite.expires <= now { Err(StoreError::Expired) } else { Ok(()) }
    }
}

#[async_trait]
impl AccountStore for MemoryStore {
    async fn create(&self, name: &str, password_hash: &str) -> Result<AccountId, StoreError> {
        lock(&self.0).create(name, password_hash)
    }

    async fn by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let tables = lock(&self.0);
        let kept = tables.names.get(name).and_then(|id| tables.accounts.get(id));
        Ok(kept.map(|kept| kept.account.clone()))
    }

    async fn by_id(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        Ok(lock(&self.0).accounts.get(&id).map(|kept| kept.account.clone()))
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, StoreError> {
        let tables = lock(&self.0);
        let behind = tables.names.iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        Ok(behind.take(limit).filter_map(|(_, id)| Some(tables.accounts.get(id)?.account.clone())).collect())
    }

    async fn set_password_hash(&self, id: AccountId, epoch: Option<i64>, hash: &str) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        let account = &mut tables.account_of(id, epoch)?.account;
        account.password_hash = hash.into();
        account.epoch += 1;
        tables.close(id);
        Ok(())
    }

    async fn rehash(&self, id: AccountId, old: &str, new: &str) -> Result<(), StoreError> {
        if let Some(kept) = lock(&self.0).accounts.get_mut(&id)
            && kept.account.password_hash == old
        {
            kept.account.password_hash = new.into();
        }
        Ok(())
    }

    async fn set_active(&self, id: AccountId, is_active: bool) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        let account = &mut tables.account(id)?.account;
        account.is_active = is_active;
        if !is_active {
            account.epoch += 1;
            tables.close(id);
        }
        Ok(())
    }

    async fn delete(&self, id: AccountId, epoch: Option<i64>) -> Result<Vec<Trust>, StoreError> {
        let mut tables = lock(&self.0);
        let kept = tables.account_of(id, epoch)?;
        let (name, aliases) = (kept.account.name.clone(), kept.trusted.keys().cloned().collect::<Vec<_>>());
        let ended = aliases.into_iter().map(|alias| tables.revoke(id, alias)).collect::<Result<_, _>>()?;
        tables.accounts.remove(&id);
        tables.names.remove(&name);
        tables.close(id);
        Ok(ended)
    }

    async fn trusted(&self, id: AccountId) -> Result<Vec<Trusted>, StoreError> {
        let tables = lock(&self.0);
        let kept = tables.accounts.get(&id).into_iter();
        Ok(kept
            .flat_map(|kept| &kept.trusted)
            .map(|(alias, &account)| Trusted { alias: alias.clone(), account })
            .collect())
    }

    async fn trust(&self, a: AccountId, alias_of_b: &str, b: AccountId, alias_of_a: &str) -> Result<(), StoreError> {
        let (alias_of_b, alias_of_a) = (alias_of_b.into(), alias_of_a.into());
        lock(&self.0).trust(Trust { a, alias_of_b, b, alias_of_a })
    }

    async fn revoke(&self, id: AccountId, alias: &str) -> Result<Trust, StoreError> {
        lock(&self.0).revoke(id, alias.into())
    }

    async fn add_token(&self, token: NewToken, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        if tables.account_of(token.issuer, epoch)?.trusted.contains_key(&token.alias) {
            return Err(StoreError::AliasTaken);
        }
        let open = tables.tokens.values().filter(|other| other.issuer == token.issuer && other.expires > now);
        if open.count() >= MAX_OPEN_TOKENS {
            return Err(StoreError::TooMany("open tokens"));
        }
        tables.tokens.insert(token.digest, token);
        Ok(())
    }

    async fn claim(
        &self,
        digest: Digest,
        claimer: AccountId,
        epoch: Option<i64>,
        alias: &str,
        now: SystemTime,
    ) -> Result<Claimed, StoreError> {
        let mut tables = lock(&self.0);
        tables.account_of(claimer, epoch)?;
        let NewToken { issuer, alias: issuer_alias, expires, .. } =
            tables.tokens.get(&digest).cloned().ok_or(StoreError::UnknownToken)?;
        if expires <= now {
            return Err(StoreError::Expired);
        }
        let (alias_of_b, alias_of_a) = (issuer_alias.clone(), alias.into());
        tables.trust(Trust { a: issuer, alias_of_b, b: claimer, alias_of_a })?;
        tables.tokens.remove(&digest);
        Ok(Claimed { issuer, issuer_alias })
    }

    async fn add_invite(&self, invite: NewInvite, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.account_of(invite.inviter, epoch)?;
        let open = tables.invites.values().filter(|other| other.inviter == invite.inviter && other.expires > now);
        if open.count() >= MAX_OPEN_TOKENS {
            return Err(StoreError::TooMany("open invitations"));
        }
        tables.invites.insert(invite.digest, invite);
        Ok(())
    }

    async fn check_invite(&self, digest: Digest, now: SystemTime) -> Result<(), StoreError> {
        lock(&self.0).check_invite(digest, now)
    }

    async fn accept_invite(
        &self,
        digest: Digest,
        name: &str,
        password_hash: &str,
        now: SystemTime,
    ) -> Result<AccountId, StoreError> {
        let mut tables = lock(&self.0);
        tables.check_invite(digest, now)?;
        let id = tables.create(name, password_hash)?;
        tables.invites.remove(&digest);
        Ok(id)
    }

    async fn forget_expired(&self, before: SystemTime) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.tokens.retain(|_, token| token.expires >= before);
        tables.invites.retain(|_, invite| invite.expires >= before);
        Ok(())
    }
}
