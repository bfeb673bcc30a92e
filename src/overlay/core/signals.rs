//! Frames of negotiations, by which new connections are made through the overlay.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use lru::LruCache;

use super::{Core, State, Waiting, Wish, now};
use crate::lock::lock;
use crate::node::Budget;
use crate::overlay::OverlayId;
use crate::overlay::link::signal::OFFER;
use crate::overlay::router::Kind;
use crate::overlay::routing::Admission;
use crate::protocol::frame::Undeliverable;
use crate::transport::Account;

/// How long a frame of a negotiation is tried.
const SIGNAL_WITHIN: Duration = Duration::from_secs(10);

/// What a frame of a negotiation is for: its first byte.
const FOR_ROUTING: u8 = 0;
const FOR_APPLICATION: u8 = 1;
/// The answer to an offer that the routing has no room for. Nothing follows it.
const DECLINED: u8 = 2;

/// The account of neighbours that are not in the table.
const OTHERS: u64 = 0;

/// How long a call of an application of the other side is expected to lead to a connection.
const CALL: Duration = Duration::from_secs(60);
/// Calls of applications of others that may be under way. At it, the oldest counts as made for the routing.
const CALLS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");
/// Frames of negotiations that a peer may send, and how many more each second. Beyond, they are dropped: all peers share what the
/// tree lets the overlay introduce.
const FRAMES: Budget = Budget::new(64, 8);

/// Peers whose applications call us, and when they did.
#[derive(Debug)]
pub(super) struct Callers(LruCache<OverlayId, Instant>);

impl Default for Callers {
    fn default() -> Self {
        Self(LruCache::new(CALLS))
    }
}

impl Callers {
    /// Whether a peer has called a short time ago. Says so once.
    pub(super) fn take(&mut self, peer: &OverlayId, now: Instant) -> bool {
        self.0.pop(peer).is_some_and(|called| now < called + CALL)
    }
}

impl Core {
    /// Sends a frame of the tree's to a peer.
    pub(in crate::overlay) fn signal(&self, to: OverlayId, payload: &str) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        let now = now();
        let routing = state.wished.contains(&to) && !state.called.contains_key(&to);
        let mut body = BytesMut::with_capacity(1 + payload.len());
        body.put_u8(if routing { FOR_ROUTING } else { FOR_APPLICATION });
        body.put_slice(payload.as_bytes());
        match state.router.send(to, Kind::Signal, body.freeze(), Some(SIGNAL_WITHIN), now) {
            Ok(send) => drop(state.waiting.insert(send, Waiting::Signal(to))),
            Err(_) => self.signals.undeliverable(to, Undeliverable::Busy),
        }
        self.drive_on(&mut state, now);
    }

    pub(super) fn signal_arrived(
        &self,
        state: &mut State,
        from: OverlayId,
        through: OverlayId,
        mut body: Bytes,
        now: Instant,
    ) {
        if body.is_empty() || !state.frames.get_or_insert_mut(from, || FRAMES).take(now) {
            state.dropped += 1;
            return;
        }
        let payload = body.split_off(1);
        let is_offer = payload.starts_with(OFFER);
        match body[0] {
            FOR_ROUTING if is_offer && !state.called.contains_key(&from) && !self.admits(state, &from) => {
                // It will hear of it or run into its timeout.
                let _ = state.router.send(from, Kind::Signal, Bytes::from_static(&[DECLINED]), None, now);
            }
            purpose @ (FOR_ROUTING | FOR_APPLICATION) => {
                if purpose == FOR_APPLICATION && is_offer {
                    state.callers.0.put(from, now);
                }
                let account = Account { number: state.account(&through), background: purpose == FOR_ROUTING };
                self.signals.deliver(from, Some(account), payload);
            }
            DECLINED if state.wished.contains(&from) => {
                // If that is forgotten, the call runs into its timeout.
                let _ = self.wishes.try_send(Wish::Declined(from));
            }
            _ => state.dropped += 1,
        }
    }

    /// Whether a connection that a peer makes for its routing is accepted.
    fn admits(&self, state: &State, peer: &OverlayId) -> bool {
        self.makes_links && state.router.routing().admits(peer) != Admission::No
    }
}

impl State {
    /// On whose account goes what has come over the link of this neighbour. Ids cost nothing, so whoever makes them is known by the links
    /// that its offers come over. Links cost little, so only those in the table, where each has its place, have an account each.
    fn account(&self, through: &OverlayId) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *through.as_bytes();
        let is_in_table = self.router.routing().neighbours().contains(through);
        if is_in_table { u64::from_be_bytes([a, b, c, d, e, f, g, h]) } else { OTHERS }
    }
}
