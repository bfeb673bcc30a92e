//! How far messages go, and what the network costs.

use std::time::Duration;

use super::{grow, grown, laid_out, progress, resident, settle};
use crate::lookups::{self, Fares};
use crate::observe::Traffic;
use crate::world::{Oddities, Settings, World};

/// What a network of one size does and costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Peers.
    pub nodes: usize,
    /// Share of peers with the links without which a message may get lost.
    pub right: f64,
    /// Messages without a confirmation.
    pub plain: Fares,
    /// The same pairs again, with a confirmation: now the senders know the keys.
    pub confirmed: Fares,
    /// Links of a peer: mean and most.
    pub links: (f64, usize),
    /// Messages for each delivery by the rule of the original, and its share of deliveries.
    pub original: (f64, f64),
    /// Packets and bytes, by anybody, for each peer that joins.
    pub join: (f64, f64),
    /// What was sent for each peer and second while nothing happened: packets, bytes, and packets of the table alone.
    pub idle: (f64, f64, f64),
    /// Bytes of a table, as it says.
    pub state: f64,
    /// Bytes of memory of the whole process for each peer, if this is the first network in it.
    pub resident: Option<f64>,
    /// What should not happen.
    pub oddities: Oddities,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Messages.
    pub messages: usize,
    /// Peers that join to see what it costs.
    pub joins: usize,
    /// How long the network is watched while nothing happens.
    pub idle: Duration,
    /// Whether a ring is put together as it should be, and does not grow.
    pub laid_out: bool,
}

/// Bytes of memory of a process that has done nothing yet, at most.
const FRESH: u64 = 8 << 20;

/// Measures a network of this size.
pub fn run(settings: Settings, nodes: usize, effort: Effort) -> Row {
    let table = settings.table.clone();
    let first = resident() < FRESH;
    let mut world = if effort.laid_out { laid_out(settings, nodes) } else { grown(settings, nodes) };
    let right = world.right(&table);
    progress(&world, "settled");

    let before = world.traffic();
    world.run_for(effort.idle);
    let idle = world.traffic() - before;
    let idle_for = nodes as f64 * effort.idle.as_secs_f64();
    let state = state(&world);
    let resident = first.then(|| resident() as f64 / nodes as f64);
    let links = links(&world);

    let pairs = lookups::pairs(&mut world, effort.messages);
    let rate = (effort.messages as f64 / 60.0).max(1.0);
    let plain = lookups::send_between(&mut world, &pairs, rate, false);
    let confirmed = lookups::send_between(&mut world, &pairs, rate, true);
    progress(&world, "messages sent");
    let original = original(&world, &pairs[..pairs.len().min(1000)]);

    let (before, from) = (world.traffic(), world.elapsed());
    grow(&mut world, nodes + effort.joins);
    settle(&mut world, &table, Duration::from_secs(60), Duration::from_secs(60));
    let joining = world.traffic() - before;
    let share = (world.elapsed() - from).as_secs_f64() / effort.idle.as_secs_f64();
    let join = |all: fn(&Traffic) -> u64| (all(&joining) as f64 - all(&idle) as f64 * share) / effort.joins as f64;

    Row {
        nodes,
        right,
        plain,
        confirmed,
        links,
        original,
        join: (join(Traffic::packets), join(|traffic| traffic.bytes)),
        idle: (
            idle.packets() as f64 / idle_for,
            idle.bytes as f64 / idle_for,
            (idle[crate::observe::Class::Table] + idle[crate::observe::Class::Lookup]) as f64 / idle_for,
        ),
        state,
        resident,
        oddities: world.oddities(),
    }
}

fn links(world: &World) -> (f64, usize) {
    let counts = || world.alive().iter().map(|peer| world.links(*peer).len());
    (counts().sum::<usize>() as f64 / world.alive().len() as f64, counts().max().unwrap_or(0))
}

fn state(world: &World) -> f64 {
    let routers = world.alive().iter().filter_map(|peer| world.router(*peer));
    routers.map(|router| router.routing().state_bytes()).sum::<usize>() as f64 / world.alive().len() as f64
}

fn original(world: &World, pairs: &[(u32, u32)]) -> (f64, f64) {
    let (mut messages, mut delivered) = (0, 0);
    for (from, to) in pairs {
        let (sent, arrived) = world.original(*from, *to);
        messages += sent;
        delivered += u64::from(arrived);
    }
    (messages as f64 / delivered.max(1) as f64, delivered as f64 / pairs.len().max(1) as f64)
}
