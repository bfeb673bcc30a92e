use super::*;
use crate::protocol::limits::MAX_CHANNELS;
use crate::protocol::{Delivery, Reliability};

/// Two roots, and the node that each has of the other.
async fn pair(world: &World) -> ((Root, Node), (Root, Node)) {
    let (a, onramp, own) = world.peer().await;
    let (b, _, address) = world.peer().await;
    let to_b = onramp.connect(&address).await.unwrap();
    let to_a = accepted(&b, &own).await;
    ((a, to_b), (b, to_a))
}

fn number(n: u32) -> Vec<u8> {
    let mut body = vec![0; 20_000];
    body[..4].copy_from_slice(&n.to_be_bytes());
    body
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_both_sides_open_at_once_is_one() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let (here, there) = (to_b.channel("chat").unwrap(), to_a.channel("chat").unwrap());
    assert_eq!(to_b.channel("chat").unwrap(), here);
    for (from, to) in [(&here, &there), (&there, &here)] {
        from.send("hello").await.unwrap();
        from.send(vec![1, 2, 3]).await.unwrap();
        let mut messages = to.messages();
        assert_eq!(messages.next().await, Some("hello".into()));
        assert_eq!(messages.next().await, Some(vec![1, 2, 3].into()));
    }
    assert_eq!(to_a.channels().next().now_or_never(), None, "nobody opened another one");
    talk(&to_a, &to_b).await;
}

#[tokio::test(start_paused = true)]
async fn channels_of_the_other_side_come_once_whenever_they_were_opened() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    for name in ["before", "named"] {
        to_b.channel(name).unwrap().send(name).await.unwrap();
    }
    to_a.channel("named").unwrap();
    let mut channels = to_a.channels();
    let before = channels.next().await.unwrap();
    assert_eq!((before.name(), before.node()), ("before", &to_a));
    let later = to_b.channel("later").unwrap();
    assert_eq!(channels.next().await.unwrap().name(), "later");
    later.send(1.to_string()).await.unwrap();
    assert_eq!(before.messages().next().await, Some("before".into()));
    to_b.close().await;
    assert_eq!(channels.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn channels_of_the_library_are_not_for_applications() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    assert_eq!(to_b.channel("pmesh.own").unwrap_err(), ChannelError::NameReserved { prefix: "pmesh." });
    let (here, there) = (to_b.reserved_channel("pmesh.own").unwrap(), to_a.reserved_channel("pmesh.own").unwrap());
    to_b.reserved_channel("pmesh.unknown").unwrap().send("nobody looks at this").await.unwrap();
    here.send("hello").await.unwrap();
    assert_eq!(there.messages().next().await, Some("hello".into()));
    to_b.channel("files").unwrap();
    assert_eq!(to_a.channels().next().await.unwrap().name(), "files", "the others are not shown");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_one_channel_blocks_no_other() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let (slow, busy) = (to_b.channel("slow").unwrap(), to_b.channel("busy").unwrap());
    let sender = tokio::spawn({
        let slow = slow.clone();
        async move {
            for n in 0..100 {
                slow.send(number(n)).await.unwrap();
            }
        }
    });
    // Main and the other channel are used as much as one likes.
    let sending = tokio::spawn({
        let (to_b, busy) = (to_b.clone(), busy.clone());
        async move {
            for n in 0..200 {
                busy.send(number(n)).await.unwrap();
                to_b.send(number(n)).await.unwrap();
            }
        }
    });
    let (mut main, mut other) = (to_a.binaries(), to_a.channel("busy").unwrap().binaries());
    for n in 0..200 {
        assert_eq!(other.next().await.unwrap(), number(n));
        assert_eq!(main.next().await.unwrap(), number(n));
    }
    sending.await.unwrap();
    assert!(!sender.is_finished(), "2 MB are more than what may wait");
    assert!(slow.buffered() > 0);
    let mut unread = to_a.channel("slow").unwrap().binaries();
    for n in 0..100 {
        assert_eq!(unread.next().await.unwrap(), number(n));
    }
    sender.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancelled_and_timed_out_sends_have_sent_nothing() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let here = to_b.channel("chat").unwrap();
    let mut sent = 0;
    for n in 0..60 {
        let send = here.send(number(n));
        if tokio::time::timeout(Duration::from_millis(10), send).await.is_ok() {
            assert_eq!(n, sent, "those that follow have no room either");
            sent += 1;
        }
    }
    assert!((10..60).contains(&sent), "{sent}");
    let mut messages = to_a.channel("chat").unwrap().binaries();
    for n in 0..sent {
        assert_eq!(messages.next().await.unwrap(), number(n));
    }
    here.send(number(99)).await.unwrap();
    assert_eq!(messages.next().await.unwrap(), number(99));
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_is_queued_and_ends_both_sides() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let here = to_b.channel("chat").unwrap();
    let there = to_a.channel("chat").unwrap();
    let mut messages = there.binaries();
    let closing = tokio::spawn({
        let here = here.clone();
        async move {
            for n in 0..30 {
                here.send(number(n)).await.unwrap();
            }
            here.close().await;
        }
    });
    for n in 0..30 {
        assert_eq!(messages.next().await.unwrap(), number(n));
    }
    assert_eq!(messages.next().await, None);
    closing.await.unwrap();
    there.closed().await;
    for channel in [&here, &there] {
        assert!(!channel.is_open());
        assert_eq!(channel.send(1.to_string()).await, Err(SendError::NotOpen));
        assert_eq!(channel.try_send("2"), Err(TrySendError::NotOpen("2".into())));
    }
    assert_eq!(here.messages().next().await, None);
    there.close().await;

    // The name is free again, for a channel that has nothing to do with the first.
    let again = to_b.channel("chat").unwrap();
    assert_ne!(again, here);
    again.send("again").await.unwrap();
    let there = to_a.channels().next().await.unwrap();
    assert_eq!(there.messages().next().await, Some("again".into()));
}

#[tokio::test(start_paused = true)]
async fn channels_end_with_their_node() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let here = to_b.channel("chat").unwrap();
    here.send("last").await.unwrap();
    to_b.close().await;
    here.closed().await;
    to_a.closed().await;
    assert_eq!(to_b.channel("more").unwrap_err(), ChannelError::NotOpen);
    let there = to_a.channels().next().await.unwrap();
    assert!(!there.is_open());
    let mut messages = there.messages();
    assert_eq!(messages.next().await, Some("last".into()));
    assert_eq!(messages.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn why_there_is_no_channel() {
    let world = World::new();
    let ((a, to_b), _b) = pair(&world).await;
    let onramp = a.peers().remove(0);
    assert_eq!(onramp.channel("x").unwrap_err(), ChannelError::Unsupported);
    let connecting = onramp.connect("p9");
    assert_eq!(connecting.node().channel("x").unwrap_err(), ChannelError::NotOpen);
    assert_eq!(to_b.channel("x".repeat(257)).unwrap_err(), ChannelError::NameTooLong { limit: 256 });
    for n in 0..MAX_CHANNELS {
        to_b.channel(n.to_string()).unwrap();
    }
    assert_eq!(to_b.channel("more").unwrap_err(), ChannelError::TooMany { limit: MAX_CHANNELS });
    to_b.channel("0").unwrap();
}

#[tokio::test(start_paused = true)]
async fn unordered_and_lossy_channels() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let lifetime = Duration::from_millis(250);
    for (options, reliability) in [
        (ChannelOptions::new("unordered").unordered(), Reliability::Reliable),
        (ChannelOptions::new("retransmits").unordered().max_retransmits(2), Reliability::MaxRetransmits(2)),
        (ChannelOptions::new("lifetime").unordered().max_lifetime(lifetime), Reliability::MaxLifetime(lifetime)),
    ] {
        let lossy = reliability != Reliability::Reliable;
        let here = to_b.open_channel(options).unwrap();
        here.send("hello").await.unwrap();
        let there = to_a.channels().next().await.unwrap();
        assert_eq!(there.delivery(), Delivery { ordered: false, reliability });
        assert_eq!(there.messages().next().await, Some("hello".into()));
        let large = here.send(vec![0; 64_950]).await;
        assert_eq!(large, if lossy { Err(SendError::TooLarge { limit: 64_949 }) } else { Ok(()) });
        here.send(vec![0; 64_949]).await.unwrap();
        let mut sizes = vec![64_949];
        sizes.splice(0..0, (!lossy).then_some(64_950));
        for _ in 0..sizes.len() {
            let size = there.binaries().next().await.unwrap().len();
            sizes.retain(|expected| *expected != size);
        }
        assert_eq!(sizes, [0; 0]);
        // The other side's messages have the same delivery.
        there.send("and back").await.unwrap();
        assert_eq!(here.messages().next().await, Some("and back".into()));
        here.close().await;
        assert_eq!(there.messages().next().await, None);
    }
}

/// What the network takes is not held up by who does not read, and the newest are there.
#[tokio::test(start_paused = true)]
async fn a_lossy_channel_never_waits_for_its_reader() {
    let world = World::new();
    let ((_a, to_b), (_b, to_a)) = pair(&world).await;
    let here = to_b.open_channel(ChannelOptions::new("places").max_retransmits(0)).unwrap();
    let mut messages = to_a.channel("places").unwrap().binaries();
    for n in 0..200 {
        here.send(number(n)).await.unwrap();
    }
    here.close().await;
    let mut got = Vec::new();
    while let Some(message) = messages.next().await {
        got.push(message);
    }
    assert!((5..20).contains(&got.len()), "{} of 200", got.len());
    assert_eq!(got.last().unwrap(), &number(199));
}
