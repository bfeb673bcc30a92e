//! pmesh

mod error;
mod node;
pub mod onramp;
mod protocol;
mod transport;

pub use error::CloseReason;
pub use node::{
    Binaries, Connect, ConnectError, Connecting, Counters, Event, Events, Firewall, Message, Messages, Node, NodeError,
    NodeKind, NodeState, Nodes, Offer, Policy, Root, RootBinaries, RootBuilder, RootMessages, SendError, TrySendError,
    Verdict,
};
pub use protocol::{Address, InvalidAddress};
pub use transport::webrtc::IceServer;
