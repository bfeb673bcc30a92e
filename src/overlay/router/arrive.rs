//! Messages for us.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::api::{Kind, Output};
use super::keys::{Known, Numbers};
use super::wire::{Head, Mode, Purpose};
use super::{Router, wire};
use crate::overlay::OverlayId;
use crate::overlay::routing::Sender;

impl Router {
    pub(super) fn arrive(&mut self, through: OverlayId, head: Head, packet: Bytes, now: Instant) {
        match (head.mode, head.purpose) {
            (Mode::Sealed, _) => self.open(through, head, packet, now),
            (Mode::Foreign, _) => self.arrive_foreign(through, &head, &packet),
            // Anybody could say that it is from anybody.
            (_, Purpose::User(kind @ Kind::Topic)) => {
                self.deliver(through, head.from, false, kind, wire::body(&packet))
            }
            (_, Purpose::User(_)) => self.counters.malformed += 1,
            (_, Purpose::Routing) => {
                self.routing.receive(Sender::Claimed(head.from), &wire::body(&packet), now);
                self.run_routing(now);
            }
            (_, Purpose::KeyRequest) => self.key_request(through, head.from, &wire::body(&packet), now),
            (_, Purpose::KeyReply) => self.key_reply(head.from, &wire::body(&packet), now),
            (_, Purpose::Stale) => self.stale(head.from, now),
            (_, Purpose::Receipt) => self.counters.malformed += 1,
        }
    }

    fn open(&mut self, through: OverlayId, head: Head, packet: Bytes, now: Instant) {
        let Some((contact, session)) = wire::sessions(&packet) else { return self.counters.malformed += 1 };
        if session != self.contact.session {
            self.counters.stale += 1;
            if self.notices.take(now) {
                self.send_open(head.from, Purpose::Stale, &[], now);
            }
            return;
        }
        // The hash of a key that is known is known.
        let is_known = matches!(self.contacts.peek(&head.from), Some(Known::Contact { contact: known, .. }) if known.key == contact.key);
        if !is_known && self.seal.id_of(&contact.key) != head.from {
            return self.counters.not_authentic += 1;
        }
        let mut packet = packet.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let (header, sealed) = wire::split_sealed(&mut packet);
        if self.seal.open(&contact.key, header, &head.nonce, sealed).is_err() {
            return self.counters.not_authentic += 1;
        }
        let (epoch, count) = Numbers::split(&head.nonce);
        if !self.windows.get_or_insert(head.from, Default::default).accept(epoch, count) {
            return self.counters.replayed += 1;
        }
        self.learn(head.from, contact, now);
        let mut body = wire::opened(packet.freeze());
        let number = wire::parse_number(&body);
        match (head.purpose, head.confirm, number) {
            (Purpose::Receipt, _, Some(number)) => self.confirmed(&head.from, number),
            (Purpose::User(kind), false, _) => self.deliver(through, head.from, true, kind, body),
            (Purpose::User(Kind::Json | Kind::Binary), true, Some(_)) if self.is_full => self.counters.full += 1,
            (Purpose::User(kind), true, Some(number)) => {
                let last = self.delivered.get(&(head.from, number)).copied();
                let receipt = self.sealed(&contact, head.from, Purpose::Receipt, Some(number), &[]);
                // That it comes again says that the last receipt may be lost.
                let next = receipt.and_then(|(head, packet)| self.answer(&head, packet, last.flatten(), now));
                self.delivered.insert((head.from, number), next);
                if last.is_some() {
                    return self.counters.duplicates += 1;
                }
                body.advance(number.to_be_bytes().len());
                self.deliver(through, head.from, true, kind, body);
            }
            _ => self.counters.malformed += 1,
        }
    }

    pub(super) fn deliver(&mut self, through: OverlayId, from: OverlayId, verified: bool, kind: Kind, body: Bytes) {
        self.counters.delivered += 1;
        self.outputs.push_back(Output::Deliver { from, verified, through, kind, body });
    }
}
