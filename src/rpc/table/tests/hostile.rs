//! Peers that do not keep to the protocol.

use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;

use super::net::{LIMITS, Net};
use crate::rpc::table::{MAX_REFUSALS, Output, Table, Violation};
use crate::rpc::wire::{CallHead, Frame, Mode, PART};

fn call(number: u32, size: u32) -> Frame {
    let head = CallHead { mode: Mode::Stream, millis: 0, items: 1, module: "m".into() };
    Frame::Call { number, head, size, part: vec![1; (size as usize).min(PART)].into() }
}

/// A table that has taken these frames after a hello.
fn after(frames: &[Frame]) -> Result<Table, Violation> {
    let mut net = Net::new();
    net.call(0, Mode::Call, 1, None).unwrap();
    net.call(0, Mode::Stream, 1, None).unwrap();
    while net.send(0) {}
    let mut table = net.ends.into_iter().next().unwrap().table;
    for frame in frames {
        table.receive(Instant::now(), frame.encode())?;
    }
    Ok(table)
}

#[test]
fn what_ends_the_link() {
    let body = |size: usize| Bytes::from(vec![1; size]);
    let item = |number| Frame::Item { number, size: 1, part: body(1) };
    let answer = |number, size: u32, here| Frame::Answer { number, size, part: body(here) };
    let cases: Vec<(Vec<Frame>, Violation)> = vec![
        (vec![Frame::Hello { calls: 1, body: 1, bodies: 1 }], Violation::Hello),
        (vec![call(5, 1), call(5, 1)], Violation::Number),
        ([5, 6, 7, 8, 9, 9].map(|number| call(number, 1)).to_vec(), Violation::Number),
        (vec![call(5, 1), Frame::Request { number: 5, part: body(1) }], Violation::Body),
        (vec![call(5, 20_000), Frame::Request { number: 5, part: body(PART) }], Violation::Body),
        (vec![item(1)], Violation::Credit),
        ((0..5).map(|_| item(2)).collect(), Violation::Credit),
        (vec![call(5, 1), Frame::Credit { number: 5, items: u16::MAX }], Violation::Credit),
        (vec![answer(9, 1, 1)], Violation::NotCalled),
        (vec![answer(1, LIMITS.body as u32 + 1, 1)], Violation::Body),
        (vec![answer(1, 2, 1), answer(1, 2, 1)], Violation::Body),
        (vec![answer(1, 2, 1), Frame::Reply { number: 1, part: body(2) }], Violation::Body),
        (vec![Frame::Reply { number: 1, part: body(1) }], Violation::Body),
    ];
    for (frames, violation) in cases {
        assert_eq!(after(&frames).err(), Some(violation), "{frames:?}");
    }
    let mut silent = Table::new(LIMITS);
    assert_eq!(silent.receive(Instant::now(), call(1, 1).encode()), Err(Violation::Hello));
}

#[test]
fn what_is_counted_and_skipped() {
    let part = || Bytes::from_static(b"x");
    let table = after(&[
        Frame::Cancel { number: 77 },
        Frame::Credit { number: 77, items: 1 },
        Frame::Request { number: 77, part: part() },
        Frame::Reply { number: 77, part: part() },
        Frame::Answer { number: 1, size: 1, part: part() },
        Frame::Answer { number: 1, size: 1, part: part() },
    ])
    .unwrap();
    assert_eq!(table.stray(), 5);
}

#[test]
fn calls_beyond_the_bound_are_refused_and_then_cut_off() {
    let most = LIMITS.calls + MAX_REFUSALS;
    let calls = |count: usize| -> Vec<Frame> { (1..=count as u32).map(|number| call(number, 1)).collect() };
    let mut table = after(&calls(most)).unwrap();
    let refusals = std::iter::from_fn(|| table.next_frame()).collect::<Vec<_>>();
    assert_eq!(refusals.len(), MAX_REFUSALS);
    assert!(refusals.iter().all(|frame| matches!(frame, Frame::Failure { code: 6, .. })));
    assert_eq!(after(&calls(most + 1)).err(), Some(Violation::Flood));
}

#[test]
fn a_peer_that_does_not_read_its_answers_gets_no_further_places() {
    let mut net = Net::new();
    for number in 1..=4 {
        net.ends[0].table.receive(net.now, call(number, 1).encode()).unwrap();
        net.ends[0].settle();
        net.answer(0, number, Ok(100_000));
    }
    net.ends[0].table.receive(net.now, call(5, 1).encode()).unwrap();
    net.ends[0].settle();
    assert!(net.ends[0].running.is_empty(), "the answers of the others wait to be sent");
    while net.send(0) {}
    net.ends[0].table.receive(net.now, call(6, 1).encode()).unwrap();
    net.ends[0].settle();
    assert_eq!(net.ends[0].running.len(), 1);
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let number = || 0..12u32;
    let body = || {
        (0..3usize, 0..40_000usize).prop_map(|(kind, size)| {
            let here = [size.min(PART), size.min(1), size.min(100)][kind];
            (size as u32, Bytes::from(vec![1; here]))
        })
    };
    let part = || (1..=PART).prop_map(|size| Bytes::from(vec![1; size]));
    prop_oneof![
        1 => Just(Frame::Hello { calls: 3, body: 1000, bodies: 1000 }),
        9 => (number(), body(), 0..200u32, 0..3u16).prop_map(|(number, (size, part), millis, items)| {
            let head = CallHead { mode: Mode::Stream, millis, items, module: "m".into() };
            Frame::Call { number, head, size, part }
        }),
        9 => (number(), part()).prop_map(|(number, part)| Frame::Request { number, part }),
        5 => number().prop_map(|number| Frame::Cancel { number }),
        5 => (number(), 0..9u16).prop_map(|(number, items)| Frame::Credit { number, items }),
        5 => (number(), body()).prop_map(|(number, (size, part))| Frame::Item { number, size, part }),
        5 => (number(), body()).prop_map(|(number, (size, part))| Frame::Answer { number, size, part }),
        5 => (number(), any::<u8>(), body()).prop_map(|(number, code, (size, part))| {
            Frame::Failure { number, code, size, part }
        }),
        5 => (number(), part()).prop_map(|(number, part)| Frame::Reply { number, part }),
    ]
}

proptest! {
    /// Whatever comes, it neither panics nor holds more than it may; what it refuses to take it would end the link for, and is left out here.
    #[test]
    fn any_frames(frames in proptest::collection::vec((any_frame(), 0..30u64, any::<bool>()), 0..80)) {
        let mut net = Net::new();
        for _ in 0..3 {
            net.call(0, Mode::Stream, 10, Some(500)).unwrap();
        }
        while net.send(0) {}
        for (frame, millis, answers) in frames {
            net.pass(millis);
            let _ = net.ends[0].table.receive(net.now, frame.encode());
            net.ends[0].settle();
            let first = net.ends[0].running.keys().next().copied();
            if let Some(number) = first.filter(|_| answers) {
                net.answer(0, number, Ok(30));
            }
            let table = &net.ends[0].table;
            prop_assert!(table.incoming.len() <= LIMITS.calls && table.bodies <= LIMITS.bodies);
            prop_assert!(table.refused.len() <= MAX_REFUSALS);
            prop_assert!(table.outgoing.len() <= 3);
        }
        let table = &mut net.ends[0].table;
        table.close(crate::rpc::error::CallError::NotOpen);
        let ended = std::iter::from_fn(|| table.next_output()).filter(|output| matches!(output, Output::End { .. })).count();
        prop_assert_eq!(ended + net.ends[0].ends.len(), 3);
    }
}
