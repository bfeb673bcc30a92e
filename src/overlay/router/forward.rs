//! Messages that pass: which neighbour is next, and what becomes of those that the next one does not take.

use std::time::Instant;

use bytes::Bytes;

use super::api::MAX_PACKET_BYTES;
use super::held::{Held, Origin};
use super::keys::Known;
use super::timers::Due;
use super::wire::{Head, Mode, Purpose, Refusal, Reply};
use super::{Router, wire};
use crate::overlay::OverlayId;
use crate::overlay::routing::Sender;

/// So much of what is kept for others may be that of one neighbour.
const SHARE: usize = 4;

impl Router {
    /// Takes a packet from a neighbour's link. What is malformed is dropped and counted.
    pub fn receive(&mut self, from: &OverlayId, packet: Bytes, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(from).filter(|neighbour| !neighbour.is_original()) else {
            return self.counters.malformed += 1;
        };
        let is_back = neighbour.heard(now);
        let is_known = neighbour.is_ready || packet.first() == Some(&wire::HELLO);
        let is_message = packet.first() == Some(&wire::MESSAGE);
        let parsed = if is_message { Head::parse(&packet) } else { None };
        // Nobody gives a message more hops than it may have.
        let head = parsed.map(|head| Head { hops: head.hops.min(self.config.hops), ..head });
        let is_within = match &head {
            // What peers that we know seal for us is as welcome as its link is fast.
            Some(head) if head.to == self.me && head.mode == Mode::Sealed => {
                matches!(self.contacts.peek(&head.from), Some(Known::Contact { .. }))
                    || neighbour.budgets.take_stranger(now)
            }
            head => {
                let source = head.as_ref().map(|head| head.from);
                neighbour.budgets.take(source, packet.len(), &mut self.relayed, now)
            }
        };
        if is_back {
            self.responds_again(from, now);
        }
        if !is_within {
            return self.counters.over_budget += 1;
        }
        if packet.len() > MAX_PACKET_BYTES || !is_known {
            return self.counters.malformed += 1;
        }
        match (packet.first(), head) {
            (_, Some(head)) => self.message(*from, head, packet, now),
            (Some(&wire::HELLO), _) => self.hello(*from, &packet, now),
            (Some(&wire::ROUTING), _) => {
                self.routing.receive(Sender::Neighbour(*from), &packet[1..], now);
                self.run_routing(now);
            }
            (Some(&(wire::TAKEN | wire::REFUSED)), _) => match wire::parse_answer(&packet) {
                Some((hop, refused)) => self.answered(from, hop, refused, now),
                None => self.counters.malformed += 1,
            },
            (Some(&wire::PING), _) => self.transmit(*from, Bytes::from_static(&[wire::PONG]), now),
            (Some(&wire::PONG), _) => {}
            _ => self.counters.malformed += 1,
        }
    }

    fn message(&mut self, previous: OverlayId, head: Head, packet: Bytes, now: Instant) {
        if head.from == self.me {
            self.counters.duplicates += 1;
            return self.refuse(previous, &head, now);
        }
        if head.mode == Mode::Foreign && !self.config.compat {
            return self.counters.foreign += 1;
        }
        let is_here = head.to == self.me;
        // What is sealed for us has its window, which nobody else can fill.
        if !(is_here && head.mode == Mode::Sealed) {
            let Some(fingerprint) = self.fingerprint(&head, &packet) else { return self.counters.malformed += 1 };
            if !self.seen.insert_new(fingerprint, ()) {
                self.counters.duplicates += 1;
                return if is_here { self.take(previous, &head, now) } else { self.refuse(previous, &head, now) };
            }
        }
        if head.from != previous && self.trails.peek(&head.from) != Some(&previous) {
            self.trails.insert(head.from, previous);
        }
        if is_here {
            self.take(previous, &head, now);
            return self.arrive(previous, head, packet, now);
        }
        match head.mode {
            Mode::Foreign => self.forward_foreign(previous, head, packet, now),
            _ => self.forward(previous, head, packet, now),
        }
    }

    fn forward(&mut self, previous: OverlayId, head: Head, packet: Bytes, now: Instant) {
        if head.purpose == Purpose::KeyRequest && self.config.compat && self.is_original(&head.to) {
            self.answer_for_original(&head, &packet, now);
            return self.take(previous, &head, now);
        }
        let Some(next) = self.choose(&head, &|id| *id == previous) else {
            if head.closest {
                return self.arrive(previous, head, packet, now);
            }
            if head.purpose == Purpose::KeyRequest && self.is_beyond_original(&head.to) {
                self.answer_for_original(&head, &packet, now);
                return self.take(previous, &head, now);
            }
            self.counters.no_route += 1;
            return self.refuse(previous, &head, now);
        };
        if head.hops == 0 {
            self.counters.out_of_hops += 1;
            return self.refuse(previous, &head, now);
        }
        if head.confirm {
            let origin = Origin::Neighbour { id: previous, hop: head.hop };
            if self.hold(packet, &head, origin, next, now).is_none() {
                self.counters.full += 1;
                return self.refuse(previous, &head, now);
            }
            self.take(previous, &head, now);
        } else {
            self.transmit(next, wire::readdressed(packet, head.hops - 1, wire::NO_HOP), now);
        }
        self.counters.forwarded += 1;
    }

    /// The neighbour that is next. One that is the destination, if it is not silent; else the one that the routing says, else the one from
    /// which the destination was last heard of. What makes links and what answers asks that one first: a newcomer, of whom the routing does
    /// not know yet, is reached by nobody else. What is ours and nobody is closer may begin at any neighbour.
    pub(super) fn choose(&self, head: &Head, tried: &dyn Fn(&OverlayId) -> bool) -> Option<OverlayId> {
        let is_foreign = head.mode == Mode::Foreign;
        let avoid = |id: &OverlayId| {
            let usable = |is_original: bool, is_ready: bool| is_ready && (is_foreign || !is_original);
            let is_source = *id == head.from && *id != head.to;
            is_source || !self.neighbours.get(id).is_some_and(|n| usable(n.is_original(), n.is_ready)) || tried(id)
        };
        let direct = self.neighbours.get(&head.to).filter(|_| !avoid(&head.to));
        if direct.is_some_and(|neighbour| neighbour.responds) {
            return Some(head.to);
        }
        // If its own link is silent, it may be reached over others that are not; that link is next.
        let answers = |id: &OverlayId| self.neighbours.get(id).is_some_and(|neighbour| neighbour.responds);
        let around = |id: &OverlayId| avoid(id) || direct.is_some() && (*id == head.to || !answers(id));
        let routed = || self.routing.next_hop(&head.to, &around).filter(|id| !around(id));
        // Anybody can lay a trail: it must not lead away what is for whoever is closest.
        let follows_trails = !head.closest || (head.purpose == Purpose::Routing && head.from != head.to);
        let trail = || self.trails.peek(&head.to).filter(|id| follows_trails && !around(id)).copied();
        let way = if head.purpose.follows_trails_first() { trail().or_else(routed) } else { routed().or_else(trail) };
        let anybody = || {
            let usable = self.neighbours.keys().filter(|id| !around(id));
            let is_ours = head.from == self.me && !head.closest;
            usable.min_by_key(|id| id.xor(&head.to)).filter(|_| is_ours).copied()
        };
        way.or_else(anybody).or(direct.map(|_| head.to))
    }

    /// The neighbour that is next and was not tried earlier, if there is one, else the one that is next all the same.
    pub(super) fn choose_another(
        &self,
        head: &Head,
        tried: &dyn Fn(&OverlayId) -> bool,
        earlier: &dyn Fn(&OverlayId) -> bool,
    ) -> Option<OverlayId> {
        self.choose(head, &|id| tried(id) || earlier(id)).or_else(|| self.choose(head, tried))
    }

    /// Sends a message on, and keeps it until it is answered for. Returns its hop number, or `None` if there is no room.
    pub(super) fn hold(
        &mut self,
        packet: Bytes,
        head: &Head,
        origin: Origin,
        next: OverlayId,
        now: Instant,
    ) -> Option<u32> {
        let has_room = self.held.make_room(packet.len());
        let mut counts = false;
        if let Origin::Neighbour { id, .. } = &origin {
            let (messages, bytes) = (self.config.held_messages / SHARE, self.config.held_bytes / SHARE);
            let share = self.neighbours.get_mut(id).map(|neighbour| &mut neighbour.held)?;
            if !has_room || share.0 >= messages || share.1 + packet.len() > bytes {
                return None;
            }
            *share = (share.0 + 1, share.1 + packet.len());
            counts = true;
        }
        if origin == Origin::Answer && !has_room {
            return None;
        }
        // The others are ours, are bounded where they come from, and find room here.
        let (hop, due) = (self.held.next_hop(), now + self.config.take_within);
        // In what is ours this send is counted already.
        let hops = head.hops.saturating_sub(matches!(origin, Origin::Neighbour { .. }).into());
        let packet = wire::readdressed(packet, hops, hop);
        let mut held = Held::new(packet.clone(), origin, hops, next, due);
        held.counts = counts;
        self.held.insert(held);
        self.timers.set(due, Due::Held(hop));
        self.transmit(next, packet, now);
        Some(hop)
    }

    /// Sends an answer of ours. At a dead end it comes back and takes another way: the asker may be a newcomer, to whom only the
    /// way leads by which the question has come. Returns to whom it goes: another than `last`, if there is one.
    pub(super) fn answer(
        &mut self,
        head: &Head,
        packet: Bytes,
        last: Option<OverlayId>,
        now: Instant,
    ) -> Option<OverlayId> {
        let Some(next) = self.choose_another(head, &|_| false, &|id| last == Some(*id)) else {
            self.counters.no_route += 1;
            return None;
        };
        self.counters.sent += 1;
        if self.hold(packet.clone(), head, Origin::Answer, next, now).is_none() {
            self.transmit(next, packet, now);
        }
        Some(next)
    }

    /// A neighbour has taken a message, or refused it.
    fn answered(&mut self, from: &OverlayId, hop: u32, refused: Option<Refusal>, now: Instant) {
        let Some(held) = self.held.get(hop).filter(|held| held.next().as_ref() == Some(from)) else {
            return self.counters.unexpected += 1;
        };
        if refused.is_some() {
            return self.reroute(hop, refused, now);
        }
        let Some(due) = held.due.take() else { return self.counters.unexpected += 1 };
        self.timers.cancel(due, Due::Held(hop));
        self.held.taken(hop, now + self.config.take_within * 2);
        self.uncount(hop);
    }

    /// The next hop has refused a message, is gone, or does not answer: tries another.
    pub(super) fn reroute(&mut self, hop: u32, refused: Option<Refusal>, now: Instant) {
        let Some(held) = self.held.get(hop) else { return };
        if let Some(due) = held.due.take() {
            self.timers.cancel(due, Due::Held(hop));
        }
        held.hops = refused.map_or(held.hops, |refusal| refusal.hops.min(held.hops.saturating_sub(1)));
        held.is_unsure |= refused.is_none_or(|refusal| refusal.is_unsure);
        let (origin, left, is_unsure, packet) = (held.origin, held.hops, held.is_unsure, held.packet.clone());
        let is_wanted = match &origin {
            Origin::Neighbour { .. } | Origin::Answer => true,
            Origin::Send(number) => self.sends.contains_key(number),
            Origin::Key(id) => self.wanted.contains_key(id),
        };
        if !is_wanted {
            return self.forget(hop);
        }
        let tried: Vec<OverlayId> = held.tried().chain(origin.previous()).copied().collect();
        let head = Head::parse(&packet).filter(|_| held.may_try());
        let earlier = self.tried_for(&origin).map_or_else(Vec::new, |tried| tried.clone());
        let next =
            head.and_then(|head| self.choose_another(&head, &|id| tried.contains(id), &|id| earlier.contains(id)));
        let Some(next) = next else {
            self.forget(hop);
            return self.came_back(origin, left, is_unsure, now);
        };
        if let Some(earlier) = self.tried_for(&origin) {
            earlier.push(next);
        }
        let due = now + self.config.take_within;
        let packet = wire::readdressed(packet, left - 1, hop);
        if let Some(held) = self.held.get(hop) {
            held.now_try(next, packet.clone(), due);
        }
        self.timers.set(due, Due::Held(hop));
        self.counters.rerouted += 1;
        self.transmit(next, packet, now);
    }

    /// The first hops of earlier copies of what is ours, and of this one.
    fn tried_for(&mut self, origin: &Origin) -> Option<&mut Vec<OverlayId>> {
        match origin {
            Origin::Send(number) => self.sends.get_mut(number).map(|pending| &mut pending.tried),
            Origin::Key(id) => self.wanted.get_mut(id).map(|wanted| &mut wanted.tried),
            Origin::Neighbour { .. } | Origin::Answer => None,
        }
    }

    fn came_back(&mut self, origin: Origin, left: u8, is_unsure: bool, now: Instant) {
        match origin {
            Origin::Neighbour { id, hop } => {
                self.counters.no_route += 1;
                let refusal = Refusal { hops: left.saturating_sub(1), is_unsure };
                self.transmit(id, wire::refused(hop, refusal), now);
            }
            Origin::Send(number) => self.send_came_back(number, is_unsure, now),
            Origin::Key(id) => self.key_came_back(id, is_unsure, now),
            Origin::Answer => self.counters.no_route += 1,
        }
    }

    /// Forgets a message of ours that may still wait for the next hop.
    pub(super) fn drop_held(&mut self, hop: u32) {
        if let Some(due) = self.held.get(hop).and_then(|held| held.due.take()) {
            self.timers.cancel(due, Due::Held(hop));
        }
        self.forget(hop);
    }

    fn forget(&mut self, hop: u32) {
        self.uncount(hop);
        self.held.remove(hop);
    }

    fn uncount(&mut self, hop: u32) {
        let Some(held) = self.held.get(hop).filter(|held| held.counts) else { return };
        held.counts = false;
        if let Origin::Neighbour { id, .. } = &held.origin
            && let Some(neighbour) = self.neighbours.get_mut(id)
        {
            // The link may be another one by now.
            let (messages, bytes) = neighbour.held;
            neighbour.held = (messages.saturating_sub(1), bytes.saturating_sub(held.packet.len()));
        }
    }

    /// Tells the previous hop that the message is in our hands.
    fn take(&mut self, previous: OverlayId, head: &Head, now: Instant) {
        if head.confirm {
            self.transmit(previous, wire::taken(head.hop), now);
        }
    }

    fn refuse(&mut self, previous: OverlayId, head: &Head, now: Instant) {
        if head.confirm {
            let refusal = Refusal { hops: head.hops.saturating_sub(1), is_unsure: false };
            self.transmit(previous, wire::refused(head.hop, refusal), now);
        }
    }

    /// Somebody asks for the key of a peer that is an original.
    fn answer_for_original(&mut self, head: &Head, packet: &Bytes, now: Instant) {
        if let Some(number) = wire::parse_number(&wire::body(packet)) {
            let mut reply = self.open_head(head.from, Purpose::KeyReply, false, true);
            reply.from = head.to;
            self.answer(&reply, reply.open(&wire::key_reply(number, &Reply::Original)), None, now);
        }
    }
}
