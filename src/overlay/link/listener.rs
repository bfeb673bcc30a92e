//! Where neighbours come in: a port for WebSockets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::websocket::{self, HANDSHAKE_TIMEOUT, PROTOCOL};
use super::{Link, MAX_PACKET_BYTES};
use crate::identity::Identity;
use crate::lock::lock;
use crate::overlay::compat::peer_relay;
use crate::transport::socket::Socket;
use crate::transport::upgrade::{self, Site};

/// Connections that may be in their handshake, or wait to be accepted. Beyond, they are closed unanswered.
const MAX_HANDSHAKES: usize = 256;
/// How many of them may be from one address; of IPv6, from one network of 64 bits. Beyond, they are closed unanswered.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 128;
/// Pause after an error of accepting, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Read buffer of the WebSocket layer: [`Socket`] reads ahead, so this one may be small.
const READ_BUFFER: usize = 4 * 1024;
/// Largest message of a WebSocket without subprotocol, in bytes.
const MAX_PLAIN_BYTES: usize = peer_relay::MAX_MESSAGE_BYTES;

/// How a [`Listener`] listens.
#[derive(Debug, Clone)]
pub(crate) struct ListenOptions {
    /// The hosts by which others dial this peer, in lower case. Who was sent here by somebody in between, who was dialled under
    /// another name, is turned away. If there are none, they are not known, and everybody may come.
    pub(crate) hosts: Vec<String>,
    /// Whether WebSockets without a subprotocol are taken too: originals.
    pub(crate) plain: bool,
    /// After how much silence a neighbour is lost.
    pub(crate) peer_timeout: Duration,
}

/// Who has come in.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A pmesh peer, which has proven who it is.
    Pmesh(Box<Link>),
    /// Somebody who offered no subprotocol. Nothing has been read from it.
    Plain(Box<WebSocketStream<Socket>>, Place),
}

/// A count that goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused(Arc<AtomicU64>);

impl Refused {
    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens for neighbours. Dropping it stops that, and ends the handshakes; links stay.
#[derive(Debug)]
pub(crate) struct Listener {
    local_addr: SocketAddr,
    accepted: mpsc::Receiver<Accepted>,
    refused: Refused,
    _serving: JoinSet<()>,
}

/// Listens at an address; port 0 is any free one.
///
/// # Errors
///
/// If the address cannot be bound.
pub(crate) async fn listen(addr: SocketAddr, identity: Identity, options: ListenOptions) -> io::Result<Listener> {
    let listener = TcpListener::bind(addr).await?;
    let local_addr = listener.local_addr()?;
    // Those that wait here have open links, and are counted as handshakes all the same.
    let (sender, accepted) = mpsc::channel(1);
    let refused = Refused::default();
    let site = Site {
        protocols: &[PROTOCOL],
        plain: options.plain,
        hello: "This is a pmesh overlay peer. Connect with a WebSocket and the subprotocol \"pmesh.overlay.1\".\n",
        no_protocol: "Offer the WebSocket subprotocol \"pmesh.overlay.1\".\n",
    };
    let server = Arc::new(Server { identity, options, site, accepted: sender, refused: refused.clone() });
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, server));
    Ok(Listener { local_addr, accepted, refused, _serving: serving })
}

impl Listener {
    /// Where it listens, with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Who comes in next. Cancel safe.
    pub(crate) async fn accept(&mut self) -> Accepted {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The task that serves ends with this listener only.
            None => std::future::pending().await,
        }
    }

    /// Counts connections that were turned away: too many at once, no WebSockets, handshakes that failed.
    pub(crate) fn refused(&self) -> Refused {
        self.refused.clone()
    }
}

#[derive(Debug)]
struct Server {
    identity: Identity,
    options: ListenOptions,
    site: Site,
    accepted: mpsc::Sender<Accepted>,
    refused: Refused,
}

async fn serve(listener: TcpListener, server: Arc<Server>) {
    let mut handshakes = JoinSet::new();
    let places = Arc::new(Mutex::new(HashMap::new()));
    loop {
        tokio::select! {
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => match Place::take(&places, from.ip()) {
                    Some(place) if handshakes.len() < MAX_HANDSHAKES => {
                        handshakes.spawn(admit(server.clone(), tcp, place));
                    }
                    _ => server.refuse(),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn admit(server: Arc<Server>, tcp: TcpStream, place: Place) {
    let mut place = Some(place);
    match timeout(HANDSHAKE_TIMEOUT, server.handshake(tcp, &mut place)).await {
        // It fails only when the listener is gone.
        Ok(Some(accepted)) => drop(server.accepted.send(accepted).await),
        Ok(None) | Err(_) => server.refuse(),
    }
    drop(place);
}

impl Server {
    fn refuse(&self) {
        self.refused.0.fetch_add(1, Ordering::Relaxed);
    }

    async fn handshake(&self, mut tcp: TcpStream, place: &mut Option<Place>) -> Option<Accepted> {
        // Packets are written in batches already: waiting for more would only delay them.
        let _ = tcp.set_nodelay(true);
        let (upgrade, ahead) = match upgrade::request(&mut tcp, &self.site).await? {
            (Ok(upgrade), ahead) => (upgrade, ahead),
            (Err(page), _) => {
                page.send(tcp).await;
                return None;
            }
        };
        tcp.write_all(upgrade.response().as_bytes()).await.ok()?;
        let max_message = if upgrade.protocol.is_some() { MAX_PACKET_BYTES } else { MAX_PLAIN_BYTES };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * max_message)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let socket = WebSocketStream::from_raw_socket(Socket::new(tcp, ahead), Role::Server, Some(config)).await;
        if upgrade.protocol.is_none() {
            return Some(Accepted::Plain(Box::new(socket), place.take()?));
        }
        let Self { identity, options, .. } = self;
        match websocket::answer(socket, identity, &options.hosts, options.peer_timeout).await {
            Ok(link) => Some(Accepted::Pmesh(Box::new(link))),
            Err(error) => {
                tracing::debug!(%error, "no neighbour");
                None
            }
        }
    }
}

/// One of the handshakes that an address may have. Who offers no subprotocol proves nothing, and keeps its place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Mutex<HashMap<IpAddr, usize>>>,
    from: IpAddr,
}

impl Place {
    fn take(places: &Arc<Mutex<HashMap<IpAddr, usize>>>, from: IpAddr) -> Option<Self> {
        let from = network(from);
        let mut taken = lock(places);
        let count = taken.entry(from).or_default();
        if *count >= MAX_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { places: places.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = lock(&self.places).entry(self.from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}
