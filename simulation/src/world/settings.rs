//! What a world is like.

use std::ops::Range;
use std::time::{Duration, Instant};

use pmesh::overlay::OverlayId;
use pmesh::overlay::router::RouterConfig;
use pmesh::overlay::routing::chord::{Chord, ChordConfig};
use pmesh::overlay::routing::{Kademlia, KademliaConfig, Routing};

use crate::queue::Micros;

/// Which routing the peers have.
#[derive(Debug, Clone)]
pub enum Table {
    /// [`Kademlia`].
    Kademlia(KademliaConfig),
    /// [`Chord`].
    Chord(ChordConfig),
}

/// See the fields.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which routing the peers have.
    pub table: Table,
    /// How their routers behave.
    pub router: RouterConfig,
    /// Time from one peer to another.
    pub latency: Range<Micros>,
    /// After how long it is noticed that a peer has vanished. WebRTC takes about so long.
    pub detect: Duration,
    /// After how long a link that is not made counts as failed.
    pub connect_within: Duration,
    /// How long the link stays through which a peer has joined, whether the tables need it or not.
    pub hold: Duration,
    /// Whether messages are authenticated as in programs: attackers cannot forge them.
    pub authentic: bool,
    /// From which all that is random follows.
    pub seed: u64,
}

impl Settings {
    /// As in programs, for this routing.
    pub fn new(table: Table, seed: u64) -> Self {
        Self {
            table,
            router: RouterConfig::default(),
            latency: 20_000..80_000,
            detect: Duration::from_secs(15),
            connect_within: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            authentic: false,
            seed,
        }
    }
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kademlia(_) => "Kademlia",
            Self::Chord(_) => "Chord",
        }
    }

    pub(super) fn make(&self, id: OverlayId, seed: u64, now: Instant) -> Box<dyn Routing> {
        match self {
            Self::Kademlia(config) => Box::new(Kademlia::new(id, config.clone(), seed, now)),
            Self::Chord(config) => Box::new(Chord::new(id, config.clone(), seed, now)),
        }
    }
}
