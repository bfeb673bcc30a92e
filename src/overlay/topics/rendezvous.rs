//! How members of a topic find each other: at some points of the key space that follow from its id. The peer that is closest to a
//! point lists members.
//!
//! ```text
//! member                                                    whoever is closest to a point
//!   | find: token                   (open, routed to the point)  ->  |
//!   |  <-  members: token, some of them                    (sealed)  |
//!   | register                                          (sealed)  ->  |
//! ```
//!
//! There are three points: when a newcomer is now the closest to one and knows nothing yet, or somebody there does not behave, the
//! others still tell. Who is itself the closest to a point asks who is next: where few peers are it may be so for all points.
//!
//! `find` is not sealed, as nobody knows for whom, so its sender is not proven, and it changes nothing. The token shows that the answer
//! comes from somebody on the way. `register` is proven, and so nobody is listed who has not asked for it. The list forgets those
//! that do not come again. What it says is not proven: those named are asked, and are no members unless they agree.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

use super::TopicId;
use super::wire::Packet;
use crate::node::Budget;
use crate::overlay::OverlayId;

/// Keeps these hashes apart from all others of an id.
const DOMAIN: &[u8] = b"pmesh topic point 1\0";
/// At how many points members are listed.
const POINTS: usize = 3;
/// How long a registration holds.
const LISTED_FOR: Duration = Duration::from_secs(300);
/// How often a member registers.
const REGISTER_EVERY: Duration = Duration::from_secs(120);
/// How soon a member that has no neighbour looks again. The time doubles up to [`REGISTER_EVERY`].
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Topics that are listed. Further ones are not, until some expire.
const MAX_TOPICS: usize = 1024;
/// Members listed of a topic. A further one takes the place of any of them.
const MAX_MEMBERS: usize = 64;
/// Topics in which a peer is listed. It is not in further ones, until some expire.
const MAX_TOPICS_OF_PEER: usize = 64;
/// Members named in an answer.
const NAMED: usize = 8;
/// Answers given. Who asks is not proven, so the budget is one for all.
const ANSWERS: Budget = Budget::new(256, 64);

/// Both sides of it: looks for members of our topics, and lists those of others'.
#[derive(Debug)]
pub(super) struct Rendezvous {
    ours: BTreeMap<TopicId, Search>,
    listed: BTreeMap<TopicId, BTreeMap<OverlayId, Instant>>,
    /// In how many topics a peer is listed.
    listings: HashMap<OverlayId, usize>,
    answers: Budget,
    rng: StdRng,
    pub(super) acts: VecDeque<Found>,
}

#[derive(Debug)]
struct Search {
    due: Instant,
    alone: bool,
    again_after: Duration,
    /// What was asked, of each point.
    tokens: [Option<u64>; POINTS],
    /// Where we are registered, for each point.
    at: [Option<OverlayId>; POINTS],
}

/// What the rendezvous wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Send this to whoever is closest to this point.
    Route(OverlayId, TopicId, Packet),
    /// Send this to whoever is closest to this point, besides us.
    RouteBeyond(OverlayId, TopicId, Packet),
    /// Send this to a peer.
    Send(OverlayId, TopicId, Packet),
    /// These are said to be members.
    Members(TopicId, Vec<OverlayId>),
}

impl Rendezvous {
    pub(super) fn new(seed: u64) -> Self {
        let (ours, listed, listings, acts) = Default::default();
        Self { ours, listed, listings, answers: ANSWERS, rng: StdRng::seed_from_u64(seed), acts }
    }

    pub(super) fn join(&mut self, topic: TopicId, now: Instant) {
        let (again_after, tokens, at) = (LOOK_AGAIN_AFTER, [None; POINTS], [None; POINTS]);
        self.ours.entry(topic).or_insert(Search { due: now, alone: true, again_after, tokens, at });
        self.handle_timeout(now);
    }

    pub(super) fn leave(&mut self, topic: &TopicId) {
        let left = self.ours.remove(topic);
        for at in left.into_iter().flat_map(|search| search.at).flatten() {
            self.acts.push_back(Found::Send(at, *topic, Packet::Withdraw));
        }
    }

    /// Whether we have no neighbour in a topic of ours.
    pub(super) fn alone(&mut self, topic: &TopicId, alone: bool, now: Instant) {
        let Some(search) = self.ours.get_mut(topic).filter(|search| search.alone != alone) else { return };
        (search.alone, search.again_after) = (alone, LOOK_AGAIN_AFTER);
        let after = if alone { LOOK_AGAIN_AFTER } else { REGISTER_EVERY.mul_f64(self.rng.random_range(0.75..1.0)) };
        // Who has joined through another member still has to be listed.
        if alone || search.at.iter().any(Option::is_some) {
            search.due = now + after;
        }
    }

    /// Looks at once for members of topics in which we have no neighbour.
    pub(super) fn look_again(&mut self, now: Instant) {
        for search in self.ours.values_mut().filter(|search| search.alone) {
            (search.due, search.again_after) = (now, LOOK_AGAIN_AFTER);
        }
        self.handle_timeout(now);
    }

    /// A message that was routed to us, as we are closest. Who has sent it is only what it says.
    pub(super) fn receive_closest(&mut self, from: OverlayId, topic: TopicId, packet: &Packet, now: Instant) -> bool {
        let Packet::Find { token } = packet else { return false };
        if self.answers.take(now) {
            let listed = self.listed.get(&topic).into_iter().flatten();
            let present = listed.filter(|(peer, until)| **peer != from && **until > now).map(|(peer, _)| *peer);
            let members = present.sample(&mut self.rng, NAMED);
            self.acts.push_back(Found::Send(from, topic, Packet::Members { token: *token, members }));
        }
        true
    }

    /// Our own question: nobody is closer to that point than we are. So we are listed here, and ask who was the closest before us.
    pub(super) fn came_back(&mut self, me: OverlayId, topic: TopicId, token: u64, now: Instant) -> bool {
        let Some(number) = self.ours.get(&topic).and_then(|search| search.asked(token)) else { return false };
        self.list(me, topic, now);
        self.acts.push_back(Found::RouteBeyond(point(&topic, number), topic, Packet::Find { token }));
        true
    }

    /// A message of a peer, which is proven. Returns whether it is of the rendezvous and was expected.
    pub(super) fn receive(&mut self, from: OverlayId, topic: TopicId, packet: Packet, now: Instant) -> bool {
        match packet {
            Packet::Members { token, members } => return self.found(from, topic, token, members, now),
            Packet::Register => self.list(from, topic, now),
            Packet::Withdraw => self.strike(&topic, &from),
            _ => return false,
        }
        true
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for (topic, search) in self.ours.iter_mut().filter(|(_, search)| search.due <= now) {
            for (number, asked) in search.tokens.iter_mut().enumerate() {
                let token = self.rng.random();
                *asked = Some(token);
                self.acts.push_back(Found::Route(point(topic, number), *topic, Packet::Find { token }));
            }
            search.due = now + ANSWER_WITHIN.max(search.again_after);
            search.again_after = (search.again_after * 2).min(REGISTER_EVERY);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.ours.values().map(|search| search.due).min()
    }

    fn found(&mut self, from: OverlayId, topic: TopicId, token: u64, members: Vec<OverlayId>, now: Instant) -> bool {
        let Some(search) = self.ours.get_mut(&topic) else { return false };
        let Some(number) = search.asked(token) else { return false };
        (search.tokens[number], search.at[number]) = (None, Some(from));
        let after = if search.alone { search.again_after } else { REGISTER_EVERY };
        search.due = now + after.mul_f64(self.rng.random_range(0.75..1.0));
        self.acts.push_back(Found::Send(from, topic, Packet::Register));
        if !members.is_empty() {
            self.acts.push_back(Found::Members(topic, members));
        }
        true
    }

    fn list(&mut self, peer: OverlayId, topic: TopicId, now: Instant) {
        self.expire(&topic, now);
        let full = self.listed.len() >= MAX_TOPICS;
        if full && !self.listed.contains_key(&topic) {
            for topic in self.listed.keys().copied().collect::<Vec<_>>() {
                self.expire(&topic, now);
            }
        }
        let new_topic = !self.listed.contains_key(&topic);
        let new_member = self.listed.get(&topic).is_none_or(|members| !members.contains_key(&peer));
        if (new_topic && self.listed.len() >= MAX_TOPICS)
            || (new_member && self.listings.get(&peer).is_some_and(|count| *count >= MAX_TOPICS_OF_PEER))
        {
            return;
        }
        let members = self.listed.entry(topic).or_default();
        members.insert(peer, now + LISTED_FOR);
        let out = (members.len() > MAX_MEMBERS)
            .then(|| members.keys().filter(|other| **other != peer).choose(&mut self.rng).copied())
            .flatten();
        if new_member {
            *self.listings.entry(peer).or_default() += 1;
        }
        if let Some(out) = out {
            self.strike(&topic, &out);
        }
    }

    fn expire(&mut self, topic: &TopicId, now: Instant) {
        let members = self.listed.get(topic).into_iter().flatten();
        let over: Vec<_> = members.filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.strike(topic, &peer);
        }
    }

    fn strike(&mut self, topic: &TopicId, peer: &OverlayId) {
        let Some(members) = self.listed.get_mut(topic) else { return };
        if members.remove(peer).is_none() {
            return;
        }
        if members.is_empty() {
            self.listed.remove(topic);
        }
        if let Some(count) = self.listings.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.listings.remove(peer);
            }
        }
    }
}

impl Search {
    /// Of which point this was asked.
    fn asked(&self, token: u64) -> Option<usize> {
        self.tokens.iter().position(|asked| *asked == Some(token))
    }
}

/// Where members are listed.
fn point(topic: &TopicId, number: usize) -> OverlayId {
    let digest = Sha256::new().chain_update(DOMAIN).chain_update(topic.id().as_bytes()).chain_update([number as u8]);
    let mut id = [0; OverlayId::BYTES];
    id.copy_from_slice(&digest.finalize()[..OverlayId::BYTES]);
    OverlayId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> OverlayId {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        OverlayId::from_bytes(bytes)
    }

    fn topic(number: u32) -> TopicId {
        TopicId::from(id(number))
    }

    fn acts(rendezvous: &mut Rendezvous) -> Vec<Found> {
        rendezvous.acts.drain(..).collect()
    }

    /// One search of a member at a server, as if the messages were delivered.
    fn look(member: &mut Rendezvous, me: OverlayId, server: &mut Rendezvous, now: Instant) -> Vec<OverlayId> {
        let mut found = Vec::new();
        let mut to_server = acts(member);
        while let Some(act) = to_server.pop() {
            match act {
                Found::RouteBeyond(..) => panic!("nobody is closer than the server"),
                Found::Route(_, topic, packet) => assert!(server.receive_closest(me, topic, &packet, now)),
                Found::Send(_, topic, packet) => assert!(server.receive(me, topic, packet, now)),
                Found::Members(_, members) => found.extend(members),
            }
            for act in acts(server) {
                let Found::Send(to, topic, packet) = act else { panic!("{act:?}") };
                assert_eq!(to, me);
                assert!(member.receive(id(0), topic, packet, now));
            }
            to_server.extend(acts(member));
        }
        found
    }

    #[test]
    fn members_find_those_who_came_before() {
        let now = Instant::now();
        let mut server = Rendezvous::new(1);
        let (mut first, mut second) = (Rendezvous::new(2), Rendezvous::new(3));
        first.join(topic(7), now);
        assert_eq!(look(&mut first, id(1), &mut server, now), []);
        second.join(topic(7), now);
        assert_eq!(look(&mut second, id(2), &mut server, now), [id(1); POINTS]);
        // The first has no neighbour, so it soon looks again.
        let soon = first.next_timeout().unwrap();
        assert!(soon <= now + LOOK_AGAIN_AFTER * 2, "{:?}", soon - now);
        first.handle_timeout(soon);
        assert_eq!(look(&mut first, id(1), &mut server, soon), [id(2); POINTS]);
        first.alone(&topic(7), false, soon);
        assert!(first.next_timeout().unwrap() > soon + REGISTER_EVERY / 2);
        second.leave(&topic(7));
        look(&mut second, id(2), &mut server, soon);
        assert_eq!(server.listed[&topic(7)].len(), 1);
        server.expire(&topic(7), soon + LISTED_FOR);
        assert!(server.listed.is_empty() && server.listings.is_empty());
    }

    #[test]
    fn answers_nobody_asked_for_are_refused() {
        let now = Instant::now();
        let mut member = Rendezvous::new(2);
        member.join(topic(7), now);
        let asked = acts(&mut member);
        assert_eq!(asked.len(), POINTS);
        let Found::Route(_, _, Packet::Find { token }) = asked[0] else { panic!("no search") };
        let answer = |token| Packet::Members { token, members: vec![id(9)] };
        assert!(!member.receive(id(5), topic(7), answer(token ^ 1), now));
        assert!(!member.receive(id(5), topic(8), answer(token), now));
        assert_eq!(acts(&mut member), []);
        assert!(member.receive(id(5), topic(7), answer(token), now));
        assert!(!member.receive(id(5), topic(7), answer(token), now), "twice");
        let register = Found::Send(id(5), topic(7), Packet::Register);
        assert_eq!(acts(&mut member), [register, Found::Members(topic(7), vec![id(9)])]);
    }

    #[test]
    fn nobody_is_listed_by_another() {
        let now = Instant::now();
        let mut server = Rendezvous::new(1);
        assert!(server.receive_closest(id(1), topic(7), &Packet::Find { token: 1 }, now));
        assert!(!server.receive_closest(id(1), topic(7), &Packet::Register, now));
        assert!(server.listed.is_empty());
    }

    #[test]
    fn who_is_closest_itself_asks_who_was_before() {
        let now = Instant::now();
        let mut member = Rendezvous::new(2);
        member.join(topic(7), now);
        let Found::Route(to, _, Packet::Find { token }) = acts(&mut member)[0] else { panic!("no search") };
        assert!(!member.came_back(id(1), topic(7), token ^ 1, now));
        assert!(member.came_back(id(1), topic(7), token, now));
        assert_eq!(acts(&mut member), [Found::RouteBeyond(to, topic(7), Packet::Find { token })]);
        // It lists itself, and the other's answer still counts.
        assert!(member.receive_closest(id(2), topic(7), &Packet::Find { token: 5 }, now));
        let listed = Packet::Members { token: 5, members: vec![id(1)] };
        assert_eq!(acts(&mut member), [Found::Send(id(2), topic(7), listed)]);
        assert!(member.receive(id(3), topic(7), Packet::Members { token, members: vec![] }, now));
    }

    #[test]
    fn without_an_answer_it_asks_less_and_less() {
        let mut now = Instant::now();
        let mut member = Rendezvous::new(2);
        member.join(topic(7), now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let next = member.next_timeout().unwrap();
            waits.push(next - now);
            now = next;
            member.handle_timeout(now);
        }
        assert!(waits.is_sorted() && waits[0] == ANSWER_WITHIN && waits[9] == REGISTER_EVERY, "{waits:?}");
    }

    #[test]
    fn who_is_alone_looks_again_when_others_come_into_reach() {
        let now = Instant::now();
        let mut member = Rendezvous::new(2);
        member.join(topic(7), now);
        member.join(topic(8), now);
        member.alone(&topic(8), false, now);
        acts(&mut member);
        member.look_again(now);
        let found = acts(&mut member);
        assert_eq!(found.len(), POINTS);
        assert!(found.iter().all(|act| matches!(act, Found::Route(_, it, _) if *it == topic(7))), "{found:?}");
    }

    #[test]
    fn the_lists_are_bounded() {
        let now = Instant::now();
        let mut server = Rendezvous::new(1);
        for peer in 0..3_000 {
            server.receive(id(peer), topic(7), Packet::Register, now);
            server.receive(id(1), topic(peer), Packet::Register, now);
        }
        assert_eq!(server.listed[&topic(7)].len(), MAX_MEMBERS);
        assert!(server.listings[&id(1)] <= MAX_TOPICS_OF_PEER);
        for number in 0..MAX_TOPICS as u32 + 100 {
            server.receive(id(number), topic(number), Packet::Register, now);
        }
        assert_eq!(server.listed.len(), MAX_TOPICS);
        let listings: usize = server.listed.values().map(BTreeMap::len).sum();
        assert_eq!(server.listings.values().sum::<usize>(), listings);
        server.receive(id(3), topic(20_000), Packet::Register, now + LISTED_FOR);
        assert_eq!(server.listed.len(), 1, "what is over makes room");
        for _ in 0..1000 {
            server.receive_closest(id(1), topic(1), &Packet::Find { token: 1 }, now);
        }
        assert_eq!(server.acts.len(), 256);
    }
}
