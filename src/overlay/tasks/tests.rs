use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::overlay::Overlay;
use crate::protocol::Address;
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
