//! One UDP port for all links of a root.
//!
//! ```text
//! link: SharedSocket --sends--> Port (socket, routes) <--reads-- task of the port
//!            ^                                                        |
//!            +--------------------- Inbox <-------- routes -----------+
//! ```
//!
//! - `stun`: tells what a datagram is. Pure.
//! - `routes`: decides which link it is for. Pure.
//! - `inbox`: what a link has still to read.
//! - `port`: the socket, and the task that reads it.
//!
//! The crate insists on binding a socket for each connection. That one is dropped, or kept for TURN alone, and its
//! address stays the name of the shared one within the crate. So the port in our candidates is put right before they go
//! out.

mod inbox;
mod port;
mod routes;
mod stun;

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use rand::distr::{Alphanumeric, SampleString};
use tokio::task::coop;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use self::inbox::Inbox;
use self::port::Port;
use self::routes::LinkKey;
use self::stun::Kind;
use super::receive::LeanSocket;
use super::{WebRtcConfig, addresses, socket};
use crate::lock::lock;

/// Lengths of the ICE credentials: more than the 24 and 128 bits that RFC 8445 asks for.
const USER_CHARACTERS: usize = 16;
const PASSWORD_CHARACTERS: usize = 32;

/// Datagrams that the driver gets at once. It decides the size of two buffers of each link.
const BATCH: usize = 4;

/// The shared ports of a root, one for each local address. They are bound when the first link is made, and closed when
/// the root and all links are gone.
#[derive(Debug)]
pub(super) struct SharedPorts {
    /// 0 for any.
    number: u16,
    ports: Mutex<Vec<Arc<Port>>>,
}

impl SharedPorts {
    pub(super) fn new(number: u16) -> Self {
        Self { number, ports: Mutex::default() }
    }

    /// What a new link uses, which our side offers or answers. Binds what is not bound yet.
    ///
    /// # Errors
    ///
    /// A port is taken, or none can be bound.
    pub(super) fn enter(&self, config: &WebRtcConfig, offered: bool) -> io::Result<LinkPorts> {
        let wanted = addresses::to_bind(config);
        let is_wanted = |port: &Arc<Port>| wanted.iter().any(|wanted| wanted.ip() == port.address().ip());
        let mut ports = lock(&self.ports);
        // An address that the machine has lost is kept as long as links are on it.
        ports.retain(|port| !port.is_broken() && (is_wanted(port) || Arc::strong_count(port) > 1));
        let mut failure = None;
        for &address in &wanted {
            if ports.iter().any(|port| port.address().ip() == address.ip()) {
                continue;
            }
            match self.bind(address, ports.first().map(|port| port.address().port())) {
                Ok(port) => ports.push(Arc::new(port)),
                Err(error) => {
                    let address = numbered(address, self.number);
                    let message = format!("the shared port {address} cannot be bound: {error}");
                    let named = io::Error::new(error.kind(), message);
                    if error.kind() == io::ErrorKind::AddrInUse {
                        return Err(named);
                    }
                    tracing::warn!(error = %named);
                    failure = Some(named);
                }
            }
        }
        let ports: Vec<_> = ports.iter().filter(|port| is_wanted(port)).cloned().collect();
        if let Some(failure) = failure
            && ports.is_empty()
        {
            return Err(failure);
        }
        Ok(LinkPorts {
            user: Alphanumeric.sample_string(&mut rand::rng(), USER_CHARACTERS),
            password: Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_CHARACTERS),
            offered,
            ports,
            relayed: config.ice_servers.iter().flat_map(|server| &server.urls).any(|url| is_turn(url)),
            joined: Mutex::default(),
        })
    }

    /// Without a number of its own, a further address gets that of the first, if it is free there.
    fn bind(&self, address: SocketAddr, first: Option<u16>) -> io::Result<Port> {
        match first {
            Some(first) if self.number == 0 => {
                Port::bind(numbered(address, first)).or_else(|_| Port::bind(numbered(address, 0)))
            }
            _ => Port::bind(numbered(address, self.number)),
        }
    }
}

/// Another port of the same address, with its scope.
fn numbered(mut address: SocketAddr, number: u16) -> SocketAddr {
    address.set_port(number);
    address
}

fn is_turn(url: &str) -> bool {
    url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("turn"))
}

/// A shared port that a link is on.
struct Joined {
    /// By which address the crate knows it.
    name: SocketAddr,
    port: Arc<Port>,
    link: LinkKey,
}

/// The shared ports as one link uses them.
pub(super) struct LinkPorts {
    /// The ICE credentials of the link: requests are routed by the user fragment.
    pub(super) user: String,
    pub(super) password: String,
    /// Whether our side makes the offer.
    offered: bool,
    ports: Vec<Arc<Port>>,
    /// Whether there is a TURN server, which knows a client by its address: each link needs a socket of its own for it.
    relayed: bool,
    joined: Mutex<Vec<Joined>>,
}

impl LinkPorts {
    /// What the crate is to bind: to be replaced by the shared ports.
    pub(super) fn to_bind(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| numbered(port.address(), 0)).collect()
    }

    /// The shared port instead of a socket that the crate has bound.
    ///
    /// # Errors
    ///
    /// There is none for its address, or the system's.
    pub(super) fn replace(&self, bound: UdpSocket) -> io::Result<SharedSocket> {
        let name = bound.local_addr()?;
        let port = self.ports.iter().find(|port| port.address().ip() == name.ip());
        let port = port.ok_or(io::ErrorKind::AddrNotAvailable)?.clone();
        let relay = if self.relayed { Some(LeanSocket::new(socket::open(bound)?)) } else { None };
        let (link, inbox) = port.join(&self.user, self.offered);
        lock(&self.joined).push(Joined { name, port: port.clone(), link });
        Ok(SharedSocket { name, port, link, inbox, relay })
    }

    /// Puts the shared port into the candidates of a description, or into a single one.
    pub(super) fn rename(&self, text: &str) -> String {
        lock(&self.joined).iter().fold(text.to_owned(), |text, Joined { name, port, .. }| {
            let (ip, number, shared) = (name.ip(), name.port(), port.address().port());
            text.replace(&format!(" {ip} {number} typ "), &format!(" {ip} {shared} typ "))
        })
    }

    /// The link is open, and keeps its address from others. Doing it again does nothing.
    pub(super) fn opened(&self) {
        for Joined { port, link, .. } in &*lock(&self.joined) {
            port.opened(*link);
        }
    }
}

impl fmt::Debug for LinkPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkPorts").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A shared port as the driver of one link sees it. Dropping it makes the port forget the link.
#[derive(Debug)]
pub(super) struct SharedSocket {
    /// The address of the socket that the crate has bound.
    name: SocketAddr,
    port: Arc<Port>,
    link: LinkKey,
    inbox: Arc<Inbox>,
    /// What is said to TURN servers goes through this one.
    relay: Option<LeanSocket>,
}

impl AsyncUdpSocket for SharedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.name)
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        match &self.relay {
            Some(relay) if stun::classify(transmit.contents) == Kind::Relay => relay.poll_send(cx, transmit),
            _ => self.port.poll_send(self.link, cx, transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // The port's task may refill the inbox as fast as it is read.
        let turn = ready!(coop::poll_proceed(cx));
        let (Some(buffer), Some(first)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        match (self.inbox.poll_read(cx, buffer), &self.relay) {
            (Poll::Ready(received), _) => *first = received?,
            (Poll::Pending, Some(relay)) => {
                ready!(relay.poll_recv(cx, &mut bufs[..1], &mut meta[..1]))?;
            }
            (Poll::Pending, None) => return Poll::Pending,
        }
        turn.made_progress();
        Poll::Ready(Ok(1))
    }

    fn max_gso_segments(&self) -> usize {
        self.port.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        BATCH
    }
}

impl Drop for SharedSocket {
    fn drop(&mut self) {
        self.port.leave(self.link);
        let lost = self.inbox.lost();
        if lost > 0 {
            tracing::debug!(lost, "datagrams that a link on a shared port did not read in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn config() -> WebRtcConfig {
        WebRtcConfig { bind: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..WebRtcConfig::default() }
    }

    #[tokio::test]
    async fn a_link_whose_inbox_is_refilled_lets_others_have_their_turn() {
        let port = Arc::new(Port::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap());
        let (link, inbox) = port.join("a", true);
        let name = port.address();
        let socket = SharedSocket { name, port, link, inbox: inbox.clone(), relay: None };
        let mut buffer = [0; 2000];
        let turns = std::future::poll_fn(move |cx| {
            for turn in 0..10_000 {
                inbox.push(name, 10, &[0; 10]);
                let polled = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut [RecvMeta::default()]);
                if polled.is_pending() {
                    return Poll::Ready(Some(turn));
                }
            }
            Poll::Ready(None)
        });
        assert!(tokio::spawn(turns).await.unwrap().is_some_and(|turns| turns > 10));
    }

    #[test]
    fn another_port_of_an_address_keeps_its_scope() {
        let address: SocketAddr = "[fe80::1%3]:5".parse().unwrap();
        assert_eq!(numbered(address, 7).to_string(), "[fe80::1%3]:7");
    }

    /// Elsewhere there is one loopback address only.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_port_whose_address_is_gone_stays_while_links_are_on_it_and_is_there_when_it_comes_back() {
        let ports = SharedPorts::new(0);
        let with = |ip: [u8; 4]| WebRtcConfig { bind: vec![(ip, 0).into()], ..config() };
        let number_of = |link: &LinkPorts| link.ports[0].address();
        let one = ports.enter(&with([127, 0, 0, 1]), true).unwrap();
        let address = number_of(&one);
        let two = ports.enter(&with([127, 0, 0, 2]), true).unwrap();
        assert_eq!(two.to_bind(), with([127, 0, 0, 2]).bind, "new links are on what is there");
        assert_eq!(number_of(&ports.enter(&with([127, 0, 0, 1]), true).unwrap()), address);
        drop(one);
        ports.enter(&with([127, 0, 0, 2]), true).unwrap();
        tokio::task::yield_now().await;
        assert!(lock(&ports.ports).iter().all(|port| port.address() != address), "nobody needs it");
    }

    #[tokio::test]
    async fn a_link_through_a_turn_server_has_a_socket_for_it_and_no_larger_buffers() {
        for (url, relayed) in [("turn:x", true), ("TURN:x", true), ("Turns:x", true), ("stun:x", false), ("", false)] {
            let ice_servers = vec![super::super::IceServer { urls: vec![url.into()], ..Default::default() }];
            let ports = SharedPorts::new(0).enter(&WebRtcConfig { ice_servers, ..config() }, true).unwrap();
            assert_eq!(ports.relayed, relayed, "{url}");
            let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let socket = ports.replace(bound).unwrap();
            assert_eq!(socket.max_gro_segments(), BATCH);
        }
    }
}
