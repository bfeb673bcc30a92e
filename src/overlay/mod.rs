//! Messages to any id, through the peers there are.
//!
//! - [`id`](OverlayId): names in a key space of 160 bits, derived from the peers' public keys.
//! - [`routing`]: which neighbours a peer keeps, and which of them is next on the way to an id. Pure.
//! - [`seal`]: messages are encrypted and authenticated from end to end.
//! - [`keys`]: sealing by the peers' keys. Pure.
//! - [`router`]: how messages get to their id, hop by hop. Pure.
//! - [`topics`]: messages to all who want them. Pure.
//! - [`packets`]: packets from id to id, as the overlay carries them.
//! - [`datagram`]: a socket for datagrams, in the shape of UDP.
//! - [`stream`]: reliable streams of bytes, encrypted from end to end.

pub mod datagram;
//! - [`compat`]: originals of other systems as neighbours.

pub mod compat;
mod id;
#[cfg_attr(not(test), expect(dead_code, reason = "for the driver of the overlay"))]
mod link;
pub mod keys;
pub mod router;
pub mod packets;
pub mod routing;
pub mod seal;
pub mod topics;
pub mod stream;

pub use id::{Distance, InvalidOverlayId, OverlayId, RingId};
