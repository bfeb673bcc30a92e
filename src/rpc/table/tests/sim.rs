//! Any order of what callers, handlers, the network and the time may do.

use std::collections::HashMap;

use proptest::prelude::*;

use super::net::{LIMITS, Net};
use crate::rpc::error::CallError;
use crate::rpc::wire::Mode;

#[derive(Debug, Clone)]
enum Step {
    Call(usize, Mode, usize, Option<u64>),
    /// The call, of those there are.
    Cancel(usize, usize),
    Consume(usize, usize),
    Answer(usize, usize, Option<usize>),
    Item(usize, usize, usize),
    Send(usize, usize),
    Receive(usize, usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let end = || 0..2usize;
    let mode = prop_oneof![Just(Mode::Call), Just(Mode::Stream), Just(Mode::Notice)];
    let size = || prop_oneof![3 => 0..10usize, 1 => 0..90_000usize];
    prop_oneof![
        4 => (end(), mode, size(), proptest::option::of(1..300u64)).prop_map(|(e, m, s, t)| Step::Call(e, m, s, t)),
        1 => (end(), 0..20usize).prop_map(|(e, n)| Step::Cancel(e, n)),
        2 => (end(), 0..20usize).prop_map(|(e, n)| Step::Consume(e, n)),
        3 => (end(), 0..4usize, proptest::option::of(size())).prop_map(|(e, n, s)| Step::Answer(e, n, s)),
        3 => (end(), 0..4usize, size()).prop_map(|(e, n, s)| Step::Item(e, n, s)),
        6 => (end(), 1..6usize).prop_map(|(e, n)| Step::Send(e, n)),
        6 => (end(), 1..6usize).prop_map(|(e, n)| Step::Receive(e, n)),
        1 => (0..60u64).prop_map(Step::Pass),
    ]
}

fn take(net: &mut Net, step: Step, consumed: &mut [HashMap<u32, usize>; 2]) {
    match step {
        Step::Call(end, mode, size, time) => {
            let called = net.call(end, mode, size, time);
            assert!(matches!(called, Ok(_) | Err(CallError::Busy)));
        }
        Step::Cancel(end, which) => {
            if let Some(number) = net.ends[end].calls.get(which).copied() {
                net.cancel(end, number);
            }
        }
        Step::Consume(end, which) => {
            if let Some(number) = net.ends[end].calls.get(which).copied() {
                let here = net.ends[end].items.get(&number).map_or(0, Vec::len);
                let taken = consumed[end].entry(number).or_default();
                if *taken < here {
                    *taken += 1;
                    net.ends[end].table.consumed(number);
                }
            }
        }
        Step::Answer(end, which, size) => {
            if let Some(number) = net.ends[end].running.keys().nth(which).copied() {
                net.answer(end, number, size.ok_or(CallError::Panicked));
            }
        }
        Step::Item(end, which, size) => {
            let running = net.ends[end].running.values().filter(|start| start.head.mode == Mode::Stream);
            if let Some(number) = running.map(|start| start.number).nth(which) {
                net.item(end, number, size);
            }
        }
        Step::Send(end, count) => {
            for _ in 0..count {
                net.send(end);
            }
        }
        Step::Receive(end, count) => {
            for _ in 0..count {
                net.receive(end).unwrap();
            }
        }
        Step::Pass(millis) => net.pass(millis),
    }
    for (end, consumed) in net.ends.iter().zip(consumed) {
        assert!(end.most_running <= LIMITS.calls);
        for (number, items) in &end.items {
            let taken = consumed.get(number).copied().unwrap_or_default();
            assert!(items.len() <= taken + 4, "more items than were granted");
        }
    }
}

proptest! {
    #[test]
    fn every_call_ends_once_and_nothing_stays(steps in proptest::collection::vec(steps(), 0..200)) {
        let mut net = Net::new();
        let mut consumed = Default::default();
        for step in steps {
            take(&mut net, step, &mut consumed);
        }
        // Everything comes to its end: what runs is answered, as long as calls that waited begin.
        loop {
            net.run();
            let running: Vec<(usize, u32)> =
                (0..2).flat_map(|end| net.ends[end].running.keys().map(move |number| (end, *number))).collect();
            if running.is_empty() {
                break;
            }
            for (end, number) in running {
                net.answer(end, number, Ok(1));
            }
        }
        for end in &net.ends {
            for number in &end.calls {
                prop_assert!(
                    end.ends.contains_key(number) != end.cancelled.contains(number),
                    "call {} has no end, or was cancelled and has one", number
                );
            }
            // Who keeps to what the other side takes is never refused.
            prop_assert!(end.ends.values().all(|end| *end != Err(CallError::Busy)));
            prop_assert_eq!(end.room, (0, 0));
            let table = &end.table;
            prop_assert!(table.outgoing.is_empty() && table.incoming.is_empty() && table.waiting.is_empty());
            prop_assert!(table.deadlines.is_empty() && table.outbox.is_empty());
            prop_assert_eq!((table.placed, table.placed_bytes, table.bodies, table.refused.len()), (0, 0, 0, 0));
        }
    }
}
