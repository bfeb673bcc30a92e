//! Links to neighbours: which there are, which is the best, and for whom.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::patience::Patience;
use super::{Core, Held, Reach, STUCK, State, Wish, now};
use crate::lock::lock;
use crate::node::{Node, NodeId};
use crate::overlay::OverlayId;
use crate::overlay::link::{NotSent, Sender};
use crate::overlay::seal::PublicKey;

/// Links to one peer. At it, the oldest is closed.
const LINKS_PER_PEER: usize = 4;
/// Nodes that are there because the applications of others called. Beyond that, they count as made for the routing.
const CALLER_NODES: usize = 256;

/// A link to a neighbour.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    pub(super) sender: Arc<Sender>,
    /// The node of the tree, if it is one.
    pub(super) node: Option<Node>,
    since: Instant,
    /// When something last came over it.
    heard: Instant,
    /// Since when it takes nothing, and how many packets it had taken by then: who waits for room may get it when nobody else finds any.
    full: Option<(Instant, u64)>,
    patience: Patience,
}

/// What came of handing a packet to a link.
pub(super) enum Handed {
    Taken,
    /// There is no room; it may wait for some.
    Wait(Held),
    /// There is no room, and others have waited already.
    Dropped,
    /// The link is over.
    Over,
}

impl Entry {
    fn new(number: u64, sender: Sender, node: Option<Node>, now: Instant) -> Self {
        let (sender, patience) = (Arc::new(sender), Patience::default());
        Self { number, sender, node, since: now, heard: now, full: None, patience }
    }

    /// Whether it is better than another, when something has come over it. A connection between the two is better than a WebSocket; but one
    /// over which nothing has come since the other was made may be that of an earlier run of the peer.
    fn is_better_than(&self, other: &Self) -> bool {
        self.node.is_some() && other.node.is_none() || other.heard < self.since
    }

    /// Hands a packet to the link. If that is full, what is `patient` may wait for room, and others as long as there is [`Patience`].
    fn hand(&mut self, packet: Bytes, patient: bool, now: Instant) -> Handed {
        match self.sender.try_send(packet) {
            Ok(()) => {
                self.patience.has_room(now);
                Handed::Taken
            }
            Err(NotSent::Full(packet)) => {
                let taken = self.sender.taken();
                let (since, _) = self.full.filter(|(_, before)| *before == taken).unwrap_or((now, taken));
                self.full = Some((since, taken));
                if now >= since + STUCK {
                    self.sender.close();
                }
                if patient || self.patience.full(now) {
                    Handed::Wait(Held { sender: self.sender.clone(), packet })
                } else {
                    Handed::Dropped
                }
            }
            Err(NotSent::Closed | NotSent::TooLarge) => Handed::Over,
        }
    }
}

/// For whom a node is there that was made through the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The routing, ours or that of the other side: it is closed when our routing has no use for it.
    Routing,
    /// Our streams to the peer.
    Streams,
    /// The application of the other side, which closes it.
    Caller,
    /// Our application, which closes it.
    Application,
}

/// The nodes that were made through the overlay.
#[derive(Debug, Default)]
pub(super) struct Purposes(HashMap<NodeId, Purpose>);

impl Purposes {
    fn of(&self, node: &Node) -> Option<Purpose> {
        self.0.get(&node.id()).copied()
    }

    fn set(&mut self, node: &Node, purpose: Purpose) {
        // One that is over is not forgotten again.
        if node.is_open() {
            self.0.insert(node.id(), purpose);
        }
    }

    fn has_room_for_caller(&self) -> bool {
        self.0.values().filter(|purpose| **purpose == Purpose::Caller).count() < CALLER_NODES
    }

    /// Whether the node goes with the overlay.
    pub(super) fn is_ours(&self, node: &Node) -> bool {
        matches!(self.of(node), Some(Purpose::Routing | Purpose::Streams))
    }
}

impl Core {
    /// The routing has no use for the links to a peer.
    pub(super) fn release(&self, state: &mut State, peer: &OverlayId) {
        for entry in state.links.get(peer).into_iter().flatten() {
            match &entry.node {
                None => entry.sender.close(),
                Some(node) if state.purposes.of(node) == Some(Purpose::Routing) => {
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
        if !state.closed {
            let node = match reach {
                Reach::Node { node, routed } => {
                    if routed {
                        state.note_purpose(&peer, &node, now);
                    }
                    Some(node)
                }
                Reach::WebSocket => None,
            };
            let links = state.links.entry(peer).or_default();
            let first = links.is_empty();
            // A connection between the two is better than a WebSocket.
            let at = if node.is_some() { 0 } else { links.partition_point(|entry| entry.node.is_some()) };
            links.insert(at, Entry::new(number, sender, node, now));
            while links.len() > LINKS_PER_PEER {
                let oldest = (0..links.len()).min_by_key(|at| links[*at].number).unwrap_or_default();
                links.remove(oldest).sender.close();
            }
            if first {
                state.expel_original(&peer);
                state.router.neighbour_up(peer, Some(key), now);
            }
            self.drive_on(&mut state, now);
        }
        drop(state);
        Linked { core: self.clone(), peer, number }
    }

    fn remove_link(&self, peer: OverlayId, number: u64) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(links) = state.links.get_mut(&peer) else { return };
        if let Some(at) = links.iter().position(|entry| entry.number == number) {
            links.remove(at).sender.close();
        }
        if links.is_empty() {
            state.links.remove(&peer);
            let now = now();
            state.router.neighbour_down(&peer, now);
            self.drive_on(state, now);
        }
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

    /// The open node of the tree to this peer, if there is one. From now on it is the application's.
    pub(in crate::overlay) fn keep_open_node(&self, peer: &OverlayId) -> Option<Node> {
        let mut state = lock(&self.state);
        let node = state.node(peer)?;
        if state.purposes.of(&node).is_some() {
            state.purposes.set(&node, Purpose::Application);
        }
        Some(node)
    }

    /// A node that the application has called for is its own.
    pub(in crate::overlay) fn keep(&self, node: &Node) {
        lock(&self.state).purposes.set(node, Purpose::Application);
    }

    /// A node is there for streams, unless it is there for an application.
    pub(in crate::overlay) fn use_for_streams(&self, node: &Node) {
        let mut state = lock(&self.state);
        if !matches!(state.purposes.of(node), Some(Purpose::Application | Purpose::Caller)) {
            state.purposes.set(node, Purpose::Streams);
        }
    }

    /// A node is not needed for streams any more. Returns whether it is to be closed: not if somebody else wants it.
    pub(in crate::overlay) fn give_back(&self, peer: &OverlayId, node: &Node) -> bool {
        let mut state = lock(&self.state);
        if state.purposes.of(node) != Some(Purpose::Streams) {
            return false;
        }
        let routed = state.router.routing().neighbours().contains(peer);
        if routed {
            state.purposes.set(node, Purpose::Routing);
        }
        !routed
    }

    /// There are these nodes and no others.
    pub(in crate::overlay) fn forget_others(&self, known: &HashSet<NodeId>) {
        lock(&self.state).purposes.0.retain(|node, _| known.contains(node));
    }

    /// A node is over.
    pub(in crate::overlay) fn forget(&self, node: &Node) {
        lock(&self.state).purposes.0.remove(&node.id());
    }

    /// Has this peer connected to directly, unless it is already.
    pub(in crate::overlay) fn approach(&self, peer: OverlayId) {
        let mut state = lock(&self.state);
        if state.node(&peer).is_none() && !state.called.contains_key(&peer) && state.approached.insert(peer) {
            // If that is forgotten, streams go over relays.
            if self.wishes.try_send(Wish::Approach(peer)).is_err() {
                state.approached.remove(&peer);
            }
        }
    }

    /// A peer is not approached any more.
    pub(in crate::overlay) fn approach_is_over(&self, peer: &OverlayId) {
        lock(&self.state).approached.remove(peer);
    }

    /// The connection that the routing has wished for is there, or will not be.
    pub(in crate::overlay) fn connect_is_over(&self, peer: &OverlayId) {
        let mut state = lock(&self.state);
        if state.wished.remove(peer) && !state.links.contains_key(peer) {
            let now = now();
            state.router.connect_failed(peer, now);
            self.drive_on(&mut state, now);
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
    /// Something has come over this link.
    pub(super) fn heard_over(&mut self, linked: &Linked, now: Instant) {
        let Some(links) = self.links.get_mut(&linked.peer) else { return };
        let Some(at) = links.iter().position(|entry| entry.number == linked.number) else { return };
        links[at].heard = now;
        if at > 0 && links[at].is_better_than(&links[0]) {
            links[..=at].rotate_right(1);
        }
    }

    /// Hands a packet to the best link of a peer that is not over.
    pub(super) fn hand(&mut self, to: &OverlayId, packet: Bytes, patient: bool, now: Instant) -> Handed {
        let links = self.links.get_mut(to).map_or(&mut [][..], |links| &mut links[..]);
        let Some((last, others)) = links.split_last_mut() else { return Handed::Over };
        for link in others {
            match link.hand(packet.clone(), patient, now) {
                Handed::Over => {}
                handed => return handed,
            }
        }
        last.hand(packet, patient, now)
    }

    /// Notes for whom a node is there that was made through the overlay, if that is not known.
    fn note_purpose(&mut self, peer: &OverlayId, node: &Node, now: Instant) {
        let called = self.callers.take(peer, now) && self.purposes.has_room_for_caller();
        if self.purposes.of(node).is_some() {
            return;
        }
        self.purposes.set(
            node,
            match () {
                // Who called tells more in a moment.
                () if self.called.contains_key(peer) => Purpose::Application,
                () if called => Purpose::Caller,
                () => Purpose::Routing,
            },
        );
    }

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

impl Linked {
    /// To whom.
    pub(super) fn peer(&self) -> OverlayId {
        self.peer
    }
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

#[cfg(test)]
mod tests;
