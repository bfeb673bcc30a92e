//! The whole tree over links within the process, under a paused clock.

mod channels;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::*;
use crate::identity::Identity;
use crate::protocol::proof::{Base64, Fingerprint, Offered, Terms};
use crate::protocol::signal::{Description, DescriptionKind, Extension, Session, Signal};
use crate::protocol::{Address, frame};
use crate::transport::memory::{Memory, MemoryOnramp};
use crate::transport::{MockLink, MockTransport, Remote, Target};
use crate::{CloseReason, Counters};

struct World {
    memory: Memory,
    onramp: MemoryOnramp,
}

impl World {
    fn new() -> Self {
        Self { memory: Memory::default(), onramp: MemoryOnramp::new(true) }
    }

    fn root(&self, firewall: impl Firewall) -> Root {
        Root::builder().firewall(firewall).build_with(Arc::new(self.onramp.clone()), Arc::new(self.memory.clone()))
    }

    /// A root that accepts all, its onramp node, and its address there.
    async fn peer(&self) -> (Root, Node, Address) {
        self.peer_with(Policy::accept_all()).await
    }

    async fn peer_with(&self, firewall: impl Firewall) -> (Root, Node, Address) {
        let root = self.root(firewall);
        let onramp = root.connect("memory://onramp").await.unwrap();
        let address = onramp.own_address().unwrap().clone();
        (root, onramp, address)
    }
}

async fn accepted(root: &Root, address: &Address) -> Node {
    loop {
        if let Some(node) = root.peer(address)
            && node.is_open()
        {
            return node;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Messages pass in both directions.
async fn talk(a: &Node, b: &Node) {
    for (from, to) in [(a, b), (b, a)] {
        let mut messages = to.messages();
        from.send("hello").await.unwrap();
        from.send(vec![1, 2, 3]).await.unwrap();
        assert_eq!(messages.next().await, Some("hello".into()));
        assert_eq!(messages.next().await, Some(vec![1, 2, 3].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_five_introduced_one_by_one_without_the_onramp() {
    let world = World::new();
    let mut peers = Vec::new();
    for _ in 0..5 {
        peers.push(world.peer().await);
    }
    // Neighbours in a row know each other through the onramp; the first knows only the second.
    for pair in peers.windows(2) {
        pair[0].1.connect(&pair[1].2).await.unwrap();
    }
    world.onramp.stop();
    let (root, onramp, own) = &peers[0];
    onramp.closed().await;
    let mut via = root.peer(&peers[1].2).unwrap();
    for (other, _, address) in &peers[2..] {
        via = via.connect(address).await.unwrap();
        talk(&via, &accepted(other, own).await).await;
    }
    let relayed: u64 = peers.iter().map(|(root, ..)| root.counters().relayed).sum();
    assert!(relayed >= 6, "{relayed}");
}

#[tokio::test(start_paused = true)]
async fn the_firewall_is_inherited_at_every_depth() {
    for depth in 1..=5 {
        let world = World::new();
        let mut relays = Vec::new();
        for _ in 0..depth {
            relays.push(world.peer().await);
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let firewall = {
            let asked = asked.clone();
            move |offer: &Offer| {
                asked.fetch_add(1, Ordering::Relaxed);
                offer.data() == &json!("secret")
            }
        };
        let (_guarded, guarded_onramp, guarded_address) = world.peer_with(firewall).await;
        let (_dialler, dialler_onramp, _) = world.peer().await;
        // guarded - relay 1 - … - relay n, each met through the one before.
        let mut through = guarded_onramp.connect(&relays[0].2).await.unwrap();
        for pair in relays.windows(2) {
            pair[0].1.connect(&pair[1].2).await.unwrap();
            through = through.connect(&pair[1].2).await.unwrap();
        }
        let last = dialler_onramp.connect(&relays[depth - 1].2).await.unwrap();
        let refused = last.connect(Connect::to(&guarded_address).offer_data("wrong")).await;
        assert_eq!(refused.unwrap_err(), ConnectError::Refused, "depth {depth}");
        last.connect(Connect::to(&guarded_address).offer_data("secret")).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once for each offer");
        drop(through);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_call_can_replace_the_firewall_for_its_subtree() {
    let world = World::new();
    let (_open, open_onramp, open_address) = world.peer_with(Policy::accept_all()).await;
    let (_relay, relay_onramp, relay_address) = world.peer().await;
    let (_dialler, dialler_onramp, _) = world.peer().await;
    let relay = Connect::to(&relay_address).firewall(Policy::refuse_all());
    open_onramp.connect(relay).await.unwrap();
    let via_relay = dialler_onramp.connect(&relay_address).await.unwrap();
    assert_eq!(via_relay.connect(&open_address).await.unwrap_err(), ConnectError::Refused);
    dialler_onramp.connect(&open_address).await.unwrap();
    drop(relay_onramp);
}

#[tokio::test(start_paused = true)]
async fn glare_ends_with_one_connection_on_both_sides() {
    for _ in 0..20 {
        let world = World::new();
        let (a, a_onramp, a_address) = world.peer().await;
        let (b, b_onramp, b_address) = world.peer().await;
        let (at_a, at_b) = tokio::join!(a_onramp.connect(&b_address), b_onramp.connect(&a_address));
        let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
        talk(&at_a, &at_b).await;
        assert_eq!((a.peers().len(), b.peers().len()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn glare_over_two_introducers_ends_with_one_connection_on_both_sides() {
    let world = World::new();
    let (_relay, relay_onramp, relay_address) = world.peer().await;
    let (a, a_onramp, a_address) = world.peer().await;
    let (b, b_onramp, b_address) = world.peer().await;
    let a_relay = a_onramp.connect(&relay_address).await.unwrap();
    b_onramp.connect(&relay_address).await.unwrap();
    let (at_a, at_b) = tokio::join!(a_relay.connect(&b_address), b_onramp.connect(&a_address));
    let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (one, other) = (a.peer(&b_address).unwrap(), b.peer(&a_address).unwrap());
    talk(&one, &other).await;
    assert_eq!((a.peers().len(), b.peers().len()), (3, 3));
    drop((at_a, at_b, relay_onramp));
}

#[tokio::test(start_paused = true)]
async fn when_the_winner_of_a_glare_is_refused_the_loser_still_has_its_chance() {
    for _ in 0..20 {
        let world = World::new();
        let (_a, a_onramp, a_address) = world.peer_with(|offer: &Offer| offer.data() == &json!("yes")).await;
        let (b, b_onramp, b_address) = world.peer().await;
        // The guarded side refuses the other's offer, whichever wins; its own is welcome.
        let (at_a, at_b) = tokio::join!(a_onramp.connect(&b_address), b_onramp.connect(&a_address));
        talk(&at_a.unwrap(), &at_b.unwrap()).await;
        assert_eq!(b.peers().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn dialling_an_open_address_gives_the_open_node() {
    let world = World::new();
    let (a, a_onramp, _) = world.peer().await;
    let mut gone = a.disconnections();
    let (_b, _b_onramp, b_address) = world.peer().await;
    let (first, second) = tokio::join!(a_onramp.connect(&b_address), a_onramp.connect(&b_address));
    let third = a_onramp.connect(&b_address).await;
    let first = first.unwrap();
    assert_eq!((&first, &first), (&second.unwrap(), &third.unwrap()));
    assert_eq!(a.peers().len(), 2);
    // The nodes that were not needed end without a word.
    assert!(gone.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached() {
    let world = World::new();
    let (_a, onramp, own) = world.peer().await;
    assert_eq!(onramp.connect("p99").await.unwrap_err(), ConnectError::Unreachable);
    assert_eq!(onramp.connect(&own).await.unwrap_err(), ConnectError::OwnAddress);
    let patient = Connect::to("p98").timeout(Duration::MAX);
    assert_eq!(onramp.connect(patient).await.unwrap_err(), ConnectError::Unreachable);
    assert!(matches!(onramp.connect("").await, Err(ConnectError::InvalidAddress(_))));
    let large = onramp.connect(Connect::to("p1").offer_data("x".repeat(200_000))).await;
    assert_eq!(large.unwrap_err(), ConnectError::OfferDataTooLarge { limit: 32 * 1024 });
    onramp.close().await;
    assert_eq!(onramp.connect("p1").await.unwrap_err(), ConnectError::ViaClosed);
}

#[tokio::test(start_paused = true)]
async fn an_introducer_that_says_nothing_ends_in_a_timeout() {
    let mut world = World::new();
    world.onramp = MemoryOnramp::new(false);
    let root = world.root(Policy::accept_all());
    let onramp = root.connect("memory://silent").await.unwrap();
    let started = tokio::time::Instant::now();
    let result = onramp.connect(Connect::to("p99").timeout(Duration::from_secs(7))).await;
    assert_eq!(result.unwrap_err(), ConnectError::TimedOut);
    assert_eq!(started.elapsed().as_secs(), 7);
    assert_eq!(root.peers(), [onramp]);
}

#[tokio::test(start_paused = true)]
async fn an_ignored_offer_ends_in_a_timeout_and_a_panic_is_a_refusal() {
    let world = World::new();
    let (_a, _, silent) = world.peer_with(|_: &Offer| Verdict::Ignore).await;
    let (b, _, broken) = world.peer_with(|_: &Offer| -> bool { panic!("a bug in the policy") }).await;
    let (_c, _, slow) = world.peer_with(Policy::new_async(|_| std::future::pending::<bool>())).await;
    let (_d, onramp, _) = world.peer().await;
    let mut errors = b.events();
    assert_eq!(onramp.connect(&silent).await.unwrap_err(), ConnectError::TimedOut);
    assert_eq!(onramp.connect(&broken).await.unwrap_err(), ConnectError::Refused);
    let (_e, _, full) = world.peer_with(|_: &Offer| Verdict::Busy).await;
    assert_eq!(onramp.connect(&full).await.unwrap_err(), ConnectError::Busy);
    assert!(matches!(errors.next().await, Some(Event::Error { error: NodeError::FirewallPanicked { .. }, .. })));
    let patient = Connect::to(&slow).timeout(Duration::from_secs(100));
    assert_eq!(onramp.connect(patient).await.unwrap_err(), ConnectError::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_node_listened_to_before_it_is_open_loses_nothing() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let (_b, b_onramp, _) = world.peer().await;
    let mut connections = a.connections();
    let dialling = b_onramp.connect(&a_address);
    let node = dialling.node();
    assert!(!node.is_open());
    let mut events = node.events();
    dialling.await.unwrap();
    for n in 0..100 {
        node.send(json!(n)).await.unwrap();
    }
    assert!(matches!(events.next().await, Some(Event::Open { .. })));
    let accepted = connections.next().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut messages = accepted.messages();
    for n in 0..100 {
        assert_eq!(messages.next().await, Some(json!(n).into()));
    }
    let mut late = accepted.events();
    assert!(matches!(late.next().await, Some(Event::Open { .. })));
    drop(a_onramp);
}

#[tokio::test(start_paused = true)]
async fn closing_is_seen_on_both_sides_and_what_was_sent_arrives() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let (b, _, b_address) = world.peer().await;
    let node = a_onramp.connect(&b_address).await.unwrap();
    let other = accepted(&b, &a_address).await;
    let mut gone = b.disconnections();
    let mut messages = other.messages();
    node.send("last words").await.unwrap();
    assert_eq!(node.close().await, CloseReason::Local);
    assert_eq!(node.close().await, CloseReason::Local);
    assert_eq!(other.closed().await, CloseReason::Remote);
    assert_eq!(gone.next().await, Some(other.clone()));
    assert_eq!(messages.next().await, Some("last words".into()));
    assert_eq!(messages.next().await, None);
    assert_eq!(other.send("too late").await, Err(SendError::NotOpen));
    assert_eq!(other.try_send("too late"), Err(TrySendError::NotOpen("too late".into())));
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    // The address is free again.
    let again = a_onramp.connect(&b_address).await.unwrap();
    talk(&again, &accepted(&b, &a_address).await).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_sees_the_end_of_a_node_finds_it_in_the_tree_no_more() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let (b, _, b_address) = world.peer().await;
    for _ in 0..50 {
        let node = a_onramp.connect(&b_address).await.unwrap();
        accepted(&b, &a_address).await;
        let (tree, watched) = (a.clone(), node.clone());
        // Another thread, which looks in the moment of the end.
        let watcher = std::thread::spawn(move || {
            while !matches!(watched.state(), NodeState::Closed(_)) {
                std::hint::spin_loop();
            }
            tree.peers().contains(&watched)
        });
        node.close().await;
        assert!(!watcher.join().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_an_attempt_abandons_it() {
    let mut world = World::new();
    world.onramp = MemoryOnramp::new(false);
    let root = world.root(Policy::accept_all());
    let onramp = root.connect("memory://onramp").await.unwrap();
    let mut dialling = onramp.connect("p99");
    let node = dialling.node();
    assert!((&mut dialling).now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(root.peers().len(), 2);
    drop(dialling);
    assert_eq!(node.closed().await, CloseReason::Cancelled);
    assert_eq!(root.peers().len(), 1);
    // Dropped before anything was done with it.
    let never = onramp.connect("p97");
    let node = never.node();
    drop(never);
    assert_eq!(node.closed().await, CloseReason::Cancelled);
    // Closed before anything was done with it.
    let never = onramp.connect("p98");
    assert_eq!(never.node().close().await, CloseReason::Local);
    assert_eq!(never.await.unwrap_err(), ConnectError::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn negotiations_end_with_their_introducer() {
    let mut world = World::new();
    world.onramp = MemoryOnramp::new(false);
    let root = world.root(Policy::accept_all());
    let onramp = root.connect("memory://onramp").await.unwrap();
    let dialling = onramp.connect("p99");
    let (result, ()) = tokio::join!(dialling, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.onramp.stop();
    });
    assert_eq!(result.unwrap_err(), ConnectError::ViaClosed);
}

#[tokio::test(start_paused = true)]
async fn the_root_closes_everything() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let (b, _, b_address) = world.peer().await;
    let node = a_onramp.connect(&b_address).await.unwrap();
    let other = accepted(&b, &a_address).await;
    let (mut all, mut events) = (a.messages(), a.events());
    a.close().await;
    assert_eq!(node.state(), NodeState::Closed(CloseReason::RootClosed));
    assert_eq!(other.closed().await, CloseReason::Remote);
    assert_eq!(all.next().await, None);
    assert_eq!(a.connect("memory://onramp").await.unwrap_err(), ConnectError::RootClosed);
    assert!(a.peers().is_empty());
    while events.next().await.is_some() {}
    assert!(a.events().next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_root_closes_the_tree() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let (b, _, b_address) = world.peer().await;
    let node = a_onramp.connect(&b_address).await.unwrap();
    let other = accepted(&b, &a_address).await;
    let second = a.clone();
    drop(a);
    talk(&node, &other).await;
    drop(second);
    assert_eq!(other.closed().await, CloseReason::Remote);
    assert_eq!(node.closed().await, CloseReason::RootClosed);
}

#[tokio::test(start_paused = true)]
async fn the_root_hears_every_node() {
    let world = World::new();
    let (a, a_onramp, a_address) = world.peer().await;
    let mut all = a.messages();
    let mut expected = Vec::new();
    for _ in 0..3 {
        let (b, _, b_address) = world.peer().await;
        a_onramp.connect(&b_address).await.unwrap();
        accepted(&b, &a_address).await.send(b_address.as_str()).await.unwrap();
        expected.push((b_address, b));
    }
    for (address, _root) in &expected {
        let (node, message) = all.next().await.unwrap();
        assert_eq!((node.address(), message), (address, address.as_str().into()));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_from_the_wrong_introducer_are_dropped() {
    let world = World::new();
    let (a, a_onramp, _) = world.peer().await;
    for payload in [
        "[4,{\"type\":\"answer\",\"sdp\":\"memory 1\\r\\n\"}]",
        "[5,{\"candidate\":\"x\"}]",
        "[8,\"00000000000000aa\"]",
    ] {
        world.onramp.inject(1, format!("[7,\"p9\",{payload}]")).await;
    }
    for text in ["[", "[]", "[7,\"p9\"]", "[7,\"p9\",[3]]", "[6,\"p9\",[]]", "[99]"] {
        world.onramp.inject(1, text.into()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counters = a.counters();
    assert_eq!((counters.unexpected, counters.malformed), (3, 5));
    assert_eq!(counters, Counters { unexpected: 3, malformed: 5, undeliverable: 1, ..Counters::default() });
    assert!(a_onramp.is_open());
}

/// An offer as an original P makes it, and as a pmesh peer does.
fn offers() -> [String; 2] {
    let terms = Terms { session: Session(0xaa), window: (1000, 10), max_message: None };
    let sdp = format!("v=0\r\n{}", Fingerprint::of_certificate(b"any").line());
    let data = Value::from("data");
    let (proof, _) = Offered::sign(&Identity::generate(), Base64([0; 16]), terms, &data, &sdp).unwrap();
    let description = Description { kind: DescriptionKind::Offer, sdp };
    [("p9", None), ("p8", Some(Extension::new(terms, proof)))].map(|(from, ext)| {
        let signal = Signal::Offer { description: description.clone(), data: data.clone(), ext };
        frame::relayed(&Address::new(from).unwrap(), &signal.to_json())
    })
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_for_an_offer_before_the_firewall_accepts_it() {
    let onramp = MemoryOnramp::new(true);
    // Without an expectation every call is a panic.
    let webrtc = MockTransport::new();
    let root = Root::builder()
        .firewall(Policy::new_async(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Verdict::Refuse
        }))
        .build_with(Arc::new(onramp.clone()), Arc::new(webrtc));
    root.connect("memory://onramp").await.unwrap();
    for offer in offers() {
        onramp.inject(1, offer).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(root.counters().offers_refused, 2);
    assert_eq!(root.peers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_for_an_onramp() {
    let world = World::new();
    let (a, _onramp, _) = world.peer().await;
    let offer = offers()[1].replace("p8", "memory://onramp");
    world.onramp.inject(1, offer).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(a.peers().len(), 1);
    assert_eq!(a.counters().offers_accepted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_other_side_does_not_take_is_an_error_here() {
    let world = World::new();
    let (_a, a_onramp, a_address) = world.peer().await;
    let b = Root::builder()
        .max_message_size(1000)
        .build_with(Arc::new(world.onramp.clone()), Arc::new(world.memory.clone()));
    let b_onramp = b.connect("memory://onramp").await.unwrap();
    let at_a = a_onramp.connect(b_onramp.own_address().unwrap()).await.unwrap();
    assert_eq!(at_a.send(vec![0; 1001]).await, Err(SendError::TooLarge { limit: 1000 }));
    talk(&at_a, &accepted(&b, &a_address).await).await;
}

#[tokio::test(start_paused = true)]
async fn an_accepted_offer_starts_one_link_of_the_right_kind() {
    let onramp = MemoryOnramp::new(true);
    let mut webrtc = MockTransport::new();
    for remote in [Remote::Original, Remote::Pmesh { window: (1000, 10), max_message: None }] {
        webrtc
            .expect_start()
            .withf(move |target, _| matches!(target, Target::Answer { remote: r, .. } if *r == remote))
            .once()
            .returning(|_, _| {
                let mut link = MockLink::new();
                link.expect_command().never();
                Box::new(link)
            });
    }
    let root = Root::builder().build_with(Arc::new(onramp.clone()), Arc::new(webrtc));
    root.connect("memory://onramp").await.unwrap();
    let mut connections = root.connections();
    for offer in offers() {
        onramp.inject(1, offer).await;
        let node = connections.next().await.unwrap();
        assert_eq!(node.state(), NodeState::Connecting);
    }
    // Nobody answers: the attempts are given up.
    for node in root.peers().into_iter().filter(|node| node.kind() == NodeKind::WebRtc) {
        assert_eq!(node.closed().await, CloseReason::TimedOut);
    }
    assert_eq!(root.peers().len(), 1);
}
