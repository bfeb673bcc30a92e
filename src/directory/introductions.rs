//! What peers say to each other through the directory: offers and their answers for the tree, and by which key a peer is known that comes
//! again.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::{Core, State, now};
use super::link;
use crate::protocol::PeerNumber;
use crate::protocol::directory::{self, Introduction, Refused, Request, Route};
use crate::protocol::frame::Undeliverable;

/// Introductions of which it is remembered for whom they were, until they are answered. Of older ones no answer is expected.
const INTRODUCTIONS: usize = 512;

/// What the directory was asked to pass on, and may say that it could not.
pub(super) struct Introduced {
    id: u64,
    to: PeerNumber,
    /// It was by which key we are known. Else it was an offer.
    is_again: bool,
}

impl Core {
    /// When somebody is to be told by which key this side is known.
    pub(super) fn tells_again(&self) -> Option<Instant> {
        self.lock().again.due(now()).map(Instant::from_std)
    }

    /// Tells one of them.
    pub(super) fn tell_again(&self, room: mpsc::Permit<'_, String>) {
        let mut state = self.lock();
        let state = &mut *state;
        let named = std::iter::from_fn(|| state.again.next(now())).find(|peer| state.presence.alias(*peer).is_some());
        if let (Some(own), Some(to)) = (state.presence.own(), named) {
            let data = link::again(own, to, &self.root.peer_id());
            let id = state.asked(to, true);
            room.send(directory::introduction(Introduction::Response, &data, Some(id)));
        }
    }

    /// Passes on what the tree wants to say to a peer.
    pub(super) fn introduce(&self, to: PeerNumber, payload: &str) {
        let mut state = self.lock();
        let state = &mut *state;
        let (Some(own), Some(texts), Some((_, to_tree))) = (state.presence.own(), &state.texts, &state.node) else {
            return;
        };
        if state.presence.alias(to).is_none() {
            return to_tree.undeliverable(to, Undeliverable::Unknown);
        }
        let Some((what, route, data)) = link::introduction(own, to, payload) else {
            state.counters.dropped += 1;
            return;
        };
        // Of an offer somebody waits to hear what has become.
        let id = (what == Introduction::Request).then(|| state.next + 1);
        if texts.try_send(Request::Introduce { what, route, data: &data }.to_json(id)).is_err() {
            return to_tree.undeliverable(to, Undeliverable::Busy);
        }
        if id.is_some() {
            state.asked(to, false);
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
            (Some(payload), Some((_, to_tree))) => to_tree.deliver(from, payload.to_owned()),
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
    /// The directory is asked to pass something on. Returns by which `id`.
    fn asked(&mut self, to: PeerNumber, is_again: bool) -> u64 {
        self.next += 1;
        if self.introductions.len() >= INTRODUCTIONS {
            self.introductions.pop_front();
        }
        self.introductions.push_back(Introduced { id: self.next, to, is_again });
        self.next
    }

    /// The answer to an introduction has come. Of those that are not remembered it is of no use.
    pub(super) fn introduction_answered(&mut self, id: u64, answer: Result<Value, Refused>) {
        let at = self.introductions.iter().position(|introduced| introduced.id == id);
        let (Some(Introduced { to, is_again, .. }), Err(refused)) =
            (at.and_then(|at| self.introductions.remove(at)), answer)
        else {
            return;
        };
        let is_busy = refused.code == "busy";
        if is_again {
            if is_busy {
                self.again.was_busy(to, now());
            }
        } else if let Some((_, to_tree)) = &self.node {
            to_tree.undeliverable(to, if is_busy { Undeliverable::Busy } else { Undeliverable::Unknown });
        }
    }
}
