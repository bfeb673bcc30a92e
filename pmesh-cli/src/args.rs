//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use pmesh::overlay::OverlayId;
use pmesh::{Connect, IceServer, Identity, IdentityFileError, Offer, PeerId, Policy, Root, RootBuilder};
use serde_json::Value;

use crate::account::{AccountCommand, FileArgs};
use crate::mesh;

const HYPHENS: &str = "A name that begins with a hyphen goes behind `--`, as in `pmesh trust revoke -- -name`.";

/// A mesh peer for the shell and for other languages.
#[derive(Debug, Parser)]
#[command(name = "pmesh", version, about, after_help = HYPHENS)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join a mesh: a chat, or with --json a peer for another program.
    ///
    /// The end of standard input does not end the peer. The command `quit` of --json does, a signal as by Ctrl-C, and that nobody reads
    /// standard output any more.
    Peer(PeerArgs),
    /// A stream to any peer of an overlay, from standard input and to standard output.
    #[command(subcommand)]
    Cat(CatCommand),
    /// Send a file to a peer of an overlay. What was broken off goes on where it was.
    Send(SendArgs),
    /// Take files that others send over an overlay.
    Receive(ReceiveArgs),
    #[command(flatten)]
    Account(AccountCommand),
    /// Measure the connection between two machines: one end with --listen, the other with --connect.
    Bench(BenchArgs),
    /// Show the peer id of a key file, or make a new one.
    Id(IdArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct IdArgs {
    /// The key file: an Ed25519 private key in PEM (PKCS #8).
    pub(crate) file: PathBuf,

    /// Make a new key in a new file. A file that is there is never overwritten.
    #[arg(long)]
    pub(crate) new: bool,

    /// Write a JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How peers are reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Connect to peers on this machine over 127.0.0.1 too.
    #[arg(long)]
    loopback: bool,

    /// A STUN server, as stun:HOST:PORT, to be found through NATs. May be given more than once.
    #[arg(long, value_name = "URL")]
    ice_server: Vec<String>,

    /// How long connecting to a peer may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    connect_timeout: u64,
}

impl NetworkArgs {
    /// A root with these settings.
    pub(crate) fn root(&self) -> RootBuilder {
        let servers = self.ice_server.iter().map(|url| IceServer { urls: vec![url.clone()], ..IceServer::default() });
        Root::builder().loopback(self.loopback).ice_servers(servers).connect_timeout(self.connect_timeout())
    }

    /// How long connecting to a peer may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout)
    }
}

/// Who this peer is, and how it gets into a mesh.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "way", required = true, multiple = true, args = ["onramp", "overlay", "listen", "bootstrap", "original"])]
pub(crate) struct MeshArgs {
    /// The onramp to meet peers at, ws:// or wss://. May be given more than once; the first is where `connect` goes by default. With
    /// accounts, log in by `pmesh login` first: its name and password go to the onramps of the same server, and to no others.
    #[arg(long, value_name = "URL")]
    pub(crate) onramp: Vec<String>,

    /// Be part of an overlay, whose peers reach each other through others. All of them have the same kind of routing.
    /// [default: kademlia, where there is an overlay]
    #[arg(long, value_enum, value_name = "ROUTING")]
    pub(crate) overlay: Option<Routing>,

    /// Listen for neighbours in the overlay, which come by WebSocket. Port 0 is any free one.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,

    /// Begin at this peer of the overlay, which listens at ws:// or wss://. May be given more than once.
    #[arg(long, value_name = "URL")]
    pub(crate) bootstrap: Vec<String>,

    /// Take peers of the original peer-relay as neighbours too, at the same port. What they say is neither secret nor proven.
    #[arg(long, value_enum, value_name = "SYSTEM", requires = "way")]
    pub(crate) compat: Option<Compat>,

    /// Begin at this original peer-relay, which listens at ws:// or wss://. May be given more than once.
    #[arg(long, value_name = "URL", requires = "compat")]
    pub(crate) original: Vec<String>,

    /// Who this peer is: a key file, made by `pmesh id --new FILE`. Without it the peer is somebody new each time.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,

    #[command(flatten)]
    login: FileArgs,

    #[command(flatten)]
    network: NetworkArgs,
}

/// Another system whose peers can be neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compat {
    /// The npm package peer-relay.
    PeerRelay,
}

/// How messages find their way in an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Routing {
    /// By XOR distance.
    Kademlia,
    /// Around a ring.
    Chord,
}

impl MeshArgs {
    /// A root with these settings.
    pub(crate) fn root(&self) -> Result<RootBuilder, IdentityFileError> {
        let root = self.network.root();
        Ok(match &self.identity {
            Some(file) => root.identity(Identity::load(file)?),
            None => root,
        })
    }

    /// The onramps, and calls to them.
    pub(crate) fn onramps(&self) -> mesh::Result<Vec<(String, Connect)>> {
        self.onramp.iter().map(|url| Ok((url.clone(), self.login.onramp(url)?))).collect()
    }

    /// Whether anything is said of an overlay.
    pub(crate) fn has_overlay(&self) -> bool {
        let begins = !self.bootstrap.is_empty() || !self.original.is_empty();
        self.overlay.is_some() || self.compat.is_some() || self.listen.is_some() || begins
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatCommand {
    /// Show the overlay id of this peer on standard error, and wait for somebody to dial it.
    Listen {
        /// What is dialled for.
        #[arg(long, value_name = "NAME", default_value = SERVICE)]
        service: String,

        #[command(flatten)]
        mesh: MeshArgs,
    },
    /// Dial a peer.
    Dial {
        /// The overlay id of the peer, 40 hexadecimal digits.
        id: OverlayId,

        /// What is dialled for.
        #[arg(long, value_name = "NAME", default_value = SERVICE)]
        service: String,

        #[command(flatten)]
        patience: PatienceArgs,

        #[command(flatten)]
        mesh: MeshArgs,
    },
}

/// What `pmesh cat` dials for, unless something else is given.
const SERVICE: &str = "pmesh.cat";

/// How long to try.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PatienceArgs {
    /// How long to look for the peer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SendArgs {
    /// The file.
    pub(crate) file: PathBuf,

    /// The overlay id of the peer, 40 hexadecimal digits.
    pub(crate) id: OverlayId,

    #[command(flatten)]
    pub(crate) patience: PatienceArgs,

    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReceiveArgs {
    /// The folder to put files into. What is there is never overwritten, but for NAME.part of a transfer.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,

    /// Take files from this peer only, by its overlay id. May be given more than once.
    #[arg(long, value_name = "ID")]
    pub(crate) from: Vec<OverlayId>,

    /// The largest file to take, in bytes, or with K, M, G or T for powers of 1024.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = size)]
    pub(crate) max_size: u64,

    /// End when one file is here.
    #[arg(long)]
    pub(crate) once: bool,

    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PeerArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,

    /// Connect to every peer that an onramp announces.
    #[arg(long)]
    pub(crate) auto_connect: bool,

    /// Send every message of a peer back to it.
    #[arg(long)]
    pub(crate) echo: bool,

    /// Data to send with connection offers, as JSON.
    #[arg(long, value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    pub(crate) offer_data: Option<Value>,

    /// Accept only offers with exactly this data, as JSON. Without it every offer is accepted.
    #[arg(long, value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    pub(crate) require_offer_data: Option<Value>,

    /// Connect to nobody but the peer with this id, whatever introducers say.
    #[arg(long, value_name = "PEER_ID")]
    pub(crate) expect: Option<PeerId>,

    /// Turn peers away that do not prove who they are, as original Ps.
    #[arg(long)]
    pub(crate) require_identity: bool,

    /// Read one JSON command a line from standard input, write one JSON event a line to standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn json(text: &str) -> Result<Value, String> {
    // Who is not used to JSON forgets the quotes, or the shell takes them away.
    serde_json::from_str(text)
        .map_err(|error| format!("{error}: it is no JSON, where text needs quotes, as in '\"Friday\"'"))
}

impl PeerArgs {
    /// The root that the arguments describe.
    pub(crate) fn root(&self) -> Result<Root, IdentityFileError> {
        let policy = match self.require_offer_data.clone() {
            Some(required) => Policy::new(move |offer: &Offer| *offer.data() == required),
            None => Policy::accept_all(),
        };
        Ok(self.mesh.root()?.firewall(policy).require_identity(self.require_identity).build())
    }

    /// A connect call with the given data and to the given peer, or those of the command line.
    pub(crate) fn connect(&self, to: &str, data: Option<Value>, expect: Option<PeerId>) -> Connect {
        let data = data.or_else(|| self.offer_data.clone());
        let connect = Connect::to(to).offer_data(data.unwrap_or(Value::Null));
        match expect.or(self.expect) {
            Some(peer) => connect.expect(peer),
            None => connect,
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
#[group(id = "end", required = true, multiple = false, args = ["listen", "connect"])]
pub(crate) struct BenchArgs {
    /// Be the end that waits: at an onramp of its own on HOST:PORT, or at the onramp with this URL. Ends after one run. For one with
    /// accounts log in by `pmesh login` first, at both ends.
    #[arg(long, value_name = "HOST:PORT|URL")]
    pub(crate) listen: Option<String>,

    /// Be the end that measures: meet the other end at the onramp with this URL, ws:// or wss://.
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<String>,

    /// How long each measurement goes on, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// How long to wait for the other end to come, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub(crate) wait: Duration,

    /// Write one JSON object a line in place of a table.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) login: FileArgs,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Longest time that an option takes, in seconds. A longer one is an error.
const MAX_SECONDS: f64 = 86_400.0;

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("not a number of seconds above 0, at most {MAX_SECONDS}")),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size) if size > 0 => Ok(size),
        _ => Err("not a size, as 500000 or 20M".to_owned()),
    }
}
