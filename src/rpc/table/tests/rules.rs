//! One rule each.

use super::net::{LIMITS, Net};
use crate::rpc::error::{CallError, Failure};
use crate::rpc::table::Limits;
use crate::rpc::wire::{Frame, Mode, PART};

#[test]
fn a_call_is_answered() {
    let mut net = Net::new();
    let number = net.call(0, Mode::Call, 5, None).unwrap();
    net.run();
    assert_eq!(net.ends[1].running[&number].body, vec![7; 5]);
    net.answer(1, number, Ok(3 * PART));
    net.run();
    assert_eq!(net.ends[0].ends[&number], Ok(vec![8; 3 * PART].into()));
    assert_eq!(net.ends[0].room, (0, 0));
    assert!(net.ends[0].table.is_idle());
}

#[test]
fn both_sides_may_use_the_same_numbers() {
    let mut net = Net::new();
    assert_eq!(net.call(0, Mode::Call, 1, None), net.call(1, Mode::Call, 2, None));
    net.run();
    net.answer(0, 1, Ok(10));
    net.answer(1, 1, Err(CallError::Failed(Failure::new("no"))));
    net.run();
    assert_eq!(net.ends[1].ends[&1], Ok(vec![8; 10].into()));
    assert_eq!(net.ends[0].ends[&1], Err(CallError::Failed(Failure::new("no"))));
}

#[test]
fn calls_wait_for_a_place_in_order_and_then_fail() {
    let mut net = Net::new();
    let numbers: Vec<u32> =
        (0..LIMITS.calls + LIMITS.waiting).map(|_| net.call(0, Mode::Call, 1, None).unwrap()).collect();
    assert_eq!(net.call(0, Mode::Call, 1, None), Err(CallError::Busy));
    net.run();
    assert_eq!(net.ends[1].running.keys().copied().collect::<Vec<_>>(), numbers[..LIMITS.calls]);
    for number in &numbers {
        net.answer(1, *number, Ok(0));
        net.run();
    }
    assert_eq!(net.ends[0].ends.len(), numbers.len());
    assert_eq!(net.ends[1].most_running, LIMITS.calls);
    assert_eq!(net.ends[0].room, (0, 0));
}

#[test]
fn nothing_is_sent_before_the_other_side_says_that_it_takes_calls() {
    let mut net = Net::silent([LIMITS; 2]);
    let number = net.call(0, Mode::Call, 1, Some(100)).unwrap();
    assert!(!net.send(0));
    net.pass(100);
    assert_eq!(net.ends[0].ends[&number], Err(CallError::Unsupported));
    let number = net.call(0, Mode::Call, 1, Some(100)).unwrap();
    net.hello();
    assert!(net.ends[1].running.contains_key(&number));
}

#[test]
fn bodies_are_as_large_as_the_other_side_takes() {
    let small = Limits { body: 10, ..LIMITS };
    let mut net = Net::silent([LIMITS, small]);
    let early = net.call(0, Mode::Call, 11, None).unwrap();
    net.hello();
    assert_eq!(net.ends[0].ends[&early], Err(CallError::TooLarge { limit: 10 }));
    assert_eq!(net.call(0, Mode::Call, 11, None), Err(CallError::TooLarge { limit: 10 }));
    let number = net.call(1, Mode::Call, 50_000, None).unwrap();
    net.run();
    net.answer(0, number, Ok(11));
    net.run();
    assert_eq!(net.ends[1].ends[&number], Err(CallError::TooLarge { limit: 10 }));
    assert_eq!(net.ends[0].room, (0, 0));
}

#[test]
fn requests_in_progress_are_bounded_together() {
    let mut net = Net::new();
    for _ in 0..3 {
        net.call(0, Mode::Call, 90_000, None).unwrap();
    }
    net.run();
    assert_eq!(net.ends[1].running.len(), 2, "the third waits");
    net.answer(1, 1, Ok(0));
    net.run();
    assert!(net.ends[1].running.contains_key(&3));
    // Who does not keep to it is refused.
    let mut net = Net::silent([LIMITS; 2]);
    let [generous, _] = &net.ends;
    let Frame::Hello { calls, body, .. } = generous.table.hello() else { panic!("no hello") };
    net.ends[1].inbox.push_back(generous.table.hello().encode());
    net.ends[0].inbox.push_back(Frame::Hello { calls, body, bodies: u32::MAX }.encode());
    net.run();
    for _ in 0..3 {
        net.call(0, Mode::Call, 90_000, None).unwrap();
    }
    net.run();
    assert_eq!(net.ends[0].ends[&3], Err(CallError::Busy));
}

#[test]
fn time_ends_a_call_on_both_sides() {
    let mut net = Net::new();
    let number = net.call(0, Mode::Call, 1, Some(100)).unwrap();
    net.run();
    net.pass(99);
    assert!(net.ends[1].running.contains_key(&number));
    net.pass(1);
    assert_eq!(net.ends[0].ends[&number], Err(CallError::TimedOut));
    assert_eq!(net.ends[1].stopped, [number]);
    net.run();
    assert_eq!(net.ends[0].table.stray() + net.ends[1].table.stray(), 2, "what each says to the other crosses");
    // The place is free again.
    for _ in 0..LIMITS.calls {
        net.call(0, Mode::Call, 1, None).unwrap();
    }
    net.run();
    assert_eq!(net.ends[1].running.len(), LIMITS.calls);
}

#[test]
fn cancelling_stops_the_handler_or_takes_the_request_back() {
    let mut net = Net::new();
    let number = net.call(0, Mode::Call, 1, Some(100)).unwrap();
    net.cancel(0, number);
    assert!(!net.send(0), "nothing of it is sent");
    let running = net.call(0, Mode::Call, 1, None).unwrap();
    net.run();
    net.cancel(0, running);
    net.run();
    assert_eq!(net.ends[1].stopped, [running]);
    let cut = net.call(0, Mode::Call, 2 * PART, None).unwrap();
    net.send(0);
    net.cancel(0, cut);
    net.run();
    assert!(net.ends[1].running.is_empty());
    assert_eq!(net.ends[1].table.stray(), 0);
    assert_eq!(net.ends[0].room, (0, 0));
    assert_eq!(net.ends[0].table.next_deadline(), None);
}

#[test]
fn items_wait_for_credit() {
    let mut net = Net::new();
    let number = net.call(0, Mode::Stream, 1, None).unwrap();
    net.run();
    for _ in 0..4 {
        assert!(net.item(1, number, 20_000));
    }
    assert!(!net.item(1, number, 1), "the credit is used up");
    net.run();
    assert_eq!(net.ends[0].items[&number].len(), 4);
    assert!(!net.item(1, number, 1), "nobody has taken any");
    net.ends[0].table.consumed(number);
    net.run();
    assert!(!net.item(1, number, 1), "grants come by halves");
    net.ends[0].table.consumed(number);
    net.run();
    assert!(net.item(1, number, 1) && net.item(1, number, 1) && !net.item(1, number, 1));
    net.answer(1, number, Ok(0));
    net.run();
    assert_eq!((net.ends[0].items[&number].len(), &net.ends[0].ends[&number]), (6, &Ok(Default::default())));
    assert_eq!(net.ends[1].room, (0, 0));
}

#[test]
fn the_end_says_what_may_have_been_handled() {
    let mut net = Net::new();
    let handled = net.call(0, Mode::Call, 1, None).unwrap();
    net.run();
    let unsent = net.call(0, Mode::Call, 1, None).unwrap();
    let incoming = net.call(1, Mode::Call, 1, None).unwrap();
    net.send(1);
    net.receive(0).unwrap();
    net.ends[0].table.close(CallError::NotOpen);
    net.ends[0].settle();
    assert_eq!(net.ends[0].ends[&handled], Err(CallError::Closed));
    assert_eq!(net.ends[0].ends[&unsent], Err(CallError::NotOpen));
    assert_eq!(net.ends[0].stopped, [incoming]);
    assert_eq!(net.call(0, Mode::Call, 1, None), Err(CallError::NotOpen));
    assert_eq!(net.ends[0].room, (0, 0));
    assert!(!net.send(0));
}

#[test]
fn calls_that_are_no_longer_served_are_closed() {
    let mut net = Net::new();
    let running = net.call(0, Mode::Call, 1, None).unwrap();
    let receiving = net.call(0, Mode::Call, 2 * PART, None).unwrap();
    for _ in 0..2 {
        net.send(0);
        net.receive(1).unwrap();
    }
    net.ends[1].table.stop_serving();
    net.ends[1].settle();
    assert_eq!(net.ends[1].stopped, [running]);
    net.run();
    assert_eq!(net.ends[0].ends[&running], Err(CallError::Closed));
    assert_eq!(net.ends[0].ends[&receiving], Err(CallError::Closed));
}
