//! Accounts as sessions use them: logging in, tokens, trust, invitations.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Passwords;
use super::attempts::{Attempts, Source, Turn};
use super::bearer::{Bearers, Grant};
use super::builder::AccountsBuilder;
use super::changes::{AccountChange, AccountChanges, Announcer};
use super::error::{AccountError, Chain, LoginError};
use super::guess::Guesses;
use super::names::{self, MAX_PASSWORD_BYTES};
use super::store::{
    Account, AccountId, AccountStore, Claimed, Digest, NewInvite, NewToken, StoreError, Trust, Trusted,
};
use super::throttle::{Throttle, Verdict};
use super::turns::{Standing, Who};
use crate::lock::lock;

/// How often what has expired is forgotten, and how long it is kept before: for that long it is told apart from what never was.
const CLEANING: Duration = Duration::from_secs(24 * 60 * 60);

/// The accounts of a server. Cheap to clone; all clones are one service.
///
/// Methods that check or make a password do so on a thread of their own, a few at a time in all, and addresses take turns. If their
/// future is dropped, an attempt that is hashed already is still counted. The others take effect as a whole or, if their future is
/// dropped, perhaps not at all.
#[derive(Clone)]
pub struct Accounts(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Box<dyn AccountStore>,
    pub(super) passwords: Arc<dyn Passwords>,
    pub(super) token_lifetime: Duration,
    pub(super) invite_lifetime: Duration,
    pub(super) attempts: Arc<Attempts>,
    pub(super) throttle: Arc<Mutex<Throttle>>,
    pub(super) guesses: Guesses,
    pub(super) bearers: Mutex<Bearers>,
    pub(super) changes: Announcer,
    /// When what has expired was last forgotten.
    pub(super) cleaned: Mutex<Option<Instant>>,
}

/// A token by which one may log in again for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The token: 43 letters, digits, `-` and `_`.
    pub token: String,
    /// How long it is worth something.
    pub expires_in: Duration,
    /// Whose it is.
    pub account: Account,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expires_in, account, .. } = self;
        f.debug_struct("Bearer").field("expires_in", expires_in).field("account", account).finish_non_exhaustive()
    }
}

/// What whoever is invited needs to make an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// To be sent to them, and to nobody else: 43 letters, digits, `-` and `_`.
    pub secret: String,
    /// How long it is worth something.
    pub expires_in: Duration,
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Accounts that are kept in this store, with the default options.
    pub fn new(store: impl AccountStore, passwords: impl Passwords) -> Self {
        Self::builder(store, passwords).build()
    }

    /// Accounts with other than the default options.
    pub fn builder(store: impl AccountStore, passwords: impl Passwords) -> AccountsBuilder {
        AccountsBuilder::new(store, passwords)
    }

    /// What happens to accounts from now on.
    pub fn subscribe(&self) -> AccountChanges {
        self.0.changes.subscribe()
    }

    /// The account of this name, if this is its password. `from` is the address of whoever asks.
    ///
    /// An account that does not exist or is not active takes as long as a wrong password.
    ///
    /// # Errors
    ///
    /// See [`LoginError`].
    pub async fn log_in(&self, name: &str, password: &str, from: IpAddr) -> Result<Account, LoginError> {
        let account = self.verify(name, password, from).await?;
        // It may have another password by now.
        if self.is_current(&account).await? { Ok(account) } else { Err(LoginError::Wrong) }
    }

    /// Whether whoever has logged in to this account might still do so: it is active, and in the same epoch. Who opens a session
    /// asks this after it can be closed by [`AccountChange::Closed`], lest a change in between is missed.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn is_current(&self, account: &Account) -> Result<bool, StoreError> {
        let now = self.0.store.by_id(account.id).await?;
        Ok(now.is_some_and(|now| now.is_active && now.epoch == account.epoch))
    }

    /// Logs in, and gives a token by which one may do so again, on this server and for a while. A restart ends it, and so does a
    /// change of the password. Of more than 32 of an account the oldest ends.
    ///
    /// # Errors
    ///
    /// See [`LoginError`].
    pub async fn bearer(&self, name: &str, password: &str, from: IpAddr) -> Result<Bearer, LoginError> {
        let account = self.log_in(name, password, from).await?;
        let (token, digest) = secret();
        let mut bearers = lock(&self.0.bearers);
        bearers.add(digest, Grant { account: account.id, epoch: account.epoch }, Instant::now());
        Ok(Bearer { token, expires_in: bearers.lifetime(), account })
    }

    /// The account of a bearer token. Tokens cannot be guessed, so attempts are not counted.
    ///
    /// # Errors
    ///
    /// [`LoginError::Wrong`] and [`LoginError::Failed`].
    pub async fn log_in_by_bearer(&self, token: &str, from: IpAddr) -> Result<Account, LoginError> {
        let grant = lock(&self.0.bearers).find(digest_of(token), Instant::now());
        let Some(Grant { account, epoch }) = grant else {
            tracing::debug!(%from, "a bearer token that is unknown or has expired");
            return Err(LoginError::Wrong);
        };
        let account = self.0.store.by_id(account).await?;
        let current = account.filter(|account| account.is_active && account.epoch == epoch);
        current.ok_or(LoginError::Wrong)
    }

    /// A token for whoever is to be trusted and known by this alias: 43 letters, digits, `-` and `_`. If an epoch is given, that of a login,
    /// only in that: here and below, what a login asks for comes to nothing once the password was changed.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidAlias`], and those of [`AccountStore::add_token`].
    pub async fn request_token(
        &self,
        account: AccountId,
        epoch: Option<i64>,
        alias: &str,
    ) -> Result<String, AccountError> {
        names::check_alias(alias).map_err(AccountError::InvalidAlias)?;
        let (token, digest) = secret();
        let now = SystemTime::now();
        let new = NewToken { issuer: account, alias: alias.into(), digest, expires: now + self.0.token_lifetime };
        self.clean(now).await;
        self.0.store.add_token(new, epoch, now).await?;
        Ok(token)
    }

    /// Claims a token: its issuer and this account trust each other from now on, and the account knows the issuer by `alias`.
    /// If an epoch is given, only in that.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidAlias`], and those of [`AccountStore::claim`].
    pub async fn claim_token(
        &self,
        account: AccountId,
        epoch: Option<i64>,
        alias: &str,
        token: &str,
    ) -> Result<Claimed, AccountError> {
        names::check_alias(alias).map_err(AccountError::InvalidAlias)?;
        let claimed = self.0.store.claim(digest_of(token), account, epoch, alias, SystemTime::now()).await?;
        let Claimed { issuer, issuer_alias } = claimed.clone();
        let trust = Trust { a: issuer, alias_of_b: issuer_alias, b: account, alias_of_a: alias.into() };
        self.0.changes.announce(AccountChange::TrustAdded(trust));
        Ok(claimed)
    }

    /// Whom an account trusts, by alias.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`].
    pub async fn trusted(&self, account: AccountId) -> Result<Vec<Trusted>, AccountError> {
        Ok(self.0.store.trusted(account).await?)
    }

    /// Ends the trust, in both directions, between an account and whom it knows by this alias, and says who that was.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`] with [`StoreError::UnknownAlias`].
    pub async fn revoke(&self, account: AccountId, alias: &str) -> Result<AccountId, AccountError> {
        // Nobody has an alias that is none, and not every database takes all texts.
        names::check_alias(alias).map_err(|_| StoreError::UnknownAlias)?;
        let trust = self.0.store.revoke(account, alias).await?;
        let other = trust.b;
        self.0.changes.announce(AccountChange::TrustEnded(trust));
        Ok(other)
    }

    /// Gives an account another password. Its sessions and bearer tokens end.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidPassword`] if the new one is none, [`AccountError::WrongPassword`] if the old one is not right, and
    /// the others of [`log_in`](Self::log_in).
    pub async fn change_password(
        &self,
        account: AccountId,
        old: &str,
        new: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        names::check_password(new).map_err(AccountError::InvalidPassword)?;
        let known = self.verify_id(account, old, from).await?;
        let turn = self.turn(Standing::Known, digest_of(&known.name), from).await?;
        let hash = self.hash(new, turn).await?;
        // Somebody may have changed it meanwhile, because the old one is known to others.
        self.0.store.set_password_hash(account, Some(known.epoch), &hash).await?;
        self.close(account);
        Ok(())
    }

    /// Removes an account. Its sessions, trust, tokens and bearer tokens end.
    ///
    /// # Errors
    ///
    /// [`AccountError::WrongPassword`], and the others of [`log_in`](Self::log_in).
    pub async fn delete_account(&self, account: AccountId, password: &str, from: IpAddr) -> Result<(), AccountError> {
        let known = self.verify_id(account, password, from).await?;
        // Somebody may have changed the password meanwhile, because this one is known to others.
        self.delete(account, Some(known.epoch)).await
    }

    /// An invitation to make an account. Nothing is sent: the email address is kept to know whom it was for.
    /// If an epoch is given, only in that.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidEmail`], and those of [`AccountStore::add_invite`].
    pub async fn invite(&self, account: AccountId, epoch: Option<i64>, email: &str) -> Result<Invite, AccountError> {
        names::check_email(email).map_err(AccountError::InvalidEmail)?;
        let (secret, digest) = secret();
        let (now, expires_in) = (SystemTime::now(), self.0.invite_lifetime);
        let new = NewInvite { inviter: account, email: email.into(), digest, expires: now + expires_in };
        self.clean(now).await;
        self.0.store.add_invite(new, epoch, now).await?;
        Ok(Invite { secret, expires_in })
    }

    /// Makes an account by an invitation, which is used up.
    ///
    /// # Errors
    ///
    /// [`AccountError::InvalidName`], [`AccountError::InvalidPassword`], [`AccountError::Busy`], and those of
    /// [`AccountStore::accept_invite`].
    pub async fn accept_invite(
        &self,
        secret: &str,
        name: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<AccountId, AccountError> {
        names::check_name(name).map_err(AccountError::InvalidName)?;
        names::check_password(password).map_err(AccountError::InvalidPassword)?;
        let digest = digest_of(secret);
        // Secrets that are wrong are not worth hashing a password.
        self.0.store.check_invite(digest, SystemTime::now()).await?;
        let turn = self.turn(Standing::New, digest, from).await?;
        let hash = self.hash(password, turn).await?;
        Ok(self.0.store.accept_invite(digest, name, &hash, SystemTime::now()).await?)
    }

    async fn verify_id(&self, account: AccountId, password: &str, from: IpAddr) -> Result<Account, AccountError> {
        let account = self.0.store.by_id(account).await?.ok_or(StoreError::UnknownAccount)?;
        Ok(self.verify(&account.name, password, from).await?)
    }

    async fn verify(&self, name: &str, password: &str, from: IpAddr) -> Result<Account, LoginError> {
        // No account has such a name or password.
        if names::check_name(name).is_err() || password.len() > MAX_PASSWORD_BYTES {
            return Err(LoginError::Wrong);
        }
        let Inner { store, passwords, throttle, attempts, guesses, .. } = &*self.0;
        let (key, from) = (digest_of(name), Source::from(from));
        let guess = guesses.guess(key, password);
        let enter = || {
            let (now, mut throttle) = (Instant::now(), lock(throttle));
            let delay = match throttle.check(key, from, guess, now) {
                Verdict::Pass => None,
                Verdict::Slow(delay) => Some(delay),
                Verdict::Refuse(retry_after) => return Err(LoginError::Throttled { retry_after }),
            };
            Ok((delay, throttle.standing(key, from, now), throttle.is_alarmed(now)))
        };
        let (delay, mut standing, mut is_alarmed) = enter()?;
        if let Some(delay) = delay {
            attempts.delay(key, from, delay).await.ok_or(LoginError::Busy)?;
            (_, standing, is_alarmed) = enter()?;
        }
        let turn = loop {
            let who = Who { standing, account: key, from };
            let turn = attempts.turn(who, is_alarmed).await.ok_or(LoginError::Busy)?;
            // Others of the same address may have failed in the meantime: then this is not its turn.
            let before = standing;
            (_, standing, is_alarmed) = enter()?;
            if standing <= before {
                break turn;
            }
        };
        let account = store.by_name(name).await?;
        let (passwords, throttle) = (passwords.clone(), throttle.clone());
        let password = Zeroizing::new(password.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let account = account.filter(|account| account.is_active);
            let fits = passwords.verify(&password, account.as_ref().map(|account| &*account.password_hash));
            let account = account.filter(|_| fits);
            let old =
                account.as_ref().map(|account| &*account.password_hash).filter(|hash| !passwords.is_current(hash));
            let anew = old.map(|_| passwords.hash(&password));
            // Here, not behind the wait: whoever does not wait for the answer is counted as well.
            match account {
                Some(_) => lock(&throttle).succeeded(key, from),
                None => lock(&throttle).failed(key, from, guess, standing, Instant::now()),
            }
            account.map(|account| (account, anew))
        });
        let (account, anew) = checked.await.map_err(failed)?.ok_or(LoginError::Wrong)?;
        if let Some(anew) = anew
            && let Err(error) = self.0.store.rehash(account.id, &account.password_hash, &anew).await
        {
            tracing::warn!(error = %Chain(&error), "the hash of a password is as old as it was");
        }
        Ok(account)
    }

    async fn turn(&self, standing: Standing, account: Digest, from: IpAddr) -> Result<Turn, AccountError> {
        let is_alarmed = lock(&self.0.throttle).is_alarmed(Instant::now());
        let who = Who { standing, account, from: from.into() };
        self.0.attempts.turn(who, is_alarmed).await.ok_or(AccountError::Busy)
    }

    /// Hashes a password while `permit` is held.
    pub(super) async fn hash<T: Send + 'static>(&self, password: &str, permit: T) -> Result<String, StoreError> {
        let passwords = self.0.passwords.clone();
        let password = Zeroizing::new(password.to_owned());
        let hashed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            passwords.hash(&password)
        });
        hashed.await.map_err(failed)
    }

    pub(super) async fn delete(&self, account: AccountId, epoch: Option<i64>) -> Result<(), AccountError> {
        let ended = self.0.store.delete(account, epoch).await?;
        self.close(account);
        ended.into_iter().for_each(|trust| self.0.changes.announce(AccountChange::TrustEnded(trust)));
        Ok(())
    }

    pub(super) fn close(&self, account: AccountId) {
        lock(&self.0.bearers).revoke(account);
        self.0.changes.announce(AccountChange::Closed(account));
    }

    async fn clean(&self, now: SystemTime) {
        {
            let mut cleaned = lock(&self.0.cleaned);
            if cleaned.is_some_and(|cleaned| cleaned.elapsed() < CLEANING) {
                return;
            }
            *cleaned = Some(Instant::now());
        }
        if let Err(error) = self.0.store.forget_expired(now - CLEANING).await {
            tracing::warn!(error = %Chain(&error), "tokens that have expired are not forgotten");
        }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

/// 256 random bits, and their digest.
fn secret() -> (String, Digest) {
    let secret = BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>());
    let digest = digest_of(&secret);
    (secret, digest)
}

fn digest_of(text: &str) -> Digest {
    Digest(Sha256::digest(text).into())
}

fn failed(error: tokio::task::JoinError) -> StoreError {
    StoreError::Failed(Box::new(error))
}
