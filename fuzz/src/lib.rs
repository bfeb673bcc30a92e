//! What must hold for every input: the properties that the fuzz targets check.
//!
//! The sources under test are compiled into this crate, so that the properties can use what is private to pmesh.

#[path = "../../src/error.rs"]
#[allow(dead_code, reason = "the targets do not use all of it")]
mod error;
#[path = "../../src/identity/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the targets do not use all of it")]
mod identity;
#[path = "../../src/lock.rs"]
mod lock;
#[allow(dead_code, reason = "the targets do not use all of it")]
pub mod overlay;
#[path = "../../src/protocol/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the targets do not use all of it")]
mod protocol;
#[allow(dead_code, unused_imports, reason = "the targets do not use all of it")]
mod transport;

pub mod frame;
mod memory;
pub mod packet;
pub mod pipe;
pub mod proof;
#[allow(dead_code, reason = "the target does not use all of it")]
pub mod rpc;
pub mod signal;
