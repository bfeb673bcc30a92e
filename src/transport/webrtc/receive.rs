//! Receiving without a buffer for each socket.
//!
//! The system hands over as many datagrams at once as fit into 64 KiB, and the crate keeps two buffers of more than that for
//! each socket that admits to it. This one does not: what arrives is received into a buffer of the thread, and handed on
//! one datagram at a time. An idle socket holds none.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use crate::lock::lock;

/// The most that the system hands over at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    /// Lent to the socket that is read on this thread, until what it got is handed on.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Datagrams that arrived together, and how many of their bytes have been handed on.
#[derive(Debug)]
struct Batch {
    buffer: Box<[u8]>,
    meta: RecvMeta,
    taken: usize,
}

/// A socket that yields one datagram at a time, and holds no buffer while there is none.
#[derive(Debug)]
pub(super) struct LeanSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    batch: Mutex<Option<Batch>>,
}

impl LeanSocket {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, batch: Mutex::new(None) }
    }

    fn poll_batch(&self, cx: &mut Context<'_>) -> Poll<io::Result<Batch>> {
        let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        let mut meta = [RecvMeta::default()];
        let received = self.socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta);
        let [meta] = meta;
        match received {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Batch { buffer, meta, taken: 0 })),
            Poll::Ready(Err(error)) => {
                BUFFER.set(Some(buffer));
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                BUFFER.set(Some(buffer));
                Poll::Pending
            }
        }
    }
}

impl AsyncUdpSocket for LeanSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        let mut slot = lock(&self.batch);
        let mut batch = match slot.take() {
            Some(batch) => batch,
            None => ready!(self.poll_batch(cx))?,
        };
        *meta = batch.next(buf);
        if batch.is_taken() {
            BUFFER.set(Some(batch.buffer));
        } else {
            *slot = Some(batch);
        }
        Poll::Ready(Ok(1))
    }

    fn max_gso_segments(&self) -> usize {
        self.socket.max_gso_segments()
    }
}

impl Batch {
    /// Hands on a datagram, cut if it does not fit.
    fn next(&mut self, buf: &mut [u8]) -> RecvMeta {
        let end = self.meta.len.min(self.taken + self.meta.stride.max(1));
        let datagram = &self.buffer[self.taken..end];
        self.taken = end;
        let len = datagram.len().min(buf.len());
        buf[..len].copy_from_slice(&datagram[..len]);
        let mut meta = self.meta;
        (meta.len, meta.stride) = (len, len.max(1));
        meta
    }

    fn is_taken(&self) -> bool {
        self.taken >= self.meta.len
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, UdpSocket};

    use webrtc::runtime::{Runtime, TokioRuntime};

    use super::*;

    fn socket() -> LeanSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        LeanSocket::new(TokioRuntime.wrap_udp_socket(socket).unwrap())
    }

    async fn receive(socket: &LeanSocket, buf: &mut [u8]) -> RecvMeta {
        let mut meta = [RecvMeta::default()];
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(buf)], &mut meta)).await;
        assert_eq!(received.unwrap(), 1);
        meta[0]
    }

    #[tokio::test]
    async fn what_was_sent_at_once_arrives_one_by_one() {
        let (sender, receiver) = (socket(), socket());
        assert_eq!(receiver.max_gro_segments(), 1, "the crate's buffers are as large as this");
        let size = 1200;
        let count = sender.max_gso_segments().min(40);
        // The last is shorter.
        let contents: Vec<u8> = (0..count * size - 100).map(|at| (at / size) as u8).collect();
        let transmit = Transmit {
            destination: receiver.local_addr().unwrap(),
            ecn: None,
            contents: &contents,
            segment_size: Some(size),
            src_ip: None,
        };
        poll_fn(|cx| sender.poll_send(cx, &transmit)).await.unwrap();
        let mut buf = [0; 2000];
        for sent in contents.chunks(size) {
            let meta = receive(&receiver, &mut buf).await;
            assert_eq!((&buf[..meta.len], meta.stride), (sent, sent.len()));
            assert_eq!(meta.addr, sender.local_addr().unwrap());
        }
        assert!(lock(&receiver.batch).is_none());
        assert!(BUFFER.take().is_some(), "given back");
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_long_is_cut_and_an_empty_one_is_one() {
        let (sender, receiver) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), socket());
        for contents in [&[7; 3000][..], &[], &[8; 10]] {
            sender.send_to(contents, receiver.local_addr().unwrap()).unwrap();
            let mut buf = [0; 2000];
            let meta = receive(&receiver, &mut buf).await;
            assert_eq!(&buf[..meta.len], &contents[..contents.len().min(2000)]);
            assert!(meta.stride > 0);
        }
    }
}
