//! The open mode: whoever connects is a peer, and all see each other.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::connection::{self, Bell, Incoming, Link, Member};
use super::hub::{Dialect, Inbound, Next, PeerId, Reason, Refusal};
use super::serve::{Options, Shared};
use super::undecided::Place;
use crate::protocol::{Address, P_PROTOCOL, PMESH_PROTOCOL};
use crate::transport::http::Page;
use crate::transport::socket::Socket;
use crate::transport::upgrade::{self, Site, Upgrade};

pub(super) const SITE: Site = Site {
    protocols: &[PMESH_PROTOCOL, P_PROTOCOL],
    plain: false,
    hello: "This is a pmesh onramp. Connect with a WebSocket and the subprotocol \"pmesh.1\" or \"p\".\n",
    no_protocol: "Offer the WebSocket subprotocol \"pmesh.1\" or \"p\".\n",
};

/// Serves one accepted TCP connection until it ends. Dropping the future leaves the hub in order.
pub(super) fn serve(shared: Arc<Shared>, place: Place, tcp: TcpStream) -> impl Future<Output = ()> {
    connection::serve(Box::pin(place.keep(open(shared, tcp))))
}

async fn open(shared: Arc<Shared>, mut tcp: TcpStream) -> Option<Link<Peer>> {
    let mut closing = shared.closing();
    let head = tokio::select! {
        head = timeout(shared.options.handshake_timeout, upgrade::request(&mut tcp, &SITE)) => head,
        _ = closing.wait_for(|closing| *closing) => return None,
    };
    let page = match head {
        Ok(Some((Ok(upgrade), ahead))) => match Peer::join(&shared, &upgrade) {
            Ok(peer) => {
                tcp.write_all(upgrade.response().as_bytes()).await.ok()?;
                return Some(Link::new(peer, Socket::new(tcp, ahead)).await);
            }
            Err(_) => Page::FULL,
        },
        Ok(Some((Err(page), _))) => page,
        Ok(None) => {
            shared.refused(false);
            return None;
        }
        Err(_) => Page::TIMEOUT,
    };
    tracing::debug!(status = page.status, "not a peer");
    shared.refused(page == Page::FULL);
    tokio::select! {
        () = page.send(tcp) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    None
}

/// A random address, and the dialect that a peer of P has chosen.
pub(super) fn name(upgrade: &Upgrade) -> (Address, Dialect) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    let dialect = if upgrade.protocol == Some(PMESH_PROTOCOL) { Dialect::Pmesh } else { Dialect::P };
    (Address::new(text).expect("a UUID has 36 bytes"), dialect)
}

/// A place in the open hub.
struct Peer {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    id: PeerId,
    address: Address,
    here: bool,
}

impl Peer {
    fn join(shared: &Arc<Shared>, upgrade: &Upgrade) -> Result<Self, Refusal> {
        let (address, dialect) = name(upgrade);
        let bell = Arc::new(Bell::default());
        let id = shared.with(|hub, bells| hub.connect(address.clone(), dialect, bell.clone(), bells))?;
        bell.ring();
        tracing::debug!(%address, ?dialect, "new peer");
        Ok(Self { shared: shared.clone(), bell, id, address, here: true })
    }
}

impl Member for Peer {
    fn options(&self) -> &Options {
        &self.shared.options
    }

    fn bell(&self) -> &Bell {
        &self.bell
    }

    fn pull(&mut self, batch: &mut Vec<Utf8Bytes>) -> Next {
        self.shared.with(|hub, _| hub.pull(self.id, batch))
    }

    fn take(&mut self, incoming: Incoming, now: Instant) -> Option<Instant> {
        match incoming {
            Incoming::Text(text) => {
                let inbound = Inbound::read(&text, &self.address);
                drop(text);
                self.shared.with(|hub, bells| hub.text(self.id, inbound, now, bells))
            }
            Incoming::Binary => self.shared.with(|hub, _| hub.binary(self.id, now)),
            Incoming::Control => self.shared.with(|hub, _| hub.control(self.id, now)),
        }
    }

    fn leave(&mut self, reason: Reason) {
        if std::mem::take(&mut self.here) {
            tracing::debug!(address = %self.address, "left");
            self.shared.with(|hub, bells| hub.disconnect(self.id, reason, bells));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.leave(Reason::Left);
    }
}
