//! Roots that know each other through nothing but an overlay, which here is a map.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::node::RootBuilder;
use crate::protocol::frame::Undeliverable;
use crate::protocol::limits::MAX_SIGNAL_BYTES;
use crate::protocol::proof::{Base64, Fingerprint, Offered, Terms};
use crate::protocol::signal::{Description, DescriptionKind, Session};
use crate::transport::Account;
use crate::transport::introducer::{OUTGOING, introducer};
use crate::transport::memory::{Memory, MemoryOnramp};
use crate::{CloseReason, ConnectError, Firewall, Identity, Node, NodeKind, Offer, Policy, Root};

const ACCOUNT: Option<Account> = Some(Account { number: 0, background: false });

type Inbox = mpsc::Sender<(OverlayId, Bytes)>;

#[derive(Clone, Default)]
pub(crate) struct Mesh {
    memory: Memory,
    inboxes: Arc<Mutex<HashMap<OverlayId, Inbox>>>,
    /// Kept open.
    roots: Arc<Mutex<Vec<Root>>>,
}

struct Peer {
    root: Root,
    overlay: Node,
    id: OverlayId,
    /// Dropped signals; closed when the overlay's end is gone.
    dropped: watch::Receiver<u64>,
}

impl Mesh {
    /// The nodes that two peers have of each other.
    pub(crate) async fn connected(&self) -> (Node, Node) {
        let (a, b) = (self.peer(1).await, self.peer(2).await);
        let to_b = a.overlay.connect(b.id.address()).await.unwrap();
        let to_a = accepted(&b.root, a.id).await;
        self.roots.lock().unwrap().extend([a.root, b.root]);
        (to_b, to_a)
    }

    async fn peer(&self, secret: u8) -> Peer {
        self.peer_with(secret, Policy::accept_all()).await
    }

    async fn peer_with(&self, secret: u8, firewall: impl Firewall) -> Peer {
        let build = |builder: RootBuilder| {
            builder.firewall(firewall).build_with(Arc::new(MemoryOnramp::new(true)), Arc::new(self.memory.clone()))
        };
        self.join(secret, build).await
    }

    async fn join(&self, secret: u8, build: impl FnOnce(RootBuilder) -> Root) -> Peer {
        let (root, overlay, id, signals) = alone(secret, build).await;
        let (inbox, arrived) = mpsc::channel(8);
        self.inboxes.lock().unwrap().insert(id, inbox);
        let (counter, dropped) = watch::channel(0);
        tokio::spawn(self.clone().carry(id, signals, arrived, counter));
        Peer { root, overlay, id, dropped }
    }

    async fn carry(
        self,
        id: OverlayId,
        mut signals: Signals,
        mut arrived: mpsc::Receiver<(OverlayId, Bytes)>,
        counter: watch::Sender<u64>,
    ) {
        loop {
            tokio::select! {
                next = signals.next() => {
                    let Some((to, payload)) = next else { break };
                    let inbox = self.inboxes.lock().unwrap().get(&to).cloned();
                    match inbox {
                        Some(inbox) => inbox.send((id, payload.into())).await.unwrap(),
                        None => signals.undeliverable(to, Undeliverable::Unknown),
                    }
                }
                Some((from, payload)) = arrived.recv() => signals.deliver(from, ACCOUNT, payload),
            }
            counter.send_replace(signals.dropped());
        }
        self.inboxes.lock().unwrap().remove(&id);
    }
}

/// The overlay's end of a node.
struct Signals {
    from: FromTree,
    to: ToTree,
}

impl Signals {
    async fn next(&mut self) -> Option<(OverlayId, String)> {
        self.from.next().await
    }
}

impl std::ops::Deref for Signals {
    type Target = ToTree;

    fn deref(&self) -> &ToTree {
        &self.to
    }
}

/// A root with a node for the overlay, of which the test has the other end.
async fn alone(secret: u8, build: impl FnOnce(RootBuilder) -> Root) -> (Root, Node, OverlayId, Signals) {
    let identity = Identity::from_secret([secret; 32]);
    let id = OverlayId::of(&identity.peer_id());
    let root = build(Root::builder().identity(identity));
    let (transport, from, to) = introducer(id);
    let signals = Signals { from, to };
    let overlay = root.attach(NodeKind::Overlay, "overlay", transport).await.unwrap();
    (root, overlay, id, signals)
}

fn in_memory(builder: RootBuilder) -> Root {
    builder.build_with(Arc::new(MemoryOnramp::new(true)), Arc::new(Memory::default()))
}

async fn accepted(root: &Root, id: OverlayId) -> Node {
    let mut events = root.events();
    loop {
        if let Some(node) = root.peer(&id.address()).filter(Node::is_open) {
            return node;
        }
        events.next().await.unwrap();
    }
}

async fn talk(a: &Node, b: &Node) {
    for (from, to) in [(a, b), (b, a)] {
        let mut messages = to.messages();
        from.send("hello").await.unwrap();
        assert_eq!(messages.next().await, Some("hello".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_reached_by_its_overlay_id() {
    let mesh = Mesh::default();
    let (a, b) = (mesh.peer(1).await, mesh.peer(2).await);
    assert_eq!((a.overlay.kind(), a.overlay.own_address()), (NodeKind::Overlay, Some(&a.id.address())));
    let to_b = a.overlay.connect(b.id.address()).await.unwrap();
    let to_a = accepted(&b.root, a.id).await;
    assert_eq!((to_b.peer_id(), to_a.peer_id()), (Some(b.root.peer_id()), Some(a.root.peer_id())));
    assert_eq!((to_b.kind(), to_b.own_address()), (NodeKind::WebRtc, Some(&a.id.address())));
    talk(&to_b, &to_a).await;
    assert_eq!((*a.dropped.borrow(), *b.dropped.borrow()), (0, 0));
}

#[tokio::test]
async fn over_real_sockets() {
    let mesh = Mesh::default();
    let build =
        |builder: RootBuilder| builder.loopback(true).bind([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).build();
    let (a, b) = (mesh.join(1, build).await, mesh.join(2, build).await);
    let to_b = a.overlay.connect(b.id.address()).await.unwrap();
    let to_a = accepted(&b.root, a.id).await;
    assert_eq!((to_b.peer_id(), to_a.peer_id()), (Some(b.root.peer_id()), Some(a.root.peer_id())));
    talk(&to_b, &to_a).await;
}

#[tokio::test(start_paused = true)]
async fn the_firewall_is_asked_in_the_name_of_the_overlay() {
    let mesh = Mesh::default();
    let (asked, mut questions) = mpsc::channel(8);
    let firewall = move |offer: &Offer| {
        asked.try_send((offer.via().clone(), offer.from().clone(), offer.peer_id())).unwrap();
        offer.data() == "secret"
    };
    let (a, guarded) = (mesh.peer(1).await, mesh.peer_with(2, firewall).await);
    let refused = a.overlay.connect(guarded.id.address()).await;
    assert_eq!(refused.unwrap_err(), ConnectError::Refused);
    let who = Some((Address::new("overlay").unwrap(), a.id.address(), Some(a.root.peer_id())));
    assert_eq!(questions.recv().await, who);
    let welcome = crate::Connect::to(guarded.id.address()).offer_data("secret");
    a.overlay.connect(welcome).await.unwrap();
    assert_eq!(questions.recv().await, who);
    // Children inherit it.
    let third = mesh.peer(3).await;
    third.overlay.connect(a.id.address()).await.unwrap();
    let through = third.root.peer(&a.id.address()).unwrap().connect(guarded.id.address()).await;
    assert_eq!(through.unwrap_err(), ConnectError::Refused);
    assert_eq!(questions.recv().await.unwrap().0, a.id.address());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_is_told_at_once() {
    let mesh = Mesh::default();
    let a = mesh.peer(1).await;
    let started = tokio::time::Instant::now();
    let nobody = OverlayId::from_bytes([7; 20]);
    let known = mesh.peer(2).await;
    let upper = known.id.to_string().to_uppercase();
    for unknown in [nobody.to_string(), upper, "no id".into(), "ab".repeat(21)] {
        assert_eq!(a.overlay.connect(&unknown).await.unwrap_err(), ConnectError::Unreachable, "{unknown}");
    }
    assert_eq!(a.overlay.connect(a.id.address()).await.unwrap_err(), ConnectError::OwnAddress);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_overlay_that_takes_nothing_is_busy() {
    let (_root, overlay, _, mut signals) = alone(1, in_memory).await;
    let mut calls: FuturesUnordered<_> =
        (0..=OUTGOING as u8).map(|n| overlay.connect(OverlayId::from_bytes([n; 20]).address())).collect();
    assert_eq!(calls.next().await.unwrap().unwrap_err(), ConnectError::Busy);
    // The others are on their way: there is room for some of them.
    tokio::spawn(async move {
        while let Some((to, _)) = signals.next().await {
            signals.undeliverable(to, Undeliverable::Unknown);
        }
    });
    let others: Vec<_> = calls.map(Result::unwrap_err).collect().await;
    assert!(others.iter().all(|error| matches!(error, ConnectError::Busy | ConnectError::Unreachable)), "{others:?}");
    assert!(others.contains(&ConnectError::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn glare_ends_with_one_connection() {
    for _ in 0..20 {
        let mesh = Mesh::default();
        let (a, b) = (mesh.peer(1).await, mesh.peer(2).await);
        let (at_a, at_b) = tokio::join!(a.overlay.connect(b.id.address()), b.overlay.connect(a.id.address()));
        talk(&at_a.unwrap(), &at_b.unwrap()).await;
        assert_eq!((a.root.peers().len(), b.root.peers().len()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_open_needs_the_overlay_no_more() {
    let mesh = Mesh::default();
    let (a, b, mut c) = (mesh.peer(1).await, mesh.peer(2).await, mesh.peer(3).await);
    let to_b = a.overlay.connect(b.id.address()).await.unwrap();
    c.overlay.connect(b.id.address()).await.unwrap();
    for peer in [&a, &b, &c] {
        assert_eq!(peer.overlay.close().await, CloseReason::Local);
    }
    // The overlay's end hears of it.
    while c.dropped.changed().await.is_ok() {}
    assert_eq!(a.overlay.connect(c.id.address()).await.unwrap_err(), ConnectError::ViaClosed);
    talk(&to_b, &accepted(&b.root, a.id).await).await;
    // A child introduces a third.
    let to_c = to_b.connect(c.id.address()).await.unwrap();
    assert_eq!(to_c.peer_id(), Some(c.root.peer_id()));
    talk(&to_c, &accepted(&c.root, a.id).await).await;
}

#[tokio::test(start_paused = true)]
async fn the_overlay_may_end_first() {
    let (root, overlay, _, signals) = alone(1, in_memory).await;
    let calling = overlay.connect(OverlayId::from_bytes([7; 20]).address()).detach();
    drop(signals);
    assert_eq!(overlay.closed().await, CloseReason::Remote);
    assert_eq!(calling.closed().await, CloseReason::ViaClosed);
    assert!(root.peers().is_empty());
    // And the root before the overlay.
    let (root, _, _, mut signals) = alone(1, in_memory).await;
    root.close().await;
    assert_eq!(signals.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_attachment_is_one_node() {
    let (transport, _from, _to) = introducer(OverlayId::from_bytes([7; 20]));
    let root = in_memory(Root::builder());
    root.attach(NodeKind::Overlay, "overlay", transport.clone()).await.unwrap();
    let again = root.attach(NodeKind::Overlay, "overlay again", transport).await;
    assert!(matches!(again.unwrap_err(), ConnectError::Failed(_)));
}

/// Whoever brings the offer of another under its own id does not get it to the tree.
#[tokio::test(start_paused = true)]
async fn an_offer_shows_the_key_of_its_sender() {
    let (_a, a_overlay, a_id, mut of_a) = alone(1, in_memory).await;
    let (asked, mut questions) = mpsc::channel(8);
    let guarded = |builder: RootBuilder| {
        in_memory(builder.firewall(move |offer: &Offer| {
            asked.try_send(offer.from().clone()).unwrap();
            false
        }))
    };
    let (_b, _overlay, b_id, of_b) = alone(2, guarded).await;
    a_overlay.connect(b_id.address()).detach();
    let (to, offer) = of_a.next().await.unwrap();
    assert_eq!(to, b_id);
    let payload = Bytes::from(offer.clone());
    let thief = OverlayId::of(&Identity::from_secret([3; 32]).peer_id());
    of_b.deliver(thief, ACCOUNT, payload.clone());
    // As an original would send it: without any key.
    let bare = match Signal::parse(serde_json::from_str(&offer).unwrap()).unwrap() {
        Signal::Offer { description, data, .. } => Signal::Offer { description, data, ext: None }.to_json(),
        other => panic!("{other:?}"),
    };
    of_b.deliver(thief, ACCOUNT, bare.clone().into());
    of_b.deliver(a_id, ACCOUNT, bare.into());
    for junk in ["", "junk", "[3]", "null],[7,\"x\",null", "[99,1]", "\u{0}"] {
        of_b.deliver(a_id, ACCOUNT, junk.into());
    }
    of_b.deliver(a_id, ACCOUNT, Bytes::from_static(&[0xff, 0xfe]));
    of_b.deliver(a_id, ACCOUNT, vec![b' '; MAX_SIGNAL_BYTES + 1].into());
    of_b.deliver(a_id, ACCOUNT, payload);
    assert_eq!(questions.recv().await, Some(a_id.address()));
    assert!(questions.try_recv().is_err());
    assert_eq!(of_b.dropped(), 11);
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_is_dropped_and_counted() {
    let (_root, _overlay, _, signals) = alone(1, in_memory).await;
    let from = OverlayId::from_bytes([7; 20]);
    for _ in 0..1000 {
        // The tree has no turn in between.
        signals.deliver(from, ACCOUNT, "[5,{\"candidate\":\"x\"}]".into());
    }
    assert_eq!(signals.dropped(), 1000 - OverlayId::INCOMING as u64);
}

#[tokio::test(start_paused = true)]
async fn messages_of_the_application_are_dropped() {
    let (_root, overlay, _, mut signals) = alone(1, in_memory).await;
    overlay.send("hello").await.unwrap();
    overlay.send(vec![1, 2, 3]).await.unwrap();
    // What comes after them has passed them.
    overlay.connect(OverlayId::from_bytes([7; 20]).address()).detach();
    overlay.close().await;
    while signals.next().await.is_some() {}
    assert_eq!(signals.dropped(), 2);
}

#[tokio::test]
async fn many_ids_on_one_account_do_not_keep_the_firewall_from_others() {
    let undecided = Policy::new_async(|_| std::future::pending::<bool>());
    let (root, _overlay, _, mut signals) = alone(1, |builder| in_memory(builder.firewall(undecided))).await;
    let account = |number| Some(Account { number, background: false });
    let offer = |secret: u8| {
        let identity = Identity::from_secret([secret; 32]);
        let sdp = format!("v=0\r\n{}", Fingerprint::of_certificate(b"any").line());
        let terms = Terms { session: Session(1), window: (5, 5), max_message: None };
        let (proof, _) = Offered::sign(&identity, Base64([1; 16]), terms, &Value::Null, &sdp).unwrap();
        let description = Description { kind: DescriptionKind::Offer, sdp };
        let offer = Signal::Offer { description, data: Value::Null, ext: Some(Extension::new(terms, proof)) };
        (OverlayId::of(&identity.peer_id()), Bytes::from(offer.to_json()))
    };
    for secret in 2..36 {
        let (from, payload) = offer(secret);
        signals.deliver(from, account(1), payload);
    }
    let (from, payload) = offer(36);
    signals.deliver(from, account(2), payload);
    // The firewall is asked about half of what it may be asked at once, and about that of the other.
    for secret in [34, 35] {
        let (to, refusal) = signals.next().await.unwrap();
        assert_eq!((to, refusal.as_str()), (offer(secret).0, r#"[8,"0000000000000001","busy"]"#));
    }
    root.close().await;
}
