//! Whose password is hashed next. A pure machine.
//!
//! Attempts are of three standings, and each has a line of its own. Within one, addresses take turns: whoever comes waits for about one
//! password of each address that waits there, however many it sends.

use std::collections::{HashMap, VecDeque};

use super::attempts::Source;

/// What is known of an attempt before its password is checked. The best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// One has logged in to this account from there.
    Known,
    /// Nothing is.
    New,
    /// There were wrong passwords for the account or from the address, not long ago.
    Suspect,
}

/// How many attempts there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// That are hashed. Each standing may have so many, but those that are not known only on cores that nobody else uses, beyond the first.
    pub(super) hashing: usize,
    /// Of each standing, from one address, those that wait included.
    pub(super) for_each_address: usize,
    /// Of each standing.
    pub(super) in_all: usize,
}

/// The attempts that are under way. `W` tells one that it is its turn.
pub(super) struct Turns<W> {
    bounds: Bounds,
    lines: [Line<W>; 3],
    /// New attempts fail often: a core is left to those who are known.
    is_alarmed: bool,
    last: u64,
}

struct Line<W> {
    total: usize,
    hashing: usize,
    present: HashMap<Source, Present<W>>,
    /// Those of whom an attempt waits, each once, the next one first.
    order: VecDeque<Source>,
}

/// The attempts of an address.
struct Present<W> {
    count: usize,
    waiting: VecDeque<(u64, W)>,
}

impl<W> Turns<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let line = || Line { total: 0, hashing: 0, present: HashMap::new(), order: VecDeque::new() };
        Self { bounds, lines: [line(), line(), line()], is_alarmed: false, last: 0 }
    }

    pub(super) fn set_alarmed(&mut self, is_alarmed: bool) {
        self.is_alarmed = is_alarmed;
    }

    /// An attempt begins, unless there are too many. It must [leave](Self::leave).
    pub(super) fn enter(&mut self, standing: Standing, from: Source) -> bool {
        let Bounds { for_each_address, in_all, .. } = self.bounds;
        let line = &self.lines[standing as usize];
        let count = line.present.get(&from).map_or(0, |present| present.count);
        let may = line.total < in_all && count < for_each_address;
        if may {
            self.enter_anyway(standing, from);
        }
        may
    }

    pub(super) fn enter_anyway(&mut self, standing: Standing, from: Source) {
        let line = &mut self.lines[standing as usize];
        line.total += 1;
        line.present.entry(from).or_insert_with(|| Present { count: 0, waiting: VecDeque::new() }).count += 1;
    }

    /// An attempt that has entered waits for its turn. Returns by what it is known.
    pub(super) fn wait(&mut self, standing: Standing, from: Source, waiter: W) -> u64 {
        self.last += 1;
        let line = &mut self.lines[standing as usize];
        if let Some(present) = line.present.get_mut(&from) {
            if present.waiting.is_empty() {
                line.order.push_back(from);
            }
            present.waiting.push_back((self.last, waiter));
        }
        self.last
    }

    /// An attempt is over or given up. `waits` is what [`wait`](Self::wait) has returned, if it has waited.
    pub(super) fn leave(&mut self, standing: Standing, from: Source, waits: Option<u64>) {
        let line = &mut self.lines[standing as usize];
        let Some(present) = line.present.get_mut(&from) else { return };
        let place = waits.map(|ticket| present.waiting.iter().position(|(other, _)| *other == ticket));
        match place {
            // It has not waited yet.
            None => {}
            // It has had its turn.
            Some(None) => line.hashing -= 1,
            Some(Some(place)) => {
                present.waiting.remove(place);
                if present.waiting.is_empty() {
                    line.order.retain(|other| *other != from);
                }
            }
        }
        line.total -= 1;
        present.count -= 1;
        if present.count == 0 {
            line.present.remove(&from);
        }
    }

    /// Whose turn it is now, if anybody's. It is hashed from now on, until it leaves.
    pub(super) fn next(&mut self) -> Option<W> {
        [Standing::Known, Standing::New, Standing::Suspect].into_iter().find_map(|standing| {
            let may = self.may_hash(standing);
            may.then(|| self.lines[standing as usize].next())?
        })
    }

    fn may_hash(&self, standing: Standing) -> bool {
        let all = self.bounds.hashing;
        let own = self.lines[standing as usize].hashing;
        let share = match standing {
            Standing::Known => return own < all,
            Standing::New if self.is_alarmed => all - 1,
            Standing::New => all,
            Standing::Suspect => all / 4,
        };
        let in_all: usize = self.lines.iter().map(|line| line.hashing).sum();
        // The first may always, or whoever keeps the cores busy would shut the others out.
        own == 0 || own < share && in_all < all
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.total == 0 && line.present.is_empty() && line.order.is_empty())
    }
}

impl<W> Line<W> {
    fn next(&mut self) -> Option<W> {
        let from = self.order.pop_front()?;
        let present = self.present.get_mut(&from)?;
        let (_, waiter) = present.waiting.pop_front()?;
        if !present.waiting.is_empty() {
            self.order.push_back(from);
        }
        self.hashing += 1;
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::Standing::{Known, New, Suspect};
    use super::*;

    fn source(number: u32) -> Source {
        std::net::IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn turns(hashing: usize) -> Turns<(Standing, u32, u64)> {
        Turns::new(Bounds { hashing, for_each_address: 1000, in_all: 1000 })
    }

    impl Turns<(Standing, u32, u64)> {
        fn arrive(&mut self, standing: Standing, from: u32) -> u64 {
            assert!(self.enter(standing, source(from)));
            let ticket = self.last + 1;
            self.wait(standing, source(from), (standing, from, ticket))
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
        turns.leave(Known, source(7), Some(first));
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
            turns.leave(New, source(from), Some(ticket));
            let (_, from, ticket) = turns.next().unwrap();
            order.push(from);
            at_work = (from, ticket);
        }
        assert_eq!(order, [1, 2, 3, 1, 1]);
    }

    #[test]
    fn there_are_so_many_for_an_address_and_of_each_standing() {
        let mut turns: Turns<()> = Turns::new(Bounds { hashing: 1, for_each_address: 2, in_all: 3 });
        let [a, b, c] = [1, 2, 3].map(source);
        assert!(turns.enter(New, a) && turns.enter(New, a) && !turns.enter(New, a));
        assert!(turns.enter(New, b) && !turns.enter(New, c));
        assert!(turns.enter(Suspect, a) && turns.enter(Known, a) && turns.enter(Known, c));
        turns.leave(New, b, None);
        assert!(turns.enter(New, c));
        turns.enter_anyway(New, c);
    }

    proptest! {
        /// Whatever comes, waits, and is given up at any time: nothing is kept of those who are gone, and nobody waits for nothing.
        #[test]
        fn it_comes_out_even(
            hashing in 1..5_usize,
            steps in prop::collection::vec((0..3_usize, 0..4_u32, any::<u16>(), any::<bool>()), 0..200),
        ) {
            let mut turns = turns(hashing);
            let mut here: Vec<(Standing, u32, u64)> = Vec::new();
            let mut at_work: Vec<u64> = Vec::new();
            for (standing, from, pick, leaves) in steps {
                let standing = [Known, New, Suspect][standing];
                turns.set_alarmed(pick % 2 == 0);
                if leaves && !here.is_empty() {
                    let (standing, from, ticket) = here.swap_remove(usize::from(pick) % here.len());
                    at_work.retain(|other| *other != ticket);
                    turns.leave(standing, source(from), Some(ticket));
                } else {
                    here.push((standing, from, turns.arrive(standing, from)));
                }
                at_work.extend(std::iter::from_fn(|| turns.next()).map(|(.., ticket)| ticket));
                let counted: usize = turns.lines.iter().map(|line| line.hashing).sum();
                prop_assert_eq!(counted, at_work.len());
                prop_assert!(here.len() == at_work.len() || !at_work.is_empty());
                for standing in [Known, New, Suspect] {
                    let waits = !turns.lines[standing as usize].order.is_empty();
                    prop_assert!(!waits || turns.lines[standing as usize].hashing > 0, "each standing goes on");
                }
            }
            for (standing, from, ticket) in here {
                turns.leave(standing, source(from), Some(ticket));
            }
            prop_assert!(turns.is_empty());
        }
    }
}
