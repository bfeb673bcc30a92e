//! Who sees whom.
//!
//! What is known of an account was read from the store some time ago. Each reading has a ticket, drawn before it began: a reading counts
//! unless a later one has been learnt already. Whoever changes something reads *after* the change, so the last word is right. Two accounts see each
//! other when each was read to trust the other, in whichever order that came.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::onramp::accounts::Trusted;

/// When a reading of an account began. Later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::onramp) struct Ticket(u64);

/// What a reading of an account has found.
#[derive(Debug, Clone)]
pub(in crate::onramp) struct Snapshot {
    /// The epoch of the account, in which its logins are.
    pub(in crate::onramp) epoch: Result<i64, Ended>,
    pub(in crate::onramp) trusted: Vec<Trusted>,
}

/// What is known of an account.
#[derive(Default)]
pub(super) struct Known {
    /// Readings that are under way.
    reading: usize,
    /// The latest one that was learnt.
    read: Ticket,
    epoch: Option<i64>,
    /// Aliases of those whom it trusts.
    trusted: BTreeMap<AccountId, String>,
    pub(super) logins: BTreeSet<PeerId>,
}

impl Known {
    /// Whether one may log in who was let in in this epoch.
    pub(super) fn opens_in(&self, epoch: i64) -> bool {
        self.epoch == Some(epoch)
    }

    pub(super) fn aliases(&self) -> Vec<String> {
        let mut aliases: Vec<String> = self.trusted.values().cloned().collect();
        aliases.sort_unstable();
        aliases
    }
}

impl<B: Clone> AccountHub<B> {
    /// A reading of this account begins. It must [finish](Self::finish).
    pub(in crate::onramp) fn begin(&mut self, account: AccountId) -> Ticket {
        self.last_read.0 += 1;
        self.accounts.entry(account).or_default().reading += 1;
        self.last_read
    }

    /// The same for an account that is not logged in: then there is nothing to read.
    pub(in crate::onramp) fn begin_again(&mut self, account: AccountId) -> Option<Ticket> {
        self.knows(account).then(|| self.begin(account))
    }

    /// A reading is over, whatever came of it.
    pub(in crate::onramp) fn finish(&mut self, account: AccountId) {
        if let Some(known) = self.accounts.get_mut(&account) {
            known.reading -= 1;
        }
        self.forget(account);
    }

    /// Whether an account is logged in or being read.
    pub(in crate::onramp) fn knows(&self, account: AccountId) -> bool {
        self.accounts.contains_key(&account)
    }

    /// All who are logged in.
    pub(in crate::onramp) fn online(&self) -> Vec<AccountId> {
        self.accounts.iter().filter(|(_, known)| !known.logins.is_empty()).map(|(account, _)| *account).collect()
    }

    /// What a reading has found. Returns those of whom the opposite was read: they are to be read again.
    pub(in crate::onramp) fn learn(
        &mut self,
        account: AccountId,
        ticket: Ticket,
        snapshot: Snapshot,
        bells: &mut Vec<B>,
    ) -> Vec<AccountId> {
        let Some(known) = self.accounts.get_mut(&account).filter(|known| known.read < ticket) else {
            return Vec::new();
        };
        known.read = ticket;
        let before = known.epoch.take();
        let ended = match snapshot.epoch {
            Ok(epoch) => before.is_some_and(|before| before != epoch).then_some(Ended::PasswordChanged),
            Err(ended) => Some(ended),
        };
        known.epoch = snapshot.epoch.ok();
        if let Some(ended) = ended {
            self.end(account, ended, bells);
        }
        self.learn_trust(account, snapshot.trusted, bells)
    }

    fn learn_trust(&mut self, account: AccountId, trusted: Vec<Trusted>, bells: &mut Vec<B>) -> Vec<AccountId> {
        let now: BTreeMap<AccountId, String> = trusted.into_iter().map(|t| (t.account, t.alias)).collect();
        let Some(known) = self.accounts.get(&account) else { return Vec::new() };
        let differing =
            |a: &BTreeMap<AccountId, String>, b: &BTreeMap<AccountId, String>| -> Vec<(AccountId, String)> {
                let differ = a.iter().filter(|(other, alias)| b.get(*other) != Some(*alias));
                differ.map(|(other, alias)| (*other, alias.clone())).collect()
            };
        let (removed, added) = (differing(&known.trusted, &now), differing(&now, &known.trusted));
        for (other, alias) in &removed {
            self.part(account, *other, bells);
            self.tell_users(account, &Notice::UserRemove(alias.clone()), bells);
            if let Some(known) = self.accounts.get_mut(&account) {
                known.trusted.remove(other);
            }
        }
        for (other, alias) in &added {
            self.tell_users(account, &Notice::UserAdd(alias.clone()), bells);
            if let Some(known) = self.accounts.get_mut(&account) {
                known.trusted.insert(*other, alias.clone());
            }
            self.meet(account, *other, bells);
        }
        let disagrees = |other: &AccountId| {
            self.accounts
                .get(other)
                .is_some_and(|known| known.trusted.contains_key(&account) != now.contains_key(other))
        };
        let changed = removed.into_iter().chain(added).map(|(other, _)| other);
        changed.filter(disagrees).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Those who see a login of this account are told of it. It is not among the logins yet.
    pub(super) fn announce(&mut self, account: AccountId, place: &Place, bells: &mut Vec<B>) {
        let mut told = Vec::new();
        for (viewers, _, alias) in self.circle(account) {
            self.arrival(place, alias, viewers, &mut told);
        }
        self.tell_of_peers(told, bells);
    }

    /// A login is gone for all others, of its own account too. They hear whether it was ended.
    pub(super) fn leave(&mut self, id: PeerId, bells: &mut Vec<B>) {
        let Some(login) = self.logins.get(&id) else { return };
        let (account, ended) = (login.account, login.ended.is_some());
        // It may have left already, when its account was closed.
        if !self.accounts.get_mut(&account).is_some_and(|known| known.logins.remove(&id)) {
            return;
        }
        let mut told = Vec::new();
        for (viewers, ..) in self.circle(account) {
            self.departure(&login.place, ended, viewers, &mut told);
        }
        match &login.place {
            Place::Directory(number) => drop(self.numbers.remove(number)),
            Place::Peer { address, .. } => drop(self.names.remove(address)),
        }
        self.tell_all_of(told, bells);
    }

    /// Ends all logins of an account, for a reason.
    fn end(&mut self, account: AccountId, ended: Ended, bells: &mut Vec<B>) {
        let Some(known) = self.accounts.get(&account) else { return };
        for id in known.logins.clone() {
            if let Some(login) = self.logins.get_mut(&id) {
                login.ended = Some(ended);
                login.outbox.ring(bells);
            }
            self.leave(id, bells);
        }
    }

    /// Two accounts that trust each other now are told of each other's logins.
    fn meet(&mut self, a: AccountId, b: AccountId, bells: &mut Vec<B>) {
        let mut told = Vec::new();
        for (viewer, other) in [(a, b), (b, a)] {
            let Some((alias, _)) = self.trust(viewer, other) else { return };
            let (Some(viewers), Some(there)) = (self.accounts.get(&viewer), self.accounts.get(&other)) else { return };
            for login in there.logins.iter().filter_map(|login| self.logins.get(login)) {
                self.arrival(&login.place, alias, viewers, &mut told);
            }
        }
        self.tell_of_peers(told, bells);
    }

    /// Two accounts that trust each other still are told that each other's logins are gone.
    fn part(&mut self, a: AccountId, b: AccountId, bells: &mut Vec<B>) {
        let mut told = Vec::new();
        for (viewer, other) in [(a, b), (b, a)] {
            if self.trust(viewer, other).is_none() {
                return;
            }
            let (Some(viewers), Some(there)) = (self.accounts.get(&viewer), self.accounts.get(&other)) else { return };
            for login in there.logins.iter().filter_map(|login| self.logins.get(login)) {
                self.departure(&login.place, true, viewers, &mut told);
            }
        }
        self.tell_all_of(told, bells);
    }

    /// What those of `viewers` who see such a place are told when it comes.
    fn arrival(&self, place: &Place, alias: &str, viewers: &Known, told: &mut Vec<(PeerId, Utf8Bytes)>) {
        match place {
            Place::Directory(id) => {
                let text = || Notice::PeerConnect(Presence { name: alias.to_owned(), id: *id }).to_json();
                self.for_each(viewers, text, Place::is_directory, told);
            }
            Place::Peer { address, .. } if self.limits.announce => {
                self.for_each(viewers, || frame::announcement(address), |viewer| !viewer.is_directory(), told);
            }
            Place::Peer { .. } => {}
        }
    }

    /// What they are told when it leaves, or is to be seen no more: that may not be believed any more that it is who it was.
    fn departure(&self, place: &Place, ended: bool, viewers: &Known, told: &mut Vec<(PeerId, Utf8Bytes)>) {
        match place {
            Place::Directory(id) => {
                let notice = Notice::PeerDisconnect { number: *id, ended };
                self.for_each(viewers, || notice.to_json(), Place::is_directory, told);
            }
            Place::Peer { address, .. } if self.limits.announce => {
                self.for_each(viewers, || frame::left(address), Place::takes_extension, told);
            }
            Place::Peer { .. } => {}
        }
    }

    fn for_each(
        &self,
        viewers: &Known,
        text: impl FnOnce() -> String,
        which: impl Fn(&Place) -> bool,
        told: &mut Vec<(PeerId, Utf8Bytes)>,
    ) {
        let which = |id: &&PeerId| self.logins.get(id).is_some_and(|login| which(&login.place));
        let mut viewers = viewers.logins.iter().filter(which).peekable();
        if viewers.peek().is_some() {
            let text = Utf8Bytes::from(text());
            told.extend(viewers.map(|id| (*id, text.clone())));
        }
    }

    fn tell_of_peers(&mut self, told: Vec<(PeerId, Utf8Bytes)>, bells: &mut Vec<B>) {
        self.stats.announced += told.len() as u64;
        self.tell_all_of(told, bells);
    }

    fn tell_all_of(&mut self, told: Vec<(PeerId, Utf8Bytes)>, bells: &mut Vec<B>) {
        told.into_iter().for_each(|(id, text)| self.tell(id, text, bells));
    }

    /// Tells all peers of the directory that an account is logged in with.
    fn tell_users(&mut self, account: AccountId, notice: &Notice, bells: &mut Vec<B>) {
        let mut told = Vec::new();
        if let Some(known) = self.accounts.get(&account) {
            self.for_each(known, || notice.to_json(), Place::is_directory, &mut told);
        }
        self.tell_all_of(told, bells);
    }

    /// Whether one login may send to another of its kind.
    pub(super) fn may_reach(&self, from: PeerId, to: PeerId) -> bool {
        let (Some(from), Some(to)) = (self.logins.get(&from), self.logins.get(&to)) else { return false };
        from.ended.is_none()
            && to.ended.is_none()
            && (from.account == to.account || self.trust(from.account, to.account).is_some())
    }

    /// The aliases that two accounts have for each other, if each trusts the other: the first's for the second comes first.
    fn trust(&self, a: AccountId, b: AccountId) -> Option<(&str, &str)> {
        let alias_of = |viewer, other| Some(self.accounts.get(viewer)?.trusted.get(other)?.as_str());
        alias_of(&a, &b).zip(alias_of(&b, &a))
    }

    /// The accounts that this one sees and is seen by, itself first: what it calls them, and what they call it.
    pub(super) fn circle(&self, account: AccountId) -> impl Iterator<Item = (&Known, &str, &str)> {
        let own = self.accounts.get(&account);
        let others = own.into_iter().flat_map(|own| own.trusted.keys());
        let trusted = others.filter_map(move |other| {
            let (theirs, ours) = self.trust(account, *other)?;
            Some((self.accounts.get(other)?, theirs, ours))
        });
        own.map(|own| (own, OWN_ALIAS, OWN_ALIAS)).into_iter().chain(trusted)
    }

    /// Nothing needs to be known of who is neither logged in nor being read.
    pub(super) fn forget(&mut self, account: AccountId) {
        if self.accounts.get(&account).is_some_and(|known| known.logins.is_empty() && known.reading == 0) {
            self.accounts.remove(&account);
        }
    }
}
