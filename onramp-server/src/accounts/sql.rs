//! Accounts in a database.
//!
//! Who writes does so alone, over all processes: so a transaction first looks and then acts, and says in our own words what is wrong.
//! Accounts change seldom, and a transaction takes about as long as the disk needs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pmesh::onramp::accounts::{
    Account, AccountId, AccountStore, Claimed, Digest, MAX_OPEN_TOKENS, MAX_TRUSTED, NewInvite, NewToken, StoreError,
    Trust, Trusted,
};

use super::database::Value::{Bytes, Integer, Text};
use super::database::{Database, OpenError, Row, Transaction};

/// An [`AccountStore`] in SQLite or PostgreSQL. What a call has told to be done outlives the process.
pub(crate) struct SqlStore(Database);

impl SqlStore {
    /// Opens `sqlite:FILE`, which is made if there is none, or `postgres://…`.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        Ok(Self(Database::open(url).await?))
    }

    /// The same, but no file is made.
    pub(crate) async fn open_existing(url: &str) -> Result<Self, OpenError> {
        Database::must_exist(url)?;
        Self::open(url).await
    }
}

#[async_trait]
impl AccountStore for SqlStore {
    async fn create(&self, name: &str, password_hash: &str) -> Result<AccountId, StoreError> {
        let mut transaction = self.0.begin().await?;
        let id = create(&mut transaction, name, password_hash).await?;
        transaction.commit().await?;
        Ok(id)
    }

    async fn by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let statement = "SELECT id, name, password_hash, is_active, epoch FROM accounts WHERE name = $1";
        self.0.rows(statement, &[Text(name)]).await?.first().map(account).transpose()
    }

    async fn by_id(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let statement = "SELECT id, name, password_hash, is_active, epoch FROM accounts WHERE id = $1";
        self.0.rows(statement, &[Integer(id.0)]).await?.first().map(account).transpose()
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, StoreError> {
        // No name is empty.
        let statement =
            "SELECT id, name, password_hash, is_active, epoch FROM accounts WHERE name > $1 ORDER BY name LIMIT $2";
        let rows = self.0.rows(statement, &[Text(after.unwrap_or_default()), Integer(count(limit))]).await?;
        rows.iter().map(account).collect()
    }

    async fn set_password_hash(&self, id: AccountId, epoch: Option<i64>, hash: &str) -> Result<(), StoreError> {
        let mut transaction = self.0.begin().await?;
        in_epoch(&mut transaction, id, epoch).await?;
        let statement = "UPDATE accounts SET password_hash = $2, epoch = epoch + 1 WHERE id = $1";
        transaction.execute(statement, &[Integer(id.0), Text(hash)]).await?;
        close(&mut transaction, id).await?;
        transaction.commit().await
    }

    async fn rehash(&self, id: AccountId, old: &str, new: &str) -> Result<(), StoreError> {
        let mut transaction = self.0.begin().await?;
        let statement = "UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
        transaction.execute(statement, &[Integer(id.0), Text(old), Text(new)]).await?;
        transaction.commit().await
    }

    async fn set_active(&self, id: AccountId, is_active: bool) -> Result<(), StoreError> {
        let mut transaction = self.0.begin().await?;
        known(&mut transaction, id).await?;
        let statement = "UPDATE accounts SET is_active = $2 WHERE id = $1";
        transaction.execute(statement, &[Integer(id.0), Integer(is_active.into())]).await?;
        if !is_active {
            transaction.execute("UPDATE accounts SET epoch = epoch + 1 WHERE id = $1", &[Integer(id.0)]).await?;
            close(&mut transaction, id).await?;
        }
        transaction.commit().await
    }

    async fn delete(&self, id: AccountId, epoch: Option<i64>) -> Result<Vec<Trust>, StoreError> {
        let mut transaction = self.0.begin().await?;
        in_epoch(&mut transaction, id, epoch).await?;
        let statement = "SELECT ours.alias, ours.other, theirs.alias FROM trust ours \
                         JOIN trust theirs ON theirs.account = ours.other AND theirs.other = ours.account \
                         WHERE ours.account = $1";
        let ended = transaction.rows(statement, &[Integer(id.0)]).await?;
        // The rest goes with it: see the tables.
        transaction.execute("DELETE FROM accounts WHERE id = $1", &[Integer(id.0)]).await?;
        transaction.commit().await?;
        ended.iter().map(|row| trust_of(id, row)).collect()
    }

    async fn trusted(&self, id: AccountId) -> Result<Vec<Trusted>, StoreError> {
        let statement = "SELECT alias, other FROM trust WHERE account = $1 ORDER BY alias";
        let rows = self.0.rows(statement, &[Integer(id.0)]).await?;
        rows.iter().map(|row| Ok(Trusted { alias: row.get(0)?, account: AccountId(row.get(1)?) })).collect()
    }

    async fn trust(&self, a: AccountId, alias_of_b: &str, b: AccountId, alias_of_a: &str) -> Result<(), StoreError> {
        let mut transaction = self.0.begin().await?;
        trust(&mut transaction, a, alias_of_b, b, alias_of_a).await?;
        transaction.commit().await
    }

    async fn revoke(&self, id: AccountId, alias: &str) -> Result<Trust, StoreError> {
        let mut transaction = self.0.begin().await?;
        let statement = "SELECT ours.alias, ours.other, theirs.alias FROM trust ours \
                         JOIN trust theirs ON theirs.account = ours.other AND theirs.other = ours.account \
                         WHERE ours.account = $1 AND ours.alias = $2";
        let found = transaction.rows(statement, &[Integer(id.0), Text(alias)]).await?;
        let trust = trust_of(id, found.first().ok_or(StoreError::UnknownAlias)?)?;
        let statement = "DELETE FROM trust WHERE account = $1 AND other = $2 OR account = $2 AND other = $1";
        transaction.execute(statement, &[Integer(trust.a.0), Integer(trust.b.0)]).await?;
        transaction.commit().await?;
        Ok(trust)
    }

    async fn add_token(&self, token: NewToken, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError> {
        let NewToken { issuer, alias, digest, expires } = token;
        let mut transaction = self.0.begin().await?;
        in_epoch(&mut transaction, issuer, epoch).await?;
        if is_alias_taken(&mut transaction, issuer, &alias).await? {
            return Err(StoreError::AliasTaken);
        }
        let statement = "SELECT COUNT(*) FROM tokens WHERE issuer = $1 AND expires > $2";
        let open = number(&transaction.rows(statement, &[Integer(issuer.0), Integer(nanos(now))]).await?)?;
        if open >= count(MAX_OPEN_TOKENS) {
            return Err(StoreError::TooMany("open tokens"));
        }
        let statement = "INSERT INTO tokens (digest, issuer, alias, expires) VALUES ($1, $2, $3, $4)";
        let values = [Bytes(&digest.0), Integer(issuer.0), Text(&alias), Integer(nanos(expires))];
        transaction.execute(statement, &values).await?;
        transaction.commit().await
    }

    async fn claim(
        &self,
        digest: Digest,
        claimer: AccountId,
        epoch: Option<i64>,
        alias: &str,
        now: SystemTime,
    ) -> Result<Claimed, StoreError> {
        let mut transaction = self.0.begin().await?;
        in_epoch(&mut transaction, claimer, epoch).await?;
        let statement = "SELECT expires, issuer, alias FROM tokens WHERE digest = $1";
        let found = transaction.rows(statement, &[Bytes(&digest.0)]).await?;
        let token = not_expired(&found, now)?;
        let (issuer, issuer_alias) = (AccountId(token.get(1)?), token.get::<String>(2)?);
        trust(&mut transaction, issuer, &issuer_alias, claimer, alias).await?;
        transaction.execute("DELETE FROM tokens WHERE digest = $1", &[Bytes(&digest.0)]).await?;
        transaction.commit().await?;
        Ok(Claimed { issuer, issuer_alias })
    }

    async fn add_invite(&self, invite: NewInvite, epoch: Option<i64>, now: SystemTime) -> Result<(), StoreError> {
        let NewInvite { inviter, email, digest, expires } = invite;
        let mut transaction = self.0.begin().await?;
        in_epoch(&mut transaction, inviter, epoch).await?;
        let statement = "SELECT COUNT(*) FROM invites WHERE inviter = $1 AND expires > $2";
        let open = number(&transaction.rows(statement, &[Integer(inviter.0), Integer(nanos(now))]).await?)?;
        if open >= count(MAX_OPEN_TOKENS) {
            return Err(StoreError::TooMany("open invitations"));
        }
        let statement = "INSERT INTO invites (digest, inviter, email, expires) VALUES ($1, $2, $3, $4)";
        let values = [Bytes(&digest.0), Integer(inviter.0), Text(&email), Integer(nanos(expires))];
        transaction.execute(statement, &values).await?;
        transaction.commit().await
    }

    async fn check_invite(&self, digest: Digest, now: SystemTime) -> Result<(), StoreError> {
        let found = self.0.rows("SELECT expires FROM invites WHERE digest = $1", &[Bytes(&digest.0)]).await?;
        not_expired(&found, now).map(drop)
    }

    async fn accept_invite(
        &self,
        digest: Digest,
        name: &str,
        password_hash: &str,
        now: SystemTime,
    ) -> Result<AccountId, StoreError> {
        let mut transaction = self.0.begin().await?;
        let found = transaction.rows("SELECT expires FROM invites WHERE digest = $1", &[Bytes(&digest.0)]).await?;
        not_expired(&found, now)?;
        let id = create(&mut transaction, name, password_hash).await?;
        transaction.execute("DELETE FROM invites WHERE digest = $1", &[Bytes(&digest.0)]).await?;
        transaction.commit().await?;
        Ok(id)
    }

    async fn forget_expired(&self, before: SystemTime) -> Result<(), StoreError> {
        let mut transaction = self.0.begin().await?;
        for statement in ["DELETE FROM tokens WHERE expires < $1", "DELETE FROM invites WHERE expires < $1"] {
            transaction.execute(statement, &[Integer(nanos(before))]).await?;
        }
        transaction.commit().await
    }
}

async fn create(transaction: &mut Transaction<'_>, name: &str, password_hash: &str) -> Result<AccountId, StoreError> {
    if !transaction.rows("SELECT id FROM accounts WHERE name = $1", &[Text(name)]).await?.is_empty() {
        return Err(StoreError::NameTaken);
    }
    let statement = "INSERT INTO accounts (name, password_hash, is_active) VALUES ($1, $2, 1) RETURNING id";
    Ok(AccountId(number(&transaction.rows(statement, &[Text(name), Text(password_hash)]).await?)?))
}

async fn trust(
    transaction: &mut Transaction<'_>,
    a: AccountId,
    alias_of_b: &str,
    b: AccountId,
    alias_of_a: &str,
) -> Result<(), StoreError> {
    if a == b {
        return Err(StoreError::OwnToken);
    }
    let directions = [(a, alias_of_b, b), (b, alias_of_a, a)];
    for (account, alias, other) in directions {
        known(transaction, account).await?;
        let statement = "SELECT alias FROM trust WHERE account = $1 AND other = $2";
        if !transaction.rows(statement, &[Integer(account.0), Integer(other.0)]).await?.is_empty() {
            return Err(StoreError::AlreadyTrusted);
        }
        if is_alias_taken(transaction, account, alias).await? {
            return Err(StoreError::AliasTaken);
        }
        let statement = "SELECT COUNT(*) FROM trust WHERE account = $1";
        if number(&transaction.rows(statement, &[Integer(account.0)]).await?)? >= count(MAX_TRUSTED) {
            return Err(StoreError::TooMany("trusted accounts"));
        }
    }
    for (account, alias, other) in directions {
        let statement = "INSERT INTO trust (account, alias, other) VALUES ($1, $2, $3)";
        transaction.execute(statement, &[Integer(account.0), Text(alias), Integer(other.0)]).await?;
    }
    Ok(())
}

/// Forgets what is open of an account.
async fn close(transaction: &mut Transaction<'_>, id: AccountId) -> Result<(), StoreError> {
    for statement in ["DELETE FROM tokens WHERE issuer = $1", "DELETE FROM invites WHERE inviter = $1"] {
        transaction.execute(statement, &[Integer(id.0)]).await?;
    }
    Ok(())
}

async fn known(transaction: &mut Transaction<'_>, id: AccountId) -> Result<(), StoreError> {
    let found = transaction.rows("SELECT id FROM accounts WHERE id = $1", &[Integer(id.0)]).await?;
    if found.is_empty() { Err(StoreError::UnknownAccount) } else { Ok(()) }
}

/// Whether there is such an account, and in this epoch, should one be given. Nobody else writes meanwhile.
async fn in_epoch(transaction: &mut Transaction<'_>, id: AccountId, epoch: Option<i64>) -> Result<(), StoreError> {
    let found = transaction.rows("SELECT epoch FROM accounts WHERE id = $1", &[Integer(id.0)]).await?;
    let now: i64 = found.first().ok_or(StoreError::UnknownAccount)?.get(0)?;
    if epoch.is_none_or(|epoch| epoch == now) { Ok(()) } else { Err(StoreError::PasswordChanged) }
}

async fn is_alias_taken(transaction: &mut Transaction<'_>, id: AccountId, alias: &str) -> Result<bool, StoreError> {
    let statement = "SELECT alias FROM trust WHERE account = $1 AND alias = $2";
    Ok(!transaction.rows(statement, &[Integer(id.0), Text(alias)]).await?.is_empty())
}

/// The token or invitation that was found, whose first column is its end.
fn not_expired(found: &[Row], now: SystemTime) -> Result<&Row, StoreError> {
    let row = found.first().ok_or(StoreError::UnknownToken)?;
    if row.get::<i64>(0)? <= nanos(now) { Err(StoreError::Expired) } else { Ok(row) }
}

fn account(row: &Row) -> Result<Account, StoreError> {
    let (id, is_active) = (AccountId(row.get(0)?), row.get::<i64>(3)? != 0);
    Ok(Account { id, name: row.get(1)?, password_hash: row.get(2)?, is_active, epoch: row.get(4)? })
}

fn trust_of(a: AccountId, row: &Row) -> Result<Trust, StoreError> {
    Ok(Trust { a, alias_of_b: row.get(0)?, b: AccountId(row.get(1)?), alias_of_a: row.get(2)? })
}

/// What a statement has answered that answers one number.
fn number(rows: &[Row]) -> Result<i64, StoreError> {
    rows.first().map_or(Ok(0), |row| row.get(0))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Since 1970; until the year 2262, which is late enough to be never.
fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
