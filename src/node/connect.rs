//! Dialling.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;

use super::error::ConnectError;
use super::firewall::{Firewall, Policy};
use super::handle::{Node, NodeKind};
use super::root::{MAX_TIMEOUT, Root, Shared};
use super::tree::{Dial, NodeId};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::protocol::Address;
use crate::protocol::limits::MAX_OFFER_DATA_BYTES;
use crate::protocol::proof::Base64;
use crate::protocol::signal::Session;
use crate::transport::Transport;
use crate::transport::websocket::{Authorization, WebSocket};

/// Whom to connect to, and how. Texts and addresses convert into it.
///
/// ```
/// use std::time::Duration;
/// use pmesh::{Connect, Policy};
///
/// let connect = Connect::to("8378c02c-3843-4616-9511-9dfdebf5c083")
///     .offer_data("secret")
///     .firewall(Policy::refuse_all()) // nobody may come through the new node
///     .timeout(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct Connect {
    to: Result<Address, String>,
    data: Value,
    policy: Option<Policy>,
    timeout: Option<Duration>,
    expect: Option<PeerId>,
    authorization: Option<Authorization>,
}

impl Connect {
    /// Connects to this address. One that is no address gives an error when the connection is awaited.
    pub fn to(address: impl AsRef<str>) -> Self {
        Self::new(Address::new(address).map_err(|error| error.to_string()))
    }

    fn new(to: Result<Address, String>) -> Self {
        Self { to, data: Value::Null, policy: None, timeout: None, expect: None, authorization: None }
    }

    /// Takes nobody but this peer, whatever the introducer says: the call fails with
    /// [`UnexpectedPeer`](ConnectError::UnexpectedPeer) if another answers, or one that proves no identity. An onramp has
    /// none either, so with this a connection to a URL always fails.
    #[must_use]
    pub fn expect(mut self, peer_id: PeerId) -> Self {
        self.expect = Some(peer_id);
        self
    }

    /// Data for the other side's firewall, at most 32 KiB of JSON. The introducer can read it. Not used for a WebSocket.
    /// Integers beyond 2^53 may arrive rounded, as in JavaScript: send larger ones as text.
    #[must_use]
    pub fn offer_data(mut self, data: impl Into<Value>) -> Self {
        self.data = data.into();
        self
    }

    /// Replaces the inherited firewall for offers that come through the new node, and through all nodes below it.
    #[must_use]
    pub fn firewall(mut self, firewall: impl Firewall) -> Self {
        self.policy = Some(Policy::new(firewall));
        self
    }

    /// Logs in, by HTTP Basic, at an onramp with [accounts](crate::onramp#accounts). Not used for peers.
    ///
    /// Neither the node's address nor an error shows it. Over `ws://` it crosses the network in the clear. A name with a colon in it
    /// is understood as another one. An onramp that does not take it, or takes nobody without, has [denied](crate::ConnectError::Denied).
    #[must_use]
    pub fn log_in(mut self, name: &str, password: &str) -> Self {
        self.authorization = Some(Authorization::basic(name, password));
        self
    }

    /// How long it may take until the connection is open. By default what the root says.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl From<&str> for Connect {
    fn from(address: &str) -> Self {
        Self::to(address)
    }
}

impl From<String> for Connect {
    fn from(address: String) -> Self {
        Self::to(address)
    }
}

impl From<&String> for Connect {
    fn from(address: &String) -> Self {
        Self::to(address)
    }
}

impl From<Address> for Connect {
    fn from(address: Address) -> Self {
        Self::new(Ok(address))
    }
}

impl From<&Address> for Connect {
    fn from(address: &Address) -> Self {
        address.clone().into()
    }
}

/// A connection that is being made: a future of the open node.
///
/// Nothing happens until it is polled or [detached](Self::detach), so the [node](Self::node) can be listened to before
/// anything can happen to it. Dropping it before it is done abandons the attempt: the node closes with
/// [`Cancelled`](crate::CloseReason::Cancelled).
///
/// ```no_run
/// # use tokio_stream::StreamExt;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let root = pmesh::Root::new();
/// let connecting = root.connect("ws://localhost:20500");
/// // Whoever comes through the onramp is seen, even if somebody calls at once.
/// let mut callers = connecting.node().connections();
/// let onramp = connecting.await?;
/// while let Some(caller) = callers.next().await {
///     println!("{} is calling via {}", caller.address(), onramp.address());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited or detached"]
pub struct Connecting {
    node: Node,
    attempt: Pin<Box<dyn Future<Output = Result<Node, ConnectError>> + Send>>,
}

impl Connecting {
    pub(super) fn to_peer(via: &Node, connect: Connect) -> Self {
        let shared = via.shared.clone();
        let via = via.inner.id;
        Self::new(shared, NodeKind::WebRtc, Some(via), connect, move |node, address, connect, timeout| {
            let Connect { data, policy, expect, .. } = connect;
            let (session, nonce) = (Session(rand::random()), Base64(rand::random()));
            Request::Connect { node, via, dial: Dial { to: address, data, policy, timeout, expect, session, nonce } }
        })
    }

    pub(super) fn to_url(root: &Root, connect: Connect) -> Self {
        let transport = connect.authorization.clone().map(|authorization| -> Arc<dyn Transport> {
            Arc::new(WebSocket::logging_in(root.dialler().clone(), authorization))
        });
        Self::to_onramp(root, NodeKind::WebSocket, connect, transport)
    }

    pub(super) fn attached(root: &Root, kind: NodeKind, connect: Connect, transport: Arc<dyn Transport>) -> Self {
        Self::to_onramp(root, kind, connect, Some(transport))
    }

    fn to_onramp(root: &Root, kind: NodeKind, connect: Connect, transport: Option<Arc<dyn Transport>>) -> Self {
        let shared = root.shared().clone();
        Self::new(shared, kind, None, connect, |node, address, connect, timeout| {
            let policy = connect.policy.unwrap_or_else(|| node.shared.policy.clone());
            Request::ConnectUrl { node, url: address, policy, timeout, transport }
        })
    }

    fn new(
        shared: Arc<Shared>,
        kind: NodeKind,
        via: Option<NodeId>,
        mut connect: Connect,
        request: impl FnOnce(Node, Address, Connect, Duration) -> Request,
    ) -> Self {
        let address = std::mem::replace(&mut connect.to, Err(String::new()));
        let timeout = connect.timeout.unwrap_or(shared.settings.connect_timeout).min(MAX_TIMEOUT);
        let shown = address.clone().unwrap_or_else(|_| Address::new("invalid").expect("it has 1 to 512 bytes"));
        let node = Node::new(shared.new_id(), via, shown, kind, shared.clone());
        let no_onramp = connect.expect.filter(|_| kind != NodeKind::WebRtc);
        let request = match address {
            Err(error) => Err(ConnectError::InvalidAddress(error)),
            Ok(_) if json_bytes(&connect.data) > MAX_OFFER_DATA_BYTES => {
                Err(ConnectError::OfferDataTooLarge { limit: MAX_OFFER_DATA_BYTES })
            }
            Ok(address) => match no_onramp {
                Some(expected) => Err(ConnectError::UnexpectedPeer { expected, found: None }),
                None => Ok(request(node.clone(), address, connect, timeout)),
            },
        };
        let guard = Guard { node: node.clone(), armed: true };
        let attempt = Box::pin(attempt(node.clone(), request, guard));
        Self { node, attempt }
    }

    /// The node, before it is open. If a connection to the address turns out to be open already, this node closes as
    /// [`Duplicate`](crate::CloseReason::Duplicate), and the future gives the open one.
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// Lets the attempt go on in the background, and returns the node. How it ends is told by the node's events.
    ///
    /// Must be called within a Tokio runtime.
    pub fn detach(self) -> Node {
        let node = self.node.clone();
        tokio::spawn(self.attempt);
        node
    }
}

async fn attempt(node: Node, request: Result<Request, ConnectError>, mut guard: Guard) -> Result<Node, ConnectError> {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            guard.armed = false;
            node.end(match error {
                ConnectError::UnexpectedPeer { expected, found } => CloseReason::UnexpectedPeer { expected, found },
                _ => CloseReason::Failed(error.to_string()),
            });
            return Err(error);
        }
    };
    if node.shared.requests.send(request).await.is_err() {
        guard.armed = false;
        node.end(CloseReason::RootClosed);
        return Err(ConnectError::RootClosed);
    }
    let opened = node.opened().await;
    guard.armed = false;
    match (opened, node.inner.instead.get()) {
        (Ok(()), _) => Ok(node),
        (Err(_), Some(instead)) => Ok(instead.clone()),
        (Err(reason), None) => Err(reason.into()),
    }
}

fn json_bytes(data: &Value) -> usize {
    if data.is_null() { 0 } else { data.to_string().len() }
}

impl Future for Connecting {
    type Output = Result<Node, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.attempt.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Abandons the attempt when the future is dropped in the middle of it.
struct Guard {
    node: Node,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.node.shared.abandon(&self.node);
        }
    }
}

/// What the handles ask of the driver.
pub(super) enum Request {
    ConnectUrl {
        node: Node,
        url: Address,
        policy: Policy,
        timeout: Duration,
        /// What makes the link, if that is not a WebSocket.
        transport: Option<Arc<dyn Transport>>,
    },
    Connect {
        node: Node,
        via: NodeId,
        dial: Dial<Policy>,
    },
}
