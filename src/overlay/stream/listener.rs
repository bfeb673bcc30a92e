//! Services by name, and the streams that wait for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;

use super::connection::Stream;
use super::error::ListenError;
use super::request::{Answer, is_name};
use crate::lock::lock;

/// Streams that wait to be accepted by one listener. At the bound, those that dial hear that the peer is busy.
pub const BACKLOG: usize = 64;

/// The services of a peer: one entry for each listener that there is.
#[derive(Debug, Default)]
pub(super) struct Services(Mutex<Option<HashMap<Arc<str>, mpsc::Sender<Stream>>>>);

impl Services {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }

    pub(super) fn listen(self: &Arc<Self>, service: &str) -> Result<Listener, ListenError> {
        if !is_name(service) {
            return Err(ListenError::InvalidName);
        }
        let mut table = lock(&self.0);
        let table = table.as_mut().ok_or(ListenError::Closed)?;
        if table.contains_key(service) {
            return Err(ListenError::InUse);
        }
        let (sender, streams) = mpsc::channel(BACKLOG);
        let service: Arc<str> = service.into();
        table.insert(Arc::clone(&service), sender);
        Ok(Listener { service, streams, services: Arc::downgrade(self) })
    }

    /// A place in the queue of the listener, and the name of the service.
    pub(super) fn place(&self, service: &str) -> Result<(mpsc::OwnedPermit<Stream>, Arc<str>), Answer> {
        let table = lock(&self.0);
        let (service, sender) =
            table.as_ref().and_then(|table| table.get_key_value(service)).ok_or(Answer::NoSuchService)?;
        match sender.clone().try_reserve_owned() {
            Ok(place) => Ok((place, Arc::clone(service))),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Answer::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Answer::NoSuchService),
        }
    }

    /// No stream comes any more, and nobody can listen.
    pub(super) fn close(&self) {
        lock(&self.0).take();
    }
}

/// Accepts the streams that are dialled for a service, see [`Streams::listen`](super::Streams::listen).
///
/// Up to [`BACKLOG`] streams wait to be accepted. Dropping it frees the name and resets those that wait; accepted ones stay.
#[derive(Debug)]
pub struct Listener {
    service: Arc<str>,
    streams: mpsc::Receiver<Stream>,
    services: Weak<Services>,
}

impl Listener {
    /// The next stream, or `None` when streams are closed on this side.
    ///
    /// Cancel safe: no stream is lost when it is dropped.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// The name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(services) = self.services.upgrade()
            && let Some(table) = lock(&services.0).as_mut()
        {
            table.remove(&self.service);
        }
    }
}
