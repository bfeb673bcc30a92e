use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::net::*;

const CONFIRM: Option<Duration> = Some(Duration::from_secs(20));

#[test]
fn one_send_for_each_hop() {
    let mut net = Net::line(0..10);
    net.send(0, 9, "first", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(9, 0, "first")]);
    // Now both have the key of the other.
    let before: usize = net.sends.values().sum();
    net.send(0, 9, "second", None);
    net.send(9, 0, "third", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(9, 0, "second"), delivered(0, 9, "third")]);
    assert_eq!(net.sends.values().sum::<usize>() - before, 18);
}

#[test]
fn confirmed_messages_keep_their_order_and_come_once() {
    let mut net = Net::line(0..6);
    let first = net.send(0, 5, "one", CONFIRM);
    let second = net.send(0, 5, "two", CONFIRM);
    net.run(SECOND);
    assert_eq!(
        net.take_told(),
        [delivered(5, 0, "one"), delivered(5, 0, "two"), (0, Told::Confirmed(first)), (0, Told::Confirmed(second))]
    );
    net.run(SECOND * 60);
    assert_eq!(net.take_told(), []);
    assert!(net.routers.values().all(|router| router.sends.is_empty() && router.counters().retried == 0));
    // Neighbours only are looked after.
    assert!(net.routers.values().all(|router| router.timers.len() <= 2));
}

#[test]
fn a_confirmation_takes_no_hops_away() {
    let mut net = Net::line(0..2);
    net.record = Some(Vec::new());
    net.send(0, 1, "text", None);
    net.send(0, 1, "text", CONFIRM);
    let hops: Vec<u8> = net.record.iter().flatten().map(|(_, _, packet)| Head::parse(packet).unwrap().hops).collect();
    assert_eq!(hops, [31, 31]);
}

#[test]
fn a_message_to_oneself() {
    let mut net = Net::line(0..1);
    let send = net.send(0, 0, "me", CONFIRM);
    assert_eq!(net.take_told(), [delivered(0, 0, "me"), (0, Told::Confirmed(send))]);
}

/// 0 has two ways to 10: over 5, which is closer, and over 3.
fn two_ways() -> Net {
    let mut net = Net::new();
    [0, 3, 5, 10].into_iter().for_each(|number| net.add(number));
    [(0, 3), (0, 5), (3, 10), (5, 10)].into_iter().for_each(|(a, b)| net.link(a, b));
    net.run(SECOND);
    net.send(0, 10, "hello", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(10, 0, "hello")]);
    net
}

#[test]
fn a_hop_falls_silent_with_the_message() {
    let mut net = Net::new();
    [0, 1, 3, 5, 10].into_iter().for_each(|number| net.add(number));
    [(0, 1), (1, 3), (1, 5), (3, 10), (5, 10)].into_iter().for_each(|(a, b)| net.link(a, b));
    net.run(SECOND);
    net.send(0, 10, "hello", None);
    net.run(SECOND);
    net.take_told();
    let send = net.send(0, 10, "text", CONFIRM);
    net.mute.insert(5);
    net.run(SECOND * 3);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert!(net.counters(1).rerouted > 0);
}

/// 0 has six ways to 10, each over one peer.
fn six_ways() -> Net {
    let mut net = Net::new();
    [0, 3, 5, 6, 7, 8, 9, 10].into_iter().for_each(|number| net.add(number));
    [3, 5, 6, 7, 8, 9].into_iter().for_each(|number| {
        net.link(0, number);
        net.link(number, 10);
    });
    net.run(SECOND);
    net
}

#[test]
fn each_copy_takes_another_first_hop() {
    let mut net = six_ways();
    net.send(0, 10, "hello", None);
    net.run(SECOND);
    net.take_told();
    net.drops = Some(|at, head| (5..10).contains(&at) && head.confirm);
    let before = net.sends.len();
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(SECOND * 13);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert_eq!(net.counters(0).retried, 5);
    // Six copies and a receipt.
    assert_eq!(net.sends.len() - before, 7);
    assert_eq!(net.routers[&0].held.len(), 0);
}

#[test]
fn so_many_copies_and_no_more() {
    for (ways, copies) in [(9, 8), (5, 5), (2, 4)] {
        let mut net = Net::new();
        (0..ways + 2).for_each(|number| net.add(number));
        (1..=ways).for_each(|number| net.link(0, number));
        (1..=ways).for_each(|number| net.link(number, ways + 1));
        net.run(SECOND);
        net.send(0, ways + 1, "hello", None);
        net.run(SECOND);
        net.take_told();
        let before = net.sends.len();
        net.drops = Some(|at, _| at > 0);
        let send = net.send(0, ways + 1, "text", Some(SECOND * 600));
        net.run(SECOND * 601);
        assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::TimedOut))]);
        assert_eq!(net.sends.len() - before, copies, "{ways} ways");
    }
}

#[test]
fn each_question_for_a_key_takes_another_first_hop() {
    let mut net = six_ways();
    net.drops = Some(|at, head| (6..10).contains(&at) && head.purpose == Purpose::KeyRequest);
    net.send(0, 10, "text", CONFIRM);
    net.run(SECOND * 10);
    assert_eq!(net.take_told()[..1], [delivered(10, 0, "text")]);
}

#[test]
fn the_next_receipt_takes_another_way() {
    let mut net = Net::new();
    [0, 3, 5, 7, 10, 20].into_iter().for_each(|number| net.add(number));
    [(0, 3), (0, 5), (3, 7), (5, 7), (7, 10), (10, 20), (20, 0)].into_iter().for_each(|(a, b)| net.link(a, b));
    net.run(SECOND);
    net.send(0, 10, "hello", None);
    net.run(SECOND);
    net.take_told();
    net.drops = Some(|at, head| at == 7 && head.purpose == Purpose::Receipt);
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(SECOND * 2);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert_eq!((net.counters(0).retried, net.counters(10).duplicates), (1, 1));
}

#[test]
fn a_hop_falls_silent_after_it_has_taken_the_message() {
    let mut net = two_ways();
    let send = net.send(0, 10, "text", CONFIRM);
    net.cut(5, 10);
    net.mute.insert(10);
    net.run(DELAY * 3);
    net.mute.remove(&10);
    net.mute.insert(5);
    net.run(SECOND * 6);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
}

#[test]
fn a_link_is_cut_with_the_message_on_it() {
    let mut net = two_ways();
    let send = net.send(0, 10, "text", CONFIRM);
    net.cut(0, 5);
    net.run(DELAY * 5);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
}

#[test]
fn a_dead_end_sends_the_message_back() {
    let mut net = two_ways();
    net.cut(5, 10);
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(DELAY * 10);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert_eq!(net.counters(5).no_route, 1);
}

#[test]
fn the_receipt_is_lost() {
    let mut net = two_ways();
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(DELAY * 2 + DELAY / 2);
    // It has arrived, and the receipt is under way.
    net.mute.extend([3, 5]);
    net.run(SECOND / 2);
    net.mute.clear();
    net.run(SECOND * 5);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert_eq!((net.counters(0).retried, net.counters(10).duplicates), (1, 1));
}

#[test]
fn nobody_has_the_id() {
    let mut net = Net::line(0..5);
    let send = net.send(0, 100, "text", CONFIRM);
    let plain = net.send(0, 100, "text", None);
    net.run(SECOND * 2);
    assert_eq!(
        net.take_told(),
        [(0, Told::Failed(send, SendFailure::NoRoute)), (0, Told::Failed(plain, SendFailure::NoRoute))]
    );
    assert_eq!(net.notes[&0].lock().unwrap().looked_for, [id(100), id(100)]);
}

#[test]
fn the_destination_has_left() {
    let mut net = two_ways();
    net.remove(10);
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(SECOND * 2);
    assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::NoRoute))]);
}

#[test]
fn the_destination_is_silent() {
    let mut net = Net::line(0..3);
    net.send(0, 2, "text", None);
    net.run(SECOND);
    net.take_told();
    net.mute.insert(2);
    let send = net.send(0, 2, "text", Some(SECOND));
    net.run(SECOND * 2);
    assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::TimedOut))]);
}

/// Nobody knows what a hop that says nothing has done with a message.
fn line_with_a_silent_hop(known: bool) -> Net {
    let mut net = Net::line(0..4);
    if known {
        net.send(0, 3, "hello", None);
        net.run(SECOND);
        assert_eq!(net.take_told(), [delivered(3, 0, "hello")]);
    }
    net
}

#[test]
fn a_silent_hop_is_no_end_of_the_way() {
    for (known, silent) in [(true, 1), (true, 2), (false, 1), (false, 2)] {
        let mut net = line_with_a_silent_hop(known);
        net.mute.insert(silent);
        let send = net.send(0, 3, "text", CONFIRM);
        net.run(Duration::from_millis(5500));
        assert_eq!(net.take_told(), []);
        net.mute.clear();
        net.run(SECOND * 14);
        assert_eq!(net.take_told(), [delivered(3, 0, "text"), (0, Told::Confirmed(send))], "{known} {silent}");
    }
}

#[test]
fn what_may_have_arrived_has_timed_out() {
    for (known, silent) in [(true, 1), (true, 2), (true, 3), (false, 1), (false, 3)] {
        let mut net = line_with_a_silent_hop(known);
        net.mute.insert(silent);
        let send = net.send(0, 3, "text", CONFIRM);
        net.run(SECOND * 19);
        assert_eq!(net.take_told(), []);
        net.run(SECOND);
        assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::TimedOut))], "{known} {silent}");
        assert!(net.routers[&0].wanted.len() <= 1 && net.routers[&0].sends.is_empty());
    }
}

#[test]
fn one_that_said_no_does_not_speak_for_one_that_was_silent() {
    let mut net = two_ways();
    net.cut(3, 10);
    net.mute.insert(5);
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(SECOND * 20);
    assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::TimedOut))]);
    // What makes links is one try of somebody who knows what to try next.
    let signal = net.with(0, |router, now| router.send(id(10), Kind::Signal, Bytes::new(), CONFIRM, now)).unwrap();
    net.run(SECOND * 8);
    assert_eq!(net.take_told(), [(0, Told::Failed(signal, SendFailure::NoRoute))]);
}

#[test]
fn a_message_that_was_delivered_is_not_said_to_have_no_way() {
    let mut net = two_ways();
    // The receipt is lost, and then the destination is gone.
    let send = net.send(0, 10, "text", CONFIRM);
    net.run(DELAY * 2 + DELAY / 2);
    assert_eq!(net.take_told(), [delivered(10, 0, "text")]);
    net.remove(10);
    net.run(SECOND * 20);
    assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::TimedOut))]);
}

#[test]
fn the_destination_starts_anew() {
    let mut net = two_ways();
    net.remove(10);
    net.add(10);
    net.link(10, 5);
    net.link(10, 3);
    net.run(SECOND);
    let send = net.send(0, 10, "text", CONFIRM);
    // It says so, is asked for its session, and the message is sealed anew.
    net.run(DELAY * 20);
    assert_eq!(net.take_told(), [delivered(10, 0, "text"), (0, Told::Confirmed(send))]);
    assert_eq!(net.counters(10).stale, 1);
}

#[test]
fn so_many_messages_wait() {
    let mut net = Net::new();
    net.config.held_messages = 10;
    net.add(0);
    net.with(0, |router, _| router.set_joining(true));
    let mut refused = 0;
    for to in 1..20 {
        let body = Bytes::from_static(b"text");
        let result = net.with(0, |router, now| router.send(id(to), Kind::Json, body, CONFIRM, now));
        refused += usize::from(result == Err(SendRefused::Full));
    }
    assert_eq!(refused, 9);
    net.run(SECOND * 30);
    assert_eq!(net.take_told().len(), 10);
    assert_eq!((net.routers[&0].sends_bytes, net.routers[&0].timers.len()), (0, 0));
    net.with(0, |router, now| router.send(id(1), Kind::Json, Bytes::new(), Some(Duration::MAX), now)).unwrap();
    let large = Bytes::from(vec![0; MAX_BODY_BYTES + 1]);
    let result = net.with(0, |router, now| router.send(id(1), Kind::Json, large, None, now));
    assert_eq!(result, Err(SendRefused::TooLarge));
}

#[test]
fn the_largest_message_fits() {
    let mut net = Net::line(0..3);
    let body = Bytes::from(vec![1; MAX_BODY_BYTES]);
    net.with(0, |router, now| router.send(id(2), Kind::Binary, body.clone(), CONFIRM, now)).unwrap();
    net.run(SECOND);
    assert!(matches!(&net.take_told()[0], (2, Told::Delivered { body: there, .. }) if *there == body));
}

#[test]
fn whoever_is_closest() {
    let mut net = Net::line([0, 10, 20, 30]);
    let message = Bytes::from_static(b"who is there?");
    net.notes[&0].lock().unwrap().actions.push_back(Action::Route { to: id(19), message: message.clone() });
    net.notes[&0].lock().unwrap().actions.push_back(Action::Route { to: id(1), message: message.clone() });
    net.notes[&0].lock().unwrap().actions.push_back(Action::Tell { to: id(10), message: message.clone() });
    net.with(0, |router, now| router.handle_timeout(now));
    net.with(0, |router, now| router.send_closest(id(31), Kind::Topic, message.clone(), now)).unwrap();
    net.with(0, |router, now| router.send_closest(id(2), Kind::Topic, message.clone(), now)).unwrap();
    net.run(SECOND);
    let claimed = (Sender::Claimed(id(0)), message.to_vec());
    assert_eq!(net.notes[&20].lock().unwrap().received, std::slice::from_ref(&claimed));
    assert_eq!(net.notes[&0].lock().unwrap().received, [claimed]);
    assert_eq!(net.notes[&10].lock().unwrap().received, [(Sender::Neighbour(id(0)), message.to_vec())]);
    let topic = Told::Delivered { from: 0, verified: false, kind: Kind::Topic, body: message };
    assert_eq!(net.take_told(), [(0, topic.clone()), (30, topic)]);
}

#[test]
fn a_newcomer_of_whom_the_routing_does_not_know_gets_answers() {
    // By their numbers, messages for 100 end at 10.
    let mut net = Net::line(0..11);
    net.add(100);
    net.link(100, 0);
    net.run(SECOND);
    let send = net.send(100, 9, "question", CONFIRM);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(9, 100, "question"), (100, Told::Confirmed(send))]);
    let send = net.send(9, 100, "answer", CONFIRM);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(100, 9, "answer"), (9, Told::Confirmed(send))]);
}
