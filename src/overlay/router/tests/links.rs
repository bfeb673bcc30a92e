use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::net::*;
use crate::overlay::seal::Plain;

#[test]
fn a_neighbour_is_up_when_it_has_said_hello() {
    let mut net = Net::new();
    net.add(0);
    net.add(1);
    net.link(0, 1);
    assert_eq!(net.told, []);
    net.run(DELAY);
    assert_eq!(net.told, [(1, Told::Up(0)), (0, Told::Up(1))]);
    net.cut(0, 1);
    assert_eq!(net.told[2..], [(0, Told::Down(1)), (1, Told::Down(0))]);
    assert_eq!(net.routers[&0].timers.len(), 0);
}

#[test]
fn who_says_no_hello_is_released() {
    let mut net = Net::new();
    net.add(0);
    net.add(1);
    net.mute.insert(1);
    net.link(0, 1);
    net.run(SECOND * 11);
    assert_eq!(net.take_told(), [(0, Told::Released(1)), (1, Told::Released(0))]);
    let packet = Bytes::from_static(&[wire::ROUTING, 1]);
    net.with(0, |router, now| router.receive(&id(1), packet, now));
    assert_eq!(net.counters(0).malformed, 1);
    // It may come all the same, and is looked after then.
    net.mute.clear();
    net.with(0, |router, now| {
        router.receive(&id(1), wire::hello(0, &Checked::new(id(1), 2).contact().session, true), now)
    });
    net.mute.insert(1);
    net.run(SECOND * 80);
    assert!(net.notes[&0].lock().unwrap().silent.contains(&id(1)));
}

#[test]
fn one_with_another_routing_is_on_no_way_to_ids_beyond() {
    let mut net = Net::line(0..2);
    net.config.routing = 1;
    net.add(2);
    net.add(3);
    net.link(1, 2);
    net.link(2, 3);
    net.run(SECOND);
    let _ = net.take_told();
    net.send(1, 2, "direct", None);
    let send = net.send(0, 3, "through", Some(SECOND * 5));
    net.run(SECOND * 10);
    assert_eq!(net.take_told(), [delivered(2, 1, "direct"), (0, Told::Failed(send, SendFailure::NoRoute))]);
    // But what comes over such a link is passed on, and answered on that way.
    let send = net.send(2, 0, "from there", Some(SECOND * 5));
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(0, 2, "from there"), (2, Told::Confirmed(send))]);
}

#[test]
fn a_silent_neighbour_is_noticed_and_comes_back() {
    let mut net = Net::line(0..3);
    net.send(0, 2, "text", None);
    net.run(SECOND);
    net.mute.insert(1);
    net.send(0, 2, "lost", None);
    net.run(SECOND * 8);
    assert!(net.notes[&0].lock().unwrap().silent.contains(&id(1)));
    net.mute.clear();
    net.run(SECOND * 8);
    assert!(net.notes[&0].lock().unwrap().silent.is_empty());
}

#[test]
fn quiet_links_cost_little() {
    let mut net = Net::line(0..2);
    net.run(SECOND * 5);
    net.record = Some(Vec::new());
    net.run(Duration::from_secs(3600));
    let packets = net.record.take().unwrap().len();
    assert!(packets <= 2 * 60 + 2, "{packets} packets in an hour");
    assert!(net.routers.values().all(|router| router.timers.len() == 1));
}

#[test]
fn a_link_that_is_there_again_is_a_new_one() {
    let mut net = Net::line(0..2);
    net.link(0, 1);
    net.run(SECOND);
    let up = |told: &&(usize, Told)| matches!(told, (0, Told::Up(1)));
    let down = |told: &&(usize, Told)| matches!(told, (0, Told::Down(1)));
    assert_eq!((net.told.iter().filter(up).count(), net.told.iter().filter(down).count()), (2, 1));
    net.send(0, 1, "text", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(1, 0, "text")]);
}

#[test]
fn a_key_of_somebody_else_is_none() {
    let mut net = Net::line(0..2);
    net.with(0, |router, now| router.neighbour_up(id(5), Some(Plain::key_of(&id(6))), now));
    net.with(0, |router, now| router.neighbour_up(id(0), Some(Plain::key_of(&id(0))), now));
    assert_eq!(net.take_told(), [(0, Told::Released(5)), (0, Told::Released(0))]);
}

#[test]
fn a_neighbour_that_has_changed_links_says_hello_again_and_gets_one() {
    let mut net = Net::line([0, 1]);
    net.run(Duration::from_secs(1));
    // Only one side has seen that the first link is gone.
    net.with(0, |router, now| router.neighbour_down(&id(1), now));
    net.with(0, |router, now| router.neighbour_up(id(1), Some(Plain::key_of(&id(1))), now));
    net.run(Duration::from_secs(1));
    let send = net.send(0, 1, "hello", Some(Duration::from_secs(5)));
    net.run(Duration::from_secs(5));
    assert!(net.take_told().contains(&(0, Told::Confirmed(send))));
    let before = net.counters(1).malformed + net.counters(0).malformed;
    assert_eq!(before, 0);
}

#[test]
fn who_takes_no_more_confirms_nothing_until_it_does() {
    let mut net = Net::line([0, 1]);
    net.run(Duration::from_secs(1));
    net.with(1, |router, _| router.set_full(true));
    let send = net.send(0, 1, "confirmed", Some(Duration::from_secs(30)));
    net.send(0, 1, "plain", None);
    net.run(Duration::from_secs(3));
    assert_eq!(net.take_told(), [delivered(1, 0, "plain")]);
    net.with(1, |router, _| router.set_full(false));
    net.run(Duration::from_secs(20));
    assert_eq!(net.take_told(), [delivered(1, 0, "confirmed"), (0, Told::Confirmed(send))]);
}

#[test]
fn what_waits_for_the_key_of_a_neighbour_goes_when_it_says_hello() {
    let mut net = Net::new();
    net.add(0);
    net.add(1);
    net.link(0, 1);
    net.send(0, 1, "early", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(1, 0, "early")]);
}

#[test]
fn fingers_are_looked_up_at_once() {
    let mut net = Net::line(0..2);
    net.run(SECOND);
    net.with(0, |router, now| router.update_finger(1, now).unwrap());
    net.with(0, |router, now| router.update_finger_table(now).unwrap());
    net.run(DELAY);
    let asked: Vec<u8> = net.notes[&1].lock().unwrap().received.iter().map(|(_, message)| message[0]).collect();
    assert_eq!(asked, [1, 1, 2]);
}

/// Two linked peers, and a third that both know, which is no closer to the second than the first is.
fn triangle() -> Net {
    let mut net = Net::line([5, 6]);
    net.add(1);
    net.link(1, 5);
    net.link(1, 6);
    net.run(SECOND);
    net.send(6, 5, "before", None);
    net.run(DELAY);
    assert_eq!(net.take_told(), [delivered(5, 6, "before")]);
    net.lose(5, 6);
    net
}

#[test]
fn a_silent_link_is_the_last_way_to_a_neighbour() {
    let mut net = triangle();
    net.send(6, 5, "around", Some(SECOND * 5));
    net.send(5, 6, "lost", None);
    net.run(SECOND * 5);
    assert!(net.take_told().contains(&delivered(5, 6, "around")));
    net.send(5, 6, "and back", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(6, 5, "and back")]);
}

#[test]
fn a_neighbour_that_begins_anew_is_answered_on_its_new_way() {
    let mut net = triangle();
    net.cut(1, 6);
    net.add(6);
    net.link(1, 6);
    net.send(6, 5, "here again", None);
    let started = net.now;
    while !net.take_told().contains(&delivered(5, 6, "here again")) {
        net.run(DELAY);
        assert!(net.now < started + SECOND);
    }
    net.send(5, 6, "welcome", None);
    net.run(DELAY * 2);
    assert_eq!(net.take_told(), [delivered(6, 5, "welcome")]);
}

#[test]
fn a_neighbour_whose_link_is_silent_may_be_reached_over_any_other() {
    let mut net = triangle();
    net.run(DELAY);
    net.send(5, 6, "lost", None);
    net.run(SECOND * 4);
    assert!(net.notes[&5].lock().unwrap().silent.contains(&id(6)));
    net.send(5, 6, "through", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(6, 5, "through")]);
}

#[test]
fn a_link_in_doubt_is_as_before_when_it_answers() {
    let mut net = Net::line([5, 6]);
    net.with(5, |router, now| router.neighbour_up(id(7), None, now));
    net.with(5, |router, now| [6, 7].map(|number| router.doubt(id(number), now)));
    // Originals do not answer, and are not asked.
    assert!(net.notes[&5].lock().unwrap().silent.iter().eq([&id(6)]));
    net.run(DELAY * 2);
    assert!(net.notes[&5].lock().unwrap().silent.is_empty());
}

#[test]
fn who_asks_for_a_key_another_way_is_answered_over_its_link_if_nothing_else_leads_to_it() {
    let mut net = Net::line([1, 5, 6]);
    net.with(5, |router, now| router.key_request(id(1), id(6), &7u64.to_be_bytes(), now));
    net.run(SECOND);
    assert_eq!((net.counters(1).no_route, net.counters(6).unexpected), (1, 1));
}
