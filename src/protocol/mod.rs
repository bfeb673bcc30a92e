//! What travels on the wire, as pure data: no sockets, no clock, and no input makes it panic.
//!
//! - [`frame`]: the JSON text frames of P and the extension frames of pmesh
//! - [`signal`]: the payload of relayed frames, which negotiates a connection
//! - [`proof`]: how two peers prove who they are to each other
//! - [`packet`]: the binary packing used on data channels between pmesh peers
//! - [`channel`]: what a named channel is, and how it is announced
//! - [`credit`]: flow control by consumption
//! - [`directory`]: what peers and the directory, which knows accounts, say to each other

mod address;
pub(crate) mod channel;
pub(crate) mod credit;
pub(crate) mod directory;
pub(crate) mod frame;
pub(crate) mod limits;
pub(crate) mod packet;
pub(crate) mod proof;
pub(crate) mod signal;

pub use address::{Address, InvalidAddress};
pub use channel::{Delivery, Reliability};
pub use directory::{InvalidPeerNumber, PeerNumber};

/// The WebSocket subprotocol, and the label and protocol of the data channel, of the original P.
pub(crate) const P_PROTOCOL: &str = "p";

/// The WebSocket subprotocol of pmesh, offered before [`P_PROTOCOL`]: the frames of P plus the extension frames.
pub(crate) const PMESH_PROTOCOL: &str = "pmesh.1";
