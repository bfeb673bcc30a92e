use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::overlay::Overlay;
use crate::overlay::keys::Keys;
use crate::overlay::link::signal::tests::Mesh;
use crate::overlay::router::{Router, RouterConfig, SendFailure};
use crate::overlay::routing::{Kademlia, KademliaConfig};
use crate::overlay::seal::Session;
use crate::overlay::topics::{Topics, TopicsConfig};
use crate::protocol::Address;
use crate::transport::introducer::introducer;
use crate::{NodeState, Root};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it took too long")
}

/// An overlay whose root has more events than anybody can read.
async fn lagging(at: &[&Overlay]) -> Overlay {
    let root = Root::builder().bind([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).mdns(false).build();
    let builder = Overlay::builder(&root).listen((Ipv4Addr::LOCALHOST, 0).into());
    let url = |other: &&Overlay| format!("ws://{}", other.local_addr().unwrap());
    let overlay = soon(at.iter().fold(builder, |builder, other| builder.bootstrap(url(other))).start()).await.unwrap();
    let (via, address) = (overlay.node().clone(), Address::new("nobody").unwrap());
    tokio::spawn(async move {
        while via.is_open() {
            for _ in 0..1500 {
                root.emit(Event::PeerLeft { via: via.clone(), address: address.clone() });
            }
            tokio::task::yield_now().await;
        }
    });
    overlay
}

#[tokio::test]
async fn what_was_made_for_the_routing_is_known_whatever_events_are_lost() {
    let a = lagging(&[]).await;
    let b = lagging(&[&a]).await;
    let c = lagging(&[&a]).await;
    let theirs = |node: &Node| node.is_open() && node.peer_id().is_some_and(|peer| OverlayId::of(&peer) == c.id());
    soon(b.neighbour(&c.id())).await;
    let node = b.root().peers().into_iter().find(theirs).unwrap();
    soon(b.close()).await;
    soon(node.closed()).await;
    assert!(matches!(node.state(), NodeState::Closed(_)));
}

/// A core that nobody uses for anything else.
fn core() -> Arc<Core> {
    let identity = Identity::from_secret([1; 32]);
    let id = OverlayId::of(&identity.peer_id());
    let routing = Kademlia::new(id, KademliaConfig::default(), 1, Instant::now().into_std());
    let keys = Keys::new(identity.clone(), Session::from_bytes([1; 8]));
    let router = Router::new(Box::new(routing), Box::new(keys), RouterConfig::default(), 1);
    let (_, _, to_tree) = introducer(id);
    Core::new(router, Topics::new(identity, TopicsConfig::default(), 1, 1), to_tree, false).0
}

#[tokio::test(start_paused = true)]
async fn a_link_over_a_node_is_made_again_soon_if_it_was_one() {
    let mesh = Mesh::default();
    let (node, there) = mesh.connected().await;
    let (core, link) = (core(), link_over(&node).unwrap());
    let serving = serve(core.clone(), link, Reach::Node { node: node.clone(), routed: false });
    let ways = Ways { overlay: node.clone(), has_urls: false };
    tokio::spawn(serve_node(core, ways, node, false, serving));
    let mut made = Vec::new();
    for speaks in [false, false, false, true, true, false, false] {
        let mut link = link_over(&there).unwrap();
        soon(link.packets.next()).await.expect("it says hello");
        made.push(Instant::now());
        if speaks {
            link.sender.try_send("anything".into()).unwrap();
        }
    }
    let pauses: Vec<u64> = made.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses, [2, 4, 8, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_no_overlay_is_no_way_in() {
    let mesh = Mesh::default();
    let (node, there) = mesh.connected().await;
    let (core, link) = (core(), link_over(&node).unwrap());
    let ways = Ways { overlay: node.clone(), has_urls: false };
    tokio::spawn(core.clone().keep_time());
    // As long as it was on its way.
    core.have(|router, _| router.set_joining(true));
    let reach = Reach::Node { node: node.clone(), routed: false };
    let serving = serve(core.clone(), link, reach);
    tokio::spawn(serve_node(core.clone(), ways, node, false, serving));
    let mut link = link_over(&there).unwrap();
    soon(link.packets.next()).await.expect("it says hello");
    drop(link);
    let begun = Instant::now();
    let fails = async || {
        let (told, result) = oneshot::channel();
        let to = OverlayId::of(&Identity::from_secret([9; 32]).peer_id());
        drop(core.send(to, Kind::Binary, "anybody?".into(), Some((REDIAL.0, told))).unwrap());
        assert_eq!(soon(result).await, Ok(Err(SendFailure::NoRoute)));
    };
    // The first may be before the link is over.
    fails().await;
    let waited = begun.elapsed();
    fails().await;
    assert_eq!(begun.elapsed(), waited);
}

/// Takes packets until one begins with this byte.
async fn packet(link: &mut Link, kind: u8) {
    while soon(link.packets.next()).await.expect("the link is there")[0] != kind {}
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_begun_anew_is_answered_over_its_new_link() {
    const HELLO: &[u8] = &[0, 1, 0, 7, 7, 7, 7, 7, 7, 7, 7, 1];
    const PING: &[u8] = &[5];
    const PONG: u8 = 6;
    let (core, before, after) = (core(), Mesh::default(), Mesh::default());
    let (direct, there) = before.connected().await;
    let reach = Reach::Node { node: direct.clone(), routed: false };
    tokio::spawn(serve(core.clone(), link_over(&direct).unwrap(), reach));
    let mut old = link_over(&there).unwrap();
    old.sender.try_send(Bytes::from_static(HELLO)).unwrap();
    packet(&mut old, HELLO[0]).await;
    old.sender.try_send(Bytes::from_static(PING)).unwrap();
    packet(&mut old, PONG).await;
    tokio::time::advance(Duration::from_secs(1)).await;

    // Nobody has noticed yet that the old link is dead.
    let (other, there) = after.connected().await;
    tokio::spawn(serve(core, link_over(&other).unwrap(), Reach::WebSocket));
    let mut new = link_over(&there).unwrap();
    new.sender.try_send(Bytes::from_static(HELLO)).unwrap();
    packet(&mut new, HELLO[0]).await;
    // If it lives all the same, it is the better one.
    old.sender.try_send(Bytes::from_static(PING)).unwrap();
    packet(&mut old, PONG).await;
}
