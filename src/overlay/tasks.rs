//! The tasks of an overlay: they bring what happens to the core.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::OverlayId;
use super::core::{Core, Reach, Wish};
use super::link::listener::{Accepted, Listener};
use super::link::signal::FromTree;
use super::link::websocket::{self, DialError};
use super::link::{self, Link};
use super::originals;
use super::packets::PacketQueue;
use super::router::Kind;
use super::seal::PublicKey;
use super::stream::Streams;
use crate::identity::Identity;
use crate::node::{Connect, Event, Events, Node, NodeKind};
use crate::transport::websocket::Dialler;

/// How long a connection that the routing wishes for may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait until a URL is dialled again: at first, and at most.
const REDIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often a URL is dialled again although there are neighbours, and how long that link stays if nobody needs it.
const REJOIN: Duration = Duration::from_secs(300);
const STAY: Duration = Duration::from_secs(60);
/// How often to look whether the last neighbour is gone, and a URL is to be dialled again.
const LOOK: Duration = Duration::from_secs(1);

/// Neighbours that may have come to the port and be connected. Beyond, they are turned away.
const MAX_LINKS: usize = 4096;
/// Packets of a link that are brought to the core at once, if as many are there.
const READY: usize = 16;
/// How often to look whether there are streams to a peer.
const STREAM_LOOK: Duration = Duration::from_secs(5);

/// What the tasks work on.
pub(super) struct Tasks {
    pub(super) core: Arc<Core>,
    pub(super) identity: Identity,
    pub(super) ways: Ways,
    /// Of the root.
    pub(super) events: Events,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) outgoing: FromTree,
    pub(super) endpoint: Arc<Streams>,
    /// What the streams, and the datagram socket, want sent.
    pub(super) streams: Arc<PacketQueue>,
    pub(super) datagrams: Arc<PacketQueue>,
    pub(super) listener: Option<Listener>,
    pub(super) bootstrap: Vec<String>,
    /// If they are taken.
    pub(super) originals: Option<originals::Tasks>,
    pub(super) dialler: Dialler,
    pub(super) peer_timeout: Duration,
}

/// Runs until the root or the overlay is closed. Dropping the future ends everything at once.
pub(super) async fn run(mut tasks: Tasks) {
    let core = tasks.core.clone();
    let mut running = JoinSet::new();
    running.spawn(core.clone().keep_time());
    running.spawn(pass_signals(core.clone(), tasks.outgoing));
    running.spawn(pass_packets(core.clone(), Kind::Stream, tasks.streams));
    running.spawn(pass_packets(core.clone(), Kind::Datagram, tasks.datagrams));
    for url in tasks.bootstrap {
        let (core, dialler, identity) = (core.clone(), tasks.dialler.clone(), tasks.identity.clone());
        running.spawn(bootstrap(core, dialler, url, identity, tasks.peer_timeout));
    }
    if let Some(listener) = tasks.listener {
        running.spawn(listen(core.clone(), listener));
    }
    if let Some(originals) = tasks.originals {
        running.spawn(originals::run(core.clone(), tasks.dialler, originals));
    }
    let mut nodes =
        Nodes { core: core.clone(), ways: tasks.ways.clone(), calls: HashMap::new(), endpoint: tasks.endpoint.clone() };
    for node in tasks.ways.overlay.peers() {
        nodes.opened(&node, &mut running);
    }
    loop {
        tokio::select! {
            event = tasks.events.next() => match event {
                // Without its node it can make no connections.
                Some(Event::Close { node, .. }) if node == tasks.ways.overlay => break,
                Some(event) => nodes.event(event, &mut running),
                None => break,
            },
            Some(wish) = tasks.wishes.recv() => nodes.wish(wish, &mut running),
            Some(ended) = running.join_next() => match ended {
                Err(error) if error.is_panic() => {
                    tracing::error!(%error, "a task of the overlay has panicked: the overlay is closed");
                    break;
                }
                _ => {}
            }
        }
    }
    core.close();
    tasks.endpoint.shut();
}

/// The nodes of the tree, as neighbours.
struct Nodes {
    core: Arc<Core>,
    ways: Ways,
    endpoint: Arc<Streams>,
    /// Connections that the routing wishes for.
    calls: HashMap<OverlayId, AbortHandle>,
}

impl Nodes {
    fn event(&mut self, event: Event, running: &mut JoinSet<()>) {
        if matches!(event, Event::Connection { .. } | Event::Close { .. } | Event::Lagged(_)) {
            self.ways.look(&self.core);
        }
        match event {
            Event::Open { node } => self.opened(&node, running),
            Event::Close { node, .. } => self.core.forget(&node),
            Event::Lagged(_) => {
                let nodes = self.ways.overlay.peers();
                self.core.forget_others(&nodes.iter().map(Node::id).collect());
                for node in nodes {
                    self.opened(&node, running);
                }
            }
            _ => {}
        }
    }

    /// Makes a neighbour of an open node, unless it is one.
    fn opened(&mut self, node: &Node, running: &mut JoinSet<()>) {
        if !node.is_open() || self.core.is_linked(node) {
            return;
        }
        let Some(link) = link_over(node) else {
            // An original, or an onramp.
            return self.ways.look(&self.core);
        };
        let routed = node.via() == Some(self.ways.overlay.id());
        let serving = serve(self.core.clone(), link, Reach::Node { node: node.clone(), routed });
        running.spawn(serve_node(self.core.clone(), self.ways.clone(), node.clone(), routed, serving));
    }

    fn wish(&mut self, wish: Wish, running: &mut JoinSet<()>) {
        self.calls.retain(|_, call| !call.is_finished());
        match wish {
            Wish::Connect(peer) => {
                let connect = Connect::to(peer.to_string()).timeout(CONNECT_TIMEOUT);
                let (core, connecting) = (self.core.clone(), self.ways.overlay.connect(connect));
                let call = running.spawn(async move {
                    if let Err(error) = connecting.await {
                        tracing::debug!(%peer, %error, "no connection for the routing");
                    }
                    // The link may come a moment later.
                    sleep(LOOK).await;
                    core.connect_is_over(&peer);
                });
                self.calls.insert(peer, call);
            }
            Wish::Declined(peer) => {
                if let Some(call) = self.calls.remove(&peer) {
                    call.abort();
                    self.core.connect_is_over(&peer);
                }
            }
            Wish::Approach(peer) => {
                let (core, overlay, endpoint) = (self.core.clone(), self.ways.overlay.clone(), self.endpoint.clone());
                running.spawn(approach(core, overlay, endpoint, peer));
            }
            Wish::Close(node) => {
                running.spawn(async move {
                    node.close().await;
                });
            }
        }
    }
}

/// How a first link may come: from URLs that are dialled, by an onramp, or over a node of the application's that is on its way to being
/// open.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) overlay: Node,
    /// Whether there are URLs to begin with, of whatever kind.
    pub(super) has_urls: bool,
}

impl Ways {
    /// Tells the core whether there are any.
    pub(super) fn look(&self, core: &Core) {
        let is_way = |node: &Node| match node.kind() {
            NodeKind::WebSocket => true,
            NodeKind::WebRtc => !node.is_open() && node.via() != Some(self.overlay.id()),
            _ => false,
        };
        // In one go: others look too.
        core.have(|router, _| router.set_joining(self.has_urls || self.overlay.peers().iter().any(is_way)));
    }
}

/// Makes a neighbour of a link, and reads it until its end. Tells whether anything has come over it.
pub(super) fn serve(core: Arc<Core>, link: Link, reach: Reach) -> impl Future<Output = bool> {
    let Link { id, key, sender, mut packets } = link;
    let linked = core.add_link(id, PublicKey::from(key), sender, reach);
    async move {
        let mut ready = Vec::with_capacity(READY);
        let mut is_used = false;
        while let Some(packet) = packets.next().await {
            is_used = true;
            ready.push(packet);
            while ready.len() < READY
                && let Some(Some(packet)) = packets.next().now_or_never()
            {
                ready.push(packet);
            }
            core.count_dropped(core.receive(&linked, &mut ready).hold().await);
        }
        drop(linked);
        is_used
    }
}

/// The link over a node, if its peer has an identity.
fn link_over(node: &Node) -> Option<Link> {
    node.reserved_channel(link::CHANNEL).ok().and_then(Link::over)
}

/// Keeps a link over a node: if it is over and the node is not, the peer may have begun a new overlay.
async fn serve_node(core: Arc<Core>, ways: Ways, node: Node, routed: bool, serving: impl Future<Output = bool>) {
    let mut redial = Redial::new();
    redial.dialled(serving.await);
    loop {
        // Of a node on its way it was to be expected that it would be a neighbour.
        ways.look(&core);
        sleep(redial.pause).await;
        if !node.is_open() {
            return;
        }
        let is_used = match link_over(&node) {
            Some(link) => serve(core.clone(), link, Reach::Node { node: node.clone(), routed }).await,
            None => false,
        };
        redial.dialled(is_used);
    }
}

/// Connects to a peer directly as long as there are streams to it. Without a connection they go over relays.
async fn approach(core: Arc<Core>, overlay: Node, endpoint: Arc<Streams>, peer: OverlayId) {
    let call = core.call(peer);
    let connected = overlay.connect(Connect::to(peer.to_string())).await;
    match connected {
        Ok(node) => {
            core.use_for_streams(&node);
            drop(call);
            while node.is_open() && endpoint.has_dialled(&peer) {
                sleep(STREAM_LOOK).await;
            }
            if core.give_back(&peer, &node) {
                node.close().await;
            }
        }
        Err(error) => tracing::debug!(%peer, %error, "streams stay on relays"),
    }
    core.approach_is_over(&peer);
}

/// Passes what the tree wants to say to other peers on to them.
async fn pass_signals(core: Arc<Core>, mut outgoing: FromTree) {
    while let Some((to, payload)) = outgoing.next().await {
        core.signal(to, &payload);
    }
}

/// Sends packets. Where the first link on the way has no room, all wait, for a moment.
async fn pass_packets(core: Arc<Core>, kind: Kind, packets: Arc<PacketQueue>) {
    let packets = Closing(packets);
    while let Some((to, packet)) = poll_fn(|cx| packets.0.poll_pop(cx)).await {
        let dropped = match core.send(to, kind, packet, None) {
            Ok(outcome) => outcome.hold().await,
            Err(_) => 1,
        };
        core.count_dropped(dropped);
    }
}

/// Closes a queue when nobody takes anything out of it any more.
struct Closing(Arc<PacketQueue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn listen(core: Arc<Core>, mut listener: Listener) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Who comes next may have more luck. The places of those that are idle for ever are taken by the routing.
                Accepted::Pmesh(..) if links.len() >= MAX_LINKS => {}
                Accepted::Pmesh(link, place) => {
                    let serving = serve(core.clone(), *link, Reach::WebSocket);
                    links.spawn(serving.map(|_| drop(place)));
                }
                Accepted::Plain(socket, places) => drop(links.spawn(originals::accept(core.clone(), *socket, places))),
            },
            Some(_) = links.join_next() => {}
        }
    }
}

/// Dials a URL at the start, when there is no neighbour, and from time to time, so that networks that fell apart find each other.
async fn bootstrap(core: Arc<Core>, dialler: Dialler, url: String, identity: Identity, peer_timeout: Duration) {
    let mut redial = Redial::new();
    loop {
        let dialled = websocket::dial(&dialler, &url, &identity, peer_timeout).await;
        redial.dialled(dialled.is_ok());
        core.dialled(&url, dialled.as_ref().err().map(DialError::told));
        match dialled {
            Ok(link) => {
                let id = link.id;
                let mut serving = pin!(serve(core.clone(), link, Reach::WebSocket));
                // Until the two tables have met. Who begins the networks of many would else have a link to all.
                if timeout(STAY, &mut serving).await.is_err() && core.needs(&id) {
                    serving.await;
                }
            }
            Err(error) => tracing::debug!(%error, "no neighbour there"),
        }
        redial.wait(|| core.has_links()).await;
    }
}

/// When a URL is dialled again, or a link over a node made again.
pub(super) struct Redial {
    pause: Duration,
}

impl Redial {
    pub(super) fn new() -> Self {
        Self { pause: REDIAL.0 }
    }

    /// It was done, and there was a link or not.
    pub(super) fn dialled(&mut self, is_ok: bool) {
        self.pause = if is_ok { REDIAL.0 } else { (2 * self.pause).min(REDIAL.1) };
    }

    /// Waits for a while, and on while there is another link, but not for ever.
    pub(super) async fn wait(&self, is_linked: impl Fn() -> bool) {
        sleep(self.pause).await;
        let until = Instant::now() + REJOIN;
        while is_linked() && Instant::now() < until {
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests;
