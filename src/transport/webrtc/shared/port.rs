//! One UDP socket that many links use.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

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

/// Receive errors in a row after which the socket has failed for good, and how long to wait after each. The system reports
/// a shortage of its own here too.
const MAX_FAILURES: u32 = 100;
const RETRY: Duration = Duration::from_millis(10);

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
    state: Mutex<State>,
    /// Wakes all links that wait to send: tokio keeps one waker for each socket.
    writers: Arc<Writers>,
}

#[derive(Default)]
struct State {
    /// `None` when it has failed: closed, so that its number is free, though links may still know the port.
    socket: Option<Arc<dyn AsyncUdpSocket>>,
    routes: Routes,
    inboxes: HashMap<LinkKey, Arc<Inbox>>,
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
        Ok(Self::over(address, socket::open(socket)?))
    }

    fn over(address: SocketAddr, socket: Arc<dyn AsyncUdpSocket>) -> Self {
        let state = State { socket: Some(socket.clone()), ..State::default() };
        let io = Arc::new(Io { state: Mutex::new(state), writers: Arc::default() });
        let reader = tokio::spawn(read(io.clone(), socket)).abort_handle();
        Self { address, io, reader }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the socket has failed for good.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.io.state).socket.is_none()
    }

    /// Adds a link with this user fragment: what is for it comes into the inbox.
    pub(super) fn join(&self, user: &str, offered: bool) -> (LinkKey, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(inbox_bytes()));
        let mut state = lock(&self.io.state);
        let key = state.routes.open(user, offered);
        state.inboxes.insert(key, inbox.clone());
        if state.socket.is_none() {
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
        if !is_sendable(self.address, transmit.destination) {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        let (socket, may) = self.io.learn(link, transmit);
        let Some(socket) = socket else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if !may {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        let waker = self.io.writers.clone().into();
        let mut shared = Context::from_waker(&waker);
        let sent = socket.poll_send(&mut shared, transmit);
        if sent.is_ready() {
            return sent;
        }
        lock(&self.io.writers.waiting).insert(link, cx.waker().clone());
        // There may be room since, and those that waited have been woken without this one.
        socket.poll_send(&mut shared, transmit)
    }

    pub(super) fn max_gso_segments(&self) -> usize {
        lock(&self.io.state).socket.as_ref().map_or(1, |socket| socket.max_gso_segments())
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
    /// Returns where to send it, and whether all of it may be sent.
    fn learn(&self, link: LinkKey, transmit: &Transmit<'_>) -> (Option<Arc<dyn AsyncUdpSocket>>, bool) {
        let now = Instant::now();
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut state = lock(&self.state);
        let mut datagrams = transmit.contents.chunks(segment);
        let may = datagrams.all(|datagram| state.routes.sent(now, link, transmit.destination, datagram));
        (state.socket.clone(), may)
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
        state.socket = None;
        for inbox in state.inboxes.values() {
            inbox.fail(error.kind());
        }
        drop(state);
        self.writers.clone().wake();
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
async fn read(io: Arc<Io>, socket: Arc<dyn AsyncUdpSocket>) {
    // In one piece: as large as it is, the system gives memory only to the parts that get used.
    let mut buffers = vec![[0; MESSAGE_BYTES]; MESSAGES].into_boxed_slice();
    let mut meta = [RecvMeta::default(); MESSAGES];
    let mut failures = 0;
    loop {
        let received = std::future::poll_fn(|cx| {
            let mut left = buffers.iter_mut();
            let mut slices: [_; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(left.next().map_or(&mut [], |buffer| buffer)));
            socket.poll_recv(cx, &mut slices, &mut meta)
        });
        match received.await {
            Ok(count) => {
                failures = 0;
                for (buffer, meta) in buffers.iter().zip(&meta).take(count) {
                    io.deliver(&buffer[..meta.len.min(buffer.len())], meta.stride.max(1), meta.addr);
                }
            }
            Err(error) if is_transient(error.kind()) => {}
            Err(error) => {
                failures += 1;
                if failures == MAX_FAILURES {
                    return io.fail(&error);
                }
                tracing::debug!(%error, "receiving on a shared port");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What the socket reports of one peer, or of nothing at all: the others go on.
fn is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, ConnectionRefused | ConnectionReset | Interrupted | TimedOut | WouldBlock)
}

/// Whether the system could send from here to there. Were it tried with an address of a peer's choice, which the system
/// calls invalid, the socket would send no batches any more, for no link.
fn is_sendable(from: SocketAddr, to: SocketAddr) -> bool {
    let local = match to {
        SocketAddr::V4(to) => to.ip().is_loopback(),
        // Link-local addresses need a scope.
        SocketAddr::V6(to) if to.ip().is_unicast_link_local() && to.scope_id() == 0 => return false,
        SocketAddr::V6(to) => to.ip().is_loopback(),
    };
    let usable = to.port() != 0 && !to.ip().is_multicast() && !to.ip().is_unspecified();
    usable && from.is_ipv4() == to.is_ipv4() && (local || !from.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::stun::tests::request;
    use super::*;

    /// Fails so often, then has nothing; has no room until it is told.
    #[derive(Debug, Default)]
    struct Fake {
        failures: AtomicU32,
        room: Mutex<Option<usize>>,
        writer: Mutex<Option<Waker>>,
    }

    impl AsyncUdpSocket for Fake {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(here())
        }

        fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
            match &mut *lock(&self.room) {
                Some(0) => {
                    *lock(&self.writer) = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(left) => *left -= 1,
                None => {}
            }
            Poll::Ready(Ok(transmit.contents.len()))
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            match self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())),
                Err(_) => Poll::Pending,
            }
        }
    }

    fn here() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 1).into()
    }

    fn transmit(contents: &[u8], destination: SocketAddr) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    async fn send(port: &Port, link: LinkKey, contents: &[u8], destination: SocketAddr) -> io::Result<usize> {
        std::future::poll_fn(|cx| port.poll_send(link, cx, &transmit(contents, destination))).await
    }

    async fn until(reached: impl Fn() -> bool) {
        let waiting = async {
            while !reached() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time");
    }

    async fn read(inbox: &Inbox) -> io::Result<RecvMeta> {
        let mut buffer = [0; 2000];
        std::future::poll_fn(|cx| inbox.poll_read(cx, &mut buffer)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_whose_socket_keeps_failing_ends_its_links_and_closes_it() {
        let socket = Arc::new(Fake { failures: AtomicU32::new(MAX_FAILURES), ..Fake::default() });
        let (closed, started) = (Arc::downgrade(&socket), tokio::time::Instant::now());
        let port = Port::over(here(), socket);
        let (link, inbox) = port.join("a", true);
        assert_eq!(read(&inbox).await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert!(started.elapsed() >= RETRY * (MAX_FAILURES - 1));
        assert!(port.is_broken());
        assert_eq!(send(&port, link, b"x", here()).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert!(read(&port.join("b", true).1).await.is_err(), "one that comes later");
        until(|| closed.strong_count() == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_that_passes_ends_nothing() {
        let socket = Arc::new(Fake { failures: AtomicU32::new(MAX_FAILURES - 1), ..Fake::default() });
        let port = Port::over(here(), socket.clone());
        for _ in 0..2 * MAX_FAILURES {
            tokio::time::advance(RETRY).await;
        }
        assert_eq!(socket.failures.load(Ordering::Relaxed), 0);
        assert!(!port.is_broken());
    }

    #[tokio::test]
    async fn all_links_that_wait_for_room_are_woken() {
        let socket = Arc::new(Fake { room: Mutex::new(Some(0)), ..Fake::default() });
        let port = Arc::new(Port::over(here(), socket.clone()));
        let sending: Vec<_> = (0..5)
            .map(|number| {
                let port = port.clone();
                let (link, _) = port.join(&number.to_string(), true);
                tokio::spawn(async move { send(&port, link, &request([number; 12], "x:y"), here()).await })
            })
            .collect();
        let waiting = || lock(&port.io.writers.waiting).len();
        until(|| waiting() == 5).await;
        *lock(&socket.room) = Some(2);
        lock(&socket.writer).take().unwrap().wake();
        until(|| waiting() == 3 && *lock(&socket.room) == Some(0)).await;
        *lock(&socket.room) = None;
        lock(&socket.writer).take().unwrap().wake();
        until(|| sending.iter().all(|sent| sent.is_finished())).await;
    }

    #[tokio::test]
    async fn an_address_of_a_peers_choice_does_not_end_batches() {
        let port = Port::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (link, _) = port.join("a", true);
        let before = port.max_gso_segments();
        for bad in ["127.0.0.1:0", "192.0.2.1:9", "224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9", "[::1]:9"] {
            let error = send(&port, link, b"x", bad.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
        assert_eq!(port.max_gso_segments(), before);
        send(&port, link, b"x", port.address()).await.unwrap();
        let outside = |text: &str| is_sendable("[2001:db8::1]:9".parse().unwrap(), text.parse().unwrap());
        assert!(outside("[2001:db8::2]:9") && outside("[fe80::2%3]:9"));
        assert!(!outside("[fe80::2]:9") && !outside("[ff02::1%3]:9") && !outside("192.0.2.1:9"));
    }
}
