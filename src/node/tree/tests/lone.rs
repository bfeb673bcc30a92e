//! One tree, driven by hand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::*;
use crate::node::firewall::Verdict;
use crate::protocol::frame::{self, Frame};
use crate::protocol::proof::{Base64, Fingerprint, Offered, Terms};
use crate::protocol::signal::{Candidate, Description, DescriptionKind, Extension, Refusal, Signal};
use crate::transport::Account;

pub(super) type Out = Output<&'static str>;

pub(super) fn settings(name: &str) -> Settings {
    Settings {
        window: (1000, 10),
        max_message: 1000,
        accept_timeout: Duration::from_secs(30),
        identity: identity_of(name),
        require_identity: false,
    }
}

/// Whom peers of this name are.
pub(super) fn identity_of(name: &str) -> Identity {
    let mut secret = [7; 32];
    for (byte, letter) in secret.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    Identity::from_secret(secret)
}

pub(super) struct Lone {
    pub(super) tree: Tree<&'static str>,
    pub(super) now: Instant,
    next: u64,
    /// What came out and was not looked at.
    pub(super) outputs: VecDeque<Out>,
    /// Whether the invariants are looked at after each input: not where there are thousands.
    pub(super) thorough: bool,
}

pub(super) fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

pub(super) fn offer_of(sdp: &str) -> Description {
    Description { kind: DescriptionKind::Offer, sdp: sdp.into() }
}

pub(super) fn answer_of(sdp: &str) -> Description {
    Description { kind: DescriptionKind::Answer, sdp: sdp.into() }
}

/// An SDP, as far as the tree looks at it.
pub(super) fn sdp(fragment: &str) -> String {
    format!("v=0\r\n{}a=ice-ufrag:{fragment}\r\n", Fingerprint::of_certificate(fragment.as_bytes()).line())
}

/// Any text as an SDP that can be proven.
fn provable(sdp: &str) -> String {
    if sdp.contains("fingerprint") {
        sdp.into()
    } else {
        format!("{}{sdp}", Fingerprint::of_certificate(b"any").line())
    }
}

pub(super) fn candidate_of(fragment: &str) -> Candidate {
    Candidate {
        candidate: format!("candidate of {fragment}"),
        username_fragment: Some(fragment.into()),
        ..Candidate::default()
    }
}

fn terms(session: u64) -> Terms {
    Terms { session: Session(session), window: (5, 5), max_message: None }
}

/// What goes with an offer of this peer.
pub(super) fn offer_ext(from: &str, session: u64, data: &Value, sdp: &str) -> Extension {
    let (proof, _) = Offered::sign(&identity_of(from), Base64([1; 16]), terms(session), data, sdp).unwrap();
    Extension::new(terms(session), proof)
}

/// What goes with an answer of this peer to that offer of ours; to none, it fits nothing.
pub(super) fn answer_ext(from: &str, session: u64, offered: Option<&Offered>, sdp: &str) -> Extension {
    let identity = identity_of(from);
    match offered.and_then(|offered| offered.sign_answer(&identity, Base64([2; 16]), terms(session), sdp).ok()) {
        Some((proof, _)) => Extension::new(terms(session), proof),
        None => offer_ext(from, session, &Value::Null, &provable(sdp)),
    }
}

pub(super) fn dial(to: &str, session: u64) -> Dial<&'static str> {
    Dial {
        to: address(to),
        data: Value::Null,
        policy: None,
        timeout: Duration::from_secs(20),
        expect: None,
        session: Session(session),
        nonce: Base64([4; 16]),
    }
}

impl Lone {
    pub(super) fn new() -> Self {
        Self::with(settings("me"))
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self { tree: Tree::new(settings), now: Instant::now(), next: 0, outputs: VecDeque::new(), thorough: true }
    }

    /// With an open onramp that speaks the extension.
    pub(super) fn on_ramp() -> (Self, NodeId) {
        let mut lone = Self::new();
        let via = lone.onramp();
        (lone, via)
    }

    pub(super) fn id(&mut self) -> NodeId {
        self.next += 1;
        NodeId(self.next)
    }

    /// To be called after every input.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.tree.poll_output() {
            self.outputs.push_back(output);
        }
        if self.thorough {
            self.tree.assert_invariants();
        }
    }

    pub(super) fn take(&mut self) -> Vec<Out> {
        self.outputs.drain(..).collect()
    }

    /// The signals sent so far, with their destination; drops all other outputs.
    pub(super) fn sent(&mut self) -> Vec<(String, Signal)> {
        self.take()
            .into_iter()
            .filter_map(|output| match output {
                Output::Frame { text, .. } => match Frame::parse(&text) {
                    Ok(Frame::Relay { to, payload }) => Some((to.to_string(), Signal::parse(payload).unwrap())),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    /// How nodes ended so far; drops all other outputs.
    pub(super) fn ended(&mut self) -> Vec<(NodeId, CloseReason)> {
        self.take()
            .into_iter()
            .filter_map(|output| match output {
                Output::Closed { node, reason, .. } => Some((node, reason)),
                _ => None,
            })
            .collect()
    }

    pub(super) fn onramp(&mut self) -> NodeId {
        let node = self.id();
        let url = address("ws://onramp");
        self.tree.connect_url(node, url, "inherited", Duration::from_secs(10), self.now);
        self.link(node, LinkEvent::Opened { extension: true });
        self.link(node, LinkEvent::Frame("[16,\"me\"]".into()));
        self.outputs.clear();
        node
    }

    /// An open peer, which offered.
    pub(super) fn peer(&mut self, via: NodeId, name: &str) -> NodeId {
        let node = self.accepted(via, name, Some(1));
        self.link(node, LinkEvent::Opened { extension: true });
        self.outputs.clear();
        node
    }

    pub(super) fn link(&mut self, node: NodeId, event: LinkEvent) {
        let link = self.tree.nodes[&node].link;
        self.tree.handle_link(link, event, self.now);
        self.settle();
    }

    pub(super) fn frame(&mut self, node: NodeId, text: &str) {
        self.link(node, LinkEvent::Frame(text.into()));
    }

    pub(super) fn relayed(&mut self, via: NodeId, from: &str, signal: &Signal) {
        self.frame(via, &frame::relayed(&address(from), &signal.to_json()));
    }

    pub(super) fn dial_with(&mut self, via: NodeId, to: &str, session: u64, data: Value, timeout: u64) -> NodeId {
        self.call(via, Dial { data, timeout: Duration::from_secs(timeout), ..dial(to, session) })
    }

    pub(super) fn call(&mut self, via: NodeId, dial: Dial<&'static str>) -> NodeId {
        let node = self.id();
        self.tree.connect(node, via, dial, self.now);
        self.settle();
        node
    }

    /// Dials; the offer is not sent yet.
    pub(super) fn dial(&mut self, via: NodeId, to: &str, session: u64) -> NodeId {
        self.dial_with(via, to, session, Value::Null, 20)
    }

    /// Dials, and sends the offer.
    pub(super) fn offering(&mut self, via: NodeId, to: &str, session: u64) -> NodeId {
        let node = self.dial(via, to, session);
        self.describe(node, &sdp("own"));
        node
    }

    /// The link has made its description.
    pub(super) fn describe(&mut self, node: NodeId, sdp: &str) {
        self.link(node, LinkEvent::Description(offer_of(&provable(sdp))));
    }

    /// The proof of our offer to a peer, if there is one.
    pub(super) fn proven(&self, via: NodeId, to: &str) -> Option<&Offered> {
        let node = self.tree.pending.get(via, &address(to))?;
        let Phase::Negotiating(negotiation) = &self.tree.nodes[&node].phase else { return None };
        negotiation.offered()
    }

    pub(super) fn offered(&mut self, via: NodeId, from: &str, session: Option<u64>, sdp: &str) {
        let (data, sdp) = (json!("data"), provable(sdp));
        let ext = session.map(|session| offer_ext(from, session, &data, &sdp));
        self.relayed(via, from, &Signal::Offer { description: offer_of(&sdp), data, ext });
    }

    /// Offers of so many peers on this account. Returns about how many of them the firewall is asked.
    pub(super) fn offered_on(&mut self, via: NodeId, account: Account, peers: usize) -> usize {
        let is_check = |output: &Out| matches!(output, Out::Check { .. });
        let before = self.outputs.iter().filter(|output| is_check(output)).count();
        for n in 0..peers {
            let (data, sdp, from) = (json!("data"), provable(""), format!("{}-{n}", account.number));
            let ext = Some(offer_ext(&from, 1, &data, &sdp));
            let offer = Signal::Offer { description: offer_of(&sdp), data, ext };
            let text = frame::relayed(&address(&from), &offer.to_json());
            self.link(via, LinkEvent::FrameOf { account, text });
        }
        self.outputs.iter().filter(|output| is_check(output)).count() - before
    }

    pub(super) fn answered(&mut self, via: NodeId, from: &str, session: Option<u64>, sdp: &str) {
        let sdp = provable(sdp);
        let ext = session.map(|session| answer_ext(from, session, self.proven(via, from), &sdp));
        self.relayed(via, from, &Signal::Answer { description: answer_of(&sdp), ext });
    }

    pub(super) fn candidate(&mut self, via: NodeId, from: &str, session: Option<u64>, fragment: &str) {
        let candidate = candidate_of(fragment);
        self.relayed(via, from, &Signal::Candidate { candidate, session: session.map(Session) });
    }

    pub(super) fn turned_down(&mut self, via: NodeId, from: &str, session: u64, why: Refusal) {
        self.relayed(via, from, &Signal::Refusal { session: Session(session), why });
    }

    /// The question that was asked last.
    pub(super) fn check(&self) -> CheckId {
        let asked = self.outputs.iter().rev().find_map(|output| match output {
            Output::Check { check, .. } => Some(*check),
            _ => None,
        });
        asked.expect("the firewall is asked")
    }

    /// Gives the verdict on the last question, with the id of a node that may be made for it.
    pub(super) fn verdict(&mut self, verdict: Verdict) -> NodeId {
        let check = self.check();
        self.verdict_on(check, verdict)
    }

    pub(super) fn verdict_on(&mut self, check: CheckId, verdict: Verdict) -> NodeId {
        let fresh = self.id();
        self.tree.handle_verdict(check, verdict, fresh, Base64([3; 16]), self.now);
        self.settle();
        fresh
    }

    /// A peer offers and is accepted; the answer is sent.
    pub(super) fn accepted(&mut self, via: NodeId, from: &str, session: Option<u64>) -> NodeId {
        self.offered(via, from, session, &sdp(from));
        let node = self.verdict(Verdict::Accept);
        self.link(node, LinkEvent::Description(answer_of(&sdp("own"))));
        node
    }

    pub(super) fn abandon(&mut self, node: NodeId) {
        self.tree.abandon(node);
        self.settle();
    }

    pub(super) fn close(&mut self, node: NodeId) {
        self.tree.close(node, CloseReason::Local);
        self.settle();
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.tree.handle_timeout(self.now);
        self.settle();
    }

    /// The commands that the node's link got, but for what it has to confirm.
    pub(super) fn commands(&mut self, node: NodeId) -> Vec<Command> {
        let link = self.tree.nodes[&node].link;
        self.take()
            .into_iter()
            .filter_map(|output| match output {
                Output::Command { command: Command::Confirm(_), .. } => None,
                Output::Command { link: to, command } if to == link => Some(command),
                _ => None,
            })
            .collect()
    }
}
