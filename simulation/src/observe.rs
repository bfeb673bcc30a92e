//! What is on the links, as the router's wire format has it: `src/overlay/router/wire.rs` of pmesh.

use std::ops::{Add, Index, Sub};

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Neighbours say hello.
    Hello,
    /// A message of the routing table, from neighbour to neighbour.
    Table,
    /// A message of the routing table, to whoever is closest.
    Lookup,
    /// A hop says that it has taken a message, or has not.
    Answer,
    /// A neighbour is asked whether it is there, or says so.
    Liveness,
    /// An offer or an answer, which make a link.
    Signal,
    /// What the simulated application has sent.
    User,
    /// Asks for the key of a destination, or tells it.
    Key,
    /// Tells that a message has arrived.
    Receipt,
    /// Anything else: only attackers send such.
    Other,
}

const CLASSES: usize = Class::Other as usize + 1;

/// First byte of a packet that is a message.
pub const MESSAGE: u8 = 2;
/// First byte of a packet that is a message of the table.
pub const TABLE: u8 = 1;

/// What this packet is for.
pub fn class(packet: &[u8]) -> Class {
    match (packet.first(), packet.get(7)) {
        (Some(0), _) => Class::Hello,
        (Some(&TABLE), _) => Class::Table,
        (Some(&MESSAGE), Some(0..=3 | 5..=6)) => Class::User,
        (Some(&MESSAGE), Some(4)) => Class::Signal,
        (Some(&MESSAGE), Some(16)) => Class::Lookup,
        (Some(&MESSAGE), Some(17..=19)) => Class::Key,
        (Some(&MESSAGE), Some(20)) => Class::Receipt,
        (Some(3..=4), _) => Class::Answer,
        (Some(5..=6), _) => Class::Liveness,
        _ => Class::Other,
    }
}

/// How many sends have brought a message here, of `most` that it may cause.
pub fn sends(packet: &[u8], most: u8) -> Option<u8> {
    let left = *packet.get(1)?;
    (packet[0] == MESSAGE).then(|| most.saturating_sub(left))
}

/// How many packets were sent of each [`Class`], and how many bytes they had in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    packets: [u64; CLASSES],
    /// Bytes of all packets.
    pub bytes: u64,
}

impl Traffic {
    /// Counts a packet.
    pub fn count(&mut self, packet: &[u8]) {
        self.packets[class(packet) as usize] += 1;
        self.bytes += packet.len() as u64;
    }

    /// All packets.
    pub fn packets(&self) -> u64 {
        self.packets.iter().sum()
    }
}

impl Index<Class> for Traffic {
    type Output = u64;

    fn index(&self, class: Class) -> &u64 {
        &self.packets[class as usize]
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(mut self, before: Self) -> Self {
        self.packets.iter_mut().zip(before.packets).for_each(|(now, before)| *now -= before);
        self.bytes -= before.bytes;
        self
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.packets.iter_mut().zip(other.packets).for_each(|(sum, other)| *sum += other);
        self.bytes += other.bytes;
        self
    }
}
