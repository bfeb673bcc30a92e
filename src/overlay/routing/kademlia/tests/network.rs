//! Networks that grow peer by peer, shrink, and rest.

use std::time::Duration;

use rand::RngExt;

use super::super::*;
use super::sim::Sim;

/// Peers join one by one, and all have time to settle.
fn grown(peers: usize, config: KademliaConfig, seed: u64) -> Sim {
    let mut sim = Sim::new(config, seed);
    for _ in 0..peers {
        sim.join();
        sim.run(Duration::from_secs(2));
    }
    sim.run(Duration::from_secs(120));
    sim
}

/// Mean hops over this many lookups of peers by others. Each arrives.
fn hops(sim: &Sim, lookups: usize) -> f64 {
    let mut rng = SmallRng::seed_from_u64(7);
    let alive = sim.alive();
    let mut pick = || alive[rng.random_range(0..alive.len())];
    let mut hops = 0;
    for _ in 0..lookups {
        let (from, to) = (pick(), pick());
        let way = sim.way(from, &sim.id(to));
        assert!(from == to || way.last() == Some(&to), "from {from} to {to} it got stuck: {way:?}");
        hops += way.len();
    }
    hops as f64 / lookups as f64
}

/// Each id, of a peer or not, is found at the peer that is closest to it.
fn check_responsible(sim: &Sim, lookups: usize) {
    let mut rng = SmallRng::seed_from_u64(8);
    let alive = sim.alive();
    for _ in 0..lookups {
        let target = OverlayId::from_bytes(rng.random());
        let from = alive[rng.random_range(0..alive.len())];
        let last = sim.way(from, &target).last().copied().unwrap_or(from);
        assert_eq!(last, sim.closest(&target));
        assert!(sim.tables[last].as_ref().unwrap().is_responsible(&target));
    }
}

/// Buckets in which there are peers, and of which a table has no link.
fn gaps(sim: &Sim) -> usize {
    let mut ids: Vec<OverlayId> = sim.alive().into_iter().map(|peer| sim.id(peer)).collect();
    ids.sort_unstable();
    let gaps = |table: &Kademlia| {
        let has_peers = |bucket: &u32| {
            // The ids of a bucket are an interval.
            let (from, to) = interval(&table.id, *bucket);
            ids.partition_point(|id| *id < from) < ids.partition_point(|id| *id <= to)
        };
        (0..OverlayId::BITS).filter(|bucket| table.links.count(*bucket) == 0).filter(has_peers).count()
    };
    sim.tables.iter().flatten().map(gaps).sum()
}

/// The first and the last id of a bucket.
fn interval(own: &OverlayId, bucket: u32) -> (OverlayId, OverlayId) {
    let at = OverlayId::BYTES - 1 - bucket as usize / 8;
    let bit = 1u8 << (bucket % 8);
    let (mut from, mut to) = (*own.as_bytes(), *own.as_bytes());
    from[at] = (own.as_bytes()[at] ^ bit) & !(bit - 1);
    to[at] = from[at] | (bit - 1);
    from[at + 1..].fill(0);
    to[at + 1..].fill(0xff);
    (OverlayId::from_bytes(from), OverlayId::from_bytes(to))
}

fn check_bounds(sim: &Sim) {
    for table in sim.tables.iter().flatten() {
        assert!(table.links.fit().len() <= table.config.cap);
        assert!((0..160).all(|bucket| table.links.count(bucket) <= table.config.bucket));
    }
}

#[test]
fn each_lookup_arrives() {
    let sim = grown(80, KademliaConfig::default(), 1);
    check_bounds(&sim);
    assert_eq!(gaps(&sim), 0);
    check_responsible(&sim, 500);
    assert!(hops(&sim, 1000) < 2.0);
}

#[test]
fn a_network_that_loses_a_third_of_its_peers_recovers() {
    let mut sim = grown(60, KademliaConfig::default(), 2);
    let mut rng = SmallRng::seed_from_u64(5);
    let gone: Vec<usize> = (0..60).filter(|_| rng.random_bool(0.3)).collect();
    sim.vanish(&gone);
    sim.run(Duration::from_secs(300));
    check_bounds(&sim);
    assert_eq!(gaps(&sim), 0);
    check_responsible(&sim, 500);
    assert!(hops(&sim, 1000) < 2.0);
    // And then it is quiet again.
    sim.run(Duration::from_secs(3600));
    let (messages, dials) = (sim.messages, sim.dials);
    sim.run(Duration::from_secs(3600));
    let minutes = 60.0 * sim.alive().len() as f64;
    assert!((sim.messages - messages) as f64 / minutes < 1.5);
    assert!((sim.dials - dials) as f64 / minutes < 0.1);
}

#[test]
fn two_halves_become_one_by_a_single_link() {
    let mut sim = grown(40, KademliaConfig::default(), 3);
    sim.divide();
    // Until every attempt has failed, and both have settled.
    sim.run(Duration::from_secs(20 * 60));
    assert!(gaps(&sim) > 0);
    sim.link(0, 1);
    sim.run(Duration::from_secs(60));
    assert_eq!(gaps(&sim), 0);
    check_responsible(&sim, 500);
    hops(&sim, 500);
}

/// For a table of figures: `PMESH_PEERS=1000 PMESH_TARGET=60 cargo test --release --lib kademlia::tests::network::what_it_costs --
/// --nocapture`.
#[test]
fn what_it_costs() {
    let setting = |name, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (peers, target) = (setting("PMESH_PEERS", 40), setting("PMESH_TARGET", 20));
    let sim = &mut grown(peers, KademliaConfig { target, ..KademliaConfig::default() }, 1);
    let each = |total: u64| total as f64 / peers as f64;
    println!("{peers} peers, target {target}: {:.2} hops, {} buckets without link", hops(sim, 2000), gaps(sim));
    let counts: Vec<usize> = sim.tables.iter().flatten().map(|table| table.links.fit().len()).collect();
    println!("  links: {:.1}, at most {:?}", each(counts.iter().sum::<usize>() as u64), counts.iter().max());
    println!("  for each join: {:.0} messages, {:.0} bytes", each(sim.messages), each(sim.message_bytes));
    println!(
        "    {:.1} dials, of these {:.1} refused; {:.1} released",
        each(sim.dials),
        each(sim.refused),
        each(sim.released)
    );
    println!("  {} bytes each", sim.tables.iter().flatten().map(Kademlia::state_bytes).sum::<usize>() / peers);
    sim.run(Duration::from_secs(2 * 3600));
    let before = (sim.messages, sim.dials);
    sim.run(Duration::from_secs(3600));
    let (messages, dials) = (sim.messages - before.0, sim.dials - before.1);
    println!(
        "  idle, in an hour: {:.1} messages, {:.2} dials; {:.2} hops",
        each(messages),
        each(dials),
        hops(sim, 2000)
    );
    assert_eq!(gaps(sim), 0);
    assert!(each(messages) < 60.0 && each(dials) < 6.0);
}
