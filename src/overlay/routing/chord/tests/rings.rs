//! Rings that grow, lose peers, and come together again.

use std::time::Duration;

use rand::seq::SliceRandom;

use super::super::ChordConfig;
use super::net::Net;

const SECOND: Duration = Duration::from_secs(1);

fn twenty() -> ChordConfig {
    ChordConfig { successors: 20, ..ChordConfig::default() }
}

fn grown(count: usize, config: &ChordConfig, seed: u64) -> Net {
    let mut net = Net::of(count, config, seed);
    let took = net.settle(60 * SECOND);
    // Fingers, and the release of what is not needed.
    net.run(60 * SECOND);
    println!("{count} peers: ring after {took:?}, messages {}, lost {}", net.messages, net.lost);
    net
}

fn report(net: &mut Net, lookups: usize) -> f64 {
    let (mean, most) = net.look_up(lookups);
    let (links, most_links) = net.degree();
    println!("{} peers: hops {mean:.2}, at most {most}; links {links:.1}, at most {most_links}", net.peers.len());
    mean
}

fn idle_rate(net: &mut Net) -> f64 {
    net.run(300 * SECOND);
    let before = net.messages;
    net.run(600 * SECOND);
    let rate = (net.messages - before) as f64 / 600.0 / net.peers.len() as f64;
    println!("{} peers: {rate:.2} messages for each peer and second when idle", net.peers.len());
    rate
}

#[test]
fn a_hundred_peers() {
    let mut net = grown(100, &ChordConfig::default(), 1);
    assert!(report(&mut net, 2000) < 3.4);
    assert!(idle_rate(&mut net) < 0.5);
    assert!(net.is_ring() && net.lost == 0);
}

#[test]
fn five_hundred_peers() {
    let mut net = grown(500, &ChordConfig::default(), 2);
    assert!(report(&mut net, 5000) < 4.5);
}

#[test]
fn twenty_successors() {
    let mut net = grown(100, &twenty(), 3);
    assert!(report(&mut net, 5000) < 3.0);
}

#[test]
#[ignore = "takes long without optimisation"]
fn a_thousand_peers() {
    let mut net = grown(1000, &twenty(), 4);
    assert!(report(&mut net, 20_000) <= 3.7);
    idle_rate(&mut net);
    let mut net = grown(1000, &ChordConfig::default(), 5);
    assert!(report(&mut net, 20_000) <= 5.0);
    idle_rate(&mut net);
}

#[test]
fn half_of_the_peers_vanish() {
    vanish(100, 6);
}

#[test]
#[ignore = "takes long without optimisation"]
fn rings_of_many_seeds() {
    for seed in 100..110 {
        vanish(500, seed);
        part(200, seed);
    }
}

fn vanish(count: usize, seed: u64) {
    let mut net = grown(count, &ChordConfig::default(), seed);
    let mut ids = net.ids();
    ids.shuffle(&mut net.rng);
    net.remove(&ids[..count / 2]);
    let took = net.settle(60 * SECOND);
    println!("healed after {took:?}");
    report(&mut net, 2000);
}

#[test]
fn two_halves_become_one() {
    part(100, 7);
}

fn part(count: usize, seed: u64) {
    let mut net = grown(count, &ChordConfig::default(), seed);
    let mut ids = net.ids();
    ids.shuffle(&mut net.rng);
    net.side = ids.iter().enumerate().map(|(at, id)| (*id, (at % 2) as u8)).collect();
    net.cut();
    let apart = net.settle(60 * SECOND);
    net.run(600 * SECOND);
    assert!(net.is_ring());
    net.side.clear();
    let together = net.settle(600 * SECOND);
    println!("two rings after {apart:?}, one after {together:?}");
    report(&mut net, 2000);
}

#[test]
fn one_meeting_joins_two_rings() {
    for seed in 0..10 {
        one_meeting(seed);
    }
}

fn one_meeting(seed: u64) {
    let mut net = Net::new(seed);
    let config = ChordConfig::default();
    for side in 0..2 {
        let ids: Vec<_> = (0..20).map(|_| net.random_id()).collect();
        for id in &ids {
            net.add(*id, &config);
            net.side.insert(*id, side);
            if *id != ids[0] {
                net.link(*id, ids[0]);
            }
            net.run(SECOND);
        }
    }
    net.settle(60 * SECOND);
    let rings = net.rings();
    let [one, other] = &rings[..] else { panic!("two rings") };
    let (a, b) = (*one.0.first().unwrap(), *other.0.iter().nth(10).unwrap());
    net.side.clear();
    net.link(a, b);
    let took = net.settle(120 * SECOND);
    println!("one ring after {took:?}");
    report(&mut net, 500);
}
