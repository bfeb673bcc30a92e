//! Taking calls: over nodes, and over the overlay.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::error::{CallError, ServeError};
use super::handle::{Key, Shared};
use super::link::{Link, Reason};
use super::port::{NAME, Port};
use super::request::Caller;
use crate::node::{Event, Events, Node, NodeId, NodeKind, Only, Root};
use crate::overlay::stream::{Listener, Stream};
use crate::overlay::{Overlay, OverlayId};

/// When a link is over and its node is not, the peer may have begun anew: it is made again after the first of these, then after twice
/// as long each time, up to the second, unless it has lasted so long.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// What a node is served with.
type Data = Option<Arc<dyn Any + Send + Sync>>;

/// Calls are taken as long as this lives. Dropping it ends those in progress, for the callers with [`CallError::Closed`], and drops
/// their handlers. Calls of this side go on.
#[must_use = "dropping it stops taking calls"]
pub struct Serving {
    task: AbortHandle,
    _only: Option<Only>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

/// A link that takes calls. Dropping it has the link take no more.
struct Served {
    link: Arc<Link>,
    token: u64,
}

impl Served {
    /// Has the link of a node take calls, from the first one that is there.
    fn begin(shared: &Arc<Shared>, node: &Node, reason: Reason, data: &Data) -> Result<Self, CallError> {
        let caller = Caller::of_node(node.clone(), data.clone());
        shared.node_link(node, |link| Self { token: link.serve(reason, caller), link })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.link.stop_serving(self.token);
    }
}

pub(super) fn root(shared: &Arc<Shared>, root: &Root) -> Result<Serving, ServeError> {
    let only = root.take_calls().ok_or(ServeError::InUse)?;
    // Before the nodes there are, so none is missed.
    let (events, nodes) = (root.events(), root.peers());
    let begin = |node: Node| {
        // Nobody else gets those there are meanwhile. Why one cannot be had, its task finds out.
        let served = Served::begin(shared, &node, Reason::All, &None).ok();
        (node, served)
    };
    let nodes = nodes.into_iter().map(begin).collect();
    let task = tokio::spawn(serve_root(Arc::downgrade(shared), events, nodes));
    Ok(Serving { task: task.abort_handle(), _only: Some(only) })
}

/// Holds no root: its last handle would close it.
async fn serve_root(shared: Weak<Shared>, mut events: Events, mut nodes: Vec<(Node, Option<Served>)>) {
    // One task for each open node.
    let mut keepers = JoinSet::new();
    let mut kept = HashSet::new();
    let mut look_again = false;
    loop {
        for (node, served) in nodes.drain(..).filter(|(node, _)| node.kind() == NodeKind::WebRtc && node.is_open()) {
            if kept.insert(node.id()) {
                keepers.spawn(keep(shared.clone(), node, Reason::All, None, served));
            }
        }
        let unserved = |node| (node, None);
        let all = |node: Node| node.peers().into_iter().map(unserved).collect();
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Open { node }) => nodes = if look_again { all(node) } else { vec![unserved(node)] },
                Some(Event::Lagged(_)) => {
                    look_again = true;
                    continue;
                }
                // Every node knows all others.
                Some(Event::Close { node, .. } | Event::Connection { node, .. }) if look_again => nodes = all(node),
                Some(_) => continue,
                None => break,
            },
            Some(over) = keepers.join_next(), if !keepers.is_empty() => {
                if let Ok(node) = over {
                    kept.remove(&node);
                }
                continue;
            }
        }
        look_again = false;
    }
}

pub(super) fn node(shared: &Arc<Shared>, node: &Node, data: Arc<dyn Any + Send + Sync>) -> Result<Serving, ServeError> {
    let served = Served::begin(shared, node, Reason::Itself, &Some(data.clone())).map_err(|error| match error {
        CallError::InUse => ServeError::InUse,
        CallError::Unsupported => ServeError::Unsupported,
        _ => ServeError::NotOpen,
    })?;
    let task = tokio::spawn(keep(Arc::downgrade(shared), node.clone(), Reason::Itself, Some(data), Some(served)));
    Ok(Serving { task: task.abort_handle(), _only: None })
}

/// Takes the calls of a node as long as it is open, at first over a link that may take them already. Returns which it was.
async fn keep(shared: Weak<Shared>, node: Node, reason: Reason, data: Data, mut served: Option<Served>) -> NodeId {
    let mut pause = AGAIN.0;
    while node.is_open() {
        let begun = Instant::now();
        if served.is_none() {
            let Some(shared) = shared.upgrade() else { break };
            served = match Served::begin(&shared, &node, reason, &data) {
                Err(CallError::Unsupported) => break,
                begun => begun.ok(),
            };
        }
        if let Some(served) = served.take() {
            served.link.over().await;
        }
        if begun.elapsed() > AGAIN.1 {
            pause = AGAIN.0;
        }
        tokio::select! {
            () = sleep(pause) => pause = (2 * pause).min(AGAIN.1),
            _ = node.closed() => {}
        }
    }
    node.id()
}

pub(super) fn overlay(shared: &Arc<Shared>, overlay: &Overlay) -> Result<Serving, ServeError> {
    let listener = overlay.listen(NAME)?;
    let task = tokio::spawn(accept(Arc::downgrade(shared), overlay.id(), listener));
    Ok(Serving { task: task.abort_handle(), _only: None })
}

/// The links to those who have dialled an id. Dropping it ends them.
struct Accepted(Weak<Shared>, OverlayId);

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.stop_accepted(self.1);
        }
    }
}

/// Takes the streams of those who call. There are as many peers as the overlay has connections, and one stream of each.
async fn accept(shared: Weak<Shared>, own: OverlayId, mut listener: Listener) {
    let _accepted = Accepted(shared.clone(), own);
    while let Some(stream) = listener.accept().await {
        let Some(shared) = shared.upgrade() else { return };
        let key = Key::From(own, stream.overlay_id());
        let link = Link::new(shared.clone());
        link.serve(Reason::All, Caller::of_overlay(stream.overlay_id(), stream.peer_id()));
        if shared.accepted(key.clone(), &link) {
            tokio::spawn(carry(shared, key, link, stream));
        }
    }
}

async fn carry(shared: Arc<Shared>, key: Key, link: Arc<Link>, stream: Stream) {
    link.carry(Port::of_stream(stream), None).await;
    shared.forget(&key, &link);
    link.end(CallError::NotOpen);
}
