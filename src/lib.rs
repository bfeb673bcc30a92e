//! pmesh
#![allow(dead_code)]

mod error;
mod node;
mod protocol;
mod transport;

pub use error::CloseReason;
pub use node::{Counters, Firewall, Offer, Policy, Verdict};
pub use protocol::{Address, InvalidAddress};
