//! Links over WebSockets between two pmesh peers: a neighbour that can be reached before any other is known.
//!
//! Both ends send signs of life by themselves, so one that is not heard of for the peer timeout is lost, even if nobody sends it
//! anything.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::handshake::{Answered, Dialling, HandshakeError};
use super::{Link, MAX_PACKET_BYTES, NotSent, Packets, Sender, Sink, Source};
use crate::error::Denied;
use crate::identity::{Identity, PeerId};
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::error::BootstrapFailure;
use crate::transport::turned::Turned;
use crate::transport::websocket::Dialler;

/// The subprotocol.
pub(super) const PROTOCOL: &str = "pmesh.overlay.1";
/// From the first byte to the open link.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between signs of life, however short the peer timeout is.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(100);
/// How long closing in good order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Packets that may wait to be sent, in bytes. At it, `try_send` says full.
const QUEUE_BYTES: usize = 1024 * 1024;
/// What a queued packet costs beside its bytes, so that many small ones are bounded too.
const OVERHEAD_BYTES: usize = 128;
/// Packets that have arrived and may wait to be read. At it, the neighbour is read no further.
const ARRIVED: usize = 16;

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    /// There is no WebSocket, or it ended in the middle of the handshake; the text says why.
    #[error("could not connect: {0}")]
    Failed(String),
    /// There is a server, which has answered by a status of HTTP.
    #[error("{0}")]
    Denied(Denied),
    /// There is a server, but none of neighbours; the text says how that showed.
    #[error("no neighbour listens there: {0}")]
    NoPeer(String),
    /// Not open after 10 seconds.
    #[error("not open in time")]
    TimedOut,
    /// The other side did not prove who it is, or is this peer.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl DialError {
    /// As the application is told of it.
    pub(crate) fn told(&self) -> BootstrapFailure {
        match self {
            Self::Failed(why) => BootstrapFailure::Failed(why.clone()),
            Self::Denied(denied) => BootstrapFailure::Denied(denied.clone()),
            Self::NoPeer(why) => BootstrapFailure::NoPeer(why.clone()),
            Self::TimedOut => BootstrapFailure::TimedOut,
            Self::Handshake(HandshakeError::OwnId) => BootstrapFailure::OwnId,
            Self::Handshake(error) => BootstrapFailure::NoPeer(error.to_string()),
        }
    }
}

impl From<Turned> for DialError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Away { denied, .. } => Self::Denied(denied),
            Turned::Failed(why) => Self::Failed(why),
            Turned::Elsewhere { .. } | Turned::NoWebSocket(_) => Self::NoPeer(turned.to_string()),
        }
    }
}

/// Makes a link to whoever listens at a URL, `ws://` or `wss://`. A neighbour that is silent for the peer timeout is lost.
///
/// # Errors
///
/// [`DialError`], after 10 seconds at the latest.
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
pub(crate) async fn dial(
    dialler: &Dialler,
    url: &str,
    identity: &Identity,
    peer_timeout: Duration,
) -> Result<Link, DialError> {
    let uri: Uri = url.parse().map_err(|error| DialError::Failed(format!("{error}")))?;
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let handshake = Dialling::new(identity.clone(), rand::random(), host)?;
    let attempt = async {
        let (mut socket, _) = dialler.dial(url, &[PROTOCOL], MAX_PACKET_BYTES).await?;
        say(&mut socket, handshake.hello()).await?;
        let (peer, proof) = handshake.answer(&hear(&mut socket).await?)?;
        say(&mut socket, proof).await?;
        Ok(link(socket, peer, peer_timeout))
    };
    timeout(HANDSHAKE_TIMEOUT, attempt).await.unwrap_or(Err(DialError::TimedOut))
}

/// The other side of [`dial`], on a WebSocket that somebody has opened.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut socket: WebSocketStream<S>,
    identity: &Identity,
    hosts: &[String],
    peer_timeout: Duration,
) -> Result<Link, DialError> {
    let hello = hear(&mut socket).await?;
    let (answered, answer) = Answered::new(identity, rand::random(), hosts, &hello)?;
    say(&mut socket, answer).await?;
    let peer = answered.proof(&hear(&mut socket).await?)?;
    Ok(link(socket, peer, peer_timeout))
}

async fn say<S>(socket: &mut WebSocketStream<S>, message: Vec<u8>) -> Result<(), DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::binary(message)).await.map_err(|error| DialError::Failed(error.to_string()))
}

async fn hear<S>(socket: &mut WebSocketStream<S>) -> Result<Bytes, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(message))) => return Ok(message),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(HandshakeError::Malformed.into()),
            Some(Err(error)) => return Err(DialError::Failed(error.to_string())),
            Some(Ok(Message::Close(_))) | None => return Err(DialError::Failed("the other side closed it".into())),
        }
    }
}

/// What waits to be sent. Dropping it closes the link.
pub(super) struct Queue {
    /// None once the link is to be closed: the socket ends when it has written what is queued.
    packets: Mutex<Option<mpsc::Sender<Queued>>>,
    room: Arc<Semaphore>,
}

/// A packet, and the room that it takes until it is written.
type Queued = (Bytes, OwnedSemaphorePermit);

impl Queue {
    fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (packets, receiver) = mpsc::channel(QUEUE_BYTES / OVERHEAD_BYTES);
        (Self { packets: Mutex::new(Some(packets)), room: Arc::new(Semaphore::new(QUEUE_BYTES)) }, receiver)
    }

    fn cost(packet: &Bytes) -> u32 {
        (packet.len() + OVERHEAD_BYTES) as u32
    }

    pub(super) fn try_send(&self, packet: Bytes) -> Result<(), NotSent> {
        match self.room.clone().try_acquire_many_owned(Self::cost(&packet)) {
            Ok(room) => self.push(packet, room),
            Err(TryAcquireError::NoPermits) if self.is_open() => Err(NotSent::Full(packet)),
            Err(_) => Err(NotSent::Closed),
        }
    }

    pub(super) async fn send(&self, packet: Bytes) -> Result<(), NotSent> {
        let room = self.room.clone().acquire_many_owned(Self::cost(&packet)).await.map_err(|_| NotSent::Closed)?;
        self.push(packet, room)
    }

    fn is_open(&self) -> bool {
        lock(&self.packets).as_ref().is_some_and(|packets| !packets.is_closed())
    }

    /// Queues a packet. As long as there is room in bytes, there is in packets.
    fn push(&self, packet: Bytes, room: OwnedSemaphorePermit) -> Result<(), NotSent> {
        let packets = lock(&self.packets);
        let packets = packets.as_ref().ok_or(NotSent::Closed)?;
        packets.try_send((packet, room)).map_err(|error| match error {
            TrySendError::Full((packet, _)) => NotSent::Full(packet),
            TrySendError::Closed(_) => NotSent::Closed,
        })
    }

    pub(super) fn close(&self) {
        self.room.close();
        lock(&self.packets).take();
    }
}

pub(super) fn link<S>(socket: WebSocketStream<S>, key: PeerId, peer_timeout: Duration) -> Link
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (queue, queued) = Queue::new();
    let (arrived, packets) = mpsc::channel(ARRIVED);
    let id = OverlayId::of(&key);
    tokio::spawn(async move {
        let end = run(socket, queued, arrived, peer_timeout).await;
        tracing::debug!(%id, ?end, "link over");
    });
    Link { id, key, sender: Sender::new(Sink::WebSocket(queue)), packets: Packets(Source::WebSocket(packets)) }
}

/// Why a link is over.
#[derive(Debug)]
enum End {
    /// This side closed it.
    Local,
    /// The other side closed it, or it broke.
    Remote,
    /// Nothing was heard of the other side.
    Silent,
    /// It takes nothing: of no use, even if it is alive.
    Stuck,
    /// It sends what is no packet.
    Protocol,
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    queued: mpsc::Receiver<Queued>,
    arrived: mpsc::Sender<Bytes>,
    peer_timeout: Duration,
) -> End {
    let (sink, stream) = socket.split();
    let mut reading = pin!(read(stream, arrived, peer_timeout));
    let mut writing = pin!(write(sink, queued, peer_timeout));
    tokio::select! {
        end = &mut reading => {
            if let End::Local = end {
                // Nobody reads any more; what is queued is sent all the same.
                let _ = timeout(CLOSE_TIMEOUT, writing).await;
            }
            end
        }
        written = &mut writing => match written {
            Ok(()) => {
                // After our close frame the other side answers with its own.
                let _ = timeout(CLOSE_TIMEOUT, reading).await;
                End::Local
            }
            Err(end) => end,
        }
    }
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<S>>,
    arrived: mpsc::Sender<Bytes>,
    peer_timeout: Duration,
) -> End {
    loop {
        let message = tokio::select! {
            message = timeout(peer_timeout, stream.next()) => message,
            () = arrived.closed() => return End::Local,
        };
        match message {
            Ok(Some(Ok(Message::Binary(packet)))) => {
                // While nobody reads, the silence is ours.
                if arrived.send(packet).await.is_err() {
                    return End::Local;
                }
            }
            Ok(Some(Ok(Message::Text(_)))) => return End::Protocol,
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(Error::Capacity(_)))) => return End::Protocol,
            Ok(Some(Err(_)) | None) => return End::Remote,
            Err(_) => return End::Silent,
        }
    }
}

/// Returns when this side has closed the link and everything is sent.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queued: mpsc::Receiver<Queued>,
    peer_timeout: Duration,
) -> Result<(), End> {
    let interval = (peer_timeout / 3).max(MIN_PING_INTERVAL);
    let mut ping = interval_at(Instant::now() + interval, interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut next = tokio::select! {
            queued = queued.recv() => queued.map(|(packet, room)| (Message::Binary(packet), Some(room))),
            _ = ping.tick() => Some((Message::Ping(Bytes::new()), None)),
        };
        if next.is_none() {
            return taken(CLOSE_TIMEOUT, sink.close()).await;
        }
        // What else waits goes with it, in one flush.
        while let Some((message, _room)) = next {
            taken(peer_timeout, sink.feed(message)).await?;
            next = queued.try_recv().ok().map(|(packet, room)| (Message::Binary(packet), Some(room)));
        }
        taken(peer_timeout, sink.flush()).await?;
    }
}

async fn taken(limit: Duration, writing: impl Future<Output = Result<(), Error>>) -> Result<(), End> {
    let written = timeout(limit, writing).await.map_err(|_| End::Stuck)?;
    written.map_err(|_| End::Remote)
}
