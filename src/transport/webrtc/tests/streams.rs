//! Channels with streams of their own, over a network that loses datagrams.

use super::*;
use crate::protocol::{Delivery, Reliability};
use crate::transport::Lane;

const UNORDERED: Delivery = Delivery { ordered: false, reliability: Reliability::Reliable };

async fn lossy_pair() -> (Peer, Peer, Arc<Loss>) {
    let loss = Arc::<Loss>::default();
    let transport = WebRtc::new(WebRtcConfig { loss: Some(loss.clone()), ..config() });
    let (a, b) = open_with(&transport, pmesh()).await;
    (a, b, loss)
}

fn lane(peer: &Peer, name: &str, delivery: Delivery) -> Arc<Lane> {
    peer.pipe.queues().open_lane(name, delivery).unwrap()
}

/// The channel that the other side has opened.
async fn opened(peer: &Peer) -> Arc<Lane> {
    let mut changes = peer.pipe.queues().opened();
    loop {
        if let Some(lane) = peer.pipe.queues().take_opened() {
            return lane;
        }
        soon(changes.changed()).await.unwrap();
    }
}

fn numbered(number: u32, size: usize) -> Bytes {
    let mut body = vec![number as u8; size];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body.into()
}

/// Sends numbered messages.
async fn send_all(peer: &Peer, lane: &Lane, count: u32, size: usize) {
    send_all_from(peer, lane, 0..count, size).await;
}

async fn send_all_from(peer: &Peer, lane: &Lane, numbers: std::ops::Range<u32>, size: usize) {
    for number in numbers {
        soon(peer.pipe.queues().send(lane, Kind::Binary, numbered(number, size))).await.unwrap();
    }
}

/// The numbers of what is read until the channel ends, after a check of each message.
async fn read_all(peer: &Peer, lane: &Arc<Lane>, size: usize) -> Vec<u32> {
    let mut messages = peer.pipe.queues().subscribe(lane);
    let mut numbers = Vec::new();
    while let Some((kind, body)) = next(&mut messages).await {
        let number = u32::from_be_bytes(body[..4].try_into().unwrap());
        assert!((kind, body) == (Kind::Binary, numbered(number, size)));
        numbers.push(number);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_holds_up_no_other_message_of_an_unordered_channel_and_none_is_missing() {
    let (a, b, loss) = lossy_pair().await;
    loss.begin(30);
    let here = lane(&a, "unordered", UNORDERED);
    let sending = async {
        for number in 0..1000 {
            send_all_from(&a, &here, number..number + 1, 1000).await;
            // Each in a packet, and a datagram, of its own: so what comes after a lost one overtakes it.
            while a.pipe.queues().buffered(&here) > 0 {
                tokio::task::yield_now().await;
            }
        }
        a.pipe.queues().close_lane(&here);
    };
    let reading = async {
        let there = opened(&b).await;
        assert_eq!(there.delivery(), UNORDERED);
        read_all(&b, &there, 1000).await
    };
    let ((), mut numbers) = tokio::join!(sending, reading);
    assert!(loss.lost() > 10, "{} datagrams", loss.lost());
    assert!(!numbers.is_sorted(), "nothing was overtaken");
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_of_an_unordered_channel_arrive_too() {
    let (a, b, _) = lossy_pair().await;
    let here = lane(&a, "unordered", UNORDERED);
    let sending = send_all(&a, &here, 10, 1 << 20);
    let reading = async {
        let there = opened(&b).await;
        let mut messages = b.pipe.queues().subscribe(&there);
        for number in 0..10 {
            assert!(next(&mut messages).await.unwrap().1 == numbered(number, 1 << 20));
        }
    };
    tokio::join!(sending, reading);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_channel_loses_what_the_network_loses_and_the_main_one_nothing() {
    for (ordered, reliability) in
        [(false, Reliability::MaxRetransmits(0)), (true, Reliability::MaxLifetime(Duration::from_millis(20)))]
    {
        let (a, b, loss) = lossy_pair().await;
        let here = lane(&a, "lossy", Delivery { ordered, reliability });
        let there = opened(&b).await;
        loss.begin(20);
        let sending = async {
            send_all(&a, &here, 500, 1000).await;
            loss.begin(0);
            a.pipe.queues().close_lane(&here);
        };
        let main = send_all(&a, a.pipe.queues().main(), 100, 1000);
        let main_read = async {
            let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
            for number in 0..100 {
                assert!(next(&mut messages).await.unwrap().1 == numbered(number, 1000));
            }
        };
        let ((), (), (), mut numbers) = tokio::join!(sending, main, main_read, read_all(&b, &there, 1000));
        let what = format!("{reliability:?}, ordered {ordered}: {} of 500", numbers.len());
        assert!(loss.lost() > 10, "{} datagrams", loss.lost());
        // How many are in time depends on the machine.
        let losing = reliability == Reliability::MaxRetransmits(0);
        assert!(!numbers.is_empty() && (numbers.len() < 500 || !losing), "{what}");
        assert!(!ordered || numbers.is_sorted(), "{what}");
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{what}: some came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_a_lossy_channel_gets_the_newest() {
    let (a, b, _) = lossy_pair().await;
    let here = lane(&a, "lossy", Delivery { ordered: true, reliability: Reliability::MaxRetransmits(0) });
    let there = opened(&b).await;
    let mut reader = b.pipe.queues().subscribe(&there);
    // 4 MB without anybody who reads them.
    send_all(&a, &here, 4000, 1000).await;
    a.pipe.queues().close_lane(&here);
    soon(there.over()).await;
    let (_, first) = next(&mut reader).await.unwrap();
    let first = u32::from_be_bytes(first[..4].try_into().unwrap());
    assert!(first > 3000, "{first} is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_channel_goes_on_however_busy_the_main_one_is() {
    let (a, b, _) = lossy_pair().await;
    let here = lane(&a, "lossy", Delivery { ordered: false, reliability: Reliability::MaxRetransmits(0) });
    let _reader = b.pipe.queues().subscribe(&opened(&b).await);
    let main = async {
        loop {
            send_all(&a, a.pipe.queues().main(), 1, 60_000).await;
        }
    };
    let read = async {
        let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
        loop {
            next(&mut messages).await;
        }
    };
    // More than may be on its way, again and again.
    tokio::select! {
        () = send_all(&a, &here, 2000, 1000) => {}
        () = main => {}
        () = read => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_opened_and_closed_again_and_again() {
    let (a, b, _) = lossy_pair().await;
    for round in 0..100u32 {
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let here = lane(from, "again", UNORDERED);
        send_all(from, &here, 3, 100).await;
        let there = opened(to).await;
        let answer = send_all(to, &there, 1, 100);
        answer.await;
        let mut answers = from.pipe.queues().subscribe(&here);
        assert!(next(&mut answers).await.unwrap().1 == numbered(0, 100));
        from.pipe.queues().close_lane(&here);
        let mut numbers = read_all(to, &there, 100).await;
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_link_sends_what_is_queued_on_streams() {
    let (a, mut b, _) = lossy_pair().await;
    let here = lane(&a, "unordered", UNORDERED);
    let there = opened(&b).await;
    send_all(&a, &here, 20, 10_000).await;
    a.command(Command::Close);
    assert_eq!(b.closed().await, CloseReason::Remote);
    let mut numbers = read_all(&b, &there, 10_000).await;
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..20));
}
