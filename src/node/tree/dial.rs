//! Connect calls. Several to one address through one introducer share an attempt; each keeps its own time.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::negotiate::Negotiation;
use super::{Member, NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::protocol::Address;
use crate::protocol::proof::Nonce;
use crate::protocol::signal::{Refusal, Session};
use crate::transport::Target;

/// The order of a connect call.
#[derive(Debug, Clone)]
pub(crate) struct Dial<P> {
    pub(crate) to: Address,
    pub(crate) data: Value,
    /// Replaces the inherited policy for the subtree.
    pub(crate) policy: Option<P>,
    pub(crate) timeout: Duration,
    /// The only peer that will do, if any.
    pub(crate) expect: Option<PeerId>,
    /// Random numbers.
    pub(crate) session: Session,
    pub(crate) nonce: Nonce,
}

impl<P> Dial<P> {
    /// Why this peer will not do, if it will not.
    pub(super) fn turns_down(&self, found: Option<PeerId>) -> Option<CloseReason> {
        let expected = self.expect.filter(|expected| found != Some(*expected))?;
        Some(CloseReason::UnexpectedPeer { expected, found })
    }
}

/// A connect call that waits for the node of another.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    pub(super) owner: NodeId,
    /// The introducer that the call named. That of the owner may be another.
    via: NodeId,
    dial: Dial<P>,
    pub(super) deadline: Instant,
    /// Whether the node had an attempt of its own before.
    shown: bool,
}

impl<P> Waiting<P> {
    /// The introducer that was told of the node.
    fn shown_to(&self) -> Option<NodeId> {
        self.shown.then_some(self.via)
    }
}

impl<P: Clone> Tree<P> {
    /// Connects a new node to a WebSocket server.
    pub(crate) fn connect_url(&mut self, node: NodeId, url: Address, policy: P, timeout: Duration, now: Instant) {
        let target = Target::Url(url.as_str().to_owned());
        *self.onramps.entry(url.clone()).or_default() += 1;
        self.insert(node, url, None, policy, Phase::Dialling, now + timeout).wanted = true;
        self.outputs.push_back(Output::Connection { node, via: None });
        self.start(node, target);
    }

    /// Connects a new node to a peer of `via`.
    pub(crate) fn connect(&mut self, node: NodeId, via: NodeId, dial: Dial<P>, now: Instant) {
        let deadline = now + dial.timeout;
        self.dial(node, Waiting { owner: node, via, dial, deadline, shown: false });
    }

    fn dial(&mut self, node: NodeId, call: Waiting<P>) {
        let via = self.nodes.get(&call.via).filter(|via| matches!(via.phase, Phase::Open));
        let Some(policy) = via.map(|via| call.dial.policy.as_ref().unwrap_or(&via.policy).clone()) else {
            self.outputs.push_back(Output::Closed { node, reason: CloseReason::ViaClosed, via: call.shown_to() });
            return;
        };
        if let Some(instead) = self.suitable(&call.dial) {
            self.redirect(node, &call, instead);
        } else if let Some(owner) = self.pending.get(call.via, &call.dial.to) {
            self.wait(node, owner, call);
        } else {
            self.attempt(node, call, policy);
        }
    }

    /// The open node that the call wants, if there is one.
    fn suitable(&self, dial: &Dial<P>) -> Option<NodeId> {
        let open = self.open.get(&dial.to).copied();
        open.filter(|node| dial.turns_down(self.peer(*node)).is_none())
    }

    fn attempt(&mut self, node: NodeId, call: Waiting<P>, policy: P) {
        let Waiting { via, dial, deadline, shown, .. } = call;
        let phase = Phase::Negotiating(Box::new(Negotiation::ours(&dial)));
        let entry = self.insert(node, dial.to.clone(), Some(via), policy, phase, deadline);
        entry.session = Some(dial.session);
        entry.wanted = true;
        let to = dial.to.clone();
        entry.dial = Some(dial);
        self.pending.insert(via, to, node);
        if !shown {
            self.outputs.push_back(Output::Connection { node, via: Some(via) });
        }
        self.start(node, Target::Offer);
    }

    fn wait(&mut self, node: NodeId, owner: NodeId, call: Waiting<P>) {
        self.nodes.get_mut(&owner).expect("pending nodes exist").joined.insert(node);
        self.deadlines.insert((call.deadline, node));
        self.waiting.insert(node, Waiting { owner, ..call });
    }

    /// Whoever waits for the node gets another, which is open, if that will do.
    fn redirect(&mut self, node: NodeId, call: &Waiting<P>, instead: NodeId) {
        let turned_down = call.dial.turns_down(self.peer(instead));
        if turned_down.is_none() {
            self.outputs.push_back(Output::Redirect { node, instead });
        }
        let reason = turned_down.unwrap_or(CloseReason::Duplicate);
        self.outputs.push_back(Output::Closed { node, reason, via: call.shown_to() });
    }

    fn take_waiting(&mut self, node: NodeId) -> Option<Waiting<P>> {
        let call = self.waiting.remove(&node)?;
        self.deadlines.remove(&(call.deadline, node));
        Some(call)
    }

    /// What a node waited for is open.
    pub(super) fn serve_waiting(&mut self, node: NodeId, instead: NodeId) {
        if let Some(call) = self.take_waiting(node) {
            self.redirect(node, &call, instead);
        }
    }

    /// Ends a node that waits for another. Returns false if it does not.
    pub(super) fn stop_waiting(&mut self, node: NodeId, reason: CloseReason) -> bool {
        let Some(call) = self.take_waiting(node) else { return false };
        self.outputs.push_back(Output::Closed { node, reason, via: call.shown_to() });
        let owner = self.nodes.get_mut(&call.owner).expect("who is waited for exists");
        owner.joined.remove(&node);
        self.drop_unwanted(call.owner);
        true
    }

    /// Nobody waits for the node any more: gives the attempt up, unless it is open or others wait for it.
    pub(crate) fn abandon(&mut self, node: NodeId) {
        if self.stop_waiting(node, CloseReason::Cancelled) {
            return;
        }
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.wanted = false;
            self.drop_unwanted(node);
        }
    }

    fn drop_unwanted(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get(&node) else { return };
        let ours = match &entry.phase {
            Phase::Dialling => true,
            Phase::Negotiating(negotiation) => negotiation.is_ours(),
            Phase::Open | Phase::Closing(_) => false,
        };
        if ours && !entry.in_demand() {
            self.fail(node, CloseReason::Cancelled);
        }
    }

    /// A negotiation came to nothing. Its node has been removed.
    pub(super) fn attempt_failed(&mut self, node: NodeId, entry: Member<P>, reason: CloseReason) {
        let Member { address, via: Some(via), phase: Phase::Negotiating(mut negotiation), .. } = entry else { return };
        let ours = negotiation.is_ours();
        if self.is_open(via)
            && let Some(rival) = negotiation.take_rival()
        {
            // The other side waits for an answer.
            self.admit(via, address.clone(), rival);
        }
        if !ours && reason != CloseReason::Remote {
            // It need not wait for the link.
            self.refuse(via, &address, negotiation.session, Refusal::Failed);
        }
        let tried = entry.dial.as_ref().map(|dial| (dial.data.clone(), dial.expect));
        let own = match (entry.dial, entry.deadline) {
            (Some(dial), Some(deadline)) if entry.wanted && self.elsewhere(&dial, &reason) => {
                Some(Waiting { owner: node, via, dial, deadline, shown: true })
            }
            _ => None,
        };
        match own {
            Some(call) => self.go_elsewhere(node, call),
            None => self.outputs.push_back(Output::Closed { node, reason: reason.clone(), via: Some(via) }),
        }
        for waiting in entry.joined {
            let Some(call) = self.take_waiting(waiting) else { continue };
            let again = match reason {
                CloseReason::RootClosed => false,
                // What was found out about another introducer, or about the other side's attempt, says little.
                _ if call.via != via || !ours => true,
                CloseReason::TimedOut | CloseReason::Local => true,
                CloseReason::Refused => tried.as_ref().map(|(data, _)| data) != Some(&call.dial.data),
                CloseReason::UnexpectedPeer { .. } => {
                    tried.as_ref().map(|(_, expect)| expect) != Some(&call.dial.expect)
                }
                _ => false,
            };
            if self.elsewhere(&call.dial, &reason) {
                self.go_elsewhere(waiting, call);
            } else if again {
                self.dial(waiting, call);
            } else {
                self.outputs.push_back(Output::Closed { node: waiting, reason: reason.clone(), via: call.shown_to() });
            }
        }
    }

    /// Whether there is another connection to the address, or one on its way that ended this attempt.
    fn elsewhere(&self, dial: &Dial<P>, reason: &CloseReason) -> bool {
        match reason {
            CloseReason::Local | CloseReason::RootClosed | CloseReason::Cancelled => false,
            CloseReason::AlreadyConnected | CloseReason::Remote if self.pending.any(&dial.to).is_some() => true,
            _ => self.suitable(dial).is_some(),
        }
    }

    fn go_elsewhere(&mut self, node: NodeId, call: Waiting<P>) {
        if let Some(instead) = self.suitable(&call.dial) {
            self.redirect(node, &call, instead);
        } else if let Some(owner) = self.pending.any(&call.dial.to) {
            self.wait(node, owner, call);
        }
    }
}
