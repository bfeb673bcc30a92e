//! Which link a datagram on a shared port is for. Pure: time is an argument.
//!
//! - A Binding request goes to the link whose user fragment it names, from wherever it comes. It teaches nothing: anybody
//!   can send one, under any address.
//! - A Binding response goes to the link that sent the request, if it comes from where the request went.
//! - DTLS goes to the link that claims the address. A link claims those that it answers or sends DTLS to, which it does
//!   only after it has checked the other side's password; and a claim is *confirmed* when the address has answered a
//!   request of ours, which nobody can who does not get what is sent there.
//!
//! So who knows no password leaves no trace, and a peer that asks under the address of another gets nothing of what is
//! for the link established there.
//!
//! Of two links to the same address only one works. Between two shared ports both ends have to mean the same one: the one
//! that is open, as long as the address answers its checks; before, the one with the larger user fragments, which both
//! ends know. So a peer that has two others call each other in its own name cannot cut them off either. When the link
//! closes, or its other end is gone, the other one has its turn. Until then it sends no DTLS, and what a client says
//! first goes to a link that made the offer: a handshake that hears of another one does not recover. It still may, if both
//! are under way before either end knows of both links; then both fail.

use core::net::SocketAddr;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::stun::{self, Kind, Transaction};

/// Requests of one link whose responses are awaited. Beyond it the oldest is forgotten.
const MAX_ASKED: usize = 128;

/// How long a response is awaited. The crate gives up earlier.
const PATIENCE: Duration = Duration::from_secs(8);

/// Addresses that one link claims. Beyond it the least recently used is given up, unconfirmed ones first.
const MAX_CLAIMED: usize = 16;

/// How long a claim counts as confirmed lately. An idle link checks its path at most ten seconds after the last time.
const FRESH: Duration = Duration::from_secs(12);

/// The longest user fragment (RFC 8839), in bytes. What is beyond does not count.
const MAX_USER: usize = 256;

/// A link on the port. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkKey(u64);

/// The routing table of one port. Its size is bounded by the number of links.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Routes {
    latest: u64,
    links: HashMap<LinkKey, LinkRoutes>,
    users: HashMap<Box<[u8]>, LinkKey>,
    asked: HashMap<Transaction, Asked>,
    claims: HashMap<SocketAddr, Vec<Claim>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct LinkRoutes {
    user: Box<[u8]>,
    /// The user fragment of the other end, once a request has named it.
    other: Box<[u8]>,
    open: bool,
    /// Whether our side made the offer: the other one is then the client of DTLS.
    offered: bool,
    /// Oldest first. A request that was sent again stands here twice.
    asked: VecDeque<(Instant, Transaction)>,
    /// Least recently used first.
    claimed: VecDeque<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    link: LinkKey,
    to: SocketAddr,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    link: LinkKey,
    /// When the address has last answered.
    confirmed: Option<Instant>,
}

/// Which claim comes before others: the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    Unconfirmed,
    Stale,
    /// Both user fragments, the larger first.
    Fresh(&'a [u8], &'a [u8]),
    Open(&'a [u8], &'a [u8]),
}

impl Routes {
    /// Adds a link with this user fragment. Of two with the same, the newer gets the requests.
    pub(super) fn open(&mut self, user: &str, offered: bool) -> LinkKey {
        self.latest += 1;
        let key = LinkKey(self.latest);
        let user: Box<[u8]> = user.as_bytes().into();
        self.users.insert(user.clone(), key);
        self.links.insert(key, LinkRoutes { user, offered, ..LinkRoutes::default() });
        key
    }

    /// A link is open.
    pub(super) fn opened(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(&key) {
            link.open = true;
        }
    }

    /// Forgets a link.
    pub(super) fn close(&mut self, key: LinkKey) {
        let Some(link) = self.links.remove(&key) else { return };
        if self.users.get(&link.user) == Some(&key) {
            self.users.remove(&link.user);
        }
        for (_, transaction) in link.asked {
            if self.asked.get(&transaction).is_some_and(|asked| asked.link == key) {
                self.asked.remove(&transaction);
            }
        }
        for address in link.claimed {
            self.disclaim(address, key);
        }
    }

    /// Learns from what a link is about to send. Returns whether it may.
    pub(super) fn sent(&mut self, now: Instant, key: LinkKey, to: SocketAddr, datagram: &[u8]) -> bool {
        match stun::classify(datagram) {
            Kind::Request(transaction, attributes) => {
                self.ask(now, key, to, transaction, stun::addressee(attributes).unwrap_or_default());
            }
            Kind::Response(_, true) => self.claim(key, to, None),
            Kind::Hello | Kind::Flow => {
                self.claim(key, to, None);
                return self.holder(now, to, false) == Some(key);
            }
            Kind::Response(_, false) | Kind::Relay | Kind::Other => {}
        }
        true
    }

    /// The link that a datagram is for.
    pub(super) fn received(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<LinkKey> {
        match stun::classify(datagram) {
            Kind::Request(_, attributes) => self.users.get(stun::addressee(attributes)?).copied(),
            Kind::Response(transaction, success) => {
                let asked = *self.asked.get(&transaction)?;
                if asked.to != from || now.saturating_duration_since(asked.at) > PATIENCE {
                    return None;
                }
                self.asked.remove(&transaction);
                if success {
                    self.claim(asked.link, from, Some(now));
                }
                Some(asked.link)
            }
            Kind::Hello => self.holder(now, from, true),
            Kind::Flow => self.holder(now, from, false),
            Kind::Relay | Kind::Other => None,
        }
    }

    /// The link that an address belongs to: for the first message of a client, if there is one, a link that expects it.
    fn holder(&self, now: Instant, address: SocketAddr, hello: bool) -> Option<LinkKey> {
        let expects = |link| hello && self.links.get(link).is_some_and(|link| link.offered);
        match self.claims.get(&address)?.as_slice() {
            [only] => Some(only.link),
            claims => {
                let best = claims.iter().max_by_key(|c| (expects(&c.link), self.rank(now, c), c.link));
                best.map(|claim| claim.link)
            }
        }
    }

    fn rank(&self, now: Instant, claim: &Claim) -> Rank<'_> {
        let (Some(at), Some(link)) = (claim.confirmed, self.links.get(&claim.link)) else { return Rank::Unconfirmed };
        let (larger, smaller) = (link.user.as_ref().max(&link.other), link.user.as_ref().min(&link.other));
        match now.saturating_duration_since(at) {
            age if age > FRESH => Rank::Stale,
            _ if link.open => Rank::Open(larger, smaller),
            _ => Rank::Fresh(larger, smaller),
        }
    }

    fn ask(&mut self, now: Instant, key: LinkKey, to: SocketAddr, transaction: Transaction, other: &[u8]) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let other = &other[..other.len().min(MAX_USER)];
        if *link.other != *other {
            link.other = other.into();
        }
        while let Some(&(at, old)) = link.asked.front()
            && (link.asked.len() >= MAX_ASKED || now.saturating_duration_since(at) > PATIENCE)
        {
            link.asked.pop_front();
            if self.asked.get(&old).is_some_and(|asked| asked.link == key && asked.at == at) {
                self.asked.remove(&old);
            }
        }
        link.asked.push_back((now, transaction));
        self.asked.insert(transaction, Asked { link: key, to, at: now });
    }

    fn claim(&mut self, key: LinkKey, address: SocketAddr, confirmed: Option<Instant>) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if confirmed.is_none() && link.claimed.back() == Some(&address) {
            return;
        }
        if let Some(at) = link.claimed.iter().position(|claimed| *claimed == address) {
            link.claimed.remove(at);
        } else if link.claimed.len() >= MAX_CLAIMED {
            let claims = &self.claims;
            let unconfirmed = |address: &SocketAddr| {
                claims.get(address).is_some_and(|claims| claims.iter().any(|c| c.link == key && c.confirmed.is_none()))
            };
            let at = link.claimed.iter().position(unconfirmed).unwrap_or(0);
            if let Some(old) = link.claimed.remove(at) {
                self.disclaim(old, key);
            }
        }
        if let Some(link) = self.links.get_mut(&key) {
            link.claimed.push_back(address);
        }
        let claims = self.claims.entry(address).or_default();
        match claims.iter_mut().find(|claim| claim.link == key) {
            Some(claim) => claim.confirmed = confirmed.or(claim.confirmed),
            None => claims.push(Claim { link: key, confirmed }),
        }
    }

    fn disclaim(&mut self, address: SocketAddr, key: LinkKey) {
        if let Some(claims) = self.claims.get_mut(&address) {
            claims.retain(|claim| claim.link != key);
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
