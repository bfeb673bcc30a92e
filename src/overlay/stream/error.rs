//! Why there is no stream.

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
