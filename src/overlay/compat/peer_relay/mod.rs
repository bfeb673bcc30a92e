//! The wire of the npm package `peer-relay@0.0.2`: originals as neighbours over WebSockets.
//!
//! - `codec`: its messages as JSON text (pure)
//! - `machine`: what is done with those that are addressed to us (pure)
//! - `link`: a WebSocket to an original
//!
//! An original proves nothing: its id is what it says, and whoever relays for it can read and change everything. It is also
//! brittle. These rules keep originals alive, and their tables whole:
//!
//! - *Never two connections.* Of two connections to one id, an original closes one, and forgets the peer at whichever end sees
//!   that close: so both are lost. An original says its id at once and does not wait for ours, so a [`Link`] says nothing before
//!   the [id of the other side is admitted](accept). A connection that has said no id leaves no trace.
//! - *Only text.* It throws at a binary message, and at everything that is no
//!   [`ForeignMessage`](crate::overlay::router::ForeignMessage) to us.
//! - *A subprotocol says nothing.* An original takes the first that is offered, whatever it is. Who dials has to know who is there.
//! - *A link may be deaf.* An original listens to 20 peers in each part of its table; to further ones it says its id and no more. So
//!   there is a [`Link`] only when the first message has come.
//! - *No candidate that nobody can reach.* An original keeps a place, of 15, for each peer that it has asked for a connection, until
//!   there is one, however long: who tells it about peers that it cannot connect to keeps it from finding others.

mod codec;
mod link;
mod machine;

pub use codec::{Answer, Data, MAX_FOUND, MAX_MESSAGE_BYTES, Malformed, decode_id, encode_id};
pub use link::{Link, LinkError, Receiver, Refused, Sender, accept, dial};
pub use machine::{ConnectFailure, Machine, MachineConfig, MachineCounters, Output};
