//! Offers, answers and candidates: how a link to a peer of a peer comes about.
//!
//! Between pmesh peers each offer has a random session. Of two offers that cross, the larger session wins; who finds its
//! own smaller answers the other's, on the same node. If the winner's offer is refused, it falls back on the loser's, which
//! it has kept. An original P has no sessions and cannot drop its offer, so towards it we always give way.

use std::time::Instant;

use serde_json::Value;

use super::{CheckId, MAX_CHECKS_PER_VIA, MAX_INCOMING, NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::protocol::signal::{Candidate, Description, Extension, Refusal, Session, Signal};
use crate::protocol::{Address, frame};
use crate::transport::{Command, Remote, Target};

/// Candidates held for one negotiation in one direction. Further ones are dropped.
const MAX_HELD_CANDIDATES: usize = 64;

/// An offer as it came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) description: Description,
    pub(super) data: Value,
    pub(super) ext: Option<Extension>,
    /// Candidates that came before the offer was accepted.
    candidates: Vec<Candidate>,
}

impl Incoming {
    fn session(&self) -> Option<Session> {
        self.ext.as_ref().map(|ext| ext.session)
    }
}

/// An offer that the firewall is looking at.
#[derive(Debug)]
pub(super) struct Check {
    via: NodeId,
    from: Address,
    offer: Incoming,
}

#[derive(Debug)]
enum Role {
    /// We offered. The offer data waits for the local description.
    Ours { data: Value, rival: Option<Incoming>, refused: Option<CloseReason> },
    /// The other side offered.
    Theirs,
}

/// A negotiation, from the first step until the link is open.
#[derive(Debug)]
pub(super) struct Negotiation {
    role: Role,
    /// The session of the offer in force; none if an original made it.
    session: Option<Session>,
    /// Whether our description is sent.
    sent: bool,
    /// The ICE user fragments of the other side's description, once we have it.
    remote: Option<Vec<String>>,
    local_candidates: Vec<Candidate>,
    remote_candidates: Vec<Candidate>,
}

impl Negotiation {
    pub(super) fn ours(session: Session, data: Value) -> Self {
        Self {
            role: Role::Ours { data, rival: None, refused: None },
            session: Some(session),
            sent: false,
            remote: None,
            local_candidates: Vec::new(),
            remote_candidates: Vec::new(),
        }
    }

    fn theirs(offer: &Incoming) -> Self {
        Self {
            role: Role::Theirs,
            session: offer.session(),
            sent: false,
            remote: Some(user_fragments(&offer.description.sdp)),
            local_candidates: Vec::new(),
            remote_candidates: Vec::new(),
        }
    }

    /// Whether we made the offer.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.role, Role::Ours { .. })
    }

    /// Whether a description is still to be exchanged.
    pub(super) fn needs_signalling(&self) -> bool {
        self.remote.is_none() || !self.sent
    }
}

impl<P: Clone> Tree<P> {
    fn signal(&mut self, via: NodeId, to: &Address, signal: &Signal) {
        let text = frame::relay(to, &signal.to_json());
        self.outputs.push_back(Output::Frame { node: via, text });
    }

    fn refuse(&mut self, via: NodeId, to: &Address, session: Option<Session>, why: Refusal) {
        // An original would choke on it: it learns by its own timeout, if it has one.
        if let Some(session) = session {
            self.signal(via, to, &Signal::Refusal { session, why });
        }
    }

    fn negotiation(&mut self, node: NodeId) -> Option<(NodeId, Address, &mut Negotiation)> {
        let entry = self.nodes.get_mut(&node)?;
        let Phase::Negotiating(negotiation) = &mut entry.phase else { return None };
        Some((entry.via?, entry.address.clone(), negotiation))
    }

    pub(super) fn local_description(&mut self, node: NodeId, description: Description) {
        let window = self.settings.window;
        let ext = |session| Extension { v: 1, session, window };
        let Some((via, to, negotiation)) = self.negotiation(node) else { return };
        if std::mem::replace(&mut negotiation.sent, true) {
            return;
        }
        let session = negotiation.session;
        let signal = match &mut negotiation.role {
            Role::Ours { data, .. } => Signal::Offer { description, data: std::mem::take(data), ext: session.map(ext) },
            Role::Theirs => Signal::Answer { description, ext: session.map(ext) },
        };
        let candidates = std::mem::take(&mut negotiation.local_candidates);
        self.signal(via, &to, &signal);
        for candidate in candidates {
            self.signal(via, &to, &Signal::Candidate { candidate, session });
        }
    }

    /// The original P has no queue for candidates that come before the description, so ours wait until it is sent.
    pub(super) fn local_candidate(&mut self, node: NodeId, candidate: Candidate) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let Some(via) = entry.via else { return };
        let (to, session) = (entry.address.clone(), entry.session);
        match &mut entry.phase {
            Phase::Negotiating(negotiation) if !negotiation.sent => {
                hold(&mut negotiation.local_candidates, candidate);
            }
            Phase::Negotiating(_) | Phase::Open => self.signal(via, &to, &Signal::Candidate { candidate, session }),
            Phase::Dialling | Phase::Closing(_) => {}
        }
    }

    /// A payload that `via` relayed from `from`.
    pub(super) fn relayed_signal(&mut self, via: NodeId, from: Address, signal: Signal, now: Instant) {
        match signal {
            Signal::Offer { description, data, ext } => {
                let allowed = self.nodes.get_mut(&via).is_some_and(|entry| entry.offers.take(now));
                if allowed {
                    self.offer(via, from, Incoming { description, data, ext, candidates: Vec::new() });
                } else {
                    self.counters.over_budget += 1;
                }
            }
            Signal::Answer { description, ext } => self.answer(via, &from, description, ext),
            Signal::Candidate { candidate, session } => self.remote_candidate(via, &from, candidate, session),
            Signal::Refusal { session, why } => self.refusal(via, from, session, why),
        }
    }

    fn offer(&mut self, via: NodeId, from: Address, offer: Incoming) {
        let session = offer.session();
        if self.open.contains_key(&from) {
            self.refuse(via, &from, session, Refusal::Connected);
            return;
        }
        let key = (via, from.clone());
        if let Some(&check) = self.checking.get(&key) {
            if session.is_some() && self.checks.get(&check).is_some_and(|check| check.offer.session() == session) {
                return;
            }
            // The other side has started over.
            self.cancel_check(check);
        }
        if let Some(&node) = self.pending.get(&key)
            && let Some((_, _, negotiation)) = self.negotiation(node)
        {
            match &mut negotiation.role {
                Role::Ours { .. } if session.is_some() && session == negotiation.session => {
                    self.fail(node, CloseReason::OwnAddress);
                    return;
                }
                // Our offer is answered already: this one came too late.
                Role::Ours { .. } if negotiation.remote.is_some() => {
                    self.refuse(via, &from, session, Refusal::Connected);
                    return;
                }
                // Ours wins. Should it be refused, theirs is next.
                Role::Ours { rival, refused: None, .. } if session.is_some() && session < negotiation.session => {
                    *rival = Some(offer);
                    return;
                }
                Role::Ours { .. } => {}
                Role::Theirs if session.is_some() && session == negotiation.session => return,
                // The other side has started over.
                Role::Theirs => self.fail(node, CloseReason::Remote),
            }
        }
        self.ask(via, from, offer);
    }

    /// Asks the firewall about an offer.
    fn ask(&mut self, via: NodeId, from: Address, offer: Incoming) {
        let asked = self.checks.values().filter(|check| check.via == via).count();
        if self.incoming + self.checks.len() >= MAX_INCOMING || asked >= MAX_CHECKS_PER_VIA {
            self.refuse(via, &from, offer.session(), Refusal::Busy);
            return;
        }
        let Some(entry) = self.nodes.get(&via) else { return };
        let policy = entry.policy.clone();
        self.next_check += 1;
        let check = CheckId(self.next_check);
        let data = offer.data.clone();
        self.checking.insert((via, from.clone()), check);
        self.checks.insert(check, Check { via, from: from.clone(), offer });
        self.outputs.push_back(Output::Check { check, via, from, data, policy });
    }

    pub(super) fn cancel_check(&mut self, check: CheckId) {
        if self.take_check(check).is_some() {
            self.outputs.push_back(Output::CancelCheck { check });
        }
    }

    fn take_check(&mut self, check: CheckId) -> Option<Check> {
        let taken = self.checks.remove(&check)?;
        self.checking.remove(&(taken.via, taken.from.clone()));
        Some(taken)
    }

    /// Takes what the firewall says. `fresh` is the node to be made if a new one is needed.
    pub(crate) fn handle_verdict(&mut self, check: CheckId, verdict: Verdict, fresh: NodeId, now: Instant) {
        let Some(Check { via, from, offer }) = self.take_check(check) else { return };
        let session = offer.session();
        let key = (via, from.clone());
        // An offer of ours that crosses theirs, and is not answered.
        let mut crossing = self.pending.get(&key).copied();
        if let Some(node) = crossing {
            match self.negotiation(node) {
                Some((_, _, negotiation)) if negotiation.is_ours() && negotiation.remote.is_none() => {}
                _ => {
                    self.refuse(via, &from, session, Refusal::Connected);
                    return;
                }
            }
        }
        if verdict != Verdict::Accept {
            self.counters.offers_refused += 1;
            if verdict == Verdict::Refuse {
                self.refuse(via, &from, session, Refusal::Refused);
            }
            if let Some(node) = crossing
                && let Some((_, _, negotiation)) = self.negotiation(node)
                && let Role::Ours { refused: Some(reason), .. } = &negotiation.role
            {
                let reason = reason.clone();
                self.fail(node, reason);
            }
            return;
        }
        let Some(via_entry) = self.nodes.get(&via) else { return };
        if self.open.contains_key(&from) {
            self.refuse(via, &from, session, Refusal::Connected);
            return;
        }
        self.counters.offers_accepted += 1;
        let negotiation = Phase::Negotiating(Box::new(Negotiation::theirs(&offer)));
        self.incoming += 1;
        let node = match crossing.take() {
            Some(node) => {
                let entry = self.nodes.get_mut(&node).expect("looked up above");
                entry.phase = negotiation;
                node
            }
            None => {
                let policy = via_entry.policy.clone();
                let deadline = Some(now + self.settings.accept_timeout);
                self.insert(fresh, from.clone(), Some(via), policy, negotiation, deadline);
                self.pending.insert(key, fresh);
                self.outputs.push_back(Output::Create { node: fresh, address: from, via });
                self.outputs.push_back(Output::Connection { node: fresh, via: Some(via) });
                fresh
            }
        };
        let entry = self.nodes.get_mut(&node).expect("inserted above");
        entry.session = session;
        let remote = offer.ext.map_or(Remote::Original, |ext| Remote::Pmesh { window: ext.window });
        let fragments = user_fragments(&offer.description.sdp);
        self.start(node, Target::Answer { offer: offer.description, remote });
        self.pass_candidates(node, &fragments, offer.candidates);
    }

    fn answer(&mut self, via: NodeId, from: &Address, description: Description, ext: Option<Extension>) {
        let node = self.pending.get(&(via, from.clone())).copied();
        let Some(node) = node else {
            self.counters.unexpected += 1;
            return;
        };
        let Some((_, _, negotiation)) = self.negotiation(node) else { return };
        let expected = negotiation.is_ours()
            && negotiation.sent
            && negotiation.remote.is_none()
            && ext.as_ref().is_none_or(|ext| Some(ext.session) == negotiation.session);
        if !expected {
            self.counters.unexpected += 1;
            return;
        }
        let fragments = user_fragments(&description.sdp);
        negotiation.remote = Some(fragments.clone());
        let candidates = std::mem::take(&mut negotiation.remote_candidates);
        if let Role::Ours { rival, .. } = &mut negotiation.role {
            *rival = None;
        }
        let remote = ext.map_or(Remote::Original, |ext| Remote::Pmesh { window: ext.window });
        let Some(entry) = self.nodes.get(&node) else { return };
        let command = Command::Answer { description, remote };
        self.outputs.push_back(Output::Command { link: entry.link, command });
        self.pass_candidates(node, &fragments, candidates);
        // A question about an offer of theirs that crossed ours is moot.
        if let Some(&check) = self.checking.get(&(via, from.clone())) {
            self.cancel_check(check);
        }
    }

    /// Candidates of another description of the same peer are left out: an original that offers and answers at once sends
    /// those of both under one name.
    fn pass_candidates(&mut self, node: NodeId, fragments: &[String], candidates: Vec<Candidate>) {
        let Some(entry) = self.nodes.get(&node) else { return };
        for candidate in candidates {
            if belongs(&candidate, fragments) {
                let command = Command::Candidate(candidate);
                self.outputs.push_back(Output::Command { link: entry.link, command });
            }
        }
    }

    fn remote_candidate(&mut self, via: NodeId, from: &Address, candidate: Candidate, session: Option<Session>) {
        let key = (via, from.clone());
        if let Some(check) = self.checking.get(&key).and_then(|check| self.checks.get_mut(check))
            && check.offer.session() == session
        {
            hold(&mut check.offer.candidates, candidate);
            return;
        }
        if let Some(&node) = self.pending.get(&key)
            && let Some((_, _, negotiation)) = self.negotiation(node)
        {
            // An original answers our session without naming it.
            if session == negotiation.session || session.is_none() {
                match negotiation.remote.clone() {
                    Some(fragments) => self.pass_candidates(node, &fragments, vec![candidate]),
                    None => hold(&mut negotiation.remote_candidates, candidate),
                }
                return;
            }
            if let Role::Ours { rival: Some(rival), .. } = &mut negotiation.role
                && rival.session() == session
            {
                hold(&mut rival.candidates, candidate);
                return;
            }
        }
        // ICE may still find a better path for an open link.
        if let Some(&node) = self.open.get(from)
            && let Some(entry) = self.nodes.get(&node)
            && entry.via == Some(via)
            && (session.is_none() || session == entry.session)
        {
            self.outputs.push_back(Output::Command { link: entry.link, command: Command::Candidate(candidate) });
            return;
        }
        self.counters.unexpected += 1;
    }

    fn refusal(&mut self, via: NodeId, from: Address, session: Session, why: Refusal) {
        let node = self.pending.get(&(via, from.clone())).copied();
        let reason = match why {
            Refusal::Refused => CloseReason::Refused,
            Refusal::Connected => CloseReason::AlreadyConnected,
            Refusal::Busy => CloseReason::Busy,
            Refusal::Failed => CloseReason::Failed("the other side could not use the offer".into()),
        };
        if let Some(node) = node
            && let Some((_, _, negotiation)) = self.negotiation(node)
            && negotiation.session == Some(session)
            && negotiation.remote.is_none()
            && let Role::Ours { rival, refused, .. } = &mut negotiation.role
        {
            match rival.take() {
                Some(offer) => {
                    *refused = Some(reason);
                    self.ask(via, from, offer);
                }
                None => self.fail(node, reason),
            }
            return;
        }
        self.counters.unexpected += 1;
    }

    /// The introducer could not pass our frames on.
    pub(super) fn undeliverable(&mut self, via: NodeId, to: &Address, reason: CloseReason) {
        if let Some(&node) = self.pending.get(&(via, to.clone()))
            && let Some((_, _, negotiation)) = self.negotiation(node)
            && negotiation.needs_signalling()
        {
            self.fail(node, reason);
        }
    }
}

fn hold(candidates: &mut Vec<Candidate>, candidate: Candidate) {
    if candidates.len() < MAX_HELD_CANDIDATES {
        candidates.push(candidate);
    }
}

fn user_fragments(sdp: &str) -> Vec<String> {
    sdp.lines().filter_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:")).map(str::to_owned).collect()
}

fn belongs(candidate: &Candidate, fragments: &[String]) -> bool {
    match &candidate.username_fragment {
        Some(fragment) if !fragment.is_empty() && !fragments.is_empty() => fragments.contains(fragment),
        _ => true,
    }
}
