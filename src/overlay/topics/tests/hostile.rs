//! What others may do wrong, by mistake or on purpose.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::message::{Message, MessageId};
use super::super::wire::{MAX_ANNOUNCED, MAX_IDS, Packet};
use super::super::{BroadcastRefused, MAX_MESSAGE_BYTES, Output, TopicId, Topics, TopicsConfig};
use super::sim::{identity, topics};
use crate::overlay::OverlayId;

/// A member, and what it has said since it was asked last.
struct Member {
    topics: Topics,
    topic: TopicId,
    now: Instant,
}

fn id(number: usize) -> OverlayId {
    OverlayId::of(&identity(number).peer_id())
}

impl Member {
    fn new() -> Self {
        Self::with(TopicsConfig::default())
    }

    fn with(config: TopicsConfig) -> Self {
        let (mut topics, topic, now) = (topics(0, &config), TopicId::of("topic"), Instant::now());
        topics.join(topic, &[], now).unwrap();
        let mut member = Self { topics, topic, now };
        member.outputs();
        member
    }

    /// Somebody says this. Returns what comes of it.
    fn hear(&mut self, from: usize, packet: &Packet) -> Vec<Output> {
        self.topics.receive(id(from), packet.encode(&self.topic), self.now);
        self.outputs()
    }

    fn gossip(&mut self, from: usize, message: Bytes) -> Vec<Output> {
        self.hear(from, &Packet::Gossip { hops: 0, message })
    }

    fn message(&self, origin: usize, number: u64, body: &[u8]) -> Bytes {
        Message::sign(&identity(origin), &self.topic, number, body)
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.topics.poll_output()).collect()
    }

    fn neighbours(&self) -> Vec<OverlayId> {
        self.topics.neighbours(&self.topic).copied().collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        while let Some(at) = self.topics.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.topics.handle_timeout(at);
            outputs.extend(self.outputs());
        }
        self.now = end;
        outputs
    }
}

fn delivered(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Deliver { .. })).count()
}

/// The packets in it, and for whom they are.
fn packets(outputs: &[Output]) -> Vec<(OverlayId, Packet)> {
    let packet = |output: &Output| match output {
        Output::Send { to, bytes } => Some((*to, Packet::decode(bytes.clone()).unwrap().1)),
        _ => None,
    };
    outputs.iter().filter_map(packet).collect()
}

#[test]
fn who_forges_is_no_neighbour_any_more() {
    let mut member = Member::new();
    member.hear(1, &Packet::Join);
    member.hear(2, &Packet::Join);
    let mut message = member.message(3, 1, b"words").to_vec();
    *message.last_mut().unwrap() ^= 1;
    let outputs = member.gossip(1, message.into());
    assert_eq!(delivered(&outputs), 0);
    assert!(outputs.contains(&Output::NeighbourDown { topic: member.topic, peer: id(1) }), "{outputs:?}");
    assert_eq!(member.neighbours(), [id(2)]);
    assert_eq!(member.topics.counters().forged, 1);
    // In the name of another, with its own key.
    let mut message = member.message(2, 1, b"words").to_vec();
    message[..32].copy_from_slice(identity(3).peer_id().as_bytes());
    assert_eq!(delivered(&member.gossip(2, message.into())), 0);
    // Of another topic.
    let message = Message::sign(&identity(3), &TopicId::of("another"), 1, b"words");
    assert_eq!(delivered(&member.gossip(4, message)), 0);
    assert_eq!(member.topics.counters().forged, 3);
}

#[test]
fn a_message_is_delivered_once_however_late_it_is_brought_again() {
    let config = TopicsConfig::default();
    let mut member = Member::new();
    let message = member.message(3, 7, b"words");
    assert_eq!(delivered(&member.gossip(1, message.clone())), 1);
    for _ in 0..10 {
        assert_eq!(delivered(&member.gossip(1, message.clone())), 0);
        member.wait(config.remember_for / 2);
    }
    assert_eq!(delivered(&member.gossip(2, member.message(3, 8, b"words"))), 1, "the next one");
    let counters = member.topics.counters();
    assert_eq!(counters.duplicates + counters.old, 10);
    assert!(counters.old > 0);
}

#[test]
fn our_own_messages_are_not_delivered_to_us() {
    let mut member = Member::new();
    assert_eq!(delivered(&member.gossip(1, member.message(0, 7, b"of an earlier run"))), 0);
}

#[test]
fn a_flood_of_one_origin_is_held_back_and_the_others_are_not() {
    let mut member = Member::new();
    let rate = TopicsConfig::default().origin_rate;
    member.hear(1, &Packet::Join);
    let mut taken = 0;
    for number in 1..=4000 {
        taken += delivered(&member.gossip(1, member.message(9, number, b"flood")));
    }
    assert_eq!(taken as u32, 2 * rate.messages * rate.burst_seconds);
    assert_eq!(delivered(&member.gossip(1, member.message(8, 1, b"words"))), 1);
    member.wait(Duration::from_secs(1));
    let mut taken = 0;
    for number in 4001..=5000 {
        taken += delivered(&member.gossip(1, member.message(9, number, b"flood")));
    }
    assert_eq!(taken as u32, rate.messages);
}

#[test]
fn a_flood_of_one_peer_is_held_back() {
    let mut member = Member::new();
    let rate = TopicsConfig::default().peer_rate;
    let budget = u64::from(rate.messages * rate.burst_seconds);
    for _ in 0..budget + 5000 {
        member.topics.receive(id(1), Bytes::from_static(b"junk"), member.now);
    }
    assert_eq!(member.topics.counters().malformed, budget);
    assert_eq!(member.topics.counters().over_budget, 5000);
    assert!(!member.hear(2, &Packet::Join).is_empty(), "others are heard");
}

#[test]
fn what_we_send_is_within_what_others_take() {
    let mut member = Member::new();
    let topic = member.topic;
    let (burst, now) = (TopicsConfig::default().origin_rate, member.now);
    for _ in 0..burst.messages * burst.burst_seconds {
        member.topics.broadcast(&topic, b"words", now).unwrap();
    }
    assert_eq!(member.topics.broadcast(&topic, b"words", now), Err(BroadcastRefused::TooFast));
    let later = now + Duration::from_secs(20);
    let (most, more) = (vec![0; MAX_MESSAGE_BYTES], vec![0; MAX_MESSAGE_BYTES + 1]);
    assert_eq!(member.topics.broadcast(&topic, &more, later), Err(BroadcastRefused::TooLarge));
    assert_eq!(member.topics.broadcast(&topic, &most, later), Ok(()));
    assert_eq!(member.topics.broadcast(&TopicId::of("other"), b"", later), Err(BroadcastRefused::NotJoined));
}

#[test]
fn announcements_of_nothing_are_asked_for_and_forgotten() {
    let mut member = Member::new();
    member.hear(1, &Packet::Join);
    member.hear(2, &Packet::Join);
    for round in 0..100u8 {
        let some = (0..MAX_ANNOUNCED).map(|at| (MessageId([(at % 256) as u8 ^ round; 16]), 0)).collect();
        assert_eq!(packets(&member.hear(1, &Packet::IHave(some))), []);
    }
    // Those of others are heard all the same.
    let real = member.message(3, 1, b"words");
    let name = MessageId::of(&member.topic, &real);
    member.hear(2, &Packet::IHave(vec![(name, 1)]));
    let asked = packets(&member.wait(Duration::from_secs(1)));
    assert!(asked.contains(&(id(2), Packet::Graft(Some(name)))));
    let grafts = |asked: &[(OverlayId, Packet)]| asked.iter().filter(|(_, it)| matches!(it, Packet::Graft(_))).count();
    assert_eq!(grafts(&asked), 256 + 1, "no more than one neighbour may have announced");
    assert_eq!(grafts(&packets(&member.wait(Duration::from_secs(10)))), 0, "once each");
}

#[test]
fn the_next_to_announce_a_message_is_asked_if_the_first_does_not_send_it() {
    let mut member = Member::new();
    let real = member.message(3, 1, b"words");
    let name = MessageId::of(&member.topic, &real);
    for neighbour in [1, 2] {
        member.hear(neighbour, &Packet::Join);
        member.hear(neighbour, &Packet::IHave(vec![(name, 1)]));
    }
    let grafts: Vec<_> = packets(&member.wait(Duration::from_secs(5)))
        .into_iter()
        .filter(|(_, packet)| matches!(packet, Packet::Graft(_)))
        .map(|(to, _)| to)
        .collect();
    assert_eq!(grafts, [id(1), id(2)]);
}

#[test]
fn who_asks_again_and_again_for_a_large_message_does_not_get_it_for_ever() {
    let config = TopicsConfig {
        peer_rate: super::super::Rate { messages: 100, bytes: 1 << 20, burst_seconds: 2 },
        ..TopicsConfig::default()
    };
    let mut member = Member::with(config);
    member.hear(1, &Packet::Join);
    let large = member.message(3, 1, &vec![0; 60_000]);
    let name = MessageId::of(&member.topic, &large);
    member.gossip(2, large);
    let mut bytes = 0;
    for _ in 0..150 {
        let outputs = member.hear(1, &Packet::Graft(Some(name)));
        bytes +=
            outputs.iter().map(|it| if let Output::Send { bytes, .. } = it { bytes.len() } else { 0 }).sum::<usize>();
    }
    assert!((1 << 20..=2 << 20).contains(&bytes), "{bytes}");
}

#[test]
fn many_newcomers_do_not_take_the_place_of_those_who_were_chosen() {
    let mut member = Member::new();
    let chosen: Vec<_> = (1..=3).map(id).collect();
    let (topic, now) = (member.topic, member.now);
    // The first two are asked, as there is no neighbour yet; once one agrees, others are.
    member.topics.join(topic, &chosen, now).unwrap();
    for _ in 0..3 {
        for (to, packet) in packets(&member.outputs()) {
            if matches!(packet, Packet::Join | Packet::Neighbour { .. }) {
                member.topics.receive(to, Packet::Accept.encode(&topic), now);
            }
        }
    }
    assert_eq!(member.neighbours().len(), 3);
    let mut refused = 0;
    for sybil in 100..1100 {
        let packet = if sybil % 2 == 0 { Packet::Join } else { Packet::Neighbour { urgent: true } };
        let outputs = packets(&member.hear(sybil, &packet));
        refused +=
            outputs.iter().filter(|(to, it)| *to == id(sybil) && matches!(it, Packet::Disconnect { .. })).count();
    }
    let neighbours = member.neighbours();
    assert!(chosen.iter().all(|chosen| neighbours.contains(chosen)) && neighbours.len() == 5);
    assert_eq!(refused, 1000 - 2 - 16, "two places were free, and so many others may go at once");
}

#[test]
fn invented_ids_are_asked_few_at_a_time_and_forgotten() {
    let mut member = Member::new();
    member.hear(1, &Packet::Join);
    let mut asked = 0;
    for number in 0..10_000 {
        let outputs = member.hear(1, &Packet::ForwardJoin { peer: id(1000 + number % 500), ttl: 0 });
        asked += packets(&outputs).len();
    }
    assert!(asked <= 10, "{asked}");
    assert_eq!(member.neighbours(), [id(1)]);
    let many = vec![id(7); MAX_IDS];
    let outputs = member.hear(1, &Packet::Shuffle { origin: id(1), ttl: 0, peers: many.clone() });
    assert_eq!(packets(&outputs), [], "more than a shuffle has");
    assert_eq!(packets(&member.hear(1, &Packet::ShuffleReply { peers: many })), [], "not asked for");
}

#[test]
fn who_takes_us_for_a_neighbour_is_told_that_we_are_none() {
    let mut member = Member::new();
    let refusal = Packet::Disconnect { leaving: false, others: Vec::new() };
    for packet in [Packet::Alive, Packet::Prune, Packet::Accept, Packet::ForwardJoin { peer: id(2), ttl: 3 }] {
        assert_eq!(packets(&member.hear(1, &packet)), [(id(1), refusal.clone())]);
    }
    assert_eq!(packets(&member.hear(1, &refusal)), []);
    member.topic = TopicId::of("another");
    let goodbye = Packet::Disconnect { leaving: true, others: Vec::new() };
    assert_eq!(packets(&member.hear(1, &Packet::Join)), [(id(1), goodbye.clone())]);
    assert_eq!(packets(&member.hear(1, &goodbye)), []);
}

#[test]
fn a_silent_neighbour_is_gone_and_one_that_speaks_stays() {
    let mut member = Member::new();
    member.hear(1, &Packet::Join);
    member.hear(2, &Packet::Join);
    for _ in 0..10 {
        member.wait(Duration::from_secs(10));
        member.hear(1, &Packet::Alive);
    }
    assert_eq!(member.neighbours(), [id(1)]);
}

#[test]
fn junk_never_panics() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut member = Member::with(TopicsConfig {
        peer_rate: super::super::Rate { messages: 1 << 20, bytes: 1 << 30, burst_seconds: 1 },
        ..TopicsConfig::default()
    });
    let mut known: Vec<Bytes> = Vec::new();
    for step in 0..20_000 {
        let from = rng.random_range(1..20);
        let some: Vec<_> = (0..rng.random_range(0..9)).map(|_| id(rng.random_range(0..30))).collect();
        let name = MessageId([rng.random_range(0..40); 16]);
        let packet = match rng.random_range(0..14) {
            0 => Packet::Join,
            1 => Packet::ForwardJoin { peer: id(rng.random_range(0..30)), ttl: rng.random() },
            2 => Packet::Neighbour { urgent: rng.random() },
            3 => Packet::Accept,
            4 => Packet::Disconnect { leaving: rng.random(), others: some },
            5 => Packet::Shuffle { origin: id(rng.random_range(0..30)), ttl: rng.random(), peers: some },
            6 => Packet::ShuffleReply { peers: some },
            7 => Packet::Alive,
            8 if step % 20 == 0 => {
                let message = member.message(rng.random_range(0..30), rng.random_range(0..9), b"words");
                Packet::Gossip { hops: rng.random(), message }
            }
            9 => Packet::IHave(vec![(name, rng.random()); rng.random_range(0..9)]),
            10 => Packet::Graft(rng.random::<bool>().then_some(name)),
            11 => Packet::Members { token: rng.random(), members: some },
            12 => Packet::Register,
            _ => Packet::Prune,
        };
        let mut bytes = packet.encode(&member.topic).to_vec();
        match rng.random_range(0..10) {
            0 => bytes.truncate(rng.random_range(0..bytes.len())),
            1 => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            2 => bytes.push(rng.random()),
            _ => {}
        }
        known.push(bytes.clone().into());
        if rng.random_ratio(1, 10) {
            member.topics.receive_closest(id(from), known[rng.random_range(0..known.len())].clone(), member.now);
        } else {
            member.topics.receive(id(from), bytes.into(), member.now);
        }
        if rng.random_ratio(1, 5) {
            member.wait(Duration::from_millis(rng.random_range(0..2000)));
        }
        if rng.random_ratio(1, 50) {
            member.topics.peer_gone(&id(rng.random_range(0..30)), member.now);
        }
        assert!(member.outputs().len() < 100);
        let neighbours = member.neighbours();
        assert!(neighbours.len() <= 5 && !neighbours.contains(&id(0)));
    }
    assert_eq!(delivered(&member.gossip(50, member.message(60, 1, b"words"))), 1, "it still works");
}
