//! A datagram socket over the overlay.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::OverlayId;
use super::packets::{MAX_PACKET, PacketPort};
use crate::lock::lock;

/// A socket for datagrams to and from any [`OverlayId`], in the shape of [`tokio::net::UdpSocket`].
///
/// As with UDP, a datagram arrives whole or not at all, and datagrams may overtake each other and arrive twice. What arrives while
/// nobody reads waits in the bounded queue of the port; when that is full, the datagram that arrives is lost.
///
/// Several tasks may use it at once. Each datagram goes to one of those that receive. Dropping the socket closes nothing but itself.
#[derive(Debug)]
pub struct DatagramSocket {
    port: Arc<dyn PacketPort>,
    /// What [`readable`](Self::readable) has seen and nobody has taken.
    seen: Mutex<Option<(OverlayId, Bytes)>>,
}

impl DatagramSocket {
    /// Largest datagram in bytes.
    pub const MAX_LEN: usize = MAX_PACKET;

    /// A socket on this port. Nobody else should receive from it.
    pub fn new(port: Arc<dyn PacketPort>) -> Self {
        Self { port, seen: Mutex::default() }
    }

    /// The id that others send to.
    pub fn local_addr(&self) -> OverlayId {
        self.port.id()
    }

    /// Sends a datagram. Waits while the queue of the port is full; says nothing about whether it arrives.
    ///
    /// Gives the length of the datagram. Cancel safe: it was sent or not.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is longer than [`MAX_LEN`](Self::MAX_LEN).
    pub async fn send_to(&self, datagram: &[u8], to: OverlayId) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send_to(cx, datagram, to)).await
    }

    /// Sends a datagram if there is room, see [`send_to`](Self::send_to).
    ///
    /// # Errors
    ///
    /// Those of [`send_to`](Self::send_to), and [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn try_send_to(&self, datagram: &[u8], to: OverlayId) -> io::Result<usize> {
        check(datagram)?;
        match self.port.try_send(&to, Bytes::copy_from_slice(datagram)) {
            Ok(()) => Ok(datagram.len()),
            Err(full) => Err(io::Error::new(io::ErrorKind::WouldBlock, full)),
        }
    }

    /// Sends a datagram, or has the task woken when that may work.
    ///
    /// # Errors
    ///
    /// Those of [`send_to`](Self::send_to).
    pub fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], to: OverlayId) -> Poll<io::Result<usize>> {
        check(datagram)?;
        loop {
            ready!(self.port.poll_writable(cx));
            // Another task may have been faster.
            if self.port.try_send(&to, Bytes::copy_from_slice(datagram)).is_ok() {
                return Poll::Ready(Ok(datagram.len()));
            }
        }
    }

    /// Receives a datagram: gives its length in the buffer, and who has sent it. What does not fit into the buffer is lost.
    ///
    /// Cancel safe: nothing is lost when it is dropped.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the overlay is closed.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, OverlayId)> {
        let mut buffer = ReadBuf::new(buffer);
        let from = poll_fn(|cx| self.poll_recv_from(cx, &mut buffer)).await?;
        Ok((buffer.filled().len(), from))
    }

    /// Receives a datagram if there is one, see [`recv_from`](Self::recv_from).
    ///
    /// # Errors
    ///
    /// Those of [`recv_from`](Self::recv_from), and [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, OverlayId)> {
        let mut buffer = ReadBuf::new(buffer);
        match self.poll_recv_from(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(from) => Ok((buffer.filled().len(), from?)),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Receives a datagram into what is free of the buffer, or has the task woken when there is one.
    ///
    /// # Errors
    ///
    /// Those of [`recv_from`](Self::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<OverlayId>> {
        let seen = lock(&self.seen).take();
        let (from, datagram) = match seen {
            Some(seen) => seen,
            None => ready!(self.port.poll_recv(cx)).ok_or_else(closed)?,
        };
        buffer.put_slice(&datagram[..datagram.len().min(buffer.remaining())]);
        Poll::Ready(Ok(from))
    }

    /// Waits until a datagram has arrived. Another task may be faster in taking it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the overlay is closed.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut seen = lock(&self.seen);
            if seen.is_none() {
                *seen = Some(ready!(self.port.poll_recv(cx)).ok_or_else(closed)?);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits until a datagram may be sent. Another task may be faster. Cancel safe.
    pub async fn writable(&self) {
        poll_fn(|cx| self.port.poll_writable(cx)).await;
    }
}

fn check(datagram: &[u8]) -> io::Result<()> {
    if datagram.len() <= MAX_PACKET {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a datagram has at most {MAX_PACKET} bytes")))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the overlay is closed")
}

#[cfg(test)]
mod tests {
    use super::super::packets::{PacketQueue, QueuedPort};
    use super::*;

    fn id(last: u8) -> OverlayId {
        let mut bytes = [0; OverlayId::BYTES];
        bytes[OverlayId::BYTES - 1] = last;
        OverlayId::from_bytes(bytes)
    }

    /// Two sockets, each of which only reaches the other, and their inbound queues.
    fn pair(queue: usize) -> [(DatagramSocket, Arc<PacketQueue>); 2] {
        let [a, b] = [0; 2].map(|_| Arc::new(PacketQueue::new(queue, 1 << 20)));
        let socket = |id, out: &Arc<_>, inbound: &Arc<_>| {
            (
                DatagramSocket::new(Arc::new(QueuedPort::new(id, Arc::clone(out), Arc::clone(inbound)))),
                Arc::clone(inbound),
            )
        };
        // The queue holds whom a packet is for; with two it is as good to name them alike.
        [socket(id(1), &b, &a), socket(id(1), &a, &b)]
    }

    #[tokio::test]
    async fn datagrams_arrive_whole() {
        let [(a, _), (b, _)] = pair(8);
        let longest = vec![7; DatagramSocket::MAX_LEN];
        for datagram in [&b""[..], b"hello", &longest] {
            assert_eq!(a.send_to(datagram, id(1)).await.unwrap(), datagram.len());
            let mut buffer = vec![0; DatagramSocket::MAX_LEN];
            let (len, from) = b.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..len], from), (datagram, a.local_addr()));
        }
        a.send_to(b"cut here", id(1)).await.unwrap();
        let mut buffer = [0; 3];
        assert_eq!(b.recv_from(&mut buffer).await.unwrap().0, 3);
        assert_eq!(&buffer, b"cut");
        assert_eq!(b.try_recv_from(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the rest is lost");
        for error in [a.send_to(&[0; DatagramSocket::MAX_LEN + 1], id(1)).await, a.try_send_to(&[0; 99_999], id(1))] {
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[tokio::test]
    async fn a_sender_waits_for_room() {
        let [(a, _), (b, inbound)] = pair(1);
        assert_eq!(a.try_send_to(b"one", id(1)).unwrap(), 3);
        assert_eq!(a.try_send_to(b"two", id(1)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(inbound.refused(), 1);
        let (sent, received) = tokio::join!(a.send_to(b"two", id(1)), async {
            b.readable().await.unwrap();
            b.readable().await.unwrap();
            b.recv_from(&mut [0; 9]).await.unwrap()
        });
        assert_eq!((sent.unwrap(), received.0), (3, 3));
        inbound.close();
        a.writable().await;
        let mut buffer = [0; 9];
        assert_eq!(b.recv_from(&mut buffer).await.unwrap().0, 3);
        assert_eq!(&buffer[..3], b"two");
        assert_eq!(b.recv_from(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert_eq!(b.readable().await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
