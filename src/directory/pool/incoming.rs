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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u64) -> Address {
        Address::new(number.to_string()).unwrap()
    }

    #[test]
    fn so_many_peers_may_connect_as_was_said() {
        let (mut incoming, now) = (Incoming::new(2), Instant::now());
        // Each of a user of its own.
        let admit =
            |incoming: &mut Incoming, number, now| incoming.admit(&address(number), &number.to_string().into(), now);
        assert!(admit(&mut incoming, 1, now) && admit(&mut incoming, 2, now));
        assert!(admit(&mut incoming, 1, now), "who has a place keeps it");
        assert!(!admit(&mut incoming, 3, now));
        assert!(incoming.made(&address(1), NodeId(1)));
        assert!(!incoming.made(&address(3), NodeId(3)), "one of our own");
        incoming.merged(&address(2));
        assert!(admit(&mut incoming, 3, now));
        assert!(!admit(&mut incoming, 4, now));
        // Nothing came of it.
        assert!(admit(&mut incoming, 4, now + RESERVED));
        incoming.closed(NodeId(1));
        assert!(admit(&mut incoming, 5, now + RESERVED));
    }

    #[test]
    fn no_user_has_all_places() {
        let (bob, carol, dave): (Arc<str>, Arc<str>, Arc<str>) = ("bob".into(), "carol".into(), "dave".into());
        for (limit, alone) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (9, 5)] {
            let (mut incoming, now) = (Incoming::new(limit), Instant::now());
            let taken = (0..20).filter(|number| incoming.admit(&address(*number), &bob, now)).count();
            assert_eq!(taken, alone, "{limit}");
            assert_eq!(incoming.admit(&address(30), &carol, now), limit > 1);
            (0..20).for_each(|number| _ = incoming.made(&address(number), NodeId(number)));
            assert!(!incoming.admit(&address(21), &bob, now), "nodes count as offers do");
        }
        let (mut incoming, now) = (Incoming::new(5), Instant::now());
        let mut admit = |number, user| incoming.admit(&address(number), user, now);
        let all = [&bob, &bob, &bob, &bob, &carol, &carol, &dave, &dave].into_iter().zip(0..);
        let admitted: Vec<_> = all.map(|(user, number)| admit(number, user)).collect();
        assert_eq!(admitted, [true, true, true, false, true, false, true, false]);
    }
}
