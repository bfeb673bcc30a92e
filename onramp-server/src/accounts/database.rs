//! The two databases under one roof: they take the same statements and the same few kinds of values.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use pmesh::onramp::accounts::StoreError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Decode, PgPool, Postgres, Row as _, Sqlite, SqlitePool, Type};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

/// Statements that run at a time, in this process.
const CONNECTIONS: u32 = 8;

/// How long a call waits for its turn, and for each answer of the database. Then it fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait until a new file that others open too is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// PostgreSQL is not to wait for us for ever within a transaction: if our line were cut in one, nobody could write. And we know that there
/// are tables already.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '20s'; SET client_min_messages = warning";

/// Of the lock that those who write to a PostgreSQL database take. Arbitrary, and the same for ever.
const LOCK: i64 = 0x706d_6573_6800_0001;

const SQLITE_MIGRATIONS: &[&str] = &[include_str!("migrations/sqlite-1.sql"), include_str!("migrations/sqlite-2.sql")];
const POSTGRES_MIGRATIONS: &[&str] =
    &[include_str!("migrations/postgres-1.sql"), include_str!("migrations/postgres-2.sql")];

/// A value in a statement.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Integer(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A row of an answer. Columns are known by their place.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

pub(super) struct Database {
    pool: Pool,
    /// Who writes has this: those who wait hold no connection, which readers may need.
    writing: Mutex<()>,
}

/// What one statement after another does takes effect with [`commit`](Self::commit), or not at all. There is one at a time, over all
/// processes.
pub(super) struct Transaction<'a> {
    inner: Inner,
    _writing: MutexGuard<'a, ()>,
}

enum Inner {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Runs a statement with its values.
macro_rules! query {
    ($statement:expr, $values:expr) => {
        $values.iter().fold(sqlx::query($statement), |query, value| match *value {
            Value::Integer(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        })
    };
}

/// Why there is no database at a URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("\"{0}\" is no database: sqlite:FILE or postgres://USER@HOST/NAME")]
    Url(String),
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    #[error("there is no file {0}: a server makes it, or \"user add\"")]
    Missing(String),
    #[error("the database is of a newer version of this program")]
    Newer,
}

impl Database {
    /// Opens the database, makes the SQLite file if there is none, and brings the tables up to date.
    pub(super) async fn open(url: &str) -> Result<Self, OpenError> {
        let pool = match url.split_once(':') {
            Some(("sqlite", path)) => Pool::Sqlite(open_sqlite(file(path)).await?),
            Some(("postgres" | "postgresql", _)) => Pool::Postgres(open_postgres(url).await?),
            // What is behind the scheme may be a password.
            scheme => return Err(OpenError::Url(scheme.map_or(url, |(scheme, _)| scheme).into())),
        };
        let database = Self { pool, writing: Mutex::new(()) };
        database.migrate().await?;
        Ok(database)
    }

    /// Fails if this is of SQLite and there is no such file.
    pub(super) fn must_exist(url: &str) -> Result<(), OpenError> {
        match url.split_once(':') {
            Some(("sqlite", path))
                if matches!(Path::new(file(path)).try_exists(), Ok(false)) && !file(path).is_empty() =>
            {
                Err(OpenError::Missing(file(path).into()))
            }
            _ => Ok(()),
        }
    }

    /// The rows that a statement answers, which changes nothing.
    pub(super) async fn rows(&self, statement: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        patiently(async {
            match &self.pool {
                Pool::Sqlite(pool) => query!(statement, values).fetch_all(pool).await.map(from_sqlite),
                Pool::Postgres(pool) => query!(statement, values).fetch_all(pool).await.map(from_postgres),
            }
        })
        .await
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        patiently(self.try_begin()).await
    }

    async fn try_begin(&self) -> Result<Transaction<'_>, sqlx::Error> {
        let _writing = self.writing.lock().await;
        let inner = match &self.pool {
            // Takes the lock of the file at once: a transaction that first reads could lose it to another.
            Pool::Sqlite(pool) => Inner::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
                Inner::Postgres(transaction)
            }
        };
        Ok(Transaction { inner, _writing })
    }

    async fn migrate(&self) -> Result<(), OpenError> {
        let Transaction { mut inner, _writing } = self.try_begin().await?;
        let (table, select) = (
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)",
            "SELECT version FROM schema_version",
        );
        macro_rules! migrate {
            ($transaction:expr, $migrations:expr) => {{
                sqlx::raw_sql(table).execute(&mut **$transaction).await?;
                let version: Option<i64> = sqlx::query_scalar(select).fetch_optional(&mut **$transaction).await?;
                let done = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
                for migration in $migrations.get(done..).ok_or(OpenError::Newer)? {
                    sqlx::raw_sql(*migration).execute(&mut **$transaction).await?;
                }
                sqlx::raw_sql("DELETE FROM schema_version").execute(&mut **$transaction).await?;
                let insert = sqlx::query("INSERT INTO schema_version VALUES ($1)").bind($migrations.len() as i64);
                insert.execute(&mut **$transaction).await?;
            }};
        }
        match &mut inner {
            Inner::Sqlite(transaction) => migrate!(transaction, SQLITE_MIGRATIONS),
            Inner::Postgres(transaction) => migrate!(transaction, POSTGRES_MIGRATIONS),
        }
        Ok(inner.commit().await?)
    }
}

fn file(path: &str) -> &str {
    path.strip_prefix("//").unwrap_or(path)
}

async fn open_sqlite(path: &str) -> Result<SqlitePool, OpenError> {
    if path.is_empty() || path.starts_with(":memory:") {
        return Err(OpenError::Url(format!("sqlite:{path}")));
    }
    make_private(Path::new(path)).map_err(|error| OpenError::File(path.into(), error))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // What is committed is on the disk.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
    let end = Instant::now() + PATIENCE;
    loop {
        match pool.clone().connect_with(options.clone()).await {
            // Who changes a new file to WAL does not wait for others that do so.
            Err(error) if is_busy(&error) && Instant::now() < end => sleep(AGAIN).await,
            opened => return Ok(opened?),
        }
    }
}

/// Whether it is that SQLite's file is in use (`SQLITE_BUSY`, with or without more detail).
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// Makes a file that nobody else may read, unless there is one. SQLite gives its other files the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

async fn open_postgres(url: &str) -> Result<PgPool, OpenError> {
    let options = PgConnectOptions::from_str(url)?.application_name("onramp-server");
    if is_exposed(&options) {
        tracing::warn!(
            host = options.get_host(),
            "the connection to the database may be readable for others: add ?sslmode=verify-full to its URL"
        );
    }
    // The pool tries again and again, and does not say what is wrong.
    options.connect().await?.close().await?;
    let pool =
        PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE).after_connect(|connection, _| {
            Box::pin(async { sqlx::raw_sql(POSTGRES_SETTINGS).execute(connection).await.map(drop) })
        });
    Ok(pool.connect_with(options).await?)
}

/// Whether the database is on another machine and TLS is not asked for. (By default it is tried, and done without if refused.)
pub(super) fn is_exposed(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let is_here = options.get_socket().is_some() || host.starts_with('/') || pmesh::directory::is_loopback(host);
    !is_here && matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer)
}

impl Transaction<'_> {
    /// The rows that a statement answers.
    pub(super) async fn rows(&mut self, statement: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        patiently(async {
            match &mut self.inner {
                Inner::Sqlite(inner) => query!(statement, values).fetch_all(&mut **inner).await.map(from_sqlite),
                Inner::Postgres(inner) => query!(statement, values).fetch_all(&mut **inner).await.map(from_postgres),
            }
        })
        .await
    }

    /// How many rows a statement has changed.
    pub(super) async fn execute(&mut self, statement: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        patiently(async {
            Ok(match &mut self.inner {
                Inner::Sqlite(inner) => query!(statement, values).execute(&mut **inner).await?.rows_affected(),
                Inner::Postgres(inner) => query!(statement, values).execute(&mut **inner).await?.rows_affected(),
            })
        })
        .await
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        patiently(self.inner.commit()).await
    }
}

impl Inner {
    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}

impl Row {
    /// What is in a column.
    pub(super) fn get<T>(&self, column: usize) -> Result<T, StoreError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(failed)
    }
}

fn from_sqlite(rows: Vec<SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

fn from_postgres(rows: Vec<PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
}

async fn patiently<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(failed),
        Err(elapsed) => Err(StoreError::Failed(Box::new(elapsed))),
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::Failed(Box::new(error))
}
