//! What is measured.

pub mod attacks;
pub mod churn;
pub mod hops;

use std::time::Duration;

use pmesh::overlay::{Distance, OverlayId, RingId};

use crate::world::{Peer, Settings, Table, World};

/// Lets a network grow to this many peers: by five a second, or by one in a hundred, so that it can keep up. Then lets it settle.
pub fn grown(settings: Settings, nodes: usize) -> World {
    let table = settings.table.clone();
    let mut world = World::new(settings);
    grow(&mut world, nodes);
    settle(&mut world, &table, Duration::from_secs(120), Duration::from_secs(600));
    world
}

/// Puts a ring together as it should be, each peer with its successors and fingers, within a minute and a half, and lets it settle. To
/// grow as large takes a hundred times as many messages.
pub fn laid_out(settings: Settings, nodes: usize) -> World {
    let table = settings.table.clone();
    let Table::Chord(config) = &table else { return grown(settings, nodes) };
    let mut world = World::new(settings);
    let peers: Vec<Peer> = (0..nodes).map(|_| world.add_apart()).collect();
    let mut order: Vec<(OverlayId, Peer)> = peers.iter().map(|peer| (world.id(*peer), *peer)).collect();
    order.sort_unstable();
    for (at, (id, peer)) in order.iter().enumerate() {
        let starts = config.rows.iter().map(|row| id.at(&Distance::power_of_two(OverlayId::BITS - RingId::BITS + row)));
        let fingers = starts.map(|start| order.partition_point(|(other, _)| *other < start));
        let mut links: Vec<Peer> =
            (1..=config.successors).map(|step| at + step).chain(fingers).map(|at| order[at % nodes].1).collect();
        links.sort_unstable();
        links.dedup();
        for other in links.into_iter().filter(|other| other != peer) {
            world.introduce(*peer, other);
        }
    }
    progress(&world, "laid out");
    settle(&mut world, &table, Duration::from_secs(120), Duration::from_secs(600));
    world
}

/// Adds peers until there are so many.
pub fn grow(world: &mut World, nodes: usize) {
    let mut shown = 0;
    while world.alive().len() < nodes {
        let joining = (world.alive().len() / 100).max(5).min(nodes - world.alive().len());
        for _ in 0..joining {
            world.join();
            world.run_for(Duration::from_secs(1) / joining as u32);
        }
        if world.alive().len() >= shown + 5_000 {
            shown = world.alive().len();
            progress(world, "joining");
        }
    }
}

/// Lets at least `least` pass, and at most `most`, until all tables are right. Whether they are.
pub fn settle(world: &mut World, table: &Table, least: Duration, most: Duration) -> bool {
    world.run_for(least);
    let end = world.elapsed() + most.saturating_sub(least);
    loop {
        let right = world.right(table);
        if right == 1.0 || world.elapsed() >= end {
            return right == 1.0;
        }
        world.run_for(Duration::from_secs(10));
    }
}

/// Tells on stderr how far it is.
pub fn progress(world: &World, doing: &str) {
    eprintln!(
        "{doing}: {} peers at {} s, {} million events, {} MB",
        world.alive().len(),
        world.elapsed().as_secs(),
        world.events() / 1_000_000,
        resident() >> 20,
    );
}

/// Bytes of memory of this process, as far as the system tells.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}
