//! Streams of bytes between two ids: reliable, flow-controlled, many for each pair, encrypted and authenticated from end to end.
//!
//! They are those of QUIC (RFC 9000), whose packets the overlay carries; an id is an address of QUIC. So nothing changes for a stream
//! when its packets take another way: over relays, directly, and back. Both sides prove their Ed25519 keys in TLS 1.3 (raw public keys,
//! RFC 7250), and an id is a hash of the key, so relays can neither read nor forge.
//!
//! Each side has at most one connection to a peer for what it dials, and at most one for what it is dialled for.

mod code;
mod config;
mod connection;
mod error;
mod incoming;
mod listener;
mod outgoing;
mod request;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::{Endpoint, TokioRuntime};
use tokio::time::timeout;

pub use self::connection::Stream;
pub use self::error::{DialError, ListenError};
pub use self::listener::{BACKLOG, Listener};
pub use self::request::MAX_SERVICE_NAME;

use self::incoming::Incoming;
use self::outgoing::Pool;
use self::socket::Socket;
use super::OverlayId;
use super::packets::PacketPort;
use crate::identity::Identity;

/// Connections to peers that we dial, and as many of peers that dial us. At the bound, [`Streams::dial`] fails with
/// [`DialError::TooManyPeers`], and others that dial get [`DialError::Busy`]. Each holds at most 8 MiB that is not read and 4 MiB that is
/// not acknowledged.
pub const MAX_CONNECTIONS: usize = 256;

/// How long dialling may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes and takes streams on a port. Dropping it closes all of them at once.
#[derive(Debug)]
pub struct Streams {
    id: OverlayId,
    endpoint: Endpoint,
    incoming: Arc<Incoming>,
    pool: Arc<Pool>,
    /// Whether there were links, or some about to be, when it was shut.
    had_links: OnceLock<bool>,
}

impl Streams {
    /// Streams of this identity on a port, which is to have its id. Nobody else should receive from the port.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn new(identity: &Identity, port: Arc<dyn PacketPort>) -> Self {
        let id = port.id();
        let endpoint = Endpoint::new_with_abstract_socket(
            config::endpoint(identity),
            Some(config::server(identity, incoming::MAX_HANDSHAKES)),
            Arc::new(Socket(port)),
            Arc::new(TokioRuntime),
        )
        .expect("the socket has an address");
        let incoming = Arc::new(Incoming::new());
        tokio::spawn(incoming::accept(endpoint.clone(), Arc::clone(&incoming)));
        let pool = Arc::new(Pool::new(endpoint.clone(), config::client(identity)));
        Self { id, endpoint, incoming, pool, had_links: OnceLock::new() }
    }

    /// Listens for streams that others dial for this service.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn listen(&self, service: &str) -> Result<Listener, ListenError> {
        self.incoming.services.listen(service)
    }

    /// Makes a stream to a service of a peer. It is there when the peer's listener has a place for it, as with TCP.
    ///
    /// Takes at most 20 seconds. The first stream to a peer makes a connection, which the others share, and which is closed when it had
    /// no stream for 30 seconds. Cancel safe: dropping it resets the stream.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn dial(&self, to: OverlayId, service: &str) -> Result<Stream, DialError> {
        if !request::is_name(service) {
            return Err(DialError::InvalidName);
        }
        if to == self.id {
            return Err(DialError::OwnId);
        }
        timeout(DIAL_TIMEOUT, self.pool.dial(to, service)).await.unwrap_or(Err(DialError::TimedOut))
    }

    /// Whether there is a connection for streams that we dial to this peer, or somebody makes one.
    pub fn has_dialled(&self, peer: &OverlayId) -> bool {
        self.pool.has(peer)
    }

    /// Closes all streams and listeners, and tells the peers. Waits until that is done, for at most 3 seconds. What streams have not
    /// delivered is lost. May be called again, and dropped: it goes on.
    pub async fn close(&self) {
        self.shut();
        // A connection that was being made has nothing to lose, and would be waited for the longest.
        if self.had_links.get() == Some(&true) {
            let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        }
    }

    /// Begins what [`close`](Self::close) does.
    pub(crate) fn shut(&self) {
        self.had_links.get_or_init(|| self.pool.has_links() || self.incoming.has_links());
        self.incoming.services.close();
        self.endpoint.close(code::DONE, b"");
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shut();
    }
}
