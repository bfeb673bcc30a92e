//! What a link of pmesh does, beside the bare `webrtc` crate: `cargo bench --bench links`.
//!
//! Everything runs in one process over 127.0.0.1, in several rounds that alternate between the variants:
//!
//! - `pmesh`: two roots that meet on an onramp within the process; messages through `Node::send` and `Node::messages`.
//! - `same`: the crate alone with what pmesh sets: a runtime that does not sleep during set-up, large socket buffers, a
//!   receive window to match, no acceptance waits; a plain send loop, and a task that always polls.
//! - `plain`: the crate as it comes, with a send-buffer limit so that it does not run out of memory.
//!
//! Options, all after `--`:
//!
//! - `--quick`: a smoke run of a few seconds. The default without `--bench`, which `cargo bench` passes.
//! - `--rounds N`: how many rounds, 5 by default.
//! - `--shared-port`: the peers of pmesh use one UDP port each.
//! - a name or a part of it: only these measurements. `--variant NAME`: only this variant.
//! - `--flow`: instead of the table, a stress run of the credit flow of pmesh: full rate for `--seconds S` (10), and a
//!   reader that pauses for `--pause P` seconds (5). `--work U`: each message costs the reader U microseconds.
//!
//! `RUST_LOG` shows on the error stream what the library says.

mod alone;
mod bare;
mod facts;
#[path = "../common/figures.rs"]
mod figures;
mod flow;
mod measure;
mod mix;
mod onramp;
mod options;
mod pair;
mod report;
mod tree;
mod tuned;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use self::measure::Measurement;
use self::options::{Mode, Options};
use self::pair::Variant;
use self::report::Table;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long one measurement of one variant in one round may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("links: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Spawned: the thread that blocks here is none of the runtime's workers.
    let done = match options.mode.clone() {
        Mode::Compare => runtime.block_on(runtime.spawn(compare(options)))?,
        Mode::Flow => runtime.block_on(runtime.spawn(flow::run(options)))?,
        Mode::Alone(what, variant) => runtime.block_on(runtime.spawn(what.measure(variant)))?,
    };
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn compare(options: Options) -> Result<()> {
    println!("{}\n", facts::machine()?);
    let mut table = Table::default();
    for round in 0..options.rounds {
        for measurement in Measurement::all(options.quick) {
            if !options.wants(measurement.name) || round >= measurement.rounds {
                continue;
            }
            // Each round begins with another variant, so that none always runs on a warm or a tired machine.
            for turn in 0..Variant::ALL.len() {
                let variant = Variant::ALL[(turn + round) % Variant::ALL.len()];
                if options.variant.is_some_and(|only| only != variant) {
                    continue;
                }
                if measurement.own && variant != Variant::Pmesh {
                    continue;
                }
                // The crate as it comes takes its time to open: a smoke run does it once.
                if options.quick && variant == Variant::Plain && measurement.name != "64k" {
                    continue;
                }
                let run = tokio::time::timeout(PATIENCE, measurement.run(variant));
                let samples = run.await.map_err(|_| format!("{}, {variant}: stuck", measurement.name))?;
                let samples = samples.map_err(|error| format!("{}, {variant}: {error}", measurement.name))?;
                for sample in &samples {
                    eprintln!("round {round}  {variant:6} {:32} {:10.2}", sample.what, sample.value);
                }
                table.add(variant, samples);
            }
        }
    }
    println!("{table}");
    Ok(())
}
