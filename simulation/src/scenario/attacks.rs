//! Peers that do harm.

use std::time::Duration;

use pmesh::overlay::OverlayId;
use pmesh::overlay::router::{Counters, Rate};
use rand::RngExt;

use super::{progress, settle};
use crate::attack::{Attacker, Behaviour};
use crate::lookups::{self, Fares};
use crate::world::{Oddities, Settings, World};

/// How honest peers fare.
#[derive(Debug, Clone, PartialEq)]
pub struct Harm {
    /// What the others do.
    pub name: &'static str,
    /// Messages between honest peers, without a confirmation.
    pub plain: Fares,
    /// The same with one.
    pub confirmed: Fares,
    /// What honest routers have counted, in all.
    pub counters: Counters,
    /// What honest tables have ignored, in all.
    pub ignored: u64,
    /// Bytes of the largest table of an honest peer, before the attackers came and at the end.
    pub state: (usize, usize),
    /// Most links of an honest peer.
    pub links: usize,
    /// Links of the victim to attackers and to honest peers, if there is a victim.
    pub victim: Option<(usize, usize)>,
    /// What should not happen.
    pub oddities: Oddities,
}

/// The attacks: their names, what is done, and by how many of a hundred peers.
pub const ATTACKS: [(&str, Option<Behaviour>, usize); 8] = [
    ("nobody does harm", None, 0),
    ("20 % drop everything", Some(Behaviour::Drop), 20),
    ("20 % drop everything and say that they have taken it", Some(Behaviour::TakeAndDrop), 20),
    ("10 % claim the ids of others", Some(Behaviour::Claim), 10),
    ("10 % answer with junk or 10,000 ids", Some(Behaviour::Junk), 10),
    ("10 % replay", Some(Behaviour::Replay), 10),
    ("10 % send in circles", Some(Behaviour::Loop), 10),
    ("2 % flood: 1,000 messages a second each", Some(Behaviour::Flood(1000)), 2),
];

/// Attackers with ids in one bucket of a victim.
pub const ECLIPSE: usize = 50;

/// Bits that those have in common with the victim: it takes 2^8 hashes to find each.
const COMMON_BITS: usize = 8;

/// What a router lets a neighbour send where there is a flood: a simulation of one that uses up the default takes too long.
const FLOODED: Rate = Rate { messages: 100, bytes: 1 << 20, burst_seconds: 2 };
/// And what it relays in all.
const BUSY: Rate = Rate { messages: 100, bytes: 4 << 20, burst_seconds: 1 };

/// A network where some behave like this.
pub fn attack(
    settings: Settings,
    nodes: usize,
    (name, behaviour, percent): (&'static str, Option<Behaviour>, usize),
    messages: usize,
) -> Harm {
    let mut settings = settings;
    if matches!(behaviour, Some(Behaviour::Flood(_))) {
        settings.router.neighbour_budget = FLOODED;
        settings.router.relay_budget = BUSY;
    }
    let attackers = (nodes * percent).div_ceil(100);
    let (mut world, before) = honest(settings, nodes - attackers);
    for _ in 0..attackers {
        let (id, seed) = (OverlayId::from_bytes(world.rng().random()), world.rng().random());
        world.join_as(id, behaviour.map(|behaviour| Attacker::new(behaviour, seed)));
        world.run_for(Duration::from_millis(200));
    }
    world.run_for(Duration::from_secs(60));
    let pairs = lookups::pairs(&mut world, messages);
    harm(world, name, before, &pairs, None)
}

/// A network where attackers have found ids near a victim, and want all its links there; they forward nothing.
pub fn eclipse(settings: Settings, nodes: usize, messages: usize) -> Option<Harm> {
    let (mut world, before) = honest(settings, nodes);
    let victim = world.random_peer()?;
    let target = world.id(victim);
    for _ in 0..ECLIPSE {
        let (mut bytes, seed) = (world.rng().random::<[u8; 20]>(), world.rng().random());
        bytes[..COMMON_BITS / 8].copy_from_slice(&target.as_bytes()[..COMMON_BITS / 8]);
        bytes[COMMON_BITS / 8] = (target.as_bytes()[COMMON_BITS / 8] ^ 0x80) & 0x80 | bytes[COMMON_BITS / 8] & 0x7f;
        world.join_as(OverlayId::from_bytes(bytes), Some(Attacker::new(Behaviour::Eclipse(target), seed)));
        world.run_for(Duration::from_millis(200));
    }
    world.run_for(Duration::from_secs(120));
    let mut pairs = lookups::pairs(&mut world, messages);
    for (at, pair) in pairs.iter_mut().enumerate() {
        *(if at % 2 == 0 { &mut pair.0 } else { &mut pair.1 }) = victim;
    }
    pairs.retain(|(from, to)| from != to);
    Some(harm(world, "50 ids in one bucket of a victim, which drop everything", before, &pairs, Some(victim)))
}

fn honest(settings: Settings, nodes: usize) -> (World, usize) {
    let table = settings.table.clone();
    let mut world = World::new(Settings { authentic: true, ..settings });
    super::grow(&mut world, nodes);
    settle(&mut world, &table, Duration::from_secs(60), Duration::from_secs(300));
    let before = state(&world);
    (world, before)
}

fn state(world: &World) -> usize {
    let honest = world.alive().iter().filter(|peer| !world.attacks(**peer));
    honest.filter_map(|peer| world.router(*peer)).map(|router| router.routing().state_bytes()).max().unwrap_or(0)
}

fn harm(mut world: World, name: &'static str, before: usize, pairs: &[(u32, u32)], victim: Option<u32>) -> Harm {
    let rate = pairs.len() as f64 / 30.0;
    let plain = lookups::send_between(&mut world, pairs, rate, false);
    let confirmed = lookups::send_between(&mut world, pairs, rate, true);
    progress(&world, name);
    let honest: Vec<u32> = world.alive().iter().filter(|peer| !world.attacks(**peer)).copied().collect();
    let mut counters = Counters::default();
    honest.iter().filter_map(|peer| world.counters(*peer)).for_each(|more| add(&mut counters, &more));
    Harm {
        name,
        plain,
        confirmed,
        counters,
        ignored: honest.iter().filter_map(|peer| world.router(*peer)).map(|router| router.routing().ignored()).sum(),
        state: (before, state(&world)),
        links: honest.iter().map(|peer| world.links(*peer).len()).max().unwrap_or(0),
        victim: victim.map(|victim| {
            let bad = world.links(victim).filter(|(_, peer)| world.attacks(*peer)).count();
            (bad, world.links(victim).len() - bad)
        }),
        oddities: world.oddities(),
    }
}

fn add(sum: &mut Counters, more: &Counters) {
    sum.sent += more.sent;
    sum.forwarded += more.forwarded;
    sum.delivered += more.delivered;
    sum.malformed += more.malformed;
    sum.over_budget += more.over_budget;
    sum.duplicates += more.duplicates;
    sum.out_of_hops += more.out_of_hops;
    sum.no_route += more.no_route;
    sum.not_authentic += more.not_authentic;
    sum.stale += more.stale;
    sum.replayed += more.replayed;
    sum.full += more.full;
    sum.unexpected += more.unexpected;
    sum.rerouted += more.rerouted;
    sum.retried += more.retried;
}
