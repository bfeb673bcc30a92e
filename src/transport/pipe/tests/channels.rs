//! Named channels: multiplexing, credit, opening and shutting.

use futures_util::FutureExt;

use super::*;
use crate::protocol::channel::{Delivery as Promise, Reliability};
use crate::protocol::limits::{CHANNEL_CREDIT, MAX_CHANNELS, MAX_KINDS};

fn open(pipe: &Pipe, name: &str) -> Arc<Lane> {
    pipe.queues.open_lane(name, Promise::default()).unwrap()
}

fn send(pipe: &Pipe, lane: &Lane, body: &[u8]) -> Result<(), Rejected> {
    pipe.queues.try_send(lane, Kind::Binary, Bytes::copy_from_slice(body))
}

#[tokio::test]
async fn a_channel_has_its_own_messages_in_both_directions() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let chat = open(&a, "chat");
    send(&a, &chat, b"1").unwrap();
    send(&a, a.queues.main(), b"2").unwrap();
    carry(&a, &b).await.unwrap();
    let there = b.queues.take_opened().unwrap();
    assert_eq!((there.name(), there.delivery()), ("chat", Promise::default()));
    assert!(b.queues.take_opened().is_none());
    assert_eq!(next(&mut b.queues.subscribe(&there)).await.unwrap().1, "1");
    assert_eq!(next(&mut b.queues.subscribe(b.queues.main())).await.unwrap().1, "2");
    send(&b, &there, b"3").unwrap();
    carry(&b, &a).await.unwrap();
    assert_eq!(next(&mut a.queues.subscribe(&chat)).await.unwrap().1, "3");
    assert!(a.queues.take_opened().is_none(), "it is the channel that we opened");
}

#[tokio::test]
async fn a_small_message_leaves_within_one_packet_of_a_huge_one() {
    let (a, _a) = pipe_of(WINDOW, 1 << 30);
    a.open(Framing::Packets { window: WINDOW, max_message: None }, None);
    let (b, _b) = pipe_of(WINDOW, 1 << 30);
    b.open(Framing::Packets { window: WINDOW, max_message: None }, None);
    let mut huge = b.queues.subscribe(b.queues.main());
    a.queues.try_send(a.queues.main(), Kind::Binary, vec![7; 64 << 20].into()).unwrap();
    let lane = open(&a, "small");
    let mut waited = 0;
    let mut packets = 0;
    let mut small = None;
    let whole = loop {
        if let Poll::Ready(message) = next_now(&mut huge) {
            break message;
        }
        if packets % 10 == 0 && small.is_none() {
            send(&a, &lane, &[1; 64]).unwrap();
            small = Some(packets);
        }
        let Some(Outgoing::Binary(packet)) = a.try_next_outgoing() else {
            carry(&b, &a).await.unwrap();
            continue;
        };
        packets += 1;
        b.deliver(WireMessage::Binary(packet.freeze()), WhenFull::Overflow).await.unwrap();
        let there = b.queues.open_lane("small", Promise::default()).unwrap();
        if let Some(since) = small
            && next_now(&mut b.queues.subscribe(&there)).is_ready()
        {
            waited = waited.max(packets - since);
            small = None;
        }
    };
    assert_eq!(whole.unwrap().1.len(), 64 << 20);
    assert!(packets > 1000, "{packets}");
    assert!(waited <= 2, "a small message was the {waited}th packet");
}

/// How many packets that cost credit go at most before a message on `small` has left, while all others always have something to send and
/// the link is always full.
async fn waits(window: (u32, u32), small: (&str, Promise), bulk: &[(&str, Promise)]) -> usize {
    let (a, _a) = pipe_with(window);
    let (b, _b) = pipe_with(window);
    for pipe in [&a, &b] {
        pipe.open(Framing::Packets { window, max_message: None }, None);
    }
    let lane = |pipe: &Pipe, (name, delivery): (&str, Promise)| match name {
        "" => pipe.queues.main().clone(),
        name => pipe.queues.open_lane(name, delivery).unwrap(),
    };
    let lanes: Vec<_> = bulk.iter().map(|kind| lane(&a, *kind)).collect();
    let small_lane = lane(&a, small);
    let mut readers: Vec<_> = bulk.iter().map(|kind| b.queues.subscribe(&lane(&b, *kind))).collect();
    let mut small_reader = b.queues.subscribe(&lane(&b, small));
    let mut wire = VecDeque::new();
    let (mut packets, mut waited, mut since) = (0, 0, None);
    send(&a, &small_lane, b"first").unwrap();
    for _ in 0..500 {
        for lane in &lanes {
            while send(&a, lane, &[7; 5_000]).is_ok() {}
        }
        while let Some(outgoing) = a.try_next_outgoing() {
            match outgoing {
                Outgoing::Binary(packet) => wire.push_back((packet.freeze(), false)),
                // Lost, without credit.
                Outgoing::Stream { action: StreamAction::Send { lossy: true, .. }, .. } => continue,
                Outgoing::Stream { action: StreamAction::Send { packet, .. }, .. } => {
                    wire.push_back((packet.freeze(), true));
                }
                Outgoing::Stream { id, .. } => a.stream_opened(id),
                other => panic!("{other:?}"),
            }
            packets += 1;
            if a.queues.buffered(&small_lane) == 0 {
                waited = waited.max(since.take().map_or(0, |since| packets - since));
            }
        }
        match wire.pop_front() {
            Some((packet, false)) => b.deliver(WireMessage::Binary(packet), WhenFull::Overflow).await.unwrap(),
            Some((packet, true)) => b.deliver_on_stream(false, packet).unwrap(),
            None => {}
        }
        for reader in &mut readers {
            while next_now(reader).is_ready() {}
        }
        if next_now(&mut small_reader).is_ready() {
            // One that must go whole needs as much of the link at once.
            send(&a, &small_lane, &vec![1; if small.1.ordered { 1_000 } else { 20_000 }]).unwrap();
            since = Some(packets);
        }
        carry(&b, &a).await.unwrap();
    }
    assert!(packets > 300, "{packets}");
    waited.max(since.map_or(0, |since| packets - since))
}

#[tokio::test]
async fn busy_channels_starve_no_other() {
    let (ordered, unordered) = (Promise::default(), Promise { ordered: false, ..Promise::default() });
    let lossy = Promise { reliability: Reliability::MaxRetransmits(0), ..ordered };
    let bulk = [("lossy", lossy), ("1", ordered), ("2", ordered), ("3", ordered)];
    for window in [WINDOW, (225_406, 200), (60_000, 50)] {
        for small in [("", ordered), ("small", ordered), ("small", unordered)] {
            let waited = waits(window, small, &bulk).await;
            assert!(waited <= 4, "{small:?} took {waited} packets, with {window:?}");
        }
    }
}

#[tokio::test]
async fn a_channel_that_is_idle_leaves_the_link_to_the_main_one() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    send(&a, &open(&a, "idle"), b"1").unwrap();
    let mut messages = b.queues.subscribe(b.queues.main());
    let mut most = 0;
    for _ in 0..30 {
        while send(&a, a.queues.main(), &[0; 10_000]).is_ok() {}
        let mut sent = 0;
        while let Some(Outgoing::Binary(packet)) = a.try_next_outgoing() {
            sent += packet.len();
            b.deliver(WireMessage::Binary(packet.freeze()), WhenFull::Overflow).await.unwrap();
        }
        most = most.max(sent);
        while next_now(&mut messages).is_ready() {}
        carry(&b, &a).await.unwrap();
    }
    assert!(most > CREDIT_BYTES as usize * 3 / 4, "{most} bytes were on their way at most");
}

#[tokio::test]
async fn a_channel_that_is_not_read_holds_up_no_other() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let (stopped, busy) = (open(&a, "stopped"), open(&a, "busy"));
    let mut reader = None;
    let (mut sent, mut read) = (0, 0);
    for _ in 0..2000 {
        sent += usize::from(send(&a, &stopped, &[1; 10_000]).is_ok());
        let _ = send(&a, &busy, &[2; 10_000]);
        carry(&a, &b).await.unwrap();
        let there = b.queues.open_lane("busy", Promise::default()).unwrap();
        let reader = reader.get_or_insert_with(|| b.queues.subscribe(&there));
        while next_now(reader).is_ready() {
            read += 1;
        }
        carry(&b, &a).await.unwrap();
    }
    assert_eq!(read, 2000);
    let bound = (CHANNEL_CREDIT.0 as usize + stopped.capacity) / 10_000;
    assert!(sent <= bound, "{sent} messages are more than {bound}");
}

#[tokio::test]
async fn closing_sends_what_is_queued_then_ends_the_other_side() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let chat = open(&a, "chat");
    send(&a, &chat, b"1").unwrap();
    a.queues.close_lane(&chat);
    assert_eq!(send(&a, &chat, b"2"), Err(Rejected::NotOpen));
    assert!(chat.over().now_or_never().is_none(), "something is still to be sent");
    carry(&a, &b).await.unwrap();
    chat.over().now_or_never().unwrap();
    let there = b.queues.take_opened().unwrap();
    there.over().now_or_never().unwrap();
    assert_eq!(send(&b, &there, b"3"), Err(Rejected::NotOpen));
    let mut messages = b.queues.subscribe(&there);
    assert_eq!(carry(&b, &a).await, Ok(0), "not everything is read");
    assert_eq!(next(&mut messages).await.unwrap().1, "1");
    assert_eq!(next(&mut messages).await, None);
    assert_eq!(next(&mut a.queues.subscribe(&chat)).await, None);
    carry(&b, &a).await.unwrap();
    assert_eq!((lanes(&a), lanes(&b)), (1, 1), "both sides have forgotten it");

    let again = open(&a, "chat");
    send(&a, &again, b"4").unwrap();
    carry(&a, &b).await.unwrap();
    let there = b.queues.take_opened().unwrap();
    assert_eq!(next(&mut b.queues.subscribe(&there)).await.unwrap().1, "4");
}

#[tokio::test]
async fn a_channel_that_the_other_side_closed_is_had_by_its_name_until_everything_is_read() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let chat = open(&a, "chat");
    for n in 0..10u8 {
        send(&a, &chat, &[n]).unwrap();
    }
    a.queues.close_lane(&chat);
    carry(&a, &b).await.unwrap();
    for n in 0..10u8 {
        // With a stream made anew for each message.
        let there = open(&b, "chat");
        assert_eq!(next(&mut b.queues.subscribe(&there)).now_or_never().unwrap().unwrap().1, [n].as_slice());
    }
    carry(&b, &a).await.unwrap();
    assert_eq!((lanes(&a), lanes(&b)), (1, 1), "both sides have forgotten it");
    assert!(open(&b, "chat").is_open());

    // Who holds the stream has read everything once it has come to the end.
    let again = open(&a, "again");
    send(&a, &again, b"1").unwrap();
    send(&a, &again, b"2").unwrap();
    a.queues.close_lane(&again);
    carry(&a, &b).await.unwrap();
    let there = open(&b, "again");
    let mut messages = b.queues.subscribe(&there);
    assert_eq!(next(&mut messages).await.unwrap().1, "1");
    assert!(Arc::ptr_eq(&open(&b, "again"), &there), "a message waits");
    assert_eq!(next(&mut messages).await.unwrap().1, "2");
    assert_eq!(next(&mut messages).await, None);
    assert!(!Arc::ptr_eq(&open(&b, "again"), &there));
}

#[tokio::test]
async fn a_part_of_a_message_is_counted_and_goes_at_the_end() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let lane = open(&a, "x");
    send(&a, &lane, &[0; 150_000]).unwrap();
    for _ in 0..2 {
        let Some(Outgoing::Binary(packet)) = a.try_next_outgoing() else { panic!("nothing to send") };
        b.deliver(WireMessage::Binary(packet.freeze()), WhenFull::Overflow).await.unwrap();
    }
    let there = b.queues.take_opened().unwrap();
    let mut messages = b.queues.subscribe(&there);
    assert!(next_now(&mut messages).is_pending());
    drop(messages);
    // What is read of it waits for the next reader, who would put it together.
    let unread = |lane: &Lane| lock(&lane.inbox).unread();
    assert!(unread(&there) > 100_000, "{} bytes", unread(&there));
    let budget = Arc::new(Semaphore::new(10));
    assert!(b.queues.keep_unread(&budget) > 100_000, "more than the budget was kept");
    assert_eq!(unread(&there), 0);
    b.queues.shut();
    assert_eq!(next(&mut b.queues.subscribe(&there)).await, None);
}

pub(super) fn lanes(pipe: &Pipe) -> usize {
    lock(&pipe.queues.outbox).lanes().count()
}

#[tokio::test]
async fn channels_are_bounded() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let opened: Vec<_> = (0..MAX_CHANNELS).map(|n| open(&a, &n.to_string())).collect();
    assert_eq!(a.queues.open_lane("more", Promise::default()).unwrap_err(), NoLane::TooMany);
    assert!(Arc::ptr_eq(&open(&a, "0"), &opened[0]));
    carry(&a, &b).await.unwrap();
    // The other side has as many of its own, and those that we opened count for us.
    for n in 0..MAX_CHANNELS {
        open(&b, &format!("b{n}"));
    }
    assert_eq!(carry(&b, &a).await, Ok(1));
    a.queues.close_lane(&opened[0]);
    carry(&a, &b).await.unwrap();
    assert_eq!(a.queues.open_lane("more", Promise::default()).unwrap_err(), NoLane::TooMany);
    carry(&b, &a).await.unwrap();
    open(&a, "more");
    assert_eq!(carry(&a, &b).await, Ok(1));
}

#[tokio::test]
async fn no_channels_without_packets() {
    let (waiting, _events) = pipe_with(WINDOW);
    assert_eq!(waiting.queues.open_lane("x", Promise::default()).unwrap_err(), NoLane::NotOpen);
    let (plain, _events) = plain();
    assert_eq!(plain.queues.open_lane("x", Promise::default()).unwrap_err(), NoLane::Unsupported);
    let (closing, _events) = packets();
    closing.start_closing();
    assert_eq!(closing.queues.open_lane("x", Promise::default()).unwrap_err(), NoLane::NotOpen);
}

#[tokio::test]
async fn what_is_unread_on_channels_counts_in_the_budget_too() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let lane = open(&a, "x");
    send(&a, &lane, &[0; 50_000]).unwrap();
    carry(&a, &b).await.unwrap();
    let budget = Arc::new(Semaphore::new(100));
    assert_eq!(b.queues.keep_unread(&budget), 0);
    b.queues.shut();
    assert_eq!(budget.available_permits(), 51);
    let there = b.queues.take_opened().unwrap();
    let mut messages = b.queues.subscribe(&there);
    assert_eq!(next(&mut messages).await.unwrap().1.len(), 50_000);
    assert_eq!(next(&mut messages).await, None);
    assert_eq!(budget.available_permits(), 100);
}

#[tokio::test]
async fn kinds_of_channels_are_bounded() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let kind =
        |millis| Promise { ordered: false, reliability: Reliability::MaxLifetime(Duration::from_millis(millis)) };
    let use_one = async |a: &Pipe, b: &Pipe, kind| {
        let lane = a.queues.open_lane("x", kind)?;
        send(a, &lane, b"1").unwrap();
        a.queues.close_lane(&lane);
        carry(a, b).await.unwrap();
        let there = b.queues.take_opened().unwrap();
        assert_eq!(next(&mut b.queues.subscribe(&there)).await.unwrap().1, "1");
        carry(b, a).await.unwrap();
        Ok(())
    };
    for millis in (0..MAX_KINDS as u64).chain(0..10) {
        use_one(&a, &b, kind(millis)).await.unwrap();
    }
    assert_eq!(use_one(&a, &b, kind(100)).await, Err(NoLane::TooManyKinds));
    // The other side has as many of its own.
    use_one(&b, &a, kind(100)).await.unwrap();
    open(&a, "ordered and reliable");
}

#[tokio::test]
async fn a_channel_of_which_something_is_still_on_its_way_keeps_no_new_one_out() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let unordered = Promise { ordered: false, ..Promise::default() };
    for n in 1..MAX_CHANNELS {
        open(&a, &n.to_string());
    }
    let mut late = Vec::new();
    for n in 0..20 {
        let lane = a.queues.open_lane("x", unordered).unwrap();
        carry(&a, &b).await.unwrap();
        send(&a, &lane, &[n]).unwrap();
        let sent = loop {
            match a.try_next_outgoing() {
                Some(Outgoing::Stream { id, action: StreamAction::Open(_) }) => a.stream_opened(id),
                Some(Outgoing::Stream { action: StreamAction::Send { packet, .. }, .. }) => break packet.freeze(),
                other => panic!("{other:?}"),
            }
        };
        late.push(sent);
        b.queues.close_lane(&b.queues.open_lane("x", unordered).unwrap());
        carry(&b, &a).await.unwrap();
        carry(&a, &b).await.unwrap();
    }
    assert_eq!((lanes(&a), lanes(&b)), (MAX_CHANNELS, MAX_CHANNELS + 20));
    for packet in late {
        b.deliver_on_stream(false, packet).unwrap();
    }
    assert_eq!(lanes(&b), MAX_CHANNELS);
}

#[tokio::test]
async fn what_waits_on_a_channel_can_be_read_by_its_name_when_the_link_is_over() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    send(&a, &open(&a, "x"), b"1").unwrap();
    carry(&a, &b).await.unwrap();
    b.queues.shut();
    assert_eq!(next(&mut b.queues.subscribe(&open(&b, "x"))).await.unwrap().1, "1");
    assert_eq!(b.queues.open_lane("y", Promise::default()).unwrap_err(), NoLane::NotOpen);
}

#[tokio::test]
async fn frames_do_not_starve_streams() {
    let (a, _a) = packets();
    let (b, _b) = packets();
    let unordered = Promise { ordered: false, ..Promise::default() };
    let lane = a.queues.open_lane("x", unordered).unwrap();
    carry(&a, &b).await.unwrap();
    let there = b.queues.take_opened().unwrap();
    a.queues.try_send(&lane, Kind::Json, Bytes::from_static(b"1")).unwrap();
    for _ in 0..6 {
        a.queues.signal("x".repeat(MAX_PACKET_BYTES)).unwrap();
        match a.try_next_outgoing() {
            Some(Outgoing::Stream { id, action: StreamAction::Open(_) }) => a.stream_opened(id),
            Some(Outgoing::Stream { action: StreamAction::Send { packet, .. }, .. }) => {
                b.deliver_on_stream(false, packet.freeze()).unwrap();
            }
            other => assert!(matches!(other, Some(Outgoing::Binary(_))), "{other:?}"),
        }
    }
    assert!(next_now(&mut b.queues.subscribe(&there)).is_ready());
}
