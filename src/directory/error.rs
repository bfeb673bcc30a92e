//! One error type for each operation.

use std::time::Duration;

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The URL is none of a directory: `ws://host` or `wss://host`, with a port and a path if need be.
    #[error("not the URL of a directory: {0}")]
    InvalidUrl(String),
    /// The password would be sent in the clear: see [`DirectoryBuilder::allow_plaintext`](super::DirectoryBuilder::allow_plaintext).
    #[error("the password would go over the network in the clear: use wss://")]
    Plaintext,
    /// The name or the password is wrong, or the account is not active.
    #[error("wrong name or password")]
    WrongPassword,
    /// Too many have tried to log in.
    #[error("too many attempts to log in")]
    Throttled {
        /// When to try again, if the directory says so.
        retry_after: Option<Duration>,
    },
    /// The server answers, but not as a directory does.
    #[error("not a directory: it answers {0}")]
    NotADirectory(String),
    /// The server has too much to do. Try again later.
    #[error("the directory is busy")]
    Busy,
    /// The server cannot be reached, or TLS fails; the text says why.
    #[error("the directory cannot be reached: {0}")]
    Unreachable(String),
    /// Not logged in within 30 seconds.
    #[error("not logged in in time")]
    TimedOut,
    /// The root is closed.
    #[error("the root is closed")]
    RootClosed,
}
