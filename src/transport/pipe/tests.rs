mod channels;
mod hostile;
mod interleavings;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::protocol::limits::{CREDIT_BYTES, CREDIT_PACKETS, MAX_MESSAGE_BYTES};
use crate::protocol::packet::PacketBuilder;

const WINDOW: (u32, u32) = (CREDIT_BYTES, CREDIT_PACKETS);

fn pipe_with(window: (u32, u32)) -> (Arc<Pipe>, mpsc::Receiver<(LinkId, LinkEvent)>) {
    pipe_of(window, MAX_MESSAGE_BYTES)
}

fn pipe_of(window: (u32, u32), max_message: usize) -> (Arc<Pipe>, mpsc::Receiver<(LinkId, LinkEvent)>) {
    let (events, receiver) = mpsc::channel(64);
    (Pipe::new(LinkId(1), events, Queues::new(window, max_message)), receiver)
}

fn packets() -> (Arc<Pipe>, mpsc::Receiver<(LinkId, LinkEvent)>) {
    let (pipe, events) = pipe_with(WINDOW);
    pipe.open(Framing::Packets { window: WINDOW, max_message: None }, None);
    (pipe, events)
}

fn plain_with(max_message: usize) -> (Arc<Pipe>, mpsc::Receiver<(LinkId, LinkEvent)>) {
    let (pipe, events) = pipe_with(WINDOW);
    pipe.open(Framing::Plain { max_message }, None);
    (pipe, events)
}

fn plain() -> (Arc<Pipe>, mpsc::Receiver<(LinkId, LinkEvent)>) {
    plain_with(1000)
}

async fn next(subscription: &mut Subscription) -> Option<(Kind, Bytes)> {
    poll_fn(|cx| subscription.poll_next(cx)).await
}

fn next_now(subscription: &mut Subscription) -> Poll<Option<(Kind, Bytes)>> {
    subscription.poll_next(&mut Context::from_waker(std::task::Waker::noop()))
}

use std::task::{Context, Poll};

/// Carries what `from` has to send to `to`. Returns how many wire messages there were.
async fn carry(from: &Pipe, to: &Pipe) -> Result<usize, CloseReason> {
    let mut count = 0;
    while let Some(outgoing) = from.try_next_outgoing() {
        let message = match outgoing {
            Outgoing::Text(text) => WireMessage::Text(text.freeze()),
            Outgoing::Binary(bytes) => WireMessage::Binary(bytes.freeze()),
            Outgoing::Stream { id, action } => {
                match action {
                    StreamAction::Open(_) => from.stream_opened(id),
                    StreamAction::Send { lossy, packet } => to.deliver_on_stream(lossy, packet.freeze())?,
                }
                count += 1;
                continue;
            }
            Outgoing::Finished => break,
        };
        count += 1;
        to.deliver(message, WhenFull::Overflow).await?;
    }
    Ok(count)
}

#[tokio::test]
async fn small_messages_share_a_packet_and_a_large_one_is_cut() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    for n in 0..100u8 {
        a.queues.try_send(a.queues.main(), Kind::Binary, Bytes::copy_from_slice(&[n])).unwrap();
    }
    assert_eq!(carry(&a, &b).await, Ok(1));
    let mut messages = b.queues.subscribe(b.queues.main());
    for n in 0..100u8 {
        assert_eq!(next(&mut messages).await, Some((Kind::Binary, Bytes::copy_from_slice(&[n]))));
    }
    let large = Bytes::from(vec![7; 3 * MAX_PACKET_BYTES]);
    a.queues.try_send(a.queues.main(), Kind::Json, large.clone()).unwrap();
    assert_eq!(carry(&a, &b).await, Ok(4));
    assert_eq!(next(&mut messages).await, Some((Kind::Json, large)));
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_sender_and_nothing_is_lost() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let mut messages = b.queues.subscribe(b.queues.main());
    let body = Bytes::from(vec![1; 10_000]);
    let mut sent = 0;
    loop {
        match a.queues.try_send(a.queues.main(), Kind::Binary, body.clone()) {
            Ok(()) => sent += 1,
            Err(Rejected::Full) => {
                if carry(&a, &b).await == Ok(0) {
                    break;
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let bound = (CREDIT_BYTES as usize + SEND_QUEUE_BYTES) / body.len();
    assert!(sent <= bound, "{sent} messages are more than {bound}");
    for _ in 0..sent {
        while next_now(&mut messages).is_pending() {
            carry(&b, &a).await.unwrap();
            assert_ne!(carry(&a, &b).await, Ok(0), "stuck");
        }
    }
    assert!(next_now(&mut messages).is_pending());
}

#[tokio::test]
async fn what_is_kept_is_what_is_counted() {
    // A short message in a long frame does not keep the frame in memory.
    let (b, _b) = plain();
    let frame = Bytes::from(format!("[0,1,\"{}\"]", "x".repeat(100_000)));
    b.deliver(WireMessage::Text(frame.clone()), WhenFull::Overflow).await.unwrap();
    assert!(frame.is_unique(), "the frame is still held");
    assert_eq!(next(&mut b.queues.subscribe(b.queues.main())).await.unwrap().1, "1");

    // A short message in a packet costs the whole packet.
    let (b, _b) = packets();
    let mut messages = 0;
    let result = loop {
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        packet.push(Kind::Frame, &vec![b'x'; 60_000], &mut 0, usize::MAX);
        packet.push(Kind::Binary, &[], &mut 0, usize::MAX);
        match b.deliver(WireMessage::Binary(packet.finish().freeze()), WhenFull::Overflow).await {
            Ok(()) => messages += 1,
            Err(reason) => break reason,
        }
    };
    assert!(matches!(result, CloseReason::Protocol(_)));
    assert_eq!(messages, CREDIT_BYTES as usize / 60_006);

    // And none is larger than it may be.
    let (b, _b) = packets();
    let large = WireMessage::Binary(vec![0; MAX_PACKET_BYTES + 1].into());
    assert!(matches!(b.deliver(large, WhenFull::Overflow).await, Err(CloseReason::Protocol(_))));
}

#[tokio::test]
async fn records_of_later_versions_are_skipped() {
    let (b, _b) = packets();
    let packet = [0b0011_1101, 2, b'?', b'?', 0b0011_0000, 1, b'1'];
    b.deliver(WireMessage::Binary(Bytes::copy_from_slice(&packet)), WhenFull::Overflow).await.unwrap();
    assert_eq!(next(&mut b.queues.subscribe(b.queues.main())).await.unwrap().1, "1");
}

#[tokio::test]
async fn frames_do_not_starve_messages() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let mut messages = b.queues.subscribe(b.queues.main());
    for n in 0..20 {
        a.queues.signal("x".repeat(MAX_PACKET_BYTES / 2)).unwrap();
        a.queues.try_send(a.queues.main(), Kind::Json, Bytes::from(n.to_string())).unwrap();
    }
    let Some(Outgoing::Binary(packet)) = a.try_next_outgoing() else { panic!("nothing to send") };
    b.deliver(WireMessage::Binary(packet.freeze()), WhenFull::Overflow).await.unwrap();
    for n in 0..20 {
        assert_eq!(next(&mut messages).await.unwrap().1, n.to_string());
    }
}

#[tokio::test]
async fn a_reader_that_leaves_a_full_inbox_lets_the_link_go_on() {
    let (b, _b) = plain_with(1 << 20);
    let messages = b.queues.subscribe(b.queues.main());
    let frame = WireMessage::Binary(Bytes::from(vec![0; 1_000_000]));
    for _ in 0..8 {
        b.deliver(frame.clone(), WhenFull::Wait).await.unwrap();
    }
    let mut waiting = Box::pin(b.deliver(frame.clone(), WhenFull::Wait));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    drop(messages);
    assert_eq!(waiting.await, Ok(()));
}

#[tokio::test]
async fn what_is_unread_at_the_end_is_kept_within_a_budget() {
    let budget = Arc::new(Semaphore::new(100));
    let mut kept = Vec::new();
    for forgotten in [0, 60_064] {
        let (b, _b) = plain();
        b.deliver(WireMessage::Binary(vec![0; 60_000].into()), WhenFull::Wait).await.unwrap();
        b.queues.shut();
        assert_eq!(b.queues.keep_unread(&budget), forgotten);
        kept.push(b);
    }
    let mut messages = kept[0].queues.subscribe(kept[0].queues.main());
    assert_eq!(next(&mut messages).await.unwrap().1.len(), 60_000);
    assert_eq!(next(&mut messages).await, None);
    assert_eq!(next(&mut kept[1].queues.subscribe(kept[1].queues.main())).await, None);
    assert_eq!(budget.available_permits(), 100);
}

#[tokio::test]
async fn a_flood_without_credit_ends_the_link() {
    let (b, _b) = packets();
    let mut result = Ok(());
    for _ in 0..=CREDIT_PACKETS {
        let mut packet = PacketBuilder::new(100);
        packet.push(Kind::Binary, &[], &mut 0, 1);
        result = b.deliver(WireMessage::Binary(packet.finish().freeze()), WhenFull::Overflow).await;
    }
    assert!(matches!(result, Err(CloseReason::Protocol(_))), "{result:?}");
}

#[tokio::test]
async fn every_reader_gets_everything_and_the_slowest_decides() {
    let (a, _a) = plain();
    let (b, _b) = plain();
    let mut first = b.queues.subscribe(b.queues.main());
    let mut second = b.queues.subscribe(b.queues.main());
    a.queues.try_send(a.queues.main(), Kind::Json, Bytes::from_static(b"1")).unwrap();
    a.queues.try_send(a.queues.main(), Kind::Json, Bytes::from_static(b"2")).unwrap();
    carry(&a, &b).await.unwrap();
    for reader in [&mut first, &mut second] {
        assert_eq!(next(reader).await.unwrap().1, "1");
        assert_eq!(next(reader).await.unwrap().1, "2");
    }
}

#[tokio::test]
async fn what_the_last_reader_left_waits_for_the_next() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    for n in 0..10 {
        a.queues.try_send(a.queues.main(), Kind::Json, Bytes::from(n.to_string())).unwrap();
    }
    carry(&a, &b).await.unwrap();
    for n in 0..10 {
        // A stream made anew for each message, as `while let Some(m) = node.messages().next().await` does.
        assert_eq!(next(&mut b.queues.subscribe(b.queues.main())).await.unwrap().1, n.to_string());
    }
}

#[tokio::test]
async fn without_a_reader_the_latest_plain_messages_are_kept() {
    let (b, _b) = plain();
    for n in 0..10_000 {
        b.deliver(WireMessage::Text(Bytes::from(format!("[0,{n}]"))), WhenFull::Overflow).await.unwrap();
    }
    let mut messages = b.queues.subscribe(b.queues.main());
    let first: usize = String::from_utf8(next(&mut messages).await.unwrap().1.to_vec()).unwrap().parse().unwrap();
    assert!(first > 0, "nothing was dropped");
    for n in first + 1..10_000 {
        assert_eq!(next(&mut messages).await.unwrap().1, n.to_string());
    }
}

#[tokio::test]
async fn what_comes_after_the_end_is_dropped() {
    let (b, _b) = plain_with(1 << 20);
    b.queues.shut();
    for _ in 0..20 {
        b.deliver(WireMessage::Binary(vec![0; 1_000_000].into()), WhenFull::Overflow).await.unwrap();
    }
    assert_eq!(next(&mut b.queues.subscribe(b.queues.main())).await, None);
}

#[tokio::test]
async fn an_original_that_outruns_its_reader_is_cut_off() {
    let (b, _b) = plain();
    let _messages = b.queues.subscribe(b.queues.main());
    let frame = Bytes::from(vec![0; 100_000]);
    let mut delivered = 0;
    let reason = loop {
        match b.deliver(WireMessage::Binary(frame.clone()), WhenFull::Overflow).await {
            Ok(()) => delivered += 1,
            Err(reason) => break reason,
        }
    };
    assert_eq!(reason, CloseReason::Overflow);
    assert!((50..100).contains(&delivered), "{delivered}");
}

#[tokio::test]
async fn a_link_that_can_wait_waits() {
    let (b, _b) = plain();
    let mut messages = b.queues.subscribe(b.queues.main());
    let frame = WireMessage::Binary(Bytes::from(vec![0; 1_000_000]));
    for _ in 0..8 {
        b.deliver(frame.clone(), WhenFull::Wait).await.unwrap();
    }
    let mut last = Box::pin(b.deliver(frame.clone(), WhenFull::Wait));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut last).await.is_err());
    next(&mut messages).await.unwrap();
    assert_eq!(last.await, Ok(()));
}

#[tokio::test]
async fn frames_go_to_the_tree_even_when_messages_may_not_pass() {
    let (a, _a) = packets();
    let (b, mut events) = packets();
    let body = Bytes::from(vec![1; 100_000]);
    while a.queues.try_send(a.queues.main(), Kind::Binary, body.clone()).is_ok() || carry(&a, &b).await != Ok(0) {}
    let frame = format!("[6,\"x\",\"{}\"]", "y".repeat(MAX_PACKET_BYTES));
    a.queues.signal(frame.clone()).unwrap();
    carry(&a, &b).await.unwrap();
    assert_eq!(events.recv().await, Some((LinkId(1), LinkEvent::Frame(frame))));
}

#[tokio::test]
async fn frames_are_bounded() {
    let (a, _a) = packets();
    let mut taken = 0;
    while a.queues.signal("[6]".into()).is_ok() {
        taken += 1;
    }
    assert!((100..10_000).contains(&taken));
}

#[tokio::test]
async fn plain_text_is_a_message_a_frame_or_malformed() {
    let (b, mut events) = plain();
    let mut messages = b.queues.subscribe(b.queues.main());
    for text in ["[0,{\"k\": 1}]", "[7,\"x\",[3]]", "[", "[9]"] {
        b.deliver(WireMessage::Text(text.into()), WhenFull::Overflow).await.unwrap();
    }
    b.deliver(WireMessage::Text(Bytes::from_static(&[0xff])), WhenFull::Overflow).await.unwrap();
    assert_eq!(next(&mut messages).await, Some((Kind::Json, Bytes::from_static(b"{\"k\": 1}"))));
    assert_eq!(events.recv().await.unwrap().1, LinkEvent::Frame("[7,\"x\",[3]]".into()));
    for _ in 0..3 {
        assert_eq!(events.recv().await.unwrap().1, LinkEvent::Malformed);
    }
}

#[tokio::test]
async fn the_limits_of_a_plain_link() {
    let (a, _a) = plain();
    assert_eq!(a.queues.try_send(a.queues.main(), Kind::Binary, vec![0; 1000].into()), Ok(()));
    assert_eq!(a.queues.try_send(a.queues.main(), Kind::Binary, vec![0; 1001].into()), Err(Rejected::TooLarge(1000)));
    assert_eq!(a.queues.try_send(a.queues.main(), Kind::Json, vec![b'1'; 997].into()), Err(Rejected::TooLarge(996)));
    assert_eq!(a.queues.send(a.queues.main(), Kind::Json, vec![b'1'; 996].into()).await, Ok(()));
}

#[tokio::test]
async fn closing_sends_what_is_queued_and_tells_the_other_side() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    a.queues.send(a.queues.main(), Kind::Json, Bytes::from_static(b"1")).await.unwrap();
    a.start_closing();
    assert_eq!(a.queues.send(a.queues.main(), Kind::Json, Bytes::from_static(b"2")).await, Err(Rejected::NotOpen));
    assert_eq!(carry(&a, &b).await, Err(CloseReason::Remote));
    assert_eq!(a.next_outgoing().await, Outgoing::Finished);
    let mut messages = b.queues.subscribe(b.queues.main());
    b.queues.shut();
    assert_eq!(next(&mut messages).await.unwrap().1, "1");
    assert_eq!(next(&mut messages).await, None);
}

#[tokio::test]
async fn a_waiting_sender_is_released_when_the_link_ends() {
    let (a, mut events) = packets();
    while a.queues.try_send(a.queues.main(), Kind::Binary, vec![0; 100_000].into()).is_ok() {}
    let sender = tokio::spawn({
        let a = a.clone();
        async move { a.queues.send(a.queues.main(), Kind::Binary, vec![0; 100_000].into()).await }
    });
    tokio::task::yield_now().await;
    a.finish(CloseReason::Remote).await;
    a.queues.shut();
    assert_eq!(sender.await.unwrap(), Err(Rejected::NotOpen));
    assert_eq!(events.recv().await.unwrap().1, LinkEvent::Closed(CloseReason::Remote));
    assert_eq!(a.next_outgoing().await, Outgoing::Finished);
}

#[tokio::test]
async fn a_cancelled_send_has_sent_nothing() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let mut queued = 0;
    while a.queues.try_send(a.queues.main(), Kind::Binary, vec![1; 100_000].into()).is_ok() {
        queued += 1;
    }
    let send = a.queues.send(a.queues.main(), Kind::Binary, vec![2; 100_000].into());
    assert!(tokio::time::timeout(Duration::from_millis(1), send).await.is_err());
    let mut messages = b.queues.subscribe(b.queues.main());
    for _ in 0..queued {
        while next_now(&mut messages).is_pending() {
            carry(&a, &b).await.unwrap();
            carry(&b, &a).await.unwrap();
        }
    }
    carry(&a, &b).await.unwrap();
    assert!(next_now(&mut messages).is_pending());
    assert_eq!(a.queues.buffered(a.queues.main()), 0);
}

#[tokio::test]
async fn a_revoked_link_has_no_effect() {
    let (loser, mut events) = pipe_with(WINDOW);
    let winner = Pipe::new(LinkId(2), loser.events.clone(), loser.queues.clone());
    loser.revoke();
    loser.open(Framing::Plain { max_message: 1 }, None);
    loser.finish(CloseReason::Lost("late".into())).await;
    assert!(loser.deliver(WireMessage::Binary(Bytes::new()), WhenFull::Overflow).await.is_err());
    winner.open(Framing::Packets { window: WINDOW, max_message: None }, None);
    winner.emit(LinkEvent::Opened { extension: true }).await;
    assert_eq!(events.recv().await, Some((LinkId(2), LinkEvent::Opened { extension: true })));
    assert_eq!(winner.queues.try_send(winner.queues.main(), Kind::Json, Bytes::from_static(b"1")), Ok(()));
}

#[tokio::test]
async fn a_revoked_writer_passes_a_wake_up_on() {
    let (loser, _events) = pipe_with(WINDOW);
    let winner = Pipe::new(LinkId(2), loser.events.clone(), loser.queues.clone());
    let mut old = Box::pin(loser.next_outgoing());
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut old).await.is_err());
    let mut new = Box::pin(winner.next_outgoing());
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut new).await.is_err());
    loser.revoke();
    winner.open(Framing::Packets { window: WINDOW, max_message: None }, None);
    assert_eq!(old.await, Outgoing::Finished);
    winner.queues.try_send(winner.queues.main(), Kind::Json, Bytes::from_static(b"1")).unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(5), new).await.unwrap();
    assert!(matches!(sent, Outgoing::Binary(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Messages of any kind and size, sent and read in any interleaving, with windows of any size, come out as they went in.
    #[test]
    fn bytes_in_equal_bytes_out(
        steps in proptest::collection::vec((0u8..4, 0usize..5_000), 1..200),
        window in (100u32..20_000, 1u32..20),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (a, _a) = pipe_with(WINDOW);
            a.open(Framing::Packets { window, max_message: None }, None);
            let (b, _b) = pipe_with(window);
            b.open(Framing::Packets { window: WINDOW, max_message: None }, None);
            let mut messages = b.queues.subscribe(b.queues.main());
            let mut expected = VecDeque::new();
            let mut number = 0u8;
            for (step, size) in steps {
                match step {
                    0 => {
                        number = number.wrapping_add(1);
                        let kind = if size % 2 == 0 { Kind::Json } else { Kind::Binary };
                        let body = Bytes::from(vec![number; size]);
                        if a.queues.try_send(a.queues.main(), kind, body.clone()).is_ok() {
                            expected.push_back((kind, body));
                        }
                    }
                    1 => drop(carry(&a, &b).await.unwrap()),
                    2 => drop(carry(&b, &a).await.unwrap()),
                    _ => {
                        if let Poll::Ready(message) = next_now(&mut messages) {
                            assert_eq!(message, expected.pop_front());
                        }
                    }
                }
            }
            while let Some(message) = expected.pop_front() {
                let mut idle = 0;
                loop {
                    if let Poll::Ready(got) = next_now(&mut messages) {
                        assert_eq!(got, Some(message));
                        break;
                    }
                    let moved = carry(&a, &b).await.unwrap() + carry(&b, &a).await.unwrap();
                    idle = if moved == 0 { idle + 1 } else { 0 };
                    assert!(idle < 3, "stuck");
                }
            }
        });
    }
}
