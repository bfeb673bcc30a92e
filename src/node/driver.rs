//! Carries out what the [tree](super::tree) decides. One task for each root; it never waits for a link, a firewall or a
//! reader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, trace};

use super::connect::Request;
use super::error::{Event, NodeError};
use super::firewall::{Offer, Policy, Verdict};
use super::handle::{Node, NodeKind, NodeState};
use super::root::Shared;
use super::tree::{CheckId, NodeId, Output, Settings, Tree};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::lock::lock;
use crate::protocol::Address;
use crate::protocol::proof::Base64;
use crate::transport::{Link, LinkEvent, LinkId, Pipe, Target, Transport};

/// Reports of links that may wait for the driver, over all links. At it, links wait.
const LINK_EVENTS: usize = 256;
/// How long the tree may take to close in good order when the root is closed. A link takes at most 2 seconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

struct Running {
    link: Box<dyn Link>,
    pipe: Arc<Pipe>,
}

struct Asked {
    via: NodeId,
    from: Address,
    task: AbortHandle,
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    tree: Tree<Policy>,
    websocket: Arc<dyn Transport>,
    webrtc: Arc<dyn Transport>,
    /// Of nodes that have one of their own, until their link is started.
    attached: HashMap<NodeId, Arc<dyn Transport>>,
    nodes: HashMap<NodeId, Node>,
    /// Nodes of which the application was told, with their introducers. Others end quietly.
    announced: HashMap<NodeId, Option<Node>>,
    links: HashMap<LinkId, Running>,
    requests: mpsc::Receiver<Request>,
    report_to: mpsc::Sender<(LinkId, LinkEvent)>,
    reports: mpsc::Receiver<(LinkId, LinkEvent)>,
    checks: JoinSet<(CheckId, Option<Verdict>)>,
    asked: HashMap<CheckId, Asked>,
    tasks: HashMap<Id, CheckId>,
    closing: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        websocket: Arc<dyn Transport>,
        webrtc: Arc<dyn Transport>,
    ) -> Self {
        let (report_to, reports) = mpsc::channel(LINK_EVENTS);
        let settings = Settings {
            window: shared.settings.window,
            max_message: shared.settings.max_message as u64,
            accept_timeout: shared.settings.accept_timeout,
            identity: shared.settings.identity.clone(),
            require_identity: shared.settings.require_identity,
        };
        Self {
            shared,
            tree: Tree::new(settings),
            websocket,
            webrtc,
            attached: HashMap::new(),
            nodes: HashMap::new(),
            announced: HashMap::new(),
            links: HashMap::new(),
            requests,
            report_to,
            reports,
            checks: JoinSet::new(),
            asked: HashMap::new(),
            tasks: HashMap::new(),
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let timeout = self.tree.next_timeout().map(Instant::from_std).into_iter().chain(self.closing).min();
            tokio::select! {
                Some(request) = self.requests.recv() => self.request(request),
                Some((link, event)) = self.reports.recv() => self.report(link, event),
                Some(verdict) = self.checks.join_next_with_id() => self.verdict(verdict),
                () = shared.wake.notified() => self.wishes(),
                () = sleep_until(timeout) => self.tree.handle_timeout(Instant::now().into_std()),
            }
            self.act();
            let counters = self.tree.counters();
            *lock(&self.shared.counters) = counters;
            if self.closing.is_some_and(|at| self.tree.is_empty() || at <= Instant::now()) {
                break;
            }
        }
    }

    fn request(&mut self, request: Request) {
        let now = Instant::now().into_std();
        let (Request::ConnectUrl { node, .. } | Request::Connect { node, .. }) = &request;
        if self.closing.is_some() {
            node.end(CloseReason::RootClosed);
            return;
        }
        let id = node.inner.id;
        if !self.shared.add(node) {
            // Given up before it began.
            return;
        }
        self.nodes.insert(id, node.clone());
        match request {
            Request::ConnectUrl { url, policy, timeout, transport, .. } => {
                self.attached.extend(transport.map(|transport| (id, transport)));
                self.tree.connect_url(id, url, policy, timeout, now);
            }
            Request::Connect { via, dial, .. } => self.tree.connect(id, via, dial, now),
        }
    }

    fn report(&mut self, link: LinkId, event: LinkEvent) {
        if matches!(event, LinkEvent::Closed(_)) {
            self.links.remove(&link);
        }
        self.tree.handle_link(link, event, Instant::now().into_std());
    }

    fn wishes(&mut self) {
        let wishes = self.shared.take_wishes();
        for node in wishes.abandon {
            self.tree.abandon(node);
        }
        for node in wishes.close {
            self.tree.close(node, CloseReason::Local);
        }
        if wishes.close_all && self.closing.is_none() {
            self.closing = Some(Instant::now() + CLOSE_TIMEOUT);
            self.tree.close_all(&CloseReason::RootClosed);
        }
    }

    fn verdict(&mut self, outcome: Result<(Id, (CheckId, Option<Verdict>)), JoinError>) {
        let (task, verdict) = match outcome {
            Ok((task, (_, verdict))) => (task, Ok(verdict)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(check) = self.tasks.remove(&task) else { return };
        let Some(asked) = self.asked.remove(&check) else { return };
        let error = match &verdict {
            Ok(Some(_)) => None,
            Ok(None) => Some(NodeError::FirewallTimedOut { from: asked.from }),
            Err(_) => Some(NodeError::FirewallPanicked { from: asked.from }),
        };
        if let (Some(error), Some(via)) = (error, self.nodes.get(&asked.via)) {
            via.report(error);
        }
        let verdict = verdict.ok().flatten().unwrap_or(Verdict::Refuse);
        let fresh = self.shared.new_id();
        let nonce = Base64(rand::random());
        self.tree.handle_verdict(check, verdict, fresh, nonce, Instant::now().into_std());
    }

    fn act(&mut self) {
        while let Some(output) = self.tree.poll_output() {
            trace!(?output, "tree");
            match output {
                Output::Create { node, address, via } => {
                    let made = Node::new(node, Some(via), address, NodeKind::WebRtc, self.shared.clone());
                    self.shared.add(&made);
                    self.nodes.insert(node, made);
                }
                Output::Start { node, link, target } => self.start(node, link, target),
                Output::Command { link, command } => {
                    if let Some(running) = self.links.get(&link) {
                        running.link.command(command);
                    }
                }
                Output::Drop { link } => {
                    if let Some(running) = self.links.remove(&link) {
                        running.pipe.revoke();
                    }
                }
                Output::Frame { node, text } => {
                    let queues = self.nodes.get(&node).map(|node| &node.inner.queues);
                    if let Some(Err(text)) = queues.map(|queues| queues.signal(text)) {
                        debug!(?node, "signalling frame dropped: the link does not keep up");
                        self.tree.frame_dropped(node, &text);
                    }
                }
                Output::Relay { source, node, text } => {
                    let sent = self.nodes.get(&node).is_some_and(|node| node.inner.queues.signal(text).is_ok());
                    if !sent {
                        self.tree.relay_failed(source, node);
                    }
                }
                Output::Check { check, via, from, peer, data, policy } => {
                    self.check(check, via, from, peer, data, policy);
                }
                Output::CancelCheck { check } => {
                    if let Some(asked) = self.asked.remove(&check) {
                        self.tasks.remove(&asked.task.id());
                        asked.task.abort();
                    }
                }
                Output::Connection { node, via } => {
                    let via = via.and_then(|via| self.nodes.get(&via).cloned());
                    self.announced.insert(node, via.clone());
                    if let Some(node) = self.nodes.get(&node) {
                        let event = Event::Connection { node: node.clone(), via: via.clone() };
                        if let Some(via) = via {
                            via.emit(event.clone());
                        }
                        self.shared.emit(event);
                    }
                }
                Output::Opened { node, peer } => {
                    if let Some(node) = self.nodes.get(&node) {
                        debug!(address = %node.address(), ?peer, "open");
                        let event = Event::Open { node: node.clone() };
                        node.inner.state.send_modify(|state| {
                            *state = NodeState::Open;
                            node.emit(event.clone());
                        });
                        self.shared.emit(event);
                    }
                }
                Output::Closed { node, reason, .. } => self.closed(node, reason),
                Output::Redirect { node, instead } => {
                    if let (Some(node), Some(instead)) = (self.nodes.get(&node), self.nodes.get(&instead)) {
                        // Set once: a node waits for one other at most.
                        let _ = node.inner.instead.set(instead.clone());
                    }
                }
                Output::OwnAddress { node, address } => {
                    if let Some(node) = self.nodes.get(&node) {
                        // The first one counts.
                        let _ = node.inner.own_address.set(address);
                    }
                }
                Output::PeerLeft { node, address } => {
                    if let Some(node) = self.nodes.get(&node) {
                        let event = Event::PeerLeft { via: node.clone(), address };
                        node.emit(event.clone());
                        self.shared.emit(event);
                    }
                }
            }
        }
    }

    fn start(&mut self, id: NodeId, link: LinkId, target: Target) {
        let Some(node) = self.nodes.get(&id) else { return };
        let attached = self.attached.remove(&id);
        let transport = match target {
            Target::Url(_) => attached.as_ref().unwrap_or(&self.websocket),
            Target::Offer | Target::Answer { .. } => &self.webrtc,
        };
        let pipe = Pipe::new(link, self.report_to.clone(), node.inner.queues.clone());
        let running = Running { link: transport.start(target, pipe.clone()), pipe };
        self.links.insert(link, running);
    }

    fn check(&mut self, check: CheckId, via: NodeId, from: Address, peer: Option<PeerId>, data: Value, policy: Policy) {
        let Some(node) = self.nodes.get(&via) else { return };
        let mut offer = Offer::new(from.clone(), node.address().clone()).with_data(data);
        if let Some(peer) = peer {
            offer = offer.with_peer_id(peer);
        }
        let timeout = self.shared.settings.accept_timeout;
        let task = self.checks.spawn(async move {
            let verdict = tokio::time::timeout(timeout, policy.check(&offer)).await;
            (check, verdict.ok())
        });
        self.tasks.insert(task.id(), check);
        self.asked.insert(check, Asked { via, from, task });
    }

    fn closed(&mut self, id: NodeId, reason: CloseReason) {
        let Some(node) = self.nodes.remove(&id) else { return };
        debug!(address = %node.address(), %reason, "closed");
        let Some(via) = self.announced.remove(&id) else {
            self.shared.remove(&node, reason);
            return;
        };
        let failed = *node.inner.state.borrow() == NodeState::Connecting
            && !matches!(reason, CloseReason::Cancelled | CloseReason::Duplicate | CloseReason::Local);
        if failed {
            node.report(NodeError::ConnectFailed(reason.clone().into()));
        }
        let forgotten = node.inner.queues.keep_unread(&self.shared.unread);
        if forgotten > 0 {
            node.report(NodeError::UnreadForgotten { bytes: forgotten });
        }
        self.shared.remove(&node, reason.clone());
        self.shared.emit(Event::Close { node: node.clone(), reason });
        let event = Event::Disconnection { node, via: via.clone() };
        if let Some(via) = via {
            via.emit(event.clone());
        }
        self.shared.emit(event);
    }
}

impl Drop for Driver {
    /// However the driver ends, nobody waits for it for ever.
    fn drop(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            let (Request::ConnectUrl { node, .. } | Request::Connect { node, .. }) = request;
            node.end(CloseReason::RootClosed);
        }
        for running in self.links.values() {
            running.pipe.revoke();
        }
        for node in self.nodes.values() {
            self.shared.remove(node, CloseReason::RootClosed);
        }
        self.shared.end();
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
