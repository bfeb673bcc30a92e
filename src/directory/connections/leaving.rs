//! What becomes of the connections to peers that leave.

use super::*;

impl Connections {
    /// The directory names a peer. Returns whether it was somebody else before.
    pub(in crate::directory) fn named(&mut self, peer: PeerNumber, name: &str) -> bool {
        self.doubts.clear(peer) && self.serving.values().any(|(known, _)| known.number == peer && known.name != name)
    }

    /// The peers of a user whose calls are taken.
    pub(in crate::directory) fn served(&self, alias: &str) -> impl Iterator<Item = PeerNumber> {
        self.serving.values().filter(move |(peer, _)| peer.name == alias).map(|(peer, _)| peer.number)
    }

    /// The directory has not named these peers for too long. Their calls are not taken any more. What the pool has made is closed; a
    /// connection of the application, or of the other side, is theirs.
    pub(super) fn drop_doubted(&mut self) {
        while let Some(peer) = self.doubts.next_over(now()) {
            self.serving.retain(|_, (served, _)| served.number != peer);
            if self.pool.made().any(|made| made == peer) {
                self.pool.disowned(peer, true, now());
                self.nodes.get(&peer).into_iter().for_each(close);
            }
        }
    }

    /// The open connection to a peer is over.
    pub(super) fn disconnected(&mut self, peer: PeerNumber) {
        self.nodes.remove(&peer);
        self.doubts.clear(peer);
        self.pool.closed(peer, now());
    }
}

impl Core {
    /// The directory does not name a peer any more. What is under way with it may go on for the grace period.
    pub(in crate::directory) fn peer_left(self: &Arc<Self>, state: &mut State, peer: PeerNumber) {
        state.connections.pool.left(peer, now());
        if state.connections.nodes.contains_key(&peer) {
            state.connections.doubts.left(peer, now());
        }
        self.act(state);
    }

    /// Nobody knows any more who these peers are. Their calls are not taken, those to them fail, and every connection by which the
    /// directory has introduced them is closed, also the application's own.
    pub(in crate::directory) fn disown(self: &Arc<Self>, state: &mut State, peers: &HashSet<PeerNumber>) {
        let connections = &mut state.connections;
        connections.serving.retain(|_, (peer, _)| !peers.contains(&peer.number));
        for peer in peers {
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
