//! UDP sockets with large buffers, and the SCTP window and credit that fit into them.
//!
//! A receive buffer that overflows costs SCTP a recovery of a second and more. So the buffers are made large, and the
//! window that a peer may fill is never larger than what they hold.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use socket2::SockRef;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Runtime, TokioRuntime, Transmit};

use super::pace::Pace;
use super::receive::LeanSocket;
use crate::protocol::limits::{CREDIT_BYTES, CREDIT_PACKETS};

/// What is asked of the system for each socket and direction, in bytes.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The SCTP receive windows in use, with the socket buffer that each needs.
const WINDOWS: [(usize, u32); 3] = [(2 * 1024 * 1024, 1024 * 1024), (1024 * 1024, 512 * 1024), (0, 256 * 1024)];

/// The most bytes that one system call sends: the largest UDP payload over IPv4. The crate hands over batches of up to
/// 65,535 bytes. Those few that lie between the two would be refused as a whole, sent again as they were, and refused
/// again, until the link is dead.
const MAX_BATCH_BYTES: usize = 65_507;

/// The port of multicast DNS, whose sockets keep their buffers.
pub(super) const MDNS_PORT: u16 = 5353;

/// The SCTP receive window of each link, in bytes: what the socket buffers of this machine hold.
pub(super) fn receive_window() -> u32 {
    static WINDOW: OnceLock<u32> = OnceLock::new();
    *WINDOW.get_or_init(|| {
        let granted = probe().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell how large socket buffers get");
            0
        });
        let window = window_for(granted);
        tracing::info!(granted, window, "receive buffer of UDP sockets, and the SCTP window to match, in bytes");
        window
    })
}

/// The credit that this side announces to a pmesh peer, in bytes and packets: below the SCTP receive window, so that
/// it never closes.
pub(crate) fn credit_window() -> (u32, u32) {
    (credit_for(receive_window()), CREDIT_PACKETS)
}

fn window_for(granted: usize) -> u32 {
    WINDOWS.iter().find(|(needed, _)| granted >= *needed).map_or(WINDOWS[2].1, |(_, window)| *window)
}

fn credit_for(window: u32) -> u32 {
    (window / 100 * 86).min(CREDIT_BYTES)
}

fn probe() -> io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    enlarge(&socket);
    let reported = SockRef::from(&socket).recv_buffer_size()?;
    // Linux reports twice what it grants, the rest being for its own bookkeeping.
    Ok(if cfg!(target_os = "linux") { reported / 2 } else { reported })
}

/// Asks for large buffers, past the system's limit where this process may. What is refused stays as it is.
fn enlarge(socket: &UdpSocket) {
    let socket_ref = SockRef::from(socket);
    if !force(socket) {
        let receive = socket_ref.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let send = socket_ref.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        if let Err(error) = receive.and(send) {
            tracing::debug!(%error, "socket buffers stay as they are");
        }
    }
}

#[cfg(target_os = "linux")]
fn force(socket: &UdpSocket) -> bool {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_ok()
        && setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn force(_socket: &UdpSocket) -> bool {
    false
}

/// Wraps a bound socket for the crate's driver. What arrives on it is told to `pace`.
///
/// # Errors
///
/// The system's, when the socket cannot be registered with tokio.
pub(super) fn wrap(socket: UdpSocket, pace: Arc<Pace>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    if socket.local_addr()?.port() == MDNS_PORT {
        return Ok(Arc::new(LeanSocket::new(TokioRuntime.wrap_udp_socket(socket)?)));
    }
    Ok(paced(LeanSocket::new(open(socket)?), pace))
}

/// A bound socket with large buffers.
///
/// # Errors
///
/// The system's, when the socket cannot be registered with tokio.
pub(super) fn open(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    enlarge(&socket);
    TokioRuntime.wrap_udp_socket(socket)
}

/// A socket for the crate's driver, which gets from it what `pace` allows. What passes is told to `pace`; a batch that is too
/// long for one call of the system goes in two.
pub(super) fn paced(inner: impl AsyncUdpSocket + 'static, pace: Arc<Pace>) -> Arc<dyn AsyncUdpSocket> {
    Arc::new(PacedSocket { inner, pace })
}

#[derive(Debug)]
struct PacedSocket<S> {
    inner: S,
    pace: Arc<Pace>,
}

impl<S: AsyncUdpSocket> AsyncUdpSocket for PacedSocket<S> {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.pace.sent(transmit);
        let Some((head, tail)) = split(transmit) else { return self.inner.poll_send(cx, transmit) };
        std::task::ready!(self.inner.poll_send(cx, &head))?;
        // If the rest must wait, the driver comes again with the whole: a datagram that arrives twice is harmless.
        std::task::ready!(self.inner.poll_send(cx, &tail))?;
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.pace.is_sated() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = received {
            for (buf, meta) in bufs.iter().zip(&*meta).take(count) {
                self.pace.received(buf, meta);
            }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// Cuts a batch that is too large for one call between two of its datagrams.
fn split<'a>(transmit: &Transmit<'a>) -> Option<(Transmit<'a>, Transmit<'a>)> {
    let segment = transmit.segment_size?;
    let at = MAX_BATCH_BYTES.checked_div(segment)? * segment;
    if transmit.contents.len() <= MAX_BATCH_BYTES || at == 0 {
        return None;
    }
    let (head, tail) = transmit.contents.split_at(at);
    let part = |contents: &'a [u8]| Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn,
        contents,
        segment_size: (contents.len() > segment).then_some(segment),
        src_ip: transmit.src_ip,
    };
    Some((part(head), part(tail)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::mailbox::Mailbox;
    use super::super::runtime::LinkRuntime;
    use super::*;

    fn batch(contents: &[u8], segment: usize) -> Transmit<'_> {
        Transmit {
            destination: (Ipv4Addr::LOCALHOST, 9).into(),
            ecn: None,
            contents,
            segment_size: Some(segment),
            src_ip: None,
        }
    }

    #[test]
    fn a_batch_above_the_limit_of_one_call_is_cut_between_datagrams() {
        let contents = vec![0; 65_535];
        let (head, tail) = split(&batch(&contents, 1225)).unwrap();
        assert_eq!((head.contents.len(), head.segment_size), (53 * 1225, Some(1225)));
        assert_eq!((tail.contents.len(), tail.segment_size), (65_535 - 53 * 1225, None));
        assert!(split(&batch(&contents[..MAX_BATCH_BYTES], 1225)).is_none());
        let (head, tail) = split(&batch(&contents, 1213)).unwrap();
        assert_eq!((head.contents.len(), tail.contents.len()), (54 * 1213, 65_535 - 54 * 1213));
    }

    /// On a real socket, through the crate's own batching: every batch size passes, those that the system refuses too.
    #[tokio::test]
    async fn batches_of_every_size_are_sent() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pace = LinkRuntime::new(Mailbox::new(), Duration::from_secs(2), None).pace().clone();
        let sender = wrap(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), pace).unwrap();
        if sender.max_gso_segments() < 54 {
            return;
        }
        let contents = vec![0; 65_535];
        for length in [65_000, MAX_BATCH_BYTES, MAX_BATCH_BYTES + 1, 65_520, 65_535] {
            let mut transmit = batch(&contents[..length], 1225);
            transmit.destination = receiver.local_addr().unwrap();
            let sent = std::future::poll_fn(|cx| sender.poll_send(cx, &transmit)).await;
            assert_eq!(sent.unwrap(), length);
        }
    }

    #[test]
    fn the_window_fits_the_socket() {
        assert_eq!(window_for(4 << 20), 1 << 20);
        assert_eq!(window_for(2 << 20), 1 << 20);
        assert_eq!(window_for(1 << 20), 512 << 10);
        assert_eq!(window_for(212_992), 256 << 10);
        assert_eq!(window_for(0), 256 << 10);
    }

    #[test]
    fn the_credit_stays_below_the_window() {
        assert_eq!(credit_for(1 << 20), CREDIT_BYTES);
        for (_, window) in WINDOWS {
            assert!(credit_for(window) < window - window / 10);
        }
    }

    #[test]
    fn a_socket_gets_what_the_probe_says() {
        let granted = probe().unwrap();
        assert!(granted > 0);
        assert_eq!(window_for(granted), receive_window());
    }
}
