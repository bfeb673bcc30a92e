//! What the overlay does over several hops, beside the original peer-relay: `cargo bench --bench overlay`.
//!
//! Each peer is a process of its own, and all stand in a line: a message from one end to the other passes every relay between them.
//! "0 relays" are two neighbours. Variants, which alternate in each round:
//!
//! - `websocket`, `webrtc`: peers of pmesh, whose neighbours are linked over WebSockets or over WebRTC, on loopback.
//! - `original`: `peer-relay@0.0.2` in node.js, kept from making connections of its own accord. It needs `npm install` in
//!   `tests/browser`; without it, it is left out.
//!
//! Messages are JSON through `Overlay::send` and `Overlay::messages`. At most `--window` of them (1,000) are on their way; the receiver
//! acknowledges each hundredth. What is lost is a row of its own.
//!
//! Options, all after `--`: `--quick` (a smoke run, the default without `--bench`, which `cargo bench` passes), `--rounds N` (3),
//! `--window N`, `--variant NAME`, `--counters` (what the peers dropped), and names or parts of them: only these measurements.

#[path = "../common/figures.rs"]
mod figures;
mod line;
mod measure;
mod options;
mod peer;
mod pour;
mod process;
mod raw;
mod report;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use self::measure::Measurement;
use self::options::Options;
use self::process::Variant;
use self::report::Table;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The argument of a process that is a peer.
const PEER: &str = "peer";
/// How long one measurement of one variant in one round may take.
const PATIENCE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Spawned: the thread that blocks here is none of the runtime's workers.
    let done = if std::env::args().nth(1).is_some_and(|argument| argument == PEER) {
        runtime.block_on(runtime.spawn(peer::run()))?
    } else {
        let options = Options::parse(std::env::args().skip(1))?;
        runtime.block_on(runtime.spawn(compare(options)))?
    };
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}

async fn compare(options: Options) -> Result<()> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, load {} before the run\n", load());
    let has_original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/node_modules/peer-relay").exists();
    let mut table = Table::default();
    for round in 0..options.rounds {
        for measurement in Measurement::all(&options) {
            if !options.wants(&measurement.name) {
                continue;
            }
            for turn in 0..Variant::ALL.len() {
                let variant = Variant::ALL[(turn + round) % Variant::ALL.len()];
                let is_wanted = options.variant.is_none_or(|only| only == variant) && measurement.is_for(variant);
                if !is_wanted || (variant == Variant::Original && !has_original) {
                    continue;
                }
                let run = tokio::time::timeout(PATIENCE, measurement.run(variant, &options));
                let samples = run.await.map_err(|_| format!("{}, {variant}: stuck", measurement.name))?;
                let samples = samples.map_err(|error| format!("{}, {variant}: {error}", measurement.name))?;
                for (what, value) in samples {
                    eprintln!("round {round}  load {:5}  {variant:10} {what:44} {value:10.2}", load());
                    table.add(variant, what, value);
                }
            }
        }
    }
    println!("{table}");
    Ok(())
}
