//! pmesh
#![allow(dead_code)]

mod error;
mod protocol;
mod transport;

pub use error::CloseReason;
pub use protocol::{Address, InvalidAddress};
