//! Accounts of an onramp: who may log in, and who trusts whom.

mod admin;
mod attempts;
mod bearer;
mod builder;
mod changes;
mod error;
mod memory;
mod names;
mod reading;
mod service;
mod store;
#[cfg(test)]
mod tests;
mod throttle;

pub use builder::AccountsBuilder;
pub use changes::{AccountChange, AccountChanges};
pub use error::{AccountError, LoginError};
pub use memory::MemoryStore;
pub use names::Invalid;
pub use service::{Accounts, Bearer, Invite};
pub use store::{
    Account, AccountId, AccountStore, Claimed, Digest, MAX_OPEN_TOKENS, MAX_TRUSTED, NewInvite, NewToken, StoreError,
    Trust, Trusted,
};
pub use throttle::{Allowance, Throttling};

/// How passwords are kept and checked.
///
/// Both methods may take long and much memory, as they should: they are called on threads for such work, only a few at a time.
pub trait Passwords: Send + Sync + 'static {
    /// A salted hash of a password, with all that checking it needs, as a text (such as PHC's string format).
    fn hash(&self, password: &str) -> String;

    /// Whether the password fits the hash. `None` stands for that of an account that does not exist, and must take as long.
    fn verify(&self, password: &str, hash: Option<&str>) -> bool;
}
