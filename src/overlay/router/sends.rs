//! Messages of ours: those that wait for the key of their destination, and those that wait for a confirmation.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{Kind, MAX_BODY_BYTES, Output, SendFailure, SendId, SendRefused};
use super::held::Origin;
use super::keys::Known;
use super::timers::Due;
use super::ways::Ways;
use super::wire::{Head, Mode, Purpose};
use super::{Router, wire};
use crate::overlay::OverlayId;
use crate::overlay::seal::Contact;

/// The longest time for a confirmation.
const MAX_CONFIRM: Duration = Duration::from_secs(3600);
/// How often a message is sent at most, and how often if each neighbour that may be the first hop has been one. Each copy
/// causes no more sends than [`RouterConfig::hops`](super::RouterConfig::hops) says.
const MAX_SENDS: u8 = 8;
const MAX_SENDS_AGAIN: u8 = 4;
/// The longest wait for a confirmation until the next copy, in waits for the first.
pub(super) const LONGEST_WAIT: u8 = 3;

/// A message that is kept.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) to: OverlayId,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) confirm: bool,
    deadline: Instant,
    /// How often it was sent.
    sends: u8,
    ways: Ways,
    /// The neighbours to which it was sent: the next time another is tried, if there is one.
    pub(super) tried: Vec<OverlayId>,
    /// The hop number of the last copy, if it is kept.
    held: Option<u32>,
    /// When its timer goes off.
    due: Instant,
}

impl Router {
    /// Sends a message. With `confirm` [`Output::Confirmed`] or [`Output::Failed`] follows within that time, of an hour at most,
    /// and the message is sent again if need be, but delivered once. Without, it may get lost.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send(
        &mut self,
        to: OverlayId,
        kind: Kind,
        body: Bytes,
        confirm: Option<Duration>,
        now: Instant,
    ) -> Result<SendId, SendRefused> {
        if kind == Kind::Foreign {
            return Err(SendRefused::Foreign);
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(SendRefused::TooLarge);
        }
        let number = self.next_send;
        let send = SendId(number);
        if to == self.me {
            self.deliver(to, to, true, kind, body);
            if confirm.is_some() {
                self.outputs.push_back(Output::Confirmed { send });
            }
        } else if let (None, Some(contact)) =
            (confirm, self.contact_of(&to, now).filter(|_| !self.waits_for_link(kind)))
        {
            self.send_once(send, &contact, to, kind, &body, now);
        } else {
            if self.sends.len() >= self.config.held_messages || self.sends_bytes + body.len() > self.config.held_bytes {
                return Err(SendRefused::Full);
            }
            let deadline = now + confirm.unwrap_or(self.config.key_within).min(MAX_CONFIRM);
            self.sends_bytes += body.len();
            let (confirm, due) = (confirm.is_some(), deadline);
            let (sends, ways, tried, held) = (0, Ways::default(), Vec::new(), None);
            let pending = Pending { to, kind, body, confirm, deadline, sends, ways, tried, held, due };
            self.sends.insert(number, pending);
            self.timers.set(deadline, Due::Send(number));
            self.launch(number, now);
        }
        self.next_send = self.next_send.wrapping_add(1);
        Ok(send)
    }

    /// Sends a message to whichever peer is closest to an id, by the terms of the routing: that may be this one. It is not sealed,
    /// may get lost, and is delivered with a `from` that is not verified.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send_closest(&mut self, to: OverlayId, kind: Kind, body: Bytes, now: Instant) -> Result<(), SendRefused> {
        if !self.send_towards(to, kind, &body, false, now)? {
            self.deliver(self.me, self.me, false, kind, body);
        }
        Ok(())
    }

    /// Sends a message to whichever peer is closest to an id besides this one, as [`send_closest`](Self::send_closest) does. Without
    /// neighbours it is lost.
    ///
    /// # Errors
    ///
    /// See [`SendRefused`].
    pub fn send_closest_other(
        &mut self,
        to: OverlayId,
        kind: Kind,
        body: Bytes,
        now: Instant,
    ) -> Result<(), SendRefused> {
        self.send_towards(to, kind, &body, true, now).map(drop)
    }

    /// Returns whether there is a neighbour that is closer, or one at all if it need not be closer.
    fn send_towards(
        &mut self,
        to: OverlayId,
        kind: Kind,
        body: &[u8],
        any: bool,
        now: Instant,
    ) -> Result<bool, SendRefused> {
        if kind == Kind::Foreign {
            return Err(SendRefused::Foreign);
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(SendRefused::TooLarge);
        }
        let head = self.open_head(to, Purpose::User(kind), true, false);
        // The hops that follow do not come back to us.
        let begin = || self.usable_neighbours().filter(|_| any).min_by_key(|id| id.xor(&to)).copied();
        let Some(next) = self.choose(&head, &|_| false).or_else(begin) else { return Ok(false) };
        self.counters.sent += 1;
        self.transmit(next, head.open(body), now);
        Ok(true)
    }

    /// Neighbours that understand our messages.
    fn usable_neighbours(&self) -> impl Iterator<Item = &OverlayId> {
        let usable = self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_ready && !neighbour.is_original());
        usable.map(|(id, _)| id)
    }

    /// Sends off a message, or asks for the key of its destination first.
    pub(super) fn launch(&mut self, number: u64, now: Instant) {
        let Some(pending) = self.sends.get(&number) else { return };
        let (to, kind, body) = (pending.to, pending.kind, pending.body.clone());
        let (confirm, tried, sends) = (pending.confirm, pending.tried.clone(), pending.sends);
        let Some(contact) = self.contact_of(&to, now) else { return self.want_key(to, Some(number), now) };
        if !confirm {
            if self.waits_for_link(kind) {
                return self.no_way(number, Ways::dead_end, now);
            }
            self.finish(number);
            return self.send_once(SendId(number), &contact, to, kind, &body, now);
        }
        let Some((head, packet)) = self.sealed(&contact, to, Purpose::User(kind), Some(number), &body) else {
            return self.fail(number, SendFailure::NoKey);
        };
        let next = match self.choose(&head, &|id| tried.contains(id)) {
            Some(next) => next,
            None if sends >= MAX_SENDS_AGAIN => return self.wait_for_deadline(number),
            None => match self.choose(&head, &|_| false) {
                Some(next) => next,
                None => return self.no_way(number, Ways::dead_end, now),
            },
        };
        self.counters.sent += 1;
        self.counters.retried += u64::from(sends > 0);
        self.forget_copy(number);
        let held = self.hold(packet, &head, Origin::Send(number), next, now);
        if let Some(pending) = self.sends.get_mut(&number) {
            pending.sends = sends.saturating_add(1);
            pending.ways.begin();
            pending.tried.push(next);
            pending.held = held;
        }
        self.wake_send(number, now + self.config.retry_after * (sends + 1).min(LONGEST_WAIT).into());
    }

    /// There is a newer copy, or none is needed any more: what becomes of this one does not matter.
    fn forget_copy(&mut self, number: u64) {
        if let Some(hop) = self.sends.get_mut(&number).and_then(|pending| pending.held.take()) {
            self.drop_held(hop);
        }
    }

    fn send_once(&mut self, send: SendId, to: &Contact, id: OverlayId, kind: Kind, body: &[u8], now: Instant) {
        let failure = match self.sealed(to, id, Purpose::User(kind), None, body) {
            None => SendFailure::NoKey,
            Some((head, packet)) => match self.choose(&head, &|_| false) {
                Some(next) => {
                    self.counters.sent += 1;
                    return self.transmit(next, packet, now);
                }
                None => SendFailure::NoRoute,
            },
        };
        self.outputs.push_back(Output::Failed { send, to: id, kind, reason: failure });
        self.look_for(&id, now);
    }

    /// Nobody on the way was closer. If that `is_unsure`, somebody on it may have the message.
    pub(super) fn send_came_back(&mut self, number: u64, is_unsure: bool, now: Instant) {
        self.no_way(number, |ways| ways.came_back(is_unsure), now);
    }

    fn no_way(&mut self, number: u64, note: impl FnOnce(&mut Ways), now: Instant) {
        let is_alone = self.is_alone();
        let Some(pending) = self.sends.get_mut(&number) else { return };
        note(&mut pending.ways);
        let (to, is_enough, nobody_has_it) = (pending.to, pending.ways.is_enough(), pending.ways.nobody_has_it());
        if (is_enough || is_alone) && !self.goes_on(number, nobody_has_it, now) {
            self.fail(number, SendFailure::NoRoute);
        } else {
            self.wake_send(number, now + self.config.retry_after);
        }
        self.look_for(&to, now);
    }

    /// Whether a message is not given up where there is no way: the application would take it for one that nobody has, or for one to an
    /// id that nobody has. What others send is one try of theirs, and they want to know soon.
    pub(super) fn goes_on(&self, number: u64, nobody_has_it: bool, now: Instant) -> bool {
        let is_patient = self.sends.get(&number).is_some_and(|pending| is_patient(pending.kind));
        is_patient && (!nobody_has_it || self.settles(now))
    }

    fn waits_for_link(&self, kind: Kind) -> bool {
        is_patient(kind) && self.is_joining && self.linked.is_none()
    }

    /// There is a first link: what has found no way tries it.
    pub(super) fn resume(&mut self, now: Instant) {
        let keys = self.wanted.iter().filter(|(_, wanted)| wanted.ways.is_no()).map(|(id, _)| *id);
        for id in keys.collect::<Vec<OverlayId>>() {
            self.ask(id, now);
        }
        let sends = self.sends.iter().filter(|(_, pending)| pending.ways.is_no()).map(|(number, _)| *number);
        for number in sends.collect::<Vec<u64>>() {
            self.launch(number, now);
        }
    }

    /// The timer of a message has gone off.
    pub(super) fn send_due(&mut self, number: u64, now: Instant) {
        let Some(pending) = self.sends.get(&number) else { return };
        if now >= pending.deadline {
            let key = self.wanted.get(&pending.to).map(|wanted| &wanted.ways);
            let is_no = pending.ways.nobody_has_it() && key.unwrap_or(&pending.ways).is_no();
            return self.fail(number, if is_no { SendFailure::NoRoute } else { SendFailure::TimedOut });
        }
        if pending.sends < MAX_SENDS {
            self.launch(number, now);
        } else {
            self.wait_for_deadline(number);
        }
    }

    fn wait_for_deadline(&mut self, number: u64) {
        if let Some(deadline) = self.sends.get(&number).map(|pending| pending.deadline) {
            self.wake_send(number, deadline);
        }
    }

    /// A receipt has come from this peer.
    pub(super) fn confirmed(&mut self, from: &OverlayId, number: u64) {
        if self.sends.get(&number).is_some_and(|pending| pending.to == *from && pending.confirm) {
            self.finish(number);
            self.outputs.push_back(Output::Confirmed { send: SendId(number) });
        } else {
            self.counters.unexpected += 1;
        }
    }

    pub(super) fn fail(&mut self, number: u64, reason: SendFailure) {
        if let Some(Pending { to, kind, .. }) = self.finish(number) {
            self.outputs.push_back(Output::Failed { send: SendId(number), to, kind, reason });
        }
    }

    pub(super) fn finish(&mut self, number: u64) -> Option<Pending> {
        self.forget_copy(number);
        let pending = self.sends.remove(&number)?;
        self.sends_bytes -= pending.body.len();
        self.timers.cancel(pending.due, Due::Send(number));
        Some(pending)
    }

    fn wake_send(&mut self, number: u64, at: Instant) {
        let Some(pending) = self.sends.get_mut(&number) else { return };
        self.timers.cancel(pending.due, Due::Send(number));
        pending.due = at.min(pending.deadline);
        self.timers.set(pending.due, Due::Send(number));
    }

    /// Those to this peer that were sent for an earlier session of it.
    pub(super) fn send_again(&mut self, to: &OverlayId, now: Instant) {
        let sent = self.sends.iter_mut().filter(|(_, pending)| pending.to == *to && pending.sends > 0);
        let sent = sent.map(|(number, pending)| {
            // The way was right.
            pending.tried.clear();
            *number
        });
        for number in sent.collect::<Vec<u64>>() {
            self.launch(number, now);
        }
    }

    /// A sealed message to a peer. `None` if its key is none.
    pub(super) fn sealed(
        &mut self,
        contact: &Contact,
        to: OverlayId,
        purpose: Purpose,
        number: Option<u64>,
        body: &[u8],
    ) -> Option<(Head, Bytes)> {
        let nonce = match self.contacts.get(&to) {
            Some(Known::Contact { numbers, .. }) => numbers.next(),
            _ => self.numbers.next(),
        };
        let (mode, hops) = (Mode::Sealed, self.config.hops.saturating_sub(1));
        let confirm = number.is_some();
        let head = Head { hops, hop: wire::NO_HOP, mode, confirm, closest: false, purpose, nonce, to, from: self.me };
        let mut packet = head.sealed(&self.contact, contact, number, body);
        let (header, body) = wire::split_sealed(&mut packet);
        let tag = self.seal.seal(contact, header, &nonce, body)?;
        packet.extend_from_slice(&tag);
        Some((head, packet.freeze()))
    }

    /// The head of a message that is not sealed.
    pub(super) fn open_head(&mut self, to: OverlayId, purpose: Purpose, closest: bool, confirm: bool) -> Head {
        let (mode, hops) = (Mode::Open, self.config.hops.saturating_sub(1));
        Head { hops, hop: wire::NO_HOP, mode, confirm, closest, purpose, nonce: self.numbers.next(), to, from: self.me }
    }

    /// Sends a message that is not sealed, once. It may get lost.
    pub(super) fn send_open(&mut self, to: OverlayId, purpose: Purpose, body: &[u8], now: Instant) {
        let head = self.open_head(to, purpose, false, false);
        if let Some(next) = self.choose(&head, &|_| false) {
            self.counters.sent += 1;
            self.transmit(next, head.open(body), now);
        }
    }
}

/// Whether it is a message of the application.
fn is_patient(kind: Kind) -> bool {
    matches!(kind, Kind::Json | Kind::Binary)
}
