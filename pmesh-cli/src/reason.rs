//! Errors in words that programs can rely on: the member `reason` of an error event.

use std::io;

use pmesh::directory::CallError;
use pmesh::overlay::compat::peer_relay::ConnectFailure;
use pmesh::overlay::{BootstrapFailure, OverlaySendError};
use pmesh::rpc;
use pmesh::{ConnectError, IdentityFileError};

/// Why a connection did not come about.
pub(crate) fn of_connect(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::InvalidAddress(_) => "invalidAddress",
        ConnectError::OfferDataTooLarge { .. } => "offerDataTooLarge",
        ConnectError::Refused => "refused",
        ConnectError::Unreachable => "unreachable",
        ConnectError::Busy => "busy",
        ConnectError::AlreadyConnected => "alreadyConnected",
        ConnectError::OwnAddress => "ownAddress",
        ConnectError::ViaClosed => "viaClosed",
        ConnectError::TimedOut => "timedOut",
        ConnectError::Cancelled => "cancelled",
        ConnectError::RootClosed => "rootClosed",
        ConnectError::Unverified(_) => "unverified",
        ConnectError::UnexpectedPeer { .. } => "unexpectedPeer",
        ConnectError::NoIdentity => "noIdentity",
        // Nothing but the text tells.
        ConnectError::Failed(why) if why.contains("401 Unauthorized") => NOT_LOGGED_IN,
        _ => "failed",
    }
}

/// An onramp with accounts was asked without any.
const NOT_LOGGED_IN: &str = "notLoggedIn";

/// Why a connection did not come about, in words, and what helps.
pub(crate) fn told(error: &ConnectError) -> String {
    match of_connect(error) {
        NOT_LOGGED_IN => format!("{error}: log in at this server first, see `pmesh login`"),
        _ => error.to_string(),
    }
}

/// The same of an onramp.
pub(crate) fn of_onramp(url: &str, error: &ConnectError) -> String {
    format!("cannot meet anybody at {url}: {}", told(error))
}

/// Why a message over the overlay was not sent, or is not confirmed.
pub(crate) fn of_overlay_send(error: &OverlaySendError) -> &'static str {
    match error {
        OverlaySendError::TooLarge { .. } => "tooLarge",
        OverlaySendError::NoRoute => "noRoute",
        OverlaySendError::TimedOut => "timedOut",
        OverlaySendError::Full => "full",
        OverlaySendError::Original => "original",
        OverlaySendError::NoKey => "noKey",
        OverlaySendError::Closed => "closed",
        _ => "failed",
    }
}

/// Why there is no link to an original.
pub(crate) fn of_link(failure: &ConnectFailure) -> &'static str {
    match failure {
        ConnectFailure::TimedOut => "timedOut",
        ConnectFailure::NoWebSocket | ConnectFailure::UnusableUrl | ConnectFailure::Unreachable => "unreachable",
        ConnectFailure::NotAllowed => "notAllowed",
        ConnectFailure::Busy => "busy",
        _ => "original",
    }
}

/// Why a URL to begin at in the overlay has led to nobody.
pub(crate) fn of_bootstrap(failure: &BootstrapFailure) -> &'static str {
    match failure {
        BootstrapFailure::TimedOut => "timedOut",
        BootstrapFailure::OwnId => "ownId",
        BootstrapFailure::NoPeer(_) => "noPeer",
        BootstrapFailure::NoRoom => "noRoom",
        _ => "failed",
    }
}

/// Why a peer has not answered. A failure of its module may have a word of its own.
pub(crate) fn of_call(error: &CallError) -> &str {
    match error {
        CallError::Gone => "gone",
        CallError::Full => "full",
        CallError::NoConnection => "noConnection",
        CallError::NotConnected(error) => of_connect(error),
        CallError::Ended => "ended",
        CallError::Call(error) => match error {
            rpc::CallError::UnknownModule => "unknownModule",
            rpc::CallError::Refused => "refused",
            rpc::CallError::Failed(failure) => failure.code.as_deref().unwrap_or("failed"),
            rpc::CallError::Panicked => "panicked",
            rpc::CallError::TimedOut => "timedOut",
            rpc::CallError::Busy => "busy",
            rpc::CallError::Closed => "closed",
            rpc::CallError::NotOpen => "notOpen",
            rpc::CallError::TooLarge { .. } => "tooLarge",
            rpc::CallError::Unsupported => "unsupported",
            rpc::CallError::Streams => "streams",
            rpc::CallError::Malformed(_) => "malformed",
            rpc::CallError::Unexpected(_) => "unexpected",
            rpc::CallError::InvalidName => "invalidName",
            _ => "failed",
        },
        _ => "failed",
    }
}

/// Why a stream broke, in words.
pub(crate) fn of_break(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "the other side has given it up".to_owned(),
        io::ErrorKind::ConnectionAborted => "the connection was closed".to_owned(),
        io::ErrorKind::TimedOut => "the other side is silent".to_owned(),
        _ => error.to_string(),
    }
}

/// Why there is no identity from a file.
pub(crate) fn of_identity_file(error: &IdentityFileError) -> &'static str {
    match error {
        IdentityFileError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => "notFound",
        IdentityFileError::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists => "alreadyExists",
        IdentityFileError::Exposed { .. } => "exposed",
        IdentityFileError::NoKey { .. } => "noKey",
        _ => "failed",
    }
}
