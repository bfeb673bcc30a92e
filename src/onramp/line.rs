//! Those who wait, and how they share the places there are. A pure machine.
//!
//! It is a tree: who waits is found by a path of keys, such as an address and then an account. At each level the keys take turns, and when
//! all places are taken, whoever has most of them gives one up for somebody who has fewer.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// All below a key. `W` tells one who waits that it is its turn; dropping it tells that it has lost its place.
pub(super) struct Line<K, W> {
    count: usize,
    /// At the end of a path: by tickets, which grow, so those who came first in front.
    waiting: VecDeque<(u64, W)>,
    parts: HashMap<K, Line<K, W>>,
    /// The keys of the parts, whose turn it is in front.
    order: VecDeque<K>,
}

impl<K, W> Default for Line<K, W> {
    fn default() -> Self {
        Self { count: 0, waiting: VecDeque::new(), parts: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, W> Line<K, W> {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn push(&mut self, path: &[K], ticket: u64, waiter: W) {
        self.count += 1;
        let Some((key, rest)) = path.split_first() else { return self.waiting.push_back((ticket, waiter)) };
        let part = self.parts.entry(*key).or_insert_with(|| {
            self.order.push_back(*key);
            Self::default()
        });
        part.push(rest, ticket, waiter);
    }

    /// Whose turn it is. It waits no longer.
    pub(super) fn pop(&mut self) -> Option<(u64, W)> {
        let next = match self.order.pop_front() {
            None => self.waiting.pop_front(),
            Some(key) => {
                let part = self.parts.get_mut(&key)?;
                let next = part.pop();
                match part.is_empty() {
                    true => drop(self.parts.remove(&key)),
                    false => self.order.push_back(key),
                }
                next
            }
        };
        self.count -= usize::from(next.is_some());
        next
    }

    /// It waits no longer, if it did.
    pub(super) fn remove(&mut self, path: &[K], ticket: u64) {
        let Some((key, rest)) = path.split_first() else {
            if let Ok(place) = self.waiting.binary_search_by_key(&ticket, |(other, _)| *other) {
                self.waiting.remove(place);
                self.count -= 1;
            }
            return;
        };
        let Some(part) = self.parts.get_mut(key) else { return };
        let before = part.count;
        part.remove(rest, ticket);
        self.count -= before - part.count;
        self.drop_empty(*key);
    }

    /// Whether there is a place for one more on this path, or is now. `bounds` are for all, and for each key of the path but the last.
    pub(super) fn make_room(&mut self, path: &[K], bounds: &[usize]) -> bool {
        let (Some((key, rest)), Some((bound, further))) = (path.split_first(), bounds.split_first()) else {
            return true;
        };
        let mut own = 0;
        if let Some(part) = self.parts.get_mut(key) {
            let before = part.count;
            if !part.make_room(rest, further) {
                return false;
            }
            own = part.count;
            self.count -= before - own;
        }
        // An only one is never taken away, and none for somebody who would then have as many.
        let most = || self.parts.values().map(|part| part.count).max();
        if self.count < *bound {
            true
        } else if most().is_some_and(|most| most > own + 1) {
            self.drop_newest();
            true
        } else {
            false
        }
    }

    /// Takes the place of who came last of those of whom there are most.
    fn drop_newest(&mut self) {
        let most = self.parts.iter().max_by_key(|(_, part)| part.count).map(|(key, _)| *key);
        match most.and_then(|key| Some((key, self.parts.get_mut(&key)?))) {
            None => drop(self.waiting.pop_back()),
            Some((key, part)) => {
                part.drop_newest();
                self.drop_empty(key);
            }
        }
        self.count -= 1;
    }

    fn drop_empty(&mut self, key: K) {
        if self.parts.get(&key).is_some_and(Self::is_empty) {
            self.parts.remove(&key);
            self.order.retain(|other| *other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Path = [u8; 2];

    fn push(line: &mut Line<u8, Path>, path: Path, bounds: &[usize], ticket: u64) -> bool {
        let may = line.make_room(&path, bounds);
        if may {
            line.push(&path, ticket, path);
        }
        may
    }

    /// All of them, in their turns.
    fn drain(line: &mut Line<u8, Path>) -> Vec<(u64, Path)> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn keys_take_turns_at_each_level() {
        let mut line = Line::default();
        for (ticket, path) in [[1, 1], [1, 1], [1, 2], [2, 1], [1, 2]].into_iter().enumerate() {
            assert!(push(&mut line, path, &[10, 10], ticket as u64));
        }
        let order: Vec<u64> = drain(&mut line).into_iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(order, [0, 3, 2, 1, 4]);
        assert!(line.is_empty());
    }

    #[test]
    fn whoever_has_most_gives_way_to_who_has_fewer() {
        let (mut line, bounds) = (Line::default(), [6, 4]);
        let mut tickets = 0..;
        let mut arrive = |line: &mut _, path| push(line, path, &bounds, tickets.next().unwrap());
        // Four places for each key: the fifth of the same path is one too many, but another part of it has its share.
        assert_eq!([1, 1, 1, 1, 1].map(|part| arrive(&mut line, [1, part])), [true, true, true, true, false]);
        assert!(arrive(&mut line, [1, 2]) && arrive(&mut line, [1, 2]) && !arrive(&mut line, [1, 2]));
        assert!(arrive(&mut line, [2, 1]) && arrive(&mut line, [2, 1]));
        // Six in all.
        assert!(arrive(&mut line, [3, 1]) && arrive(&mut line, [4, 1]), "of four two are given up");
        assert!(!arrive(&mut line, [1, 1]));
        for key in 5..7 {
            assert!(arrive(&mut line, [key, 1]));
        }
        assert!(!arrive(&mut line, [9, 1]) && !arrive(&mut line, [3, 1]), "each has one");
        let left: Vec<Path> = drain(&mut line).into_iter().map(|(_, path)| path).collect();
        assert_eq!(left.iter().map(|path| path[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    }

    proptest! {
        /// Whatever comes and goes: it counts right, keeps nothing of those who are gone, and whoever has one place keeps it.
        #[test]
        fn it_comes_out_even(
            bounds in [1..8_usize, 1..8_usize],
            steps in prop::collection::vec((0..4_u8, 0..3_u8, 0..4_u8), 0..200),
        ) {
            let mut line = Line::default();
            let mut tickets = 0..;
            for (outer, inner, what) in steps {
                let path = [outer, inner];
                let count = |line: &Line<u8, Path>, key| line.parts.get(&key).map_or(0, |part| part.count);
                let before: Vec<usize> = (0..4).map(|key| count(&line, key)).collect();
                match what {
                    0 => drop(line.pop()),
                    1 => {
                        let first = line.parts.get(&outer).and_then(|part| part.parts.get(&inner)?.waiting.front());
                        let ticket = first.map_or(u64::MAX, |first| first.0);
                        line.remove(&path, ticket);
                    }
                    _ => {
                        let was_let_in = push(&mut line, path, &bounds, tickets.next().unwrap());
                        let total: usize = before.iter().sum();
                        let has_room = total < bounds[0] && before[usize::from(outer)] < bounds[1];
                        prop_assert!(was_let_in || !has_room);
                        prop_assert!((0..4).all(|key| count(&line, key) >= before[usize::from(key)].min(1)));
                    }
                }
                let sum: usize = line.parts.values().map(|part| part.count).sum();
                prop_assert_eq!((line.count, line.order.len()), (sum, line.parts.len()));
                prop_assert!(line.count <= bounds[0] && line.parts.values().all(|part| part.count <= bounds[1]));
            }
            let count = line.count;
            prop_assert_eq!(drain(&mut line).len(), count);
            prop_assert!(line.is_empty() && line.order.is_empty() && line.parts.is_empty());
        }
    }
}
