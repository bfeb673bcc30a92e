//! Settings of a root.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::firewall::{Firewall, Policy};
use super::root::{MAX_TIMEOUT, NodeSettings, Root};
use crate::identity::Identity;
use crate::protocol::limits::MAX_MESSAGE_BYTES;
use crate::transport::Transport;
use crate::transport::webrtc::{IceServer, WebRtc, WebRtcConfig, credit_window};
use crate::transport::websocket::{Dialler, WebSocket};

/// Three of the shortest signs of life.
const MIN_PEER_TIMEOUT: Duration = Duration::from_millis(300);

/// Settings of a root. Made by [`Root::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RootBuilder {
    policy: Policy,
    connect_timeout: Duration,
    accept_timeout: Duration,
    max_message: usize,
    webrtc: WebRtcConfig,
    certificates: Vec<Vec<u8>>,
    identity: Option<Identity>,
    require_identity: bool,
}

impl Default for RootBuilder {
    fn default() -> Self {
        Self {
            policy: Policy::accept_all(),
            connect_timeout: Duration::from_secs(30),
            accept_timeout: Duration::from_secs(30),
            max_message: MAX_MESSAGE_BYTES,
            webrtc: WebRtcConfig::default(),
            certificates: Vec::new(),
            identity: None,
            require_identity: false,
        }
    }
}

impl RootBuilder {
    /// Decides on the offers that come in, through any node at any depth, unless a connect call says otherwise. Accepts all
    /// by default.
    pub fn firewall(mut self, firewall: impl Firewall) -> Self {
        self.policy = Policy::new(firewall);
        self
    }

    /// Who the root is. By default a new identity for each root. Roots with the same identity cannot connect to each other.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Whether to turn peers away that do not prove who they are: original Ps, and all who pass for one because an
    /// introducer has removed the proof. Off by default. Connect calls then fail with
    /// [`NoIdentity`](crate::ConnectError::NoIdentity).
    pub fn require_identity(mut self, require: bool) -> Self {
        self.require_identity = require;
        self
    }

    /// STUN and TURN servers, by which peers behind NATs find each other. None by default: the project has no servers.
    pub fn ice_servers(mut self, servers: impl IntoIterator<Item = IceServer>) -> Self {
        self.webrtc.ice_servers = servers.into_iter().collect();
        self
    }

    /// Lets peers on the same machine connect over 127.0.0.1. Off by default.
    pub fn loopback(mut self, loopback: bool) -> Self {
        self.webrtc.include_loopback = loopback;
        self
    }

    /// The local addresses that WebRTC binds, one socket each for every peer. By default the wildcards, which stand for
    /// every interface but loopback; port 0 is any free port.
    pub fn bind(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.webrtc.bind = addresses.into_iter().collect();
        self
    }

    /// Uses one UDP port for all peers, on each local address, instead of one port for each peer: for hosts behind a
    /// firewall, and for roots with thousands of peers. `0` is any free port; the ports in [`bind`](Self::bind) do not
    /// count then. Off by default.
    ///
    /// It saves a socket and its system buffers for each peer, and costs a task that reads for all, with buffers of half
    /// a megabyte for each local address. While the connection to one peer is not served, up to twice the receive window
    /// is held for it (at most 2 MiB); what comes beyond is lost to that peer only. The system's buffer is one for all:
    /// where many send at once, let it be large (on Linux `net.core.rmem_max`, 4 MiB). Between two shared ports there can
    /// be one connection at a time: while one is open, a second one, as to the same peer under the address that another
    /// onramp gave it, does not open, and fails. A peer that was started anew on the same port can be reached again after
    /// 12 seconds.
    ///
    /// The port is bound when the first connection is made, and closed when the root and its connections are gone. While
    /// it is taken by somebody else, connections fail with [`CloseReason::Failed`](crate::CloseReason::Failed), which says
    /// so, and the next one tries again. Not shared are the sockets for TURN servers and for mDNS.
    pub fn shared_port(mut self, port: u16) -> Self {
        self.webrtc.shared_port = Some(port);
        self
    }

    /// Keeps local addresses for which the closure says `false` from being bound and told to peers.
    pub fn address_filter(mut self, filter: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.webrtc.address_filter = Some(Arc::new(filter));
        self
    }

    /// Whether to resolve the `.local` names behind which browsers hide their addresses (mDNS). On by default.
    pub fn mdns(mut self, mdns: bool) -> Self {
        self.webrtc.mdns = mdns;
        self
    }

    /// After how much silence a peer counts as lost: 15 seconds by default, 300 milliseconds at least. An idle link sends a
    /// sign of life after a third of it, and after 5 seconds at the latest.
    ///
    /// It bounds the set-up too: a connection for which the two find no path within this time fails.
    pub fn peer_timeout(mut self, timeout: Duration) -> Self {
        // Zero would mean never to the crate.
        let timeout = timeout.max(MIN_PEER_TIMEOUT);
        self.webrtc.failed_after = timeout / 3;
        self.webrtc.disconnected_after = timeout - timeout / 3;
        self.webrtc.keepalive = (timeout / 3).clamp(Duration::from_millis(100), Duration::from_secs(5));
        self
    }

    /// How long a connect call may take until the connection is open: 30 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the firewall may take for an offer, and how long the connection may then take until it is open: 30 seconds
    /// each by default.
    pub fn accept_timeout(mut self, timeout: Duration) -> Self {
        self.accept_timeout = timeout;
        self
    }

    /// The largest message that is sent or taken, in bytes: 16 MiB by default. A peer that sends a larger one is cut off.
    ///
    /// Parts of a message that is not complete are kept in memory, for each reader: so much on the main channel, and on each
    /// of up to 64 named ones that messages have begun on and that somebody reads.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// A certificate authority (DER) to trust for `wss://` URLs, besides those of the system.
    pub fn trust_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.certificates.push(der.into());
        self
    }

    /// Starts the root.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn build(self) -> Root {
        let websocket = Arc::new(WebSocket::new(self.dialler()));
        let webrtc = Arc::new(WebRtc::new(self.webrtc.clone()));
        self.build_with(websocket, webrtc)
    }

    fn dialler(&self) -> Dialler {
        Dialler::new(self.certificates.iter().cloned().map(Into::into).collect())
    }

    pub(crate) fn build_with(self, websocket: Arc<dyn Transport>, webrtc: Arc<dyn Transport>) -> Root {
        let settings = NodeSettings {
            connect_timeout: self.connect_timeout,
            accept_timeout: self.accept_timeout.min(MAX_TIMEOUT),
            window: credit_window(),
            max_message: self.max_message,
            dialler: self.dialler(),
            identity: self.identity.unwrap_or_else(Identity::generate),
            require_identity: self.require_identity,
            peer_timeout: self.webrtc.disconnected_after + self.webrtc.failed_after,
        };
        Root::start(settings, self.policy, websocket, webrtc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peer_timeout_means_never() {
        for timeout in [Duration::ZERO, Duration::from_nanos(2), Duration::from_secs(9)] {
            let webrtc = RootBuilder::default().peer_timeout(timeout).webrtc;
            assert_eq!(webrtc.disconnected_after + webrtc.failed_after, timeout.max(MIN_PEER_TIMEOUT));
            assert!(webrtc.keepalive <= webrtc.failed_after && !webrtc.failed_after.is_zero());
        }
    }
}
