//! Connections that others make, and the streams on them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::code;
use super::connection::{Stream, Usage};
use super::listener::Services;
use super::request::{Answer, read_request};
use super::{MAX_CONNECTIONS, socket, tls};
use crate::identity::PeerId;
use crate::lock::lock;
use crate::overlay::OverlayId;

/// Handshakes that others make with us at once. At the bound they hear that we are busy.
pub(super) const MAX_HANDSHAKES: usize = 64;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the first bytes of a stream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an incoming connection may be without a stream. Longer than [that of the other side](super::outgoing::IDLE), after which the side that has made it
/// closes it, so that it does not dial on one that we close.
const IDLE: Duration = Duration::from_secs(45);

/// What the tasks of all connections share.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) services: Arc<Services>,
    /// The newest connection of each peer, of those that have a task.
    newest: Mutex<HashMap<OverlayId, Connection>>,
    handshakes: Arc<Semaphore>,
}

impl Incoming {
    pub(super) fn new() -> Self {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        Self { services: Arc::new(Services::new()), newest: Mutex::default(), handshakes }
    }

    /// Whether somebody has a connection to us, or makes one.
    pub(super) fn has_links(&self) -> bool {
        self.handshakes.available_permits() < MAX_HANDSHAKES || !lock(&self.newest).is_empty()
    }
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, shared: Arc<Incoming>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                match Arc::clone(&shared.handshakes).try_acquire_owned() {
                    Ok(permit) if connections.len() < MAX_CONNECTIONS => {
                        connections.spawn(serve(Arc::clone(&shared), incoming, permit));
                    }
                    _ => incoming.refuse(),
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
    // They would stay as long as the handle does.
    lock(&shared.newest).clear();
}

async fn serve(shared: Arc<Incoming>, incoming: quinn::Incoming, handshake: OwnedSemaphorePermit) {
    let Some(from) = socket::id(&incoming.remote_address()) else { return incoming.ignore() };
    let Ok(Ok(connection)) = timeout(HANDSHAKE_TIMEOUT, incoming.into_future()).await else { return };
    let Some(peer) = tls::peer(&connection).filter(|peer| OverlayId::of(peer) == from) else {
        tracing::debug!(%from, "a connection with the key of another id");
        return connection.close(code::NOT_AUTHENTIC, b"");
    };
    drop(handshake);
    // A peer makes one at a time: it knows that the one before is over, even if we do not.
    if let Some(older) = lock(&shared.newest).insert(from, connection.clone()) {
        older.close(code::REPLACED, b"");
    }
    streams(&shared, &connection, peer, from).await;
    if let Entry::Occupied(newest) = lock(&shared.newest).entry(from)
        && newest.get().stable_id() == connection.stable_id()
    {
        newest.remove();
    }
}

/// Answers requests until the connection is over, or idle.
async fn streams(shared: &Arc<Incoming>, connection: &Connection, peer: PeerId, from: OverlayId) {
    let usage = Usage::new();
    // No more than `MAX_STREAMS` of them.
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => {
                let Ok((send, recv)) = opened else { return };
                requests.spawn(request(Arc::clone(shared), usage.clone(), send, recv, peer, from));
            }
            Some(_) = requests.join_next() => {}
            () = usage.idle(IDLE) => return connection.close(code::DONE, b""),
        }
    }
}

async fn request(
    shared: Arc<Incoming>,
    usage: Usage,
    mut send: SendStream,
    mut recv: RecvStream,
    peer: PeerId,
    id: OverlayId,
) {
    let in_use = Some(usage.enter());
    let Ok(Ok(service)) = timeout(REQUEST_TIMEOUT, read_request(&mut recv)).await else {
        let _ = send.reset(code::NO_REQUEST);
        return;
    };
    match shared.services.place(&service) {
        Ok((place, service)) => {
            if send.write_all(&[Answer::Accepted.byte()]).await.is_ok() {
                place.send(Stream { send, recv, peer, id, service, in_use, finished: false });
            }
        }
        // Dropping the streams finishes one and stops the other.
        Err(answer) => {
            let _ = send.write_all(&[answer.byte()]).await;
        }
    }
}
