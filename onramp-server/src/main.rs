//! The signalling server of pmesh: the onramp of the library `pmesh` as a program.
//!
//! ```text
//! onramp-server --host localhost:20500
//! ```
//!
//! The first line on standard output is `onramp listening on ws://HOST:PORT`; logs go to standard error. SIGINT and
//! SIGTERM send every peer away and end the program with exit code 0. If it cannot listen it ends with exit code 1,
//! and with 2 if the options are wrong.

mod host;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser};
use pmesh::onramp::Onramp;
use tracing_subscriber::EnvFilter;

use host::Host;

/// The signalling server of pmesh: peers meet here, and may then do without it.
#[derive(Debug, Parser)]
#[command(name = "onramp-server", version, disable_help_flag = true)]
struct Options {
    /// Where to listen: name:port, name, or :port for all addresses of this machine. Port 0 lets the system choose.
    #[arg(short = 'h', long, value_name = "host", num_args = 0..=1, default_value = "localhost:20500",
          default_missing_value = "localhost:20500")]
    host: Host,

    /// Do not tell peers of each other. They have to know whom they call.
    #[arg(long)]
    no_announce: bool,

    /// Largest frame accepted, in bytes. A peer that sends a larger one is closed with code 1009.
    #[arg(long, value_name = "bytes", default_value_t = 1_048_576)]
    max_frame_bytes: usize,

    /// Most peers at a time. Further ones get HTTP 503.
    #[arg(long, value_name = "number", default_value_t = 20_000)]
    max_connections: usize,

    /// Frames that a peer may send for each second; a faster one is read more slowly. 0: no limit.
    #[arg(long, value_name = "number", default_value_t = 200)]
    frames_per_second: u32,

    /// Frames that a peer may send at once after a rest.
    #[arg(long, value_name = "number", default_value_t = 1000)]
    burst: u32,

    /// Frames that may wait for a peer that is slow to read. Further ones are dropped.
    #[arg(long, value_name = "frames", default_value_t = 1024)]
    outbound_queue: usize,

    /// Seconds between pings. A peer that misses two is disconnected. 0: no pings.
    #[arg(long, value_name = "seconds", default_value_t = 30)]
    ping_interval: u64,

    /// What to log to standard error, such as "warn" or "pmesh=debug" [default: $RUST_LOG, or info].
    #[arg(long, value_name = "filter", value_parser = |filter: &str| EnvFilter::builder().parse(filter))]
    log: Option<EnvFilter>,

    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(|error| format!("cannot start: {error}")).and_then(|r| r.block_on(serve(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("onramp-server: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), String> {
    let filter = options.log.or_else(|| EnvFilter::try_from_default_env().ok()).unwrap_or_else(|| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    raise_descriptor_limit(options.max_connections);
    // Before the first line is printed: who reads it may send the signal at once.
    let stop = stop_signal().map_err(|error| format!("cannot wait for signals: {error}"))?;

    let ping_interval = (options.ping_interval > 0).then(|| Duration::from_secs(options.ping_interval));
    let builder = Onramp::builder()
        .announce(!options.no_announce)
        .max_frame_bytes(options.max_frame_bytes)
        .max_connections(options.max_connections)
        .frames_per_second(options.frames_per_second)
        .burst(options.burst)
        .queue_frames(options.outbound_queue)
        .ping_interval(ping_interval);
    let host = options.host;
    let onramp = host.bind(builder).await.map_err(|error| format!("cannot listen on {host}: {error}"))?;

    for address in onramp.local_addrs() {
        tracing::info!(%address, "listening");
    }
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(out, "onramp listening on ws://{}", host.shown(onramp.local_addr())).and_then(|()| out.flush());
    drop(out);

    let handle = onramp.handle();
    onramp.run(stop).await;
    tracing::info!(stats = ?handle.stats(), "stopped");
    Ok(())
}

/// Lets this process open as many sockets as the system allows without asking the administrator.
fn raise_descriptor_limit(connections: usize) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < connections as u64 + 64 => {
            tracing::warn!(limit, connections, "fewer file descriptors than connections: raise `ulimit -n`");
        }
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
}

#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future> {
    Ok(tokio::signal::ctrl_c())
}
