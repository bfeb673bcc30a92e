//! The server in a process of its own.

use std::fmt;
use std::fs::read_to_string;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::{PASSWORD, Result};

/// A reconstruction of BoneValue's server.
pub(crate) const REBUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/accounts/original/server.mjs");

/// How many others each account trusts.
pub(crate) const TRUSTED: usize = 10;

/// What is measured beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    Pmesh,
    Rebuilt,
}

impl Variant {
    pub(crate) const ALL: [Self; 2] = [Self::Pmesh, Self::Rebuilt];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pmesh => "pmesh",
            Self::Rebuilt => "reconstruction",
        })
    }
}

/// Ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
}

impl Server {
    /// One with the accounts in this folder; the reconstruction makes a ring of its own.
    pub(crate) async fn start(variant: Variant, folder: &Path, accounts: usize) -> Result<Self> {
        let mut command = match variant {
            Variant::Pmesh => program(),
            Variant::Rebuilt => Command::new("node"),
        };
        match variant {
            Variant::Pmesh => command
                .args(["--host", "127.0.0.1:0", "--frames-per-second", "0", "--log", "error"])
                .args(["--accounts", &url(folder)]),
            Variant::Rebuilt => {
                command.args(["--expose-gc", REBUILT, &accounts.to_string(), &TRUSTED.to_string(), PASSWORD])
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first).await?;
        let address = first.trim_end().rsplit_once("ws://").ok_or("the server does not start")?.1.to_owned();
        Ok(Self { address, child })
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.child.id().ok_or("the server has ended")?)
    }

    /// What it holds in memory, in KB, without what node would collect. Zero where the system does not tell.
    pub(crate) async fn resident_kb(&self, variant: Variant) -> Result<f64> {
        if variant == Variant::Rebuilt {
            Command::new("kill").args(["-s", "USR2", &self.pid()?.to_string()]).status().await?;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let status = read_to_string(format!("/proc/{}/status", self.pid()?)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0))
    }

    /// The processor time that it has used, in seconds. Zero where the system does not tell.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = read_to_string(format!("/proc/{}/stat", self.pid()?)).unwrap_or_default();
        // After the name in parentheses; user and system time are fields 14 and 15 of all, in ticks of 10 ms.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0)
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.env_remove("RUST_LOG");
    command
}

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("accounts.db").display())
}

/// `onramp-server user` with these arguments, on the accounts in this folder.
pub(crate) async fn user(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = program();
    command.arg("user").args(arguments).args(["--accounts", &url(folder)]);
    let mut child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut input = child.stdin.take().ok_or("no input")?;
    // Only some read it.
    let _ = input.write_all(PASSWORD.as_bytes()).await;
    drop(input);
    if child.wait().await?.success() { Ok(()) } else { Err(format!("{arguments:?} failed").into()) }
}

/// Makes an account.
pub(crate) async fn add(folder: &Path, name: &str) -> Result<()> {
    user(folder, &["add", name, "--password-stdin"]).await
}
