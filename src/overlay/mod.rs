//! Messages to any id, through the peers there are.
//!
//! - [`OverlayId`]: names in a key space of 160 bits, derived from the peers' public keys.
//! - [`routing`]: which neighbours a peer keeps, and which of them is next on the way to an id. Pure.
//! - [`seal`], [`keys`]: messages are encrypted and authenticated from end to end. Pure.
//! - [`router`]: how messages get to their id, hop by hop. Pure.
//! - [`topics`]: messages to all who want them. Pure.
//! - [`packets`]: packets from id to id, as the overlay carries them.
//! - [`datagram`]: a socket for datagrams, in the shape of UDP.
//! - [`stream`]: reliable streams of bytes, encrypted from end to end.
//! - [`compat`]: originals of other systems as neighbours.

mod builder;
pub mod compat;
mod core;
pub mod datagram;
mod error;
mod events;
mod handle;
mod id;
mod inbox;
pub mod keys;
mod link;
mod originals;
pub mod packets;
pub mod router;
pub mod routing;
pub mod seal;
pub mod stream;
mod tasks;
mod topic;
pub mod topics;

pub use builder::OverlayBuilder;
pub use error::{BootstrapFailure, BroadcastError, JoinError, OverlayError, OverlaySendError};
pub use events::{OverlayEvent, OverlayEvents};
pub use handle::Overlay;
pub use id::{Distance, InvalidOverlayId, OverlayId, RingId};
pub use inbox::{OverlayMessage, OverlayMessages};
pub use originals::PeerRelayCompat;
pub use topic::{Topic, TopicLagged, TopicMessage, TopicMessages};
