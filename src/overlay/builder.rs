//! Settings of an overlay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio_tungstenite::tungstenite::http::Uri;

use super::OverlayId;
use super::compat::peer_relay::{MachineConfig, is_usable};
use super::core::{Core, packets, shown};
use super::error::OverlayError;
use super::handle::{Inner, Overlay};
use super::keys::Keys;
use super::link::listener::{self, ListenOptions};
use super::originals::{self, PeerRelayCompat};
use super::packets::{PacketQueue, QueuedPort};
use super::router::{Router, RouterConfig};
use super::routing::chord::{Chord, ChordConfig};
use super::routing::{Kademlia, KademliaConfig, Routing};
use super::seal::Session;
use super::stream::Streams;
use super::tasks::{self, Tasks, Ways};
use super::topics::{Topics, TopicsConfig};
use crate::node::{Connect, NodeKind, Root};
use crate::transport::introducer::introducer;

#[derive(Debug, Clone)]
enum Choice {
    Kademlia(KademliaConfig),
    Chord(ChordConfig),
}

/// Numbers of the routings in the first message of a link.
const KADEMLIA: u8 = 1;
const CHORD: u8 = 2;

/// Settings of an overlay. Made by [`Overlay::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct OverlayBuilder {
    root: Root,
    routing: Choice,
    router: RouterConfig,
    topics: TopicsConfig,
    listen: Option<SocketAddr>,
    hosts: Vec<String>,
    links_per_address: Option<usize>,
    bootstrap: Vec<String>,
    makes_links: bool,
    connects_for_streams: bool,
    originals: Option<PeerRelayCompat>,
}

impl OverlayBuilder {
    pub(super) fn new(root: Root) -> Self {
        Self {
            root,
            routing: Choice::Kademlia(KademliaConfig::default()),
            router: RouterConfig::default(),
            topics: TopicsConfig::default(),
            listen: None,
            hosts: Vec::new(),
            links_per_address: None,
            bootstrap: Vec::new(),
            makes_links: true,
            connects_for_streams: true,
            originals: None,
        }
    }

    /// Routes by Kademlia, with these settings. So it is by default. All peers of an overlay must have the same routing.
    pub fn kademlia(mut self, config: KademliaConfig) -> Self {
        self.routing = Choice::Kademlia(config);
        self
    }

    /// Routes by Chord, with these settings.
    pub fn chord(mut self, config: ChordConfig) -> Self {
        self.routing = Choice::Chord(config);
        self
    }

    /// Listens for neighbours, which come by WebSocket. Port 0 is any free one, see [`Overlay::local_addr`]. By default nobody
    /// listens.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// The hosts by which others dial this peer, as `mesh.example.org`: who was dialled under another name is turned away, as
    /// somebody is in between. Not known by default, and everybody may come.
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect();
        self
    }

    /// Links that may come to the port from one address; of IPv6, from one network of 64 bits. Those in their handshake count. Further
    /// ones are answered with HTTP 429 and [counted](Overlay::refused). By default 64, and any number from this machine itself, where
    /// many peers are normal; a number that is set here is for this machine too.
    pub fn links_per_address(mut self, most: usize) -> Self {
        self.links_per_address = Some(most);
        self
    }

    /// A WebSocket URL of a peer that listens, to begin with. All of them are dialled at the start, again while there is no neighbour, and
    /// every 5 minutes, so that networks that fell apart find each other.
    pub fn bootstrap(mut self, url: impl Into<String>) -> Self {
        self.bootstrap.push(url.into());
        self
    }

    /// Whether to connect to peers for the routing, and to accept such connections. On by default. Without it there are only the
    /// links of [`bootstrap`](Self::bootstrap) and [`listen`](Self::listen), those over nodes of the application, those that an
    /// application here or there [calls](Overlay::connect) for, and those [for streams](Self::connect_for_streams); whether every
    /// peer can be reached over these is then the application's concern.
    pub fn make_links(mut self, make: bool) -> Self {
        self.makes_links = make;
        self
    }

    /// Whether to connect directly to peers to which there are [streams](Overlay::dial). On by default; without it they stay on relays
    /// where there is no connection for another reason.
    pub fn connect_for_streams(mut self, connect: bool) -> Self {
        self.connects_for_streams = connect;
        self
    }

    /// Takes peers of the original peer-relay (`peer-relay@0.0.2`, in node.js and in browsers) as neighbours, and passes their messages
    /// on. They come to the port at which the overlay [listens](Self::listen), by WebSockets without a subprotocol. Off by default.
    ///
    /// Nothing that originals say is proven or secret: an id is what somebody claims, and everybody on the way reads and alters what
    /// is said. Messages of theirs are not [verified](super::OverlayMessage::verified), and [`Overlay::send`] tells when a message of
    /// ours goes in their way.
    pub fn compat_peer_relay(mut self, compat: PeerRelayCompat) -> Self {
        self.originals = Some(compat);
        self
    }

    /// How messages are passed on: times, budgets, what is kept. Its `routing` is set by the overlay, and its `compat` by
    /// [`compat_peer_relay`](Self::compat_peer_relay).
    pub fn router(mut self, config: RouterConfig) -> Self {
        self.router = config;
        self
    }

    /// How topics behave. All peers of an overlay should have the same.
    pub fn topics(mut self, config: TopicsConfig) -> Self {
        self.topics = config;
        self
    }

    /// Starts the overlay: it takes the open nodes of the root as neighbours, and those that open later, if they have an overlay
    /// too.
    ///
    /// # Errors
    ///
    /// [`OverlayError`] if it cannot listen, a URL is none, or the root is closed or has an overlay that is not closed.
    pub async fn start(self) -> Result<Overlay, OverlayError> {
        let only = self.root.take_overlay().ok_or(OverlayError::AlreadyRunning)?;
        for url in &self.bootstrap {
            check(url)?;
        }
        let identity = self.root.identity().clone();
        let id = OverlayId::of(&identity.peer_id());
        let dialler = self.root.dialler().clone();
        let peer_timeout = self.root.peer_timeout();
        let urls = self.originals.iter().flat_map(|originals| originals.bootstrap.iter().chain(&originals.url));
        if let Some(url) = urls.into_iter().find(|url| !is_usable(url)) {
            return Err(OverlayError::InvalidUrl(shown(url)));
        }
        let listener = match self.listen {
            None => None,
            Some(address) => {
                let options = ListenOptions {
                    hosts: self.hosts,
                    plain: self.originals.is_some(),
                    links_per_address: self.links_per_address,
                    peer_timeout,
                };
                Some(listener::listen(address, identity.clone(), options).await.map_err(OverlayError::Listen)?)
            }
        };
        let local_addr = listener.as_ref().map(|listener| listener.local_addr());
        let refused = listener.as_ref().map(|listener| listener.refused());
        let now = tokio::time::Instant::now().into_std();
        let (routing, number): (Box<dyn Routing>, _) = match self.routing {
            Choice::Kademlia(config) => (Box::new(Kademlia::new(id, config, rand::random(), now)), KADEMLIA),
            Choice::Chord(config) => (Box::new(Chord::new(id, config, rand::random(), now)), CHORD),
        };
        let compat = self.router.compat || self.originals.is_some();
        let config = RouterConfig { routing: number, compat, ..self.router };
        let router = Router::new(
            routing,
            Box::new(Keys::new(identity.clone(), Session::from_bytes(rand::random()))),
            config,
            rand::random(),
        );
        let topics = Topics::new(identity.clone(), self.topics, microseconds(), rand::random());
        // Before the node is there, so that nothing is missed.
        let events = self.root.events();
        let (transport, outgoing, to_tree) = introducer(id);
        let (core, wishes) = Core::new(router, topics, to_tree, self.makes_links);
        let originals = self.originals.map(|PeerRelayCompat { bootstrap, url, dial_answers }| {
            let here = local_addr.filter(|address| !address.ip().is_unspecified());
            let url = url.or(here.map(|address| format!("ws://{address}")));
            let dials = core.take_originals(MachineConfig { url, dial_answers, ..MachineConfig::default() });
            originals::Tasks { bootstrap, dials, identity: identity.clone(), peer_timeout }
        });
        let connecting = self.root.attach(NodeKind::Overlay, Connect::to(format!("overlay:{id}")), transport);
        let node = connecting.await.map_err(|_| OverlayError::RootClosed)?;
        let has_urls =
            !self.bootstrap.is_empty() || originals.as_ref().is_some_and(|tasks| !tasks.bootstrap.is_empty());
        // What is sent as soon as this returns waits for a first link, if one may come.
        let ways = Ways { overlay: node.clone(), has_urls };
        ways.look(&core);
        let (streams, datagrams) = (packets(), packets());
        let port = |outbound: &Arc<PacketQueue>, inbound: &Arc<PacketQueue>| {
            Arc::new(QueuedPort::new(id, outbound.clone(), inbound.clone()))
        };
        let (stream_port, datagram_port) = (port(&streams, core.streams()), port(&datagrams, core.datagrams()));
        let endpoint = Arc::new(Streams::new(&identity, stream_port));
        let tasks = Tasks {
            core: core.clone(),
            identity,
            ways,
            events,
            wishes,
            outgoing,
            endpoint: endpoint.clone(),
            streams,
            datagrams,
            listener,
            bootstrap: self.bootstrap,
            originals,
            dialler,
            peer_timeout,
        };
        let running = tokio::spawn(tasks::run(tasks));
        Ok(Overlay::new(Inner {
            root: self.root,
            core,
            node,
            local_addr,
            refused,
            streams: endpoint,
            connects_for_streams: self.connects_for_streams,
            datagram_port,
            running,
            only: Mutex::new(Some(only)),
        }))
    }
}

/// Whether a URL can be dialled.
fn check(url: &str) -> Result<(), OverlayError> {
    let uri = url.parse::<Uri>().map_err(|error| OverlayError::InvalidUrl(format!("{}: {error}", shown(url))))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("ws" | "wss"), Some(_)) => Ok(()),
        _ => Err(OverlayError::InvalidUrl(format!("{}: not ws://host or wss://host", shown(url)))),
    }
}

/// Since 1970: more than at any start before, if the clock is right.
fn microseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
