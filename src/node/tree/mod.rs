//! The node tree as a pure state machine: it decides, the [driver](super::driver) acts.
//!
//! Every input is a method call with the time as an argument; what is to be done comes out of [`Tree::poll_output`], in
//! order. The machine does no input or output, reads no clock and draws no random numbers.
//!
//! A *node* is an entry of the tree; a *link* is an attempt to connect it. A node has at most one link at a time. Where two
//! offers cross, the link that loses is dropped and the node goes on with the other.
//!
//! - `mod.rs`: the state, closing, time, links
//! - `dial.rs`: connect calls, and what becomes of those that share an attempt
//! - `offer.rs`: incoming offers and the firewall, glare
//! - `negotiate.rs`: answers, candidates, refusals
//! - `verify.rs`: who the other side is
//! - `opening.rs`: links that are open, and two to one address
//! - `introduce.rs`: frames of open nodes, and relaying between them

mod counters;
mod dial;
mod introduce;
mod negotiate;
mod offer;
mod opening;
mod table;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::counters::Counters;
pub(crate) use self::dial::Dial;
use self::dial::Waiting;
use self::negotiate::Negotiation;
use self::offer::Check;
use self::table::Table;
use super::budget::Budget;
use crate::error::CloseReason;
use crate::identity::{Identity, PeerId};
use crate::protocol::Address;
use crate::protocol::signal::Session;
use crate::transport::{Command, LinkEvent, LinkId, Target};

/// Tells a node from all others of its root. Never used twice; later nodes have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u64);

/// Names a question to the firewall. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckId(pub(crate) u64);

/// What the tree is told once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The credit that we announce to pmesh peers.
    pub(crate) window: (u32, u32),
    /// The largest user message that we take, in bytes.
    pub(crate) max_message: u64,
    /// How long an incoming negotiation may take, from the offer to the open connection.
    pub(crate) accept_timeout: Duration,
    /// Who we are.
    pub(crate) identity: Identity,
    /// Whether peers without identity are turned away.
    pub(crate) require_identity: bool,
}

/// Incoming negotiations that may go on at once, over all introducers. At it, offers are refused as busy.
const MAX_INCOMING: usize = 1024;
/// How many of them one peer may introduce; an onramp introduces everybody. At it, offers are refused as busy.
const MAX_INCOMING_PER_PEER: usize = 128;
/// Questions to the firewall that may be open at once for one introducer. At it, offers are refused as busy.
const MAX_CHECKS_PER_VIA: usize = 64;
/// Offers that one introducer may bring, and how many more each second. Beyond, they are dropped.
const OFFERS: Budget = Budget::new(256, 64);
/// Frames that one peer may have relayed, and their bytes, and how many more each second. Beyond, it is told that we are
/// busy.
const RELAYS: Budget = Budget::new(1024, 256);
const RELAY_BYTES: Budget = Budget::new(1024 * 1024, 128 * 1024);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output<P> {
    /// Make a node for an offer that was accepted. Comes before everything else about it.
    Create { node: NodeId, address: Address, via: NodeId },
    /// Start a transport for the node's queues. A link the node had before is to be dropped.
    Start { node: NodeId, link: LinkId, target: Target },
    /// Pass a command on to a link.
    Command { link: LinkId, command: Command },
    /// Drop a link at once.
    Drop { link: LinkId },
    /// Send a frame to a node.
    Frame { node: NodeId, text: String },
    /// Relay a frame; where it cannot be queued, call [`Tree::relay_failed`].
    Relay { source: NodeId, node: NodeId, text: String },
    /// Ask the firewall of `via`.
    Check { check: CheckId, via: NodeId, from: Address, peer: Option<PeerId>, data: Value, policy: P },
    /// The question is moot.
    CancelCheck { check: CheckId },
    /// A node was made through `via`.
    Connection { node: NodeId, via: Option<NodeId> },
    /// The node is open, to this peer if it has an identity.
    Opened { node: NodeId, peer: Option<PeerId> },
    /// The node is over: the last that is heard of it.
    Closed { node: NodeId, reason: CloseReason, via: Option<NodeId> },
    /// Whoever waits for `node`, or has it and does not know yet, gets `instead`, which is open. `Closed` of `node` follows.
    Redirect { node: NodeId, instead: NodeId },
    /// The neighbour told us the address by which it knows us.
    OwnAddress { node: NodeId, address: Address },
    /// The neighbour told us that one of its peers has left.
    PeerLeft { node: NodeId, address: Address },
}

#[derive(Debug)]
enum Phase {
    /// A WebSocket that is being opened.
    Dialling,
    Negotiating(Box<Negotiation>),
    Open,
    /// Told to close; `Closed` is awaited.
    Closing(CloseReason),
}

impl Phase {
    /// Whether it is a negotiation that the other side's offer began.
    fn is_incoming(&self) -> bool {
        matches!(self, Self::Negotiating(negotiation) if !negotiation.is_ours())
    }
}

#[derive(Debug)]
struct Member<P> {
    address: Address,
    /// `None` for an onramp and the overlay. The via may be gone by now.
    via: Option<NodeId>,
    policy: P,
    phase: Phase,
    link: LinkId,
    deadline: Option<Instant>,
    /// Until when our offer may stay unanswered while one of theirs waits.
    patience: Option<Instant>,
    /// Whether the neighbour takes extension frames.
    extension: bool,
    /// The session by which a duplicate is decided.
    session: Option<Session>,
    /// Who it is, of an open node.
    peer: Option<PeerId>,
    offers: Budget,
    relays: Budget,
    relay_bytes: Budget,
    /// The ICE user fragments of the other side, of an open node.
    fragments: Vec<String>,
    /// Incoming negotiations through this node.
    guests: usize,
    /// The connect call that the node was made for, until it is open.
    dial: Option<Dial<P>>,
    /// Whether that call is still waited for.
    wanted: bool,
    /// Nodes of further connect calls, which wait for this one.
    joined: BTreeSet<NodeId>,
}

impl<P> Member<P> {
    /// Whether somebody on this side waits for the node.
    fn in_demand(&self) -> bool {
        self.wanted || !self.joined.is_empty()
    }
}

/// See the [module documentation](self). `P` is the firewall's policy, which the machine only hands on.
#[derive(Debug)]
pub(crate) struct Tree<P> {
    settings: Settings,
    nodes: HashMap<NodeId, Member<P>>,
    links: HashMap<LinkId, NodeId>,
    /// Open WebRTC nodes.
    open: HashMap<Address, NodeId>,
    /// Onramps and the overlay, and how many there are of each address.
    onramps: HashMap<Address, usize>,
    /// Negotiations.
    pending: Table<NodeId>,
    /// Connect calls that wait for the node of another.
    waiting: HashMap<NodeId, Waiting<P>>,
    checks: HashMap<CheckId, Check>,
    /// The checks again.
    checking: Table<CheckId>,
    /// Incoming negotiations that are not open yet.
    incoming: usize,
    deadlines: BTreeSet<(Instant, NodeId)>,
    next_link: u64,
    next_check: u64,
    outputs: VecDeque<Output<P>>,
    counters: Counters,
}

impl<P: Clone> Tree<P> {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: HashMap::new(),
            links: HashMap::new(),
            open: HashMap::new(),
            onramps: HashMap::new(),
            pending: Table::default(),
            waiting: HashMap::new(),
            checks: HashMap::new(),
            checking: Table::default(),
            incoming: 0,
            deadlines: BTreeSet::new(),
            next_link: 0,
            next_check: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What is to be done next. Take outputs until there are none, after every input.
    pub(crate) fn poll_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Gives up what has taken too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, node)) = self.deadlines.first()
            && at <= now
        {
            if !self.stop_waiting(node, CloseReason::TimedOut) && !self.lose_patience(node, at) {
                self.fail(node, CloseReason::TimedOut);
            }
        }
    }

    /// Closes a node: an open one in good order, any other at once.
    pub(crate) fn close(&mut self, node: NodeId, reason: CloseReason) {
        if self.stop_waiting(node, reason.clone()) {
            return;
        }
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        match entry.phase {
            Phase::Open => {
                let link = entry.link;
                entry.phase = Phase::Closing(reason);
                self.forget_address(node);
                self.fail_negotiations_through(node);
                self.outputs.push_back(Output::Command { link, command: Command::Close });
            }
            Phase::Closing(_) => {}
            Phase::Dialling | Phase::Negotiating(_) => self.fail(node, reason),
        }
    }

    /// Closes all nodes.
    pub(crate) fn close_all(&mut self, reason: &CloseReason) {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.sort_unstable();
        for node in nodes {
            self.close(node, reason.clone());
        }
    }

    /// Whether there are no nodes.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Takes what a link tells. Reports of a link that was dropped are ignored.
    pub(crate) fn handle_link(&mut self, link: LinkId, event: LinkEvent, now: Instant) {
        let Some(&node) = self.links.get(&link) else { return };
        match event {
            LinkEvent::Description(description) => self.local_description(node, description),
            LinkEvent::Candidate(candidate) => self.local_candidate(node, candidate),
            LinkEvent::Opened { extension } => self.opened(node, extension),
            LinkEvent::Frame(text) => self.frame(node, None, &text, now),
            LinkEvent::FrameOf { account, text } => self.frame(node, Some(account), &text, now),
            LinkEvent::Malformed => self.counters.malformed += 1,
            LinkEvent::Closed(reason) => {
                self.links.remove(&link);
                if let CloseReason::Unverified(_) = reason {
                    self.counters.unverified += 1;
                }
                if !self.offer_again(node) {
                    self.remove(node, reason);
                }
            }
        }
    }

    /// Moves a node on, and keeps count of the incoming negotiations. Returns the phase it was in.
    fn enter(&mut self, node: NodeId, phase: Phase) -> Phase {
        let entry = self.nodes.get_mut(&node).expect("only existing nodes move on");
        let after = phase.is_incoming();
        let left = std::mem::replace(&mut entry.phase, phase);
        let via = entry.via;
        if left.is_incoming() != after {
            self.count_incoming(via, after);
        }
        left
    }

    fn count_incoming(&mut self, via: Option<NodeId>, more: bool) {
        let count = |count: &mut usize| if more { *count += 1 } else { *count -= 1 };
        count(&mut self.incoming);
        if let Some(entry) = via.and_then(|via| self.nodes.get_mut(&via)) {
            count(&mut entry.guests);
        }
    }

    fn insert(
        &mut self,
        node: NodeId,
        address: Address,
        via: Option<NodeId>,
        policy: P,
        phase: Phase,
        deadline: Instant,
    ) -> &mut Member<P> {
        if phase.is_incoming() {
            self.count_incoming(via, true);
        }
        self.deadlines.insert((deadline, node));
        let entry = Member {
            address,
            via,
            policy,
            phase,
            link: LinkId(0),
            deadline: Some(deadline),
            patience: None,
            extension: false,
            session: None,
            peer: None,
            offers: OFFERS,
            relays: RELAYS,
            relay_bytes: RELAY_BYTES,
            fragments: Vec::new(),
            guests: 0,
            dial: None,
            wanted: false,
            joined: BTreeSet::new(),
        };
        self.nodes.entry(node).insert_entry(entry).into_mut()
    }

    /// Starts a new link for a node, in place of the one it may have.
    fn start(&mut self, node: NodeId, target: Target) {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let entry = self.nodes.get_mut(&node).expect("links are started for existing nodes");
        let before = std::mem::replace(&mut entry.link, link);
        if self.links.remove(&before).is_some() {
            self.outputs.push_back(Output::Drop { link: before });
        }
        self.links.insert(link, node);
        self.outputs.push_back(Output::Start { node, link, target });
    }

    /// Ends a node at once.
    fn fail(&mut self, node: NodeId, reason: CloseReason) {
        if let Some(entry) = self.nodes.get(&node)
            && self.links.remove(&entry.link).is_some()
        {
            self.outputs.push_back(Output::Drop { link: entry.link });
        }
        self.remove(node, reason);
    }

    /// Removes a node whose link is gone.
    fn remove(&mut self, node: NodeId, reason: CloseReason) {
        self.forget_address(node);
        let Some(entry) = self.nodes.remove(&node) else { return };
        for deadline in [entry.deadline, entry.patience].into_iter().flatten() {
            self.deadlines.remove(&(deadline, node));
        }
        if entry.phase.is_incoming() {
            self.count_incoming(entry.via, false);
        }
        if entry.via.is_none()
            && let Entry::Occupied(mut count) = self.onramps.entry(entry.address.clone())
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.fail_negotiations_through(node);
        match entry.phase {
            Phase::Negotiating(_) => self.attempt_failed(node, entry, reason),
            Phase::Closing(told) if reason == CloseReason::Local => {
                self.outputs.push_back(Output::Closed { node, reason: told, via: entry.via });
            }
            _ => self.outputs.push_back(Output::Closed { node, reason, via: entry.via }),
        }
    }

    /// Makes the node's address free for another.
    fn forget_address(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get(&node) else { return };
        if self.open.get(&entry.address) == Some(&node) {
            self.open.remove(&entry.address);
        }
        if let Some(via) = entry.via
            && self.pending.get(via, &entry.address) == Some(node)
        {
            self.pending.remove(via, &entry.address);
        }
    }

    /// The node does not carry frames any more. Negotiations that still need it cannot succeed; those in which both
    /// descriptions have been exchanged may.
    fn fail_negotiations_through(&mut self, via: NodeId) {
        for node in self.pending.of(via) {
            let entry = self.nodes.get(&node);
            if entry.is_some_and(|entry| matches!(&entry.phase, Phase::Negotiating(n) if n.needs_signalling())) {
                self.fail(node, CloseReason::ViaClosed);
            }
        }
        for check in self.checking.of(via) {
            self.cancel_check(check);
        }
    }

    fn peer(&self, node: NodeId) -> Option<PeerId> {
        self.nodes.get(&node).and_then(|entry| entry.peer)
    }

    fn is_open(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|entry| matches!(entry.phase, Phase::Open))
    }
}
