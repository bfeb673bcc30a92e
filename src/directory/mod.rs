//! Accounts: who may call whom, and calls to all peers of a user.

mod error;
mod event;
mod pool;
mod presence;
mod target;

pub use error::LoginError;
pub use event::{SessionEvent, SessionEvents};
pub use pool::PoolConfig;
pub use target::Target;
