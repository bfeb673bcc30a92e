use std::time::Duration;

use super::super::*;
use super::net::*;

const CONFIRM: Option<Duration> = Some(Duration::from_secs(20));

/// 1 and 2 have a link; 0 has none yet, but there are ways in.
fn joining() -> Net {
    let mut net = Net::new();
    (0..3).for_each(|number| net.add(number));
    net.link(1, 2);
    net.with(0, |router, _| router.set_joining(true));
    net.run(SECOND);
    net
}

/// What 0 sends arrives when it has a link.
fn messages_wait(net: &mut Net, text: &'static str) {
    net.send(0, 2, text, None);
    let send = net.send(0, 2, "confirmed", CONFIRM);
    net.run(SECOND * 9);
    assert_eq!(net.take_told(), []);
    net.link(0, 1);
    net.run(SECOND / 2);
    let told = net.take_told();
    assert_eq!(told, [delivered(2, 0, text), delivered(2, 0, "confirmed"), (0, Told::Confirmed(send))]);
}

#[test]
fn messages_wait_for_the_first_link() {
    let mut net = joining();
    messages_wait(&mut net, "plain");
}

#[test]
fn messages_wait_for_the_first_link_after_the_last_one_too() {
    let mut net = joining();
    net.link(0, 1);
    net.send(0, 2, "plain", None);
    net.run(SECOND);
    net.cut(0, 1);
    net.run(SECOND * 10);
    net.take_told();
    messages_wait(&mut net, "again");
}

#[test]
fn messages_wait_within_their_times() {
    let mut net = joining();
    let plain = net.send(0, 2, "plain", None);
    let send = net.send(0, 2, "confirmed", CONFIRM);
    net.run(SECOND * 10);
    assert_eq!(net.take_told(), [(0, Told::Failed(plain, SendFailure::NoRoute))]);
    net.run(SECOND * 10);
    assert_eq!(net.take_told(), [(0, Told::Failed(send, SendFailure::NoRoute))]);
    let router = &net.routers[&0];
    assert!(router.sends.is_empty() && router.sends_bytes == 0);
    net.run(SECOND * 10);
    assert!(net.routers[&0].wanted.is_empty());
    assert_eq!(net.routers[&0].timers.len(), 0);
}

#[test]
fn without_neighbours_and_ways_in_there_is_nothing_to_wait_for() {
    let mut net = joining();
    net.with(0, |router, _| router.set_joining(false));
    let sends = [net.send(0, 2, "plain", None), net.send(0, 2, "confirmed", CONFIRM)];
    assert_eq!(net.take_told(), sends.map(|send| (0, Told::Failed(send, SendFailure::NoRoute))));
}

#[test]
fn what_others_say_counts_when_the_table_has_settled() {
    let mut net = joining();
    net.cut(1, 2);
    net.link(0, 1);
    net.run(SECOND / 10);
    net.send(0, 2, "plain", None);
    let nobody = net.send(0, 9, "text", CONFIRM);
    net.run(SECOND * 2);
    assert_eq!(net.take_told(), []);
    // Only now there is a way.
    net.link(1, 2);
    net.run(SECOND * 3);
    assert_eq!(net.take_told(), [delivered(2, 0, "plain"), (0, Told::Failed(nobody, SendFailure::NoRoute))]);
    let nobody = net.send(0, 9, "text", CONFIRM);
    net.run(SECOND * 2);
    assert_eq!(net.take_told(), [(0, Told::Failed(nobody, SendFailure::NoRoute))]);
}
