//! Whose password is hashed next. A pure machine.
//!
//! Attempts are of several standings, and each has a [`Line`] of its own. In that of those who are known accounts share the places and
//! take turns, and the addresses of an account do; in the others, where anybody can name any account, addresses do, and the accounts that
//! are tried from one.

use std::collections::HashSet;

use super::attempts::{Network, Source};
use super::store::Digest;
use crate::onramp::line::Line;

/// What is known of an attempt before its password is checked. The best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is the program's own. There may be any number.
    Own,
    /// One has logged in to this account from there.
    Known,
    /// Nothing is.
    New,
    /// There were wrong passwords for the account or from the address, not long ago.
    Suspect,
    /// There were so many for the account that this one has to wait before it is a suspect.
    Delayed,
}

/// How many attempts there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// That are hashed. Each standing may have so many, but those that are not known only on cores that nobody else uses, beyond the first.
    pub(super) hashing: usize,
    /// That wait, of each standing: from one address, and for one account.
    pub(super) for_each: usize,
    /// That wait, of each standing.
    pub(super) in_all: usize,
}

/// One who tries: of which standing, for which account and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    pub(super) standing: Standing,
    pub(super) account: Digest,
    pub(super) from: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Account(Digest),
    Address(Source),
    Network(Network),
}

/// The attempts that are under way. `W` tells one that it is its turn; dropping it tells that it has lost its place.
pub(super) struct Turns<W> {
    bounds: Bounds,
    lines: [Line<Key, W>; 5],
    /// Those whose passwords are hashed, of each standing.
    hashing: [HashSet<u64>; 5],
    /// New attempts fail often: a core is left to those who are known.
    is_alarmed: bool,
    last: u64,
}

impl Who {
    fn path(self) -> [Key; 3] {
        let Self { standing, account, from } = self;
        let (account, address) = (Key::Account(account), Key::Address(from));
        let network = from.network().map_or(address, Key::Network);
        match standing {
            Standing::Own | Standing::Known => [account, network, address],
            Standing::New | Standing::Suspect | Standing::Delayed => [network, address, account],
        }
    }
}

impl Bounds {
    /// For the keys of a path, see [`Line::make_room`].
    fn of(self, standing: Standing) -> [usize; 3] {
        let Self { for_each, in_all, .. } = self;
        match standing {
            Standing::Own => [usize::MAX; 3],
            Standing::Known => [in_all, for_each, for_each],
            Standing::New | Standing::Suspect | Standing::Delayed => [in_all, in_all, for_each],
        }
    }
}

impl<W> Turns<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (lines, hashing) = ([(); 5].map(|()| Line::default()), Default::default());
        Self { bounds, lines, hashing, is_alarmed: false, last: 0 }
    }

    pub(super) fn is_alarmed(&self) -> bool {
        self.is_alarmed
    }

    pub(super) fn set_alarmed(&mut self, is_alarmed: bool) {
        self.is_alarmed = is_alarmed;
    }

    /// An attempt waits for its turn, if there is a place or somebody who has many gives one up. It must [leave](Self::leave) by the
    /// ticket that is returned.
    pub(super) fn enter(&mut self, who: Who, waiter: W) -> Option<u64> {
        let (line, path) = (&mut self.lines[who.standing as usize], who.path());
        line.make_room(&path, &self.bounds.of(who.standing)).then(|| {
            self.last += 1;
            line.push(&path, self.last, waiter);
            self.last
        })
    }

    /// An attempt is over, given up, or has lost its place.
    pub(super) fn leave(&mut self, who: Who, ticket: u64) {
        if !self.hashing[who.standing as usize].remove(&ticket) {
            self.lines[who.standing as usize].remove(&who.path(), ticket);
        }
    }

    /// Whose turn it is now, if anybody's. It is hashed from now on, until it leaves.
    pub(super) fn next(&mut self) -> Option<W> {
        [Standing::Own, Standing::Known, Standing::New, Standing::Suspect].into_iter().find_map(|standing| {
            if !self.may_hash(standing) {
                return None;
            }
            let (ticket, waiter) = self.lines[standing as usize].pop()?;
            self.hashing[standing as usize].insert(ticket);
            Some(waiter)
        })
    }

    fn may_hash(&self, standing: Standing) -> bool {
        let all = self.bounds.hashing;
        let of = |standing: Standing| self.hashing[standing as usize].len();
        let own = of(standing);
        let share = match standing {
            Standing::Own | Standing::Known => return own == 0 || of(Standing::Own) + of(Standing::Known) < all,
            Standing::New if self.is_alarmed => all - 1,
            Standing::New => all,
            Standing::Suspect => all / 4,
            Standing::Delayed => return false,
        };
        let in_all: usize = self.hashing.iter().map(HashSet::len).sum();
        // The first may always, or whoever keeps the cores busy would shut the others out.
        own == 0 || own < share && in_all < all
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(Line::is_empty) && self.hashing.iter().all(HashSet::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::Standing::{Delayed, Known, New, Own, Suspect};
    use super::*;

    type Waiter = (Standing, u32, u64);

    fn who(standing: Standing, from: u32) -> Who {
        Who {
            standing,
            account: Digest([from as u8; 32]),
            from: std::net::IpAddr::from(Ipv4Addr::from_bits(from)).into(),
        }
    }

    fn turns(hashing: usize) -> Turns<Waiter> {
        Turns::new(Bounds { hashing, for_each: 1000, in_all: 1000 })
    }

    impl Turns<Waiter> {
        fn arrive(&mut self, standing: Standing, from: u32) -> u64 {
            let ticket = self.last + 1;
            assert_eq!(self.enter(who(standing, from), (standing, from, ticket)), Some(ticket));
            ticket
        }

        /// Who is hashed now that was not before.
        fn begin(&mut self) -> Vec<(Standing, u32)> {
            std::iter::from_fn(|| self.next()).map(|(standing, from, _)| (standing, from)).collect()
        }
    }

    #[test]
    fn those_who_are_known_wait_for_nobody_else() {
        let mut turns = turns(2);
        for from in 0..50 {
            turns.arrive(New, from);
            turns.arrive(Suspect, 100 + from);
        }
        assert_eq!(turns.begin(), [(New, 0), (New, 1), (Suspect, 100)]);
        let first = turns.arrive(Known, 7);
        turns.arrive(Known, 7);
        assert_eq!(turns.begin(), [(Known, 7), (Known, 7)]);
        turns.arrive(Known, 8);
        assert_eq!(turns.begin(), []);
        turns.leave(who(Known, 7), first);
        assert_eq!(turns.begin(), [(Known, 8)]);
    }

    #[test]
    fn suspects_have_one_core_of_few_and_new_ones_the_others() {
        let mut turns = turns(4);
        for from in 0..50 {
            turns.arrive(Suspect, from);
        }
        assert_eq!(turns.begin(), [(Suspect, 0)]);
        for from in 100..150 {
            turns.arrive(New, from);
        }
        assert_eq!(turns.begin(), [(New, 100), (New, 101), (New, 102)]);
    }

    #[test]
    fn new_ones_that_fail_often_leave_a_core() {
        let mut turns = turns(4);
        turns.set_alarmed(true);
        for from in 0..50 {
            turns.arrive(New, from);
        }
        assert_eq!(turns.begin().len(), 3);
        turns.arrive(Known, 1);
        assert_eq!(turns.begin(), [(Known, 1)]);
        turns.set_alarmed(false);
        assert_eq!(turns.begin(), [], "no core is free");
        // And one is always left to them.
        let mut turns = self::turns(1);
        turns.set_alarmed(true);
        turns.arrive(New, 0);
        turns.arrive(Suspect, 0);
        assert_eq!(turns.begin(), [(New, 0), (Suspect, 0)]);
    }

    #[test]
    fn whoever_keeps_the_cores_busy_shuts_nobody_out() {
        let mut turns = turns(2);
        for from in 0..10 {
            turns.arrive(Known, from);
        }
        assert_eq!(turns.begin().len(), 2);
        turns.arrive(New, 20);
        turns.arrive(New, 21);
        turns.arrive(Suspect, 22);
        assert_eq!(turns.begin(), [(New, 20), (Suspect, 22)]);
    }

    #[test]
    fn addresses_take_turns() {
        let mut turns = turns(1);
        let crowd: Vec<u64> = (0..50).map(|_| turns.arrive(New, 1)).collect();
        assert_eq!(turns.begin(), [(New, 1)]);
        turns.arrive(New, 2);
        turns.arrive(New, 3);
        let (mut order, mut at_work) = (Vec::new(), (1, crowd[0]));
        for _ in 0..5 {
            let (from, ticket) = at_work;
            turns.leave(who(New, from), ticket);
            let (_, from, ticket) = turns.next().unwrap();
            order.push(from);
            at_work = (from, ticket);
        }
        assert_eq!(order, [1, 2, 3, 1, 1]);
    }

    #[test]
    fn there_are_so_many_from_an_address_and_of_each_standing() {
        let mut turns = Turns::new(Bounds { hashing: 1, for_each: 2, in_all: 3 });
        let mut enter = |standing, from| turns.enter(who(standing, from), ()).is_some();
        assert!(enter(New, 1) && enter(New, 1) && !enter(New, 1));
        assert!(enter(New, 2) && enter(New, 3), "the first address has two");
        assert!(!enter(New, 4));
        assert!(enter(Suspect, 1) && enter(Known, 1) && enter(Known, 3) && enter(Delayed, 1));
        assert!((0..10).all(|_| enter(Own, 1)));
    }

    /// Nobody can be known at many accounts but who has them, and it costs nothing to name one that is not known.
    #[test]
    fn accounts_share_where_they_are_known_and_addresses_elsewhere() {
        let at = |standing, account, from| Who { account: Digest([account; 32]), ..who(standing, from) };
        for (standing, has_a_place) in [(Known, true), (New, false), (Suspect, false), (Delayed, false)] {
            let mut turns = Turns::new(Bounds { hashing: 1, for_each: 100, in_all: 100 });
            assert!((0..100).all(|from| turns.enter(at(standing, 1, from), ()).is_some()));
            assert_eq!(turns.enter(at(standing, 2, 500), ()).is_some(), has_a_place, "one account, many addresses");
            let mut turns = Turns::new(Bounds { hashing: 1, for_each: 100, in_all: 100 });
            assert!((0..100).all(|account| turns.enter(at(standing, account, 1), ()).is_some()));
            assert_eq!(turns.enter(at(standing, 200, 2), ()).is_some(), !has_a_place, "one address, many accounts");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let from = |text: &str| Who { from: text.parse::<std::net::IpAddr>().unwrap().into(), ..who(New, 0) };
        let mut turns = Turns::new(Bounds { hashing: 1, for_each: 100, in_all: 100 });
        assert!((0..100).all(|number| turns.enter(from(&format!("2001:db8:1:{number}::1")), 1).is_some()));
        assert!(turns.enter(from("2001:db8:2::1"), 2).is_some());
        assert_eq!((turns.next(), turns.next()), (Some(1), None));
        turns.leave(from("2001:db8:1:0::1"), 1);
        assert_eq!(turns.next(), Some(2));
    }

    #[test]
    fn whoever_loses_the_place_takes_nothing_away_by_leaving() {
        let mut turns = Turns::new(Bounds { hashing: 1, for_each: 2, in_all: 2 });
        let [first, second, third] = [1, 1, 2].map(|from| turns.enter(who(New, from), from).unwrap());
        turns.leave(who(New, 1), second);
        assert_eq!(turns.next(), Some(1));
        turns.leave(who(New, 1), first);
        assert_eq!(turns.next(), Some(2));
        turns.leave(who(New, 2), third);
        assert!(turns.is_empty());
    }

    #[test]
    fn whoever_is_delayed_has_no_turn() {
        let mut turns = turns(2);
        let ticket = turns.arrive(Delayed, 1);
        assert_eq!(turns.begin(), []);
        turns.leave(who(Delayed, 1), ticket);
        assert!(turns.is_empty());
    }

    proptest! {
        /// Whatever comes, waits, and is given up at any time: nothing is kept of those who are gone, and nobody waits for nothing.
        #[test]
        fn it_comes_out_even(
            hashing in 1..5_usize,
            steps in prop::collection::vec((0..4_usize, 0..4_u32, any::<u16>(), any::<bool>()), 0..200),
        ) {
            let mut turns = turns(hashing);
            let mut here: Vec<(Standing, u32, u64)> = Vec::new();
            let mut at_work: Vec<u64> = Vec::new();
            for (standing, from, pick, leaves) in steps {
                let standing = [Own, Known, New, Suspect][standing];
                turns.set_alarmed(pick % 2 == 0);
                if leaves && !here.is_empty() {
                    let (standing, from, ticket) = here.swap_remove(usize::from(pick) % here.len());
                    at_work.retain(|other| *other != ticket);
                    turns.leave(who(standing, from), ticket);
                } else {
                    here.push((standing, from, turns.arrive(standing, from)));
                }
                at_work.extend(std::iter::from_fn(|| turns.next()).map(|(.., ticket)| ticket));
                let counted: usize = turns.hashing.iter().map(HashSet::len).sum();
                prop_assert_eq!(counted, at_work.len());
                prop_assert!(here.len() == at_work.len() || !at_work.is_empty());
                for standing in [Own, Known, New, Suspect] {
                    let is_idle = turns.hashing[standing as usize].is_empty();
                    prop_assert!(!is_idle || turns.lines[standing as usize].is_empty(), "each standing goes on");
                }
            }
            for (standing, from, ticket) in here {
                turns.leave(who(standing, from), ticket);
            }
            prop_assert!(turns.is_empty());
        }
    }
}
