//! Named channels over real WebRTC on 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::time::Duration;

use common::{Peer, Server, builder, soon};
use futures_util::StreamExt;
use pmesh::{ChannelError, ChannelOptions, Connect, Node, RootBuilder, SendError};

/// Two nodes that are each other's ends, and the peers, whose end is theirs.
async fn pair(server: &Server, builder: RootBuilder) -> (Node, Node, [Peer; 2]) {
    let (a, b) = (server.peer_of(builder.clone()).await, server.peer_of(builder).await);
    let (here, there) = a.meet(&b).await;
    (here, there, [a, b])
}

/// Memory of this process that is in use, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_overtake_a_message_of_256_mib_of_another_channel_in_bounded_memory() {
    const HUGE: usize = 256 << 20;
    let server = Server::start().await;
    let (here, there, _peers) = pair(&server, builder().max_message_size(HUGE)).await;
    let body: bytes::Bytes = (0..HUGE / 8).flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>().into();
    #[cfg(target_os = "linux")]
    let before = resident();
    let mut peak = 0;
    let (ping, pong) = (here.channel("ping").unwrap(), there.channel("ping").unwrap());
    let echo = tokio::spawn(async move {
        let mut messages = pong.messages();
        while let Some(message) = messages.next().await {
            pong.send(message).await.unwrap();
        }
    });
    let receive = tokio::spawn(async move { there.binaries().next().await.unwrap() });
    soon(here.send(body.clone())).await.unwrap();
    let mut answers = ping.binaries();
    let mut overtook = 0;
    while !receive.is_finished() {
        soon(ping.send(vec![7; 64])).await.unwrap();
        assert_eq!(soon(answers.next()).await.unwrap().len(), 64);
        overtook += 1;
        if cfg!(target_os = "linux") && overtook % 16 == 0 {
            peak = peak.max(resident());
        }
    }
    assert!(soon(receive).await.unwrap() == body, "other bytes arrived");
    assert!(overtook > 50, "only {overtook} round trips while it was on its way");
    #[cfg(target_os = "linux")]
    assert!(peak - before < HUGE + HUGE / 4, "{} MiB more at the peak", (peak - before) >> 20);
    ping.close().await;
    soon(echo).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_read_holds_up_neither_the_others_nor_introductions() {
    let server = Server::start().await;
    let (a, b, c) = (server.peer().await, server.peer().await, server.peer().await);
    let (here, there) = a.meet(&b).await;
    b.meet(&c).await;
    let unread = here.channel("unread").unwrap();
    while unread.try_send(vec![1; 20_000]).is_ok() || unread.buffered() < 200_000 {
        tokio::task::yield_now().await;
    }
    let mut messages = there.binaries();
    let chat = here.channel("chat").unwrap();
    let mut chatting = soon(
        there
            .channels()
            .filter(|channel| {
                let chat = channel.name() == "chat";
                async move { chat }
            })
            .boxed()
            .next(),
    )
    .await
    .unwrap()
    .binaries();
    for n in 0..200u8 {
        here.send(vec![n; 50_000]).await.unwrap();
        chat.send(vec![n; 50_000]).await.unwrap();
        assert_eq!(soon(messages.next()).await.unwrap(), vec![n; 50_000]);
        assert_eq!(soon(chatting.next()).await.unwrap(), vec![n; 50_000]);
    }
    soon(here.connect(Connect::to(&c.address))).await.unwrap();
    let mut late = there.channel("unread").unwrap().binaries();
    assert_eq!(soon(late.next()).await.unwrap(), vec![1; 20_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_opened_used_and_closed_by_both_sides_again_and_again() {
    let server = Server::start().await;
    let (here, there, _peers) = pair(&server, builder()).await;
    assert_eq!(server.peer().await.onramp.channel("x").unwrap_err(), ChannelError::Unsupported);
    for round in 0..100u32 {
        let (from, to) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let mut opened = to.channels();
        let channel = from.channel("again").unwrap();
        for n in 0..10u32 {
            channel.send(format!("{round} {n}")).await.unwrap();
        }
        let other = soon(opened.next()).await.unwrap();
        let mut messages = other.messages();
        for n in 0..10u32 {
            assert_eq!(soon(messages.next()).await, Some(format!("{round} {n}").into()));
        }
        soon(other.close()).await;
        soon(channel.closed()).await;
        assert_eq!(soon(channel.messages().next()).await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_of_every_kind_in_both_directions() {
    let server = Server::start().await;
    let (here, there, _peers) = pair(&server, builder()).await;
    let (retransmits, lifetime) = (ChannelOptions::new("retransmits"), ChannelOptions::new("lifetime"));
    let kinds = [
        ChannelOptions::new("unordered").unordered(),
        retransmits.unordered().max_retransmits(3),
        lifetime.max_lifetime(Duration::from_millis(500)),
    ];
    let mut opened = there.channels();
    for options in kinds {
        let channel = here.open_channel(options).unwrap();
        channel.send("hello").await.unwrap();
        let other = soon(opened.next()).await.unwrap();
        assert_eq!((other.name(), other.delivery()), (channel.name(), channel.delivery()));
        assert_eq!(soon(other.messages().next()).await, Some("hello".into()));
        other.send(vec![7; 60_000]).await.unwrap();
        assert_eq!(soon(channel.binaries().next()).await.unwrap(), vec![7; 60_000]);
        soon(channel.close()).await;
        assert_eq!(soon(other.messages().next()).await, None);
    }
    let limit = 64_949;
    let lossy = here.open_channel(ChannelOptions::new("lossy").max_retransmits(0)).unwrap();
    assert_eq!(lossy.send(vec![0; limit + 1]).await, Err(SendError::TooLarge { limit }));
}
