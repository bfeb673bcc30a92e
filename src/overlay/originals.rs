//! Originals of peer-relay as neighbours: the settings, and the tasks that make links and read them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;

use super::OverlayId;
use super::compat::peer_relay::{Link, LinkError, dial_by, introduce};
use super::core::{Core, Dial, Reach, Reserved};
use super::error::BootstrapFailure;
use super::link::places::Place;
use super::link::websocket;
use super::tasks::{Redial, serve};
use crate::identity::Identity;
use crate::transport::socket::Socket;
use crate::transport::websocket::Dialler;

/// How an overlay gets on with peers of the original peer-relay, see
/// [`OverlayBuilder::compat_peer_relay`](super::OverlayBuilder::compat_peer_relay).
///
/// ```
/// let mut compat = pmesh::overlay::PeerRelayCompat::default();
/// compat.bootstrap = vec!["ws://localhost:8001".to_owned()];
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerRelayCompat {
    /// WebSocket URLs of originals, to begin with. They are dialled at the start, while there is no link to an original, and from time
    /// to time.
    /// There must be originals: what listens for pmesh peers goes to [`bootstrap`](super::OverlayBuilder::bootstrap).
    pub bootstrap: Vec<String>,
    /// The URL that originals are told if they ask how to connect to this peer. If there is none, it is that of the
    /// address at which the overlay listens, unless that stands for all addresses of the machine. An original that asked and was told
    /// none can connect to one peer less of its own accord until it starts anew.
    pub url: Option<String>,
    /// Whether URLs that originals answer with are dialled: to connect to the peers that originals name, up to 15, and by
    /// [`Overlay::link_original`](super::Overlay::link_original).
    ///
    /// A stranger chooses the host, the port and the path, so by this it can have connections opened within the network in which
    /// this peer is, and learn by what follows whether something is there. Off by default.
    pub dial_answers: bool,
}

/// What the tasks work on.
pub(super) struct Tasks {
    pub(super) bootstrap: Vec<String>,
    pub(super) dials: mpsc::Receiver<Dial>,
    pub(super) identity: Identity,
    pub(super) peer_timeout: Duration,
}

/// Connects to originals. Dropping the future ends these links.
pub(super) async fn run(core: Arc<Core>, dialler: Dialler, mut tasks: Tasks) {
    let mut links = JoinSet::new();
    for url in tasks.bootstrap {
        links.spawn(bootstrap(core.clone(), dialler.clone(), url));
    }
    loop {
        tokio::select! {
            Some(dial) = tasks.dials.recv() => {
                let identity = tasks.identity.clone();
                links.spawn(answer(core.clone(), dialler.clone(), identity, tasks.peer_timeout, dial));
            }
            Some(_) = links.join_next() => {}
            else => break,
        }
    }
}

/// Takes a WebSocket that an original has made. It keeps the places of its address as long as it is there.
pub(super) async fn accept(core: Arc<Core>, socket: WebSocketStream<Socket>, places: [Place; 2]) {
    let id = core.id();
    let mut reserved = None;
    let link = introduce(socket, &id, |claimed| reserve(&core, claimed, &mut reserved)).await;
    read(&core, link, reserved).await;
    drop(places);
}

/// Dials what an original has answered with, or a pmesh peer that originals have named.
async fn answer(core: Arc<Core>, dialler: Dialler, identity: Identity, peer_timeout: Duration, dial: Dial) {
    let Dial { peer, url, pmesh } = dial;
    if pmesh {
        return match websocket::dial(&dialler, &url, &identity, peer_timeout).await {
            Ok(link) if link.id == peer => {
                let serving = serve(core.clone(), link, Reach::WebSocket);
                core.dialled_peer(&peer);
                serving.await;
            }
            _ => core.dial_failed(&peer),
        };
    }
    let id = core.id();
    let mut reserved = None;
    let admit = |claimed: &OverlayId| *claimed == peer && reserve(&core, claimed, &mut reserved);
    let link = dial_by(&dialler, &url, &id, admit).await;
    // One that is not admitted may be there by another link, or soon.
    if matches!(&link, Err(error) if *error != LinkError::NotAdmitted(peer)) {
        drop(reserved.take());
        core.dial_failed(&peer);
    }
    read(&core, link, reserved).await;
}

/// Dials a URL at the start, while there is no link to an original, and from time to time, as networks of originals fall apart.
async fn bootstrap(core: Arc<Core>, dialler: Dialler, url: String) {
    let mut redial = Redial::new();
    loop {
        let id = core.id();
        let mut reserved = None;
        let link = dial_by(&dialler, &url, &id, |claimed| reserve(&core, claimed, &mut reserved)).await;
        redial.dialled(link.is_ok());
        core.dialled(&url, link.as_ref().err().and_then(told));
        read(&core, link, reserved).await;
        redial.wait(|| core.has_originals()).await;
    }
}

/// As the application is told of it. One that is not admitted has a link already.
fn told(error: &LinkError) -> Option<BootstrapFailure> {
    Some(match error {
        LinkError::Failed(why) => BootstrapFailure::Failed(why.clone()),
        LinkError::Denied(denied) => BootstrapFailure::Denied(denied.clone()),
        LinkError::TimedOut => BootstrapFailure::TimedOut,
        LinkError::NoId => BootstrapFailure::NoPeer(error.to_string()),
        LinkError::OwnId => BootstrapFailure::OwnId,
        LinkError::NoRoom => BootstrapFailure::NoRoom,
        LinkError::NotAdmitted(_) => return None,
    })
}

fn reserve(core: &Arc<Core>, claimed: &OverlayId, reserved: &mut Option<Reserved>) -> bool {
    *reserved = core.reserve(*claimed);
    reserved.is_some()
}

/// Makes a neighbour of a link, and reads it until its end.
async fn read(core: &Arc<Core>, link: Result<Link, LinkError>, reserved: Option<Reserved>) {
    let (Link { id, sender, mut receiver }, reserved) = match (link, reserved) {
        (Ok(link), Some(reserved)) => (link, reserved),
        (Err(error), _) => return tracing::debug!(%error, "no link to an original"),
        (Ok(_), None) => return,
    };
    core.original_up(&reserved, sender);
    while let Some(message) = receiver.recv().await {
        core.count_dropped(core.receive_foreign(&id, message).hold().await);
    }
}
