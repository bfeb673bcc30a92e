//! Messages of original peer-relays: JSON that anybody on the way can read, whose sender is only claimed. Between pmesh peers they
//! travel in an envelope.

use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::api::{
    ForeignMessage, Kind, MAX_FOREIGN_BYTES, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH, Output, SendRefused,
};
use super::wire::{Head, Mode, Purpose};
use super::{Router, wire};
use crate::overlay::OverlayId;

/// About how long a message is without its data.
const OVERHEAD_BYTES: usize = 200;
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
        if source != *from {
            self.trails.insert(source, *from);
        }
        if to == self.me {
            let data: Box<str> = data.into();
            return self.deliver(source, false, Kind::Foreign, Bytes::from(data.into_string()));
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
            self.deliver(to, false, Kind::Foreign, Bytes::from(data.into_string()));
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
    pub(super) fn arrive_foreign(&mut self, head: &Head, packet: &Bytes) {
        let body = wire::body(packet);
        let data = wire::parse_foreign(&body).map(|(_, _, data_at)| body.slice(data_at..));
        match data.filter(|data| serde_json::from_slice::<&RawValue>(data).is_ok()) {
            Some(data) => self.deliver(head.from, false, Kind::Foreign, data),
            None => self.counters.malformed += 1,
        }
    }

    /// One that has come in an envelope.
    pub(super) fn forward_foreign(&mut self, previous: OverlayId, head: Head, packet: Bytes, now: Instant) {
        let body = wire::body(&packet);
        let Some((nonce, path, data_at)) = wire::parse_foreign(&body) else { return self.counters.malformed += 1 };
        let Some(next) = self.choose(&head, &|id| *id == previous || path.contains(id)) else {
            return self.counters.no_route += 1;
        };
        if head.hops == 0 || path.len() >= MAX_FOREIGN_PATH {
            return self.counters.out_of_hops += 1;
        }
        if !self.is_original(&next) {
            drop(body);
            self.counters.forwarded += 1;
            return self.transmit(next, wire::readdressed(packet, head.hops - 1, wire::NO_HOP), now);
        }
        let data = std::str::from_utf8(&body[data_at..]).ok().and_then(|data| serde_json::from_str(data).ok());
        let Some(data) = data else { return self.counters.malformed += 1 };
        let nonce = nonce.to_owned();
        self.counters.forwarded += 1;
        self.transmit_foreign(next, ForeignMessage { to: head.to, from: head.from, path, nonce, data });
    }

    /// One that has come from an original, or is ours. Returns whether there was a way.
    fn relay_foreign(&mut self, previous: Option<OverlayId>, mut message: ForeignMessage, now: Instant) -> bool {
        let mut head = self.open_head(message.to, Purpose::User(Kind::Foreign), false, false);
        (head.mode, head.from) = (Mode::Foreign, message.from);
        let path = &message.path;
        let Some(next) = self.choose(&head, &|id| previous.as_ref() == Some(id) || path.contains(id)) else {
            return false;
        };
        if path.len() >= MAX_FOREIGN_PATH {
            return false;
        }
        if self.is_original(&next) {
            self.transmit_foreign(next, message);
        } else {
            message.path.push(self.me);
            self.transmit(next, head.open(&wire::foreign(&message.nonce, &message.path, message.data.get())), now);
        }
        true
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
