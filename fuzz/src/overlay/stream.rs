//! As much of `src/overlay/stream/mod.rs` as the errors of calls name.

#[path = "../../../src/overlay/stream/error.rs"]
mod error;

pub use error::{DialError, ListenError};
