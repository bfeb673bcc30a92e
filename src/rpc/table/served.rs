//! Calls of the other side.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Body, MAX_CREDIT, MAX_REFUSALS, Output, Start, Table, Violation, counted};
use crate::rpc::error::CallError;
use crate::rpc::outbox::{Head, Side};
use crate::rpc::wire::{CallHead, Code, encode_error};

/// A call of the other side.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) deadline: Option<Instant>,
    pub(super) size: usize,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Receiving(CallHead, Body),
    /// Its handler runs, and may send so many items.
    Running {
        credit: u32,
    },
    /// Its end waits to be sent.
    Ending,
}

impl Table {
    /// The handler of a call sends an item. Returns whether there still is that call, and a grant; `cost` is given back in any case.
    pub(in crate::rpc) fn item(&mut self, number: u32, body: Bytes, cost: usize) -> bool {
        if let Some(Incoming { phase: Phase::Running { credit }, .. }) = self.incoming.get_mut(&number)
            && *credit > 0
        {
            *credit -= 1;
            self.outbox.push((Side::Called, number), Head::Item, body, cost);
            return true;
        }
        self.outbox.free(Side::Called, cost);
        false
    }

    /// The handler of a call is done.
    pub(in crate::rpc) fn answer(&mut self, number: u32, result: Result<Bytes, CallError>) {
        let Some(call) = self.incoming.get_mut(&number) else { return };
        if matches!(call.phase, Phase::Ending) {
            return;
        }
        call.phase = Phase::Ending;
        let deadline = call.deadline.take();
        self.forget_deadline(Side::Called, number, deadline);
        let limit = self.most_to_send();
        let result =
            result.and_then(|body| if body.len() > limit { Err(CallError::TooLarge { limit }) } else { Ok(body) });
        let (head, body) = match result {
            Ok(body) => (Head::Answer, body),
            Err(error) => {
                let (code, body) = encode_error(&error, limit);
                (Head::Failure(code as u8), body)
            }
        };
        self.outbox.push((Side::Called, number), head, body, 0);
    }

    /// Says nothing to a call of the other side, and forgets it.
    pub(in crate::rpc) fn ignore(&mut self, number: u32) {
        if let Some(call) = self.incoming.remove(&number) {
            self.bodies -= counted(call.size);
            self.forget_deadline(Side::Called, number, call.deadline);
            self.outbox.forget((Side::Called, number));
        }
    }

    /// The most bytes of a body that the other side takes.
    pub(in crate::rpc) fn most_to_send(&self) -> usize {
        self.remote.map_or(0, |remote| remote.body)
    }

    /// Ends all calls of the other side.
    pub(in crate::rpc) fn stop_serving(&mut self) {
        let mut numbers: Vec<u32> = self.incoming.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.stop(number);
            self.answer(number, Err(CallError::Closed));
        }
    }

    /// Has the handler of a call dropped, if it runs.
    pub(super) fn stop(&mut self, number: u32) {
        if matches!(self.incoming.get(&number), Some(Incoming { phase: Phase::Running { .. }, .. })) {
            self.outputs.push_back(Output::Stop { number });
        }
    }

    /// Refuses a call that has no place in the table.
    fn refuse(&mut self, number: u32, code: Code) -> Result<(), Violation> {
        if self.refused.len() >= MAX_REFUSALS {
            return Err(Violation::Flood);
        }
        self.refused.insert(number);
        self.outbox.push((Side::Called, number), Head::Failure(code as u8), Bytes::new(), 0);
        Ok(())
    }

    pub(super) fn called(
        &mut self,
        now: Instant,
        number: u32,
        head: CallHead,
        size: u32,
        part: Bytes,
    ) -> Result<(), Violation> {
        if self.incoming.contains_key(&number) || self.refused.contains(&number) {
            return Err(Violation::Number);
        }
        let bytes = size as usize;
        if bytes > self.limits.body {
            return self.refuse(number, Code::TooLarge);
        }
        if self.incoming.len() >= self.limits.calls || self.bodies + counted(bytes) > self.limits.bodies {
            return self.refuse(number, Code::Busy);
        }
        let deadline = (head.millis > 0).then(|| now + Duration::from_millis(head.millis.into()));
        self.deadlines.extend(deadline.map(|at| (at, (Side::Called, number))));
        self.bodies += counted(bytes);
        let phase = match Body::begin(size, part) {
            Ok(body) => self.start(number, head, body),
            Err(body) => Phase::Receiving(head, body),
        };
        self.incoming.insert(number, Incoming { deadline, size: bytes, phase });
        Ok(())
    }

    pub(super) fn requested(&mut self, number: u32, part: &[u8]) -> Result<(), Violation> {
        let Some(call) = self.incoming.get_mut(&number) else {
            self.stray += 1;
            return Ok(());
        };
        let (head, body) = match &mut call.phase {
            Phase::Receiving(head, body) => match body.push(part)? {
                Some(body) => (head.clone(), body),
                None => return Ok(()),
            },
            Phase::Running { .. } => return Err(Violation::Body),
            Phase::Ending => {
                self.stray += 1;
                return Ok(());
            }
        };
        let phase = self.start(number, head, body);
        if let Some(call) = self.incoming.get_mut(&number) {
            call.phase = phase;
        }
        Ok(())
    }

    fn start(&mut self, number: u32, head: CallHead, body: Bytes) -> Phase {
        let credit = head.items.into();
        self.outputs.push_back(Output::Start(Start { number, head, body }));
        Phase::Running { credit }
    }

    pub(super) fn credited(&mut self, number: u32, items: u16) -> Result<(), Violation> {
        match self.incoming.get_mut(&number) {
            Some(Incoming { phase: Phase::Running { credit }, .. }) => {
                *credit += u32::from(items);
                if *credit > MAX_CREDIT {
                    return Err(Violation::Credit);
                }
                self.outputs.push_back(Output::Credit { number, items });
            }
            _ => self.stray += 1,
        }
        Ok(())
    }
}
