//! One connection from the first byte to the last: a thin driver between a socket and the hub.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::hub::{Dialect, Inbound, Next, PeerId, Reason, Refusal};
use super::serve::Shared;
use crate::protocol::{Address, P_PROTOCOL, PMESH_PROTOCOL};
use crate::transport::socket::Socket;
use crate::transport::upgrade::{self, Page, Site, Upgrade};

/// How long a close handshake may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pings that may stay unanswered.
const UNANSWERED_PINGS: u32 = 2;

/// Read buffer of the WebSocket layer: [`Socket`] reads ahead, so this one may be tiny.
const READ_BUFFER: usize = 512;

const SITE: Site = Site {
    protocols: &[PMESH_PROTOCOL, P_PROTOCOL],
    plain: false,
    hello: "This is a pmesh onramp. Connect with a WebSocket and the subprotocol \"pmesh.1\" or \"p\".\n",
    no_protocol: "Offer the WebSocket subprotocol \"pmesh.1\" or \"p\".\n",
};

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

/// Serves one accepted TCP connection until it ends. Dropping the future leaves the hub in order.
pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    // Rare and large states are boxed, so that the task of an idle connection stays small.
    let Some(mut link) = Box::pin(open(shared, tcp)).await else { return };
    let end = poll_fn(|cx| link.poll(cx)).await;
    tracing::debug!(address = %link.member.address, ?end, "peer gone");
    link.member.leave(end.reason());
    Box::pin(end.farewell(link.socket)).await;
}

async fn open(shared: Arc<Shared>, mut tcp: TcpStream) -> Option<Link> {
    let mut closing = shared.closing();
    let head = tokio::select! {
        head = timeout(shared.options.handshake_timeout, upgrade::request(&mut tcp, &SITE)) => head,
        _ = closing.wait_for(|closing| *closing) => return None,
    };
    let page = match head {
        Ok(Some((Ok(upgrade), ahead))) => match Member::join(&shared, &upgrade) {
            Ok(member) => {
                tcp.write_all(upgrade.response().as_bytes()).await.ok()?;
                return Some(Link::new(shared, member, Socket::new(tcp, ahead)).await);
            }
            Err(_) => Page::FULL,
        },
        Ok(Some((Err(page), _))) => page,
        Ok(None) => {
            shared.with(|hub, _| hub.refused(false));
            return None;
        }
        Err(_) => Page::TIMEOUT,
    };
    tracing::debug!(status = page.status, "not a peer");
    shared.with(|hub, _| hub.refused(page == Page::FULL));
    tokio::select! {
        () = page.send(tcp) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    None
}

/// A place in the hub. Dropping it leaves.
struct Member {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    id: PeerId,
    address: Address,
    here: bool,
}

impl Member {
    fn join(shared: &Arc<Shared>, upgrade: &Upgrade) -> Result<Self, Refusal> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text: &str = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        let address = Address::new(text).expect("a UUID has 36 bytes");
        let bell = Arc::new(Bell::default());
        let dialect = if upgrade.protocol == Some(PMESH_PROTOCOL) { Dialect::Pmesh } else { Dialect::P };
        let id = shared.with(|hub, bells| hub.connect(address.clone(), dialect, bell.clone(), bells))?;
        bell.ring();
        tracing::debug!(%address, ?dialect, "new peer");
        Ok(Self { shared: shared.clone(), bell, id, address, here: true })
    }

    fn leave(&mut self, reason: Reason) {
        if std::mem::take(&mut self.here) {
            self.shared.with(|hub, bells| hub.disconnect(self.id, reason, bells));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave(Reason::Left);
    }
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
            Self::Gone | Self::GoAway => Reason::Left,
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
struct Link {
    socket: WebSocketStream<Socket>,
    member: Member,
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

impl Link {
    async fn new(shared: Arc<Shared>, member: Member, socket: Socket) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(shared.options.max_frame_bytes))
            .max_message_size(Some(shared.options.max_frame_bytes));
        let ping_at = shared.options.ping_interval.map(|interval| Instant::now() + interval);
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
        self.member.bell.waker.register(cx.waker());
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            if self.paused_until.is_none()
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
            if self.more || self.member.bell.rang() {
                self.batch.clear();
                let (id, batch) = (self.member.id, &mut self.batch);
                match self.member.shared.with(|hub, _| hub.pull(id, batch)) {
                    Next::Wait => self.more = false,
                    Next::Pull => self.more = true,
                    Next::GoAway => return Poll::Ready(Ok(End::GoAway)),
                    Next::TooFarBehind => return Poll::Ready(Ok(End::Slow)),
                    Next::Ended(_) => return Poll::Ready(Ok(End::Gone)),
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
            self.blocked = Some((taken, Instant::now() + self.member.shared.options.stall_timeout));
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
        let now = Instant::now();
        let Member { shared, id, address, .. } = &self.member;
        let resume = match message {
            Message::Text(text) => {
                let inbound = Inbound::read(&text, address);
                drop(text);
                shared.with(|hub, bells| hub.text(*id, inbound, now.into_std(), bells))
            }
            Message::Binary(_) => shared.with(|hub, _| hub.binary(*id, now.into_std())),
            Message::Ping(_) | Message::Pong(_) => shared.with(|hub, _| hub.control(*id, now.into_std())),
            Message::Close(_) => return Poll::Ready(Some(End::Gone)),
            Message::Frame(_) => None,
        };
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
        if let (Some(at), Some(interval)) = (self.ping_at, self.member.shared.options.ping_interval)
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
