//! Frames of negotiations, by which new connections are made through the overlay.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::{CALLERS, Core, State, Waiting, Wish, now};
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::router::Kind;
use crate::overlay::routing::Admission;
use crate::protocol::frame::Undeliverable;

/// How long a frame of a negotiation is tried.
const SIGNAL_WITHIN: Duration = Duration::from_secs(10);

/// What a frame of a negotiation is for: its first byte.
const FOR_ROUTING: u8 = 0;
const FOR_APPLICATION: u8 = 1;
/// The answer to an offer that the routing has no room for. Nothing follows it.
const DECLINED: u8 = 2;
/// How the frame of an offer begins.
const OFFER: &[u8] = b"[3,";

impl Core {
    /// Sends a frame of the tree's to a peer.
    pub(in crate::overlay) fn signal(&self, to: OverlayId, payload: &str) {
        let mut state = lock(&self.state);
        let now = now();
        let purpose = if state.called.contains_key(&to) { FOR_APPLICATION } else { FOR_ROUTING };
        let mut body = BytesMut::with_capacity(1 + payload.len());
        body.put_u8(purpose);
        body.put_slice(payload.as_bytes());
        match state.router.send(to, Kind::Signal, body.freeze(), Some(SIGNAL_WITHIN), now) {
            Ok(send) => drop(state.waiting.insert(send, Waiting::Signal(to))),
            Err(_) => self.signals.undeliverable(to, Undeliverable::Busy),
        }
        self.drive_on(&mut state, now);
    }

    pub(super) fn signal_arrived(&self, state: &mut State, from: OverlayId, mut body: Bytes, now: Instant) {
        if body.is_empty() {
            state.dropped += 1;
            return;
        }
        let payload = body.split_off(1);
        let is_offer = payload.starts_with(OFFER);
        match body[0] {
            DECLINED => drop(self.wishes.try_send(Wish::Declined(from))),
            FOR_ROUTING if is_offer && !state.called.contains_key(&from) && !self.admits(state, &from) => {
                // It will hear of it or run into its timeout.
                let _ = state.router.send(from, Kind::Signal, Bytes::from_static(&[DECLINED]), None, now);
            }
            purpose => {
                if purpose == FOR_APPLICATION && is_offer && state.callers.len() < CALLERS {
                    state.callers.insert(from);
                }
                self.signals.deliver(from, payload);
            }
        }
    }

    /// Whether a connection that a peer makes for its routing is accepted.
    fn admits(&self, state: &State, peer: &OverlayId) -> bool {
        self.makes_links && state.router.routing().admits(peer) != Admission::No
    }
}
