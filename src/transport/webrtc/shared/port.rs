//! One UDP socket that many links use.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::task::AbortHandle;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::inbox::Inbox;
use super::routes::{LinkKey, Routes};
use crate::lock::lock;
use crate::transport::webrtc::socket;

/// Messages that one system call takes in, each of up to 64 datagrams of one sender.
const MESSAGES: usize = 8;

/// The longest message: what the kernel coalesces at most.
const MESSAGE_BYTES: usize = 65_535;

/// What is held for one link that does not read: two windows, the second for what is not counted in the window.
fn inbox_bytes() -> usize {
    2 * socket::receive_window() as usize
}

/// A bound port. Dropping it closes the socket; links hold it.
pub(super) struct Port {
    address: SocketAddr,
    io: Arc<Io>,
    reader: AbortHandle,
}

/// What the task that reads shares with the links.
struct Io {
    socket: Arc<dyn AsyncUdpSocket>,
    state: Mutex<State>,
    /// Wakes all links that wait to send: tokio keeps one waker for each socket.
    writers: Arc<Writers>,
}

#[derive(Default)]
struct State {
    routes: Routes,
    inboxes: HashMap<LinkKey, Arc<Inbox>>,
    broken: bool,
}

#[derive(Default)]
struct Writers {
    waiting: Mutex<HashMap<LinkKey, Waker>>,
}

impl Wake for Writers {
    fn wake(self: Arc<Self>) {
        let woken = std::mem::take(&mut *lock(&self.waiting));
        for waker in woken.into_values() {
            waker.wake();
        }
    }
}

impl Port {
    /// Binds the address. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let address = socket.local_addr()?;
        let socket = socket::open(socket)?;
        let io = Arc::new(Io { socket, state: Mutex::default(), writers: Arc::default() });
        let reader = tokio::spawn(read(io.clone())).abort_handle();
        Ok(Self { address, io, reader })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the socket has failed for good.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.io.state).broken
    }

    /// Adds a link with this user fragment: what is for it comes into the inbox.
    pub(super) fn join(&self, user: &str, offered: bool) -> (LinkKey, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(inbox_bytes()));
        let mut state = lock(&self.io.state);
        let key = state.routes.open(user, offered);
        state.inboxes.insert(key, inbox.clone());
        if state.broken {
            inbox.fail(io::ErrorKind::NotConnected);
        }
        (key, inbox)
    }

    /// A link is open.
    pub(super) fn opened(&self, link: LinkKey) {
        lock(&self.io.state).routes.opened(link);
    }

    /// Forgets a link.
    pub(super) fn leave(&self, link: LinkKey) {
        let mut state = lock(&self.io.state);
        state.routes.close(link);
        state.inboxes.remove(&link);
        drop(state);
        lock(&self.io.writers.waiting).remove(&link);
    }

    /// Sends for a link. What it may not send now counts as sent, and lost.
    pub(super) fn poll_send(
        &self,
        link: LinkKey,
        cx: &Context<'_>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.io.learn(link, transmit) {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        let waker = self.io.writers.clone().into();
        let mut shared = Context::from_waker(&waker);
        let sent = socket::poll_send(&*self.io.socket, &mut shared, transmit);
        if sent.is_ready() {
            return sent;
        }
        lock(&self.io.writers.waiting).insert(link, cx.waker().clone());
        // There may be room since, and those that waited have been woken without this one.
        socket::poll_send(&*self.io.socket, &mut shared, transmit)
    }

    pub(super) fn max_gso_segments(&self) -> usize {
        self.io.socket.max_gso_segments()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Io {
    /// Returns whether all of it may be sent.
    fn learn(&self, link: LinkKey, transmit: &Transmit<'_>) -> bool {
        let now = Instant::now();
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let routes = &mut lock(&self.state).routes;
        let mut datagrams = transmit.contents.chunks(segment);
        datagrams.all(|datagram| routes.sent(now, link, transmit.destination, datagram))
    }

    /// Hands out what has arrived. Datagrams of one link that follow each other stay together.
    fn deliver(&self, message: &[u8], stride: usize, from: SocketAddr) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let mut run: Option<(LinkKey, Range<usize>)> = None;
        for (index, datagram) in message.chunks(stride).enumerate() {
            let (start, end) = (index * stride, index * stride + datagram.len());
            let to = state.routes.received(now, from, datagram);
            match &mut run {
                Some((link, range)) if to == Some(*link) => range.end = end,
                _ => {
                    let before = std::mem::replace(&mut run, to.map(|link| (link, start..end)));
                    state.push(before, message, stride, from);
                }
            }
        }
        state.push(run, message, stride, from);
    }

    fn fail(&self, error: &io::Error) {
        tracing::warn!(%error, "a shared port has failed");
        let mut state = lock(&self.state);
        state.broken = true;
        for inbox in state.inboxes.values() {
            inbox.fail(error.kind());
        }
    }
}

impl State {
    fn push(&self, run: Option<(LinkKey, Range<usize>)>, message: &[u8], stride: usize, from: SocketAddr) {
        if let Some((link, range)) = run
            && let Some(inbox) = self.inboxes.get(&link)
        {
            inbox.push(from, stride, &message[range]);
        }
    }
}

/// Reads until the port is dropped or the socket fails.
async fn read(io: Arc<Io>) {
    // In one piece: as large as it is, the system gives memory only to the parts that get used.
    let mut buffers = vec![[0; MESSAGE_BYTES]; MESSAGES].into_boxed_slice();
    let mut meta = [RecvMeta::default(); MESSAGES];
    loop {
        let received = std::future::poll_fn(|cx| {
            let mut left = buffers.iter_mut();
            let mut slices: [_; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(left.next().map_or(&mut [], |buffer| buffer)));
            io.socket.poll_recv(cx, &mut slices, &mut meta)
        });
        match received.await {
            Ok(count) => {
                for (buffer, meta) in buffers.iter().zip(&meta).take(count) {
                    io.deliver(&buffer[..meta.len.min(buffer.len())], meta.stride.max(1), meta.addr);
                }
            }
            Err(error) if is_transient(error.kind()) => {}
            Err(error) => return io.fail(&error),
        }
    }
}

/// What the socket reports of one peer, or of nothing at all: the others go on.
fn is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock)
}
