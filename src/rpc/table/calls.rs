//! Calls of this side.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Body, Output, Table, Violation, counted};
use crate::rpc::error::CallError;
use crate::rpc::outbox::{Head, Side};
use crate::rpc::wire::{CallHead, Mode, decode_error};

/// A message that a call of this side gets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    Item,
    Answer,
    Failure(u8),
}

/// A call of this side.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) deadline: Option<Instant>,
    pub(super) size: usize,
    /// The request and its cost, while the other side has no place for it.
    pub(super) waiting: Option<(CallHead, Bytes, usize)>,
    /// Items that may be on their way at most.
    pub(super) credit: u16,
    /// Items that the other side may still send.
    pub(super) granted: u16,
    /// Items that were consumed and not granted anew.
    pub(super) consumed: u16,
    pub(super) reply: Option<(Reply, Body)>,
}

impl Table {
    /// Begins a call. `items` is the credit of a stream, `cost` what the body takes of the room for requests, which this gives back
    /// with what is freed, also where it fails.
    pub(in crate::rpc) fn call(
        &mut self,
        now: Instant,
        (mode, module, items): (Mode, &str, u16),
        body: Bytes,
        within: Option<Duration>,
        cost: usize,
    ) -> Result<u32, CallError> {
        let refused = match self.remote {
            _ if self.closed || self.next == u32::MAX => Some(CallError::NotOpen),
            Some(remote) if body.len() > remote.body => Some(CallError::TooLarge { limit: remote.body }),
            _ if self.waiting.len() >= self.limits.waiting => Some(CallError::Busy),
            _ => None,
        };
        if let Some(error) = refused {
            self.outbox.free(Side::Caller, cost);
            return Err(error);
        }
        let number = self.next;
        self.next += 1;
        let millis = within.map_or(0, |within| u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1));
        let head = CallHead { mode, millis, items, module: module.to_owned() };
        let deadline = within.map(|within| now + within);
        self.outgoing.insert(
            number,
            Outgoing {
                deadline,
                size: body.len(),
                waiting: Some((head, body, cost)),
                credit: items,
                granted: items,
                consumed: 0,
                reply: None,
            },
        );
        self.deadlines.extend(deadline.map(|at| (at, (Side::Caller, number))));
        self.waiting.push_back(number);
        self.place_waiting();
        Ok(number)
    }

    /// Gives a call up: its end comes no more.
    pub(in crate::rpc) fn cancel(&mut self, number: u32) {
        if self.outgoing.contains_key(&number) {
            self.give_up(number);
            self.place_waiting();
        }
    }

    /// The application has taken an item.
    pub(in crate::rpc) fn consumed(&mut self, number: u32) {
        let Some(call) = self.outgoing.get_mut(&number) else { return };
        call.consumed += 1;
        if 2 * u32::from(call.consumed) >= u32::from(call.credit) {
            let items = std::mem::take(&mut call.consumed);
            call.granted += items;
            self.outbox.push((Side::Caller, number), Head::Credit(items), Bytes::new(), 0);
        }
    }

    /// Sends requests as long as the other side has places. Small ones pass large ones that have to wait for those before.
    pub(super) fn place_waiting(&mut self) {
        let Some(remote) = self.remote else { return };
        while self.placed < remote.calls {
            let fits = |number: &u32| {
                let size = self.outgoing.get(number).map_or(0, |call| call.size);
                size > remote.body || self.placed_bytes + counted(size) <= remote.bodies
            };
            let Some(number) = self.waiting.iter().position(fits).and_then(|at| self.waiting.remove(at)) else {
                return;
            };
            let Some(call) = self.outgoing.get_mut(&number) else { continue };
            let Some((head, body, cost)) = call.waiting.take() else { continue };
            self.placed += 1;
            self.placed_bytes += counted(call.size);
            if call.size > remote.body {
                self.outbox.free(Side::Caller, cost);
                self.end(number, Err(CallError::TooLarge { limit: remote.body }));
            } else {
                self.outbox.push((Side::Caller, number), Head::Call(head), body, cost);
            }
        }
    }

    /// Takes a call out of the table. Returns whether it had a place.
    pub(super) fn remove_outgoing(&mut self, number: u32) -> bool {
        let Some(call) = self.outgoing.remove(&number) else { return false };
        self.forget_deadline(Side::Caller, number, call.deadline);
        if let Some((_, _, cost)) = call.waiting {
            self.waiting.retain(|waiting| *waiting != number);
            self.outbox.free(Side::Caller, cost);
            return false;
        }
        self.placed -= 1;
        self.placed_bytes -= counted(call.size);
        true
    }

    /// Takes a call out of the table, and tells the other side if it knows of it.
    pub(super) fn give_up(&mut self, number: u32) {
        if self.remove_outgoing(number) && !self.outbox.forget((Side::Caller, number)) {
            self.outbox.push((Side::Caller, number), Head::Cancel, Bytes::new(), 0);
        }
    }

    /// Ends a call that the other side has ended.
    fn end(&mut self, number: u32, result: Result<Bytes, CallError>) {
        self.remove_outgoing(number);
        self.outbox.forget((Side::Caller, number));
        self.outputs.push_back(Output::End { number, result });
    }

    pub(super) fn replied(&mut self, number: u32, reply: Reply, size: u32, part: Bytes) -> Result<(), Violation> {
        if number >= self.next {
            return Err(Violation::NotCalled);
        }
        let Some(call) = self.outgoing.get_mut(&number) else {
            self.stray += 1;
            return Ok(());
        };
        if call.waiting.is_some() {
            return Err(Violation::NotCalled);
        }
        if call.reply.is_some() || size as usize > self.limits.body {
            return Err(Violation::Body);
        }
        if let Reply::Item = reply {
            call.granted = call.granted.checked_sub(1).ok_or(Violation::Credit)?;
        }
        match Body::begin(size, part) {
            Ok(body) => self.deliver(number, reply, body),
            Err(body) => call.reply = Some((reply, body)),
        }
        Ok(())
    }

    pub(super) fn replied_more(&mut self, number: u32, part: &[u8]) -> Result<(), Violation> {
        let Some(call) = self.outgoing.get_mut(&number) else {
            self.stray += 1;
            return Ok(());
        };
        let (reply, body) = call.reply.as_mut().ok_or(Violation::Body)?;
        let reply = *reply;
        if let Some(body) = body.push(part)? {
            call.reply = None;
            self.deliver(number, reply, body);
        }
        Ok(())
    }

    fn deliver(&mut self, number: u32, reply: Reply, body: Bytes) {
        let result = match reply {
            Reply::Item => {
                self.outputs.push_back(Output::Item { number, body });
                return;
            }
            Reply::Answer => Ok(body),
            Reply::Failure(code) => Err(decode_error(code, &body, self.limits.body)),
        };
        self.end(number, result);
        self.place_waiting();
    }
}
