//! The command line.

use std::time::Duration;

use clap::{Parser, Subcommand};
use pmesh::{Connect, IceServer, Offer, Policy, Root};
use serde_json::Value;

/// A mesh peer for the shell and for other languages.
#[derive(Debug, Parser)]
#[command(name = "pmesh", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join a mesh: a chat, or with --json a peer for another program.
    Peer(PeerArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PeerArgs {
    /// The onramp to meet peers at, ws:// or wss://. May be given more than once; the first is where `connect` goes by default.
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) onramp: Vec<String>,

    /// Connect to every peer that an onramp announces.
    #[arg(long)]
    pub(crate) auto_connect: bool,

    /// Send every message of a peer back to it.
    #[arg(long)]
    pub(crate) echo: bool,

    /// Data to send with connection offers, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) offer_data: Option<Value>,

    /// Accept only offers with exactly this data, as JSON. Without it every offer is accepted.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) require_offer_data: Option<Value>,

    /// Read one JSON command a line from standard input, write one JSON event a line to standard output.
    #[arg(long)]
    pub(crate) json: bool,

    /// Connect to peers on this machine over 127.0.0.1 too.
    #[arg(long)]
    pub(crate) loopback: bool,

    /// A STUN server, as stun:HOST:PORT, to be found through NATs. May be given more than once.
    #[arg(long, value_name = "URL")]
    pub(crate) ice_server: Vec<String>,

    /// How long connecting to a peer may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) connect_timeout: u64,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl PeerArgs {
    /// The root that the arguments describe.
    pub(crate) fn root(&self) -> Root {
        let policy = match self.require_offer_data.clone() {
            Some(required) => Policy::new(move |offer: &Offer| *offer.data() == required),
            None => Policy::accept_all(),
        };
        let servers = self.ice_server.iter().map(|url| IceServer { urls: vec![url.clone()], ..IceServer::default() });
        Root::builder()
            .firewall(policy)
            .loopback(self.loopback)
            .ice_servers(servers)
            .connect_timeout(Duration::from_secs(self.connect_timeout))
            .build()
    }

    /// A connect call with the given data, or that of the command line.
    pub(crate) fn connect(&self, to: &str, data: Option<Value>) -> Connect {
        let data = data.or_else(|| self.offer_data.clone());
        Connect::to(to).offer_data(data.unwrap_or(Value::Null))
    }
}
