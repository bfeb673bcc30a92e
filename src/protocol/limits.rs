//! The numbers that bound what a peer can make us hold. Each says what happens at it.

/// Longest address, in bytes. A frame that names a longer one is malformed.
pub(crate) const MAX_ADDRESS_BYTES: usize = 512;

/// Longest signalling frame accepted from a peer, in bytes. A longer one is malformed.
pub(crate) const MAX_SIGNAL_BYTES: usize = 128 * 1024;

/// Longest session description, in bytes. A signal with a longer one is malformed.
pub(crate) const MAX_SDP_BYTES: usize = 64 * 1024;

/// Most offer data, in bytes of JSON. A connect call with more fails; an offer with more is malformed.
pub(crate) const MAX_OFFER_DATA_BYTES: usize = 32 * 1024;

/// Longest ICE candidate, in bytes of JSON. A longer one is malformed.
pub(crate) const MAX_CANDIDATE_BYTES: usize = 1024;

/// Most bytes of one packet between pmesh peers: 56 SCTP chunks of 1160 bytes, the size that costs least CPU.
pub(crate) const MAX_PACKET_BYTES: usize = 56 * 1160;

/// Largest user message sent or accepted by default, in bytes. Sending more is `TooLarge`; receiving more ends the link.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Largest text or binary frame towards a peer that announces no maximum (RFC 8841 section 6.1), in bytes.
pub(crate) const DEFAULT_REMOTE_MESSAGE_BYTES: usize = 65_536;

/// Credit that may be outstanding towards a peer: below the SCTP receive buffer of 1 MiB, so that its window never closes.
pub(crate) const CREDIT_BYTES: u32 = 900_000;

/// Packets that may be outstanding towards a peer: below the 256 that the SCTP receiver delivers without a further event.
pub(crate) const CREDIT_PACKETS: u32 = 200;

// The numbers from here on are part of the protocol: both sides must have the same.

/// Channels that one side may have opened on a link at a time, besides the main one. Opening more is an error on this
/// side, and ends the link if the other side does it.
pub(crate) const MAX_CHANNELS: usize = 32;

/// Kinds of delivery, besides ordered and reliable, of the channels that one side opens over the life of a link. Another
/// one is an error on this side, and ends the link if the other side does it.
pub(crate) const MAX_KINDS: usize = 64;

/// Data channels besides the main one that a side may make over the life of a link: one for each kind of both sides. Making
/// more ends the link: even closed ones cost the other side memory.
pub(crate) const MAX_STREAMS: usize = 2 * MAX_KINDS;

/// Longest name of a channel, in bytes. Opening a longer one is an error; receiving one ends the link.
pub(crate) const MAX_CHANNEL_NAME_BYTES: usize = 256;

/// How the names of channels begin that are not for applications.
pub(crate) const RESERVED_CHANNELS: &str = "pmesh.";

/// Credit of a channel besides the main one, in bytes and packets, where the window of the link is not smaller.
pub(crate) const CHANNEL_CREDIT: (u32, u32) = (256 * 1024, 64);
