//! Who is there, as the directory says: pure. After a new login only what differs becomes events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::event::SessionEvent;
use super::target::{Kind, Target};
use crate::protocol::PeerNumber;
use crate::protocol::directory::{MAX_NAME_BYTES, Notice, OWN_ALIAS, Presence as Named};

/// Users that are kept. Further ones, and their peers, are counted.
const MAX_USERS: usize = 1000;
/// Peers that are kept. Further ones are counted.
const MAX_PEERS: usize = 100_000;

/// What the directory has said and still holds.
///
/// What contradicts is put right, or ignored and counted: a peer that comes twice, or under another alias, leaves first; one whose user
/// was not named makes the user known; the own number is no peer.
#[derive(Debug)]
pub(super) struct Presence {
    own: Option<PeerNumber>,
    /// Whether all that belongs to the login is here.
    complete: bool,
    /// The own account is always among them.
    users: BTreeMap<Arc<str>, BTreeSet<PeerNumber>>,
    peers: HashMap<PeerNumber, Arc<str>>,
    ignored: u64,
}

impl Presence {
    /// Nobody is there.
    pub(super) fn new() -> Self {
        let users = BTreeMap::from([(OWN_ALIAS.into(), BTreeSet::new())]);
        Self { own: None, complete: false, users, peers: HashMap::new(), ignored: 0 }
    }

    /// A new login begins: its number is not known yet. Who was there counts as there until the directory says otherwise.
    pub(super) fn begin(&mut self) {
        self.own = None;
        self.complete = false;
    }

    /// The own number, if the directory has given one.
    pub(super) fn own(&self) -> Option<PeerNumber> {
        self.own
    }

    /// Whether everything that comes with a login has come.
    pub(super) fn is_complete(&self) -> bool {
        self.own.is_some() && self.complete
    }

    /// What was ignored, as it cannot be or is beyond a bound.
    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The alias under which a peer is known.
    pub(super) fn alias(&self, peer: PeerNumber) -> Option<&Arc<str>> {
        self.peers.get(&peer)
    }

    /// The aliases of all users but the own.
    pub(super) fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.keys().filter(|alias| ***alias != *OWN_ALIAS)
    }

    /// All peers, by users.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerNumber, &Arc<str>)> {
        self.users.iter().flat_map(|(alias, peers)| peers.iter().map(move |peer| (*peer, alias)))
    }

    /// Whom a target means.
    pub(super) fn select(&self, target: &Target) -> Vec<(PeerNumber, Arc<str>)> {
        let of_user = |alias: &str| {
            let user = self.users.get_key_value(alias);
            user.into_iter().flat_map(|(alias, peers)| peers.iter().map(|peer| (*peer, alias.clone()))).collect()
        };
        match &target.0 {
            Kind::All => self.peers().map(|(peer, alias)| (peer, alias.clone())).collect(),
            Kind::User(alias) => of_user(alias),
            Kind::Peer(peer) => self.alias(*peer).map(|alias| (*peer, alias.clone())).into_iter().collect(),
            Kind::Nobody => Vec::new(),
        }
    }

    /// What somebody who begins to listen is to be told.
    pub(super) fn snapshot(&self) -> Vec<SessionEvent> {
        let own = self.own.map(|number| SessionEvent::Connected { number });
        let users = self.users().map(|alias| SessionEvent::NewUser { alias: alias.to_string() });
        let peers = self.peers().map(|(number, name)| SessionEvent::PeerConnect { name: name.to_string(), number });
        own.into_iter().chain(users).chain(peers).collect()
    }

    /// Takes a notice, and adds what happened. Those that are not about who is there change nothing.
    pub(super) fn handle(&mut self, notice: &Notice, events: &mut Vec<SessionEvent>) {
        match notice {
            // It always is.
            Notice::UserAdd(alias) if alias == OWN_ALIAS => {}
            Notice::UserAdd(alias) => {
                if self.users.contains_key(alias.as_str()) || self.user(alias, events).is_none() {
                    self.ignored += 1;
                }
            }
            Notice::UserRemove(alias) => self.remove_user(alias, events),
            Notice::SetPeerId(number) => self.set_own(*number, events),
            Notice::UserList(aliases) => self.users_are(aliases, events),
            Notice::PeerList(peers) => self.peers_are(peers, events),
            Notice::PeerConnect(peer) => self.add_peer(peer, events),
            Notice::PeerDisconnect { number, ended } => {
                if !self.remove_peer(*number, *ended, events) {
                    self.ignored += 1;
                }
            }
            Notice::Introduce { .. } | Notice::TokenResponse { .. } | Notice::Ok { .. } | Notice::Error { .. } => {}
        }
    }

    /// All logins of the own account were ended.
    pub(super) fn account_ended(&mut self, events: &mut Vec<SessionEvent>) {
        for number in self.users.get(OWN_ALIAS).cloned().unwrap_or_default() {
            self.remove_peer(number, true, events);
        }
    }

    fn set_own(&mut self, number: PeerNumber, events: &mut Vec<SessionEvent>) {
        if self.own.is_some() {
            self.ignored += 1;
            return;
        }
        self.own = Some(number);
        events.push(SessionEvent::Connected { number });
        // It is the peer's no more.
        self.remove_peer(number, true, events);
    }

    fn users_are(&mut self, aliases: &[String], events: &mut Vec<SessionEvent>) {
        let named: BTreeSet<&str> = aliases.iter().map(String::as_str).collect();
        let gone: Vec<_> = self.users().filter(|alias| !named.contains(&***alias)).cloned().collect();
        for alias in gone {
            self.remove_user(&alias, events);
        }
        for alias in aliases {
            if self.user(alias, events).is_none() {
                self.ignored += 1;
            }
        }
    }

    fn peers_are(&mut self, peers: &[Named], events: &mut Vec<SessionEvent>) {
        let named: HashMap<PeerNumber, &str> = peers.iter().map(|peer| (peer.id, peer.name.as_str())).collect();
        let missing = self.peers().filter_map(|(number, alias)| match named.get(&number) {
            Some(named) if **named == **alias => None,
            named => Some((number, named.is_some())),
        });
        for (number, is_anothers) in missing.collect::<Vec<_>>() {
            self.remove_peer(number, is_anothers, events);
        }
        for peer in peers {
            if named.get(&peer.id) == Some(&peer.name.as_str()) && !self.peers.contains_key(&peer.id) {
                self.add_peer(peer, events);
            }
        }
        self.complete = true;
    }

    fn add_peer(&mut self, peer: &Named, events: &mut Vec<SessionEvent>) {
        let known = self.peers.get(&peer.id);
        if Some(peer.id) == self.own || known.is_some_and(|alias| **alias == *peer.name) {
            self.ignored += 1;
            return;
        }
        if known.is_some() {
            self.remove_peer(peer.id, true, events);
        }
        let user = if self.peers.len() < MAX_PEERS { self.user(&peer.name, events) } else { None };
        let Some(alias) = user else {
            self.ignored += 1;
            return;
        };
        self.users.entry(alias.clone()).or_default().insert(peer.id);
        self.peers.insert(peer.id, alias);
        events.push(SessionEvent::PeerConnect { name: peer.name.clone(), number: peer.id });
    }

    /// The user of this alias, who is added if there is none. `None` if that cannot be.
    fn user(&mut self, alias: &str, events: &mut Vec<SessionEvent>) -> Option<Arc<str>> {
        if let Some((known, _)) = self.users.get_key_value(alias) {
            return Some(known.clone());
        }
        if alias.is_empty() || alias.len() > MAX_NAME_BYTES || self.users.len() > MAX_USERS {
            return None;
        }
        let alias: Arc<str> = alias.into();
        self.users.insert(alias.clone(), BTreeSet::new());
        events.push(SessionEvent::NewUser { alias: alias.to_string() });
        Some(alias)
    }

    /// Its `ended` says that it may not be believed any more to be who it was.
    fn remove_peer(&mut self, number: PeerNumber, ended: bool, events: &mut Vec<SessionEvent>) -> bool {
        let Some(alias) = self.peers.remove(&number) else { return false };
        if let Some(peers) = self.users.get_mut(&alias) {
            peers.remove(&number);
        }
        events.push(SessionEvent::PeerDisconnect { number, ended });
        true
    }

    fn remove_user(&mut self, alias: &str, events: &mut Vec<SessionEvent>) {
        // The own account stays, whatever anybody says.
        let removed = if alias == OWN_ALIAS { None } else { self.users.remove(alias) };
        let Some(peers) = removed else {
            self.ignored += 1;
            return;
        };
        for number in peers {
            self.peers.remove(&number);
            events.push(SessionEvent::PeerDisconnect { number, ended: true });
        }
        events.push(SessionEvent::UserRemoved { alias: alias.to_owned() });
    }
}

#[cfg(test)]
mod tests;
