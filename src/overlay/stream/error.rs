//! Why there is no stream.

use quinn::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

/// Codes with which connections and streams are closed.
pub(super) mod code {
    use super::VarInt;

    /// Nobody needs it any more, or this side is closed.
    pub(crate) const DONE: VarInt = VarInt::from_u32(0);
    /// The key is not that of the id.
    pub(crate) const NOT_AUTHENTIC: VarInt = VarInt::from_u32(1);
    /// The same peer has made a newer connection.
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(2);
    /// What comes on a stream is no request, or comes too late.
    pub(crate) const NO_REQUEST: VarInt = VarInt::from_u32(3);
    /// The stream was dropped.
    pub(crate) const DROPPED: VarInt = VarInt::from_u32(4);
}

/// Why dialling gave no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name of the service is empty or longer than [`MAX_SERVICE_NAME`](super::MAX_SERVICE_NAME). Nothing was sent.
    #[error("the name of a service has 1 to 255 bytes")]
    InvalidName,
    /// The id is our own.
    #[error("the id is our own")]
    OwnId,
    /// There are [`MAX_CONNECTIONS`](super::MAX_CONNECTIONS) peers that we have dialled and use. Nothing was sent.
    #[error("too many peers are dialled")]
    TooManyPeers,
    /// Nobody answered in time: there is no such peer, or no way to it.
    #[error("no answer within the time")]
    TimedOut,
    /// The peer does not listen for this service.
    #[error("the peer has no such service")]
    NoSuchService,
    /// The peer has too many connections, or too many streams that its service has not accepted. Try again later.
    #[error("the peer is busy")]
    Busy,
    /// Who answers does not hold the key of the id, or we do not hold that of ours. Somebody may be in the middle.
    #[error("the key of the other side is not that of the id")]
    NotAuthentic,
    /// The connection broke: the peer has closed its streams, or it does not keep to the protocol.
    #[error("the connection to the peer broke")]
    Lost,
    /// Streams are closed on this side.
    #[error("streams are closed on this side")]
    Closed,
}

/// Why listening for a service failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The name of the service is empty or longer than [`MAX_SERVICE_NAME`](super::MAX_SERVICE_NAME).
    #[error("the name of a service has 1 to 255 bytes")]
    InvalidName,
    /// There is a listener for this service.
    #[error("there is a listener for this service")]
    InUse,
    /// Streams are closed on this side.
    #[error("streams are closed on this side")]
    Closed,
}

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
            ConnectionError::ApplicationClosed(close) if close.error_code == code::NOT_AUTHENTIC => Self::NotAuthentic,
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
