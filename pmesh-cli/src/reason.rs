//! Errors in words that programs can rely on: the member `reason` of an error event.

use std::io;

use pmesh::overlay::OverlaySendError;
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
        _ => "failed",
    }
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
