//! That everybody gets everything once, in swarms that are at rest, grow, and lose members.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::super::{Output, TopicId};
use super::sim::{Sent, Sim};
use crate::overlay::OverlayId;

/// A swarm of so many members that have joined within ten seconds, and time to settle.
fn swarm(count: usize, seed: u64) -> (Sim, TopicId) {
    let (mut sim, topic) = (Sim::new(seed), TopicId::of("topic"));
    sim.add(count);
    for peer in 0..count {
        sim.join(peer, topic);
        sim.run(Duration::from_secs(10) / count as u32);
    }
    sim.run(Duration::from_secs(60));
    (sim, topic)
}

/// So many messages, each of another member. Returns who sent which.
fn talk(sim: &mut Sim, topic: TopicId, name: &str, count: usize, pause: Duration) -> Vec<(usize, Bytes)> {
    let mut said = Vec::new();
    for number in 0..count {
        let alive = sim.alive();
        let origin = *alive.choose(&mut sim.rng).unwrap();
        let body = Bytes::from(format!("{name} {number}"));
        sim.broadcast(origin, topic, &body);
        said.push((origin, body));
        sim.run(pause);
    }
    said
}

/// How many of the deliveries there should be among these members are missing. None may be there twice.
fn missing(sim: &Sim, members: &[usize], said: &[(usize, Bytes)]) -> usize {
    let mut missing = 0;
    for (origin, body) in said {
        for peer in members {
            let got = sim.peers[*peer].got.get(body).copied().unwrap_or(0);
            assert!(got <= 1, "{peer} got {body:?} {got} times");
            assert!(peer != origin || got == 0, "{peer} got its own");
            missing += usize::from(peer != origin && got == 0);
        }
    }
    missing
}

/// Whether the members are all connected, by neighbours that take each other for such.
fn components(sim: &Sim, topic: &TopicId) -> usize {
    let mut left: BTreeSet<OverlayId> = sim.alive().iter().map(|peer| sim.peers[*peer].id).collect();
    let neighbours = |id: &OverlayId| {
        let peer = sim.peers.iter().find(|peer| peer.id == *id).unwrap();
        peer.topics.neighbours(topic).copied().collect::<Vec<_>>()
    };
    let mut components = 0;
    while let Some(first) = left.pop_first() {
        components += 1;
        let mut todo = vec![first];
        while let Some(id) = todo.pop() {
            todo.extend(neighbours(&id).into_iter().filter(|next| left.remove(next)));
        }
    }
    components
}

fn assert_views(sim: &Sim, topic: &TopicId) {
    for peer in sim.alive() {
        let peer = &sim.peers[peer];
        let count = peer.topics.neighbours(topic).count();
        assert!((1..=5).contains(&count), "{} has {count} neighbours", peer.id);
        for other in peer.topics.neighbours(topic) {
            let other = sim.peers.iter().find(|peer| peer.id == *other).unwrap();
            assert!(other.topics.neighbours(topic).any(|id| *id == peer.id), "both are neighbours or none is");
        }
    }
}

/// Sends a swarm messages of one origin until the tree is there, and counts what further ones cost.
fn cost(count: usize, seed: u64) -> (f64, Sent) {
    let (mut sim, topic) = swarm(count, seed);
    assert_eq!(components(&sim, &topic), 1);
    assert_views(&sim, &topic);
    for number in 0..5 {
        sim.broadcast(0, topic, format!("warm {number}").as_bytes());
        sim.run(Duration::from_secs(1));
    }
    let before = sim.sent;
    let said: Vec<_> = (0..5).map(|number| (0, Bytes::from(format!("counted {number}")))).collect();
    for (_, body) in &said {
        sim.broadcast(0, topic, body);
        sim.run(Duration::from_secs(1));
    }
    sim.run(Duration::from_secs(2));
    assert_eq!(missing(&sim, &sim.alive(), &said), 0);
    let deliveries = (said.len() * (count - 1)) as f64;
    let sent = Sent {
        gossip: sim.sent.gossip - before.gossip,
        announcements: sim.sent.announcements - before.announcements,
        grafts: sim.sent.grafts - before.grafts,
        prunes: sim.sent.prunes - before.prunes,
        others: sim.sent.others - before.others,
    };
    println!(
        "{count} members: {:.3} messages and {:.2} announcements for each delivery; {sent:?}",
        sent.gossip as f64 / deliveries,
        sent.announcements as f64 / deliveries
    );
    (sent.gossip as f64 / deliveries, sent)
}

#[test]
fn what_is_said_alone_is_heard_by_who_comes_soon() {
    let (mut sim, topic) = (Sim::new(1), TopicId::of("topic"));
    sim.add(3);
    sim.join(0, topic);
    // More than what a new neighbour is told of, and what comes after.
    let said: Vec<_> = (0..140).map(|number| (0, Bytes::from(format!("alone {number}")))).collect();
    said.iter().for_each(|(_, body)| sim.broadcast(0, topic, body));
    sim.join(1, topic);
    sim.run(Duration::from_secs(20));
    assert_eq!(missing(&sim, &[1], &said), 140 - 128);
    let more: Vec<_> = (0..10).map(|number| (number % 2, Bytes::from(format!("together {number}")))).collect();
    more.iter().for_each(|(origin, body)| sim.broadcast(*origin, topic, body));
    sim.run(sim.config.keep_for + Duration::from_secs(1));
    sim.join(2, topic);
    sim.run(Duration::from_secs(20));
    assert_eq!(missing(&sim, &[0, 1], &more), 0);
    assert!(sim.peers[2].got.is_empty(), "nothing is kept so long");
}

#[test]
fn everybody_gets_every_message_once() {
    for seed in 0..3 {
        let (mut sim, topic) = swarm(100, seed);
        let said = talk(&mut sim, topic, "word", 20, Duration::from_millis(100));
        sim.run(Duration::from_secs(5));
        assert_eq!(missing(&sim, &sim.alive(), &said), 0, "seed {seed}");
    }
}

#[test]
fn the_tree_costs_about_one_message_for_each_delivery() {
    for seed in 0..2 {
        let (gossip, _) = cost(100, seed);
        assert!(gossip < 1.05, "{gossip}");
    }
}

/// As many as `PMESH_PEERS` says.
#[test]
fn many_members() {
    let (gossip, _) = cost(std::env::var("PMESH_PEERS").map_or(200, |value| value.parse().unwrap()), 1);
    assert!(gossip < 1.1, "{gossip}");
}

#[test]
fn two_and_three_members() {
    for count in [2, 3, 7] {
        let (mut sim, topic) = swarm(count, 1);
        assert_views(&sim, &topic);
        let said = talk(&mut sim, topic, "word", 10, Duration::from_millis(100));
        sim.run(Duration::from_secs(2));
        assert_eq!(missing(&sim, &sim.alive(), &said), 0);
    }
}

#[test]
fn all_at_the_same_moment() {
    let (mut sim, topic) = (Sim::new(1), TopicId::of("topic"));
    sim.add(100);
    for peer in 0..100 {
        sim.join(peer, topic);
    }
    sim.run(Duration::from_secs(60));
    assert_eq!(components(&sim, &topic), 1);
    let said = talk(&mut sim, topic, "word", 10, Duration::from_millis(100));
    sim.run(Duration::from_secs(2));
    assert_eq!(missing(&sim, &sim.alive(), &said), 0);
}

#[test]
fn messages_that_get_lost_are_fetched() {
    let (mut sim, topic) = swarm(100, 1);
    talk(&mut sim, topic, "warm", 5, Duration::from_millis(200));
    sim.loss = 0.05;
    let said = talk(&mut sim, topic, "word", 30, Duration::from_millis(200));
    sim.loss = 0.0;
    sim.run(Duration::from_secs(10));
    let missing = missing(&sim, &sim.alive(), &said);
    println!("5 % lost: {missing} of {} deliveries are missing", said.len() * 99);
    assert!(missing * 1000 < said.len() * 99, "{missing}");
}

/// Kills some at once while messages are sent, and tells the others of it or not.
fn die(share: usize, told: bool) {
    let (mut sim, topic) = swarm(200, 1);
    talk(&mut sim, topic, "before", 5, Duration::from_millis(200));
    let dead: Vec<_> = (0..200).sample(&mut sim.rng, 200 * share / 100);
    for peer in &dead {
        sim.peers[*peer].alive = false;
    }
    if told {
        for peer in sim.alive() {
            for dead in &dead {
                let dead = sim.peers[*dead].id;
                sim.with(peer, |topics, now| topics.peer_gone(&dead, now));
            }
        }
    }
    let said = talk(&mut sim, topic, "meanwhile", 15, Duration::from_millis(200));
    sim.run(Duration::from_secs(60));
    let all = said.len() * (sim.alive().len() - 1);
    let lost = missing(&sim, &sim.alive(), &said);
    println!("{share} % died, told: {told}: {lost} of {all} deliveries meanwhile are missing");
    assert!(lost * 50 < all, "{lost} of {all}");
    assert_eq!(components(&sim, &topic), 1);
    assert_views(&sim, &topic);
    let said = talk(&mut sim, topic, "after", 10, Duration::from_millis(200));
    sim.run(Duration::from_secs(5));
    assert_eq!(missing(&sim, &sim.alive(), &said), 0);
}

#[test]
fn some_die_at_once_and_their_neighbours_hear_of_it() {
    die(30, true);
}

#[test]
fn some_die_at_once_in_silence() {
    die(30, false);
}

#[test]
fn two_halves_that_did_not_reach_each_other_find_together() {
    let (mut sim, topic) = swarm(60, 1);
    sim.split = true;
    sim.run(Duration::from_secs(600));
    assert_eq!(components(&sim, &topic), 2);
    sim.split = false;
    sim.run(Duration::from_secs(240));
    assert_eq!(components(&sim, &topic), 1);
    assert_views(&sim, &topic);
    let said = talk(&mut sim, topic, "word", 10, Duration::from_millis(200));
    sim.run(Duration::from_secs(5));
    assert_eq!(missing(&sim, &sim.alive(), &said), 0);
}

#[test]
fn newcomers_while_messages_are_sent() {
    let (mut sim, topic) = swarm(100, 1);
    sim.add(100);
    let mut said = Vec::new();
    for newcomer in 100..200 {
        sim.join(newcomer, topic);
        if newcomer % 4 == 0 {
            let origin = sim.rng.random_range(0..100);
            let body = Bytes::from(format!("word {newcomer}"));
            sim.broadcast(origin, topic, &body);
            said.push((origin, body));
        }
        sim.run(Duration::from_millis(200));
    }
    sim.run(Duration::from_secs(5));
    let old: Vec<_> = (0..100).collect();
    assert_eq!(missing(&sim, &old, &said), 0, "those who were there miss nothing");
    assert_eq!(components(&sim, &topic), 1, "though the newcomers are closer to some points of the rendezvous");
    let said = talk(&mut sim, topic, "after", 10, Duration::from_millis(200));
    sim.run(Duration::from_secs(5));
    assert_eq!(missing(&sim, &sim.alive(), &said), 0);
}

#[test]
fn who_leaves_is_left_alone() {
    let (mut sim, topic) = swarm(20, 1);
    let id = sim.peers[3].id;
    sim.with(3, |topics, now| topics.leave(&topic, now));
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.peers[3].topics.topics().count(), 0);
    for peer in &sim.peers {
        assert!(peer.topics.neighbours(&topic).all(|neighbour| *neighbour != id));
    }
}

#[test]
fn a_peer_in_several_topics_is_released_when_none_is_left() {
    let (first, second) = (TopicId::of("first"), TopicId::of("second"));
    let mut sim = Sim::new(1);
    sim.add(2);
    for topic in [first, second] {
        sim.join(0, topic);
        sim.join(1, topic);
    }
    sim.run(Duration::from_secs(30));
    let (now, other) = (sim.now, sim.peers[1].id);
    let topics = &mut sim.peers[0].topics;
    for topic in [&first, &second] {
        assert_eq!(topics.neighbours(topic).collect::<Vec<_>>(), [&other]);
    }
    let mut outputs = Vec::new();
    for topic in [first, second] {
        topics.leave(&topic, now);
        let all = std::iter::from_fn(|| topics.poll_output()).collect::<Vec<_>>();
        assert!(all.contains(&Output::NeighbourDown { topic, peer: other }));
        outputs.push(all.contains(&Output::Disconnect(other)));
    }
    assert_eq!(outputs, [false, true]);
}
