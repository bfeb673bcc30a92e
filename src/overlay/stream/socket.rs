//! The overlay as the socket that QUIC sends on. An id is an address: nothing is looked up.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::overlay::OverlayId;
use crate::overlay::packets::PacketPort;

/// Any but 0, which is no port.
const PORT: u16 = 1;

/// The address that stands for an id: 128 bits in the IP address, 32 in the flow information, which QUIC keeps and compares.
pub(super) fn address(id: &OverlayId) -> SocketAddr {
    let [ip @ .., a, b, c, d] = *id.as_bytes();
    SocketAddrV6::new(Ipv6Addr::from(ip), PORT, u32::from_be_bytes([a, b, c, d]), 0).into()
}

/// The id that an address stands for.
pub(super) fn id(address: &SocketAddr) -> Option<OverlayId> {
    let SocketAddr::V6(address) = address else { return None };
    let mut id = [0; OverlayId::BYTES];
    let (ip, flow) = id.split_at_mut(16);
    ip.copy_from_slice(&address.ip().octets());
    flow.copy_from_slice(&address.flowinfo().to_be_bytes());
    Some(OverlayId::from_bytes(id))
}

/// A port as a UDP socket.
pub(super) struct Socket(pub(super) Arc<dyn PacketPort>);

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.0.id())
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // What is for no id is nobody's.
        let Some(to) = id(&transmit.destination) else { return Ok(()) };
        self.0.try_send(&to, Bytes::copy_from_slice(transmit.contents)).map_err(|_| io::ErrorKind::WouldBlock.into())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = 0;
        while received < buffers.len().min(metas.len()) {
            match self.0.poll_recv(cx) {
                Poll::Ready(Some((from, packet))) => {
                    // None of ours is longer than the buffers.
                    let Some(buffer) = buffers[received].get_mut(..packet.len()) else { continue };
                    buffer.copy_from_slice(&packet);
                    metas[received] = RecvMeta {
                        addr: address(&from),
                        len: packet.len(),
                        stride: packet.len(),
                        ..RecvMeta::default()
                    };
                    received += 1;
                }
                // Nothing will come any more. An error would be taken for one of the system, and logged.
                Poll::Ready(None) | Poll::Pending if received == 0 => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(&self.0.id()))
    }
}

#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.0.poll_writable(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_an_id(bytes: [u8; OverlayId::BYTES]) {
            let it = OverlayId::from_bytes(bytes);
            prop_assert_eq!(id(&address(&it)), Some(it));
        }
    }

    #[test]
    fn other_addresses_are_none() {
        assert_eq!(id(&"127.0.0.1:1".parse().unwrap()), None);
    }
}
