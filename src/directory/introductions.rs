//! What peers say to each other through the directory: offers and their answers for the tree, and by which key a peer is known that comes
//! again.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::again::Due;
use super::core::{Core, State, now};
use super::link;
use crate::protocol::PeerNumber;
use crate::protocol::directory::{self, Introduction, Refused, Request, Route};
use crate::protocol::frame::Undeliverable;

/// Introductions of which it is remembered for whom they were, until they are answered. Of older ones no answer is expected.
const INTRODUCTIONS: usize = 256;

impl Core {
    /// When somebody is to be told by which key this side is known.
    pub(super) fn tells_again(&self) -> Due {
        self.lock().again.due(now())
    }

    /// Tells one of them.
    pub(super) fn tell_again(&self, room: mpsc::Permit<'_, String>) {
        let mut state = self.lock();
        let id = state.next_id();
        if let Some(own) = state.presence.own()
            && let Some(to) = state.again.next(id, now())
        {
            let data = link::again(own, to, &self.root.peer_id());
            room.send(directory::introduction(Introduction::Response, &data, Some(id)));
        }
    }

    /// Passes on what the tree wants to say to a peer.
    pub(super) fn introduce(&self, to: PeerNumber, payload: &str) {
        let mut state = self.lock();
        let state = &mut *state;
        let (Some(own), Some((_, to_tree))) = (state.presence.own(), &state.node) else { return };
        if state.presence.alias(to).is_none() {
            return to_tree.undeliverable(to, Undeliverable::Unknown);
        }
        let Some((what, route, data)) = link::introduction(own, to, payload) else {
            state.counters.dropped += 1;
            return;
        };
        // Of an offer somebody waits to hear what has become.
        let id = (what == Introduction::Request).then(|| state.next_id());
        let (Some(texts), Some((_, to_tree))) = (&state.texts, &state.node) else { return };
        if texts.try_send(Request::Introduce { what, route, data: &data }.to_json(id)).is_err() {
            return to_tree.undeliverable(to, Undeliverable::Busy);
        }
        if let Some(id) = id {
            if state.introductions.len() >= INTRODUCTIONS {
                state.introductions.pop_front();
            }
            state.introductions.push_back((id, to));
        }
    }

    /// A peer that the directory has named says something to the tree.
    pub(super) fn introduced(self: &Arc<Self>, state: &mut State, what: Introduction, route: Route, data: &str) {
        let Route { to, from, peer } = route;
        let is_ours = state.presence.own() == Some(to) && peer.is_none_or(|peer| peer == to || peer == from);
        let alias = state.presence.alias(from).cloned();
        if let (true, Some(alias), Some(key)) = (is_ours, &alias, link::key_of_again(data)) {
            for peer in state.connections.vouched(from, alias, key) {
                self.serve_again(state, peer);
            }
            return;
        }
        match (link::payload(data), &state.node) {
            _ if !is_ours || alias.is_none() => state.counters.foreign += 1,
            (Some(payload), Some((_, to_tree))) => {
                to_tree.deliver(from, None, Bytes::copy_from_slice(payload.as_bytes()))
            }
            (Some(_), None) => state.counters.dropped += 1,
            (None, node) => {
                state.counters.originals += 1;
                if let (Introduction::Response, Some((_, to_tree))) = (what, node) {
                    // Its answer to a call of ours is of no use.
                    to_tree.undeliverable(from, Undeliverable::Unknown);
                }
            }
        }
    }
}

impl State {
    /// The answer to an introduction has come. Of those that are not remembered it is of no use.
    pub(super) fn introduction_answered(&mut self, id: u64, answer: Result<Value, Refused>) {
        let is_busy = answer.as_ref().is_err_and(|refused| refused.code == "busy");
        if self.again.answered(id, is_busy, now()) {
            return;
        }
        let at = self.introductions.iter().position(|(introduction, _)| *introduction == id);
        let to = at.and_then(|at| self.introductions.remove(at)).map(|(_, to)| to);
        if let (Some(to), Err(_), Some((_, to_tree))) = (to, answer, &self.node) {
            to_tree.undeliverable(to, if is_busy { Undeliverable::Busy } else { Undeliverable::Unknown });
        }
    }
}
