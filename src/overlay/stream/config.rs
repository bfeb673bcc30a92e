//! How QUIC is set: for hops that are reliable and have bounded queues, and an address that outlives its paths.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig,
    VarInt,
};
use ring::hmac;

use super::tls;
use crate::identity::Identity;

/// Bytes of a full packet. The overlay has no MTU of its own below 60 KiB, and large packets cost less for each byte; the first ones
/// of a connection are padded to this, and QUIC writes their length in 14 bits.
pub(super) const MTU: u16 = 16 * 1024;

/// A peer that is silent for so long is gone, or for 10 seconds less if we have sent it something at the beginning. A path that is gone for 10 seconds is probed again within 20.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(45);

/// How often a connection in use says that it is there, so that the end of a peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// QUIC counts the silence from the first packet on that it has sent into it (RFC 9000, section 10.1): one that says that we are there,
/// if there is no other.
const IDLE_TIMEOUT: Duration = MAX_SILENCE.saturating_sub(KEEP_ALIVE);

/// What a peer may send on one stream before it is read, in bytes. It bounds the speed: so much in each round trip.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;

/// What a peer may send on all its streams before it is read, in bytes. Readers of several streams that do not read hold up the
/// others of the same peer.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;

/// What is kept for one peer until it is acknowledged, in bytes. At the bound, writing waits.
pub(super) const SEND_WINDOW: u32 = 4 << 20;

/// Streams that one peer may have open at once, of those that it has dialled. At the bound, its dialling waits.
pub(super) const MAX_STREAMS: u32 = 256;

/// Bytes that a connection sends before it knows the path.
const INITIAL_WINDOW: u64 = 10 * MTU as u64;

/// Packets kept for each connection that is about to be accepted, in bytes.
const INCOMING_BUFFER: u64 = 4 * MTU as u64;

/// Of both sides. The key for resets is one of the identity: after a restart it still tells the peers of its earlier connections
/// that these are over (RFC 9000, section 10.3.2).
pub(super) fn endpoint(identity: &Identity) -> EndpointConfig {
    let reset = identity.secret_for(b"reset of streams");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    config.cid_generator(|| Box::new(ConnectionIds));
    config.max_udp_payload_size(MTU).expect("the size is one that QUIC allows");
    config
}

/// Random ones. Those of QUIC by default would be nobody's after a restart, and get no reset.
struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Of the side that dials.
pub(super) fn client(identity: &Identity) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(tls::client(identity)));
    config.transport_config(Arc::new(transport(0)));
    config
}

/// Of the side that is dialled.
pub(super) fn server(identity: &Identity, max_incoming: usize) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server(identity)));
    config.transport_config(Arc::new(transport(MAX_STREAMS)));
    // An id is an address and stays one. Tokens would prove the address, but QUIC forgets a part of it in them.
    config.migration(false);
    config.validation_token.sent(0);
    config.max_incoming(max_incoming);
    config.incoming_buffer_size(INCOMING_BUFFER);
    config.incoming_buffer_size_total(max_incoming as u64 * INCOMING_BUFFER);
    config
}

fn transport(streams: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW.into())
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        // Both the same: after losses it would otherwise take the path for one that has no room for large packets.
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .congestion_controller_factory(Arc::new(congestion()));
    config
}

/// Of those that QUIC has, it fills a hop with a bounded queue best, and loses the fewest packets there.
fn congestion() -> CubicConfig {
    let mut config = CubicConfig::default();
    config.initial_window(INITIAL_WINDOW);
    config
}
