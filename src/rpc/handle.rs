//! What an application holds: modules, whom to call, and whose calls are taken.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::error::{CallError, Failure, ModuleError, ServeError};
use super::link::{IDLE, Link};
use super::modules::{self, Handler, ModuleGuard, Modules};
use super::port::{NAME, Port};
use super::request::{CallFirewall, Caller, Request, Responses};
use super::serve::{self, Serving};
use super::table::Limits;
use super::target::{Target, To};
use crate::lock::lock;
use crate::node::{ChannelError, Node, NodeKind, Root};
use crate::overlay::stream::DialError;
use crate::overlay::{Overlay, OverlayId};

/// Modules by name, and calls of those of others. See the [module](super).
///
/// Cheap to clone. When the last handle is dropped, with the [`Target`]s that were made of it, all its calls end: those of others are
/// not answered any more, and their handlers are dropped. A handler that holds a handle keeps the `Rpc` until its module is unregistered.
#[derive(Clone)]
pub struct Rpc {
    handle: Arc<Handle>,
}

/// Ends everything when the last handle is gone. Tasks hold [`Shared`], not this.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Settings of an [`Rpc`]: its firewall and its bounds.
#[derive(Clone)]
#[must_use]
pub struct RpcBuilder {
    firewall: Option<Arc<dyn CallFirewall>>,
    limits: Limits,
    calls: usize,
    modules: usize,
}

impl Default for RpcBuilder {
    fn default() -> Self {
        let limits = Limits { calls: 64, body: 1 << 20, bodies: 16 << 20, waiting: 1024 };
        Self { firewall: None, limits, calls: 4096, modules: 1024 }
    }
}

impl RpcBuilder {
    /// Who may call what: everybody everything by default.
    pub fn firewall(mut self, firewall: impl CallFirewall) -> Self {
        self.firewall = Some(Arc::new(firewall));
        self
    }

    /// Calls that may be in progress from one peer: 64 by default. A peer of this crate waits with further ones; others get
    /// [`CallError::Busy`], and are cut off if they go on and do not read that.
    pub fn calls_from_one(mut self, calls: usize) -> Self {
        self.limits.calls = calls;
        self
    }

    /// Calls that may be in progress from all peers: 4,096 by default. Further ones get [`CallError::Busy`].
    pub fn calls(mut self, calls: usize) -> Self {
        self.calls = calls.min(Semaphore::MAX_PERMITS);
        self
    }

    /// The largest body, of a request or an answer, that is taken, in bytes of JSON: 1 MiB by default. Callers get
    /// [`CallError::TooLarge`]. The requests of one peer that are in progress have 16 times as much together; with further ones it waits,
    /// or gets [`CallError::Busy`].
    pub fn max_body(mut self, bytes: usize) -> Self {
        let bytes = bytes.min(u32::MAX as usize);
        self.limits.body = bytes;
        self.limits.bodies = bytes.saturating_mul(16);
        self
    }

    /// Calls to one peer that wait until it has a place for them: 1,024 by default, 1 at least. Further ones get [`CallError::Busy`].
    pub fn waiting(mut self, calls: usize) -> Self {
        self.limits.waiting = calls.max(1);
        self
    }

    /// Modules that there may be: 1,024 by default.
    pub fn modules(mut self, modules: usize) -> Self {
        self.modules = modules;
        self
    }

    /// An `Rpc` with these settings.
    pub fn build(self) -> Rpc {
        let shared = Shared {
            limits: self.limits,
            max_modules: self.modules,
            firewall: self.firewall,
            modules: Arc::default(),
            places: Arc::new(Semaphore::new(self.calls)),
            links: Mutex::new(Some(HashMap::new())),
        };
        Rpc { handle: Arc::new(Handle(Arc::new(shared))) }
    }
}

impl fmt::Debug for RpcBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcBuilder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Whom a link leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Node(Node),
    /// Dialled by us, from our id to theirs.
    To(OverlayId, OverlayId),
    /// Dialled by them, to our id from theirs.
    From(OverlayId, OverlayId),
}

/// What handles and tasks share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    max_modules: usize,
    pub(super) firewall: Option<Arc<dyn CallFirewall>>,
    pub(super) modules: Arc<Modules>,
    /// For calls of all peers in progress.
    pub(super) places: Arc<Semaphore>,
    /// The links there are: as many as open nodes, and as overlays have streams. `None` after the end.
    links: Mutex<Option<HashMap<Key, Arc<Link>>>>,
}

impl Rpc {
    /// With no firewall, and everything at its default.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings.
    pub fn builder() -> RpcBuilder {
        RpcBuilder::default()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// Registers a module: an async handler from request to answer or failure.
    ///
    /// Each call runs in a task of its own. Its future is dropped when the caller gives up or its time is over. A handler that panics
    /// takes nothing else with it, and the caller hears of the panic only that there was one.
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn module<F, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(Request) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        self.register(name, modules::plain(handler))
    }

    /// Like [`module`](Self::module), with types: requests that are no `Q` get [`CallError::Malformed`].
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn typed<F, Q, A, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(Q, Caller) -> T + Send + Sync + 'static,
        Q: DeserializeOwned + 'static,
        A: Serialize + 'static,
        T: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        self.register(name, modules::typed(handler))
    }

    /// Like [`module`](Self::module), of a handler that sends any number of responses, and returns after the last one. It is to be
    /// called by [`Target::stream`].
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn streaming<F, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(Request, Responses) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.register(name, modules::streaming(handler))
    }

    fn register(&self, name: &str, handler: Handler) -> Result<ModuleGuard, ModuleError> {
        self.shared().modules.add(name, handler, self.shared().max_modules)
    }

    /// Whom to call over an open node.
    ///
    /// The calls over a node, both ways, are those of one `Rpc`; another one gets [`CallError::InUse`] until a moment after the last handle
    /// of the first is gone. A program needs only one.
    pub fn on(&self, node: &Node) -> Target {
        Target::new(self.clone(), To::Node(node.clone()))
    }

    /// Whom to call through the overlay, over others if there is no direct connection.
    pub fn over(&self, overlay: &Overlay, id: OverlayId) -> Target {
        Target::new(self.clone(), To::Overlay(overlay.clone(), id))
    }

    /// Takes calls that come over the peers of this root, those there are and those to come, until what it returns is dropped, the
    /// `Rpc` is, or the root is closed.
    ///
    /// # Errors
    ///
    /// [`ServeError::InUse`] if the calls of this root are taken already.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn serve(&self, root: &Root) -> Result<Serving, ServeError> {
        serve::root(self.shared(), root)
    }

    /// Takes calls that come over one node, until what it returns is dropped, the `Rpc` is, or the node is over. Handlers and firewalls
    /// find `data` with the [`Caller`]. The node's root may be served too: for this node this goes first.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn serve_node(&self, node: &Node, data: impl Any + Send + Sync) -> Result<Serving, ServeError> {
        serve::node(self.shared(), node, Arc::new(data))
    }

    /// Takes calls that come over the overlay, until what it returns is dropped, the `Rpc` is, or the overlay is closed.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn serve_overlay(&self, overlay: &Overlay) -> Result<Serving, ServeError> {
        serve::overlay(self.shared(), overlay)
    }

    /// Whether no calls are in progress over a node, either way, and nothing is left to send.
    pub(crate) fn is_quiet(&self, node: &Node) -> bool {
        let links = lock(&self.shared().links);
        links.as_ref().and_then(|links| links.get(&Key::Node(node.clone()))).is_none_or(|link| link.is_quiet())
    }

    /// Messages that came for calls that were over, or never were, on the links there are: those that cross the end of a call, and
    /// those of peers that do not keep to the protocol.
    pub fn stray(&self) -> u64 {
        lock(&self.shared().links).iter().flat_map(HashMap::values).map(|link| link.stray()).sum()
    }
}

impl Default for Rpc {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").field("modules", &self.shared().modules).finish_non_exhaustive()
    }
}

impl Shared {
    /// The link to somebody, which is made if there is none.
    pub(super) fn link(self: &Arc<Self>, to: &To) -> Result<Arc<Link>, CallError> {
        match to {
            To::Node(node) => self.node_link(node),
            To::Overlay(overlay, id) => self.dialled(overlay, *id),
        }
    }

    fn node_link(self: &Arc<Self>, node: &Node) -> Result<Arc<Link>, CallError> {
        self.begin_link(node, Arc::clone)
    }

    /// Begins something with the link over a node, before any call that has come is taken off one that is made for it.
    #[expect(clippy::mutable_key_type, reason = "a node is hashed by its number")]
    pub(super) fn begin_link<T>(
        self: &Arc<Self>,
        node: &Node,
        begin: impl FnOnce(&Arc<Link>) -> T,
    ) -> Result<T, CallError> {
        let mut links = lock(&self.links);
        let links = links.as_mut().ok_or(CallError::NotOpen)?;
        let key = Key::Node(node.clone());
        if node.kind() != NodeKind::WebRtc {
            return Err(CallError::Unsupported);
        }
        if !node.is_open() {
            return Err(CallError::NotOpen);
        }
        if let Some(link) = links.get(&key) {
            return Ok(begin(link));
        }
        let only = node.take_calls().ok_or(CallError::InUse)?;
        let channel = node.reserved_channel(NAME).map_err(|error| match error {
            ChannelError::Unsupported => CallError::Unsupported,
            ChannelError::TooMany { .. } => CallError::Busy,
            _ => CallError::NotOpen,
        })?;
        let link = Link::new(self.clone());
        links.insert(key.clone(), link.clone());
        let (shared, task, begun) = (self.clone(), link.clone(), begin(&link));
        tokio::spawn(async move {
            task.carry(Port::of_channel(channel), None).await;
            drop(only);
            shared.forget(&key, &task);
            task.end(CallError::NotOpen);
        });
        Ok(begun)
    }

    #[expect(clippy::mutable_key_type, reason = "a node is hashed by its number")]
    fn dialled(self: &Arc<Self>, overlay: &Overlay, id: OverlayId) -> Result<Arc<Link>, CallError> {
        let mut links = lock(&self.links);
        let links = links.as_mut().ok_or(CallError::NotOpen)?;
        let key = Key::To(overlay.id(), id);
        if let Some(link) = links.get(&key) {
            return Ok(link.clone());
        }
        let link = Link::new(self.clone());
        links.insert(key.clone(), link.clone());
        let (shared, task, overlay) = (self.clone(), link.clone(), overlay.clone());
        tokio::spawn(async move {
            // Calls wait in the table meanwhile.
            let stream = tokio::select! {
                stream = overlay.dial(id, NAME) => Some(stream),
                () = task.watch_time(Some(IDLE)) => None,
                () = task.over() => None,
            };
            // An idle link keeps no overlay.
            drop(overlay);
            let error = match stream {
                Some(Ok(stream)) => {
                    task.carry(Port::of_stream(stream), Some(IDLE)).await;
                    CallError::NotOpen
                }
                Some(Err(DialError::NoSuchService)) => CallError::Unsupported,
                Some(Err(error)) => CallError::Unreachable(error),
                None => CallError::NotOpen,
            };
            shared.forget(&key, &task);
            task.end(error);
        });
        Ok(link)
    }

    /// Adds a link that somebody has dialled, in place of an older one. False after the end.
    pub(super) fn accepted(&self, key: Key, link: &Arc<Link>) -> bool {
        let mut links = lock(&self.links);
        let Some(links) = links.as_mut() else { return false };
        let older = links.insert(key, link.clone());
        older.iter().for_each(|older| older.stop());
        true
    }

    /// The links to those who have dialled this id.
    pub(super) fn stop_accepted(&self, own: OverlayId) {
        let links = lock(&self.links);
        for (key, link) in links.iter().flatten() {
            if matches!(key, Key::From(id, _) if *id == own) {
                link.stop();
            }
        }
    }

    pub(super) fn forget(&self, key: &Key, link: &Arc<Link>) {
        if let Some(links) = lock(&self.links).as_mut()
            && links.get(key).is_some_and(|there| Arc::ptr_eq(there, link))
        {
            links.remove(key);
        }
    }

    /// Ends all links, and forgets the modules.
    fn close(&self) {
        let links = lock(&self.links).take();
        for link in links.iter().flat_map(HashMap::values) {
            link.stop();
        }
        self.modules.clear();
    }
}
