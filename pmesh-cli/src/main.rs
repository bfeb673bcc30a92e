//! The command `pmesh`: a mesh peer for the shell and for other languages.

mod args;
mod chat;
mod json;
mod peer;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command};

#[tokio::main]
async fn main() -> ExitCode {
    // Standard output belongs to events and chat.
    let filter = EnvFilter::try_from_env("PMESH_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Args::parse().command {
        Command::Peer(args) => peer::run(args).await,
    }
}
