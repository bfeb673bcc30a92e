//! The node tree as a pure state machine: it decides, the [driver](super::driver) acts.
//!
//! Every input is a method call with the time as an argument; what is to be done comes out of [`Tree::poll_output`], in
//! order. The machine does no input or output, reads no clock and draws no random numbers.
//!
//! A *node* is an entry of the tree; a *link* is an attempt to connect it. A node has at most one link at a time. Where two
//! offers cross, the link that loses is dropped and the node goes on with the other.
//!
//! - `mod.rs`: the state, connecting, closing, time
//! - `negotiate.rs`: offers, answers, candidates, glare
//! - `introduce.rs`: frames of open nodes, and relaying between them

mod introduce;
mod negotiate;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::negotiate::{Check, Negotiation};
use super::budget::Budget;
use crate::error::CloseReason;
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
    /// How long an incoming negotiation may take, from the offer to the open connection.
    pub(crate) accept_timeout: Duration,
}

/// Incoming negotiations that may go on at once, over all introducers. At it, offers are refused as busy.
const MAX_INCOMING: usize = 1024;
/// Questions to the firewall that may be open at once for one introducer. At it, offers are refused as busy.
const MAX_CHECKS_PER_VIA: usize = 64;
/// Offers that one introducer may bring, and how many more each second. Beyond, they are dropped.
const OFFERS: Budget = Budget::new(256, 64);
/// Frames that one peer may have relayed, and how many more each second. Beyond, it is told that we are busy.
const RELAYS: Budget = Budget::new(1024, 256);

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
    Check { check: CheckId, via: NodeId, from: Address, data: Value, policy: P },
    /// The question is moot.
    CancelCheck { check: CheckId },
    /// A node was made through `via`.
    Connection { node: NodeId, via: Option<NodeId> },
    /// The node is open.
    Opened { node: NodeId },
    /// The node is over: the last that is heard of it.
    Closed { node: NodeId, reason: CloseReason, via: Option<NodeId> },
    /// Whoever waits for `node` gets `instead`, which is open. `Closed` of `node` follows.
    Redirect { node: NodeId, instead: NodeId },
    /// The neighbour told us the address by which it knows us.
    OwnAddress { node: NodeId, address: Address },
    /// The neighbour told us that one of its peers has left.
    PeerLeft { node: NodeId, address: Address },
}

/// What was dropped, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames relayed between two peers of this tree.
    pub relayed: u64,
    /// Frames that could not be relayed: the destination is unknown, or does not keep up.
    pub undeliverable: u64,
    /// Frames dropped because their source or introducer had used up its budget.
    pub over_budget: u64,
    /// Frames dropped because they were malformed or of an unknown type.
    pub malformed: u64,
    /// Answers, candidates and refusals dropped because no negotiation of that introducer expected them.
    pub unexpected: u64,
    /// Offers that the firewall accepted.
    pub offers_accepted: u64,
    /// Offers that the firewall refused or ignored.
    pub offers_refused: u64,
}

/// The order of a connect call.
#[derive(Debug, Clone)]
pub(crate) struct Dial<P> {
    pub(crate) to: Address,
    pub(crate) data: Value,
    /// Replaces the inherited policy for the subtree.
    pub(crate) policy: Option<P>,
    pub(crate) timeout: Duration,
    /// A random number.
    pub(crate) session: Session,
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

#[derive(Debug)]
struct Entry<P> {
    address: Address,
    /// `None` for a WebSocket node. The via may be gone by now.
    via: Option<NodeId>,
    policy: P,
    phase: Phase,
    link: LinkId,
    deadline: Option<Instant>,
    /// Whether the neighbour takes extension frames.
    extension: bool,
    /// The session by which a duplicate is decided.
    session: Option<Session>,
    offers: Budget,
    relays: Budget,
    /// Whether somebody on this side wants the node: cleared when the dial is abandoned.
    wanted: bool,
    /// Nodes of further dials to the same address, which wait for this one.
    joined: Vec<NodeId>,
}

/// See the [module documentation](self). `P` is the firewall's policy, which the machine only hands on.
#[derive(Debug)]
pub(crate) struct Tree<P> {
    settings: Settings,
    nodes: HashMap<NodeId, Entry<P>>,
    links: HashMap<LinkId, NodeId>,
    /// Open WebRTC nodes.
    open: HashMap<Address, NodeId>,
    /// Negotiations, by introducer and address.
    pending: HashMap<(NodeId, Address), NodeId>,
    checks: HashMap<CheckId, Check>,
    /// The open question for an introducer and an address.
    checking: HashMap<(NodeId, Address), CheckId>,
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
            pending: HashMap::new(),
            checks: HashMap::new(),
            checking: HashMap::new(),
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
            self.fail(node, CloseReason::TimedOut);
        }
    }

    /// Connects a new node to a WebSocket server.
    pub(crate) fn connect_url(&mut self, node: NodeId, url: Address, policy: P, timeout: Duration, now: Instant) {
        let target = Target::Url(url.as_str().to_owned());
        self.insert(node, url, None, policy, Phase::Dialling, Some(now + timeout));
        self.nodes.get_mut(&node).expect("inserted above").wanted = true;
        self.outputs.push_back(Output::Connection { node, via: None });
        self.start(node, target);
    }

    /// Connects a new node to a peer of `via`.
    pub(crate) fn connect(&mut self, node: NodeId, via: NodeId, dial: Dial<P>, now: Instant) {
        let entry = self.nodes.get(&via).filter(|entry| matches!(entry.phase, Phase::Open));
        let Some(policy) = entry.map(|entry| dial.policy.clone().unwrap_or_else(|| entry.policy.clone())) else {
            self.outputs.push_back(Output::Closed { node, reason: CloseReason::ViaClosed, via: None });
            return;
        };
        if let Some(&instead) = self.open.get(&dial.to) {
            self.redirect(node, instead);
            return;
        }
        if let Some(&pending) = self.pending.get(&(via, dial.to.clone())) {
            self.nodes.get_mut(&pending).expect("pending nodes exist").joined.push(node);
            return;
        }
        let negotiation = Negotiation::ours(dial.session, dial.data);
        let deadline = Some(now + dial.timeout);
        self.pending.insert((via, dial.to.clone()), node);
        self.insert(node, dial.to, Some(via), policy, Phase::Negotiating(Box::new(negotiation)), deadline);
        let entry = self.nodes.get_mut(&node).expect("inserted above");
        entry.session = Some(dial.session);
        entry.wanted = true;
        self.outputs.push_back(Output::Connection { node, via: Some(via) });
        self.start(node, Target::Offer);
    }

    /// Nobody waits for the node any more: gives the attempt up, unless it is open or others wait for it.
    pub(crate) fn abandon(&mut self, node: NodeId) {
        let owner = if self.nodes.contains_key(&node) {
            Some(node)
        } else {
            self.nodes.iter().find(|(_, entry)| entry.joined.contains(&node)).map(|(owner, _)| *owner)
        };
        let Some(entry) = owner.and_then(|owner| self.nodes.get_mut(&owner)) else { return };
        if owner == Some(node) {
            entry.wanted = false;
        } else {
            entry.joined.retain(|joined| *joined != node);
            self.outputs.push_back(Output::Closed { node, reason: CloseReason::Cancelled, via: None });
        }
        let ours = match &entry.phase {
            Phase::Dialling => true,
            Phase::Negotiating(negotiation) => negotiation.is_ours(),
            Phase::Open | Phase::Closing(_) => false,
        };
        if let Some(owner) = owner
            && ours
            && !entry.wanted
            && entry.joined.is_empty()
        {
            self.fail(owner, CloseReason::Cancelled);
        }
    }

    /// Closes a node: an open one in good order, any other at once.
    pub(crate) fn close(&mut self, node: NodeId, reason: CloseReason) {
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
            LinkEvent::Frame(text) => self.frame(node, &text, now),
            LinkEvent::Malformed => self.counters.malformed += 1,
            LinkEvent::Closed(reason) => {
                self.links.remove(&link);
                self.remove(node, reason);
            }
        }
    }

    fn opened(&mut self, node: NodeId, extension: bool) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        match &entry.phase {
            Phase::Dialling => {}
            Phase::Negotiating(negotiation) => {
                if !negotiation.is_ours() {
                    self.incoming -= 1;
                }
            }
            Phase::Open | Phase::Closing(_) => return,
        }
        entry.phase = Phase::Open;
        entry.extension = extension;
        if let Some(deadline) = entry.deadline.take() {
            self.deadlines.remove(&(deadline, node));
        }
        let Some(via) = entry.via else {
            self.outputs.push_back(Output::Opened { node });
            return;
        };
        let address = entry.address.clone();
        let (link, session) = (entry.link, entry.session);
        let joined = std::mem::take(&mut entry.joined);
        self.pending.remove(&(via, address.clone()));
        if let Some(&other) = self.open.get(&address) {
            // Two negotiations over two introducers ran at once. Both sides know both sessions and keep the larger.
            if session > self.nodes.get(&other).and_then(|entry| entry.session) {
                self.close(other, CloseReason::Duplicate);
            } else {
                self.redirect_waiting(node, other);
                for waiting in joined {
                    self.redirect(waiting, other);
                }
                let entry = self.nodes.get_mut(&node).expect("looked up above");
                entry.phase = Phase::Closing(CloseReason::Duplicate);
                self.outputs.push_back(Output::Command { link, command: Command::Close });
                return;
            }
        }
        self.open.insert(address.clone(), node);
        self.outputs.push_back(Output::Opened { node });
        if extension {
            let text = crate::protocol::frame::welcome(&address);
            self.outputs.push_back(Output::Frame { node, text });
        }
        for waiting in joined {
            self.redirect(waiting, node);
        }
    }

    /// A waiting node that never had a link of its own: whoever waits for it gets the other.
    fn redirect(&mut self, node: NodeId, instead: NodeId) {
        self.redirect_waiting(node, instead);
        self.outputs.push_back(Output::Closed { node, reason: CloseReason::Duplicate, via: None });
    }

    fn redirect_waiting(&mut self, node: NodeId, instead: NodeId) {
        self.outputs.push_back(Output::Redirect { node, instead });
    }

    fn insert(
        &mut self,
        node: NodeId,
        address: Address,
        via: Option<NodeId>,
        policy: P,
        phase: Phase,
        deadline: Option<Instant>,
    ) {
        let entry = Entry {
            address,
            via,
            policy,
            phase,
            link: LinkId(0),
            deadline,
            extension: false,
            session: None,
            offers: OFFERS,
            relays: RELAYS,
            wanted: false,
            joined: Vec::new(),
        };
        self.nodes.insert(node, entry);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, node));
        }
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
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, node));
        }
        if let Phase::Negotiating(negotiation) = &entry.phase
            && !negotiation.is_ours()
        {
            self.incoming -= 1;
        }
        let reason = match entry.phase {
            Phase::Closing(told) if reason == CloseReason::Local => told,
            _ => reason,
        };
        for waiting in entry.joined {
            self.outputs.push_back(Output::Closed { node: waiting, reason: reason.clone(), via: None });
        }
        self.fail_negotiations_through(node);
        self.outputs.push_back(Output::Closed { node, reason, via: entry.via });
    }

    /// Makes the node's address free for another.
    fn forget_address(&mut self, node: NodeId) {
        let Some(entry) = self.nodes.get(&node) else { return };
        if self.open.get(&entry.address) == Some(&node) {
            self.open.remove(&entry.address);
        }
        if let Some(via) = entry.via {
            let key = (via, entry.address.clone());
            if self.pending.get(&key) == Some(&node) {
                self.pending.remove(&key);
            }
        }
    }

    /// The node does not carry frames any more. Negotiations that still need it cannot succeed; those in which both
    /// descriptions have been exchanged may.
    fn fail_negotiations_through(&mut self, via: NodeId) {
        let failed: Vec<NodeId> = self
            .pending
            .iter()
            .filter(|((through, _), _)| *through == via)
            .map(|(_, node)| *node)
            .filter(|node| {
                let entry = self.nodes.get(node);
                entry.is_some_and(|entry| matches!(&entry.phase, Phase::Negotiating(n) if n.needs_signalling()))
            })
            .collect();
        for node in failed {
            self.fail(node, CloseReason::ViaClosed);
        }
        let moot: Vec<CheckId> =
            self.checking.iter().filter(|((through, _), _)| *through == via).map(|(_, check)| *check).collect();
        for check in moot {
            self.cancel_check(check);
        }
    }
}
