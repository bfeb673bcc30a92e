//! What waits to be sent on a link: calls take turns, part by part, so small ones do not wait for large ones, nor large ones for ever.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::wire::{CallHead, Frame, PART};

/// Which part this side has in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    Caller,
    Called,
}

/// A call: its number, and who numbered it.
pub(super) type Key = (Side, u32);

/// What a message begins with.
#[derive(Debug, Clone)]
pub(super) enum Head {
    Call(CallHead),
    Cancel,
    Credit(u16),
    Item,
    Answer,
    Failure(u8),
}

#[derive(Debug)]
struct Message {
    head: Head,
    /// What is not sent yet.
    body: Bytes,
    begun: bool,
    cost: usize,
}

/// The messages of all calls that wait. What bounds them is up to the table.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Calls by their next message, in the order of their turns, see [`class`].
    turns: [VecDeque<Key>; 3],
    /// Whether a small message had the last turn.
    small: bool,
    messages: HashMap<Key, VecDeque<Message>>,
    freed: (usize, usize),
}

/// A frame to be sent.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) frame: Frame,
    /// The call that has nothing more to send after it, because this is the end of its answer.
    pub(super) ended: Option<Key>,
}

/// First, or the other side would see a call in the place of one of whose end it does not know yet.
const CONTROL: usize = 0;
/// What fits into one frame: takes turns with what does not.
const SMALL: usize = 1;
const LARGE: usize = 2;

fn class(head: &Head, bytes: usize) -> usize {
    match head {
        Head::Cancel | Head::Credit(_) => CONTROL,
        _ if bytes <= PART => SMALL,
        _ => LARGE,
    }
}

impl Outbox {
    /// Queues a message. `cost` is the room it takes from its side.
    pub(super) fn push(&mut self, key: Key, head: Head, body: Bytes, cost: usize) {
        let messages = self.messages.entry(key).or_default();
        if messages.is_empty() {
            self.turns[class(&head, body.len())].push_back(key);
        }
        messages.push_back(Message { head, body, begun: false, cost });
    }

    /// The frame whose turn it is.
    pub(super) fn next(&mut self) -> Option<Next> {
        let key = self.take_turn()?;
        let messages = self.messages.get_mut(&key)?;
        let message = messages.front_mut()?;
        let size = message.body.len() as u32;
        let part = message.body.split_to(message.body.len().min(PART));
        let begun = std::mem::replace(&mut message.begun, true);
        let number = key.1;
        let frame = match (&message.head, begun) {
            (Head::Call(_), true) => Frame::Request { number, part },
            (_, true) => Frame::Reply { number, part },
            (Head::Call(head), false) => Frame::Call { number, head: head.clone(), size, part },
            (Head::Cancel, false) => Frame::Cancel { number },
            (Head::Credit(items), false) => Frame::Credit { number, items: *items },
            (Head::Item, false) => Frame::Item { number, size, part },
            (Head::Answer, false) => Frame::Answer { number, size, part },
            (Head::Failure(code), false) => Frame::Failure { number, code: *code, size, part },
        };
        let mut ended = None;
        if message.body.is_empty()
            && let Some(sent) = messages.pop_front()
        {
            ended = matches!(sent.head, Head::Answer | Head::Failure(_)).then_some(key);
            self.free(key.0, sent.cost);
        }
        match self.messages.get(&key).and_then(VecDeque::front) {
            Some(next) if next.begun => self.turns[LARGE].push_back(key),
            Some(next) => self.turns[class(&next.head, next.body.len())].push_back(key),
            None => drop(self.messages.remove(&key)),
        }
        Some(Next { frame, ended })
    }

    /// The call whose turn it is.
    fn take_turn(&mut self) -> Option<Key> {
        if let Some(key) = self.turns[CONTROL].pop_front() {
            return Some(key);
        }
        self.small = if self.small { self.turns[LARGE].is_empty() } else { !self.turns[SMALL].is_empty() };
        self.turns[if self.small { SMALL } else { LARGE }].pop_front()
    }

    /// Forgets what a call still has to send. Returns whether its request was among it, with nothing of it sent.
    pub(super) fn forget(&mut self, key: Key) -> bool {
        let Some(messages) = self.messages.remove(&key) else { return false };
        for turns in &mut self.turns {
            turns.retain(|turn| *turn != key);
        }
        self.free(key.0, messages.iter().map(|message| message.cost).sum());
        messages.front().is_some_and(|message| matches!(message.head, Head::Call(_)) && !message.begun)
    }

    /// Gives room back.
    pub(super) fn free(&mut self, side: Side, cost: usize) {
        match side {
            Side::Caller => self.freed.0 += cost,
            Side::Called => self.freed.1 += cost,
        }
    }

    /// How much room came free since this was asked: of what this side calls for, and of what it answers.
    pub(super) fn take_freed(&mut self) -> (usize, usize) {
        std::mem::take(&mut self.freed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let keys: Vec<Key> = self.messages.keys().copied().collect();
        for key in keys {
            self.forget(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::wire::Mode;

    #[test]
    fn a_small_call_has_its_turn_among_the_parts_of_a_large_one() {
        let mut outbox = Outbox::default();
        let head = || Head::Call(CallHead { mode: Mode::Call, millis: 0, items: 0, module: "m".into() });
        outbox.push((Side::Caller, 1), head(), vec![0; 3 * PART].into(), 5);
        outbox.push((Side::Caller, 2), head(), Bytes::from_static(b"2"), 7);
        let mut sent = Vec::new();
        let mut freed = Vec::new();
        while let Some(next) = outbox.next() {
            sent.push(next.frame);
            freed.push(outbox.take_freed().0);
        }
        assert!(matches!(&sent[0], Frame::Call { number: 2, size: 1, .. }));
        assert!(matches!(&sent[1], Frame::Call { number: 1, part, .. } if part.len() == PART));
        assert!(matches!(&sent[2..], [Frame::Request { number: 1, .. }, Frame::Request { number: 1, .. }]));
        assert_eq!(freed, [7, 0, 0, 5]);
        // Nor does a large one wait for many small ones, or the end of a call for anything.
        outbox.push((Side::Caller, 3), head(), vec![0; 2 * PART].into(), 0);
        for number in 4..9 {
            outbox.push((Side::Caller, number), head(), Bytes::new(), 0);
        }
        outbox.push((Side::Caller, 9), Head::Cancel, Bytes::new(), 0);
        let order: Vec<_> = std::iter::from_fn(|| outbox.next())
            .map(|next| match next.frame {
                Frame::Cancel { number } | Frame::Call { number, .. } | Frame::Request { number, .. } => number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [9, 4, 3, 5, 3, 6, 7, 8]);
    }

    #[test]
    fn what_is_forgotten_gives_its_room_back() {
        let mut outbox = Outbox::default();
        let key = (Side::Called, 1);
        outbox.push(key, Head::Item, vec![0; 2 * PART].into(), 3);
        outbox.push(key, Head::Answer, Bytes::new(), 0);
        assert!(outbox.next().is_some());
        assert!(!outbox.forget(key));
        assert_eq!(outbox.take_freed(), (0, 3));
        assert!(outbox.next().is_none() && outbox.is_empty());
    }
}
