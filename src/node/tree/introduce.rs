//! Frames of open nodes, and relaying between two of them: what makes a peer an introducer.

use std::time::Instant;

use super::{NodeId, Output, Phase, Tree};
use crate::error::CloseReason;
use crate::protocol::Address;
use crate::protocol::frame::{self, Frame, Undeliverable};
use crate::protocol::signal::Signal;
use crate::transport::Account;

impl<P: Clone> Tree<P> {
    pub(super) fn frame(&mut self, node: NodeId, account: Option<Account>, text: &str, now: Instant) {
        let Some(entry) = self.nodes.get(&node) else { return };
        let from_onramp = entry.via.is_none();
        if !self.is_open(node) {
            // An onramp of pmesh is open once it has said who we are there.
            if let (Phase::Dialling, true, Ok(Frame::Welcome { address })) =
                (&entry.phase, entry.extension, Frame::parse(text))
            {
                self.outputs.push_back(Output::OwnAddress { node, address });
                self.opened(node, true);
            }
            return;
        }
        match Frame::parse(text) {
            Ok(Frame::Relayed { from, payload }) => match Signal::parse(payload) {
                Ok(signal) => self.relayed_signal(node, from, account, signal, now),
                Err(_) => self.counters.malformed += 1,
            },
            Ok(Frame::Relay { to, payload }) => self.relay(node, &to, payload.get(), now),
            Ok(Frame::Undeliverable { to, why }) => {
                let reason = match why {
                    Undeliverable::Unknown => CloseReason::Unreachable,
                    Undeliverable::Busy => CloseReason::Busy,
                };
                self.undeliverable(node, &to, reason);
            }
            Ok(Frame::Welcome { address }) => self.outputs.push_back(Output::OwnAddress { node, address }),
            // Only onramps keep others informed; a peer could push other events out of the streams.
            Ok(Frame::Left { address }) if from_onramp => {
                if let Some(check) = self.checking.get(node, &address) {
                    self.cancel_check(check);
                }
                self.undeliverable(node, &address, CloseReason::Unreachable);
                self.outputs.push_back(Output::PeerLeft { node, address });
            }
            // User messages do not come this way.
            Ok(Frame::Message(_) | Frame::Left { .. }) | Err(_) => self.counters.malformed += 1,
        }
    }

    /// Passes a payload from one WebRTC peer to another. It is not looked at.
    fn relay(&mut self, source: NodeId, to: &Address, payload: &str, now: Instant) {
        let Some(entry) = self.nodes.get_mut(&source) else { return };
        if !(entry.relays.take(now) && entry.relay_bytes.take_many(payload.len(), now)) {
            self.counters.over_budget += 1;
            self.tell_undeliverable(source, to, Undeliverable::Busy);
            return;
        }
        // Only peers introduce peers: an onramp has no business here.
        let destination = if entry.via.is_some() { self.open.get(to).copied() } else { None };
        let from = entry.address.clone();
        match destination {
            Some(node) => {
                self.counters.relayed += 1;
                self.outputs.push_back(Output::Relay { source, node, text: frame::relayed(&from, payload) });
            }
            None => {
                self.counters.undeliverable += 1;
                self.tell_undeliverable(source, to, Undeliverable::Unknown);
            }
        }
    }

    /// The node of an [`Output::Frame`] does not keep up, so the frame is lost. A negotiation that needs it cannot go on.
    pub(crate) fn frame_dropped(&mut self, node: NodeId, text: &str) {
        if let Ok(Frame::Relay { to, .. }) = Frame::parse(text) {
            self.undeliverable(node, &to, CloseReason::Busy);
        }
    }

    /// The destination of an [`Output::Relay`] does not keep up.
    pub(crate) fn relay_failed(&mut self, source: NodeId, destination: NodeId) {
        self.counters.relayed -= 1;
        self.counters.undeliverable += 1;
        if let Some(to) = self.nodes.get(&destination).map(|entry| entry.address.clone()) {
            self.tell_undeliverable(source, &to, Undeliverable::Busy);
        }
    }

    fn tell_undeliverable(&mut self, source: NodeId, to: &Address, why: Undeliverable) {
        if self.nodes.get(&source).is_some_and(|entry| entry.extension) {
            self.outputs.push_back(Output::Frame { node: source, text: frame::undeliverable(to, why) });
        }
    }
}
