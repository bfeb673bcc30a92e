//! What hostile peers do with channels.

use super::super::lane::MAIN;
use super::*;
use crate::protocol::channel::{Delivery as Promise, Opening, Reliability};
use crate::protocol::limits::MAX_CHANNELS;
use crate::protocol::packet::MAX_HEADER_BYTES;

async fn deliver(pipe: &Pipe, packet: PacketBuilder) -> Result<(), CloseReason> {
    pipe.deliver(WireMessage::Binary(packet.finish().freeze()), WhenFull::Overflow).await
}

#[tokio::test]
async fn hostile_packets_end_the_link() {
    let opening = |id, answers| {
        Opening { id, answers, delivery: Promise::default(), name: format!("name {id}") }.encode().freeze()
    };
    type Fill<'a> = &'a dyn Fn(&mut PacketBuilder);
    let cases: [(&str, Fill<'_>); 11] = [
        ("an unknown channel", &|packet| {
            packet.push_numbers(Kind::Channel, &[7]);
        }),
        ("an unknown channel is shut", &|packet| {
            packet.push_numbers(Kind::Shut, &[7, 0]);
        }),
        ("the main channel is shut", &|packet| {
            packet.push_numbers(Kind::Shut, &[0, 0]);
        }),
        ("a number twice", &|packet| {
            packet.push_whole(Kind::Open, &opening(1, 0));
            packet.push_whole(Kind::Open, &opening(1, 0));
        }),
        ("the number of the main channel", &|packet| {
            packet.push_whole(Kind::Open, &opening(0, 0));
        }),
        ("an answer to nothing", &|packet| {
            packet.push_whole(Kind::Open, &opening(1, 5));
        }),
        ("too many", &|packet| {
            for id in 1..=MAX_CHANNELS as u32 + 1 {
                packet.push_whole(Kind::Open, &opening(id, 0));
            }
        }),
        ("two channels in a packet", &|packet| {
            packet.push_whole(Kind::Open, &opening(1, 0));
            packet.push(Kind::Binary, b"x", &mut 0, 1);
            packet.push_numbers(Kind::Channel, &[1]);
        }),
        ("two channels before the first message", &|packet| {
            packet.push_whole(Kind::Open, &opening(1, 0));
            packet.push_numbers(Kind::Channel, &[1]);
            packet.push_numbers(Kind::Channel, &[1]);
        }),
        ("a message of a channel that may lose some", &|packet| {
            let delivery = Promise { ordered: true, reliability: Reliability::MaxRetransmits(0) };
            let opening = Opening { id: 1, answers: 0, delivery, name: "x".into() };
            packet.push_whole(Kind::Open, &opening.encode());
            packet.push_numbers(Kind::Channel, &[1]);
            packet.push(Kind::Binary, b"x", &mut 0, 1);
        }),
        ("a grant for nothing", &|packet| {
            packet.push_numbers(Kind::Arrived, &[1, 1]);
        }),
    ];
    for (name, fill) in cases {
        let (b, _b) = packets();
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        fill(&mut packet);
        assert!(matches!(deliver(&b, packet).await, Err(CloseReason::Protocol(_))), "{name}");
    }
}

#[tokio::test]
async fn hostile_packets_on_streams_end_the_link() {
    type Fill<'a> = &'a dyn Fn(&mut PacketBuilder);
    let cases: [(&str, Fill<'_>); 5] = [
        ("nothing", &|_| {}),
        ("no channel", &|packet| {
            packet.push(Kind::Binary, b"x", &mut 0, 1);
        }),
        ("two channels", &|packet| {
            packet.push_numbers(Kind::Channel, &[1]);
            packet.push_numbers(Kind::Channel, &[2]);
        }),
        ("a frame", &|packet| {
            packet.push_numbers(Kind::Channel, &[1]);
            packet.push_whole(Kind::Frame, b"[6]");
        }),
        ("a part of a message", &|packet| {
            packet.push_numbers(Kind::Channel, &[1]);
            packet.push(Kind::Binary, b"xy", &mut 0, 1);
        }),
    ];
    for (name, fill) in cases {
        for lossy in [false, true] {
            let (b, _b) = packets();
            let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
            fill(&mut packet);
            let ended = b.deliver_on_stream(lossy, packet.finish().freeze());
            assert!(matches!(ended, Err(CloseReason::Protocol(_))), "{name}");
        }
    }
}

#[tokio::test]
async fn only_channels_that_may_lose_messages_get_some_without_credit() {
    let (b, _b) = packets();
    let delivery = Promise { ordered: false, ..Promise::default() };
    let mut announced = PacketBuilder::new(MAX_PACKET_BYTES);
    announced.push_whole(Kind::Open, &Opening { id: 1, answers: 0, delivery, name: "x".into() }.encode());
    deliver(&b, announced).await.unwrap();
    for id in [MAIN, 1] {
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        packet.push_numbers(Kind::Channel, &[id]);
        packet.push(Kind::Binary, b"x", &mut 0, 1);
        let ended = b.deliver_on_stream(true, packet.finish().freeze());
        assert!(matches!(ended, Err(CloseReason::Protocol(_))), "{id}");
    }
}

#[tokio::test]
async fn what_comes_before_its_channel_is_held_within_the_credit_of_the_link() {
    let (b, _b) = packets();
    let packet = |id| {
        let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
        packet.push_numbers(Kind::Channel, &[id]);
        packet.push(Kind::Binary, &[id as u8; 10_000], &mut 0, usize::MAX);
        packet.finish().freeze()
    };
    b.deliver_on_stream(true, packet(1)).unwrap();
    b.deliver_on_stream(false, packet(1)).unwrap();
    let mut early = 1;
    let ended = loop {
        match b.deliver_on_stream(false, packet(2)) {
            Ok(()) => early += 1,
            Err(reason) => break reason,
        }
    };
    assert!(matches!(ended, CloseReason::Protocol(_)));
    assert_eq!(early, CREDIT_BYTES as usize / packet(2).len());

    let delivery = Promise { ordered: false, ..Promise::default() };
    let mut announced = PacketBuilder::new(MAX_PACKET_BYTES);
    announced.push_whole(Kind::Open, &Opening { id: 1, answers: 0, delivery, name: "x".into() }.encode());
    deliver(&b, announced).await.unwrap();
    let lane = b.queues.take_opened().unwrap();
    let mut messages = b.queues.subscribe(&lane);
    assert_eq!(next(&mut messages).await.unwrap().1, vec![1; 10_000], "what may get lost was lost");
    assert!(next_now(&mut messages).is_pending());
}

#[tokio::test]
async fn all_channels_together_keep_to_the_window_of_the_link() {
    let (b, _b) = packets();
    let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
    for id in 1..=20 {
        let opening = Opening { id, answers: 0, delivery: Promise::default(), name: id.to_string() };
        packet.push_whole(Kind::Open, &opening.encode());
    }
    deliver(&b, packet).await.unwrap();
    let mut arrived = 0;
    let result = 'flood: loop {
        for id in 1..=20 {
            let mut packet = PacketBuilder::new(MAX_PACKET_BYTES);
            packet.push_numbers(Kind::Channel, &[id]);
            packet.push(Kind::Binary, &[0; 60_000], &mut 0, usize::MAX);
            match deliver(&b, packet).await {
                // No grant leaves, as nobody asks for what is to be sent.
                Ok(()) => arrived += 60_000,
                Err(reason) => break 'flood reason,
            }
        }
    };
    assert!(matches!(result, CloseReason::Protocol(_)));
    assert_eq!(arrived / 60_000, CREDIT_BYTES as usize / (60_000 + MAX_HEADER_BYTES));
}
