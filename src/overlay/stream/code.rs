//! Codes with which connections and streams are closed, and what those of QUIC are for who dials.

use quinn::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

use super::error::DialError;

/// Nobody needs it any more, or this side is closed.
pub(super) const DONE: VarInt = VarInt::from_u32(0);
/// The key is not that of the id.
pub(super) const NOT_AUTHENTIC: VarInt = VarInt::from_u32(1);
/// The same peer has made a newer connection.
pub(super) const REPLACED: VarInt = VarInt::from_u32(2);
/// What comes on a stream is no request, or comes too late.
pub(super) const NO_REQUEST: VarInt = VarInt::from_u32(3);
/// The stream was dropped.
pub(super) const DROPPED: VarInt = VarInt::from_u32(4);

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::Closed,
            // The id of all zeros is the only one that is no address, and nobody has it.
            ConnectError::InvalidRemoteAddress(_) => Self::TimedOut,
            _ => Self::Lost,
        }
    }
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(error) if is_tls(error.code) => Self::NotAuthentic,
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => Self::NotAuthentic,
            ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                Self::Busy
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == NOT_AUTHENTIC => Self::NotAuthentic,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::Closed,
            _ => Self::Lost,
        }
    }
}

/// Errors of TLS are codes from 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls(code: TransportErrorCode) -> bool {
    u64::from(code) >> 8 == 1
}
