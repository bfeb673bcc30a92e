use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use super::net::*;
use crate::overlay::seal::Plain;

const CONFIRM: Option<Duration> = Some(Duration::from_secs(20));

fn is_message(packet: &Bytes) -> bool {
    packet[0] == wire::MESSAGE
}

/// A message without a seal, as a hostile peer can make it.
fn open(purpose: Purpose, from: usize, to: usize, count: u64, body: &[u8]) -> Bytes {
    let mut nonce = wire::Nonce::default();
    nonce[4..].copy_from_slice(&count.to_be_bytes());
    let confirm = matches!(purpose, Purpose::KeyRequest | Purpose::KeyReply);
    let closest = matches!(purpose, Purpose::Routing | Purpose::User(_));
    let (mode, hops) = (Mode::Open, 31);
    Head { hops, hop: 77, mode, confirm, closest, purpose, nonce, to: id(to), from: id(from) }.open(body)
}

/// A message that is sealed by this peer, as it says.
fn sealed(from: usize, key: usize, to: usize, session: u64, count: u64) -> Bytes {
    let mut nonce = wire::Nonce::default();
    nonce[4..].copy_from_slice(&count.to_be_bytes());
    let (mode, purpose) = (Mode::Sealed, Purpose::User(Kind::Binary));
    let (confirm, closest) = (false, false);
    let head = Head { hops: 31, hop: 0, mode, confirm, closest, purpose, nonce, to: id(to), from: id(from) };
    let mut seal = Checked::new(id(key), 1);
    let theirs = Checked::new(id(to), session).contact();
    let mut packet = head.sealed(&seal.contact(), &theirs, None, b"text");
    let (header, body) = wire::split_sealed(&mut packet);
    let tag = seal.seal(&theirs, header, &nonce, body).unwrap();
    packet.extend_from_slice(&tag);
    packet.freeze()
}

/// Within the bounds of the configuration.
fn assert_bounded(router: &Router) {
    let config = &router.config;
    assert!(router.held.len() <= config.held_messages + 3 * config.held_messages);
    assert!(router.sends.len() <= config.held_messages && router.wanted.len() <= config.held_messages);
    assert!(router.contacts.len() <= 2 * config.remembered_peers);
    assert!(router.windows.len() <= 2 * config.remembered_peers);
    assert!(router.trails.len() <= 2 * config.remembered_peers);
    assert!(router.seen.len() <= 2 * config.remembered_messages);
    assert!(router.delivered.len() <= 2 * config.remembered_messages);
    let timers = router.held.len() + router.sends.len() + router.wanted.len() + router.neighbours.len();
    assert!(router.timers.len() <= timers, "{} timers for {timers}", router.timers.len());
}

fn small() -> RouterConfig {
    let (held_messages, held_bytes) = (8, 16 << 10);
    let (remembered_peers, remembered_messages) = (8, 32);
    RouterConfig {
        held_messages,
        held_bytes,
        remembered_peers,
        remembered_messages,
        compat: true,
        ..Default::default()
    }
}

fn net_of_three() -> Net {
    let mut net = Net::new();
    net.config = small();
    (0..4).for_each(|number| net.add(number));
    (0..3).for_each(|number| net.link(number, number + 1));
    net.with(1, |router, now| router.neighbour_up(id(9), None, now));
    net.run(SECOND);
    net
}

/// Packets that get past the first checks.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let purposes = prop::sample::select(vec![0u8, 1, 5, 6, 16, 17, 18, 19, 20, 21]);
    let ends = (0..12usize, 0..12usize);
    let tail = prop::collection::vec(any::<u8>(), 0..200);
    let message = (any::<[u8; 5]>(), 0..16u8, purposes, 0..40u8, ends, tail).prop_map(
        |(hop, flags, purpose, nonce, (to, from), tail)| {
            let mut packet = BytesMut::new();
            packet.put_u8(wire::MESSAGE);
            packet.put_slice(&hop);
            packet.put_slice(&[flags, purpose]);
            packet.put_slice(&[nonce; 12]);
            packet.put_slice(id(to).as_bytes());
            packet.put_slice(id(from).as_bytes());
            packet.put_slice(&tail);
            packet.to_vec()
        },
    );
    let other = (0..8u8, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    });
    prop_oneof![3 => message, 2 => other, 1 => prop::collection::vec(any::<u8>(), 0..70)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes(packets in prop::collection::vec((0..2usize, packet()), 1..150)) {
        let mut net = net_of_three();
        for (which, packet) in packets {
            net.with(1, |router, now| router.receive(&id(which * 2), packet.into(), now));
            assert_bounded(&net.routers[&1]);
            net.run(DELAY / 2);
        }
        net.routers.values().for_each(assert_bounded);
        net.run(SECOND * 60);
        net.routers.values().for_each(assert_bounded);
        net.take_told();
        net.send(0, 3, "still there", CONFIRM);
        net.run(SECOND * 20);
        prop_assert!(net.take_told().contains(&delivered(3, 0, "still there")));
    }
}

#[test]
fn altered_messages_are_not_delivered() {
    let mut net = Net::line(0..3);
    net.record = Some(Vec::new());
    net.send(0, 2, "text", None);
    net.run(SECOND);
    let record = net.record.take().unwrap();
    let (_, _, packet) = record.iter().filter(|(_, to, packet)| *to == 2 && is_message(packet)).last().unwrap();
    net.take_told();
    // A new window: only the tag can tell.
    net.routers.get_mut(&2).unwrap().windows = Cache::new(8);
    for bit in 6 * 8..packet.len() * 8 {
        let mut altered = packet.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        net.with(2, |router, now| router.receive(&id(1), altered.into(), now));
        net.run(DELAY * 4);
        assert_eq!(net.take_told(), [], "bit {bit}");
    }
    net.with(2, |router, now| router.receive(&id(1), packet.clone(), now));
    assert_eq!(net.take_told(), [delivered(2, 0, "text")]);
}

#[test]
fn nothing_is_delivered_twice() {
    let mut net = Net::line(0..4);
    net.record = Some(Vec::new());
    net.send(0, 3, "one", CONFIRM);
    net.send(0, 3, "two", None);
    net.run(SECOND);
    assert_eq!(net.take_told().len(), 3);
    let record = net.record.take().unwrap();
    for (from, to, packet) in record.iter().filter(|(_, _, packet)| is_message(packet)) {
        net.with(*to, |router, now| router.receive(&id(*from), packet.clone(), now));
    }
    net.run(SECOND * 20);
    assert_eq!(net.take_told(), []);
    assert!(net.counters(3).replayed >= 2 && net.counters(1).duplicates >= 2);

    // Nor after a start.
    net.remove(3);
    net.add(3);
    net.link(2, 3);
    net.run(SECOND);
    for (from, _, packet) in record.iter().filter(|(_, to, packet)| *to == 3 && is_message(packet)) {
        net.with(3, |router, now| router.receive(&id(*from), packet.clone(), now));
    }
    net.run(SECOND * 20);
    assert_eq!(net.take_told(), []);
    assert_eq!(net.counters(3).stale, 2);
}

#[test]
fn nobody_speaks_for_another() {
    let mut net = Net::line(0..3);
    // 1 knows the key of 0 and claims to be it: with its own key, and with that of 0.
    let session = 3;
    for packet in [sealed(0, 1, 2, session, 1), {
        let mut packet = sealed(0, 1, 2, session, 2).to_vec();
        packet[60..92].copy_from_slice(Plain::key_of(&id(0)).as_bytes());
        packet.into()
    }] {
        net.with(2, |router, now| router.receive(&id(1), packet, now));
    }
    assert_eq!((net.take_told(), net.counters(2).not_authentic), (vec![], 2));
    net.with(2, |router, now| router.receive(&id(1), sealed(0, 0, 2, session, 3), now));
    assert_eq!(net.take_told().len(), 1);
    // What we have sent ourselves comes back.
    net.with(2, |router, now| router.receive(&id(1), sealed(2, 2, 2, session, 3), now));
    assert_eq!(net.take_told(), []);
}

#[test]
fn keys_of_others_are_not_believed() {
    let mut net = Net::line(0..3);
    net.mute.insert(2);
    net.send(0, 2, "secret", None);
    net.run(DELAY * 2);
    let number = net.routers[&0].wanted[&id(2)].number;
    let ours = |number: u64, key: usize| {
        let contact = Checked::new(id(key), 1).contact();
        open(Purpose::KeyReply, 2, 0, number, &wire::key_reply(number, &wire::Reply::Contact(contact)))
    };
    for packet in [ours(number.wrapping_add(1), 2), ours(number, 1)] {
        net.with(0, |router, now| router.receive(&id(1), packet, now));
    }
    assert!(net.routers[&0].wanted.contains_key(&id(2)));
    assert_eq!((net.counters(0).unexpected, net.counters(0).not_authentic), (1, 1));
    // Nor that it is an original, where there are none.
    let original = wire::key_reply(number, &wire::Reply::Original);
    net.with(0, |router, now| router.receive(&id(1), open(Purpose::KeyReply, 2, 0, 9, &original), now));
    assert!(matches!(net.take_told()[..], [(0, Told::Failed(_, SendFailure::Original))]));
}

#[test]
fn who_calls_a_session_stale_causes_a_question_now_and_then() {
    let mut net = Net::line(0..3);
    net.send(0, 2, "text", None);
    net.run(SECOND);
    let sent = net.counters(2).sent;
    for count in 0..1000 {
        net.with(0, |router, now| router.receive(&id(1), open(Purpose::Stale, 2, 0, count, b""), now));
        net.run(DELAY);
    }
    let answers = net.counters(2).sent - sent;
    assert!((1..=3).contains(&answers), "{answers} answers");
}

#[test]
fn one_message_causes_so_many_sends() {
    let mut most = 0;
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut net = Net::new();
        net.config.hops = 8;
        (0..150).chain([5000]).for_each(|number| net.add(number));
        for number in 0..150 {
            for _ in 0..3 {
                let other: usize = rng.random_range(0..150);
                // Steep ways with many dead ends.
                if other != number && other.abs_diff(number) < 40 {
                    net.cut(number, other);
                    net.link(number, other);
                }
            }
        }
        net.link(0, 5000);
        net.run(SECOND);
        net.cut(0, 5000);
        net.sends.clear();
        net.send(0, 5000, "text", CONFIRM);
        net.run(SECOND * 30);
        assert!(matches!(net.take_told()[..], [(0, Told::Failed(_, SendFailure::NoRoute))]));
        most = net.sends.values().copied().fold(most, usize::max);
    }
    // Each way back uses up one of the eight too.
    assert!((6..=8).contains(&most), "{most} sends");
}

#[test]
fn a_message_that_goes_in_a_circle_ends() {
    let mut net = Net::line(0..4);
    let packet = open(Purpose::KeyRequest, 99, 3, 1, &7u64.to_be_bytes());
    for _ in 0..100 {
        // 1 sends it to 2, and somebody sends it back to 1.
        net.with(1, |router, now| router.receive(&id(0), packet.clone(), now));
        net.with(1, |router, now| router.receive(&id(2), packet.clone(), now));
    }
    assert_eq!((net.counters(1).forwarded, net.counters(1).duplicates), (1, 199));
    let head = Head::parse(&packet).unwrap();
    let spent = Head { hops: 0, nonce: [3; 12], ..head }.open(b"12345678");
    net.with(1, |router, now| router.receive(&id(0), spent, now));
    assert_eq!((net.counters(1).forwarded, net.counters(1).out_of_hops), (1, 1));
    let endless = Head { hops: 255, confirm: false, purpose: Purpose::Stale, nonce: [4; 12], ..head }.open(b"");
    net.record = Some(Vec::new());
    net.with(1, |router, now| router.receive(&id(0), endless, now));
    assert_eq!(Head::parse(&net.record.take().unwrap()[0].2).unwrap().hops, 31);
}

#[test]
fn a_flood_of_one_source_leaves_room_for_others() {
    let mut net = Net::new();
    net.config.relay_budget = Rate { messages: 1000, bytes: 1 << 20, burst_seconds: 1 };
    net.config.source_budget = Rate { messages: 100, bytes: 1 << 20, burst_seconds: 1 };
    net.config.neighbour_budget = Rate { messages: 300, bytes: 1 << 20, burst_seconds: 1 };
    (0..4).for_each(|number| net.add(number));
    [(0, 1), (1, 2), (2, 3)].into_iter().for_each(|(a, b)| net.link(a, b));
    net.run(SECOND);
    let second = |net: &mut Net, round: u64, source: fn(u64) -> usize| {
        let before = net.counters(1).forwarded;
        for count in 0..2000 {
            let packet = open(Purpose::Stale, source(count), 3, round * 2000 + count, b"");
            net.with(1, |router, now| router.receive(&id(0), packet, now));
        }
        net.run(SECOND);
        net.counters(1).forwarded - before
    };
    let forwarded = second(&mut net, 0, |_| 50);
    assert!((600..=601).contains(&forwarded), "{forwarded}: half of what all may, and then its own");
    net.send(0, 3, "text", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(3, 0, "text")], "another source of the same neighbour");
    // As many sources as it likes: its own budget holds.
    let forwarded = second(&mut net, 1, |count| 100 + count as usize);
    assert!((790..=801).contains(&forwarded), "{forwarded}");
    // Another neighbour is not concerned.
    for count in 0..2000 {
        let packet = open(Purpose::Stale, 50, 3, 100_000 + count, b"");
        net.with(1, |router, now| router.receive(&id(0), packet, now));
    }
    net.send(2, 0, "text", None);
    net.run(SECOND * 5);
    assert_eq!(net.take_told(), [delivered(0, 2, "text")]);
}

#[test]
fn a_flood_of_strangers_leaves_those_we_know_alone() {
    let mut net = Net::line(0..3);
    net.send(0, 2, "text", None);
    net.run(SECOND);
    net.take_told();
    for stranger in 1000..6000 {
        net.with(2, |router, now| router.receive(&id(1), sealed(stranger, stranger, 2, 3, 1), now));
    }
    let delivered_count = net.take_told().len();
    assert!((490..=500).contains(&delivered_count), "{delivered_count}");
    net.send(0, 2, "text", None);
    net.run(SECOND);
    assert_eq!(net.take_told(), [delivered(2, 0, "text")]);
}

#[test]
fn one_neighbour_cannot_fill_what_is_kept() {
    let mut net = Net::new();
    net.config.held_messages = 40;
    (0..5).for_each(|number| net.add(number));
    [(0, 2), (1, 2), (2, 3), (3, 4)].into_iter().for_each(|(a, b)| net.link(a, b));
    net.run(SECOND);
    // 3 takes nothing.
    net.mute.insert(3);
    for count in 0..100 {
        let packet = open(Purpose::KeyRequest, 0, 4, count, &count.to_be_bytes());
        net.with(2, |router, now| router.receive(&id(0), packet, now));
    }
    assert_eq!((net.counters(2).forwarded, net.counters(2).full), (10, 90));
    let packet = open(Purpose::KeyRequest, 1, 4, 1000, b"12345678");
    net.with(2, |router, now| router.receive(&id(1), packet, now));
    assert_eq!(net.counters(2).forwarded, 11);
    net.run(SECOND * 3);
    assert_eq!(net.routers[&2].held.len(), 0, "all were refused");
    assert_eq!(net.routers[&2].neighbours[&id(0)].held, (0, 0));
}

#[test]
fn only_the_next_hop_answers_for_a_message() {
    let mut net = Net::line(0..4);
    net.mute.insert(2);
    let packet = open(Purpose::KeyRequest, 50, 3, 1, b"12345678");
    net.with(1, |router, now| router.receive(&id(0), packet, now));
    assert_eq!(net.routers[&1].held.len(), 1);
    let refusal = wire::Refusal { hops: 32, is_unsure: false };
    for hop in 0..1000 {
        for packet in [wire::taken(hop), wire::refused(hop, refusal)] {
            net.with(1, |router, now| router.receive(&id(0), packet, now));
        }
    }
    assert_eq!((net.counters(1).unexpected, net.routers[&1].held.len()), (2000, 1));
    // And a refusal that does not say how much is left is none.
    let short = wire::refused(0, refusal).slice(..5);
    net.with(1, |router, now| router.receive(&id(2), short, now));
    assert_eq!((net.counters(1).malformed, net.routers[&1].held.len()), (1, 1));
    net.with(1, |router, now| router.receive(&id(2), wire::refused(0, refusal), now));
    assert_eq!(net.routers[&1].held.len(), 0);
}

#[test]
fn a_laid_trail_leads_nothing_away_for_which_there_is_a_way() {
    let mut net = Net::line([0, 10, 20, 30]);
    net.record = Some(Vec::new());
    // 0 says that it is 30, and that it is 21.
    for (claimed, count) in [(30, 1), (21, 2)] {
        for to in [10, 20] {
            let packet = open(Purpose::Stale, claimed, to, count + to as u64, b"");
            net.with(10, |router, now| router.receive(&id(0), packet, now));
        }
    }
    net.run(SECOND);
    // And so does 30, from the other side.
    let packet = open(Purpose::Stale, 21, 20, 9, b"");
    net.with(20, |router, now| router.receive(&id(30), packet, now));
    net.send(10, 30, "text", None);
    net.with(10, |router, now| router.send_closest(id(21), Kind::Topic, Bytes::from_static(b"rendezvous"), now))
        .unwrap();
    net.run(SECOND);
    let told = net.take_told();
    assert!(told.contains(&delivered(30, 10, "text")));
    assert!(told.iter().any(|(at, told)| *at == 20 && matches!(told, Told::Delivered { kind: Kind::Topic, .. })));
}

#[test]
fn ten_thousand_sources_leave_nothing_behind() {
    let mut net = net_of_three();
    for source in 0..10_000 {
        for (purpose, body) in [(Purpose::KeyRequest, 7u64.to_be_bytes()), (Purpose::Stale, [0; 8])] {
            let packet = open(purpose, 1000 + source, 1, source as u64, &body);
            net.with(1, |router, now| router.receive(&id(0), packet, now));
            let packet = open(purpose, 1000 + source, 3, source as u64, &body);
            net.with(1, |router, now| router.receive(&id(0), packet, now));
        }
        net.with(1, |router, now| router.receive(&id(0), sealed(1000 + source, 1000 + source, 1, 2, 1), now));
        net.run(Duration::from_millis(1));
        assert_bounded(&net.routers[&1]);
    }
    net.run(SECOND * 60);
    let router = &net.routers[&1];
    assert!(router.wanted.is_empty() && router.sends.is_empty() && router.timers.len() <= 2);
    net.take_told();
    net.send(0, 3, "text", CONFIRM);
    net.run(SECOND);
    assert!(net.take_told().contains(&delivered(3, 0, "text")));
}
