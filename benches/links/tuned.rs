//! A runtime for the bare crate that does what pmesh's does: it keeps the driver from sleeping on what it has queued
//! during set-up, and enlarges the socket buffers.

use std::future::{Future, ready};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime,
    Transmit,
};

use crate::facts;

/// Sleeps that end at once after something has arrived, until the channel is open.
const KICKS: u8 = 2;
/// Longest sleep until the channel is open.
const LONGEST: Duration = Duration::from_millis(1);

/// Most datagrams of one system call. The crate makes batches of up to 65,535 bytes; those above 65,507 are refused, and
/// the link is then dead.
const MAX_BATCH: usize = 53;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[derive(Debug, Default)]
struct Pace {
    settled: AtomicBool,
    kicks: AtomicU8,
}

#[derive(Debug)]
pub(crate) struct Tuned(Arc<Pace>);

impl Tuned {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Arc::default()))
    }

    /// The channel is open.
    pub(crate) fn settle(&self) {
        self.0.settled.store(true, Ordering::Relaxed);
    }
}

impl Runtime for Tuned {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        facts::enlarge(&socket);
        Ok(Arc::new(Socket { inner: TokioRuntime.wrap_udp_socket(socket)?, pace: self.0.clone() }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, remote: SocketAddr) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(remote)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if self.0.settled.load(Ordering::Relaxed) {
            return Box::pin(tokio::time::sleep(duration));
        }
        let kicks = self.0.kicks.load(Ordering::Relaxed);
        if kicks > 0 {
            self.0.kicks.store(kicks - 1, Ordering::Relaxed);
            return Box::pin(ready(()));
        }
        Box::pin(tokio::time::sleep(duration.min(LONGEST)))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        TokioRuntime.yield_now()
    }
}

#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    pace: Arc<Pace>,
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, bufs, meta);
        if received.is_ready() && !self.pace.settled.load(Ordering::Relaxed) {
            self.pace.kicks.store(KICKS, Ordering::Relaxed);
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments().min(MAX_BATCH)
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}
