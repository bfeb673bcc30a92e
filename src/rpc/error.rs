//! Why a call has no answer, and what handlers say when they fail.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::overlay::stream::{DialError, ListenError};

/// What a handler gives instead of an answer. The caller gets it as [`CallError::Failed`].
///
/// Every error becomes one by `?`, with its text as the message: the peer reads that text, so errors that tell too much should be
/// replaced by others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What programs tell failures apart by, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong, for people.
    pub message: String,
    /// More about it; `null` if there is nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

impl Failure {
    /// A failure with a message only.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { code: None, message: message.to_string(), data: Value::Null }
    }

    /// The same with this code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same with this data.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Value>) -> Self {
        self.data = data.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other side has no module of this name.
    #[error("the other side has no such module")]
    UnknownModule,
    /// The other side's firewall refused the call, or that side takes no calls this way.
    #[error("the other side refused the call")]
    Refused,
    /// The handler failed, and says how.
    #[error("the call failed: {0}")]
    Failed(Failure),
    /// The handler panicked.
    #[error("the handler of the call panicked")]
    Panicked,
    /// There was no answer in time. Whether the call was handled is not known.
    #[error("no answer within the time")]
    TimedOut,
    /// Too many calls are in progress at the other side, or wait on this one. Try again later.
    #[error("too many calls are in progress")]
    Busy,
    /// The connection was lost, or the other side stopped to take calls, while the call was in progress. Whether it was handled is not known.
    #[error("the connection is over; whether the call was handled is not known")]
    Closed,
    /// There is no connection to the other side. Nothing was sent.
    #[error("there is no connection to the other side")]
    NotOpen,
    /// The request, or the answer, is larger than the side that would get it takes.
    #[error("larger than the {limit} bytes that are taken")]
    TooLarge {
        /// The most bytes, as JSON.
        limit: usize,
    },
    /// The other side takes no calls at all: it is an onramp, an original P, or has no `Rpc`. Nothing was sent.
    #[error("the other side takes no calls")]
    Unsupported,
    /// The module answers by a stream: it is to be called by [`Target::stream`](super::Target::stream).
    #[error("the module answers by a stream")]
    Streams,
    /// The request is none that the module takes. The text says why.
    #[error("not a request that the module takes: {0}")]
    Malformed(String),
    /// The answer is not of the type that was asked for, or no JSON. The text says why.
    #[error("not an answer of this type: {0}")]
    Unexpected(String),
    /// The name of the module is empty or longer than 128 bytes. Nothing was sent.
    #[error("the name of a module has 1 to 128 bytes")]
    InvalidName,
    /// Calls over this node are those of another `Rpc`. Nothing was sent.
    #[error("calls over this node are those of another Rpc")]
    InUse,
    /// There is no stream to the other side through the overlay. Nothing was sent.
    #[error("not reached through the overlay: {0}")]
    Unreachable(DialError),
}

/// Why there is no such module now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The name is empty or longer than 128 bytes.
    #[error("the name of a module has 1 to 128 bytes")]
    InvalidName,
    /// There is a module of this name.
    #[error("there is a module of this name")]
    InUse,
    /// There are as many modules as there may be.
    #[error("there are {limit} modules")]
    TooMany {
        /// The most modules of an `Rpc`.
        limit: usize,
    },
}

/// Why calls are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another `Rpc` takes the calls there, or this one does already.
    #[error("calls are taken there already")]
    InUse,
    /// The other side of the node knows no calls: it is an onramp or an original P.
    #[error("the other side of the node knows no calls")]
    Unsupported,
    /// The node is not open, or the overlay is closed.
    #[error("the node is not open, or the overlay is closed")]
    NotOpen,
}

impl From<ListenError> for ServeError {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::InUse => Self::InUse,
            _ => Self::NotOpen,
        }
    }
}
