//! WebRTC links, on the `webrtc` crate. Nothing outside this module names it.
//!
//! ```text
//! Link handle --commands--> link task (owns the connection) <--mailbox-- callbacks of the crate
//!                               |                                             ^
//!                               +--attaches--> driver task: writer, driver, reader
//! ```
//!
//! - `link`: the task of one link: negotiates, opens, closes.
//! - `mailbox`: what the crate's callbacks and the pump tell the link task. Never blocks, never loses an end.
//! - `session`: builds and describes a connection.
//! - `pump`: carries messages between the pipe and the data channels.
//! - `runtime`: runs the pump in the task of the crate's driver.
//! - `wakes`: which part of the driver task has something to do.
//! - `pace`: how long the driver sleeps, and how much it takes at once.
//! - `socket`: sockets with large buffers in the system, and the credit that fits them.
//! - `receive`: receiving without a buffer for each socket.
//! - `addresses`: what to bind.
//! - `shared`: one port for all links of a root, if it is to be so.

mod addresses;
mod link;
mod mailbox;
mod pace;
mod pump;
mod receive;
mod runtime;
mod session;
mod shared;
mod socket;
#[cfg(test)]
mod tests;
mod wakes;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

pub(crate) use self::socket::credit_window;

use self::mailbox::Mailbox;
use self::shared::SharedPorts;
use super::{Command, Link, Pipe, Target, Transport};
use crate::error::CloseReason;

/// Commands that may wait for one link. At it, the link ends with [`CloseReason::Protocol`].
const MAX_COMMANDS: usize = 128;

/// A STUN or TURN server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port`, `turn:host:port`. TURN goes over UDP only; others are skipped with a warning.
    pub urls: Vec<String>,
    /// Empty for STUN.
    pub username: String,
    /// Empty for STUN.
    pub credential: String,
}

/// Says which local addresses may be bound and offered.
pub(crate) type AddressFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How WebRTC links are made.
#[derive(Clone)]
pub(crate) struct WebRtcConfig {
    /// Servers to learn further candidates from. Without any, the description holds all candidates.
    pub(crate) ice_servers: Vec<IceServer>,
    /// What to bind. A wildcard stands for every interface of its family except loopback and link-local.
    pub(crate) bind: Vec<SocketAddr>,
    /// Bind 127.0.0.1 besides, so that peers on this machine find each other without a network.
    pub(crate) include_loopback: bool,
    /// Use one port with this number for all links, 0 for any, instead of ports of their own.
    pub(crate) shared_port: Option<u16>,
    /// The ports that are shared. Made by [`WebRtc::new`].
    ports: Option<Arc<SharedPorts>>,
    /// Keeps an address from being bound and offered if it says false.
    pub(crate) address_filter: Option<AddressFilter>,
    /// Resolve `.local` candidates, which browsers send. Costs one socket for each link to what may be a browser.
    pub(crate) mdns: bool,
    /// Silence after which ICE counts as disconnected.
    pub(crate) disconnected_after: Duration,
    /// Further silence after which the link ends.
    pub(crate) failed_after: Duration,
    /// Pause between keepalives of an idle link.
    pub(crate) keepalive: Duration,
    #[cfg(test)]
    pub(crate) loss: Option<Arc<tests::Loss>>,
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        Self {
            ice_servers: Vec::new(),
            bind: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            include_loopback: false,
            shared_port: None,
            ports: None,
            address_filter: None,
            mdns: true,
            disconnected_after: Duration::from_secs(10),
            failed_after: Duration::from_secs(5),
            keepalive: Duration::from_secs(5),
            #[cfg(test)]
            loss: None,
        }
    }
}

impl fmt::Debug for WebRtcConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebRtcConfig")
            .field("ice_servers", &self.ice_servers.len())
            .field("bind", &self.bind)
            .field("include_loopback", &self.include_loopback)
            .field("shared_port", &self.shared_port)
            .field("mdns", &self.mdns)
            .finish_non_exhaustive()
    }
}

/// Makes WebRTC links: [`Target::Offer`] and [`Target::Answer`]. Must be used within a tokio runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct WebRtc {
    config: Arc<WebRtcConfig>,
}

impl WebRtc {
    /// A transport with this configuration.
    pub(crate) fn new(mut config: WebRtcConfig) -> Self {
        config.ports = config.shared_port.map(|number| Arc::new(SharedPorts::new(number)));
        Self { config: Arc::new(config) }
    }
}

impl Transport for WebRtc {
    fn start(&self, target: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let mailbox = Mailbox::new();
        tokio::spawn(link::run(self.config.clone(), target, pipe, receiver, mailbox.clone()));
        Box::new(Handle { commands, mailbox })
    }
}

/// Dropping it closes the command channel, which ends the link task.
struct Handle {
    /// Boxed, since the channel keeps room for dozens.
    commands: mpsc::Sender<Box<Command>>,
    mailbox: Arc<Mailbox>,
}

impl Link for Handle {
    fn command(&self, command: Command) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(Box::new(command)) {
            self.mailbox.end(CloseReason::Protocol(format!("more than {MAX_COMMANDS} signals at once")));
        }
    }
}
