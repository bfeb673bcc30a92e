//! Links that are open, and what happens where two lead to one address.

use super::{NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::protocol::frame;

impl<P: Clone> Tree<P> {
    pub(super) fn opened(&mut self, node: NodeId, extension: bool) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        if matches!(entry.phase, Phase::Open | Phase::Closing(_)) {
            return;
        }
        // An onramp of pmesh says first who we are there. Then the node is open.
        let welcomed = entry.via.is_some() || !extension || entry.extension;
        entry.extension = extension;
        if !welcomed {
            return;
        }
        let expected = entry.dial.take().is_some_and(|dial| dial.expect.is_some());
        for deadline in [entry.deadline.take(), entry.patience.take()].into_iter().flatten() {
            self.deadlines.remove(&(deadline, node));
        }
        let (address, via) = (entry.address.clone(), entry.via);
        let joined = std::mem::take(&mut entry.joined);
        if let Phase::Negotiating(negotiation) = self.enter(node, Phase::Open)
            && let Some(entry) = self.nodes.get_mut(&node)
        {
            entry.peer = negotiation.peer();
            entry.fragments = negotiation.into_fragments();
        }
        let Some(via) = via else {
            self.outputs.push_back(Output::Opened { node, peer: None });
            return;
        };
        self.pending.remove(via, &address);
        let other = self.open.get(&address).copied();
        let kept = other.filter(|other| !self.prevails(node, *other, expected)).unwrap_or(node);
        if kept == node {
            self.outputs.push_back(Output::Opened { node, peer: self.peer(node) });
            if extension {
                let text = frame::welcome(&address);
                self.outputs.push_back(Output::Frame { node, text });
            }
            self.open.insert(address, node);
        }
        if let Some(other) = other {
            let lost = if kept == node { other } else { node };
            if self.peer(lost) == self.peer(kept) {
                self.outputs.push_back(Output::Redirect { node: lost, instead: kept });
                self.close(lost, CloseReason::Duplicate);
            } else {
                self.fail(lost, CloseReason::Duplicate);
            }
        }
        for waiting in joined {
            self.serve_waiting(waiting, kept);
        }
    }

    /// Whether a node that is just open takes the place of another under the same address.
    fn prevails(&self, node: NodeId, other: NodeId, expected: bool) -> bool {
        let (Some(node), Some(other)) = (self.nodes.get(&node), self.nodes.get(&other)) else { return true };
        if node.peer == other.peer {
            // Two negotiations over two introducers ran at once. Both sides know both sessions and keep the larger.
            node.session > other.session
        } else {
            // Two introducers have given one address to two peers. The first keeps it, unless the second was expected, or
            // the first has shown no identity.
            expected || other.peer.is_none()
        }
    }
}
