//! Peers that do harm. Each has a router of its own, so that it is a part of the network; what that says is altered or left out.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use pmesh::overlay::OverlayId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::observe::{Class, MESSAGE, TABLE, class};

/// How often an attacker acts by itself.
pub const TICK: Duration = Duration::from_millis(100);

const RECORDED: usize = 100;
const HOPS_AT: usize = 1;
const HOP_AT: usize = 2;
const FLAGS_AT: usize = 6;
const PURPOSE_AT: usize = 7;
const NONCE_AT: usize = 8;
const TO_AT: usize = 20;
const FROM_AT: usize = 40;
const KEY_AT: usize = 60;
const HEAD_BYTES: usize = 60;
const CONFIRM: u8 = 1 << 2;
const TAKEN: u8 = 3;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Behaviour {
    /// Forwards nothing.
    Drop,
    /// Forwards nothing, and says that it has.
    TakeAndDrop,
    /// Sends messages with the id of somebody else, with and without that one's key, and altered ones.
    Claim,
    /// Speaks nonsense to the tables of others, or names ids that nobody has: 10,000 at once, or as many as may be.
    Junk,
    /// Sends what it has forwarded again and again.
    Replay,
    /// Sends what it should forward to anybody, as if it had not gone far.
    Loop,
    /// Sends so many messages each second, from nobody to nobody.
    Flood(u32),
    /// Wants a link to this peer, and forwards nothing.
    Eclipse(OverlayId),
}

/// Where a packet of its own goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Back,
    Any,
}

/// A peer that does harm.
#[derive(Debug)]
pub struct Attacker {
    behaviour: Behaviour,
    recorded: Vec<Bytes>,
    says: Vec<(Way, Bytes)>,
    rng: SmallRng,
}

impl Attacker {
    /// It behaves like this.
    pub fn new(behaviour: Behaviour, seed: u64) -> Self {
        Self { behaviour, recorded: Vec::new(), says: Vec::new(), rng: SmallRng::seed_from_u64(seed) }
    }

    /// What its router gets of a packet that has come.
    pub(crate) fn receive(&mut self, own: &OverlayId, packet: Bytes) -> Option<Bytes> {
        let for_others = packet.first() == Some(&MESSAGE) && packet.get(TO_AT..FROM_AT) != Some(own.as_bytes());
        if !for_others {
            return Some(packet);
        }
        let confirm = packet.get(FLAGS_AT).is_some_and(|flags| flags & CONFIRM != 0);
        match self.behaviour {
            Behaviour::Drop | Behaviour::Eclipse(_) => return None,
            Behaviour::TakeAndDrop => {
                if confirm {
                    self.says.push((Way::Back, taken(&packet)));
                }
                return None;
            }
            Behaviour::Loop => {
                if confirm {
                    self.says.push((Way::Back, taken(&packet)));
                }
                let mut again = BytesMut::from(&packet[..]);
                again[HOPS_AT] = 63;
                let again = again.freeze();
                self.says.extend([(Way::Any, again.clone()), (Way::Any, again)]);
                return None;
            }
            Behaviour::Replay | Behaviour::Claim if class(&packet) == Class::User => {
                if self.recorded.len() < RECORDED {
                    self.recorded.push(packet.clone());
                } else {
                    self.recorded[self.rng.random_range(0..RECORDED)] = packet.clone();
                }
            }
            _ => {}
        }
        Some(packet)
    }

    /// What goes out of a packet of its router.
    pub(crate) fn send(&mut self, packet: Bytes) -> Option<Bytes> {
        if self.behaviour != Behaviour::Junk || packet.first() != Some(&TABLE) {
            return Some(packet);
        }
        let mut junk = BytesMut::new();
        let (head, bytes) = match self.rng.random_range(0..3) {
            0 => (1, packet.len()),
            1 => (packet.len().min(6), 10_000 * OverlayId::BYTES),
            _ => (packet.len().min(6), packet.len().saturating_sub(6)),
        };
        junk.put_slice(&packet[..head]);
        junk.extend((0..bytes).map(|_| self.rng.random::<u8>()));
        Some(junk.freeze())
    }

    /// What it does by itself, each [`TICK`]. `other` is somebody's id.
    pub(crate) fn tick(&mut self, other: OverlayId) {
        match self.behaviour {
            Behaviour::Flood(per_second) => {
                for _ in 0..per_second / 10 {
                    let mut packet = BytesMut::zeroed(300);
                    packet[..FLAGS_AT + 2].copy_from_slice(&[MESSAGE, 31, 0, 0, 0, 0, 0, 1]);
                    self.rng.fill(&mut packet[NONCE_AT..]);
                    packet[TO_AT..FROM_AT].copy_from_slice(other.as_bytes());
                    self.says.push((Way::Any, packet.freeze()));
                }
            }
            Behaviour::Replay => {
                for packet in self.recorded.iter().take(20) {
                    self.says.push((Way::Any, packet.clone()));
                }
            }
            Behaviour::Claim => {
                let recorded = std::mem::take(&mut self.recorded);
                for packet in recorded.iter().filter(|packet| packet.len() > HEAD_BYTES + 32).take(20) {
                    let mut forged = BytesMut::from(&packet[..]);
                    match self.rng.random_range(0..4) {
                        // Another's id with the key of the sender.
                        0 => forged[FROM_AT..HEAD_BYTES].copy_from_slice(other.as_bytes()),
                        // Another's id and key.
                        1 => {
                            forged[FROM_AT..HEAD_BYTES].copy_from_slice(other.as_bytes());
                            forged[KEY_AT..KEY_AT + OverlayId::BYTES].copy_from_slice(other.as_bytes());
                        }
                        // Other words.
                        2 => forged[KEY_AT + 60] ^= 1,
                        // What the sender may send next, so that this is taken for a duplicate.
                        _ => {
                            forged[NONCE_AT + 11] = forged[NONCE_AT + 11].wrapping_add(1);
                            forged[KEY_AT + 60] ^= 1;
                        }
                    }
                    self.says.push((Way::Any, forged.freeze()));
                }
            }
            _ => {}
        }
    }

    /// To whom it wants a link.
    pub(crate) fn wants(&self) -> Option<OverlayId> {
        if let Behaviour::Eclipse(victim) = self.behaviour { Some(victim) } else { None }
    }

    /// Takes the packets that it sends beside those of its router.
    pub(crate) fn says(&mut self) -> Vec<(Way, Bytes)> {
        std::mem::take(&mut self.says)
    }
}

fn taken(packet: &[u8]) -> Bytes {
    let mut taken = BytesMut::with_capacity(5);
    taken.put_u8(TAKEN);
    taken.put_slice(&packet[HOP_AT..FLAGS_AT]);
    debug_assert!(packet.len() > PURPOSE_AT);
    taken.freeze()
}
