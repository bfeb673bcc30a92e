//! Accounts of an onramp: who may log in, and who trusts whom.
//!
//! [`Accounts`] is the service. It is given an [`AccountStore`], where accounts are kept, and [`Passwords`], which hashes: the program
//! `onramp-server` has stores in SQLite and PostgreSQL, and argon2id.
//!
//! ```
//! use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
//! # struct Argon2id;
//! # impl Passwords for Argon2id {
//! #     fn hash(&self, password: &str) -> String { password.into() }
//! #     fn verify(&self, password: &str, hash: Option<&str>) -> bool { hash == Some(password) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!
//! let accounts = Accounts::new(MemoryStore::new(), Argon2id);
//! let alice = accounts.create("alice", "correct horse").await?;
//! accounts.create("bob", "battery staple").await?;
//! let bob = accounts.log_in("bob", "battery staple", "192.0.2.1".parse()?).await?;
//!
//! // Alice gives Bob the token. He claims it, and they trust each other.
//! let token = accounts.request_token(alice, None, "Bob").await?;
//! accounts.claim_token(bob.id, Some(bob.epoch), "Alice", &token).await?;
//! assert_eq!(accounts.trusted(alice).await?[0].alias, "Bob");
//! # Ok(())
//! # }
//! ```
//!
//! # What is held against wrong passwords
//!
//! | wrong passwords | happens |
//! |---|---|
//! | for one account from one address | 10, then one each half a minute; [`LoginError::Throttled`] |
//! | from one address | 100, then one each two seconds, but for accounts that have logged in from there |
//! | for one account, from wherever | 20, then attempts take 3 seconds longer, but from where it has logged in before |
//! | one of the last four for the account from the address once more | counts for none of these, but as the second, by itself |
//!
//! Whoever has logged in from where they are waits for nobody else to be hashed. Attempts after wrong passwords for the account or from the
//! address, as long as those are counted, have a line of their own and a quarter of the cores, at least one; those of whom nothing is known
//! have another, and leave a core to those who are known while many of them are wrong. Those who are known take turns by account, the others
//! by address. Places in a line are bounded: who has many gives one up for who has fewer. So an attack from many addresses slows down those
//! who come from somewhere for the first time, most of all the owner of an account that is attacked; and from more than a thousand at a time
//! it may get them a [`LoginError::Busy`].
//!
//! [`Throttling`] has these numbers. An address of IPv6 is its first 64 bits; those of the same first 48 have ten times the second number
//! together. What is refused is not hashed, and costs next to nothing. A login resets the first count only. Sessions that
//! try an old password lock nobody out: what was tried before is remembered by a keyed hash. All this is forgotten when the
//! program ends.

mod admin;
mod attempts;
mod bearer;
mod builder;
mod changes;
mod error;
mod guess;
mod memory;
mod names;
mod reading;
mod service;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod turns;

pub(super) use attempts::Source;
pub use builder::AccountsBuilder;
pub use changes::{AccountChange, AccountChanges};
pub(super) use error::Chain;
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
/// Hashing and checking may take long and much memory, as they should: they are done on threads for such work, only a few at a time.
pub trait Passwords: Send + Sync + 'static {
    /// A salted hash of a password, with all that checking it needs, as a text (such as PHC's string format).
    fn hash(&self, password: &str) -> String;

    /// Whether the password fits the hash. `None` stands for that of an account that does not exist, and must take as long. A hash that is
    /// not [current](Self::is_current) should take as long, too, when the password is wrong: else the time tells that there is an account.
    fn verify(&self, password: &str, hash: Option<&str>) -> bool;

    /// Whether a hash is as [`hash`](Self::hash) would make it now. If not, it is made anew at the next login. Default: always.
    fn is_current(&self, hash: &str) -> bool {
        let _ = hash;
        true
    }
}
