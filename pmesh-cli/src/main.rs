//! The command `pmesh`: a mesh peer for the shell and for other languages.

mod args;
mod chat;
mod json;
mod peer;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    // Standard output belongs to events and chat.
    let filter = EnvFilter::try_from_env("PMESH_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pmesh: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match Args::parse().command {
        Command::Peer(args) => runtime.block_on(peer::run(args)),
    };
    // Reading standard input cannot be cancelled: do not wait for it.
    runtime.shutdown_background();
    code
}
