//! Anything at all, in any order.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use super::lone::*;
use super::sim::seeds;
use crate::node::firewall::Verdict;
use crate::protocol::frame;
use crate::protocol::signal::{Refusal, Signal};

/// One thing that can happen. The numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Frame(usize, String),
    Dial(usize, u8, u64, u64),
    Link(usize, LinkStep),
    /// A peer answers our offer.
    Answer(usize, u8, u64),
    Verdict(usize, Verdict),
    Abandon(u64),
    Close(usize),
    Pass(u64),
}

#[derive(Debug, Clone)]
enum LinkStep {
    Description,
    Candidate,
    Opened(bool),
    Closed,
}

fn payload() -> impl Strategy<Value = String> {
    let session = || prop_oneof![Just(String::new()), (1..4u64).prop_map(|n| format!(",\"{n:016x}\""))];
    let ext = || 0..4u64;
    let offer = |(n, session): (u8, u64)| {
        let description = offer_of(&sdp(&n.to_string()));
        let ext = (session > 0).then(|| offer_ext("stranger", session, &Value::Null, &description.sdp));
        Signal::Offer { description, data: Value::Null, ext }.to_json()
    };
    let answer = |(n, session): (u8, u64)| {
        let description = answer_of(&sdp(&n.to_string()));
        let ext = (session > 0).then(|| answer_ext("stranger", session, None, &description.sdp));
        Signal::Answer { description, ext }.to_json()
    };
    prop_oneof![
        4 => (0..3u8, ext()).prop_map(offer),
        1 => (0..3u8, ext()).prop_map(answer),
        2 => (0..3u8, session()).prop_map(|(n, session)| {
            format!("[5,{{\"candidate\":\"c\",\"usernameFragment\":\"{n}\"}}{session}]")
        }),
        2 => session().prop_map(|session| format!("[8{session}]")),
        1 => (0..20u8, "[\\[\\]\",a0 :{}]{0,8}").prop_map(|(kind, rest)| format!("[{kind},{rest}]")),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let address = || "[abc]";
    prop_oneof![
        8 => (address(), payload()).prop_map(|(from, payload)| format!("[7,\"{from}\",{payload}]")),
        2 => (address(), payload()).prop_map(|(to, payload)| format!("[6,\"{to}\",{payload}]")),
        1 => (16..19u8, address()).prop_map(|(kind, address)| format!("[{kind},\"{address}\"]")),
        1 => "\\PC{0,20}",
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let link = prop_oneof![
        3 => Just(LinkStep::Description),
        1 => Just(LinkStep::Candidate),
        2 => any::<bool>().prop_map(LinkStep::Opened),
        1 => Just(LinkStep::Closed),
    ];
    let verdict = prop_oneof![2 => Just(Verdict::Accept), 1 => Just(Verdict::Refuse), 1 => Just(Verdict::Ignore)];
    prop_oneof![
        6 => (any::<usize>(), text()).prop_map(|(node, text)| Step::Frame(node, text)),
        3 => (any::<usize>(), 0..3u8, 1..4u64, 1..30u64).prop_map(|(via, to, session, time)| Step::Dial(via, to, session, time)),
        4 => (any::<usize>(), link).prop_map(|(node, step)| Step::Link(node, step)),
        2 => (any::<usize>(), 0..3u8, 1..4u64).prop_map(|(via, from, session)| Step::Answer(via, from, session)),
        3 => (any::<usize>(), verdict).prop_map(|(check, verdict)| Step::Verdict(check, verdict)),
        1 => (0..20u64).prop_map(Step::Abandon),
        1 => any::<usize>().prop_map(Step::Close),
        1 => (0..8u64).prop_map(Step::Pass),
    ]
}

/// Takes the steps, and looks at what comes out as the driver does.
struct Watched {
    lone: Lone,
    alive: BTreeSet<NodeId>,
    asked: BTreeSet<CheckId>,
}

impl Watched {
    fn look(&mut self) {
        for output in self.lone.take() {
            match output {
                Out::Create { node, .. } => assert!(self.alive.insert(node)),
                Out::Closed { node, .. } => assert!(self.alive.remove(&node), "{node:?} ends once"),
                Out::Check { check, via, .. } => assert!(self.asked.insert(check) && self.alive.contains(&via)),
                Out::CancelCheck { check } => assert!(self.asked.remove(&check)),
                Out::Start { node, .. }
                | Out::Frame { node, .. }
                | Out::Relay { node, .. }
                | Out::Connection { node, .. }
                | Out::Opened { node, .. }
                | Out::OwnAddress { node, .. }
                | Out::PeerLeft { node, .. } => assert!(self.alive.contains(&node), "{node:?} is there"),
                Out::Redirect { node, instead } => assert!(self.alive.contains(&node) && self.alive.contains(&instead)),
                Out::Command { .. } | Out::Drop { .. } => {}
            }
        }
    }

    /// The n-th node that has a link.
    fn node(&self, n: usize) -> Option<NodeId> {
        let mut nodes: Vec<_> = self.lone.tree.nodes.keys().copied().collect();
        nodes.sort_unstable();
        (!nodes.is_empty()).then(|| nodes[n % nodes.len()])
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Frame(n, text) => {
                if let Some(node) = self.node(n) {
                    self.lone.frame(node, &text);
                }
            }
            Step::Dial(n, to, session, time) => {
                if let Some(via) = self.node(n) {
                    let to = ["a", "b", "c"][usize::from(to)];
                    let node = self.lone.dial_with(via, to, session, Value::Null, time);
                    self.alive.insert(node);
                }
            }
            Step::Answer(n, from, session) => {
                if let Some(via) = self.node(n) {
                    let from = ["a", "b", "c"][usize::from(from)];
                    self.lone.answered(via, from, Some(session), &sdp(from));
                }
            }
            Step::Link(n, step) => {
                let Some(node) = self.node(n) else { return };
                let event = match step {
                    LinkStep::Description => LinkEvent::Description(offer_of(&sdp("own"))),
                    LinkStep::Candidate => LinkEvent::Candidate(candidate_of("own")),
                    LinkStep::Opened(extension) => LinkEvent::Opened { extension },
                    LinkStep::Closed => LinkEvent::Closed(CloseReason::Remote),
                };
                self.lone.link(node, event);
            }
            Step::Verdict(n, verdict) => {
                let count = self.asked.len().max(1);
                if let Some(check) = self.asked.iter().copied().nth(n % count) {
                    self.asked.remove(&check);
                    self.lone.verdict_on(check, verdict);
                }
            }
            Step::Abandon(node) => self.lone.abandon(NodeId(node)),
            Step::Close(n) => {
                // Not the onramp: without it there is nothing to look at.
                if let Some(node) = self.node(n).filter(|node| *node != NodeId(1)) {
                    self.lone.close(node);
                }
            }
            Step::Pass(seconds) => self.lone.pass(seconds),
        }
        self.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_inputs_breaks_the_tree(steps in prop::collection::vec(step(), 1..80)) {
        let (lone, via) = Lone::on_ramp();
        let mut watched = Watched { lone, alive: BTreeSet::from([via]), asked: BTreeSet::new() };
        for step in steps {
            watched.take(step);
        }
        // Everything comes to an end by itself.
        for _ in 0..3 {
            watched.lone.pass(60);
            watched.look();
        }
        for check in std::mem::take(&mut watched.asked) {
            watched.lone.verdict_on(check, Verdict::Refuse);
        }
        watched.lone.tree.close_all(&CloseReason::RootClosed);
        watched.lone.settle();
        while let Some(node) = watched.node(0) {
            watched.lone.link(node, LinkEvent::Closed(CloseReason::Local));
        }
        watched.look();
        watched.lone.tree.assert_idle();
        assert!(watched.alive.is_empty(), "{:?}", watched.alive);
    }
}

/// What a hostile peer may send: under the names that matter to us.
fn nasty(rng: &mut StdRng) -> String {
    let from = address(["b", "c", "d", "relay", "ws://onramp"][rng.random_range(0..5)]);
    let session = Session(rng.random_range(1..12));
    let ext = rng.random_bool(0.7).then(|| offer_ext(from.as_str(), session.0, &Value::Null, &sdp("forged")));
    let signal = match rng.random_range(0..6) {
        0..2 => Signal::Offer { description: offer_of(&sdp("forged")), data: Value::Null, ext },
        2 => Signal::Answer { description: answer_of(&sdp("forged")), ext },
        3 => Signal::Candidate { candidate: candidate_of("forged"), session: ext.map(|ext| ext.session) },
        _ => Signal::Refusal { session, why: Refusal::Connected },
    };
    match rng.random_range(0..10) {
        0 => frame::left(&from),
        1 => frame::undeliverable(&from, frame::Undeliverable::Unknown),
        2 => frame::relay(&from, &signal.to_json()),
        _ => frame::relayed(&from, &signal.to_json()),
    }
}

#[test]
fn a_hostile_peer_does_not_touch_negotiations_of_other_introducers() {
    seeds(60, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut lone, via) = Lone::on_ramp();
        let hostile = lone.peer(via, "hostile");
        let mut storm = |lone: &mut Lone| {
            for _ in 0..20 {
                lone.frame(hostile, &nasty(&mut rng));
                let asked = lone.outputs.iter().find_map(|output| match output {
                    Out::Check { check, via, .. } if *via == hostile => Some(*check),
                    _ => None,
                });
                if let Some(check) = asked.filter(|_| rng.random_bool(0.8)) {
                    let verdict = if rng.random() { Verdict::Accept } else { Verdict::Refuse };
                    lone.verdict_on(check, verdict);
                }
                assert!(!lone.take().iter().any(|output| match output {
                    Out::Frame { node, .. } => *node == via,
                    Out::Closed { via, .. } => *via != Some(hostile),
                    _ => false,
                }));
            }
        };
        let ours = lone.dial(via, "b", 5);
        storm(&mut lone);
        lone.describe(ours, "offer");
        lone.offered(via, "c", Some(7), &sdp("c"));
        let check = lone.check();
        lone.take();
        storm(&mut lone);
        let theirs = lone.verdict_on(check, Verdict::Accept);
        lone.take();
        storm(&mut lone);
        lone.answered(via, "b", Some(5), &sdp("b"));
        lone.candidate(via, "b", Some(5), "b");
        assert_eq!(lone.commands(ours).len(), 2);
        storm(&mut lone);
        for (node, name) in [(ours, "b"), (theirs, "c")] {
            lone.link(node, LinkEvent::Opened { extension: true });
            assert!(lone.take().contains(&Out::Opened { node, peer: Some(identity_of(name).peer_id()) }));
        }
        storm(&mut lone);
        assert!(lone.tree.is_open(ours) && lone.tree.is_open(theirs));
        lone.pass(30);
        lone.tree.assert_invariants();
    });
}

#[test]
fn a_hostile_peer_cannot_make_the_tree_grow() {
    let (mut lone, via) = Lone::on_ramp();
    let hostile = lone.peer(via, "hostile");
    lone.thorough = false;
    let long = "x".repeat(900);
    for n in 0..4000 {
        let from = format!("p{}", n % 700);
        lone.offered(hostile, &from, (n % 3 > 0).then_some(n), &sdp(&long));
        let accepted = match lone.outputs.iter().find(|output| matches!(output, Out::Check { .. })) {
            Some(Out::Check { check, .. }) if n % 2 == 0 => Some(*check),
            _ => None,
        };
        if let Some(check) = accepted {
            lone.verdict_on(check, Verdict::Accept);
        }
        lone.candidate(hostile, &from, (n % 3 > 0).then_some(n), &long);
        if n % 64 == 0 {
            lone.now += Duration::from_secs(1);
        }
        lone.take();
    }
    lone.tree.assert_invariants();
    let nodes = lone.tree.nodes.len();
    assert!(nodes <= 2 + MAX_INCOMING_PER_PEER && lone.tree.checks.len() <= MAX_CHECKS_PER_VIA, "{nodes}");
    // There is still room for others, and it all goes away.
    lone.offered(via, "honest", Some(1), "");
    lone.verdict(Verdict::Accept);
    lone.now += Duration::from_secs(60);
    lone.tree.handle_timeout(lone.now);
    lone.thorough = true;
    lone.settle();
    assert_eq!(lone.tree.nodes.len(), 2);
}
