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

/// A number from the environment, for a longer run in release: `PMESH_PEERS` for all but two rings that meet, `PMESH_SEEDS`.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn a_ring_that_grows() {
    let count = setting("PMESH_PEERS", 50);
    let mut net = grown(count, &ChordConfig::default(), 1);
    assert!(report(&mut net, 2000) <= (count as f64).log2() / 2.0 + 0.2);
    assert!(idle_rate(&mut net) < 0.5);
    assert!(net.is_ring() && net.lost == 0);
}

#[test]
fn twenty_successors() {
    let mut net = grown(setting("PMESH_PEERS", 60), &twenty(), 3);
    assert!(report(&mut net, 2000) <= 3.7);
    assert!(idle_rate(&mut net) < 0.5);
    assert!(net.is_ring() && net.lost == 0);
}

#[test]
fn a_newcomer_costs_each_some_messages() {
    let mut net = grown(40, &ChordConfig::default(), 4);
    net.run(300 * SECOND);
    let cost = |net: &mut Net, newcomers: u32| {
        let before = net.messages;
        for _ in 0..newcomers {
            let (id, first) = (net.random_id(), net.ids()[0]);
            net.add(id, &ChordConfig::default());
            net.link(id, first);
            net.run(60 * SECOND);
        }
        net.run(60 * SECOND);
        net.messages - before
    };
    let (quiet, joining) = (cost(&mut net, 0), cost(&mut net, 5));
    let each = (joining as f64 - quiet as f64 * 6.0) / 5.0;
    assert!(each < 600.0, "{each} messages of the table for each");
}

#[test]
fn half_of_the_peers_vanish() {
    (0..setting("PMESH_SEEDS", 1)).for_each(|seed| vanish(setting("PMESH_PEERS", 60), 6 + seed as u64));
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
    (0..setting("PMESH_SEEDS", 1)).for_each(|seed| part(setting("PMESH_PEERS", 40), 7 + seed as u64));
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
    for seed in 0..setting("PMESH_SEEDS", 2) {
        one_meeting(seed as u64);
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
