//! Many trees in virtual time, on a [network](super::net) that also has [originals](super::original).
//!
//! Host `n` is known as `pn` everywhere. Every input is followed by the tree's invariants, every output is checked
//! against what the driver may rely on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::super::*;
use super::lone::{address, dial, identity_of, settings};
use super::original::Original;
use crate::node::firewall::Verdict;
use crate::protocol::frame;
use crate::protocol::proof::{Base64, Confirmation};

/// The policies of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Accept,
    Refuse,
    Ignore,
}

/// What the network does to frames; times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Net {
    pub(super) latency: RangeInclusive<u64>,
    pub(super) setup: RangeInclusive<u64>,
    pub(super) verdict: RangeInclusive<u64>,
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) ordered: bool,
}

impl Default for Net {
    fn default() -> Self {
        Self { latency: 1..=60, setup: 0..=80, verdict: 0..=40, loss: 0.0, duplication: 0.0, ordered: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Tree(usize, LinkId),
    Original(usize, usize),
    Onramp(usize, usize),
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    /// The end that the other side's description names.
    pub(super) partner: Option<u64>,
    /// Whether both know each other.
    pub(super) up: bool,
    pub(super) extension: bool,
    pub(super) confirmation: Option<Box<Confirmation>>,
    /// Nothing arrives earlier.
    pub(super) busy_until: Instant,
}

#[derive(Debug)]
pub(super) enum Event {
    Link(u64, LinkEvent),
    Verdict(usize, CheckId, Verdict),
    Dial {
        host: usize,
        via: Option<String>,
        to: String,
        data: Value,
        timeout: u64,
    },
    /// Gives up the latest call.
    AbandonLatest(usize),
    CloseRandom(usize),
    /// Drops every link and call of a host.
    Crash(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Opened,
    Redirected(NodeId),
    Failed(CloseReason),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) via: String,
    pub(super) to: String,
    pub(super) outcome: Option<Outcome>,
}

pub(super) struct Host {
    pub(super) tree: Tree<Rule>,
    /// Nodes that have not been closed, and whether they have been open.
    pub(super) nodes: BTreeMap<NodeId, bool>,
    pub(super) calls: BTreeMap<NodeId, Call>,
    pub(super) links: HashMap<LinkId, u64>,
    asked: HashSet<CheckId>,
    next: u64,
}

#[derive(Default)]
pub(super) struct Onramp {
    pub(super) extension: bool,
    pub(super) clients: BTreeMap<usize, u64>,
}

pub(super) struct Sim {
    pub(super) rng: StdRng,
    pub(super) net: Net,
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) queue: BTreeMap<(Instant, u64), Event>,
    pub(super) next: u64,
    pub(super) hosts: Vec<Option<Host>>,
    pub(super) originals: HashMap<usize, Original>,
    pub(super) ends: BTreeMap<u64, End>,
    pub(super) onramps: Vec<Onramp>,
}

/// Runs a test under several seeds, or under the one in `PMESH_SEED`; tells the seed at which it fails.
pub(super) fn seeds(count: u64, test: impl Fn(u64)) {
    struct Tell(u64);
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the seed was PMESH_SEED={}", self.0);
            }
        }
    }
    let one = std::env::var("PMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..count, |seed| seed..seed + 1) {
        let _tell = Tell(seed);
        test(seed);
    }
}

pub(super) fn name(host: usize) -> String {
    format!("p{host}")
}

impl Sim {
    pub(super) fn new(seed: u64, net: Net) -> Self {
        let start = Instant::now();
        Self {
            rng: StdRng::seed_from_u64(seed),
            net,
            start,
            now: start,
            queue: BTreeMap::new(),
            next: 0,
            hosts: Vec::new(),
            originals: HashMap::new(),
            ends: BTreeMap::new(),
            onramps: Vec::new(),
        }
    }

    pub(super) fn onramp(&mut self, extension: bool) -> usize {
        self.onramps.push(Onramp { extension, ..Onramp::default() });
        self.onramps.len() - 1
    }

    /// A host with an open node `ws0`, `ws1`, … for each onramp.
    pub(super) fn host(&mut self, rule: Rule) -> usize {
        let tree = Tree::new(settings(&name(self.hosts.len())));
        let (nodes, calls, links) = Default::default();
        self.hosts.push(Some(Host { tree, nodes, calls, links, asked: HashSet::new(), next: 0 }));
        let host = self.hosts.len() - 1;
        for onramp in 0..self.onramps.len() {
            let now = self.now;
            self.input(host, |host, node| {
                host.nodes.insert(node, false);
                host.tree.connect_url(node, address(&format!("ws{onramp}")), rule, Duration::from_secs(10), now);
            });
        }
        host
    }

    pub(super) fn original(&mut self) -> usize {
        self.hosts.push(None);
        let host = self.hosts.len() - 1;
        let end = self.end(Owner::Original(host, 0));
        self.originals.insert(host, Original::new(end));
        self.join(end, host, 0, false);
        host
    }

    pub(super) fn at(&mut self, delay: u64, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + Duration::from_millis(delay), self.next), event);
    }

    pub(super) fn random(&mut self, range: &RangeInclusive<u64>) -> u64 {
        self.rng.random_range(range.clone())
    }

    pub(super) fn dial_at(&mut self, delay: u64, host: usize, via: &str, to: usize) {
        let event = Event::Dial { host, via: Some(via.into()), to: name(to), data: Value::Null, timeout: 20 };
        self.at(delay, event);
    }

    /// Runs until nothing happens any more.
    pub(super) fn run(&mut self) {
        for _ in 0..200_000 {
            if !self.step() {
                return;
            }
        }
        panic!("no end in sight");
    }

    /// Runs for some time.
    pub(super) fn run_for(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn next_at(&self) -> Option<Instant> {
        let timers = self.hosts.iter().flatten().filter_map(|host| host.tree.next_timeout());
        timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min()
    }

    fn step(&mut self) -> bool {
        let Some(at) = self.next_at() else { return false };
        self.now = self.now.max(at);
        let first = self.queue.first_entry().filter(|entry| entry.key().0 <= at);
        if let Some(event) = first.map(|entry| entry.remove()) {
            self.handle(event);
            return true;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].as_ref().is_some_and(|host| host.tree.next_timeout() == Some(at)) {
                self.input(host, |host, _| host.tree.handle_timeout(at));
            }
        }
        true
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Link(end, event) => self.link(end, event),
            Event::Verdict(host, check, verdict) => self.input(host, |host, fresh| {
                if host.asked.remove(&check) {
                    host.tree.handle_verdict(check, verdict, fresh, Base64([3; 16]), now);
                }
            }),
            Event::Dial { host, via, to, data, timeout } => self.dial(host, via, &to, data, timeout),
            Event::AbandonLatest(host) => {
                let Some(Some((&node, _))) = self.hosts[host].as_ref().map(|host| host.calls.last_key_value()) else {
                    return;
                };
                self.input(host, |host, _| host.tree.abandon(node));
            }
            Event::CloseRandom(host) => {
                let nodes: Vec<_> = self.hosts[host].iter().flat_map(|host| host.nodes.keys().copied()).collect();
                if nodes.len() > 1 {
                    let node = nodes[self.rng.random_range(1..nodes.len())];
                    self.input(host, |host, _| host.tree.close(node, CloseReason::Local));
                }
            }
            Event::Crash(host) => {
                let Some(gone) = self.hosts[host].take() else { return };
                let mut ends: Vec<_> = gone.links.into_values().collect();
                ends.sort_unstable();
                for end in ends {
                    self.drop_end(end);
                }
            }
        }
    }

    /// Dials `to` through the node of that address, or a random open one.
    fn dial(&mut self, host: usize, via: Option<String>, to: &str, data: Value, timeout: u64) {
        let session = Session(self.rng.random());
        if let Some(original) = self.originals.get(&host) {
            let via = original.connection(&via.unwrap_or_else(|| "ws0".into()));
            return self.original_dials(host, via, to, data);
        }
        let Some(it) = self.hosts[host].as_ref() else { return };
        let open = it.tree.nodes.iter().filter(|(_, entry)| matches!(entry.phase, Phase::Open));
        let mut open: Vec<_> = open.map(|(id, entry)| (*id, entry.address.to_string())).collect();
        open.sort();
        open.retain(|(_, address)| address != to && via.as_ref().is_none_or(|via| via == address));
        if open.is_empty() {
            return;
        }
        let (via, via_name) = open.swap_remove(self.rng.random_range(0..open.len()));
        let now = self.now;
        self.input(host, |host, node| {
            host.nodes.insert(node, false);
            host.calls.insert(node, Call { via: via_name, to: to.into(), outcome: None });
            let timeout = Duration::from_secs(timeout);
            let Dial { to, expect, nonce, .. } = dial(to, 0);
            host.tree.connect(node, via, Dial { to, data, policy: None, timeout, expect, session, nonce }, now);
        });
    }

    fn input(&mut self, host: usize, input: impl FnOnce(&mut Host, NodeId)) {
        let Some(it) = self.hosts[host].as_mut() else { return };
        it.next += 1;
        let fresh = NodeId(it.next);
        input(it, fresh);
        it.tree.assert_invariants();
        while let Some(output) = self.hosts[host].as_mut().and_then(|host| host.tree.poll_output()) {
            self.output(host, output);
        }
    }

    fn output(&mut self, host: usize, output: Output<Rule>) {
        let it = self.hosts[host].as_mut().unwrap();
        match output {
            Output::Create { node, .. } => assert_eq!(it.nodes.insert(node, false), None),
            Output::Start { node, link, target } => {
                assert!(it.nodes.contains_key(&node));
                self.start_link(host, link, target);
            }
            Output::Command { link, command } => {
                let end = it.links[&link];
                self.command(end, command);
            }
            Output::Drop { link } => {
                let end = it.links.remove(&link).expect("only running links are dropped");
                self.drop_end(end);
            }
            Output::Frame { node, text } => self.frame_from(host, node, text),
            Output::Relay { source, node, text } => {
                assert!(it.nodes[&source]);
                self.frame_from(host, node, text);
            }
            Output::Check { check, via, policy, .. } => {
                assert!(it.nodes[&via]);
                assert!(it.asked.insert(check));
                let verdict = match policy {
                    Rule::Accept => Verdict::Accept,
                    Rule::Refuse => Verdict::Refuse,
                    Rule::Ignore => Verdict::Ignore,
                };
                let delay = self.random(&self.net.verdict.clone());
                self.at(delay, Event::Verdict(host, check, verdict));
            }
            Output::CancelCheck { check } => assert!(it.asked.remove(&check)),
            Output::Connection { node, .. } => assert!(it.nodes.contains_key(&node)),
            Output::Opened { node, peer } => {
                let address = &it.tree.nodes[&node].address;
                assert!(peer.is_none_or(|peer| peer == identity_of(address.as_str()).peer_id()), "nobody else");
                assert_eq!(it.nodes.insert(node, true), Some(false), "opens once, while it is there");
                if let Some(call) = it.calls.get_mut(&node) {
                    assert_eq!(call.outcome.replace(Outcome::Opened), None);
                }
            }
            Output::Redirect { node, instead } => {
                assert!(it.nodes.contains_key(&node) && it.nodes[&instead], "an open node for one that ends");
                if let Some(call) = it.calls.get_mut(&node) {
                    let opened = it.nodes[&node];
                    let before = call.outcome.replace(Outcome::Redirected(instead));
                    assert_eq!(before, opened.then_some(Outcome::Opened));
                }
            }
            Output::Closed { node, reason, .. } => {
                assert!(it.nodes.remove(&node).is_some(), "ends once");
                if let Some(call) = it.calls.get_mut(&node) {
                    call.outcome.get_or_insert(Outcome::Failed(reason));
                }
            }
            Output::OwnAddress { node, address } => {
                assert!(it.nodes.contains_key(&node));
                assert_eq!(address, *name(host));
            }
            Output::PeerLeft { node, .. } => assert!(it.nodes.contains_key(&node)),
        }
    }

    fn frame_from(&mut self, host: usize, node: NodeId, text: String) {
        let it = self.hosts[host].as_ref().unwrap();
        assert!(it.nodes[&node], "frames go to nodes that have been opened");
        if let Some(end) = it.tree.nodes.get(&node).map(|entry| it.links[&entry.link]) {
            self.send(end, text);
        }
    }

    fn link(&mut self, end: u64, event: LinkEvent) {
        let Some(owner) = self.ends.get(&end).map(|end| end.owner) else { return };
        let closed = matches!(event, LinkEvent::Closed(_));
        if closed {
            self.ends.remove(&end);
        }
        let now = self.now;
        // An onramp of pmesh says first who the host is there. That is on a WebSocket, which loses nothing.
        let partner = self.ends.get(&end).and_then(|end| self.ends.get(&end.partner?)).map(|end| end.owner);
        let welcomes = event == LinkEvent::Opened { extension: true } && matches!(partner, Some(Owner::Onramp(..)));
        match owner {
            Owner::Tree(host, link) => self.input(host, |of_host, _| {
                if closed {
                    of_host.links.remove(&link);
                }
                of_host.tree.handle_link(link, event, now);
                if welcomes {
                    let text = frame::welcome(&address(&name(host)));
                    of_host.tree.handle_link(link, LinkEvent::Frame(text), now);
                }
            }),
            Owner::Original(host, connection) => self.original_hears(host, connection, event),
            Owner::Onramp(onramp, host) => self.onramp_hears(onramp, host, event),
        }
    }

    /// What is true when nothing happens any more.
    pub(super) fn assert_quiet(&self) {
        for (host, it) in self.hosts.iter().enumerate().filter_map(|(n, host)| Some((n, host.as_ref()?))) {
            it.tree.assert_idle();
            assert!(it.asked.is_empty());
            assert_eq!(it.links.len(), it.nodes.len());
            assert_eq!(it.tree.nodes.len(), it.nodes.len());
            for (node, call) in &it.calls {
                assert!(call.outcome.is_some(), "every call ends: {node:?} {call:?}");
            }
            for entry in it.tree.nodes.values() {
                let end = &self.ends[&it.links[&entry.link]];
                let other = end
                    .partner
                    .and_then(|partner| self.ends.get(&partner))
                    .unwrap_or_else(|| panic!("{host} {:?}", entry));
                match other.owner {
                    Owner::Tree(peer, link) => {
                        let peer_tree = &self.hosts[peer].as_ref().unwrap().tree;
                        let other = &peer_tree.nodes[&peer_tree.links[&link]];
                        assert_eq!(
                            (entry.address.as_str(), other.address.as_str()),
                            (name(peer).as_str(), name(host).as_str())
                        );
                        assert!(matches!(other.phase, Phase::Open), "both sides agree");
                    }
                    Owner::Original(peer, _) => assert_eq!(entry.address, *name(peer)),
                    Owner::Onramp(..) => assert_eq!(entry.via, None),
                }
            }
        }
    }

    /// Nodes of one host, with an open link to another.
    pub(super) fn open(&self, host: usize, to: usize) -> usize {
        let tree = &self.hosts[host].as_ref().unwrap().tree;
        tree.nodes.values().filter(|entry| entry.address == *name(to) && matches!(entry.phase, Phase::Open)).count()
    }

    pub(super) fn outcomes(&self, host: usize) -> Vec<Outcome> {
        let calls = &self.hosts[host].as_ref().unwrap().calls;
        calls.values().filter_map(|call| call.outcome.clone()).collect()
    }
}
