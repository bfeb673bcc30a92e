//! What has arrived for one link and is still to be read. A link that does not read loses its own datagrams only.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use webrtc::runtime::RecvMeta;

use crate::lock::lock;

/// What is counted for each batch besides its bytes.
const BATCH_OVERHEAD: usize = 128;

/// Datagrams of one length from one address; the last may be shorter.
#[derive(Debug)]
struct Batch {
    from: SocketAddr,
    stride: usize,
    bytes: Box<[u8]>,
    /// Bytes that have been read.
    read: usize,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// What is counted for the batches.
    held: usize,
    lost: u64,
    reader: Option<Waker>,
    broken: Option<io::ErrorKind>,
}

/// The queue between a shared port and one link.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    /// The most that is held, in bytes. At it, what arrives is lost, as in a full socket buffer.
    limit: usize,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: Mutex::default(), limit }
    }

    /// Adds datagrams of `stride` bytes each.
    pub(super) fn push(&self, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let reader = {
            let mut queue = lock(&self.queue);
            if queue.held + bytes.len() + BATCH_OVERHEAD > self.limit {
                queue.lost += bytes.len().div_ceil(stride.max(1)) as u64;
                return;
            }
            queue.held += bytes.len() + BATCH_OVERHEAD;
            queue.batches.push_back(Batch { from, stride: stride.max(1), bytes: bytes.into(), read: 0 });
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// From now on reading fails, once what has arrived is read.
    pub(super) fn fail(&self, kind: io::ErrorKind) {
        let reader = {
            let mut queue = lock(&self.queue);
            queue.broken = Some(kind);
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes as many datagrams of one batch as the buffer holds. A datagram that is longer than the buffer is lost.
    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<RecvMeta>> {
        let mut queue = lock(&self.queue);
        while let Some(batch) = queue.batches.front_mut() {
            let left = &batch.bytes[batch.read..];
            let fits = if left.len() <= buffer.len() { left.len() } else { buffer.len() / batch.stride * batch.stride };
            buffer[..fits].copy_from_slice(&left[..fits]);
            let mut meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (batch.from, fits, batch.stride.min(fits));
            batch.read += fits;
            if fits == 0 || batch.read == batch.bytes.len() {
                let size = batch.bytes.len() + BATCH_OVERHEAD;
                queue.held -= size;
                queue.batches.pop_front();
            }
            if fits > 0 {
                return Poll::Ready(Ok(meta));
            }
        }
        if let Some(kind) = queue.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if !queue.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            queue.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Datagrams lost because the link did not read.
    pub(super) fn lost(&self) -> u64 {
        lock(&self.queue).lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inbox: &Inbox, buffer: &mut [u8]) -> Option<(usize, usize)> {
        match inbox.poll_read(&Context::from_waker(Waker::noop()), buffer) {
            Poll::Ready(meta) => meta.ok().map(|meta| (meta.len, meta.stride)),
            Poll::Pending => None,
        }
    }

    fn from() -> SocketAddr {
        ([127, 0, 0, 1], 9).into()
    }

    #[test]
    fn a_batch_is_read_in_parts_that_fit_and_are_whole_datagrams() {
        let inbox = Inbox::new(10_000);
        inbox.push(from(), 100, &[7; 950]);
        let mut buffer = [0; 420];
        assert_eq!(read(&inbox, &mut buffer), Some((400, 100)));
        assert_eq!(read(&inbox, &mut buffer), Some((400, 100)));
        assert_eq!(read(&inbox, &mut buffer), Some((150, 100)));
        assert_eq!(read(&inbox, &mut buffer), None);
        assert_eq!(lock(&inbox.queue).held, 0);
    }

    #[test]
    fn what_a_link_does_not_read_is_lost_beyond_the_limit_and_counted() {
        let inbox = Inbox::new(1000);
        inbox.push(from(), 100, &[1; 500]);
        inbox.push(from(), 100, &[2; 500]);
        inbox.push(from(), 100, &[3; 100]);
        assert_eq!(inbox.lost(), 5);
        let mut buffer = [0; 2000];
        assert_eq!(read(&inbox, &mut buffer), Some((500, 100)));
        assert_eq!(read(&inbox, &mut buffer), Some((100, 100)));
        assert_eq!(buffer[0], 3);
        inbox.push(from(), 100, &[4; 500]);
        assert_eq!(read(&inbox, &mut buffer), Some((500, 100)), "there is room again");
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_does_not_block_those_behind_it() {
        let inbox = Inbox::new(10_000);
        inbox.push(from(), 3000, &[1; 3000]);
        inbox.push(from(), 10, &[2; 10]);
        let mut buffer = [0; 2000];
        assert_eq!(read(&inbox, &mut buffer), Some((10, 10)));
    }

    #[test]
    fn a_broken_port_is_told_after_what_has_arrived() {
        let inbox = Inbox::new(10_000);
        inbox.push(from(), 10, &[2; 10]);
        inbox.fail(io::ErrorKind::NotConnected);
        let mut buffer = [0; 2000];
        assert_eq!(read(&inbox, &mut buffer), Some((10, 10)));
        let end = inbox.poll_read(&Context::from_waker(Waker::noop()), &mut buffer);
        assert!(matches!(end, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected));
    }
}
