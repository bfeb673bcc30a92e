//! The hub with accounts: who is logged in, what each login is told, and what is relayed. A pure state machine, as the open hub is.
//!
//! A login sees the other logins of its account and those of the accounts with which there is trust ([`trust`]), and reaches the same ones;
//! peers of the directory see each other, and peers of P see each other. Here announcements are queued: each viewer has an alias
//! of its own for who comes, and who is seen may change at any time. A login that leaves too many of them unread is disconnected, so
//! what a login was told is always what is so.

mod trust;

use std::collections::HashMap;
use std::time::Instant;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::Outbox;
use super::{BATCH_BYTES, BATCH_FRAMES, Dialect, Inbound, Limits, Next, PeerId, Reason, Refusal};
use crate::onramp::Stats;
use crate::onramp::accounts::AccountId;
use crate::protocol::Address;
use crate::protocol::directory::{Notice, OWN_ALIAS, PeerNumber, Presence, Refused, Route};
use crate::protocol::frame::{self, Undeliverable};
use trust::Known;
pub(in crate::onramp) use trust::{Snapshot, Ticket};

/// Most announcements and answers that may wait for a login, and their bytes. It is disconnected when there are more.
const MAX_TOLD: usize = 8192;
const MAX_TOLD_BYTES: usize = 2 * 1024 * 1024;

/// By what a login is known to others.
pub(in crate::onramp) enum Place {
    /// A peer of the directory.
    Directory(PeerNumber),
    /// A peer of P.
    Peer { address: Address, dialect: Dialect },
}

/// Why an account's logins end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::onramp) enum Ended {
    /// Or it was deactivated and is active again: both begin an epoch.
    PasswordChanged,
    Deactivated,
    Deleted,
}

struct Login<B> {
    account: AccountId,
    place: Place,
    outbox: Outbox<B, Utf8Bytes>,
    /// With how many texts it was welcomed, and their bytes.
    welcome: (usize, usize),
    /// It has left so much unread that something was not queued.
    is_behind: bool,
    /// It is gone for all others.
    ended: Option<Ended>,
}

/// Why an introduction was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// It says that it is from somebody else, or between others.
    Forged,
    /// Nobody has this number of those who may be reached.
    Unreachable,
    /// Too much waits there.
    Busy,
}

impl Blocked {
    fn refused(self) -> Refused {
        let (code, message) = match self {
            Self::Forged => ("forged", "an introduction must be from your own number"),
            Self::Unreachable => ("unreachable", "no peer of this number can be reached"),
            Self::Busy => ("busy", "the peer does not keep up"),
        };
        Refused { code: code.into(), message: message.into() }
    }
}

/// The hub. `B` is the driver's bell for one login.
pub(in crate::onramp) struct AccountHub<B> {
    limits: Limits,
    logins: HashMap<PeerId, Login<B>>,
    /// Those who are logged in, and those whose trust is being read.
    accounts: HashMap<AccountId, Known>,
    numbers: HashMap<PeerNumber, PeerId>,
    names: HashMap<Address, PeerId>,
    last: PeerId,
    last_read: Ticket,
    closed: bool,
    stats: Stats,
}

impl<B: Clone> AccountHub<B> {
    pub(in crate::onramp) fn new(limits: Limits) -> Self {
        Self {
            limits,
            logins: HashMap::new(),
            accounts: HashMap::new(),
            numbers: HashMap::new(),
            names: HashMap::new(),
            last: PeerId(0),
            last_read: Ticket::default(),
            closed: false,
            stats: Stats::default(),
        }
    }

    pub(in crate::onramp) fn stats(&self) -> Stats {
        Stats { open: self.logins.len(), ..self.stats }
    }

    /// Counts a connection that did not become a login.
    pub(in crate::onramp) fn refused(&mut self, full: bool) {
        self.stats.refused += 1;
        self.stats.refused_full += u64::from(full);
    }

    /// Counts a request without the credentials that it needs.
    pub(in crate::onramp) fn denied(&mut self) {
        self.stats.denied += 1;
    }

    /// Somebody has logged in to an account whose trust was [learnt](Self::learn), in this epoch. It should pull at once.
    pub(in crate::onramp) fn join(
        &mut self,
        account: AccountId,
        epoch: i64,
        place: Place,
        bell: B,
        bells: &mut Vec<B>,
    ) -> Result<PeerId, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        if self.logins.len() >= self.limits.max_connections {
            return Err(Refusal::Full);
        }
        let known = self.accounts.get(&account).filter(|known| known.opens_in(epoch)).ok_or(Refusal::Ended)?;
        if known.logins.len() >= self.limits.max_logins {
            return Err(Refusal::TooMany);
        }
        let id = PeerId(self.last.0 + 1);
        let is_taken = match &place {
            Place::Directory(number) => self.numbers.contains_key(number),
            Place::Peer { address, .. } => self.names.contains_key(address),
        };
        if is_taken {
            return Err(Refusal::Taken);
        }
        match &place {
            Place::Directory(number) => self.numbers.insert(*number, id),
            Place::Peer { address, .. } => self.names.insert(address.clone(), id),
        };
        self.last = id;
        let texts = self.welcome(account, &place);
        let mut outbox = Outbox::new(bell);
        let welcome = (texts.len(), texts.iter().map(|text| text.as_str().len()).sum());
        for text in texts {
            let bytes = text.as_str().len();
            outbox.tell(text, bytes, &mut self.stats, bells);
        }
        let login = Login { account, place, outbox, welcome, is_behind: false, ended: None };
        self.announce(account, &login.place, bells);
        self.logins.insert(id, login);
        if let Some(known) = self.accounts.get_mut(&account) {
            known.logins.insert(id);
        }
        self.stats.accepted += 1;
        Ok(id)
    }

    /// A login is gone. Nothing happens if it was gone already.
    pub(in crate::onramp) fn disconnect(&mut self, id: PeerId, reason: Reason, bells: &mut Vec<B>) {
        self.leave(id, bells);
        let Some(mut login) = self.logins.remove(&id) else { return };
        login.outbox.clear(&mut self.stats);
        reason.count(&mut self.stats);
        self.forget(login.account);
    }

    /// A peer of P sent a text message. Returns when the next message should be read from it, if not at once.
    pub(in crate::onramp) fn text(
        &mut self,
        id: PeerId,
        inbound: Inbound,
        now: Instant,
        bells: &mut Vec<B>,
    ) -> Option<Instant> {
        let resume = self.charge(id, now);
        match inbound {
            Inbound::Relay { to, text } => {
                let there = self.names.get(&to).copied();
                let why = match self.relay(id, there, text, bells) {
                    Ok(()) => return resume,
                    Err(Blocked::Busy) => Undeliverable::Busy,
                    Err(_) => Undeliverable::Unknown,
                };
                if self.logins.get(&id).is_some_and(|login| login.place.takes_extension()) {
                    self.tell(id, frame::undeliverable(&to, why).into(), bells);
                }
            }
            Inbound::Ignored => self.stats.ignored += 1,
            Inbound::Malformed => self.stats.malformed += 1,
        }
        resume
    }

    /// A peer of the directory wants `text` passed on by this route, and an answer if there is a `request`. Returns as
    /// [`text`](Self::text) does.
    pub(in crate::onramp) fn introduce(
        &mut self,
        id: PeerId,
        route: Route,
        text: Utf8Bytes,
        request: Option<u64>,
        now: Instant,
        bells: &mut Vec<B>,
    ) -> Option<Instant> {
        let resume = self.charge(id, now);
        let passed = self.pass(id, route, text, bells);
        if let Some(request) = request {
            let answer = match passed {
                Ok(()) => Notice::Ok { id: request, data: serde_json::Value::Null },
                Err(why) => Notice::Error { id: Some(request), refused: Some(why.refused()) },
            };
            self.tell(id, answer.to_json().into(), bells);
        }
        resume
    }

    /// A login has asked for something that the driver does. Returns as [`text`](Self::text) does, and whether it may ask.
    pub(in crate::onramp) fn asks(&mut self, id: PeerId, now: Instant) -> (bool, Option<Instant>) {
        (self.may_ask(id), self.charge(id, now))
    }

    /// Whether a login is here, and its account has not ended it.
    pub(in crate::onramp) fn may_ask(&self, id: PeerId) -> bool {
        self.logins.get(&id).is_some_and(|login| login.ended.is_none())
    }

    /// What a peer of the directory sent is no request. Returns as [`text`](Self::text) does.
    pub(in crate::onramp) fn malformed(
        &mut self,
        id: PeerId,
        request: Option<u64>,
        now: Instant,
        bells: &mut Vec<B>,
    ) -> Option<Instant> {
        self.stats.malformed += 1;
        if request.is_some() {
            let refused = Refused { code: "malformed".into(), message: "this is no request to a directory".into() };
            self.tell(id, Notice::Error { id: request, refused: Some(refused) }.to_json().into(), bells);
        }
        self.charge(id, now)
    }

    /// A login sent a binary message. Returns as [`text`](Self::text) does.
    pub(in crate::onramp) fn binary(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.stats.ignored += 1;
        self.charge(id, now)
    }

    /// A login sent a ping or a pong. Returns as [`text`](Self::text) does.
    pub(in crate::onramp) fn control(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.charge(id, now)
    }

    /// Tells a login something that only it gets.
    pub(in crate::onramp) fn tell(&mut self, id: PeerId, text: Utf8Bytes, bells: &mut Vec<B>) {
        let Some(login) = self.logins.get_mut(&id) else { return };
        if login.is_behind {
            return;
        }
        let ((texts, waiting), bytes) = (login.outbox.told(), text.as_str().len());
        if texts >= MAX_TOLD + login.welcome.0 || waiting + bytes > MAX_TOLD_BYTES + login.welcome.1 {
            login.is_behind = true;
            login.outbox.clear(&mut self.stats);
            login.outbox.ring(bells);
        } else {
            login.outbox.tell(text, bytes, &mut self.stats, bells);
        }
    }

    /// Lets nobody in any more and sends everybody away.
    pub(in crate::onramp) fn close(&mut self, bells: &mut Vec<B>) {
        self.closed = true;
        for login in self.logins.values_mut() {
            login.outbox.ring(bells);
        }
    }

    /// Appends the next texts that are due to a login to `batch`.
    pub(in crate::onramp) fn pull(&mut self, id: PeerId, batch: &mut Vec<Utf8Bytes>) -> Next {
        if self.closed {
            return Next::GoAway;
        }
        let Some(login) = self.logins.get_mut(&id) else { return Next::GoAway };
        login.outbox.settle(&mut self.stats);
        if login.is_behind {
            return Next::TooFarBehind;
        }
        let mut bytes = 0;
        while batch.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
            let Some((text, length)) = login.outbox.next() else {
                match login.ended {
                    Some(ended) if batch.is_empty() => return Next::Ended(ended),
                    Some(_) => return Next::Pull,
                    None => login.outbox.rest(),
                }
                break;
            };
            bytes += length;
            batch.push(text);
        }
        if login.outbox.goes_on() { Next::Pull } else { Next::Wait }
    }

    /// What a login is told first: who it is, and who is there.
    fn welcome(&mut self, account: AccountId, place: &Place) -> Vec<Utf8Bytes> {
        let circle = self.circle(account);
        let seen = circle.flat_map(|(known, alias, _)| known.logins.iter().map(move |id| (*id, alias)));
        let (texts, seen): (Vec<String>, usize) = match place {
            Place::Directory(own) => {
                let peers: Vec<_> = seen
                    .filter_map(|(id, alias)| match self.logins.get(&id)?.place {
                        Place::Directory(id) => Some(Presence { name: alias.to_owned(), id }),
                        Place::Peer { .. } => None,
                    })
                    .collect();
                let users = self.accounts.get(&account).map(Known::aliases).unwrap_or_default();
                let (us, seen) = (Notice::UserAdd(OWN_ALIAS.to_owned()), peers.len());
                let notices = [us, Notice::SetPeerId(*own), Notice::UserList(users), Notice::PeerList(peers)];
                (notices.iter().map(Notice::to_json).collect(), seen)
            }
            Place::Peer { address, dialect } => {
                let mut others: Vec<_> = seen.map(|(id, _)| id).filter(|_| self.limits.announce).collect();
                others.sort_unstable();
                let own = (*dialect == Dialect::Pmesh).then(|| frame::welcome(address));
                let announced = others.iter().filter_map(|id| match &self.logins.get(id)?.place {
                    Place::Peer { address, .. } => Some(frame::announcement(address)),
                    Place::Directory(_) => None,
                });
                let announced: Vec<String> = announced.collect();
                let seen = announced.len();
                (own.into_iter().chain(announced).collect(), seen)
            }
        };
        self.stats.announced += seen as u64;
        texts.into_iter().map(Utf8Bytes::from).collect()
    }

    fn pass(&mut self, id: PeerId, route: Route, text: Utf8Bytes, bells: &mut Vec<B>) -> Result<(), Blocked> {
        let Route { to, from, peer } = route;
        let own = self.logins.get(&id).is_some_and(|login| matches!(login.place, Place::Directory(n) if n == from));
        if !own || peer.is_some_and(|peer| peer != to && peer != from) {
            self.stats.forged += 1;
            return Err(Blocked::Forged);
        }
        let there = self.numbers.get(&to).copied();
        self.relay(id, there, text, bells)
    }

    fn relay(&mut self, id: PeerId, to: Option<PeerId>, text: Utf8Bytes, bells: &mut Vec<B>) -> Result<(), Blocked> {
        let Some(to) = to.filter(|to| self.may_reach(id, *to)) else {
            self.stats.undeliverable += 1;
            return Err(Blocked::Unreachable);
        };
        let bytes = text.as_str().len();
        let Self { limits, logins, stats, .. } = self;
        let queued = logins
            .get_mut(&to)
            .is_some_and(|there| !there.is_behind && there.outbox.relay(text, bytes, limits, stats, bells));
        if !queued {
            stats.busy += 1;
            return Err(Blocked::Busy);
        }
        stats.relayed += 1;
        stats.relayed_bytes += bytes as u64;
        Ok(())
    }

    fn charge(&mut self, id: PeerId, now: Instant) -> Option<Instant> {
        self.logins.get_mut(&id)?.outbox.charge(&self.limits, now, &mut self.stats)
    }
}

impl Place {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Whether it takes the extension frames of pmesh.
    fn takes_extension(&self) -> bool {
        matches!(self, Self::Peer { dialect: Dialect::Pmesh, .. })
    }
}

#[cfg(test)]
mod tests;
