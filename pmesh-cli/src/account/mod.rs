//! Accounts: logging in to a directory, trust, and calls to the peers of those who are trusted.

mod args;
mod call;
mod job;
mod link;
mod login;
mod manage;
mod register;
mod secret;
mod serve;
mod who;

pub(crate) use args::{AccountCommand, FileArgs};

use std::process::ExitCode;

use pmesh::directory::{Directory, DirectoryBuilder, LoginError, PoolConfig, Session};
use pmesh::rpc::Rpc;
use pmesh::{Identity, Policy, Root};

use self::args::SessionArgs;
use self::login::Login;
use crate::mesh::{self, Result};

/// What is said when the directory is lost. The session goes on to log in.
const LOST: &str = "* the directory is lost";

/// Runs a command.
pub(crate) async fn run(command: AccountCommand) -> ExitCode {
    let (name, done) = match command {
        AccountCommand::Login(args) => ("login", manage::log_in(args).await),
        AccountCommand::Logout(args) => ("logout", manage::log_out(&args)),
        AccountCommand::Register(args) => ("register", register::run(args).await),
        AccountCommand::Passwd(args) => ("passwd", manage::change_password(&args).await),
        AccountCommand::Token(command) => ("token", manage::token(command).await),
        AccountCommand::Trust(command) => ("trust", manage::trust(command).await),
        AccountCommand::Invite(args) => ("invite", manage::invite(&args).await),
        AccountCommand::Who(args) => ("who", who::run(&args).await),
        AccountCommand::Call(args) => ("call", call::run(args).await),
        AccountCommand::Serve(args) => ("serve", serve::run(args).await),
    };
    mesh::exit(name, done)
}

/// A session that ends with the command.
struct Joined {
    root: Root,
    session: Session,
}

impl Joined {
    /// Logs in to reach peers, and to be reached by so many at a time.
    async fn new(args: &SessionArgs, rpc: &Rpc, incoming: usize) -> Result<Self> {
        let login = args.login.load()?;
        // Who is to wait for a place comes again; who is never to come hears so.
        let policy = if incoming == 0 { Policy::refuse_all() } else { Policy::accept_all() };
        let root = args.network.root().firewall(policy);
        let root = match &args.identity {
            Some(file) => root.identity(Identity::load(file)?),
            None => root,
        };
        let mut pool = PoolConfig::default();
        pool.incoming = incoming;
        // With all attempts there are.
        pool.wait = args.network.connect_timeout();
        Self::over(root.build(), Directory::builder().rpc(rpc).pool(pool), &login).await
    }

    /// Logs in to speak with the directory only.
    async fn alone(args: &FileArgs) -> Result<Self> {
        Self::with(&args.load()?).await
    }

    async fn with(login: &Login) -> Result<Self> {
        let root = Root::builder().firewall(Policy::refuse_all()).build();
        Self::over(root, Directory::builder(), login).await
    }

    async fn over(root: Root, builder: DirectoryBuilder, login: &Login) -> Result<Self> {
        Ok(Self { session: login.connect(builder.root(&root)).await.map_err(told)?, root })
    }

    async fn close(&self) {
        self.session.disconnect().await;
        self.root.close().await;
    }
}

/// A failed login in words.
fn told(error: LoginError) -> String {
    match error {
        LoginError::Throttled { retry_after: Some(pause) } => format!("{error}: try again in {} s", pause.as_secs()),
        LoginError::Plaintext => format!("{error}, or --allow-plaintext"),
        error => error.to_string(),
    }
}
