//! A WebSocket to an original.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::codec::{MAX_MESSAGE_BYTES, decode_id, encode_id};
use crate::error::Denied;
use crate::node::Budget;
use crate::overlay::OverlayId;
use crate::overlay::router::ForeignMessage;
use crate::transport::turned::Turned;
use crate::transport::websocket::Dialler;

/// How long a connection may take to become a WebSocket, and then the other side to say its id.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait in one direction. Sending beyond that is [refused](Refused::Full); reading waits.
const QUEUED_MESSAGES: usize = 64;
/// Bytes of text that wait in one direction, with the same effect.
const QUEUED_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// Pause between pings, which originals answer, in node.js as in browsers.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence after which an original counts as dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);
/// How long closing in good order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// As small as for onramps: there may be many links, and most of the time nothing goes over them.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Malformed messages at once, and per second, that are skipped. An honest original sends none of its own, but it passes on
/// some that are malformed to us. At more than that the link is closed.
const MALFORMED: (u32, u32) = (64, 8);

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no WebSocket, or it ended too soon.
    #[error("no WebSocket: {0}")]
    Failed(String),
    /// There is a server, which has answered by a status of HTTP, 400 or more.
    #[error("{0}")]
    Denied(Denied),
    /// No id came in time.
    #[error("no link came about in time")]
    TimedOut,
    /// What came first was no id.
    #[error("the other side did not say an id")]
    NoId,
    /// The other side claims our own id.
    #[error("the other side claims our own id")]
    OwnId,
    /// The other side listens to as many peers as it wants to, in our part of its table.
    #[error("the other side has no room for us")]
    NoRoom,
    /// The id was not admitted.
    #[error("{0} was not admitted")]
    NotAdmitted(OverlayId),
}

impl From<Turned> for LinkError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Away { denied, .. } => Self::Denied(denied),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Too much is waiting already.
    #[error("too much is waiting to be sent")]
    Full,
    /// The message is longer than [`MAX_MESSAGE_BYTES`](super::MAX_MESSAGE_BYTES).
    #[error("the message is too long")]
    TooLong,
    /// An original could [die](ForeignMessage::is_harmless) of it.
    #[error("an original could not take the message")]
    Harmful,
    /// The link is gone.
    #[error("the link is gone")]
    Closed,
}

/// A link to an original. It ends in good order, in the background, when the receiver or all senders are dropped.
#[derive(Debug)]
pub struct Link {
    /// Who is there, by what it claims.
    pub id: OverlayId,
    /// Where messages for it go.
    pub sender: Sender,
    /// What it sends.
    pub receiver: Receiver,
}

/// The sending side of a [`Link`].
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::Sender<(String, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The receiving side of a [`Link`].
#[derive(Debug)]
pub struct Receiver {
    queue: mpsc::Receiver<(ForeignMessage, OwnedSemaphorePermit)>,
    malformed: Arc<AtomicU64>,
}

impl Sender {
    /// Queues a message. Never waits; a message that is refused is dropped.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why it is not sent.
    pub fn try_send(&self, message: &ForeignMessage) -> Result<(), Refused> {
        if !message.is_harmless() {
            return Err(Refused::Harmful);
        }
        let text = message.encode();
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(Refused::TooLong);
        }
        let permit = self.room.clone().try_acquire_many_owned(text.len() as u32).map_err(|_| Refused::Full)?;
        self.queue.try_send((text, permit)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Closed,
        })
    }
}

impl Receiver {
    /// The next message, or `None` if the link is gone. While nobody takes them, the original is not read from. Cancel safe.
    pub async fn recv(&mut self) -> Option<ForeignMessage> {
        self.queue.recv().await.map(|(message, _)| message)
    }

    /// How many malformed messages were skipped so far.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }
}

/// Takes a TCP connection that an original has made to us, whatever path and subprotocol it asks for.
///
/// `admit` is asked once, about the id that the other side claims, before ours is said: it is to refuse an id to which there is a
/// link, and one that a peer has proven. There may be no link all the same. To drop the future ends the connection.
///
/// # Errors
///
/// [`LinkError`] says why there is no link.
pub async fn accept(
    stream: TcpStream,
    own: &OverlayId,
    admit: impl FnOnce(&OverlayId) -> bool,
) -> Result<Link, LinkError> {
    // It fails only if the connection is gone already.
    let _ = stream.set_nodelay(true);
    let socket = in_time(accept_async_with_config(stream, Some(config()))).await?;
    introduce(socket, own, admit).await
}

/// Connects to an original at a `ws` or `wss` URL. See [`accept`].
///
/// # Errors
///
/// [`LinkError`] says why there is no link.
pub async fn dial(url: &str, own: &OverlayId, admit: impl FnOnce(&OverlayId) -> bool) -> Result<Link, LinkError> {
    dial_by(&Dialler::default(), url, own, admit).await
}

/// As [`dial`], trusting the certificates that the dialler trusts.
pub(crate) async fn dial_by(
    dialler: &Dialler,
    url: &str,
    own: &OverlayId,
    admit: impl FnOnce(&OverlayId) -> bool,
) -> Result<Link, LinkError> {
    let dialled = timeout(HANDSHAKE_TIMEOUT, dialler.dial(url, &[], MAX_MESSAGE_BYTES)).await;
    let (socket, _) = dialled.map_err(|_| LinkError::TimedOut)??;
    introduce(socket, own, admit).await
}

async fn in_time<T>(step: impl Future<Output = Result<T, tungstenite::Error>>) -> Result<T, LinkError> {
    let done = timeout(HANDSHAKE_TIMEOUT, step).await.map_err(|_| LinkError::TimedOut)?;
    done.map_err(|error| LinkError::Failed(error.to_string()))
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Exchanges ids over an open WebSocket, on which nothing longer than [`MAX_MESSAGE_BYTES`] comes. Ours comes last: see the module
/// documentation.
pub(crate) async fn introduce<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut socket: WebSocketStream<S>,
    own: &OverlayId,
    admit: impl FnOnce(&OverlayId) -> bool,
) -> Result<Link, LinkError> {
    let id = decode_id(&next_text(&mut socket).await?).map_err(|_| LinkError::NoId)?;
    if id == *own {
        return Err(LinkError::OwnId);
    }
    if !admit(&id) {
        // In good order, so that the original sees an end and no error; whether it succeeds does not matter.
        let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
        return Err(LinkError::NotAdmitted(id));
    }
    in_time(socket.send(Message::text(encode_id(own)))).await?;
    // It asks at once whom we know, if it has room for us in its table. If not, it says nothing, and listens to nothing.
    let first = match next_text(&mut socket).await {
        Err(LinkError::TimedOut) => return Err(LinkError::NoRoom),
        first => first?,
    };

    let (outgoing, to_send) = mpsc::channel(QUEUED_MESSAGES);
    let (received, incoming) = mpsc::channel(QUEUED_MESSAGES);
    let malformed = Arc::new(AtomicU64::new(0));
    let (sink, stream) = socket.split();
    let mut inbound = Inbound {
        queue: received,
        room: Arc::new(Semaphore::new(QUEUED_BYTES)),
        malformed: malformed.clone(),
        tolerance: Budget::new(MALFORMED.0, MALFORMED.1),
    };
    inbound.take(&Message::Text(first)).await;
    tokio::spawn(run(sink, stream, inbound, to_send));
    Ok(Link {
        id,
        sender: Sender { queue: outgoing, room: Arc::new(Semaphore::new(QUEUED_BYTES)) },
        receiver: Receiver { queue: incoming, malformed },
    })
}

/// The next text message. Nothing else comes from an original.
async fn next_text<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Result<Utf8Bytes, LinkError> {
    let message = in_time(async {
        loop {
            match socket.next().await.unwrap_or(Err(tungstenite::Error::ConnectionClosed))? {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Ok(message),
            }
        }
    });
    match message.await? {
        Message::Text(text) => Ok(text),
        Message::Close(_) => Err(LinkError::Failed("it was closed".into())),
        _ => Err(LinkError::NoId),
    }
}

struct Inbound {
    queue: mpsc::Sender<(ForeignMessage, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    malformed: Arc<AtomicU64>,
    tolerance: Budget,
}

impl Inbound {
    /// Queues what has come, when there is room. Returns why the link is to end, if it is: `Some(None)` if nobody listens.
    async fn take(&mut self, message: &Message) -> Option<Option<CloseCode>> {
        let (bytes, decoded) = match message {
            Message::Text(text) => (text.len(), ForeignMessage::decode(text).ok()),
            Message::Binary(_) => (0, None),
            _ => return None,
        };
        let Some(message) = decoded else {
            self.malformed.fetch_add(1, Ordering::Relaxed);
            let tolerated = self.tolerance.take(Instant::now().into_std());
            return (!tolerated).then_some(Some(CloseCode::Policy));
        };
        let Ok(permit) = self.room.clone().acquire_many_owned(bytes as u32).await else { return Some(None) };
        self.queue.send((message, permit)).await.is_err().then_some(None)
    }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut stream: SplitStream<WebSocketStream<S>>,
    mut inbound: Inbound,
    to_send: mpsc::Receiver<(String, OwnedSemaphorePermit)>,
) {
    let queue = inbound.queue.clone();
    let code = tokio::select! {
        code = read(&mut stream, &mut inbound) => code,
        () = queue.closed() => Some(CloseCode::Normal),
        code = write(&mut sink, to_send) => code,
    };
    // From here on nobody gets or sends anything.
    drop((inbound, queue));
    let closing = async {
        if let Some(code) = code {
            sink.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await.ok()?;
        }
        while let Some(Ok(_)) = stream.next().await {}
        Some(())
    };
    // Whether it takes our goodbye does not matter.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Reads until the link is to end. Returns what to say then, if there is still somebody to say it to.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    inbound: &mut Inbound,
) -> Option<CloseCode> {
    loop {
        let message = match timeout(SILENCE_LIMIT, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(tungstenite::Error::Capacity(_)))) => return Some(CloseCode::Size),
            _ => return None,
        };
        if let Some(end) = inbound.take(&message).await {
            return end;
        }
    }
}

/// Writes until there are no senders any more, or the link is broken.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut to_send: mpsc::Receiver<(String, OwnedSemaphorePermit)>,
) -> Option<CloseCode> {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            queued = to_send.recv() => match queued {
                Some((text, _permit)) => text,
                None => return Some(CloseCode::Normal),
            },
            _ = ping.tick() => {
                in_patience(sink.send(Message::Ping(Bytes::new()))).await?;
                continue;
            }
        };
        in_patience(sink.feed(Message::text(text))).await?;
        // What else waits goes with it, in one flush.
        while let Ok((text, _permit)) = to_send.try_recv() {
            in_patience(sink.feed(Message::text(text))).await?;
        }
        in_patience(sink.flush()).await?;
    }
}

/// Who takes nothing for as long is as good as gone, even if it goes on sending.
async fn in_patience(step: impl Future<Output = Result<(), tungstenite::Error>>) -> Option<()> {
    timeout(SILENCE_LIMIT, step).await.ok()?.ok()
}
