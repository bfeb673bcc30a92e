//! Messages between random peers, and how they fare.

use std::time::Duration;

use crate::observe::{Class, Traffic};
use crate::world::{Peer, World};

/// How long a message may take that wants a confirmation.
pub const WITHIN: Duration = Duration::from_secs(20);

/// How messages between random peers have fared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fares {
    /// How many were sent, between peers that were there as long as it may take.
    pub sent: usize,
    /// How many arrived.
    pub delivered: usize,
    /// How many the sender knows to have arrived.
    pub confirmed: usize,
    /// How often one arrived that had been there before.
    pub twice: usize,
    /// Mean number of sends that brought one there.
    pub hops: f64,
    /// The number that 99 of 100 do not exceed.
    pub hops_p99: u32,
    /// Mean time on the way.
    pub time: Duration,
    /// All that was sent by anybody in that time.
    pub traffic: Traffic,
}

impl Fares {
    /// Share of messages that arrived.
    pub fn rate(&self) -> f64 {
        self.delivered as f64 / self.sent.max(1) as f64
    }

    /// Share of messages that did not arrive, of ten thousand.
    pub fn failures(&self) -> f64 {
        (1.0 - self.rate()) * 10_000.0
    }

    /// Packets of a class, by anybody, for each delivery.
    pub fn each(&self, class: Class) -> f64 {
        self.traffic[class] as f64 / self.delivered.max(1) as f64
    }

    /// Messages for each delivery: the message itself, and its receipt. Receipts of signals, with which links are made meanwhile, take as
    /// many sends as the signals, and do not count.
    pub fn messages(&self) -> f64 {
        self.each(Class::User) + self.each(Class::Receipt) - self.each(Class::Signal)
    }

    /// Answers of hops for each delivery, without those for signals and their receipts.
    pub fn answers(&self) -> f64 {
        self.each(Class::Answer) - 2.0 * self.each(Class::Signal)
    }
}

/// Sends so many messages between random honest peers, so many each second of virtual time, and waits until none is on its way.
pub fn send(world: &mut World, count: usize, per_second: f64, confirm: bool) -> Fares {
    let pairs = pairs(world, count);
    send_between(world, &pairs, per_second, confirm)
}

/// Sends so many messages with a confirmation, and does not wait for what becomes of them. `look` is called after each.
pub fn send_off(world: &mut World, count: usize, per_second: f64, mut look: impl FnMut(&World)) {
    for (from, to) in pairs(world, count) {
        world.send(from, to, Some(WITHIN));
        world.run_for(Duration::from_secs_f64(1.0 / per_second));
        look(world);
    }
}

/// Random pairs of honest peers.
pub fn pairs(world: &mut World, count: usize) -> Vec<(Peer, Peer)> {
    let mut pairs = Vec::with_capacity(count);
    while pairs.len() < count {
        match (world.random_peer(), world.random_peer()) {
            (Some(from), Some(to)) if from != to => pairs.push((from, to)),
            (Some(_), Some(_)) => {}
            _ => break,
        }
    }
    pairs
}

/// As [`send`], between these.
pub fn send_between(world: &mut World, pairs: &[(Peer, Peer)], per_second: f64, confirm: bool) -> Fares {
    let (before, first) = (world.traffic(), world.sends());
    let pause = Duration::from_secs_f64(1.0 / per_second);
    for (from, to) in pairs {
        world.send(*from, *to, confirm.then_some(WITHIN));
        world.run_for(pause);
    }
    world.run_for(if confirm { WITHIN + Duration::from_secs(1) } else { Duration::from_secs(12) });
    fares(world, first, world.traffic() - before)
}

/// How those sent since `first` have fared.
pub fn fares(world: &World, first: usize, traffic: Traffic) -> Fares {
    let sends: Vec<_> = world
        .sends_since(first)
        .iter()
        .filter(|send| {
            let end = send.at + WITHIN.as_micros() as u64;
            world.was_there(send.from, end) && world.was_there(send.to, end)
        })
        .collect();
    let mut hops: Vec<u32> = sends.iter().filter(|send| send.deliveries > 0).map(|send| send.hops).collect();
    hops.sort_unstable();
    let delivered = hops.len();
    let micros: u64 = sends.iter().filter(|send| send.deliveries > 0).map(|send| send.delivered_at - send.at).sum();
    Fares {
        sent: sends.len(),
        delivered,
        confirmed: sends.iter().filter(|send| send.confirmed == Some(true)).count(),
        twice: sends.iter().map(|send| send.deliveries.saturating_sub(1) as usize).sum(),
        hops: hops.iter().sum::<u32>() as f64 / delivered.max(1) as f64,
        hops_p99: hops.get(delivered * 99 / 100).copied().unwrap_or(0),
        time: Duration::from_micros(micros / delivered.max(1) as u64),
        traffic,
    }
}
