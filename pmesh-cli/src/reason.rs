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
        ConnectError::Denied(denied) => of_denied(denied.status, denied.code.as_deref()),
        _ => "failed",
    }
}

/// An onramp with accounts was asked without any.
const NOT_LOGGED_IN: &str = "notLoggedIn";
const WRONG_PASSWORD: &str = "wrongPassword";
const DENIED: &str = "denied";

/// Why a server has opened no WebSocket: as commands of accounts call it, where there is the same.
fn of_denied(status: u16, code: Option<&str>) -> &'static str {
    match (status, code) {
        (401, _) => NOT_LOGGED_IN,
        // Others forbid for other reasons.
        (403, Some("wrongPassword")) => WRONG_PASSWORD,
        (429, Some("tooManyLogins")) => "tooManyLogins",
        (429, _) => "throttled",
        (503, _) => "busy",
        _ => DENIED,
    }
}

/// Why a connection did not come about, in words, and what helps.
pub(crate) fn told(error: &ConnectError) -> String {
    if wants_login(error) { format!("{error} (see `pmesh login`)") } else { error.to_string() }
}

/// Whether a server lets nobody in who has not logged in, or has done so by what is wrong.
pub(crate) fn wants_login(error: &ConnectError) -> bool {
    matches!(of_connect(error), NOT_LOGGED_IN | WRONG_PASSWORD)
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
        BootstrapFailure::NoPeer(_) => NO_PEER,
        BootstrapFailure::NoRoom => "noRoom",
        BootstrapFailure::Denied(denied) => match of_denied(denied.status, denied.code.as_deref()) {
            // It knows nothing of overlays.
            DENIED if denied.status < 500 => NO_PEER,
            reason => reason,
        },
        _ => "failed",
    }
}

const NO_PEER: &str = "noPeer";

/// The same in words, and what helps: to begin at a URL nobody logs in.
pub(crate) fn told_bootstrap(failure: &BootstrapFailure) -> String {
    match (failure, of_bootstrap(failure)) {
        (_, NOT_LOGGED_IN) => format!("{failure} (if it is an onramp, see `pmesh login`, and say --onramp)"),
        (BootstrapFailure::Denied(_), NO_PEER) => format!("{failure} (if it is an onramp, say --onramp)"),
        _ => failure.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_denies_has_a_word() {
        for (status, code, reason) in [
            (401, Some("noCredentials"), "notLoggedIn"),
            (401, None, "notLoggedIn"),
            (403, Some("wrongPassword"), "wrongPassword"),
            (403, None, "denied"),
            (429, Some("throttled"), "throttled"),
            (429, Some("tooManyLogins"), "tooManyLogins"),
            (429, None, "throttled"),
            (503, Some("failed"), "busy"),
            (500, Some("anything"), "denied"),
        ] {
            assert_eq!(of_denied(status, code), reason, "{status} {code:?}");
        }
    }
}
