//! What handlers and firewalls get to know of a call.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::link::Link;
use crate::identity::PeerId;
use crate::node::{Node, Verdict};
use crate::overlay::OverlayId;

/// Who calls. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    route: Route,
    data: Option<Arc<dyn Any + Send + Sync>>,
}

#[derive(Clone)]
enum Route {
    Node(Node),
    Overlay(OverlayId, PeerId),
}

impl Caller {
    pub(super) fn of_node(node: Node, data: Option<Arc<dyn Any + Send + Sync>>) -> Self {
        Self { route: Route::Node(node), data }
    }

    pub(super) fn of_overlay(id: OverlayId, peer: PeerId) -> Self {
        Self { route: Route::Overlay(id, peer), data: None }
    }

    /// The node that the call came over; `None` if it came over the overlay.
    pub fn node(&self) -> Option<&Node> {
        match &self.route {
            Route::Node(node) => Some(node),
            Route::Overlay(..) => None,
        }
    }

    /// The caller's overlay id, if the call came over the overlay: it has proven it.
    pub fn overlay_id(&self) -> Option<OverlayId> {
        match &self.route {
            Route::Node(_) => None,
            Route::Overlay(id, _) => Some(*id),
        }
    }

    /// Who it is: it has proven that it holds this key.
    pub fn peer_id(&self) -> Option<PeerId> {
        match &self.route {
            Route::Node(node) => node.peer_id(),
            Route::Overlay(_, peer) => Some(*peer),
        }
    }

    /// What was given to [`Rpc::serve_node`](super::Rpc::serve_node), if it is of this type.
    pub fn data<T: Any>(&self) -> Option<&T> {
        self.data.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Caller");
        match &self.route {
            Route::Node(node) => out.field("node", node.address()),
            Route::Overlay(id, _) => out.field("overlay_id", id),
        };
        out.field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

/// A call before its handler runs, as a firewall sees it.
#[derive(Debug, Clone)]
pub struct IncomingCall {
    pub(super) module: Arc<str>,
    pub(super) caller: Caller,
}

impl IncomingCall {
    /// The name of the module that is called. There may be none of this name.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// Decides, call by call, who may call what.
///
/// Every closure from `&IncomingCall` to a [`Verdict`] or `bool` is one; for what is async, implement the trait. It is asked once for
/// each call, before the module is looked up, and never under a lock. A firewall that panics refuses, and one that takes longer than
/// the caller waits is dropped.
///
/// ```
/// use pmesh::rpc::{IncomingCall, Rpc};
///
/// let rpc = Rpc::builder()
///     .firewall(|call: &IncomingCall| !call.module().starts_with("Admin.") || call.caller().node().is_none())
///     .build();
/// ```
#[async_trait]
pub trait CallFirewall: Send + Sync + 'static {
    /// Decides on one call. [`Verdict::Ignore`] leaves the caller waiting until its time is over. The future may be dropped.
    async fn check(&self, call: &IncomingCall) -> Verdict;
}

#[async_trait]
impl<F, V> CallFirewall for F
where
    F: Fn(&IncomingCall) -> V + Send + Sync + 'static,
    V: Into<Verdict>,
{
    async fn check(&self, call: &IncomingCall) -> Verdict {
        self(call).into()
    }
}

/// What a handler is called with.
#[derive(Debug, Clone)]
pub struct Request {
    call: IncomingCall,
    body: Value,
}

impl Request {
    /// The body of the request.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The body of the request, by itself.
    pub fn into_body(self) -> Value {
        self.body
    }

    /// The name by which the module was called.
    pub fn module(&self) -> &str {
        &self.call.module
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.call.caller
    }
}

/// Where a streaming handler puts its responses. Cheap to clone.
#[derive(Clone)]
pub struct Responses {
    pub(super) link: Arc<Link>,
    pub(super) number: u32,
    pub(super) credit: Arc<Semaphore>,
}

/// The caller has given the call up, or the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Nobody waits for responses any more.
    #[error("nobody waits for responses any more")]
    Gone,
    /// The response is larger than the caller takes. Nothing was sent.
    #[error("larger than the {limit} bytes that the caller takes")]
    TooLarge {
        /// The most bytes, as JSON.
        limit: usize,
    },
}

impl Responses {
    /// Sends a response. Waits while the caller has not taken the earlier ones: as many as it likes (16 by default) may be on their way.
    ///
    /// Returns when the response is queued, not when it has arrived.
    ///
    /// # Errors
    ///
    /// [`ResponseError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a cancelled call has sent nothing.
    pub async fn send(&self, response: impl Into<Value>) -> Result<(), ResponseError> {
        self.link.send_item(self.number, &self.credit, response.into().to_string().into()).await
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A call on its way to its handler.
pub(super) struct Invocation {
    pub(super) call: IncomingCall,
    pub(super) body: Bytes,
    /// Whether the caller takes a stream.
    pub(super) streams: bool,
    pub(super) responses: Responses,
}

impl Invocation {
    pub(super) fn request(self) -> serde_json::Result<Request> {
        Ok(Request { body: serde_json::from_slice(&self.body)?, call: self.call })
    }
}
