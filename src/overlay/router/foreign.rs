//! Messages of original peer-relays: JSON that anybody on the way can read, whose sender is only claimed. Between pmesh peers they
//! travel in an envelope.

use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::api::{
    ForeignMessage, Kind, MAX_FOREIGN_BYTES, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH, Output, SendRefused,
};
use super::keys::Known;
use super::wire::{Head, Mode, Purpose};
use super::{Router, wire};
use crate::overlay::OverlayId;

/// About how long a message is without its data.
const OVERHEAD_BYTES: usize = 200;
/// To so many originals a message goes at most, as by the original.
const MAX_ORIGINAL_HOPS: usize = 2;
/// The largest number that JavaScript counts to.
const MAX_NONCE: u64 = (1 << 53) - 1;

impl Router {
    /// Takes a message from an original's link. What is too long, too old or known is dropped and counted.
    pub fn receive_foreign(&mut self, from: &OverlayId, message: ForeignMessage, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(from).filter(|neighbour| neighbour.is_original()) else {
            return self.counters.malformed += 1;
        };
        if !self.config.compat {
            return self.counters.foreign += 1;
        }
        let ForeignMessage { to, from: source, path, nonce, data } = message;
        let bytes = OVERHEAD_BYTES + path.len() * OverlayId::BYTES + data.get().len();
        if !neighbour.budgets.take(Some(source), bytes, &mut self.relayed, now) {
            return self.counters.over_budget += 1;
        }
        if nonce.len() > MAX_FOREIGN_NONCE_BYTES
            || path.len() > MAX_FOREIGN_PATH
            || data.get().len() > MAX_FOREIGN_BYTES
        {
            return self.counters.malformed += 1;
        }
        let fingerprint = self.foreign_fingerprint(&source, &nonce);
        if source == self.me || !self.seen.insert_new(fingerprint, ()) {
            return self.counters.duplicates += 1;
        }
        if source != *from && !self.has_key(&source) {
            self.trails.insert(source, *from);
        }
        if to == self.me {
            let data: Box<str> = data.into();
            return self.deliver(*from, source, false, Kind::Foreign, Bytes::from(data.into_string()));
        }
        if self.relay_foreign(Some(*from), ForeignMessage { to, from: source, path, nonce, data }, now) {
            self.counters.forwarded += 1;
        } else {
            self.counters.no_route += 1;
        }
    }

    /// Sends JSON in the way of the originals: anybody on the way can read and alter it, and it may get lost.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send_foreign(&mut self, to: OverlayId, data: Box<RawValue>, now: Instant) -> Result<(), SendRefused> {
        if !self.config.compat {
            return Err(SendRefused::Foreign);
        }
        if data.get().len() > MAX_FOREIGN_BYTES {
            return Err(SendRefused::TooLarge);
        }
        if to == self.me {
            let data: Box<str> = data.into();
            self.deliver(to, to, false, Kind::Foreign, Bytes::from(data.into_string()));
            return Ok(());
        }
        let nonce = (self.random() & MAX_NONCE).to_string();
        let message = ForeignMessage { to, from: self.me, path: Vec::new(), nonce, data };
        if self.relay_foreign(None, message, now) {
            self.counters.sent += 1;
        } else {
            self.counters.no_route += 1;
        }
        Ok(())
    }

    /// Sends a message of an application to an original. Returns whether it is one that an original takes.
    pub(super) fn send_user(&mut self, to: OverlayId, json: &[u8], now: Instant) -> bool {
        let Ok(json) = std::str::from_utf8(json) else { return false };
        let Ok(user) = serde_json::from_str::<&RawValue>(json) else { return false };
        let data = RawValue::from_string(format!(r#"{{"type":"user","data":{user}}}"#));
        data.is_ok_and(|data| self.send_foreign(to, data, now).is_ok())
    }

    /// One for us that has come in an envelope.
    pub(super) fn arrive_foreign(&mut self, through: OverlayId, head: &Head, packet: &Bytes) {
        let body = wire::body(packet);
        let data = wire::parse_foreign(&body).map(|(_, _, data_at)| body.slice(data_at..));
        match data.filter(|data| serde_json::from_slice::<&RawValue>(data).is_ok()) {
            Some(data) => self.deliver(through, head.from, false, Kind::Foreign, data),
            None => self.counters.malformed += 1,
        }
    }

    /// One that has come in an envelope.
    pub(super) fn forward_foreign(&mut self, previous: OverlayId, head: Head, packet: Bytes, now: Instant) {
        let body = wire::body(&packet);
        let Some((nonce, path, data_at)) = wire::parse_foreign(&body) else { return self.counters.malformed += 1 };
        let hops = self.foreign_hops(&head.to, &|id| *id == previous || *id == head.from || path.contains(id));
        if hops.is_empty() {
            return self.counters.no_route += 1;
        }
        if head.hops == 0 || path.len() >= MAX_FOREIGN_PATH {
            return self.counters.out_of_hops += 1;
        }
        let data = std::str::from_utf8(&body[data_at..]).ok().and_then(|data| serde_json::from_str(data).ok());
        let Some(data) = data else { return self.counters.malformed += 1 };
        let message = ForeignMessage { to: head.to, from: head.from, path, nonce: nonce.to_owned(), data };
        for next in hops {
            self.counters.forwarded += 1;
            if self.is_original(&next) {
                self.transmit_foreign(next, message.clone());
            } else {
                self.transmit(next, wire::readdressed(packet.clone(), head.hops - 1, wire::NO_HOP), now);
            }
        }
    }

    /// One that has come from an original, or is ours. Returns whether there was a way.
    fn relay_foreign(&mut self, previous: Option<OverlayId>, mut message: ForeignMessage, now: Instant) -> bool {
        if message.path.len() >= MAX_FOREIGN_PATH {
            return false;
        }
        let (path, from) = (&message.path, message.from);
        let hops = self.foreign_hops(&message.to, &|id| previous == Some(*id) || *id == from || path.contains(id));
        let mut head = self.open_head(message.to, Purpose::User(Kind::Foreign), false, false);
        (head.mode, head.from) = (Mode::Foreign, from);
        message.path.push(self.me);
        for next in &hops {
            if self.is_original(next) {
                self.outputs.push_back(Output::Foreign { to: *next, message: message.clone() });
            } else {
                let body = wire::foreign(&message.nonce, &message.path, message.data.get());
                self.transmit(*next, head.open(&body), now);
            }
        }
        !hops.is_empty()
    }

    /// The neighbours that are next: the destination, or the peer from which it was last heard of. Else, as nothing in a net of
    /// originals leads closer to an id, those that an original would take: the original from which it was last heard of, and the
    /// closest, two at most. Of peers that are no originals there is one at most: they do not multiply the message.
    fn foreign_hops(&self, to: &OverlayId, avoid: &dyn Fn(&OverlayId) -> bool) -> Vec<OverlayId> {
        let usable = |id: &OverlayId| self.neighbours.get(id).is_some_and(|neighbour| neighbour.is_ready) && !avoid(id);
        if usable(to) {
            return vec![*to];
        }
        let trail = self.trails.peek(to).copied().filter(usable);
        if let Some(peer) = trail.filter(|id| !self.is_original(id)) {
            return vec![peer];
        }
        let is_original = |id: &OverlayId| self.is_original(id);
        let of_kind = |original: bool| {
            let ids = self.neighbours.keys().copied();
            ids.filter(move |id| is_original(id) == original && usable(id))
        };
        let routed = self.routing.next_hop(to, &|id| is_original(id) || !usable(id));
        let peer = routed.or_else(|| of_kind(false).min_by_key(|id| id.xor(to)));
        let mut originals: Vec<_> = of_kind(true).collect();
        originals.sort_unstable_by_key(|id| (Some(*id) != trail, id.xor(to)));
        originals.truncate(MAX_ORIGINAL_HOPS);
        peer.into_iter().chain(originals).collect()
    }

    /// An original says that it knows this peer. It may be asked about it, if nobody else has a way.
    pub fn named(&mut self, id: OverlayId, by: OverlayId) {
        let is_news = id != self.me && !self.neighbours.contains_key(&id) && self.trails.peek(&id).is_none();
        if is_news && self.is_original(&by) && !self.has_key(&id) {
            self.trails.insert(id, by);
        }
    }

    /// Whether the key of this peer is known, and so that it is no original.
    pub fn has_key(&self, id: &OverlayId) -> bool {
        matches!(self.contacts.peek(id), Some(Known::Contact { .. }))
    }

    /// Whether this id is known as that of an original: it is a neighbour, or a peer on the way to it has said so.
    pub fn knows_original(&self, id: &OverlayId) -> bool {
        matches!(self.contacts.peek(id), Some(Known::Original { .. })) || self.is_original(id)
    }

    /// Whether originals are neighbours, and nobody else is.
    pub(super) fn has_originals_only(&self) -> bool {
        self.has_originals() && self.neighbours.values().all(|neighbour| neighbour.is_original())
    }

    /// Whether originals are among the neighbours.
    pub(super) fn has_originals(&self) -> bool {
        self.config.compat && self.neighbours.values().any(|neighbour| neighbour.is_original())
    }

    /// Whether the way to this id goes through an original, as far as is known.
    pub(super) fn is_beyond_original(&self, id: &OverlayId) -> bool {
        self.config.compat && self.trails.peek(id).is_some_and(|trail| self.is_original(trail))
    }

    fn transmit_foreign(&mut self, to: OverlayId, mut message: ForeignMessage) {
        message.path.push(self.me);
        self.outputs.push_back(Output::Foreign { to, message });
    }

    /// Whether there is a link to an original with this id.
    pub(super) fn is_original(&self, id: &OverlayId) -> bool {
        self.neighbours.get(id).is_some_and(|neighbour| neighbour.is_original())
    }
}
