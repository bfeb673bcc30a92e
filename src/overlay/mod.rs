//! Messages to any id, through the peers there are.
//!
//! - [`id`](OverlayId): names in a key space of 160 bits, derived from the peers' public keys.
//! - [`routing`]: which neighbours a peer keeps, and which of them is next on the way to an id. Pure.

mod id;
pub mod routing;

pub use id::{Distance, InvalidOverlayId, OverlayId, RingId};
