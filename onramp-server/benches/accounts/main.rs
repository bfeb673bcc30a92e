//! What accounts cost, and calls between their peers: `cargo bench -p onramp-server --bench accounts`.
//!
//! The server is a process of its own: `onramp-server` with SQLite and argon2id as they come, without the bound on frames for each
//! second. All clients are in this process, and share the machine with it. Two parts:
//!
//! - `presence`: accounts in a ring, each of which trusts its 10 neighbours and is logged in three times: logins, how presence spreads,
//!   memory, and introductions. First it makes the accounts, by invitations, and their trust, by tokens, once for all rounds. Beside it,
//!   where node and its package are there (`npm install --no-package-lock` in `original`), a reconstruction of BoneValue's server, see
//!   `original/server.mjs`.
//! - `calls`: through the library, over WebRTC on loopback.
//!
//! Options, all after `--`: `--quick` (a smoke run, the default without `--bench`, which `cargo bench` passes), `--rounds N` (3),
//! `--accounts N` (1,000), and names of parts: only these.

mod calls;
mod client;
#[path = "../../../benches/common/figures.rs"]
mod figures;
mod options;
mod presence;
mod report;
mod server;
mod setup;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use self::options::Options;
use self::report::Table;
use self::server::Variant;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Name of a row, and its value.
type Sample = (String, f64);

/// How long one part of one variant may take in one round.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The password of every account.
const PASSWORD: &str = "correct horse";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accounts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse(std::env::args().skip(1))?;
    let sockets = 3 * options.accounts as u64 + 200;
    if rlimit::increase_nofile_limit(u64::MAX)? < sockets {
        return Err(format!("{sockets} file descriptors are needed: raise `ulimit -n`").into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Spawned: the thread that blocks here is none of the runtime's workers.
    let done = runtime.block_on(runtime.spawn(measure(options)))?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}

async fn measure(options: Options) -> Result<()> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, load {} before the run, {} accounts\n", load(), options.accounts);
    let mut table = Table::default();
    let mut variants = vec![Variant::Pmesh];
    let has_package = Path::new(server::REBUILT).with_file_name("node_modules/websocket").exists();
    let node = std::process::Command::new("node").arg("--version").output();
    if has_package && node.is_ok_and(|node| node.status.success()) {
        variants.push(Variant::Rebuilt);
    } else {
        println!(
            "without the reconstruction: there is no node, or no package `websocket` beside {}\n",
            server::REBUILT
        );
    }
    let folder = tempfile::tempdir()?;
    if options.wants("presence") {
        let mut note = |round, variant, samples: Vec<Sample>| note(&mut table, round, variant, samples);
        note(0, Variant::Pmesh, bounded("setup", setup::ring(folder.path(), &options)).await?);
        for round in 0..options.rounds {
            for turn in 0..variants.len() {
                let variant = variants[(turn + round) % variants.len()];
                let samples = bounded("presence", presence::run(variant, folder.path(), &options)).await?;
                note(round, variant, samples);
            }
        }
    }
    if options.wants("calls") {
        for round in 0..options.rounds {
            note(&mut table, round, Variant::Pmesh, bounded("calls", calls::run(&options)).await?);
        }
    }
    println!("{table}");
    Ok(())
}

async fn bounded<T>(part: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await.map_err(|_| format!("{part}: stuck"))?;
    done.map_err(|error| format!("{part}: {error}").into())
}

fn note(table: &mut Table, round: usize, variant: Variant, samples: Vec<Sample>) {
    for (what, value) in samples {
        eprintln!("round {round}  load {:5}  {variant:14} {what:60} {value:12.3}", load());
        table.add(variant, what, value);
    }
}
