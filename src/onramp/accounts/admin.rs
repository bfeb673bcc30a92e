//! Accounts as administrators use them: by name, and without asking for the owner's password.

use super::changes::AccountChange;
use super::error::AccountError;
use super::names;
use super::service::Accounts;
use super::store::{Account, AccountId, Trust};

impl Accounts {
    /// Makes an account that trusts nobody.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidName`], [`AccountError::InvalidPassword`], and [`AccountError::Store`] with [`StoreError::NameTaken`](super::StoreError::NameTaken).
    pub async fn create(&self, name: &str, password: &str) -> Result<AccountId, AccountError> {
        names::check_name(name).map_err(AccountError::InvalidName)?;
        let hash = self.hash_new(password).await?;
        Ok(self.0.store.create(name, &hash).await?)
    }

    /// Gives an account another password. Its sessions and bearer tokens end.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidPassword`], [`AccountError::UnknownName`], and [`AccountError::Store`].
    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), AccountError> {
        let id = self.named(name).await?;
        let hash = self.hash_new(password).await?;
        self.0.store.set_password_hash(id, None, &hash).await?;
        self.close(id);
        Ok(())
    }

    /// Says whether one may log in. If not, the sessions and bearer tokens end; the rest is kept.
    ///
    /// # Errors
    ///
    /// [`AccountError::UnknownName`] and [`AccountError::Store`].
    pub async fn set_active(&self, name: &str, is_active: bool) -> Result<(), AccountError> {
        let id = self.named(name).await?;
        self.0.store.set_active(id, is_active).await?;
        if !is_active {
            self.close(id);
        }
        Ok(())
    }

    /// Removes an account. Its sessions, trust, tokens and bearer tokens end.
    ///
    /// # Errors
    ///
    /// [`AccountError::UnknownName`] and [`AccountError::Store`].
    pub async fn remove(&self, name: &str) -> Result<(), AccountError> {
        let id = self.named(name).await?;
        self.delete(id, None).await
    }

    /// At most `limit` accounts, by name, those behind `after`.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`].
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, AccountError> {
        Ok(self.0.store.list(after, limit).await?)
    }

    /// Makes two accounts trust each other, without a token: `a` will know `b` by `alias_of_b`, and `b` will know `a` by `alias_of_a`.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidAlias`], [`AccountError::UnknownName`], and those of [`AccountStore::trust`](super::AccountStore::trust).
    pub async fn trust(&self, a: &str, alias_of_b: &str, b: &str, alias_of_a: &str) -> Result<(), AccountError> {
        for alias in [alias_of_b, alias_of_a] {
            names::check_alias(alias).map_err(AccountError::InvalidAlias)?;
        }
        let (a, b) = (self.named(a).await?, self.named(b).await?);
        self.0.store.trust(a, alias_of_b, b, alias_of_a).await?;
        let trust = Trust { a, alias_of_b: alias_of_b.into(), b, alias_of_a: alias_of_a.into() };
        self.0.changes.announce(AccountChange::TrustAdded(trust));
        Ok(())
    }

    async fn named(&self, name: &str) -> Result<AccountId, AccountError> {
        let account = self.0.store.by_name(name).await?;
        account.map(|account| account.id).ok_or_else(|| AccountError::UnknownName(name.to_owned()))
    }

    async fn hash_new(&self, password: &str) -> Result<String, AccountError> {
        names::check_password(password).map_err(AccountError::InvalidPassword)?;
        let turn = self.0.attempts.turn_here().await;
        Ok(self.hash(password, turn).await?)
    }
}
