//! Which link a datagram on a shared port is for. Pure: time is an argument.
//!
//! - A Binding request goes to the link whose user fragment it names, from wherever it comes. It teaches nothing: anybody
//!   can send one, under any address.
//! - A Binding response goes to the link that sent the request, if it comes from where the request went.
//! - DTLS goes to the link that claims the address. A link claims those that it answers or sends DTLS to, which it does
//!   only after it has checked the other side's password; and a claim is *confirmed* when the address has answered a
//!   request of ours, which nobody can who does not get what is sent there.
//!
//! So who knows no password leaves no trace, and a peer that asks under the address of another gets nothing of what is
//! for the link established there.
//!
//! Of two links to the same address only one works. Between two shared ports both ends have to mean the same one: the one
//! that is open, as long as the address answers its checks; before, the one with the larger user fragments, which both
//! ends know. So a peer that has two others call each other in its own name cannot cut them off either. When the link
//! closes, or its other end is gone, the other one has its turn. Until then it sends no DTLS, and what a client says
//! first goes to a link that made the offer: a handshake that hears of another one does not recover. It still may, if both
//! are under way before either end knows of both links; then both fail.

use core::net::SocketAddr;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::stun::{self, Kind, Transaction};

/// Requests of one link whose responses are awaited. Beyond it the oldest is forgotten.
const MAX_ASKED: usize = 128;

/// How long a response is awaited. The crate gives up earlier.
const PATIENCE: Duration = Duration::from_secs(8);

/// Addresses that one link claims. Beyond it the least recently used is given up, unconfirmed ones first.
const MAX_CLAIMED: usize = 16;

/// How long a claim counts as confirmed lately. An idle link checks its path at most ten seconds after the last time.
const FRESH: Duration = Duration::from_secs(12);

/// The longest user fragment (RFC 8839), in bytes. What is beyond does not count.
const MAX_USER: usize = 256;

/// A link on the port. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkKey(u64);

/// The routing table of one port. Its size is bounded by the number of links.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Routes {
    latest: u64,
    links: HashMap<LinkKey, LinkRoutes>,
    users: HashMap<Box<[u8]>, LinkKey>,
    asked: HashMap<Transaction, Asked>,
    claims: HashMap<SocketAddr, Vec<Claim>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct LinkRoutes {
    user: Box<[u8]>,
    /// The user fragment of the other end, once a request has named it.
    other: Box<[u8]>,
    open: bool,
    /// Whether our side made the offer: the other one is then the client of DTLS.
    offered: bool,
    /// Oldest first. A request that was sent again stands here twice.
    asked: VecDeque<(Instant, Transaction)>,
    /// Least recently used first.
    claimed: VecDeque<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    link: LinkKey,
    to: SocketAddr,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    link: LinkKey,
    /// When the address has last answered.
    confirmed: Option<Instant>,
}

/// Which claim comes before others: the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    Unconfirmed,
    Stale,
    /// Both user fragments, the larger first.
    Fresh(&'a [u8], &'a [u8]),
    Open(&'a [u8], &'a [u8]),
}

impl Routes {
    /// Adds a link with this user fragment. Of two with the same, the newer gets the requests.
    pub(super) fn open(&mut self, user: &str, offered: bool) -> LinkKey {
        self.latest += 1;
        let key = LinkKey(self.latest);
        let user: Box<[u8]> = user.as_bytes().into();
        self.users.insert(user.clone(), key);
        self.links.insert(key, LinkRoutes { user, offered, ..LinkRoutes::default() });
        key
    }

    /// A link is open.
    pub(super) fn opened(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(&key) {
            link.open = true;
        }
    }

    /// Forgets a link.
    pub(super) fn close(&mut self, key: LinkKey) {
        let Some(link) = self.links.remove(&key) else { return };
        if self.users.get(&link.user) == Some(&key) {
            self.users.remove(&link.user);
        }
        for (_, transaction) in link.asked {
            if self.asked.get(&transaction).is_some_and(|asked| asked.link == key) {
                self.asked.remove(&transaction);
            }
        }
        for address in link.claimed {
            self.disclaim(address, key);
        }
    }

    /// Learns from what a link is about to send. Returns whether it may.
    pub(super) fn sent(&mut self, now: Instant, key: LinkKey, to: SocketAddr, datagram: &[u8]) -> bool {
        match stun::classify(datagram) {
            Kind::Request(transaction, attributes) => {
                self.ask(now, key, to, transaction, stun::addressee(attributes).unwrap_or_default());
            }
            Kind::Response(_, true) => self.claim(key, to, None),
            Kind::Hello | Kind::Flow => {
                self.claim(key, to, None);
                return self.holder(now, to, false) == Some(key);
            }
            Kind::Response(_, false) | Kind::Relay | Kind::Other => {}
        }
        true
    }

    /// The link that a datagram is for.
    pub(super) fn received(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<LinkKey> {
        match stun::classify(datagram) {
            Kind::Request(_, attributes) => self.users.get(stun::addressee(attributes)?).copied(),
            Kind::Response(transaction, success) => {
                let asked = *self.asked.get(&transaction)?;
                if asked.to != from || now.saturating_duration_since(asked.at) > PATIENCE {
                    return None;
                }
                self.asked.remove(&transaction);
                if success {
                    self.claim(asked.link, from, Some(now));
                }
                Some(asked.link)
            }
            Kind::Hello => self.holder(now, from, true),
            Kind::Flow => self.holder(now, from, false),
            Kind::Relay | Kind::Other => None,
        }
    }

    /// The link that an address belongs to: for the first message of a client, if there is one, a link that expects it.
    fn holder(&self, now: Instant, address: SocketAddr, hello: bool) -> Option<LinkKey> {
        let expects = |link| hello && self.links.get(link).is_some_and(|link| link.offered);
        match self.claims.get(&address)?.as_slice() {
            [only] => Some(only.link),
            claims => {
                let best = claims.iter().max_by_key(|c| (expects(&c.link), self.rank(now, c), c.link));
                best.map(|claim| claim.link)
            }
        }
    }

    fn rank(&self, now: Instant, claim: &Claim) -> Rank<'_> {
        let (Some(at), Some(link)) = (claim.confirmed, self.links.get(&claim.link)) else { return Rank::Unconfirmed };
        let (larger, smaller) = (link.user.as_ref().max(&link.other), link.user.as_ref().min(&link.other));
        match now.saturating_duration_since(at) {
            age if age > FRESH => Rank::Stale,
            _ if link.open => Rank::Open(larger, smaller),
            _ => Rank::Fresh(larger, smaller),
        }
    }

    fn ask(&mut self, now: Instant, key: LinkKey, to: SocketAddr, transaction: Transaction, other: &[u8]) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let other = &other[..other.len().min(MAX_USER)];
        if *link.other != *other {
            link.other = other.into();
        }
        while let Some(&(at, old)) = link.asked.front()
            && (link.asked.len() >= MAX_ASKED || now.saturating_duration_since(at) > PATIENCE)
        {
            link.asked.pop_front();
            if self.asked.get(&old).is_some_and(|asked| asked.link == key && asked.at == at) {
                self.asked.remove(&old);
            }
        }
        link.asked.push_back((now, transaction));
        self.asked.insert(transaction, Asked { link: key, to, at: now });
    }

    fn claim(&mut self, key: LinkKey, address: SocketAddr, confirmed: Option<Instant>) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if confirmed.is_none() && link.claimed.back() == Some(&address) {
            return;
        }
        if let Some(at) = link.claimed.iter().position(|claimed| *claimed == address) {
            link.claimed.remove(at);
        } else if link.claimed.len() >= MAX_CLAIMED {
            let claims = &self.claims;
            let unconfirmed = |address: &SocketAddr| {
                claims.get(address).is_some_and(|claims| claims.iter().any(|c| c.link == key && c.confirmed.is_none()))
            };
            let at = link.claimed.iter().position(unconfirmed).unwrap_or(0);
            if let Some(old) = link.claimed.remove(at) {
                self.disclaim(old, key);
            }
        }
        if let Some(link) = self.links.get_mut(&key) {
            link.claimed.push_back(address);
        }
        let claims = self.claims.entry(address).or_default();
        match claims.iter_mut().find(|claim| claim.link == key) {
            Some(claim) => claim.confirmed = confirmed.or(claim.confirmed),
            None => claims.push(Claim { link: key, confirmed }),
        }
    }

    fn disclaim(&mut self, address: SocketAddr, key: LinkKey) {
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|claim| claim.link != key);
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
