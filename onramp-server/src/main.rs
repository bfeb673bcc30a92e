//! The signalling server of pmesh: the onramp of the library `pmesh` as a program.
//!
//! ```text
//! onramp-server --host localhost:20500
//! onramp-server user add alice --password-stdin --accounts sqlite:accounts.db
//! ```
//!
//! The first line on standard output is `onramp listening on ws://HOST:PORT`; logs go to standard error. SIGINT, SIGTERM,
//! SIGQUIT and, unless it was ignored at the start, SIGHUP send every peer away and end the program with exit code 0; a
//! second signal ends it at once, with 128 and its number. If it cannot listen it ends with exit code 1, and with 2 if the options are
//! wrong.

mod accounts;
mod host;
mod options;
mod stop;
mod user;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pmesh::onramp::{Onramp, Stats};
use tracing_subscriber::EnvFilter;

use options::{Command, Options, Serve};

/// Connections, if not said otherwise and there may be as many.
const MAX_CONNECTIONS: usize = 20_000;
/// File descriptors for all but the peers: those who have not said anything yet, of whom an onramp bears 1,024, and databases.
const SPARE_DESCRIPTORS: usize = 1024 + 64;

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(|error| format!("cannot start: {error}")).and_then(|runtime| match options.command {
        None => runtime.block_on(serve(options.serve)),
        Some(Command::User(command)) => {
            log_to_stderr("warn".into());
            runtime.block_on(user::run(command))
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "onramp-server: {message}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(filter: EnvFilter) {
    // Of lines that cannot be written it would else tell by a panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let has_colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    log.with_ansi(has_colours).with_env_filter(filter).with_writer(std::io::stderr).init();
}

async fn serve(options: Serve) -> Result<(), String> {
    let filter = options.log.clone().or_else(|| EnvFilter::try_from_default_env().ok());
    log_to_stderr(filter.unwrap_or_else(|| "info".into()));
    let max_connections = max_connections(options.max_connections);
    let accounts = options.accounts().await?;

    let ping_interval = (options.ping_interval > 0).then(|| Duration::from_secs(options.ping_interval));
    let mut builder = Onramp::builder()
        .announce(!options.no_announce)
        .max_frame_bytes(options.max_frame_bytes)
        .max_connections(max_connections)
        .frames_per_second(options.frames_per_second)
        .burst(options.burst)
        .queue_frames(options.outbound_queue)
        .ping_interval(ping_interval);
    if let Some(accounts) = accounts {
        builder = options.door.apply(builder.accounts(accounts));
    }
    let host = options.host;
    let onramp = host.bind(builder).await.map_err(|error| format!("cannot listen on {host}: {error}"))?;
    // Before the first line is printed: who reads it may send the signal at once. Until here, where a name may be looked up, a signal ends
    // it at once.
    let stop = stop::signals().map_err(|error| format!("cannot wait for signals: {error}"))?;

    for address in onramp.local_addrs() {
        tracing::info!(%address, "listening");
    }
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(out, "onramp listening on ws://{}", host.shown(onramp.local_addr())).and_then(|()| out.flush());
    drop(out);

    let handle = onramp.handle();
    onramp.run(stop).await;
    let Stats { accepted, refused, relayed, relayed_bytes, .. } = handle.stats();
    tracing::info!(peers = accepted, refused, frames = relayed, bytes = relayed_bytes, "stopped");
    Ok(())
}

/// How many connections there may be: so many as are asked for, or as many as are usual and fit. Lets this process open as many sockets
/// as the system allows without asking the administrator.
fn max_connections(asked: Option<usize>) -> usize {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of file descriptors");
            return asked.unwrap_or(MAX_CONNECTIONS);
        }
    };
    // Of a small limit they have half.
    let fit = limit.saturating_sub(SPARE_DESCRIPTORS).max(limit / 2);
    let connections = asked.unwrap_or(MAX_CONNECTIONS.min(fit));
    match asked {
        Some(_) if connections.saturating_add(SPARE_DESCRIPTORS) > limit => {
            tracing::warn!(limit, connections, "too few file descriptors for so many connections: raise `ulimit -n`");
        }
        None if connections < MAX_CONNECTIONS => {
            tracing::info!(limit, connections, "as many connections as file descriptors allow: `ulimit -n` raises it");
        }
        _ => {}
    }
    connections
}
