//! pmesh
#![allow(dead_code)]

mod error;
mod protocol;

pub use error::CloseReason;
pub use protocol::{Address, InvalidAddress};
