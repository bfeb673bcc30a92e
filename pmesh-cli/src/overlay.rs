//! The overlay of `pmesh peer`: what it tells, and what is sent over it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::Message;
use pmesh::overlay::routing::Row;
use pmesh::overlay::{Overlay, OverlayEvent, OverlayEvents, OverlayId, OverlayMessage, OverlaySendError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::peer::{self, Peer};
use crate::reason;

/// Messages that may wait to be sent. At it, no more commands are read until there is room.
const SENDS: usize = 4096;
/// How long to wait until a message is sent again for which the overlay has no room: those that fill it wait for seconds.
const PAUSE: Duration = Duration::from_millis(50);
/// Seconds that a confirmation may take: the library waits no longer.
const MAX_SECONDS: f64 = 3600.0;
/// Messages that may wait for their confirmation. At it, those behind them wait.
const CONFIRMS: usize = 256;
/// Connect calls and disconnects that may go on at once. At it, further ones are an error.
const CALLS: usize = 256;

/// What a user hears who has no overlay.
pub(crate) const NONE: &str =
    "this peer is in no overlay: start it with --overlay, --listen, --bootstrap or --original";

/// What the user is told of the overlay.
#[derive(Debug)]
pub(crate) enum Notice {
    Ready {
        id: OverlayId,
        listen: Option<SocketAddr>,
    },
    Peer(OverlayId),
    PeerLeft(OverlayId),
    Message(OverlayMessage),
    /// A message for which a confirmation was wanted has arrived.
    Sent(OverlayId),
    /// There is a direct connection to a peer, as was wanted.
    Connected(OverlayId),
    Table(Vec<Row>),
}

struct Send {
    to: OverlayId,
    message: Message,
    confirm: Option<Duration>,
}

/// A peer's part in the overlay.
#[derive(Clone)]
pub(crate) struct Part {
    overlay: Overlay,
    sends: mpsc::Sender<Send>,
    calls: Arc<Semaphore>,
    watching: AbortHandle,
}

impl Part {
    pub(crate) async fn new(peer: &Peer, overlay: Overlay) -> Self {
        notify(peer, Notice::Ready { id: overlay.id(), listen: overlay.local_addr() }).await;
        let (sends, queue) = mpsc::channel(SENDS);
        tokio::spawn(send_all(peer.clone(), overlay.clone(), queue));
        tokio::spawn(read(peer.clone(), overlay.clone()));
        let watching = tokio::spawn(watch(peer.clone(), overlay.clone(), overlay.events())).abort_handle();
        Self { overlay, sends, calls: Arc::new(Semaphore::new(CALLS)), watching }
    }

    /// Ends the overlay.
    pub(crate) async fn close(&self) {
        self.overlay.close().await;
        self.watching.abort();
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Sends a message when it is its turn, and has it confirmed within so many seconds, if any. Waits while too many wait already: all
    /// of them end within their times.
    pub(crate) async fn send(&self, peer: &Peer, to: &str, message: Message, confirm: Option<f64>) {
        let Some(id) = parse(peer, to).await else { return };
        let confirm = match confirm {
            None => None,
            Some(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Some(Duration::from_secs_f64(seconds)),
            Some(_) => {
                let message = format!("confirm is a number of seconds above 0, at most {MAX_SECONDS}");
                return peer.error(Some(to), message).await;
            }
        };
        if self.sends.send(Send { to: id, message, confirm }).await.is_err() {
            peer.error(Some(to), "the overlay is closed").await;
        }
    }

    /// Connects in the background. How that went is a notice.
    pub(crate) async fn connect(&self, peer: &Peer, to: &str) {
        let Some((id, call)) = self.call(peer, to).await else { return };
        let (peer, overlay) = (peer.clone(), self.overlay.clone());
        tokio::spawn(async move {
            if overlay.is_original(&id) {
                match overlay.link_original(id).await {
                    Ok(()) => notify(&peer, Notice::Connected(id)).await,
                    Err(error) => peer.failure(id.to_string(), reason::of_link(&error), error).await,
                }
            } else {
                match overlay.connect(id).await {
                    Ok(_) => notify(&peer, Notice::Connected(id)).await,
                    Err(error) => peer.connect_error(&id.to_string(), error).await,
                }
            }
            drop(call);
        });
    }

    /// Disconnects in the background.
    pub(crate) async fn disconnect(&self, peer: &Peer, from: &str) {
        let Some((id, call)) = self.call(peer, from).await else { return };
        let overlay = self.overlay.clone();
        tokio::spawn(async move {
            overlay.disconnect(&id).await;
            drop(call);
        });
    }

    async fn call(&self, peer: &Peer, id: &str) -> Option<(OverlayId, impl Sized + use<>)> {
        let parsed = parse(peer, id).await?;
        match self.calls.clone().try_acquire_owned() {
            Ok(call) => Some((parsed, call)),
            Err(_) => {
                peer.error(Some(id), "too many calls go on").await;
                None
            }
        }
    }
}

async fn notify(peer: &Peer, notice: Notice) {
    peer.notify(peer::Notice::Overlay(notice)).await;
}

async fn parse(peer: &Peer, id: &str) -> Option<OverlayId> {
    match id.parse() {
        Ok(id) => Some(id),
        Err(error) => {
            peer.error(Some(id), error).await;
            None
        }
    }
}

async fn send_all(peer: Peer, overlay: Overlay, mut queue: mpsc::Receiver<Send>) {
    let confirms = Arc::new(Semaphore::new(CONFIRMS));
    while let Some(send) = queue.recv().await {
        if send.confirm.is_none() {
            if let Err(error) = try_send(&overlay, &send).await {
                peer.failure(send.to.to_string(), reason::of_overlay_send(&error), error).await;
            }
            continue;
        }
        let place = confirms.clone().acquire_owned().await;
        let (peer, overlay) = (peer.clone(), overlay.clone());
        tokio::spawn(async move {
            match try_send(&overlay, &send).await {
                Ok(()) => notify(&peer, Notice::Sent(send.to)).await,
                Err(error) => peer.failure(send.to.to_string(), reason::of_overlay_send(&error), error).await,
            }
            drop(place);
        });
    }
}

/// Sends a message as soon as the overlay has room for it.
async fn try_send(overlay: &Overlay, Send { to, message, confirm }: &Send) -> Result<(), OverlaySendError> {
    loop {
        let sent = match confirm {
            None => overlay.send(*to, message.clone()).await,
            Some(within) => overlay.send_confirmed(*to, message.clone(), *within).await,
        };
        if sent != Err(OverlaySendError::Full) {
            return sent;
        }
        sleep(PAUSE).await;
    }
}

/// Tells who comes and goes.
async fn watch(peer: Peer, overlay: Overlay, mut events: OverlayEvents) {
    let mut known = HashSet::new();
    let mut event = Some(OverlayEvent::Lagged(0));
    while let Some(happened) = event {
        match happened {
            OverlayEvent::NeighbourUp(id) if known.insert(id) => notify(&peer, Notice::Peer(id)).await,
            OverlayEvent::NeighbourDown(id) if known.remove(&id) => notify(&peer, Notice::PeerLeft(id)).await,
            OverlayEvent::Undelivered { to, why, messages } => {
                let text = if messages == 1 { why.to_string() } else { format!("{why}: {messages} messages") };
                peer.failure(to.to_string(), reason::of_overlay_send(&why), text).await;
            }
            OverlayEvent::BootstrapFailed { url, why } => {
                peer.failure(url, reason::of_bootstrap(&why), reason::told_bootstrap(&why)).await;
            }
            OverlayEvent::Lagged(_) => {
                let now: HashSet<OverlayId> = overlay.neighbours().into_iter().collect();
                for id in known.difference(&now) {
                    notify(&peer, Notice::PeerLeft(*id)).await;
                }
                for id in now.difference(&known) {
                    notify(&peer, Notice::Peer(*id)).await;
                }
                known = now;
            }
            _ => {}
        }
        event = events.next().await;
    }
}

async fn read(peer: Peer, overlay: Overlay) {
    let mut messages = overlay.messages();
    while let Some(message) = messages.next().await {
        if peer.args.echo
            && let Err(error) = overlay.send(message.from, message.message.clone()).await
        {
            peer.failure(message.from.to_string(), reason::of_overlay_send(&error), error).await;
        }
        notify(&peer, Notice::Message(message)).await;
    }
}
