//! Answers, candidates and refusals: how a link to a peer of a peer comes about once an offer is made.

use std::time::Instant;

use super::offer::Incoming;
use super::{Dial, NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::protocol::proof::{self, Confirmation, Nonce, Offered};
use crate::protocol::signal::{Candidate, Description, Extension, Refusal, Session, Signal};
use crate::protocol::{Address, frame};
use crate::transport::{Account, Command, Remote};

/// Candidates held for one negotiation in one direction. Further ones are dropped.
const MAX_HELD_CANDIDATES: usize = 64;

#[derive(Debug)]
pub(super) enum Role {
    /// We offered.
    Ours {
        /// An offer of theirs, in case nothing comes of ours.
        rival: Option<Box<Incoming>>,
        /// Why ours was turned down, while the firewall looks at theirs.
        refused: Option<CloseReason>,
        /// What an original answered, while the firewall looks at its offer.
        answer: Option<Description>,
    },
    /// The other side offered.
    Theirs,
}

/// A negotiation, from the first step until the link is open.
#[derive(Debug)]
pub(super) struct Negotiation {
    pub(super) role: Role,
    /// The session of the offer in force; none if an original made it.
    pub(super) session: Option<Session>,
    /// The number for our proof.
    pub(super) nonce: Option<Nonce>,
    /// The proof of the offer in force, ours or theirs, once it is made or checked; none if an original made it.
    pub(super) offered: Option<Offered>,
    /// Who the other side says it is, once its proof is checked. True once the link is open.
    peer: Option<PeerId>,
    /// Whether our description is sent.
    sent: bool,
    /// Whether ours has been waiting for an answer long enough to give way to any other.
    pub(super) impatient: bool,
    /// The ICE user fragments of the other side's description, once we have it.
    remote: Option<Vec<String>>,
    local_candidates: Vec<Candidate>,
    remote_candidates: Vec<Candidate>,
}

impl Negotiation {
    pub(super) fn ours<P>(dial: &Dial<P>) -> Self {
        Self {
            role: Role::Ours { rival: None, refused: None, answer: None },
            session: Some(dial.session),
            nonce: Some(dial.nonce),
            offered: None,
            peer: None,
            sent: false,
            impatient: false,
            remote: None,
            local_candidates: Vec::new(),
            remote_candidates: Vec::new(),
        }
    }

    pub(super) fn theirs(offer: &Incoming) -> Self {
        Self {
            role: Role::Theirs,
            session: offer.session(),
            nonce: offer.accepted.map(|accepted| accepted.nonce),
            offered: offer.offered.clone(),
            peer: offer.offered.as_ref().map(Offered::key),
            sent: false,
            impatient: false,
            remote: Some(user_fragments(&offer.description.sdp)),
            local_candidates: Vec::new(),
            remote_candidates: Vec::new(),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.remote.is_some()
    }

    /// Whether we made the offer.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.role, Role::Ours { .. })
    }

    /// Whether this answers that very offer.
    pub(super) fn is_of(&self, offer: &Incoming) -> bool {
        let same = match offer.session() {
            // A description of its own has fragments of its own.
            None => self.session.is_none() && self.remote == Some(user_fragments(&offer.description.sdp)),
            session => self.session == session,
        };
        !self.is_ours() && same
    }

    /// Whether an offer of theirs has to wait for what comes of ours: ours wins, or is answered already.
    pub(super) fn prevails_over(&self, session: Option<Session>) -> bool {
        match &self.role {
            Role::Ours { refused: None, .. } => {
                self.remote.is_some() || (self.sent && !self.impatient && session.is_some() && session < self.session)
            }
            _ => false,
        }
    }

    /// Keeps an offer of theirs; the latest counts.
    pub(super) fn keep_rival(&mut self, offer: Incoming) {
        if let Role::Ours { rival, .. } = &mut self.role
            && rival.as_ref().is_none_or(|rival| !rival.is_same(&offer))
        {
            *rival = Some(Box::new(offer));
        }
    }

    pub(super) fn take_rival(&mut self) -> Option<Incoming> {
        match &mut self.role {
            Role::Ours { rival, .. } => rival.take().map(|rival| *rival),
            Role::Theirs => None,
        }
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    #[cfg(test)]
    pub(super) fn offered(&self) -> Option<&Offered> {
        self.offered.as_ref()
    }

    pub(super) fn into_fragments(self) -> Vec<String> {
        self.remote.unwrap_or_default()
    }

    /// Whether a description is still to be exchanged.
    pub(super) fn needs_signalling(&self) -> bool {
        self.remote.is_none() || !self.sent
    }

    /// How many candidates are held, in the direction that has more.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let rival = match &self.role {
            Role::Ours { rival: Some(rival), .. } => rival.candidates.len(),
            _ => 0,
        };
        self.local_candidates.len().max(self.remote_candidates.len()).max(rival)
    }

    /// Whether an answer to this session would be the first one to our offer.
    fn expects_answer(&self, session: Option<Session>) -> bool {
        matches!(self.role, Role::Ours { refused: None, .. })
            && self.sent
            && self.remote.is_none()
            && (session.is_none() || session == self.session)
    }
}

impl<P: Clone> Tree<P> {
    fn signal(&mut self, via: NodeId, to: &Address, signal: &Signal) {
        // It may be gone: late candidates go nowhere.
        if self.is_open(via) {
            let text = frame::relay(to, &signal.to_json());
            self.outputs.push_back(Output::Frame { node: via, text });
        }
    }

    pub(super) fn refuse(&mut self, via: NodeId, to: &Address, session: Option<Session>, why: Refusal) {
        // An original would choke on it: it learns by its own timeout, if it has one.
        if let Some(session) = session {
            self.signal(via, to, &Signal::Refusal { session, why });
        }
    }

    pub(super) fn negotiation(&mut self, node: NodeId) -> Option<(NodeId, Address, &mut Negotiation)> {
        let entry = self.nodes.get_mut(&node)?;
        let Phase::Negotiating(negotiation) = &mut entry.phase else { return None };
        Some((entry.via?, entry.address.clone(), negotiation))
    }

    pub(super) fn local_description(&mut self, node: NodeId, description: Description) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let (Some(via), Phase::Negotiating(negotiation)) = (entry.via, &mut entry.phase) else { return };
        if std::mem::replace(&mut negotiation.sent, true) {
            return;
        }
        let session = negotiation.session;
        let data = entry.dial.as_ref().map(|dial| dial.data.clone()).unwrap_or_default();
        let (ext, confirmation) = match negotiation.prove(&self.settings, &data, &description.sdp) {
            Ok(proven) => proven,
            Err(error) => return self.fail(node, CloseReason::Failed(error.to_string())),
        };
        let signal = if negotiation.is_ours() {
            Signal::Offer { description, data, ext }
        } else {
            Signal::Answer { description, ext }
        };
        let candidates = std::mem::take(&mut negotiation.local_candidates);
        let (to, link) = (entry.address.clone(), entry.link);
        if let Some(confirmation) = confirmation {
            let command = Command::Confirm(Box::new(confirmation));
            self.outputs.push_back(Output::Command { link, command });
        }
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
    pub(super) fn relayed_signal(
        &mut self,
        via: NodeId,
        from: Address,
        account: Option<Account>,
        signal: Signal,
        now: Instant,
    ) {
        match signal {
            Signal::Offer { description, mut data, ext } => {
                let allowed = self.nodes.get_mut(&via).is_some_and(|entry| entry.offers.take(now));
                let session = ext.as_ref().map(|ext| ext.session);
                if !allowed {
                    self.counters.over_budget += 1;
                    self.refuse(via, &from, session, Refusal::Busy);
                    return;
                }
                // No peer may pass for an onramp of ours: policies decide by the introducer's address.
                if self.open.contains_key(&from) || self.onramps.contains_key(&from) {
                    self.refuse(via, &from, session, Refusal::Connected);
                    return;
                }
                match self.verify_offer(&description, &data, ext.as_ref()) {
                    Ok(Some(offered)) if offered.key() == self.settings.identity.peer_id() => {
                        self.own_offer(via, &from, session);
                    }
                    Ok(offered) => {
                        if offered.is_some() {
                            proof::normalize(&mut data);
                        }
                        let offer = Incoming { account, ..Incoming::new(description, data, ext, offered) };
                        self.offer(via, from, offer, now);
                    }
                    Err(_) => {
                        self.counters.unverified += 1;
                        self.refuse(via, &from, session, Refusal::Identity);
                    }
                }
            }
            Signal::Answer { description, ext } => self.answer(via, &from, description, ext, now),
            Signal::Candidate { candidate, session } => self.remote_candidate(via, &from, candidate, session),
            Signal::Refusal { session, why } => self.refusal(via, from, session, why),
        }
    }

    fn answer(&mut self, via: NodeId, from: &Address, description: Description, ext: Option<Extension>, now: Instant) {
        let session = ext.as_ref().map(|ext| ext.session);
        let check = self.checking.get(via, from);
        let pending = self.pending.get(via, from);
        let Some(node) = pending.filter(|node| {
            self.negotiation(*node).is_some_and(|(.., negotiation)| negotiation.expects_answer(session))
        }) else {
            self.counters.unexpected += 1;
            let stray = !self.knows(pending, from, session);
            if stray && self.nodes.get_mut(&via).is_some_and(|entry| entry.offers.take(now)) {
                // What it answers was given up: it need not wait for us.
                self.refuse(via, from, session, Refusal::Failed);
            }
            return;
        };
        if let Some(check) = check {
            let original = self.checks.get(&check).is_some_and(|check| check.offer.session().is_none());
            if original
                && ext.is_none()
                && let Some((.., Negotiation { role: Role::Ours { answer, .. }, .. })) = self.negotiation(node)
            {
                answer.get_or_insert(description);
                return;
            }
            self.cancel_check(check);
        }
        self.use_answer(node, description, ext);
    }

    /// Whether an answer of this session has come before.
    fn knows(&mut self, pending: Option<NodeId>, from: &Address, session: Option<Session>) -> bool {
        let open = self.open.get(from).and_then(|node| self.nodes.get(node));
        open.is_some_and(|entry| entry.session == session)
            || pending.and_then(|node| self.negotiation(node)).is_some_and(|(.., negotiation)| {
                negotiation.is_ours() && negotiation.session == session && negotiation.remote.is_some()
            })
    }

    pub(super) fn use_answer(&mut self, node: NodeId, description: Description, ext: Option<Extension>) {
        let fragments = user_fragments(&description.sdp);
        let confirmation = match self.verify_answer(node, &description, ext.as_ref()) {
            Ok(confirmation) => confirmation,
            Err(reason) => {
                if matches!(reason, CloseReason::Unverified(_) | CloseReason::NoIdentity) {
                    self.counters.unverified += 1;
                }
                if let Some((via, from, negotiation)) = self.negotiation(node) {
                    let session = negotiation.session.filter(|_| ext.is_some());
                    self.refuse(via, &from, session, Refusal::Identity);
                }
                return self.fail(node, reason);
            }
        };
        let Some((.., negotiation)) = self.negotiation(node) else { return };
        negotiation.peer = confirmation.as_ref().map(Confirmation::peer_id);
        negotiation.remote = Some(fragments.clone());
        // The other side has dropped its own offer.
        negotiation.take_rival();
        let candidates = std::mem::take(&mut negotiation.remote_candidates);
        self.be_patient(node, None);
        let remote = remote(ext);
        let Some(entry) = self.nodes.get(&node) else { return };
        let confirm = confirmation.map(|confirmation| Command::Confirm(Box::new(confirmation)));
        for command in confirm.into_iter().chain([Command::Answer { description, remote }]) {
            self.outputs.push_back(Output::Command { link: entry.link, command });
        }
        self.pass_candidates(node, &fragments, candidates);
    }

    /// Candidates of another description of the same peer are left out: an original that offers and answers at once sends
    /// those of both under one name.
    pub(super) fn pass_candidates(&mut self, node: NodeId, fragments: &[String], candidates: Vec<Candidate>) {
        let Some(entry) = self.nodes.get(&node) else { return };
        for candidate in candidates {
            if belongs(&candidate, fragments) {
                let command = Command::Candidate(candidate);
                self.outputs.push_back(Output::Command { link: entry.link, command });
            }
        }
    }

    fn remote_candidate(&mut self, via: NodeId, from: &Address, candidate: Candidate, session: Option<Session>) {
        let mut expected = false;
        if let Some(check) = self.checking.get(via, from).and_then(|check| self.checks.get_mut(&check))
            && check.offer.session() == session
        {
            hold(&mut check.offer.candidates, candidate.clone());
            expected = true;
        }
        if let Some(node) = self.pending.get(via, from)
            && let Some((.., negotiation)) = self.negotiation(node)
        {
            if let Role::Ours { rival: Some(rival), .. } = &mut negotiation.role
                && rival.session() == session
            {
                hold(&mut rival.candidates, candidate.clone());
                expected = true;
            }
            // An original answers our session without naming it.
            if session == negotiation.session || (session.is_none() && negotiation.is_ours()) {
                expected = true;
                match negotiation.remote.clone() {
                    Some(fragments) => self.pass_candidates(node, &fragments, vec![candidate]),
                    None => hold(&mut negotiation.remote_candidates, candidate),
                }
            }
        } else if let Some(&node) = self.open.get(from)
            && let Some(entry) = self.nodes.get(&node)
            && entry.via == Some(via)
            && (session.is_none() || session == entry.session)
        {
            // ICE may still find a better path for an open link.
            let fragments = entry.fragments.clone();
            self.pass_candidates(node, &fragments, vec![candidate]);
            expected = true;
        }
        if !expected {
            self.counters.unexpected += 1;
        }
    }

    fn refusal(&mut self, via: NodeId, from: Address, session: Session, why: Refusal) {
        if let Some(node) = self.pending.get(via, &from)
            && let Some((.., negotiation)) = self.negotiation(node)
            && negotiation.session == Some(session)
        {
            match &negotiation.role {
                // The other side has given up the offer that we answer.
                Role::Theirs => return self.withdrawn(node),
                // Answered, only this can still go wrong; other refusals are of a copy of our offer.
                Role::Ours { refused: None, .. }
                    if negotiation.sent && (negotiation.remote.is_none() || why == Refusal::Failed) =>
                {
                    let reason = match why {
                        Refusal::Refused => CloseReason::Refused,
                        Refusal::Connected => CloseReason::AlreadyConnected,
                        Refusal::Busy => CloseReason::Busy,
                        Refusal::Failed => CloseReason::Failed("the other side gave up".into()),
                        Refusal::Identity => CloseReason::Unverified("the other side could not verify ours".into()),
                        Refusal::Own => CloseReason::OwnAddress,
                    };
                    return self.refused(node, via, from, reason);
                }
                Role::Ours { .. } => {}
            }
        }
        self.counters.unexpected += 1;
    }

    /// The introducer could not pass our frames on.
    pub(super) fn undeliverable(&mut self, via: NodeId, to: &Address, reason: CloseReason) {
        if let Some(node) = self.pending.get(via, to)
            && let Some((.., negotiation)) = self.negotiation(node)
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

pub(super) fn remote(ext: Option<Extension>) -> Remote {
    ext.map_or(Remote::Original, |ext| Remote::Pmesh { window: ext.window, max_message: ext.max_message })
}

pub(super) fn user_fragments(sdp: &str) -> Vec<String> {
    sdp.lines().filter_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:")).map(str::to_owned).collect()
}

fn belongs(candidate: &Candidate, fragments: &[String]) -> bool {
    match &candidate.username_fragment {
        Some(fragment) if !fragment.is_empty() && !fragments.is_empty() => fragments.contains(fragment),
        _ => true,
    }
}
