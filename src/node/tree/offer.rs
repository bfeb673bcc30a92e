//! Incoming offers: what the firewall is asked, and what happens where two offers cross.
//!
//! Between pmesh peers each offer has a random session. Of two that cross, the larger session wins: who finds its own
//! smaller answers the other's, on the same node. An offer that has not left yet always gives way. The loser's offer is
//! kept; should nothing come of the winner's, it is next. An original P has no sessions and cannot drop its offer, so
//! towards it we give way; only if our firewall refuses its offer do we use an answer that it gave to ours.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::negotiate::{Negotiation, Role, remote, user_fragments};
use super::{CheckId, MAX_CHECKS_PER_VIA, MAX_INCOMING, MAX_INCOMING_PER_PEER, NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::node::firewall::Verdict;
use crate::protocol::Address;
use crate::protocol::proof::{Nonce, Offered};
use crate::protocol::signal::{Candidate, Description, Extension, Refusal, Session};
use crate::transport::{Account, Target};

/// How long the winner of two offers may stay unanswered until the loser is looked at. The other side may never have seen
/// it, or its firewall may ignore it.
const PATIENCE: Duration = Duration::from_secs(3);

/// An offer as it came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) description: Description,
    pub(super) data: Value,
    pub(super) ext: Option<Extension>,
    /// Its proof of identity, checked; none of an original.
    pub(super) offered: Option<Offered>,
    /// Candidates that came before the offer was accepted.
    pub(super) candidates: Vec<Candidate>,
    /// On whose account it comes, if the introducer says so.
    pub(super) account: Option<Account>,
    /// What was decided when the firewall accepted it.
    pub(super) accepted: Option<Accepted>,
}

/// What an accepted offer is answered with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted {
    /// The number for our proof.
    pub(super) nonce: Nonce,
    /// The node to be made, if there is none to go on with.
    node: NodeId,
    /// Until when it has to be open.
    until: Instant,
}

impl Incoming {
    pub(super) fn new(description: Description, data: Value, ext: Option<Extension>, offered: Option<Offered>) -> Self {
        Self { description, data, ext, offered, candidates: Vec::new(), account: None, accepted: None }
    }

    /// Who makes it.
    fn peer(&self) -> Option<PeerId> {
        self.offered.as_ref().map(Offered::key)
    }

    pub(super) fn session(&self) -> Option<Session> {
        self.ext.as_ref().map(|ext| ext.session)
    }

    /// Whether the other came twice.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.session() == other.session() && (self.session().is_some() || self.description == other.description)
    }
}

/// An offer that the firewall is looking at.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) via: NodeId,
    pub(super) from: Address,
    pub(super) offer: Incoming,
}

impl<P: Clone> Tree<P> {
    pub(super) fn offer(&mut self, via: NodeId, from: Address, offer: Incoming, now: Instant) {
        let session = offer.session();
        let call = self.pending.get(via, &from).and_then(|node| self.nodes.get(&node)?.dial.as_ref());
        if call.is_some_and(|call| call.turns_down(offer.peer()).is_some()) {
            // Not whom we are calling. Our call goes on.
            self.refuse(via, &from, session, Refusal::Refused);
            return;
        }
        if let Some(check) = self.checking.get(via, &from) {
            if self.checks.get(&check).is_some_and(|check| check.offer.is_same(&offer)) {
                return;
            }
            // The other side has started over.
            self.cancel_check(check);
        }
        if let Some(node) = self.pending.get(via, &from)
            && let Some(entry) = self.nodes.get_mut(&node)
            && let Phase::Negotiating(negotiation) = &mut entry.phase
        {
            if negotiation.is_of(&offer) {
                return;
            }
            if negotiation.prevails_over(session) {
                negotiation.keep_rival(offer);
                self.be_patient(node, Some(now + PATIENCE));
                self.go_on_without(via, &from);
                return;
            }
            // The other side has started over. Who waits for our node may get it for the new offer.
            negotiation.take_rival();
            if !negotiation.is_ours() && !entry.wanted {
                self.fail(node, CloseReason::Remote);
            } else {
                self.be_patient(node, None);
            }
        }
        self.ask(via, from, offer);
    }

    /// An offer of ours has come to us.
    pub(super) fn own_offer(&mut self, via: NodeId, from: &Address, session: Option<Session>) {
        match self.pending.get(via, from) {
            Some(node) if self.nodes.get(&node).is_some_and(|entry| entry.session == session) => {
                self.fail(node, CloseReason::OwnAddress);
            }
            // Through another node, or by another root with our key.
            _ => self.refuse(via, from, session, Refusal::Own),
        }
    }

    /// Asks the firewall about an offer.
    pub(super) fn ask(&mut self, via: NodeId, from: Address, offer: Incoming) {
        let Some(entry) = self.nodes.get(&via) else { return };
        let asked = self.checking.count(via);
        let one_peer = entry.via.is_some() && entry.guests + asked >= MAX_INCOMING_PER_PEER;
        if one_peer || !self.may_ask(via, offer.account) || self.incoming + self.checks.len() >= MAX_INCOMING {
            self.refuse(via, &from, offer.session(), Refusal::Busy);
            self.go_on_without(via, &from);
            return;
        }
        let policy = entry.policy.clone();
        self.next_check += 1;
        let check = CheckId(self.next_check);
        let (data, peer) = (offer.data.clone(), offer.peer());
        self.checking.insert(via, from.clone(), check);
        self.checks.insert(check, Check { via, from: from.clone(), offer });
        self.outputs.push_back(Output::Check { check, via, from, peer, data, policy });
    }

    /// Whether there is a question left for an offer on this account. An account may have as many as are left (dynamic thresholds, as
    /// Choudhury and Hahne have them for buffers): so one alone gets half of them, of `n` that want all there are each gets one in
    /// `n + 1`, and there is as much left for the next. Those in the background together count as one more.
    fn may_ask(&self, via: NodeId, account: Option<Account>) -> bool {
        let asked = self.checking.of(via);
        let left = MAX_CHECKS_PER_VIA.saturating_sub(asked.len());
        let accounts = || asked.iter().filter_map(|check| self.checks.get(check)?.offer.account);
        match account {
            None => left > 0,
            Some(Account { number, background }) => {
                accounts().filter(|other| other.number == number).count() < left
                    && (!background || accounts().filter(|other| other.background).count() < left)
            }
        }
    }

    pub(super) fn cancel_check(&mut self, check: CheckId) {
        if self.take_check(check).is_some() {
            self.outputs.push_back(Output::CancelCheck { check });
        }
    }

    fn take_check(&mut self, check: CheckId) -> Option<Check> {
        let taken = self.checks.remove(&check)?;
        self.checking.remove(taken.via, &taken.from);
        Some(taken)
    }

    /// Takes what the firewall says. `fresh` is the node to be made if a new one is needed, `nonce` a random number.
    pub(crate) fn handle_verdict(
        &mut self,
        check: CheckId,
        verdict: Verdict,
        fresh: NodeId,
        nonce: Nonce,
        now: Instant,
    ) {
        let Some(Check { via, from, mut offer }) = self.take_check(check) else { return };
        let crossing = self.pending.get(via, &from);
        if verdict != Verdict::Accept {
            self.counters.offers_refused += 1;
            // Who is dialled by us knows that we are here: silence would only keep it from answering.
            match verdict {
                Verdict::Busy => self.refuse(via, &from, offer.session(), Refusal::Busy),
                Verdict::Ignore if crossing.is_none() => {}
                _ => self.refuse(via, &from, offer.session(), Refusal::Refused),
            }
            self.go_on_without(via, &from);
            return;
        }
        if self.open.contains_key(&from) {
            self.refuse(via, &from, offer.session(), Refusal::Connected);
            self.go_on_without(via, &from);
            return;
        }
        self.counters.offers_accepted += 1;
        offer.accepted = Some(Accepted { nonce, node: fresh, until: now + self.settings.accept_timeout });
        if let Some(node) = crossing {
            let dial = self.nodes.get(&node).and_then(|entry| entry.dial.as_ref());
            if dial.is_some_and(|dial| dial.turns_down(offer.peer()).is_some()) {
                // Our call, which is for somebody else, has begun meanwhile.
                self.refuse(via, &from, offer.session(), Refusal::Refused);
                self.go_on_without(via, &from);
                return;
            }
            if let Some((.., negotiation)) = self.negotiation(node)
                && negotiation.prevails_over(offer.session())
            {
                negotiation.keep_rival(offer);
                self.be_patient(node, Some(now + PATIENCE));
            } else {
                self.answer_offer(node, offer);
            }
            return;
        }
        self.admit(via, from, offer);
    }

    /// Makes a node for an offer that was accepted; asks the firewall about any other.
    pub(super) fn admit(&mut self, via: NodeId, from: Address, offer: Incoming) {
        let Some(Accepted { node, until, .. }) = offer.accepted else { return self.ask(via, from, offer) };
        if self.open.contains_key(&from) {
            self.refuse(via, &from, offer.session(), Refusal::Connected);
            return;
        }
        let Some(policy) = self.nodes.get(&via).map(|via| via.policy.clone()) else { return };
        let phase = Phase::Negotiating(Box::new(Negotiation::theirs(&offer)));
        self.insert(node, from.clone(), Some(via), policy, phase, until);
        self.pending.insert(via, from.clone(), node);
        self.outputs.push_back(Output::Create { node, address: from, via });
        self.outputs.push_back(Output::Connection { node, via: Some(via) });
        self.answer_offer(node, offer);
    }

    /// Goes on with an accepted offer, in place of what the node did before.
    fn answer_offer(&mut self, node: NodeId, offer: Incoming) {
        self.begin(node, Negotiation::theirs(&offer));
        let remote = remote(offer.ext);
        let fragments = user_fragments(&offer.description.sdp);
        self.start(node, Target::Answer { offer: offer.description, remote });
        self.pass_candidates(node, &fragments, offer.candidates);
    }

    /// Makes our offer after theirs came to nothing. Returns false if nobody here waits for the node.
    pub(super) fn offer_again(&mut self, node: NodeId) -> bool {
        let Some(entry) = self.nodes.get_mut(&node) else { return false };
        let Some(via) = entry.via.filter(|_| entry.phase.is_incoming() && entry.in_demand()) else { return false };
        let Some(dial) = &mut entry.dial else { return false };
        // Another one, so that an answer to the first is not taken for one to this.
        dial.session = Session(dial.session.0.wrapping_add(1));
        let negotiation = Negotiation::ours(dial);
        if !self.is_open(via) {
            return false;
        }
        self.begin(node, negotiation);
        self.start(node, Target::Offer);
        true
    }

    fn begin(&mut self, node: NodeId, negotiation: Negotiation) {
        self.be_patient(node, None);
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.session = negotiation.session;
        }
        self.enter(node, Phase::Negotiating(Box::new(negotiation)));
    }

    /// The offer that a node answers has been given up.
    pub(super) fn withdrawn(&mut self, node: NodeId) {
        if !self.offer_again(node) {
            self.fail(node, CloseReason::Remote);
        }
    }

    /// An offer that crossed ours, or came after one that we answer, is out: what was put off for it goes on.
    fn go_on_without(&mut self, via: NodeId, from: &Address) {
        let Some(node) = self.pending.get(via, from) else { return };
        let Some((.., negotiation)) = self.negotiation(node) else { return };
        match &mut negotiation.role {
            Role::Ours { refused: Some(reason), .. } => {
                let reason = reason.clone();
                self.fail(node, reason);
            }
            Role::Ours { answer, .. } => {
                if let Some(description) = answer.take() {
                    self.use_answer(node, description, None);
                }
            }
            Role::Theirs => self.withdrawn(node),
        }
    }

    /// Our offer was turned down. Theirs is next, if there is one.
    pub(super) fn refused(&mut self, node: NodeId, via: NodeId, from: Address, reason: CloseReason) {
        let asking = self.checking.get(via, &from).is_some();
        let Some((.., negotiation)) = self.negotiation(node) else { return };
        let rival = negotiation.take_rival();
        if let Role::Ours { refused, .. } = &mut negotiation.role
            && (asking || rival.is_some())
        {
            *refused = Some(reason);
            self.look_at(node, via, from, rival);
        } else {
            self.fail(node, reason);
        }
    }

    /// Turns to the offer that was kept while ours was thought to win.
    fn look_at(&mut self, node: NodeId, via: NodeId, from: Address, rival: Option<Incoming>) {
        self.be_patient(node, None);
        match rival {
            Some(offer) if offer.accepted.is_some() => self.answer_offer(node, offer),
            Some(offer) => self.ask(via, from, offer),
            None => {}
        }
    }

    /// Until when our offer may stay unanswered while one of theirs waits. The first time counts; `None` ends the wait.
    pub(super) fn be_patient(&mut self, node: NodeId, until: Option<Instant>) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let unanswered = matches!(&entry.phase, Phase::Negotiating(negotiation) if !negotiation.is_answered());
        let in_time = |until: &Instant| unanswered && entry.deadline.is_some_and(|deadline| *until < deadline);
        let until = until.map(|until| entry.patience.unwrap_or(until)).filter(in_time);
        if let Some(at) = std::mem::replace(&mut entry.patience, until) {
            self.deadlines.remove(&(at, node));
        }
        if let Some(at) = until {
            self.deadlines.insert((at, node));
        }
    }

    /// Looks at the other side's offer if ours has been waiting long enough. Returns false if it has not.
    pub(super) fn lose_patience(&mut self, node: NodeId, now: Instant) -> bool {
        let patience = self.nodes.get(&node).and_then(|entry| entry.patience);
        if patience.is_none_or(|at| at > now) {
            return false;
        }
        self.be_patient(node, None);
        if let Some((via, from, negotiation)) = self.negotiation(node) {
            negotiation.impatient = true;
            let rival = negotiation.take_rival();
            self.look_at(node, via, from, rival);
        }
        true
    }
}
