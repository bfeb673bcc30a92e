/// What an onramp has done since it was bound: a snapshot, all counters of one moment.
///
/// Every field but [`open`](Self::open) and what is queued now only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Peers connected now.
    pub open: usize,
    /// Peers that were ever connected.
    pub accepted: u64,
    /// Connections that did not become peers: plain HTTP requests, wrong upgrades, no request in time, no room.
    pub refused: u64,
    /// Those of [`refused`](Self::refused) for which there was no room (HTTP 503, or closed unanswered).
    pub refused_full: u64,
    /// Frames relayed, counted when they were queued for their destination.
    pub relayed: u64,
    /// Bytes of the frames relayed, without WebSocket headers.
    pub relayed_bytes: u64,
    /// Announcements of peers to peers that were handed to connections.
    pub announced: u64,
    /// Frames for destinations that are not here.
    pub undeliverable: u64,
    /// Frames dropped because a queue was full: that of their destination, or all queues together.
    pub busy: u64,
    /// Introductions that named another sender than the one they came from. Only with accounts.
    pub forged: u64,
    /// HTTP requests without the right credentials (401 and 403), or too many of them (429). Only with accounts.
    pub denied: u64,
    /// Text messages that are no frames.
    pub malformed: u64,
    /// Well-formed frames and binary messages that are not for an onramp to act on.
    pub ignored: u64,
    /// Times that reading from a peer was paused because it sent faster than its rate.
    pub rate_limited: u64,
    /// Peers disconnected because they did not take what was sent to them.
    pub slow: u64,
    /// Peers disconnected because they answered no ping.
    pub silent: u64,
    /// Peers disconnected because of a frame above the size limit.
    pub too_big: u64,
    /// Peers disconnected because they broke the WebSocket protocol.
    pub broken: u64,
    /// Frames queued now that are relayed, over all peers.
    pub queued_frames: usize,
    /// Bytes of the frames queued now that are relayed.
    pub queued_bytes: usize,
    /// Frames queued now by which the onramp itself tells who is there, and answers. Only with accounts: without, announcements are not
    /// queued and not counted.
    pub told_frames: usize,
    /// Bytes of those.
    pub told_bytes: usize,
}
