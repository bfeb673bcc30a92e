//! A stream, and how a connection knows whether it is in use.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::code;
use crate::identity::PeerId;
use crate::overlay::OverlayId;

/// How many streams of a connection are in use.
#[derive(Debug, Clone)]
pub(super) struct Usage(Arc<watch::Sender<usize>>);

/// Keeps a connection from being closed as idle.
#[derive(Debug)]
pub(super) struct InUse(Usage);

impl Usage {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn enter(&self) -> InUse {
        self.0.send_modify(|count| *count += 1);
        InUse(self.clone())
    }

    /// Waits until the connection was not in use for so long.
    pub(super) async fn idle(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // We hold a sender, so neither wait fails.
            let _ = count.wait_for(|count| *count == 0).await;
            if tokio::time::timeout(time, count.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// A stream of bytes to and from a peer: reliable, in order, flow-controlled, encrypted and authenticated from end to end.
///
/// Made by [`Streams::dial`](super::Streams::dial) and [`Listener::accept`](super::Listener::accept). Each direction ends on its own:
/// `shutdown` ends ours, which the peer reads as the end once it has read everything; reading goes on. Writing waits while the peer
/// does not read.
///
/// The way through the overlay may change at any time, and may be gone for 10 seconds, without a break. When the peer is gone or
/// has restarted, reading and writing fail, with [`TimedOut`](io::ErrorKind::TimedOut) after 35 to 45 seconds of silence, or
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) or [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) at once.
///
/// Reading and writing are cancel safe as far as their Tokio methods are. Dropping the stream without `shutdown` resets it: the
/// peer gets [`ConnectionReset`](io::ErrorKind::ConnectionReset), and what was written may be lost. Dropped after `shutdown`, it still
/// delivers what was written.
pub struct Stream {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) peer: PeerId,
    pub(super) id: OverlayId,
    pub(super) service: Arc<str>,
    pub(super) in_use: Option<InUse>,
    pub(super) finished: bool,
}

impl Stream {
    /// Who is at the other end: it has proven that it holds this key.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The id of who is at the other end.
    pub fn overlay_id(&self) -> OverlayId {
        self.id
    }

    /// The service it was dialled for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Ends our direction, if it is not over yet, and waits until the other side has received all of it: not until its application
    /// has read it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset) if the other side wants no more of it; others if the connection is lost.
    pub async fn delivered(&mut self) -> io::Result<()> {
        self.shutdown().await?;
        self.stopped().await
    }

    /// Waits until the other side takes no more of our direction: it has all of it, or wants no more, or is gone. For who has nothing
    /// to write at present and would not notice. The future does not hold the stream. Cancel safe.
    ///
    /// # Errors
    ///
    /// As of [`delivered`](Self::delivered).
    pub fn stopped(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let stopped = self.send.stopped();
        async {
            match stopped.await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(io::ErrorKind::ConnectionReset.into()),
                Err(StoppedError::ConnectionLost(lost)) => Err(broken(lost)),
                Err(error) => Err(io::Error::other(error)),
            }
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("service", &self.service).finish_non_exhaustive()
    }
}

fn broken(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::LocallyClosed => io::Error::new(io::ErrorKind::ConnectionAborted, error),
        error => error.into(),
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.recv.poll_read_buf(cx, buffer).map_err(|error| match error {
            ReadError::ConnectionLost(lost) => broken(lost),
            error => error.into(),
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.send).poll_write(cx, bytes).map_err(|error| match error {
            WriteError::ConnectionLost(lost) => broken(lost),
            error => error.into(),
        })
    }

    /// Nothing is held back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our direction. Does not wait until the peer has everything.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.finished = true;
            self.send.finish().map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.finished {
            // Over already, if it fails.
            let _ = self.send.reset(code::DROPPED);
        } else if let (Some(in_use), Ok(runtime)) = (self.in_use.take(), Handle::try_current()) {
            // The connection is in use until the peer has what was written.
            let delivered = self.send.stopped();
            runtime.spawn(async move {
                let _ = delivered.await;
                drop(in_use);
            });
        }
    }
}
