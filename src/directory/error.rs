//! One error type for each operation.

use std::time::Duration;

use super::pool::NoConnection;
use crate::node::ConnectError;
use crate::protocol::directory::Refused;
use crate::rpc;
use crate::transport::turned::Turned;

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The URL is none of a directory: `ws://host` or `wss://host`, with a port and a path if need be.
    #[error("not the URL of a directory: {0}")]
    InvalidUrl(String),
    /// The name of an account is not empty, and has no colon.
    #[error("not the name of an account")]
    InvalidName,
    /// The password would be sent in the clear: see [`DirectoryBuilder::allow_plaintext`](super::DirectoryBuilder::allow_plaintext).
    #[error("the password would go over the network in the clear: use wss://")]
    Plaintext,
    /// The name or the password is wrong, or the account is not active.
    #[error("wrong name or password")]
    WrongPassword,
    /// There were too many attempts to log in.
    #[error("too many attempts to log in")]
    Throttled {
        /// When to try again, if the directory says so.
        retry_after: Option<Duration>,
    },
    /// The account is logged in as often as it may be.
    #[error("the account is logged in too many times")]
    TooManyLogins {
        /// When to try again, if the directory says so.
        retry_after: Option<Duration>,
    },
    /// The directory has ended the session, and no other password is known. It is not asked about the old one again.
    #[error("the directory has ended the session: {reason}")]
    Ended {
        /// As the directory says it: the password was changed, say, or the account deactivated or deleted. At most 123 bytes.
        reason: String,
    },
    /// The directory has too much to do. Try again later.
    #[error("the directory is busy")]
    Busy,
    /// The server answers, but not as a directory does.
    #[error("not a directory: it answers with status {status}")]
    NotADirectory {
        /// As in HTTP.
        status: u16,
    },
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

impl From<Turned> for LoginError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Away { denied, retry_after } => match (denied.status, denied.code.as_deref()) {
                (429, Some("tooManyLogins")) => Self::TooManyLogins { retry_after },
                (401 | 403, _) => Self::WrongPassword,
                (429, _) => Self::Throttled { retry_after },
                (503, _) => Self::Busy,
                (status, _) => Self::NotADirectory { status },
            },
            Turned::Elsewhere { status } => Self::NotADirectory { status },
            Turned::NoWebSocket(why) | Turned::Failed(why) => Self::Unreachable(why),
        }
    }
}

/// Why the directory has not done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The session is not logged in now. Nothing was sent.
    #[error("not logged in")]
    NotConnected,
    /// The connection was lost before the answer came. Whether it was done is not known.
    #[error("the connection was lost; whether it was done is not known")]
    Lost,
    /// There was no answer within 30 seconds. Whether it was done is not known.
    #[error("no answer in time; whether it was done is not known")]
    TimedOut,
    /// Too many requests are in progress, here or at the directory. Nothing was done.
    #[error("too much is in progress")]
    Busy,
    /// The answer is none. Whether it was done is not known.
    #[error("the directory has answered in another way")]
    Unexpected,
    /// Nobody is known by this alias.
    #[error("nobody is known by this alias")]
    UnknownAlias,
    /// Somebody is known by this alias already.
    #[error("somebody is known by this alias already")]
    AliasTaken,
    /// An alias, an email address or a password is none; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// There is no such token: it was never made, was claimed, or was altered.
    #[error("there is no such token")]
    UnknownToken,
    /// The token is too old.
    #[error("the token has expired")]
    Expired,
    /// The token is one's own.
    #[error("the token is one's own")]
    OwnToken,
    /// The two accounts trust each other already.
    #[error("the two accounts trust each other already")]
    AlreadyTrusted,
    /// The password is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// There were too many wrong passwords.
    #[error("too many wrong passwords")]
    Throttled,
    /// The account has as many of these as it may.
    #[error("{0}")]
    TooMany(String),
    /// The directory could not do it, or refuses it for another reason.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
}

impl From<Refused> for RequestError {
    fn from(Refused { code, message }: Refused) -> Self {
        match code.as_str() {
            "unknownAlias" => Self::UnknownAlias,
            "aliasTaken" => Self::AliasTaken,
            "invalidName" | "invalidAlias" | "invalidPassword" | "invalidEmail" => Self::Invalid(message),
            "unknownToken" => Self::UnknownToken,
            "expired" => Self::Expired,
            "ownToken" => Self::OwnToken,
            "alreadyTrusted" => Self::AlreadyTrusted,
            "wrongPassword" => Self::WrongPassword,
            "throttled" => Self::Throttled,
            "busy" => Self::Busy,
            "tooMany" => Self::TooMany(message),
            _ => Self::Refused { code, message },
        }
    }
}

/// Why a peer has not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer is not there any more. It was not called.
    #[error("the peer is not there any more")]
    Gone,
    /// So many calls wait for connections that this one was not made.
    #[error("too many calls wait for connections")]
    Full,
    /// There was no connection within the time that a call may [wait](super::PoolConfig::wait) for one. The peer was not called.
    #[error("no connection in time")]
    NoConnection,
    /// There is no connection to the peer. It was not called. A peer that is [busy](ConnectError::Busy) was so all the time that the
    /// call could [wait](super::PoolConfig::wait).
    #[error("no connection: {0}")]
    NotConnected(ConnectError),
    /// The directory does not vouch for the peer any more: its login was ended while it was called, or it was not named again within the
    /// [grace](super::DirectoryBuilder::grace). Whether the call was handled is not known.
    #[error("the directory does not vouch for the peer any more")]
    NotVouched,
    /// The session is over. Whether the peer was called is not known.
    #[error("the session is over")]
    Ended,
    /// The call itself has failed.
    #[error(transparent)]
    Call(#[from] rpc::CallError),
}

impl From<NoConnection> for CallError {
    fn from(why: NoConnection) -> Self {
        match why {
            NoConnection::Gone => Self::Gone,
            NoConnection::NotVouched => Self::NotVouched,
            NoConnection::Full => Self::Full,
            NoConnection::TimedOut => Self::NoConnection,
            NoConnection::Failed(error) => Self::NotConnected(error),
        }
    }
}
