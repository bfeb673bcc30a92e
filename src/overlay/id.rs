//! Names in the overlay.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::identity::PeerId;

/// Keeps these hashes apart from all others of a key.
const DOMAIN: &[u8] = b"pmesh overlay id 1\0";

/// A name in the overlay: 160 bits, most significant byte first.
///
/// That of a pmesh peer is [derived](Self::of) from its public key, so nobody can take that of another. Those of original
/// peer-relay peers are random, and anybody can claim them. As text it has 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayId([u8; Self::BYTES]);

/// The text or the bytes are no [`OverlayId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an overlay id has 40 hexadecimal digits")]
pub struct InvalidOverlayId;

/// How far two ids are from each other: by XOR as in Kademlia, or clockwise on the ring as in Chord.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; OverlayId::BYTES]);

/// The 48 most significant bits of an [`OverlayId`]: the ids of webrtc-explorer, 12 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId(u64);

impl OverlayId {
    /// Bytes of an id.
    pub const BYTES: usize = 20;
    /// Bits of an id.
    pub const BITS: u32 = 160;

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The id of a peer: the first 160 bits of SHA-256 over a constant and its public key.
    pub fn of(peer: &PeerId) -> Self {
        Self::of_key(peer.as_bytes())
    }

    /// The id of the peer with this key, if it is one.
    pub(crate) fn of_key(key: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(key).finalize();
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&digest[..Self::BYTES]);
        Self(id)
    }

    /// The bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The XOR of the two ids, as a number (Kademlia, Maymounkov and Mazières 2002).
    pub fn xor(&self, other: &Self) -> Distance {
        let [(high, low), (other_high, other_low)] = [self, other].map(|id| words(&id.0));
        let mut distance = [0; Self::BYTES];
        distance[..16].copy_from_slice(&(high ^ other_high).to_be_bytes());
        distance[16..].copy_from_slice(&(low ^ other_low).to_be_bytes());
        Distance(distance)
    }

    /// How far `other` is clockwise from this one: `(other - self) mod 2^160` (Chord, Stoica et al. 2003).
    pub fn clockwise(&self, other: &Self) -> Distance {
        let mut distance = [0; Self::BYTES];
        let mut borrow = 0;
        for at in (0..Self::BYTES).rev() {
            let difference = i16::from(other.0[at]) - i16::from(self.0[at]) - borrow;
            borrow = i16::from(difference < 0);
            distance[at] = difference.rem_euclid(256) as u8;
        }
        Distance(distance)
    }

    /// The id at this distance clockwise: `(self + distance) mod 2^160`.
    pub fn at(&self, distance: &Distance) -> Self {
        let mut id = [0; Self::BYTES];
        let mut carry = 0;
        for at in (0..Self::BYTES).rev() {
            let sum = u16::from(self.0[at]) + u16::from(distance.0[at]) + carry;
            carry = sum >> 8;
            id[at] = sum as u8;
        }
        Self(id)
    }

    /// Whether it lies clockwise behind `after`, and not behind `last`: in (after, last]. If both are the same, that is the
    /// whole ring.
    pub fn is_between(&self, after: &Self, last: &Self) -> bool {
        after == last || (self != after && after.clockwise(self) <= after.clockwise(last))
    }

    /// The 48 most significant bits.
    pub fn ring(&self) -> RingId {
        RingId(self.0[..6].iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

impl Distance {
    /// No distance.
    pub const ZERO: Self = Self([0; OverlayId::BYTES]);

    /// 2 to the power of `exponent`, which is below 160.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn power_of_two(exponent: u32) -> Self {
        assert!(exponent < OverlayId::BITS, "2^{exponent} is no distance");
        let mut distance = [0; OverlayId::BYTES];
        distance[OverlayId::BYTES - 1 - exponent as usize / 8] = 1 << (exponent % 8);
        Self(distance)
    }

    /// The number of the most significant bit that is set, from 0 to 159, or `None` if the distance is zero. By XOR, it
    /// numbers the bucket.
    pub fn log2(&self) -> Option<u32> {
        match words(&self.0) {
            (0, low) => low.checked_ilog2(),
            (high, _) => Some(u32::BITS + high.ilog2()),
        }
    }
}

impl RingId {
    /// Bits of a ring id.
    pub const BITS: u32 = 48;

    /// The ring id with this number, of which the lowest 48 bits count.
    pub const fn new(number: u64) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    /// As a number below 2^48.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The smallest [`OverlayId`] that has this ring id.
    pub fn first(self) -> OverlayId {
        let mut id = [0; OverlayId::BYTES];
        id[..6].copy_from_slice(&self.0.to_be_bytes()[2..]);
        OverlayId(id)
    }
}

/// The number in two words: routing tables do little else than compare distances.
fn words(bytes: &[u8; OverlayId::BYTES]) -> (u128, u32) {
    let (mut high, mut low) = ([0; 16], [0; 4]);
    high.copy_from_slice(&bytes[..16]);
    low.copy_from_slice(&bytes[16..]);
    (u128::from_be_bytes(high), u32::from_be_bytes(low))
}

impl fmt::Display for OverlayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for OverlayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OverlayId({self})")
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distance({})", HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:012x}", self.0))
    }
}

impl fmt::Debug for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingId({self})")
    }
}

impl FromStr for OverlayId {
    type Err = InvalidOverlayId;

    fn from_str(text: &str) -> Result<Self, InvalidOverlayId> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| InvalidOverlayId)?;
        bytes.try_into().map(Self).map_err(|_| InvalidOverlayId)
    }
}

impl Serialize for OverlayId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OverlayId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'_, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    fn id(first: u8, last: u8) -> OverlayId {
        let mut bytes = [0; OverlayId::BYTES];
        (bytes[0], bytes[OverlayId::BYTES - 1]) = (first, last);
        OverlayId(bytes)
    }

    #[test]
    fn the_id_of_a_peer_is_its_own() {
        let (a, b) = (Identity::from_secret([1; 32]).peer_id(), Identity::from_secret([2; 32]).peer_id());
        assert_eq!(OverlayId::of(&a), OverlayId::of(&a));
        assert_ne!(OverlayId::of(&a), OverlayId::of(&b));
        assert_eq!(OverlayId::of(&a).to_string(), "a2ed028bceb63babcd3fb2f1188f1f038592e57b");
    }

    #[test]
    fn text() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        let id: OverlayId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(id.ring().to_string(), "0123456789ab");
        for wrong in ["", &text[1..], &text[2..], &format!("{text}00"), &text.replace('0', "g")] {
            assert_eq!(wrong.parse::<OverlayId>(), Err(InvalidOverlayId));
        }
    }

    #[test]
    fn segments_of_the_ring() {
        let (a, b, c) = (id(1, 0), id(2, 0), id(250, 0));
        assert!(b.is_between(&a, &c) && b.is_between(&a, &b) && !a.is_between(&a, &b));
        assert!(a.is_between(&c, &b) && !b.is_between(&c, &a));
        assert!(a.is_between(&a, &a) && b.is_between(&a, &a), "alone on the ring");
    }

    #[test]
    fn powers_of_two() {
        for exponent in 0..OverlayId::BITS {
            let distance = Distance::power_of_two(exponent);
            assert_eq!(distance.log2(), Some(exponent));
            assert_eq!(id(0, 0).at(&distance).xor(&id(0, 0)), distance);
        }
        assert_eq!(Distance::ZERO.log2(), None);
        let ring = RingId::new(0xfa78_e2e0_3d40);
        assert_eq!(ring.first().ring(), ring);
        assert_eq!(RingId::new(u64::MAX).number(), (1 << 48) - 1);
    }

    proptest! {
        #[test]
        fn distances(a in any::<[u8; 20]>(), b in any::<[u8; 20]>()) {
            let (a, b) = (OverlayId(a), OverlayId(b));
            prop_assert_eq!(a.xor(&b), b.xor(&a));
            prop_assert_eq!(a.at(&a.clockwise(&b)), b);
            prop_assert_eq!(a.clockwise(&a), Distance::ZERO);
        }
    }
}
