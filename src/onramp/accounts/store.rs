//! What a server keeps about accounts, and where: a trait, so that it may be a database.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;

/// Names an account in its store. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// The SHA-256 of a secret. Secrets themselves are not kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Which it is.
    pub id: AccountId,
    /// By which one logs in.
    pub name: String,
    /// Of the password, as the server's [`Passwords`](super::Passwords) has made it.
    pub password_hash: String,
    /// Whether one may log in.
    pub is_active: bool,
    /// Counts what ends all logins: other passwords, and deactivations. So a login of an earlier epoch is none any more, also if the
    /// account was deactivated and activated again without anybody looking.
    pub epoch: i64,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, is_active, epoch, .. } = self;
        f.debug_struct("Account")
            .field("id", id)
            .field("name", name)
            .field("is_active", is_active)
            .field("epoch", epoch)
            .finish_non_exhaustive()
    }
}

/// Whom an account trusts, and by which alias it knows them. Trust is mutual; each side has an alias of its own choice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trusted {
    /// The alias, which no other trusted account has.
    pub alias: String,
    /// The other account.
    pub account: AccountId,
}

/// A token, as it is asked for. Whoever claims it is trusted by the issuer under this alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Who has asked for it.
    pub issuer: AccountId,
    /// What the issuer will call whoever claims it.
    pub alias: String,
    /// Of the token.
    pub digest: Digest,
    /// From when on it is worth nothing.
    pub expires: SystemTime,
}

/// Whose token was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Who has asked for it.
    pub issuer: AccountId,
    /// What the issuer calls whoever has claimed it.
    pub issuer_alias: String,
}

/// Two accounts that trust each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// One of them.
    pub a: AccountId,
    /// What `a` calls `b`.
    pub alias_of_b: String,
    /// The other one.
    pub b: AccountId,
    /// What `b` calls `a`.
    pub alias_of_a: String,
}

/// An invitation to make an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvite {
    /// Who has invited.
    pub inviter: AccountId,
    /// Whom.
    pub email: String,
    /// Of the secret in the link.
    pub digest: Digest,
    /// From when on it is worth nothing.
    pub expires: SystemTime,
}

/// Why a store has not done something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An account has this name.
    #[error("the name is taken")]
    NameTaken,
    /// There is no such account.
    #[error("there is no such account")]
    UnknownAccount,
    /// The account has another password by now, or was deactivated.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// Somebody else is known by this alias already.
    #[error("the alias is taken")]
    AliasTaken,
    /// Nobody is known by this alias.
    #[error("nobody is known by this alias")]
    UnknownAlias,
    /// They trust each other already.
    #[error("you trust each other already")]
    AlreadyTrusted,
    /// There is no such token or invitation: it never was, was used, or has been forgotten since it expired.
    #[error("the token is unknown or was used")]
    UnknownToken,
    /// The token or invitation is too old.
    #[error("the token has expired")]
    Expired,
    /// The token is one's own.
    #[error("the token is your own")]
    OwnToken,
    /// There are as many as there may be, of what says.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// It may work again later.
    #[error("the store of accounts failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Most accounts that one may trust.
pub const MAX_TRUSTED: usize = 1000;

/// Most tokens, and most invitations, of an account that are neither used nor expired.
pub const MAX_OPEN_TOKENS: usize = 100;

/// Where accounts are kept.
///
/// Each call is atomic: it takes effect as a whole, before it returns, or not at all, also if the process is killed. Of two calls at
/// the same time it is as if one had come first. Names, aliases and emails are compared byte by byte; the callers bound their length.
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Makes an active account that trusts nobody.
    ///
    /// # Errors
    ///
    /// [`NameTaken`](StoreError::NameTaken).
    async fn create(&self, name: &str, password_hash: &str) -> Result<AccountId, StoreError>;

    /// The account of this name.
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn by_name(&self, name: &str) -> Result<Option<Account>, StoreError>;

    /// This account.
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn by_id(&self, id: AccountId) -> Result<Option<Account>, StoreError>;

    /// At most `limit` accounts, by name, those behind `after`.
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, StoreError>;

    /// Gives an account another password, of this hash, and thereby a new epoch: if one is given, only in that. The account's tokens and
    /// invitations that are open are worth nothing any more: whoever knew the old password may have them.
    ///
    /// # Errors
    ///
    /// [`UnknownAccount`](StoreError::UnknownAccount), [`PasswordChanged`](StoreError::PasswordChanged).
    async fn set_password_hash(&self, id: AccountId, epoch: Option<i64>, hash: &str) -> Result<(), StoreError>;

    /// Replaces the hash of the same password, if `old` is still the one, by one that was made in another way. Nothing else changes, and
    /// nothing at all if it is not.
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn rehash(&self, id: AccountId, old: &str, new: &str) -> Result<(), StoreError>;

    /// Says whether one may log in. If not, the account has a new epoch, and its tokens and invitations that are open are worth nothing
    /// any more.
    ///
    /// # Errors
    ///
    /// [`UnknownAccount`](StoreError::UnknownAccount).
    async fn set_active(&self, id: AccountId, is_active: bool) -> Result<(), StoreError>;

    /// Removes an account with all its tokens and invitations, and its trust, which it tells, with the account as `a`: if an epoch
    /// is given, only in that.
    ///
    /// # Errors
    ///
    /// [`UnknownAccount`](StoreError::UnknownAccount), [`PasswordChanged`](StoreError::PasswordChanged).
    async fn delete(&self, id: AccountId, epoch: Option<i64>) -> Result<Vec<Trust>, StoreError>;

    /// Whom an account trusts, by alias: at most [`MAX_TRUSTED`].
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn trusted(&self, id: AccountId) -> Result<Vec<Trusted>, StoreError>;

    /// Makes two accounts trust each other: `a` will know `b` by `alias_of_b`, and `b` will know `a` by `alias_of_a`.
    ///
    /// # Errors
    ///
    /// [`UnknownAccount`](StoreError::UnknownAccount), [`AliasTaken`](StoreError::AliasTaken),
    /// [`AlreadyTrusted`](StoreError::AlreadyTrusted), [`OwnToken`](StoreError::OwnToken) if they are the same, and
    /// [`TooMany`](StoreError::TooMany).
    async fn trust(&self, a: AccountId, alias_of_b: &str, b: AccountId, alias_of_a: &str) -> Result<(), StoreError>;

    /// Ends the trust, in both directions, between an account, `a`, and whom it knows by this alias.
    ///
    /// # Errors
    ///
    /// [`UnknownAlias`](StoreError::UnknownAlias).
    async fn revoke(&self, id: AccountId, alias: &str) -> Result<Trust, StoreError>;

    /// Keeps a token until it is claimed or expires: if an epoch of the issuer is given, only in that.
    ///
    /// # Errors
    ///
    /// [`AliasTaken`](StoreError::AliasTaken) if the issuer trusts somebody of this alias, [`TooMany`](StoreError::TooMany),
    /// [`UnknownAccount`](StoreError::UnknownAccount), [`PasswordChanged`](StoreError::PasswordChanged).
    async fn add_token(&self, token: NewToken, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError>;

    /// Claims a token: uses it up, and makes issuer and claimer trust each other, the issuer under `alias`: if an epoch of the claimer
    /// is given, only in that. If it fails, the token can be claimed still. Of two claims at once one succeeds.
    ///
    /// # Errors
    ///
    /// [`UnknownToken`](StoreError::UnknownToken), [`Expired`](StoreError::Expired), [`OwnToken`](StoreError::OwnToken),
    /// [`PasswordChanged`](StoreError::PasswordChanged), and those of [`trust`](Self::trust), where an alias that is taken may be either side's.
    async fn claim(
        &self,
        digest: Digest,
        claimer: AccountId,
        epoch: Option<i64>,
        alias: &str,
        now: SystemTime,
    ) -> Result<Claimed, StoreError>;

    /// Keeps an invitation until it is accepted or expires: if an epoch of the inviter is given, only in that.
    ///
    /// # Errors
    ///
    /// [`TooMany`](StoreError::TooMany), [`UnknownAccount`](StoreError::UnknownAccount),
    /// [`PasswordChanged`](StoreError::PasswordChanged).
    async fn add_invite(&self, invite: NewInvite, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError>;

    /// Whether an invitation could be accepted.
    ///
    /// # Errors
    ///
    /// [`UnknownToken`](StoreError::UnknownToken), [`Expired`](StoreError::Expired).
    async fn check_invite(&self, digest: Digest, now: SystemTime) -> Result<(), StoreError>;

    /// Uses up an invitation and makes the account.
    ///
    /// # Errors
    ///
    /// [`UnknownToken`](StoreError::UnknownToken), [`Expired`](StoreError::Expired), [`NameTaken`](StoreError::NameTaken): then the
    /// invitation can be used still.
    async fn accept_invite(
        &self,
        digest: Digest,
        name: &str,
        password_hash: &str,
        now: SystemTime,
    ) -> Result<AccountId, StoreError>;

    /// Forgets tokens and invitations that have expired before this time.
    ///
    /// # Errors
    ///
    /// [`Failed`](StoreError::Failed) only.
    async fn forget_expired(&self, before: SystemTime) -> Result<(), StoreError>;
}
