//! Who is taken for dead, and when: under a paused clock.

use futures_util::FutureExt;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

/// A link after its handshake, and the other end, of which the test says every message.
async fn half() -> (Link, WebSocketStream<DuplexStream>) {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let here = WebSocketStream::from_raw_socket(here, Role::Server, None).await;
    let link = websocket::link(here, peer(2).peer_id(), PEER_TIMEOUT);
    (link, WebSocketStream::from_raw_socket(there, Role::Client, None).await)
}

#[tokio::test(start_paused = true)]
async fn who_is_not_heard_of_is_lost_in_time() {
    let (mut link, mut other) = half().await;
    // While it is polled it answers pings.
    let started = Instant::now();
    for _ in 0..30 {
        assert_eq!(other.next().await.unwrap().unwrap(), Frame::Ping(Bytes::new()));
    }
    assert!(started.elapsed() >= 9 * PEER_TIMEOUT);
    assert_eq!(link.packets.next().now_or_never(), None);
    let silent = Instant::now();
    assert_eq!(link.packets.next().await, None);
    assert!(silent.elapsed() <= PEER_TIMEOUT, "{:?}", silent.elapsed());
    assert_eq!(link.sender.try_send(Bytes::new()), Err(NotSent::Closed));
}

#[tokio::test(start_paused = true)]
async fn who_only_sends_and_takes_nothing_is_lost_too() {
    let (mut link, mut other) = half().await;
    let alive = tokio::spawn(async move {
        let mut count = 0;
        while other.send(Frame::binary("alive")).await.is_ok() {
            count += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        count
    });
    while link.sender.try_send(vec![0; 60_000].into()).is_ok() {}
    let started = Instant::now();
    while link.packets.next().await.is_some() {}
    assert!(started.elapsed() <= PEER_TIMEOUT + Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(alive.await.unwrap() >= 9);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_is_no_silence() {
    let (mut link, mut other) = half().await;
    let sending = tokio::spawn(async move {
        for n in 0..100u8 {
            other.send(Frame::binary(vec![n; 10_000])).await.unwrap();
        }
        while other.next().await.is_some() {}
    });
    tokio::time::sleep(10 * PEER_TIMEOUT).await;
    for n in 0..100 {
        assert_eq!(link.packets.next().await.unwrap(), vec![n; 10_000]);
    }
    drop(link);
    sending.await.unwrap();
}
