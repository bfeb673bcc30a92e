//! The command line.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, value_parser};
use pmesh::onramp::Builder;
use pmesh::onramp::accounts::{Accounts, AccountsBuilder};
use tracing_subscriber::EnvFilter;

use crate::accounts::{Argon2id, OpenError, SqlStore};
use crate::host::Host;

/// The signalling server of pmesh: peers meet here, and may then do without it.
#[derive(Debug, Parser)]
#[command(
    name = "onramp-server",
    version,
    disable_help_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) serve: Serve,

    /// Print help.
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage accounts, also while a server uses them.
    #[command(subcommand)]
    User(User),
}

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen: name:port, name, or :port for all addresses of this machine. Port 0 lets the system choose.
    #[arg(short = 'h', long, value_name = "host", num_args = 0..=1, default_value = "localhost:20500",
          default_missing_value = "localhost:20500")]
    pub(crate) host: Host,

    /// Do not tell peers of each other. They have to know whom they call.
    #[arg(long)]
    pub(crate) no_announce: bool,

    /// Largest frame accepted, in bytes. A peer that sends a larger one is closed with code 1009.
    #[arg(long, value_name = "bytes", default_value_t = 1_048_576)]
    pub(crate) max_frame_bytes: usize,

    /// Most peers at a time. Further ones get HTTP 503 [default: 20000, or as many as there may be file descriptors for].
    #[arg(long, value_name = "number")]
    pub(crate) max_connections: Option<usize>,

    /// Frames that a peer may send for each second; a faster one is read more slowly. 0: no limit.
    #[arg(long, value_name = "number", default_value_t = 200)]
    pub(crate) frames_per_second: u32,

    /// Frames that a peer may send at once after a rest.
    #[arg(long, value_name = "number", default_value_t = 1000)]
    pub(crate) burst: u32,

    /// Frames that may wait for a peer that is slow to read. Further ones are dropped.
    #[arg(long, value_name = "frames", default_value_t = 1024)]
    pub(crate) outbound_queue: usize,

    /// Seconds between pings. A peer that misses two is disconnected. 0: no pings.
    #[arg(long, value_name = "seconds", default_value_t = 30)]
    pub(crate) ping_interval: u64,

    /// Serve only users who log in, whose accounts are in this database: sqlite:FILE or postgres://USER@HOST/NAME. For a password of
    /// PostgreSQL there are $PGPASSWORD and ~/.pgpass.
    #[arg(long, value_name = "url")]
    accounts: Option<String>,

    #[command(flatten)]
    pub(crate) door: Door,

    #[command(flatten)]
    lifetimes: Lifetimes,

    #[command(flatten)]
    hashing: Hashing,

    /// What to log to standard error, such as "warn" or "pmesh=debug" [default: $RUST_LOG, or info].
    #[arg(long, value_name = "filter", value_parser = |filter: &str| EnvFilter::builder().parse(filter))]
    pub(crate) log: Option<EnvFilter>,
}

/// Who may log in from where, and how often.
#[derive(Debug, Args)]
pub(crate) struct Door {
    /// Let web pages of this origin log in too, such as `https://app.example`. May be given more than once.
    #[arg(long = "allow-origin", value_name = "origin", requires = "accounts", value_parser = origin)]
    allow_origins: Vec<String>,

    /// Take the last entry of X-Forwarded-For for the client's address, and that of X-Forwarded-Proto for whether it came with TLS. Only
    /// behind a proxy that nobody can go round.
    #[arg(long, requires = "accounts")]
    trust_forwarded: bool,

    /// Most sessions of one account at a time. Further logins get HTTP 429.
    #[arg(long, value_name = "number", default_value_t = 100, requires = "accounts",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_logins: usize,

    /// Seconds after which changes of other processes to the accounts are seen.
    #[arg(long, value_name = "seconds", default_value_t = 30, requires = "accounts")]
    refresh_interval: u64,
}

impl Door {
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        builder
            .allow_origins(&self.allow_origins)
            .trust_forwarded(self.trust_forwarded)
            .max_logins(self.max_logins)
            .refresh_interval(Duration::from_secs(self.refresh_interval))
    }
}

#[derive(Debug, Args)]
struct Lifetimes {
    /// Seconds in which a token can be claimed.
    #[arg(long, value_name = "seconds", default_value_t = 600, requires = "accounts")]
    token_lifetime: u64,

    /// Seconds in which a bearer token of POST /login is good.
    #[arg(long, value_name = "seconds", default_value_t = 300, requires = "accounts")]
    bearer_lifetime: u64,

    /// Seconds in which an invitation can be accepted.
    #[arg(long, value_name = "seconds", default_value_t = 604_800, requires = "accounts")]
    invite_lifetime: u64,

    /// Passwords that are hashed at a time [default: the number of cores].
    #[arg(long, value_name = "number", requires = "accounts",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    hashing_at_once: Option<usize>,
}

/// How passwords are hashed. Those there are keep their numbers until the next login by them.
#[derive(Debug, Args)]
struct Hashing {
    /// Memory for hashing a password, in KiB.
    #[arg(long, value_name = "KiB", default_value_t = 19_456, requires = "accounts",
          value_parser = value_parser!(u32).range(..=4_194_304))]
    argon2_memory_kib: u32,

    /// Passes over that memory.
    #[arg(long, value_name = "number", default_value_t = 2, requires = "accounts", value_parser = value_parser!(u32).range(1..=1000))]
    argon2_iterations: u32,

    /// Lanes of that memory.
    #[arg(long, value_name = "number", default_value_t = 1, requires = "accounts")]
    argon2_parallelism: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make an account. The password is the first line of standard input.
    Add {
        name: String,
        #[command(flatten)]
        password: FromStdin,
        #[command(flatten)]
        store: Store,
    },
    /// Give an account another password: the first line of standard input.
    Passwd {
        name: String,
        #[command(flatten)]
        password: FromStdin,
        #[command(flatten)]
        store: Store,
    },
    /// List all accounts by name, each with "active" or "inactive" behind a tab.
    List {
        #[command(flatten)]
        store: Store,
    },
    /// Remove an account, and all that belongs to it.
    Remove {
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Let nobody log in to an account any more.
    Deactivate {
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Let its owner log in to an account again.
    Activate {
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Make two accounts trust each other.
    Trust {
        name: String,
        other: String,
        /// By which alias each is known to the other, in the same order [default: their names].
        #[arg(long = "as", num_args = 2, value_names = ["alias", "alias"])]
        aliases: Option<Vec<String>>,
        #[command(flatten)]
        store: Store,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FromStdin {
    /// Read the password from standard input. There is no other way: command lines can be seen by others.
    #[arg(long, required = true)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// The database of the accounts: sqlite:FILE or postgres://USER@HOST/NAME.
    #[arg(long, value_name = "url")]
    accounts: String,

    #[command(flatten)]
    hashing: Hashing,
}

impl Serve {
    /// The accounts to be served, if there are to be any.
    pub(crate) async fn accounts(&self) -> Result<Option<Accounts>, String> {
        let Some(url) = &self.accounts else { return Ok(None) };
        let Lifetimes { token_lifetime, bearer_lifetime, invite_lifetime, hashing_at_once } = self.lifetimes;
        let mut builder = open(SqlStore::open(url), &self.hashing)
            .await?
            .token_lifetime(Duration::from_secs(token_lifetime))
            .bearer_lifetime(Duration::from_secs(bearer_lifetime))
            .invite_lifetime(Duration::from_secs(invite_lifetime));
        if let Some(passwords) = hashing_at_once {
            builder = builder.hashing_at_once(passwords);
        }
        Ok(Some(builder.build()))
    }
}

impl Store {
    pub(crate) async fn open(&self) -> Result<Accounts, String> {
        Ok(open(SqlStore::open_existing(&self.accounts), &self.hashing).await?.build())
    }

    /// Makes the database if there is none.
    pub(crate) async fn open_or_make(&self) -> Result<Accounts, String> {
        Ok(open(SqlStore::open(&self.accounts), &self.hashing).await?.build())
    }
}

/// An origin as browsers send it.
fn origin(text: &str) -> Result<String, String> {
    let (scheme, host) = text.split_once("://").ok_or("it is a scheme and a host, such as https://app.example")?;
    if scheme.is_empty() || host.is_empty() || host.starts_with(':') {
        return Err("it is a scheme and a host, such as https://app.example".into());
    }
    if let Some(beyond) = host.find(|c: char| "/?#@*".contains(c) || c.is_whitespace()) {
        return Err(format!("\"{}\" is no part of an origin", &host[beyond..]));
    }
    if let ("http", Some((_, "80"))) | ("https", Some((_, "443"))) = (scheme, host.rsplit_once(':')) {
        return Err("browsers leave out the port that every URL of this scheme has".into());
    }
    Ok(text.into())
}

async fn open(
    store: impl Future<Output = Result<SqlStore, OpenError>>,
    hashing: &Hashing,
) -> Result<AccountsBuilder, String> {
    let Hashing { argon2_memory_kib, argon2_iterations, argon2_parallelism } = *hashing;
    let passwords = Argon2id::new(argon2_memory_kib, argon2_iterations, argon2_parallelism)
        .map_err(|error| format!("argon2 cannot do with these numbers: {error}"))?;
    let store = store.await.map_err(|error| format!("cannot open the accounts: {error}"))?;
    Ok(Accounts::builder(store, passwords))
}
