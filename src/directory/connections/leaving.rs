//! What becomes of the connections to peers that leave.

use super::*;
use crate::identity::PeerId;

impl Connections {
    /// The directory names a peer. Returns whether it was somebody else before, to whom there still is a connection.
    pub(in crate::directory) fn named(&mut self, peer: PeerNumber, name: &str) -> bool {
        self.doubts.clear(peer);
        self.users.get(&peer).is_some_and(|known| **known != *name)
    }

    /// The peers of a user to whom there is a connection, named or not.
    pub(in crate::directory) fn connected(&self, alias: &str) -> impl Iterator<Item = PeerNumber> {
        self.users.iter().filter(move |(_, user)| ***user == *alias).map(|(peer, _)| *peer)
    }

    /// The directory has not named these peers for too long. Their calls are not taken any more, and connections to them are closed, but
    /// for those of the application.
    pub(super) fn drop_doubted(&mut self) {
        while let Some(peer) = self.doubts.next_over(now()) {
            self.serving.retain(|_, (served, _)| served.number != peer);
            // The other side makes a new one, where it is known by its number of now.
            if let Some(node) = self.nodes.get(&peer).filter(|node| !self.taken.contains(&node.id())) {
                close(node);
                self.pool.disowned(peer, true, now());
            }
        }
    }

    /// The users to whose peers there are connections.
    pub(in crate::directory) fn users(&self) -> HashSet<Arc<str>> {
        self.users.values().cloned().collect()
    }

    /// There is an open connection to a peer of this user, if the directory names it.
    pub(super) fn connected_to(&mut self, peer: PeerNumber, node: &Node, user: Option<&Arc<str>>) {
        self.nodes.insert(peer, node.clone());
        match user {
            Some(user) => drop(self.users.insert(peer, user.clone())),
            // It has left while the connection was made.
            None if !self.users.contains_key(&peer) => self.doubts.left(peer, now()),
            None => {}
        }
    }

    /// A peer that the directory names as one of this user says by which key it is known: connections of this user with the same key are
    /// its own, also of an earlier login. Returns by which numbers.
    pub(in crate::directory) fn vouched(&mut self, by: PeerNumber, user: &str, key: PeerId) -> Vec<PeerNumber> {
        let is_users = |peer: &PeerNumber| self.users.get(peer).is_some_and(|known| **known == *user);
        let same = self.nodes.iter().filter(|(peer, node)| node.peer_id() == Some(key) && is_users(peer));
        let same: Vec<_> = same.map(|(peer, _)| *peer).collect();
        for peer in same.iter().filter(|peer| **peer != by) {
            self.vouchers.insert(*peer, by);
            self.doubts.clear(*peer);
        }
        same
    }

    /// For whom a peer has vouched that is not named any more.
    fn vouched_by(&mut self, by: PeerNumber) -> Vec<PeerNumber> {
        self.vouchers.extract_if(|_, voucher| *voucher == by).map(|(peer, _)| peer).collect()
    }

    /// The open connection to a peer is over.
    pub(super) fn disconnected(&mut self, peer: PeerNumber) {
        self.nodes.remove(&peer);
        self.users.remove(&peer);
        self.doubts.clear(peer);
        self.vouchers.remove(&peer);
        self.pool.closed(peer, now());
    }
}

impl Core {
    /// The directory does not name a peer any more. What is under way with it may go on for the grace period.
    pub(in crate::directory) fn peer_left(self: &Arc<Self>, state: &mut State, peer: PeerNumber) {
        state.connections.pool.left(peer, now());
        let connections = &mut state.connections;
        let mut doubted = connections.vouched_by(peer);
        if connections.nodes.contains_key(&peer) && !connections.vouchers.contains_key(&peer) {
            doubted.push(peer);
        }
        // Who is named needs nobody to vouch for it.
        doubted.retain(|peer| state.presence.alias(*peer).is_none());
        doubted.into_iter().for_each(|peer| connections.doubts.left(peer, now()));
        self.act(state);
    }

    /// The peer at the other end of a connection has shown that it is still who it was. Its calls are taken again, if it was away for too
    /// long.
    pub(in crate::directory) fn serve_again(self: &Arc<Self>, state: &mut State, peer: PeerNumber) {
        let connections = &state.connections;
        if let (Some(node), Some(user)) = (connections.nodes.get(&peer).cloned(), connections.users.get(&peer).cloned())
            && node.is_open()
        {
            self.take_calls(state, peer, &node, &user);
        }
    }

    /// Nobody knows any more who these peers are. Their calls are not taken, those to them fail, and every connection by which the
    /// directory has introduced them is closed, also the application's own.
    pub(in crate::directory) fn disown(self: &Arc<Self>, state: &mut State, mut peers: HashSet<PeerNumber>) {
        let connections = &mut state.connections;
        // With what they were before.
        let former: Vec<_> = peers.iter().flat_map(|peer| connections.vouched_by(*peer)).collect();
        peers.extend(former);
        connections.serving.retain(|_, (peer, _)| !peers.contains(&peer.number));
        for peer in &peers {
            connections.doubts.clear(*peer);
            connections.pool.disowned(*peer, connections.nodes.contains_key(peer), now());
        }
        let open = connections.nodes.iter().filter(|(peer, _)| peers.contains(peer));
        open.for_each(|(_, node)| close(node));
        // And those that are being made.
        let all = self.root.peers();
        let theirs = all.iter().filter(|node| connections.peer(node).is_some_and(|peer| peers.contains(&peer)));
        theirs.for_each(close);
        self.act(state);
    }
}
