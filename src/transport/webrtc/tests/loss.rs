//! A network that loses datagrams.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

/// The first byte of a DTLS record with application data.
const DATA: u8 = 23;

/// Loses every n-th datagram with data that is sent; none while n is 0.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    every: AtomicU32,
    sent: AtomicU32,
    lost: AtomicU32,
}

impl Loss {
    pub(super) fn begin(&self, every: u32) {
        self.every.store(every, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(in super::super) fn wrap(self: Arc<Self>, inner: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(LossySocket { inner, loss: self })
    }

    fn loses(&self, transmit: &Transmit<'_>) -> bool {
        let every = self.every.load(Ordering::Relaxed);
        if every == 0 || transmit.contents.first() != Some(&DATA) {
            return false;
        }
        let loses = self.sent.fetch_add(1, Ordering::Relaxed) % every == every - 1;
        self.lost.fetch_add(u32::from(loses), Ordering::Relaxed);
        loses
    }
}

#[derive(Debug)]
struct LossySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    loss: Arc<Loss>,
}

impl AsyncUdpSocket for LossySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if self.loss.loses(transmit) {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    /// Each datagram by itself, or whole batches would get lost.
    fn max_gso_segments(&self) -> usize {
        1
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}
