//! Connections that we make: one for each peer, shared by all streams that we dial to it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint, ReadError, ReadExactError, WriteError};
use tokio::sync::OnceCell;

use super::code;
use super::connection::{Stream, Usage};
use super::error::DialError;
use super::request::{Answer, request};
use super::{MAX_CONNECTIONS, socket, tls};
use crate::identity::PeerId;
use crate::lock::lock;
use crate::overlay::OverlayId;

/// How long a connection that we have made stays open without a stream.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// An open connection to a peer.
#[derive(Debug)]
struct Link {
    connection: Connection,
    peer: PeerId,
    usage: Usage,
}

/// A link that is there, or that somebody makes.
type Slot = Arc<OnceCell<Link>>;

/// The links to those that we have dialled. An entry is there while somebody dials, and while the link is open.
#[derive(Debug)]
pub(super) struct Pool {
    endpoint: Endpoint,
    config: ClientConfig,
    slots: Mutex<HashMap<OverlayId, Slot>>,
}

/// Somebody dials with a slot. Dropping it frees the slot if nobody else does and no link came of it.
struct Use<'a> {
    pool: &'a Pool,
    id: OverlayId,
    slot: Slot,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut slots = lock(&self.pool.slots);
        // Ours and that in the table. Others are made under the lock only.
        if !self.slot.initialized() && Arc::strong_count(&self.slot) <= 2 {
            remove(&mut slots, &self.id, &self.slot);
        }
    }
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint, config: ClientConfig) -> Self {
        Self { endpoint, config, slots: Mutex::default() }
    }

    /// A stream to a service of a peer, on the link there is or on a new one.
    pub(super) async fn dial(self: &Arc<Self>, to: OverlayId, service: &str) -> Result<Stream, DialError> {
        loop {
            let used = self.take(to)?;
            let is_new = !used.slot.initialized();
            let link = used.slot.get_or_try_init(|| self.connect(to, &used.slot)).await?;
            match link.open(to, service).await {
                // The peer has restarted, or the link was about to be closed as idle. A new one is not.
                Err(Failure::Lost(_)) if !is_new => self.forget(&to, &used.slot),
                Err(Failure::Lost(error)) => return Err(error),
                Err(Failure::Refused(error)) => return Err(error),
                Ok(stream) => return Ok(stream),
            }
        }
    }

    /// Whether there is a link to this peer, or somebody makes one.
    pub(super) fn has(&self, peer: &OverlayId) -> bool {
        lock(&self.slots).contains_key(peer)
    }

    /// Whether there is a link to anybody.
    pub(super) fn has_links(&self) -> bool {
        lock(&self.slots).values().any(|slot| slot.initialized())
    }

    /// To how many peers there is a link, or somebody makes one.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.slots).len()
    }

    fn take(&self, to: OverlayId) -> Result<Use<'_>, DialError> {
        let mut slots = lock(&self.slots);
        let has_room = slots.len() < MAX_CONNECTIONS;
        let slot = match slots.entry(to) {
            Entry::Occupied(slot) => Arc::clone(slot.get()),
            Entry::Vacant(slot) if has_room => Arc::clone(slot.insert(Slot::default())),
            Entry::Vacant(_) => return Err(DialError::TooManyPeers),
        };
        Ok(Use { pool: self, id: to, slot })
    }

    fn forget(&self, id: &OverlayId, slot: &Slot) {
        remove(&mut lock(&self.slots), id, slot);
    }

    async fn connect(self: &Arc<Self>, to: OverlayId, slot: &Slot) -> Result<Link, DialError> {
        let connecting = self.endpoint.connect_with(self.config.clone(), socket::address(&to), &tls::name(&to))?;
        let connection = connecting.await?;
        let peer = tls::peer(&connection).ok_or(DialError::NotAuthentic)?;
        let usage = Usage::new();
        tokio::spawn(watch(Arc::clone(self), to, Arc::clone(slot), connection.clone(), usage.clone()));
        Ok(Link { connection, peer, usage })
    }
}

fn remove(slots: &mut HashMap<OverlayId, Slot>, id: &OverlayId, slot: &Slot) {
    if slots.get(id).is_some_and(|current| Arc::ptr_eq(current, slot)) {
        slots.remove(id);
    }
}

/// Closes a link that is idle, and forgets it when it is over.
async fn watch(pool: Arc<Pool>, id: OverlayId, slot: Slot, connection: Connection, usage: Usage) {
    let is_idle = tokio::select! {
        _ = connection.closed() => false,
        () = usage.idle(IDLE) => true,
    };
    pool.forget(&id, &slot);
    // Closing it twice would hide from its streams why it is over.
    if is_idle {
        connection.close(code::DONE, b"");
    }
}

/// Why a stream was not opened.
enum Failure {
    /// The link is over.
    Lost(DialError),
    /// The peer says so.
    Refused(DialError),
}

impl<E: Into<DialError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

impl Link {
    async fn open(&self, id: OverlayId, service: &str) -> Result<Stream, Failure> {
        let in_use = Some(self.usage.enter());
        let (send, recv) = self.connection.open_bi().await?;
        // From here on it is reset if this is dropped.
        let mut stream = Stream { send, recv, peer: self.peer, id, service: service.into(), in_use, finished: false };
        stream.send.write_all(&request(service)).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => Failure::from(error),
            _ => Failure::Refused(DialError::Lost),
        })?;
        let mut answer = [0];
        stream.recv.read_exact(&mut answer).await.map_err(|error| match error {
            ReadExactError::ReadError(ReadError::ConnectionLost(error)) => Failure::from(error),
            _ => Failure::Refused(DialError::Lost),
        })?;
        Answer::check(answer[0]).map_err(Failure::Refused)?;
        Ok(stream)
    }
}
