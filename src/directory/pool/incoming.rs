use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::node::NodeId;
use crate::protocol::Address;

/// How long a place is kept for a peer whose offer was accepted, and of which no node has come.
const RESERVED: Duration = Duration::from_secs(5);

/// Counts the connections that peers have made, so that there are not more than so many.
#[derive(Debug)]
pub(in crate::directory) struct Incoming {
    limit: usize,
    /// Offers that were accepted and are no nodes yet.
    reserved: HashMap<Address, Instant>,
    nodes: HashSet<NodeId>,
}

impl Incoming {
    pub(in crate::directory) fn new(limit: usize) -> Self {
        Self { limit, reserved: HashMap::new(), nodes: HashSet::new() }
    }

    /// Whether there is a place for a peer that makes an offer. If so, it has it.
    pub(in crate::directory) fn admit(&mut self, from: &Address, now: Instant) -> bool {
        self.reserved.retain(|_, until| now < *until);
        let room = self.reserved.contains_key(from) || self.reserved.len() + self.nodes.len() < self.limit;
        if room {
            self.reserved.insert(from.clone(), now + RESERVED);
        }
        room
    }

    /// A node was made for a peer. Returns whether it is of an offer that was admitted.
    pub(in crate::directory) fn made(&mut self, from: &Address, node: NodeId) -> bool {
        let admitted = self.reserved.remove(from).is_some();
        if admitted {
            self.nodes.insert(node);
        }
        admitted
    }

    /// What was admitted has become the same connection as one that this side was making.
    pub(in crate::directory) fn merged(&mut self, from: &Address) {
        self.reserved.remove(from);
    }

    /// A node is over.
    pub(in crate::directory) fn closed(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Only these nodes are not over.
    pub(in crate::directory) fn retain(&mut self, nodes: &HashSet<NodeId>) {
        self.nodes.retain(|node| nodes.contains(node));
    }
}
