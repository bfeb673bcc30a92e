//! Peers come and go, many at once or all the time; the network falls apart and heals.

use std::time::Duration;

use rand::RngExt;

use super::{grown, progress};
use crate::lookups::{self, Fares, WITHIN};
use crate::world::{Oddities, Settings, Table, World};

/// How often to look whether all tables are right.
const LOOK: Duration = Duration::from_secs(1);

/// What happens when some vanish at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Failures {
    /// Share of peers that vanish.
    pub share: f64,
    /// Messages sent at once, before anybody has noticed. With a confirmation, as all here.
    pub at_once: Fares,
    /// Time from the failure until all tables are right, if they are within 10 minutes.
    pub right_after: Option<Duration>,
    /// Messages sent after that.
    pub mended: Fares,
    /// What should not happen.
    pub oddities: Oddities,
}

/// Lets this share of a network of this size vanish at once.
pub fn failures(settings: Settings, nodes: usize, share: f64, messages: usize) -> Failures {
    let (table, detect) = (settings.table.clone(), settings.detect);
    let mut world = grown(settings, nodes);
    for _ in 0..(nodes as f64 * share) as usize {
        if let Some(peer) = world.random_peer() {
            world.vanish(peer);
        }
    }
    let failed = world.elapsed();
    let first = world.sends();
    let before = world.traffic();
    let (mut right, mut looked) = ((world.right(&table) >= 1.0).then_some(failed), failed);
    lookups::send_off(&mut world, messages, messages as f64 / (detect.as_secs_f64() * 0.6), |world| {
        if right.is_none() && world.elapsed() >= looked + LOOK {
            looked = world.elapsed();
            right = (world.right(&table) >= 1.0).then_some(looked);
        }
    });
    let right = right.or_else(|| until_right(&mut world, &table, Duration::from_secs(600)));
    let right_after = right.map(|at| at.saturating_sub(failed));
    world.run_for(WITHIN);
    let at_once = lookups::fares(&world, first, world.traffic() - before);
    let mended = lookups::send(&mut world, messages, messages as f64 / 10.0, true);
    let (hops, rate) = (at_once.hops, at_once.rate());
    progress(&world, &format!("{share} vanished: {hops:.2} hops, {rate:.4} at once, right after {right_after:?}"));
    Failures { share, at_once, right_after, mended, oddities: world.oddities() }
}

fn until_right(world: &mut World, table: &Table, most: Duration) -> Option<Duration> {
    let end = world.elapsed() + most;
    while world.right(table) < 1.0 {
        if world.elapsed() >= end {
            return None;
        }
        world.run_for(LOOK);
    }
    Some(world.elapsed())
}

/// What happens while peers come and go.
#[derive(Debug, Clone, PartialEq)]
pub struct Churn {
    /// Joins each second, and as many that leave.
    pub rate: f64,
    /// Ten messages a second with a confirmation.
    pub fares: Fares,
    /// Mean share of peers whose tables are right.
    pub right: f64,
    /// What should not happen.
    pub oddities: Oddities,
}

/// Lets peers join, and as many go, as Poisson processes. Those that go vanish, or close their links if `graceful`.
pub fn continuous(settings: Settings, nodes: usize, rate: f64, time: Duration, graceful: bool) -> Churn {
    let table = settings.table.clone();
    let mut world = grown(settings, nodes);
    let (first, before, end) = (world.sends(), world.traffic(), world.elapsed() + time);
    let wait = |world: &mut World, rate: f64| Duration::from_secs_f64(-(1.0 - world.rng().random::<f64>()).ln() / rate);
    let mut due = [rate, rate, 10.0, 0.05].map(|rate| world.elapsed() + wait(&mut world, rate));
    let (mut right, mut looks) = (0.0, 0);
    loop {
        let (what, at) = due.iter().enumerate().min_by_key(|(_, at)| **at).map_or((0, end), |(what, at)| (what, *at));
        if at >= end {
            break;
        }
        world.run_for(at.saturating_sub(world.elapsed()));
        let next = match what {
            0 => {
                world.join();
                rate
            }
            1 => {
                match world.random_peer() {
                    Some(peer) if graceful => world.leave(peer),
                    Some(peer) => world.vanish(peer),
                    None => {}
                }
                rate
            }
            2 => {
                for (from, to) in lookups::pairs(&mut world, 1) {
                    world.send(from, to, Some(WITHIN));
                }
                10.0
            }
            _ => {
                right += world.right(&table);
                looks += 1;
                0.05
            }
        };
        due[what] = world.elapsed() + wait(&mut world, next);
    }
    world.run_for(WITHIN + Duration::from_secs(1));
    let fares = lookups::fares(&world, first, world.traffic() - before);
    progress(&world, &format!("churn of {rate}: {:.1} of 10,000 failed", fares.failures()));
    Churn { rate, fares, right: right / f64::from(looks.max(1)), oddities: world.oddities() }
}

/// What happens when a network falls apart into two halves and is whole again.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// How long it was apart.
    pub apart: Duration,
    /// Time until it is one network again, without help.
    pub healed: Option<Duration>,
    /// If it is not within 2 minutes, as nothing leads from one half to the other: time from when one link between them was made
    /// from outside, if that is within an hour.
    pub helped: Option<Duration>,
    /// Messages after that.
    pub fares: Fares,
    /// What should not happen.
    pub oddities: Oddities,
}

/// Divides a network in two for a while.
pub fn partition(settings: Settings, nodes: usize, apart: Duration, messages: usize) -> Partition {
    let table = settings.table.clone();
    let mut world = grown(settings, nodes);
    world.divide(true);
    world.run_for(apart);
    world.divide(false);
    let begin = world.elapsed();
    let healed = until_right(&mut world, &table, Duration::from_secs(120)).map(|at| at.saturating_sub(begin));
    let mut helped = None;
    if healed.is_none() {
        let halves = [0, 1].map(|side| world.alive().iter().find(|peer| *peer % 2 == side).copied());
        if let [Some(a), Some(b)] = halves {
            world.introduce(a, b);
        }
        let begin = world.elapsed();
        helped = until_right(&mut world, &table, Duration::from_secs(3600)).map(|at| at.saturating_sub(begin));
    }
    let fares = lookups::send(&mut world, messages, messages as f64 / 10.0, true);
    progress(&world, "whole again");
    Partition { apart, healed, helped, fares, oddities: world.oddities() }
}
