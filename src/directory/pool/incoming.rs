use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::NodeId;
use crate::protocol::Address;

/// How long a place is kept for a peer whose offer was accepted, and of which no node has come.
const RESERVED: Duration = Duration::from_secs(5);

/// Counts the connections that peers have made, so that there are not more than so many, and no user has all of them: one that has places
/// gets a further one only while more are free than it has.
#[derive(Debug)]
pub(in crate::directory) struct Incoming {
    limit: usize,
    /// Offers that were accepted and are no nodes yet, and of whom.
    reserved: HashMap<Address, (Instant, Arc<str>)>,
    nodes: HashMap<NodeId, Arc<str>>,
}

impl Incoming {
    pub(in crate::directory) fn new(limit: usize) -> Self {
        Self { limit, reserved: HashMap::new(), nodes: HashMap::new() }
    }

    /// Whether there is a place for a peer of a user that makes an offer. If so, it has it.
    pub(in crate::directory) fn admit(&mut self, from: &Address, user: &Arc<str>, now: Instant) -> bool {
        self.reserved.retain(|_, (until, _)| now < *until);
        let room = self.reserved.contains_key(from) || self.has_share(user);
        if room {
            self.reserved.insert(from.clone(), (now + RESERVED, user.clone()));
        }
        room
    }

    fn has_share(&self, user: &str) -> bool {
        let users = || self.reserved.values().map(|(_, user)| user).chain(self.nodes.values());
        let held = users().filter(|holder| ***holder == *user).count();
        held < self.limit.saturating_sub(users().count())
    }

    /// A node was made for a peer. Returns whether it is of an offer that was admitted.
    pub(in crate::directory) fn made(&mut self, from: &Address, node: NodeId) -> bool {
        let admitted = self.reserved.remove(from).map(|(_, user)| self.nodes.insert(node, user));
        admitted.is_some()
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
        self.nodes.retain(|node, _| nodes.contains(node));
    }
}
