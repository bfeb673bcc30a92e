//! One WebSocket from the first frame to the last: a thin driver between a socket and a place in a hub.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::hub::accounts::Ended;
use super::hub::{Next, Reason};
use super::serve::Options;
use crate::protocol::directory::ACCOUNT_CLOSED;
use crate::transport::socket::Socket;

/// How long a close handshake may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pings that may stay unanswered.
const UNANSWERED_PINGS: u32 = 2;

/// Read buffer of the WebSocket layer: [`Socket`] reads ahead, so this one may be tiny.
const READ_BUFFER: usize = 512;

/// Tells a connection that the hub has something for it.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the bell rang since the last call.
    fn rang(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }
}

/// What came from a peer.
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong.
    Control,
}

/// A place in a hub. Dropping it leaves.
pub(super) trait Member: Unpin {
    fn options(&self) -> &Options;

    fn bell(&self) -> &Bell;

    /// Appends what is due to `batch`, which is empty.
    fn pull(&mut self, batch: &mut Vec<Utf8Bytes>) -> Next;

    /// Takes what came. Returns when to read on, if not at once.
    fn take(&mut self, incoming: Incoming, now: std::time::Instant) -> Option<std::time::Instant>;

    /// Pending while something is under way that must end before more is taken.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Leaves, for a reason. Nothing happens if it has left.
    fn leave(&mut self, reason: Reason);
}

/// Serves a connection from its opening to its end. Dropping the future leaves the hub in order.
pub(super) async fn serve<M: Member>(opening: Pin<Box<impl Future<Output = Option<Link<M>>>>>) {
    // Rare and large states are boxed, so that the task of an idle connection stays small.
    let Some(mut link) = opening.await else { return };
    let end = poll_fn(|cx| link.poll(cx)).await;
    tracing::debug!(?end, "peer gone");
    link.member.leave(end.reason());
    Box::pin(end.farewell(link.socket)).await;
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The peer closed it, or it broke.
    Gone,
    /// The peer did something that the close code names.
    Failed(CloseCode, &'static str),
    /// The onramp shuts down.
    GoAway,
    /// Its account ends.
    Ended(Ended),
    Slow,
    Silent,
}

impl End {
    fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Failed(CloseCode::Size, "the frame is too large"),
            Error::Utf8(_) => Self::Failed(CloseCode::Invalid, "text is not UTF-8"),
            Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Gone
            }
            Error::Protocol(_) => Self::Failed(CloseCode::Protocol, "not the WebSocket protocol"),
            _ => Self::Gone,
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Gone | Self::GoAway | Self::Ended(_) => Reason::Left,
            Self::Failed(CloseCode::Size, _) => Reason::TooBig,
            Self::Failed(..) => Reason::Broken,
            Self::Slow => Reason::Slow,
            Self::Silent => Reason::Silent,
        }
    }

    /// Ends the connection as politely as its state allows, in bounded time.
    async fn farewell(self, mut socket: WebSocketStream<Socket>) {
        let (close, code) = match self {
            Self::Slow | Self::Silent => return socket.get_ref().abandon(),
            Self::Gone => (None, CloseCode::Normal),
            Self::GoAway => (Some("the onramp shuts down"), CloseCode::Away),
            Self::Ended(Ended::PasswordChanged) => {
                (Some("the password was changed, or the account was deactivated for a while"), ACCOUNT_CLOSED.into())
            }
            Self::Ended(Ended::Deactivated) => (Some("the account was deactivated"), ACCOUNT_CLOSED.into()),
            Self::Ended(Ended::Deleted) => (Some("the account was deleted"), ACCOUNT_CLOSED.into()),
            Self::Failed(code, reason) => (Some(reason), code),
        };
        let polite = async {
            if let Some(reason) = close {
                socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await.ok()?;
                // Ends at once if reading has failed already.
                while let Some(Ok(_)) = socket.next().await {}
            }
            // The answer to the peer's close frame may still lie in the socket. If it cannot go, the peer is gone already.
            let _ = socket.flush().await;
            let socket = socket.get_mut();
            socket.shutdown().await.ok()?;
            // Closing with unread input would reset the connection, and the close frame could be lost.
            let mut rest = vec![0; 16 * 1024];
            while close.is_some() && socket.read(&mut rest).await.ok()? > 0 {}
            Some(())
        };
        let _ = timeout(CLOSE_TIMEOUT, polite).await;
    }
}

/// A WebSocket and its peer in the hub.
pub(super) struct Link<M> {
    socket: WebSocketStream<Socket>,
    member: M,
    /// Handed out by the hub and not yet written, from `written` on.
    batch: Vec<Utf8Bytes>,
    written: usize,
    /// The hub has more.
    more: bool,
    ping: bool,
    unflushed: bool,
    /// Since the socket takes no more: what it had taken then, and when to give up.
    blocked: Option<(u64, Instant)>,
    paused_until: Option<Instant>,
    ping_at: Option<Instant>,
    unanswered: u32,
    /// Bytes that had come when the latest ping was sent.
    received: u64,
    timer: Pin<Box<Sleep>>,
}

impl<M: Member> Link<M> {
    pub(super) async fn new(member: M, socket: Socket) -> Self {
        let options = member.options();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(options.max_frame_bytes))
            .max_message_size(Some(options.max_frame_bytes));
        let ping_at = options.ping_interval.map(|interval| Instant::now() + interval);
        Self {
            socket: WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await,
            member,
            batch: Vec::new(),
            written: 0,
            more: false,
            ping: false,
            unflushed: false,
            blocked: None,
            paused_until: None,
            ping_at,
            unanswered: 0,
            received: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.member.bell().waker.register(cx.waker());
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            if self.paused_until.is_none()
                && self.member.poll_ready(cx).is_ready()
                && let Poll::Ready(ended) = self.poll_read(cx)
            {
                match ended {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            if let Some(end) = ready!(self.poll_timer(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    /// Writes what is due. Pending if nothing is, or if the socket takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let result = ready!(self.poll_outbound(cx));
        Poll::Ready(result.unwrap_or_else(|error| End::of(&error)))
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, Error>> {
        loop {
            let message = if self.ping { Some(Message::Ping(Bytes::new())) } else { self.next_text() };
            if let Some(message) = message {
                ready!(self.poll_socket(cx, |socket, cx| socket.poll_ready(cx)))?;
                if std::mem::take(&mut self.ping) {
                    Pin::new(&mut self.socket).start_send(message)?;
                } else {
                    self.written += 1;
                    Pin::new(&mut self.socket).start_send(message)?;
                }
                self.unflushed = true;
                continue;
            }
            self.written = 0;
            if self.more || self.member.bell().rang() {
                self.batch.clear();
                match self.member.pull(&mut self.batch) {
                    Next::Wait => self.more = false,
                    Next::Pull => self.more = true,
                    Next::GoAway => return Poll::Ready(Ok(End::GoAway)),
                    Next::TooFarBehind => return Poll::Ready(Ok(End::Slow)),
                    Next::Ended(ended) => return Poll::Ready(Ok(End::Ended(ended))),
                }
            } else if self.unflushed {
                self.batch = Vec::new();
                ready!(self.poll_socket(cx, |socket, cx| socket.poll_flush(cx)))?;
                self.unflushed = false;
            } else {
                return Poll::Pending;
            }
        }
    }

    fn next_text(&self) -> Option<Message> {
        self.batch.get(self.written).map(|text| Message::Text(text.clone()))
    }

    /// Polls the socket for writing, and notes since when it is blocked.
    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut WebSocketStream<Socket>>, &mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Poll<Result<(), Error>> {
        let result = poll(Pin::new(&mut self.socket), cx);
        let taken = self.socket.get_ref().written();
        if result.is_ready() {
            self.blocked = None;
        } else if self.blocked.is_none_or(|(before, _)| before != taken) {
            self.blocked = Some((taken, Instant::now() + self.member.options().stall_timeout));
        }
        result
    }

    /// Reads one message. Ready with None if there was one.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Some(End::of(&error))),
            None => return Poll::Ready(Some(End::Gone)),
        };
        self.unanswered = 0;
        let incoming = match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(_) => Incoming::Binary,
            Message::Ping(_) | Message::Pong(_) => Incoming::Control,
            Message::Close(_) => return Poll::Ready(Some(End::Gone)),
            Message::Frame(_) => return Poll::Ready(None),
        };
        let resume = self.member.take(incoming, Instant::now().into_std());
        self.paused_until = resume.map(Instant::from_std);
        Poll::Ready(None)
    }

    /// Does what is due by time. Ready with None if something was.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let give_up = self.blocked.map(|(_, at)| at);
        let Some(next) = [give_up, self.paused_until, self.ping_at].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        ready!(self.timer.as_mut().poll(cx));
        if give_up.is_some_and(|at| at <= next) {
            return Poll::Ready(Some(End::Slow));
        }
        if self.paused_until.is_some_and(|until| until <= next) {
            self.paused_until = None;
        }
        if let (Some(at), Some(interval)) = (self.ping_at, self.member.options().ping_interval)
            && at <= next
        {
            // A large frame on a slow line: no pong can come before its end.
            let received = self.socket.get_ref().received();
            if std::mem::replace(&mut self.received, received) != received {
                self.unanswered = 0;
            }
            if self.unanswered >= UNANSWERED_PINGS {
                return Poll::Ready(Some(End::Silent));
            }
            self.unanswered += 1;
            self.ping = true;
            self.ping_at = Some(Instant::now() + interval);
        }
        Poll::Ready(None)
    }
}
