//! Links to neighbours: which there are, which is the best, and for whom.

use std::sync::Arc;

use super::{Core, Entry, LINKS_PER_PEER, Reach, State, Wish, now};
use crate::lock::lock;
use crate::node::Node;
use crate::overlay::OverlayId;
use crate::overlay::link::Sender;
use crate::overlay::seal::PublicKey;

impl Core {
    /// The routing has no use for the links to a peer.
    pub(super) fn release(&self, state: &mut State, peer: &OverlayId) {
        for entry in state.links.get(peer).into_iter().flatten() {
            match &entry.node {
                None => entry.sender.close(),
                Some(node) if state.ours.contains(&node.id()) => {
                    // If that is forgotten, the link stays, and the routing asks again.
                    let _ = self.wishes.try_send(Wish::Close(node.clone()));
                }
                Some(_) => {}
            }
        }
    }

    /// A link to a peer is there, until what is returned is dropped.
    pub(in crate::overlay) fn add_link(
        self: &Arc<Self>,
        peer: OverlayId,
        key: PublicKey,
        sender: Sender,
        reach: Reach,
    ) -> Linked {
        let mut state = lock(&self.state);
        let now = now();
        state.last_link += 1;
        let number = state.last_link;
        let linked = Linked { core: self.clone(), peer, number };
        if state.closed {
            return linked;
        }
        let wanted = state.called.contains_key(&peer) | state.callers.remove(&peer);
        let node = match reach {
            Reach::Node { node, routed } => {
                if routed && !wanted {
                    state.ours.insert(node.id());
                }
                Some(node)
            }
            Reach::WebSocket => None,
        };
        let links = state.links.entry(peer).or_default();
        let first = links.is_empty();
        // A connection between the two is better than a WebSocket.
        let at = if node.is_some() { 0 } else { links.partition_point(|entry| entry.node.is_some()) };
        links.insert(at, Entry { number, sender: Arc::new(sender), node });
        if links.len() > LINKS_PER_PEER
            && let Some(oldest) = links.iter().min_by_key(|entry| entry.number)
        {
            oldest.sender.close();
        }
        if first {
            state.router.neighbour_up(peer, Some(key), now);
        }
        self.drive_on(&mut state, now);
        linked
    }

    fn remove_link(&self, peer: OverlayId, number: u64) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(links) = state.links.get_mut(&peer) else { return };
        if let Some(at) = links.iter().position(|entry| entry.number == number) {
            let entry = links.remove(at);
            entry.sender.close();
            if let Some(node) = entry.node {
                state.ours.remove(&node.id());
                state.kept.remove(&node.id());
            }
        }
        if links.is_empty() {
            state.links.remove(&peer);
            let now = now();
            state.router.neighbour_down(&peer, now);
            self.drive_on(state, now);
        }
    }

    /// A link that the routing had wished for could not be made.
    pub(in crate::overlay) fn connect_failed(&self, peer: &OverlayId) {
        let mut state = lock(&self.state);
        let now = now();
        state.router.connect_failed(peer, now);
        self.drive_on(&mut state, now);
    }

    /// Whether a link goes over this node.
    pub(in crate::overlay) fn is_linked(&self, node: &Node) -> bool {
        let state = lock(&self.state);
        let links = node.peer_id().and_then(|peer| state.links.get(&OverlayId::of(&peer)));
        links.into_iter().flatten().any(|entry| entry.node.as_ref() == Some(node))
    }

    /// Peers to which messages can be sent directly.
    pub(in crate::overlay) fn neighbours(&self) -> Vec<OverlayId> {
        lock(&self.state).neighbours.iter().copied().collect()
    }

    /// Whether messages can be sent to this peer directly.
    pub(in crate::overlay) fn is_neighbour(&self, peer: &OverlayId) -> bool {
        lock(&self.state).neighbours.contains(peer)
    }

    /// Whether the link to a peer is needed: by the routing, or because there is no other.
    pub(in crate::overlay) fn needs(&self, peer: &OverlayId) -> bool {
        let state = lock(&self.state);
        state.links.len() <= 1 || state.router.routing().neighbours().contains(peer)
    }

    /// Whether there is any link.
    pub(in crate::overlay) fn has_links(&self) -> bool {
        !lock(&self.state).links.is_empty()
    }

    /// The open node of the tree to this peer, if there is one. From now on the application wants it.
    pub(in crate::overlay) fn keep_node(&self, peer: &OverlayId) -> Option<Node> {
        let mut state = lock(&self.state);
        let node = state.node(peer)?;
        state.ours.remove(&node.id());
        state.kept.insert(node.id());
        Some(node)
    }

    /// A node that was made for streams is not needed for them any more. Returns whether it is to be closed: not if the routing or
    /// the application wants it.
    pub(in crate::overlay) fn give_back(&self, peer: &OverlayId, node: &Node) -> bool {
        let mut state = lock(&self.state);
        let kept = state.kept.contains(&node.id());
        let routed = state.router.routing().neighbours().contains(peer);
        if !kept && routed {
            state.ours.insert(node.id());
        }
        !kept && !routed
    }

    /// Has this peer connected to directly, unless it is already.
    pub(in crate::overlay) fn approach(&self, peer: OverlayId) {
        let state = lock(&self.state);
        if state.node(&peer).is_none() && !state.called.contains_key(&peer) {
            // If that is forgotten, streams go over relays.
            let _ = self.wishes.try_send(Wish::Approach(peer));
        }
    }

    /// Closes the WebSockets to a peer.
    pub(in crate::overlay) fn disconnect(&self, peer: &OverlayId) {
        let state = lock(&self.state);
        let links = state.links.get(peer).into_iter().flatten();
        links.filter(|entry| entry.node.is_none()).for_each(|entry| entry.sender.close());
    }

    /// The application calls this peer, as long as what is returned lives.
    pub(in crate::overlay) fn call(self: &Arc<Self>, peer: OverlayId) -> Call {
        *lock(&self.state).called.entry(peer).or_default() += 1;
        Call { core: self.clone(), peer }
    }
}

impl State {
    fn node(&self, peer: &OverlayId) -> Option<Node> {
        self.links.get(peer)?.iter().find_map(|entry| entry.node.clone().filter(Node::is_open))
    }
}

/// A link that is there, see [`Core::add_link`].
pub(in crate::overlay) struct Linked {
    core: Arc<Core>,
    peer: OverlayId,
    number: u64,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.core.remove_link(self.peer, self.number);
    }
}

/// A call of the application's, see [`Core::call`].
pub(in crate::overlay) struct Call {
    core: Arc<Core>,
    peer: OverlayId,
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = lock(&self.core.state);
        if let Some(calls) = state.called.get_mut(&self.peer) {
            *calls -= 1;
            if *calls == 0 {
                state.called.remove(&self.peer);
            }
        }
    }
}
