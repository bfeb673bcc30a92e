use proptest::prelude::*;

use super::super::stun::tests::{HELLO, attribute, message, request, success};
use super::*;

const DTLS: &[u8] = &[23, 254, 253, 0];

fn address(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], number).into()
}

fn id(number: u8) -> Transaction {
    [number; 12]
}

impl Routes {
    fn check(&self) {
        let links = self.links.len();
        assert!(self.users.len() <= links);
        assert!(self.asked.len() <= links * MAX_ASKED);
        assert!(self.claims.values().map(Vec::len).sum::<usize>() <= links * MAX_CLAIMED);
        for (key, link) in &self.links {
            assert!(link.asked.len() <= MAX_ASKED && link.claimed.len() <= MAX_CLAIMED);
            for address in &link.claimed {
                assert_eq!(self.claims[address].iter().filter(|claim| claim.link == *key).count(), 1);
            }
        }
        for (transaction, asked) in &self.asked {
            assert!(self.links[&asked.link].asked.contains(&(asked.at, *transaction)));
        }
        for (address, claims) in &self.claims {
            assert!(!claims.is_empty());
            assert!(claims.iter().all(|claim| self.links[&claim.link].claimed.contains(address)));
        }
        assert!(self.users.values().all(|key| self.links.contains_key(key)));
    }

    /// The link asks, and the address answers.
    fn confirm(&mut self, now: Instant, link: LinkKey, at: SocketAddr) {
        let other = String::from_utf8_lossy(&self.links[&link].other).into_owned();
        self.sent(now, link, at, &request(id(99), &format!("{other}:x")));
        assert_eq!(self.received(now, at, &success(id(99))), Some(link));
    }

    fn confirm_as(&mut self, now: Instant, link: LinkKey, username: &str) {
        self.sent(now, link, address(1), &request(id(98), username));
        self.confirm(now, link, address(1));
    }
}

#[test]
fn a_request_goes_to_whom_it_names_and_teaches_nothing() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let (a, b) = (routes.open("a", true), routes.open("b", true));
    let before = routes.clone();
    assert_eq!(routes.received(now, address(1), &request(id(1), "a:x")), Some(a));
    assert_eq!(routes.received(now, address(1), &request(id(2), "b:x")), Some(b));
    assert_eq!(routes.received(now, address(1), &request(id(3), "c:x")), None);
    assert_eq!(routes.received(now, address(1), &request(id(3), ":a")), None);
    assert_eq!(routes.received(now, address(1), &message(1, id(3), &attribute(8, b"a:x"))), None);
    assert_eq!(routes.received(now, address(1), DTLS), None);
    assert_eq!(routes, before);
}

#[test]
fn a_response_goes_to_who_asked_once_in_time_and_from_there_only() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let (a, b) = (routes.open("a", true), routes.open("b", true));
    routes.sent(now, a, address(1), &request(id(1), "x:a"));
    routes.sent(now, b, address(1), &request(id(2), "x:b"));
    assert_eq!(routes.received(now, address(2), &success(id(1))), None, "from elsewhere");
    assert_eq!(routes.received(now, address(1), &success(id(3))), None, "guessed");
    assert_eq!(routes.received(now, address(1), DTLS), None);
    assert_eq!(routes.received(now, address(1), &success(id(2))), Some(b));
    assert_eq!(routes.received(now, address(1), &success(id(1))), Some(a));
    assert_eq!(routes.received(now, address(1), &success(id(1))), None, "again");
    routes.sent(now, a, address(1), &request(id(4), "x:a"));
    let late = now + PATIENCE + Duration::from_millis(1);
    assert_eq!(routes.received(late, address(1), &success(id(4))), None, "late");
    routes.sent(late, a, address(1), &request(id(5), "x:a"));
    assert_eq!(routes.asked.len(), 1, "what is late is forgotten");
    routes.check();
}

#[test]
fn an_error_is_delivered_but_proves_nothing() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let a = routes.open("a", true);
    routes.sent(now, a, address(1), &request(id(1), "x:a"));
    assert_eq!(routes.received(now, address(1), &message(0x111, id(1), &[])), Some(a));
    assert_eq!(routes.received(now, address(1), DTLS), None);
}

#[test]
fn a_request_that_is_repeated_is_awaited_from_then_on() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let a = routes.open("a", true);
    routes.sent(now, a, address(1), &request(id(1), "x:a"));
    let later = now + PATIENCE;
    routes.sent(later, a, address(1), &request(id(1), "x:a"));
    let latest = later + PATIENCE;
    routes.sent(latest, a, address(1), &request(id(2), "x:a"));
    routes.check();
    assert_eq!(routes.received(latest, address(1), &success(id(1))), Some(a));
}

#[test]
fn dtls_goes_to_the_link_that_has_answered_there() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let (a, b) = (routes.open("a", true), routes.open("b", true));
    routes.sent(now, a, address(1), &success(id(1)));
    routes.sent(now, b, address(2), DTLS);
    assert_eq!(routes.received(now, address(1), DTLS), Some(a));
    assert_eq!(routes.received(now, address(1), &message(0x11, id(1), &[])), Some(a), "an indication");
    assert_eq!(routes.received(now, address(2), DTLS), Some(b));
    assert_eq!(routes.received(now, address(3), DTLS), None);
}

#[test]
fn a_spoofed_address_takes_nothing_from_an_established_link() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let victim = routes.open("victim", true);
    routes.confirm(now, victim, address(1));
    // A peer that knows the password of its own link names the victim's address as its source.
    let attacker = routes.open("attacker", true);
    assert_eq!(routes.received(now, address(1), &request(id(1), "attacker:x")), Some(attacker));
    routes.sent(now, attacker, address(1), &success(id(1)));
    routes.sent(now, attacker, address(1), &request(id(2), "x:attacker"));
    assert_eq!(routes.received(now, address(1), DTLS), Some(victim));
    assert_eq!(routes.received(now, address(1), &message(0x111, id(2), &[])), Some(attacker));
    assert_eq!(routes.received(now, address(1), DTLS), Some(victim));
    // Neither does who comes first keep out who is really there.
    routes.sent(now, attacker, address(2), &success(id(3)));
    routes.confirm(now, victim, address(2));
    assert_eq!(routes.received(now, address(2), DTLS), Some(victim));
}

/// The tables of two ports, and two links between them that are confirmed at both ends in the order that is given.
fn crossed(now: Instant, there_first: bool) -> [(Routes, LinkKey, LinkKey); 2] {
    let (mut here, mut there) = (Routes::default(), Routes::default());
    let (x, y) = (here.open("x1", true), here.open("y1", false));
    let (other_y, other_x) = (there.open("y2", true), there.open("x2", false));
    here.confirm_as(now, x, "x2:x1");
    here.confirm_as(now, y, "y2:y1");
    let mut order = [(other_y, "y1:y2"), (other_x, "x1:x2")];
    if there_first {
        order.reverse();
    }
    for (link, username) in order {
        there.confirm_as(now, link, username);
    }
    [(here, x, y), (there, other_x, other_y)]
}

#[test]
fn both_ends_choose_the_same_of_two_links_in_whatever_order_they_came() {
    let now = Instant::now();
    for there_first in [false, true] {
        for (mut routes, x, y) in crossed(now, there_first) {
            assert_eq!(routes.received(now, address(1), DTLS), Some(y));
            routes.close(y);
            assert_eq!(routes.received(now, address(1), DTLS), Some(x), "now it has its turn");
            routes.close(x);
            routes.check();
            assert_eq!(routes, Routes { latest: 2, ..Routes::default() }, "nothing is left");
        }
    }
}

#[test]
fn a_link_that_is_open_keeps_its_address_as_long_as_it_is_answered() {
    let start = Instant::now();
    for (mut routes, x, y) in crossed(start, false) {
        routes.opened(x);
        assert_eq!(routes.received(start, address(1), DTLS), Some(x));
        let later = start + FRESH;
        routes.confirm(later, y, address(1));
        assert_eq!(routes.received(later, address(1), DTLS), Some(x));
        // The other end has started anew under its address: it answers only what it knows.
        let late = later + Duration::from_millis(1);
        assert_eq!(routes.received(late, address(1), DTLS), Some(y));
        routes.opened(y);
        routes.confirm(late, x, address(1));
        assert_eq!(routes.received(late, address(1), DTLS), Some(y), "both are open: the same at both ends");
    }
}

#[test]
fn of_two_handshakes_each_gets_its_beginning_and_one_goes_on() {
    let now = Instant::now();
    let [(mut here, x, y), (mut there, other_x, other_y)] = crossed(now, false);
    assert_eq!(here.received(now, address(1), HELLO), Some(x), "its other end is the client");
    assert_eq!(there.received(now, address(1), HELLO), Some(other_y));
    for (routes, x, y) in [(&mut here, x, y), (&mut there, other_x, other_y)] {
        assert!(routes.sent(now, y, address(1), HELLO) && routes.sent(now, y, address(1), DTLS));
        assert!(!routes.sent(now, x, address(1), HELLO) && !routes.sent(now, x, address(1), DTLS));
        assert!(routes.sent(now, x, address(1), &request(id(1), "x2:x1")));
        assert!(routes.sent(now, x, address(2), DTLS), "elsewhere");
        routes.opened(x);
        assert!(routes.sent(now, x, address(1), DTLS));
    }
    let mut alone = Routes::default();
    let a = alone.open("a", false);
    alone.confirm(now, a, address(1));
    assert_eq!(alone.received(now, address(1), HELLO), Some(a), "whatever it expects");
}

/// Somebody with a connection to each of two introduces them to each other in its own name, with credentials of
/// their own: they really check each other.
#[test]
fn who_brings_two_together_in_its_own_name_takes_nothing_from_their_link() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let genuine = routes.open("a", true);
    routes.confirm_as(now, genuine, "b:a");
    routes.opened(genuine);
    let made = routes.open("z", true);
    routes.confirm_as(now + Duration::from_secs(1), made, "zz:z");
    assert_eq!(routes.received(now + FRESH, address(1), DTLS), Some(genuine));
}

#[test]
fn a_peer_whose_address_changes_is_found_again() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let a = routes.open("a", true);
    routes.confirm(now, a, address(1));
    assert_eq!(routes.received(now, address(2), DTLS), None);
    assert_eq!(routes.received(now, address(2), &request(id(1), "a:x")), Some(a));
    routes.sent(now, a, address(2), &success(id(1)));
    assert_eq!(routes.received(now, address(2), DTLS), Some(a));
}

#[test]
fn a_full_table_gives_up_what_is_unconfirmed_and_long_unused() {
    let (mut routes, now) = (Routes::default(), Instant::now());
    let a = routes.open("a", true);
    routes.sent(now, a, address(1), &success(id(1)));
    routes.confirm(now, a, address(2));
    for number in 3..1000 {
        routes.sent(now, a, address(number), &success(id(1)));
        routes.sent(now, a, address(number), &request([(number % 256) as u8; 12], "x:a"));
        routes.check();
    }
    assert_eq!(routes.received(now, address(1), DTLS), None);
    assert_eq!(routes.received(now, address(2), DTLS), Some(a));
    assert_eq!(routes.received(now, address(999), DTLS), Some(a));
    for number in 1000..1100 {
        routes.confirm(now, a, address(number));
        routes.sent(now, a, address(2), DTLS);
    }
    assert_eq!(routes.received(now, address(2), DTLS), Some(a), "in use");
    assert_eq!(routes.received(now, address(1000), DTLS), None);
    routes.check();
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    Close(u64),
    Sent(u64, u16, Vec<u8>),
    Received(u16, Vec<u8>),
    Wait(u64),
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..8u8, 0..4u8).prop_map(|(number, user)| request(id(number), &format!("{user}:x"))),
        (0..8u8).prop_map(|number| success(id(number))),
        (0..8u8).prop_map(|number| message(0x111, id(number), &[])),
        Just(DTLS.to_vec()),
        Just(HELLO.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..4u8).prop_map(Step::Open),
        1 => (0..12u64).prop_map(Step::Close),
        6 => (0..12u64, 0..40u16, datagram()).prop_map(|(link, to, datagram)| Step::Sent(link, to, datagram)),
        6 => (0..40u16, datagram()).prop_map(|(from, datagram)| Step::Received(from, datagram)),
        1 => (0..10u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_table_stays_whole(steps in proptest::collection::vec(step(), 0..100)) {
        let (mut routes, mut now) = (Routes::default(), Instant::now());
        for step in steps {
            match step {
                Step::Open(user) => {
                    routes.open(&user.to_string(), user.is_multiple_of(2));
                }
                Step::Close(link) => routes.close(LinkKey(link)),
                Step::Sent(link, to, datagram) => {
                    routes.sent(now, LinkKey(link), address(to), &datagram);
                }
                Step::Received(from, datagram) => {
                    let before = routes.clone();
                    let to = routes.received(now, address(from), &datagram);
                    prop_assert!(to.is_none_or(|link| routes.links.contains_key(&link)));
                    let answers = matches!(stun::classify(&datagram), Kind::Response(..)) && to.is_some();
                    prop_assert!(answers || routes == before, "only the answer to a request of ours is learned from");
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            routes.check();
        }
        for link in 0..=routes.latest {
            routes.close(LinkKey(link));
        }
        prop_assert_eq!(routes.claims.len() + routes.asked.len() + routes.users.len(), 0);
    }
}
