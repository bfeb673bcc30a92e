//! Where neighbours come in: a port for WebSockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::places::{Place, Places};
use super::websocket::{self, HANDSHAKE_TIMEOUT, PROTOCOL};
use super::{Link, MAX_PACKET_BYTES};
use crate::identity::Identity;
use crate::overlay::compat::peer_relay;
use crate::transport::http::Page;
use crate::transport::socket::Socket;
use crate::transport::upgrade::{self, Site};

/// Connections that may be in their handshake, or wait to be accepted. Beyond, they are closed unanswered.
const MAX_HANDSHAKES: usize = 256;
/// How many of them may be from one address; of IPv6, from one network of 64 bits. Beyond, they are closed unanswered.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 128;
/// Links that one address may have, if nothing else is wanted.
const LINKS_PER_ADDRESS: usize = 64;
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
    /// Links that one address may have; of IPv6, one network of 64 bits. By default 64, and this machine any number. Beyond, they are
    /// answered with 429.
    pub(crate) links_per_address: Option<usize>,
    /// After how much silence a neighbour is lost.
    pub(crate) peer_timeout: Duration,
}

/// Who has come in.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A pmesh peer, which has proven who it is, and its place among the links of its address.
    Pmesh(Box<Link>, Place),
    /// Somebody who offered no subprotocol. Nothing has been read from it. It proves nothing, so it also keeps its place among those in
    /// their handshake.
    Plain(Box<WebSocketStream<Socket>>, [Place; 2]),
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
    let links = Places::new(options.links_per_address.unwrap_or(LINKS_PER_ADDRESS));
    let server = Arc::new(Server { identity, options, site, links, accepted: sender, refused: refused.clone() });
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
    links: Arc<Places>,
    accepted: mpsc::Sender<Accepted>,
    refused: Refused,
}

async fn serve(listener: TcpListener, server: Arc<Server>) {
    let mut handshakes = JoinSet::new();
    let places = Places::new(MAX_HANDSHAKES_PER_ADDRESS);
    loop {
        tokio::select! {
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => match places.take(from.ip()) {
                    Some(place) if handshakes.len() < MAX_HANDSHAKES => {
                        handshakes.spawn(admit(server.clone(), tcp, from.ip(), place));
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

async fn admit(server: Arc<Server>, tcp: TcpStream, from: IpAddr, place: Place) {
    let mut place = Some(place);
    match timeout(HANDSHAKE_TIMEOUT, server.handshake(tcp, from, &mut place)).await {
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

    /// A place for a link. On this machine many peers are normal, so it has a limit only if that is wanted.
    fn link_from(&self, from: IpAddr) -> Option<Place> {
        let is_free = from.to_canonical().is_loopback() && self.options.links_per_address.is_none();
        if is_free { Some(Place::free()) } else { self.links.take(from) }
    }

    async fn handshake(&self, mut tcp: TcpStream, from: IpAddr, place: &mut Option<Place>) -> Option<Accepted> {
        // Packets are written in batches already: waiting for more would only delay them.
        let _ = tcp.set_nodelay(true);
        let (upgrade, ahead) = match upgrade::request(&mut tcp, &self.site).await? {
            (Ok(upgrade), ahead) => (upgrade, ahead),
            (Err(page), _) => {
                page.send(tcp).await;
                return None;
            }
        };
        let Some(link_place) = self.link_from(from) else {
            Page::TOO_MANY.send(tcp).await;
            return None;
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
            return Some(Accepted::Plain(Box::new(socket), [place.take()?, link_place]));
        }
        let Self { identity, options, .. } = self;
        match websocket::answer(socket, identity, &options.hosts, options.peer_timeout).await {
            Ok(link) => Some(Accepted::Pmesh(Box::new(link), link_place)),
            Err(error) => {
                tracing::debug!(%error, "no neighbour");
                None
            }
        }
    }
}
