//! What other systems speak, so that their peers can be neighbours.
//!
//! - [`peer_relay`]: the npm package `peer-relay`.

pub mod peer_relay;
