//! How others are reached: their keys and sessions, and how we ask for them.

use std::mem;
use std::time::Instant;

use bytes::Bytes;

use super::api::{Kind, SendFailure};
use super::held::Origin;
use super::sends::LONGEST_WAIT;
use super::timers::Due;
use super::ways::Ways;
use super::window::Epoch;
use super::wire::{Nonce, Purpose, Reply};
use super::{Router, wire};
use crate::overlay::OverlayId;
use crate::overlay::seal::Contact;

/// How often a key is asked for at short intervals, and how many times [`RouterConfig::retry_after`](super::RouterConfig::retry_after)
/// lies between two questions then, as long as messages wait for it.
const QUICK_REQUESTS: u8 = 6;
const SLOW_WAIT: u8 = 10;
/// How many times [`RouterConfig::retry_after`](super::RouterConfig::retry_after) lies between two questions whether a session is over.
const STALE_WAIT: u32 = 4;
/// How many times [`RouterConfig::key_within`](super::RouterConfig::key_within) a peer counts as an original.
const ORIGINAL_FOR: u32 = 6;

/// What we know of a peer.
#[derive(Debug)]
pub(super) enum Known {
    /// It is a pmesh peer. What is sealed for it is numbered. `asked` is when it was last asked whether that is still so.
    Contact { contact: Contact, numbers: Numbers, asked: Option<Instant> },
    /// It is an original, as somebody says.
    Original { until: Instant },
}

/// Nonces: a random number, and behind it one that counts up. Who is forgotten and met again gets another random number, so
/// none is ever used twice.
#[derive(Debug)]
pub(super) struct Numbers {
    epoch: u64,
    count: u64,
}

/// A request for the key of a peer.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Random: an answer without it is not one.
    pub(super) number: u64,
    /// Our messages that wait for it.
    waiting: Vec<u64>,
    /// The neighbours to which the question was sent: the next time another is tried, if there is one.
    pub(super) tried: Vec<OverlayId>,
    /// The hop number of the last question, if it is kept.
    held: Option<u32>,
    requests: u8,
    pub(super) ways: Ways,
    due: Instant,
}

impl Wanted {
    /// How many times [`RouterConfig::retry_after`](super::RouterConfig::retry_after) lies between the last question and the next.
    fn pause(&self) -> u32 {
        if self.requests < QUICK_REQUESTS { self.requests.clamp(1, LONGEST_WAIT).into() } else { SLOW_WAIT.into() }
    }
}

impl Numbers {
    pub(super) fn new(random: u64) -> Self {
        Self { epoch: random, count: 0 }
    }

    pub(super) fn next(&mut self) -> Nonce {
        let mut nonce = Nonce::default();
        let (epoch, count) = nonce.split_at_mut(size_of::<Epoch>());
        epoch.copy_from_slice(&self.epoch.to_be_bytes()[2..]);
        count.copy_from_slice(&self.count.to_be_bytes()[2..]);
        self.count += 1;
        nonce
    }

    /// The two parts of a nonce.
    pub(super) fn split(nonce: &Nonce) -> (Epoch, u64) {
        let mut epoch = Epoch::default();
        let (random, count) = nonce.split_at(epoch.len());
        epoch.copy_from_slice(random);
        (epoch, count.iter().fold(0, |count, byte| count << 8 | u64::from(*byte)))
    }
}

impl Router {
    pub(super) fn contact_of(&mut self, id: &OverlayId, now: Instant) -> Option<Contact> {
        match self.contacts.get(id)? {
            Known::Contact { contact, .. } => Some(*contact),
            Known::Original { until } if *until > now => None,
            Known::Original { .. } => {
                self.contacts.remove(id);
                None
            }
        }
    }

    /// A contact is proven: by the peer's hello on its link, by what it has sealed, or as the answer to our question.
    pub(super) fn learn(&mut self, id: OverlayId, contact: Contact, now: Instant) {
        let is_new_session = match self.contacts.get(&id) {
            Some(Known::Contact { contact: known, .. }) if *known == contact => return,
            Some(Known::Contact { .. }) => true,
            _ => false,
        };
        let numbers = Numbers::new(self.random());
        self.contacts.insert(id, Known::Contact { contact, numbers, asked: None });
        if is_new_session {
            self.doubt(id, now);
        }
        for number in self.unwant(&id) {
            self.launch(number, now);
        }
        if is_new_session {
            self.send_again(&id, now);
        }
    }

    /// Asks a peer for its key, and keeps the message until it is here.
    pub(super) fn want_key(&mut self, id: OverlayId, waiting: Option<u64>, now: Instant) {
        if self.knows_original(&id) {
            waiting.into_iter().for_each(|number| self.send_to_original(number, now));
            return;
        }
        if let Some(wanted) = self.wanted.get_mut(&id) {
            wanted.waiting.extend(waiting);
            return;
        }
        if self.wanted.len() >= self.config.held_messages {
            return;
        }
        let number = self.random();
        let waiting = waiting.into_iter().collect();
        let (tried, held, ways) = (Vec::new(), None, Ways::default());
        self.wanted.insert(id, Wanted { number, waiting, tried, held, requests: 0, ways, due: now });
        self.ask(id, now);
    }

    pub(super) fn ask(&mut self, id: OverlayId, now: Instant) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        let (number, tried) = (wanted.number, wanted.tried.clone());
        if let Some(hop) = wanted.held.take() {
            self.drop_held(hop);
        }
        let head = self.open_head(id, Purpose::KeyRequest, false, true);
        let Some(next) = self.choose_another(&head, &|_| false, &|id| tried.contains(id)) else {
            return self.no_way_to_key(id, Ways::dead_end, now);
        };
        let held = self.hold(head.open(&number.to_be_bytes()), &head, Origin::Key(id), next, now);
        if let Some(wanted) = self.wanted.get_mut(&id) {
            wanted.tried.push(next);
            wanted.held = held;
            wanted.ways.begin();
            wanted.requests = wanted.requests.saturating_add(1);
            let pause = wanted.pause();
            self.wake_key(id, now + self.config.retry_after * pause);
        }
    }

    /// Nobody on the way to the peer was closer. If that `is_unsure`, somebody on it may have the question.
    pub(super) fn key_came_back(&mut self, id: OverlayId, is_unsure: bool, now: Instant) {
        self.no_way_to_key(id, |ways| ways.came_back(is_unsure), now);
    }

    fn no_way_to_key(&mut self, id: OverlayId, note: impl FnOnce(&mut Ways), now: Instant) {
        let originals_only = self.has_originals_only();
        let may_be_original = originals_only || self.has_originals() && !self.settles(now);
        let is_alone = self.is_alone();
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        note(&mut wanted.ways);
        let nobody_has_it = wanted.ways.nobody_has_it();
        let pause = if nobody_has_it { 1 } else { wanted.pause() };
        if wanted.ways.is_enough() || is_alone || originals_only {
            for number in mem::take(&mut wanted.waiting) {
                if may_be_original && self.send_as_original(number, now) {
                    continue;
                }
                let goes_on = self.goes_on(number, nobody_has_it, now);
                match self.wanted.get_mut(&id) {
                    Some(wanted) if goes_on => wanted.waiting.push(number),
                    _ => self.fail(number, SendFailure::NoRoute),
                }
            }
            if self.wanted.get(&id).is_some_and(|wanted| wanted.waiting.is_empty()) {
                self.unwant(&id);
            }
        }
        self.wake_key(id, now + self.config.retry_after * pause);
        self.look_for(&id, now);
    }

    /// The timer of a request has gone off.
    pub(super) fn key_due(&mut self, id: OverlayId, now: Instant) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        wanted.waiting.retain(|number| self.sends.contains_key(number));
        if wanted.waiting.is_empty() {
            self.wanted.remove(&id);
        } else {
            self.ask(id, now);
        }
    }

    /// The request is over: gives the messages that waited for it.
    fn unwant(&mut self, id: &OverlayId) -> Vec<u64> {
        let Some(wanted) = self.wanted.remove(id) else { return Vec::new() };
        self.timers.cancel(wanted.due, Due::Key(*id));
        wanted.waiting
    }

    fn wake_key(&mut self, id: OverlayId, at: Instant) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        self.timers.cancel(wanted.due, Due::Key(id));
        wanted.due = at;
        self.timers.set(at, Due::Key(id));
    }

    pub(super) fn key_request(&mut self, through: OverlayId, from: OverlayId, body: &[u8], now: Instant) {
        let Some(number) = wire::parse_number(body) else { return self.counters.malformed += 1 };
        let reply = wire::key_reply(number, &Reply::Contact(self.contact));
        let head = self.open_head(from, Purpose::KeyReply, false, true);
        // Who has a link to us and does not ask over it may have begun anew, and that link may be dead.
        let shunned = Some(from).filter(|from| *from != through);
        self.answer(&head, head.open(&reply), shunned, now);
    }

    pub(super) fn key_reply(&mut self, from: OverlayId, body: &[u8], now: Instant) {
        let Some((number, reply)) = wire::parse_key_reply(body) else { return self.counters.malformed += 1 };
        if self.wanted.get(&from).is_none_or(|wanted| wanted.number != number) {
            return self.counters.unexpected += 1;
        }
        match reply {
            Reply::Contact(contact) if self.seal.id_of(&contact.key) == from => {
                self.learn(from, contact, now);
                // The same contact as before is none to learn.
                for number in self.unwant(&from) {
                    self.launch(number, now);
                }
            }
            Reply::Contact(_) => self.counters.not_authentic += 1,
            Reply::Original if self.config.compat => {
                let until = now + self.config.key_within * ORIGINAL_FOR;
                self.contacts.insert(from, Known::Original { until });
                for number in self.unwant(&from) {
                    self.send_to_original(number, now);
                }
            }
            Reply::Original => {
                for number in self.unwant(&from) {
                    self.fail(number, SendFailure::Original);
                }
            }
        }
    }

    /// Somebody says that the peer has another session now. It costs a question to find out, so it is not asked often.
    pub(super) fn stale(&mut self, from: OverlayId, now: Instant) {
        let again = self.config.retry_after * STALE_WAIT;
        match self.contacts.get(&from) {
            Some(Known::Contact { asked, .. }) if asked.is_none_or(|at| now >= at + again) => {
                *asked = Some(now);
                self.want_key(from, None, now);
            }
            _ => self.counters.unexpected += 1,
        }
    }

    fn send_to_original(&mut self, number: u64, now: Instant) {
        if !self.send_as_original(number, now) {
            self.fail(number, SendFailure::Original);
        }
    }

    /// Sends a message in the way of originals. Returns whether it is one that can be sent so.
    fn send_as_original(&mut self, number: u64, now: Instant) -> bool {
        let Some(pending) = self.sends.get(&number) else { return true };
        let is_possible = pending.kind == Kind::Json && !pending.confirm;
        let (to, body): (OverlayId, Bytes) = (pending.to, pending.body.clone());
        let sent = is_possible && self.send_user(to, &body, now);
        if sent {
            self.finish(number);
        }
        sent
    }
}
