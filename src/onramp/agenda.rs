//! Which accounts are to be read again, and when. A pure machine.
//!
//! What has changed here and what is due in a round take turns: however many there are of the one kind, the other goes on. An account
//! waits once, however often it changes, and is not read twice at a time. One that could not be read is tried again soon.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::accounts::AccountId;

/// Until an account that could not be read is tried again. It doubles each time, up to the second.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Accounts that wait, each once.
#[derive(Default)]
struct Line {
    order: VecDeque<AccountId>,
    waiting: HashSet<AccountId>,
}

/// What is to be read, and what is being read. Only accounts that are online belong here: their number is its bound.
#[derive(Default)]
pub(super) struct Agenda {
    changed: Line,
    round: Line,
    /// Whether the next one is of the round.
    round_is_next: bool,
    /// What is being read, and whether it is to be read once more: the reading may have begun before the change.
    under_way: HashMap<AccountId, bool>,
    /// What could not be read: how long that waits, and until when if it does still.
    failed: HashMap<AccountId, (Duration, Option<Instant>)>,
    retries: BTreeSet<(Instant, AccountId)>,
}

impl Line {
    fn push(&mut self, account: AccountId) {
        if self.waiting.insert(account) {
            self.order.push_back(account);
        }
    }

    fn pop(&mut self) -> Option<AccountId> {
        let account = self.order.pop_front()?;
        self.waiting.remove(&account);
        Some(account)
    }
}

impl Agenda {
    /// An account has changed.
    pub(super) fn changed(&mut self, account: AccountId) {
        match self.under_way.get_mut(&account) {
            Some(again) => *again = true,
            None => self.changed.push(account),
        }
    }

    /// All of these are due. Those that are left of the round before come first.
    pub(super) fn round(&mut self, accounts: impl IntoIterator<Item = AccountId>) {
        for account in accounts {
            match self.under_way.get_mut(&account) {
                Some(again) => *again = true,
                None => self.round.push(account),
            }
        }
    }

    /// What is to be read now. That must be [`done`](Self::done).
    pub(super) fn next(&mut self, now: Instant) -> Option<AccountId> {
        while let Some(&(at, account)) = self.retries.first()
            && at <= now
        {
            self.retries.pop_first();
            if let Some((_, until)) = self.failed.get_mut(&account) {
                *until = None;
            }
            self.changed(account);
        }
        loop {
            let lines = if self.round_is_next {
                [&mut self.round, &mut self.changed]
            } else {
                [&mut self.changed, &mut self.round]
            };
            let account = lines.into_iter().find_map(Line::pop)?;
            self.round_is_next = !self.round_is_next;
            match self.under_way.get_mut(&account) {
                Some(again) => *again = true,
                None => {
                    self.under_way.insert(account, false);
                    return Some(account);
                }
            }
        }
    }

    /// When there will be something to read that could not be read before.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// A reading is over, whatever came of it.
    pub(super) fn done(&mut self, account: AccountId) {
        if self.under_way.remove(&account) == Some(true) {
            self.changed(account);
        }
    }

    /// An account was read.
    pub(super) fn succeeded(&mut self, account: AccountId) {
        if let Some((_, Some(at))) = self.failed.remove(&account) {
            self.retries.remove(&(at, account));
        }
    }

    /// An account could not be read. Whether it is the only one that could not.
    pub(super) fn failed(&mut self, account: AccountId, now: Instant) -> bool {
        let (wait, until) = self.failed.get(&account).copied().unzip();
        if let Some(Some(at)) = until {
            self.retries.remove(&(at, account));
        }
        let wait = wait.map_or(FIRST_RETRY, |wait| (wait * 2).min(LONGEST_RETRY));
        self.failed.insert(account, (wait, Some(now + wait)));
        self.retries.insert((now + wait, account));
        self.failed.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<i64>) -> impl Iterator<Item = AccountId> {
        range.map(AccountId)
    }

    /// What is read, when each reading is over before the next begins.
    fn read(agenda: &mut Agenda, now: Instant, at_most: usize) -> Vec<i64> {
        let mut read = Vec::new();
        while read.len() < at_most
            && let Some(account) = agenda.next(now)
        {
            agenda.done(account);
            read.push(account.0);
        }
        read
    }

    #[test]
    fn changes_and_rounds_take_turns() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.round(ids(0..50));
        // Changes without end: one more for each reading.
        let mut of_round = 0;
        for change in 1000..1100 {
            agenda.changed(AccountId(change));
            let account = agenda.next(now).unwrap();
            agenda.done(account);
            of_round += usize::from(account.0 < 1000);
        }
        assert_eq!(of_round, 50);
        assert_eq!(read(&mut agenda, now, 100).len(), 50, "and no change is lost");
        // Rounds without end.
        agenda.changed(AccountId(7));
        agenda.round(ids(10..20));
        assert!(read(&mut agenda, now, 2).contains(&7));
    }

    #[test]
    fn what_changes_often_is_read_once() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for _ in 0..1000 {
            agenda.changed(AccountId(1));
            agenda.changed(AccountId(2));
        }
        assert_eq!(read(&mut agenda, now, 10), [1, 2]);
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_again_but_not_at_the_same_time() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.round(ids(1..2));
        agenda.changed(AccountId(1));
        assert_eq!(agenda.next(now), Some(AccountId(1)));
        assert_eq!(agenda.next(now), None);
        agenda.changed(AccountId(1));
        agenda.done(AccountId(1));
        assert_eq!(read(&mut agenda, now, 10), [1]);
    }

    #[test]
    fn a_round_that_takes_longer_than_its_interval_comes_to_its_end() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let mut seen = BTreeSet::new();
        for _ in 0..10 {
            agenda.round(ids(0..100));
            seen.extend(read(&mut agenda, now, 10));
        }
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_later_and_later() {
        let (mut agenda, mut now) = (Agenda::default(), Instant::now());
        let account = AccountId(1);
        assert!(agenda.failed(account, now));
        assert!(!agenda.failed(AccountId(2), now));
        agenda.succeeded(AccountId(2));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = agenda.next_retry().unwrap();
            waits.push((at - now).as_millis());
            assert_eq!(agenda.next(at - Duration::from_nanos(1)), None);
            assert_eq!(agenda.next(at), Some(account));
            agenda.failed(account, at);
            agenda.done(account);
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        agenda.succeeded(account);
        assert_eq!((agenda.next_retry(), agenda.next(now + LONGEST_RETRY)), (None, None));
        assert!(agenda.failed.is_empty() && agenda.under_way.is_empty());
    }
}
