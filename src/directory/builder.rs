//! The way to a session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::core::{Core, Phase};
use super::error::LoginError;
use super::login::{Credentials, DirectoryUrl, LOGIN_TIMEOUT};
use super::pool::PoolConfig;
use super::session::{Password, Session};
use super::tasks::{self, Tasks};
use crate::node::Root;
use crate::rpc::Rpc;

/// For how long who has left is believed to be who it was: longer than a session pauses at most before it tries to log in again.
const GRACE: Duration = Duration::from_secs(120);

/// Where accounts log in. See the [module](super).
#[derive(Debug)]
pub struct Directory(());

impl Directory {
    /// Logs in, with a root of the session's own, and everything at its default.
    ///
    /// # Errors
    ///
    /// [`LoginError`]. A session that has been logged in logs in again by itself, and then ends only if the password is wrong.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn connect(
        url: &str,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Session, LoginError> {
        Self::builder().connect(url, Credentials::new(name, password)).await
    }

    /// Settings for a session.
    pub fn builder() -> DirectoryBuilder {
        DirectoryBuilder::default()
    }
}

/// Settings for a session, made by [`Directory::builder`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DirectoryBuilder {
    root: Option<Root>,
    rpc: Option<Rpc>,
    pool: PoolConfig,
    grace: Option<Duration>,
    allow_plaintext: bool,
}

impl DirectoryBuilder {
    /// The root to which connections belong. By default one of the session's own, which is closed with it.
    ///
    /// Its firewall is asked about offers of peers first, and then whether there is [room](PoolConfig::incoming).
    pub fn root(mut self, root: &Root) -> Self {
        self.root = Some(root.clone());
        self
    }

    /// Where modules are registered. By default one of the session's own. It may serve others too: of each call the handler is told
    /// whether it is from a [`Peer`](super::Peer) of the directory.
    pub fn rpc(mut self, rpc: &Rpc) -> Self {
        self.rpc = Some(rpc.clone());
        self
    }

    /// How many connections are made for calls, and how long they last.
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.pool = pool;
        self
    }

    /// How long the calls of a peer are still taken, over a connection that is open, when it has left the directory and not because its
    /// login was ended, which has effect at once. Two minutes by default: so long a peer has to log in again, and is then known by its key.
    /// After that its calls are not taken, and the connection is closed, with calls over it, unless it is one of the application. Time
    /// does not count while this session is not logged in: who has left meanwhile has the same time from the new login on. More than a
    /// hundred years mean a hundred years.
    ///
    /// A login that has left cannot be ended any more, whatever becomes of its account: so long who has stolen a password may be served
    /// after it was changed.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Whether the password may cross a network in the clear, by `ws://`. Off by default: then only loopback may be dialled like that.
    pub fn allow_plaintext(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Logs in at `ws://host` or `wss://host`, where a port may follow; without a path it is `/directory`. Takes 30 seconds at most.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn connect(self, url: &str, credentials: Credentials) -> Result<Session, LoginError> {
        let url = DirectoryUrl::parse(url, self.allow_plaintext)?;
        credentials.check()?;
        timeout(LOGIN_TIMEOUT, self.log_in(url, credentials)).await.map_err(|_| LoginError::TimedOut)?
    }

    async fn log_in(self, url: DirectoryUrl, credentials: Credentials) -> Result<Session, LoginError> {
        let owns_root = self.root.is_none();
        let root = self.root.unwrap_or_default();
        let socket = url.dial(root.dialler(), &credentials).await?;
        let grace = self.grace.unwrap_or(GRACE);
        let core = Core::new(root, self.rpc.unwrap_or_default(), url.as_str(), self.pool, grace);
        let password = Arc::new(Password::new(credentials));
        let (stop, stopped) = watch::channel(false);
        let tasks = Tasks {
            // From before the first node, so that nothing is missed.
            events: core.root.events(),
            core: core.clone(),
            url,
            password: password.clone(),
            stop: stopped,
            owns_root,
        };
        let running = tokio::spawn(tasks::run(tasks, socket));
        let mut phase = core.phase();
        let session = Session::new(core, password, running.abort_handle(), stop);
        // The sender lives in the session.
        let reached = phase.wait_for(|phase| *phase != Phase::Joining).await;
        match reached.as_deref() {
            Ok(Phase::Over(error)) => Err(error.clone().unwrap_or(LoginError::RootClosed)),
            _ => Ok(session),
        }
    }
}
