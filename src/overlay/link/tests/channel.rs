use super::*;
use crate::node::Node;
use crate::overlay::link::signal::tests::Mesh;
use crate::transport::introducer::Name;

/// The channel between two nodes, as each side has it.
async fn channels() -> (Mesh, Node, Node) {
    let mesh = Mesh::default();
    let (a, b) = mesh.connected().await;
    (mesh, a, b)
}

#[tokio::test(start_paused = true)]
async fn a_channel_of_a_node_is_a_link() {
    let (_mesh, to_b, to_a) = channels().await;
    let mut here = Link::over(to_b.reserved_channel(CHANNEL).unwrap()).unwrap();
    let mut there = Link::over(to_a.reserved_channel(CHANNEL).unwrap()).unwrap();
    assert_eq!((Some(here.key), here.id.address()), (to_b.peer_id(), to_b.address().clone()));
    for (from, to) in [(&here.sender, &mut there.packets), (&there.sender, &mut here.packets)] {
        for size in [0, 1, MAX_PACKET_BYTES] {
            from.try_send(vec![7; size].into()).unwrap();
            assert_eq!(to.next().await.unwrap(), vec![7; size]);
        }
        assert_eq!(from.try_send(vec![0; MAX_PACKET_BYTES + 1].into()), Err(NotSent::TooLarge));
    }
    // A reader that is slow.
    let sent = (0..1000).take_while(|_| here.sender.try_send(vec![0; 10_000].into()).is_ok()).count();
    assert!((10..1000).contains(&sent), "{sent}");
    assert!(matches!(here.sender.try_send(vec![0; 10_000].into()), Err(NotSent::Full(_))));
    for _ in 0..sent {
        there.packets.next().await.unwrap();
    }
    // Its end is not that of the node.
    here.sender.try_send("last".into()).unwrap();
    drop(here);
    assert_eq!(there.packets.next().await.unwrap(), "last");
    assert_eq!(there.packets.next().await, None);
    assert_eq!(there.sender.try_send(Bytes::new()), Err(NotSent::Closed));
    assert!(to_a.is_open() && to_b.is_open());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_packet_ends_the_link() {
    let (_mesh, to_b, to_a) = channels().await;
    for junk in [crate::Message::from("json"), vec![0; MAX_PACKET_BYTES + 1].into()] {
        let channel = to_b.reserved_channel(CHANNEL).unwrap();
        let mut there = Link::over(to_a.reserved_channel(CHANNEL).unwrap()).unwrap();
        channel.send(junk).await.unwrap();
        assert_eq!(there.packets.next().await, None);
        channel.closed().await;
        drop(there);
    }
    assert!(to_a.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_link_ends_with_its_node() {
    let (_mesh, to_b, to_a) = channels().await;
    let _here = Link::over(to_b.reserved_channel(CHANNEL).unwrap()).unwrap();
    let mut there = Link::over(to_a.reserved_channel(CHANNEL).unwrap()).unwrap();
    to_b.close().await;
    assert_eq!(there.packets.next().await, None);
    assert_eq!(there.sender.try_send(Bytes::new()), Err(NotSent::Closed));
}
