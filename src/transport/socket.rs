//! A TCP socket for very many idle connections: it reads and writes in large pieces, and holds memory only while
//! there is something in it.
//!
//! The WebSocket layer above has tiny buffers of its own. Large reads go through one scratch buffer for each
//! thread; what does not fit above is kept until it is read. Writes are collected until the flush.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes of one read from the operating system.
const READ_BYTES: usize = 16 * 1024;

/// Bytes collected before they are written without waiting for the flush.
const WRITE_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Read and not yet taken, from `taken` on. Empty and without memory when all is taken.
    ahead: Vec<u8>,
    taken: usize,
    /// To be written, from `gone` on. Empty and without memory when all is written.
    out: Vec<u8>,
    gone: usize,
    written: u64,
    received: u64,
}

impl Socket {
    /// Wraps a socket from which `ahead` was read already.
    pub(crate) fn new(tcp: TcpStream, ahead: Vec<u8>) -> Self {
        Self { tcp, ahead, taken: 0, out: Vec::new(), gone: 0, written: 0, received: 0 }
    }

    /// Bytes that the operating system has taken so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Gives up what is not yet sent: closing resets the connection.
    pub(crate) fn abandon(&self) {
        // It fails only if the connection is gone already.
        let _ = self.tcp.set_zero_linger();
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.out.len() {
            let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.out[self.gone..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += count;
            self.written += count as u64;
        }
        self.out = Vec::new();
        self.gone = 0;
        Poll::Ready(Ok(()))
    }

    fn take_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = &self.ahead[self.taken..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.ahead.len() {
            self.ahead = Vec::new();
            self.taken = 0;
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            this.take_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ_BYTES {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
            this.received += (buf.filled().len() - before) as u64;
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut large = ReadBuf::new(scratch);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut large))?;
            let read = large.filled();
            let count = read.len().min(buf.remaining());
            this.received += read.len() as u64;
            buf.put_slice(&read[..count]);
            this.ahead = read[count..].to_vec();
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len() + data.len() > WRITE_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        if data.len() > WRITE_BYTES {
            let count = ready!(Pin::new(&mut this.tcp).poll_write(cx, data))?;
            this.written += count as u64;
            return Poll::Ready(Ok(count));
        }
        this.out.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn bytes_pass_in_order_and_no_memory_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut a = Socket::new(client, b"already".to_vec());
        let mut b = Socket::new(listener.accept().await.unwrap().0, Vec::new());
        let mut word = [0; 7];
        a.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"already");

        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            for piece in copy.chunks(777) {
                a.write_all(piece).await.unwrap();
            }
            a.flush().await.unwrap();
            assert_eq!((a.out.capacity(), a.written()), (0, 300_000));
            a
        });
        let mut received = vec![0; sent.len()];
        for piece in received.chunks_mut(500) {
            b.read_exact(piece).await.unwrap();
        }
        assert!(received == sent);
        assert_eq!(b.ahead.capacity(), 0);
        drop(writer.await.unwrap());
        assert_eq!(b.read(&mut word).await.unwrap(), 0);
    }
}
