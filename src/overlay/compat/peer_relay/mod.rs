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

//!
//! What is proven and what is not, in an overlay that [takes originals](crate::overlay::OverlayBuilder::compat_peer_relay):
//!
//! - Between pmesh peers everything is as without originals: ids are proven, messages sealed. Whoever proves an id takes the place of
//!   who claims it, and nobody can claim one whose key is known here.
//! - A message of an original is whatever the last hop says. It comes with
//!   [`verified: false`](crate::overlay::OverlayMessage::verified), whoever it claims to be from, which may be a pmesh peer.
//! - A message to an original can be read and altered on its way, and may get lost. [`Overlay::send`](crate::overlay::Overlay::send)
//!   tells when JSON of ours goes that way; a hop can bring that about for an id whose key is not known here.
//! - URLs in answers are dialled only [where that is allowed](crate::overlay::PeerRelayCompat::dial_answers): they are of a
//!   stranger's choice.

mod codec;
mod link;
mod machine;

pub(crate) use codec::is_usable;
pub use codec::{Answer, Data, MAX_FOUND, MAX_MESSAGE_BYTES, Malformed, decode_id, encode_id};
pub use link::{Link, LinkError, Receiver, Refused, Sender, accept, dial};
pub(crate) use link::{dial_by, introduce};
pub use machine::{ConnectFailure, Machine, MachineConfig, MachineCounters, Output};
