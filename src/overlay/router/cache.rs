//! What is remembered of others, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A map of the entries that were used last: at least `max` of them, and at most twice as many.
///
/// It has two generations. What is used moves to the young one; when that is full it becomes the old one, and what was left in
/// the old one is forgotten. So nothing is sorted, and no memory is given back and taken again.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    max: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of this key, which is thereby used.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.make_room();
            self.young.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The value of this key, or a new one.
    pub(super) fn get_or_insert(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let mut kept = None;
        if !self.young.contains_key(&key) {
            kept = self.old.remove(&key);
            self.make_room();
        }
        self.young.entry(key).or_insert_with(|| kept.unwrap_or_else(new))
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if !self.young.contains_key(&key) {
            self.make_room();
        }
        self.young.insert(key, value);
    }

    /// Puts it in unless it is there, and says whether it was not.
    pub(super) fn insert_new(&mut self, key: K, value: V) -> bool {
        if self.peek(&key).is_some() {
            return false;
        }
        self.make_room();
        self.young.insert(key, value);
        true
    }

    /// The value, without using it.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn make_room(&mut self) {
        if self.young.len() >= self.max {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(10);
        for number in 0..1000 {
            cache.insert(number, number);
            assert_eq!(cache.get(&0), Some(&mut 0));
            assert!(cache.len() <= 20);
        }
        assert!((990..1000).all(|number| cache.peek(&number) == Some(&number)));
        assert_eq!(cache.get(&500), None);
        assert_eq!(*cache.get_or_insert(0, || 7), 0);
        assert_eq!(*cache.get_or_insert(500, || 7), 7);
        cache.remove(&0);
        assert_eq!(cache.peek(&0), None);
    }
}
