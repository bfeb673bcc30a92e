//! The node tree: what an application holds, and what happens behind it.
//!
//! - `root`, `handle`, `channel`, `connect`, `streams`, `builder`: what an application holds
//! - `firewall`, `message`, `error`: what it gives and gets
//! - `tree`: decides (pure)
//! - `driver`: acts

mod budget;
mod builder;
mod channel;
mod connect;
mod driver;
mod error;
mod firewall;
mod handle;
mod message;
mod root;
mod streams;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use budget::Budget;
pub use builder::RootBuilder;
pub use channel::{Channel, ChannelOptions, Channels};
pub use connect::{Connect, Connecting};
pub use error::{ChannelError, ConnectError, Event, NodeError, SendError, TrySendError};
pub use firewall::{Firewall, Offer, Policy, Verdict};
pub use handle::{Node, NodeKind, NodeState};
pub use message::Message;
pub(crate) use root::Only;
pub use root::Root;
pub use streams::{Announcements, Binaries, Events, Messages, Nodes, RootBinaries, RootMessages};
pub use tree::{Counters, NodeId};
