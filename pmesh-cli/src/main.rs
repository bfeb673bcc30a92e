//! The command `pmesh`: a mesh peer for the shell and for other languages.
// They panic when nobody reads what is printed.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod account;
mod args;
mod bench;
mod cat;
mod chat;
mod file;
mod id;
mod json;
mod mesh;
mod output;
mod overlay;
mod peer;
mod reason;
mod stop;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};
use crate::output::note;

/// What is logged unless `PMESH_LOG` says otherwise.
const LOG: &str = "error";

fn main() -> ExitCode {
    // Standard output belongs to events and chat.
    let filter = EnvFilter::try_from_env("PMESH_LOG").unwrap_or_else(|_| EnvFilter::new(LOG));
    // Of lines that cannot be written it would else tell by a panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note!("pmesh: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match Args::parse().command {
        Command::Peer(args) => runtime.block_on(peer::run(args)),
        Command::Cat(command) => runtime.block_on(runtime.spawn(cat::run(command))).unwrap_or(ExitCode::FAILURE),
        Command::Send(args) => runtime.block_on(runtime.spawn(file::send(args))).unwrap_or(ExitCode::FAILURE),
        Command::Receive(args) => runtime.block_on(runtime.spawn(file::receive(args))).unwrap_or(ExitCode::FAILURE),
        Command::Account(command) => {
            runtime.block_on(runtime.spawn(account::run(command))).unwrap_or(ExitCode::FAILURE)
        }
        Command::Id(args) => id::run(&args),
        // Spawned: the thread that blocks here is none of the runtime's workers.
        Command::Bench(args) => runtime.block_on(runtime.spawn(bench::run(args))).unwrap_or(ExitCode::FAILURE),
    };
    // Reading standard input cannot be cancelled: do not wait for it.
    runtime.shutdown_background();
    code
}
