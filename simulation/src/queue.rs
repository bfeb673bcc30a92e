//! What is to happen when, in virtual time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Virtual time: microseconds since the start.
pub type Micros = u64;

/// Events, the earliest first; those of the same time in the order in which they came.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    pushed: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Micros,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    /// Adds an event.
    pub fn push(&mut self, at: Micros, event: E) {
        self.pushed += 1;
        self.heap.push(Entry { at, number: self.pushed, event });
    }

    /// Takes the next event, if it is not later than `until`.
    pub fn pop(&mut self, until: Micros) -> Option<(Micros, E)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// How many events there have been.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_first_and_of_the_same_time_the_oldest() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (3, 'a'), (9, 'd'), (3, 'b')] {
            queue.push(at, event);
        }
        let events: Vec<char> = std::iter::from_fn(|| queue.pop(8)).map(|(_, event)| event).collect();
        assert_eq!(events, ['a', 'b', 'c']);
        assert_eq!(queue.pop(9), Some((9, 'd')));
    }
}
