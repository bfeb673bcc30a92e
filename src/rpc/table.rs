//! The calls of one link, in both directions: which are in progress, which wait, and what is due to whom.
//!
//! It takes frames, what callers and handlers do, and the time, and yields frames and [`Output`]s. It holds what the other side makes it
//! hold within its [`Limits`].

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::error::CallError;
use super::outbox::{Head, Key, Outbox, Side};
use super::wire::{CallHead, Code, Frame, Mode, NoFrame, PART, decode_error, encode_error};

/// Items that a peer may let us have on their way, for one stream. A peer that grants more is cut off.
const MAX_CREDIT: u32 = u16::MAX as u32;

/// Calls beyond those that may be in progress whose refusals wait to be sent. A peer that makes more is cut off.
const MAX_REFUSALS: usize = 64;

/// What a table may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Calls of the other side in progress. Further ones are answered by `Busy`.
    pub(super) calls: usize,
    /// Bytes of one body. A call with a larger one is answered by `TooLarge`; an answer with a larger one ends the link.
    pub(super) body: usize,
    /// Bytes of the requests, as far as they are larger than a part, of all calls of the other side in progress. Calls beyond it are
    /// answered by `Busy`.
    pub(super) bodies: usize,
    /// Calls of this side that wait until the other side has a place. Further ones fail with `Busy`.
    pub(super) waiting: usize,
}

/// What a body counts of [`Limits::bodies`]: small ones are bounded by the number of calls.
fn counted(bytes: usize) -> usize {
    if bytes > PART { bytes } else { 0 }
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// A call has come in: ask for a handler.
    Start(Start),
    /// The other side has given the call up: drop its handler.
    Stop { number: u32 },
    /// The handler may send so many further items.
    Credit { number: u32, items: u16 },
    /// The caller gets an item.
    Item { number: u32, body: Bytes },
    /// The caller gets the end of its call.
    End { number: u32, result: Result<Bytes, CallError> },
}

/// A call of the other side.
#[derive(Debug, PartialEq)]
pub(super) struct Start {
    pub(super) number: u32,
    pub(super) head: CallHead,
    pub(super) body: Bytes,
}

/// The other side does not keep to the protocol: the link is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("{0}")]
    NoFrame(#[from] NoFrame),
    #[error("the first frame is not a hello, or a later one is")]
    Hello,
    #[error("the number of a call is in use")]
    Number,
    #[error("a body is longer than it said, or not of its turn")]
    Body,
    #[error("calls go on beyond those that may be in progress")]
    Flood,
    #[error("more items than were granted, or a grant beyond the most")]
    Credit,
    #[error("an answer to a call that was not made")]
    NotCalled,
}

/// A body of which parts are here.
#[derive(Debug)]
struct Body {
    size: usize,
    here: BytesMut,
}

impl Body {
    fn begin(size: u32, part: Bytes) -> Result<Bytes, Self> {
        let size = size as usize;
        if part.len() == size { Ok(part) } else { Err(Self { size, here: BytesMut::from(&part[..]) }) }
    }

    /// Takes a part. Returns the whole if that is it.
    fn push(&mut self, part: &[u8]) -> Result<Option<Bytes>, Violation> {
        if self.here.len() + part.len() > self.size {
            return Err(Violation::Body);
        }
        self.here.extend_from_slice(part);
        Ok((self.here.len() == self.size).then(|| std::mem::take(&mut self.here).freeze()))
    }
}

/// A message that a call of this side gets.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Item,
    Answer,
    Failure(u8),
}

/// A call of this side.
#[derive(Debug)]
struct Outgoing {
    deadline: Option<Instant>,
    size: usize,
    /// The request and its cost, while the other side has no place for it.
    waiting: Option<(CallHead, Bytes, usize)>,
    /// Items that may be on their way at most.
    credit: u16,
    /// Items that the other side may still send.
    granted: u16,
    /// Items that were consumed and not granted anew.
    consumed: u16,
    reply: Option<(Reply, Body)>,
}

/// A call of the other side.
#[derive(Debug)]
struct Incoming {
    deadline: Option<Instant>,
    size: usize,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Receiving(CallHead, Body),
    /// Its handler runs, and may send so many items.
    Running {
        credit: u32,
    },
    /// Its end waits to be sent.
    Ending,
}

/// What the other side takes: see [`Limits`].
#[derive(Debug, Clone, Copy)]
struct Remote {
    calls: usize,
    body: usize,
    bodies: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    /// What the other side takes, once it has said so.
    remote: Option<Remote>,
    next: u32,
    outgoing: HashMap<u32, Outgoing>,
    /// Of these, those that have a place at the other side, and the bytes of their requests.
    placed: usize,
    placed_bytes: usize,
    waiting: VecDeque<u32>,
    incoming: HashMap<u32, Incoming>,
    /// Bytes of the bodies of incoming calls.
    bodies: usize,
    /// Calls without a place whose refusals wait to be sent.
    refused: HashSet<u32>,
    deadlines: BTreeSet<(Instant, Key)>,
    outbox: Outbox,
    outputs: VecDeque<Output>,
    stray: u64,
    closed: bool,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            remote: None,
            next: 1,
            outgoing: HashMap::new(),
            placed: 0,
            placed_bytes: 0,
            waiting: VecDeque::new(),
            incoming: HashMap::new(),
            bodies: 0,
            refused: HashSet::new(),
            deadlines: BTreeSet::new(),
            outbox: Outbox::default(),
            outputs: VecDeque::new(),
            stray: 0,
            closed: false,
        }
    }

    /// The first frame of this side.
    pub(super) fn hello(&self) -> Frame {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let Limits { calls, body, bodies, .. } = self.limits;
        Frame::Hello { calls: number(calls), body: number(body), bodies: number(bodies) }
    }

    /// The next frame to be sent.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        let next = self.outbox.next()?;
        if let Some((Side::Called, number)) = next.ended {
            match self.incoming.remove(&number) {
                Some(call) => self.bodies -= counted(call.size),
                None => drop(self.refused.remove(&number)),
            }
        }
        Some(next.frame)
    }

    /// What is to be done next.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Room that came free: of requests and of items. See [`Outbox::take_freed`].
    pub(super) fn take_freed(&mut self) -> (usize, usize) {
        self.outbox.take_freed()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether frames wait to be sent.
    pub(super) fn has_frames(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether this side calls nobody.
    pub(super) fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.outbox.is_empty()
    }

    /// Frames that were skipped because their call is over, or never was.
    pub(super) fn stray(&self) -> u64 {
        self.stray
    }

    // Calls of this side.

    /// Begins a call. `items` is the credit of a stream, `cost` what the body takes of the room for requests, which this gives back
    /// with what is freed, also where it fails.
    pub(super) fn call(
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
    pub(super) fn cancel(&mut self, number: u32) {
        if self.outgoing.contains_key(&number) {
            self.give_up(number);
            self.place_waiting();
        }
    }

    /// The application has taken an item.
    pub(super) fn consumed(&mut self, number: u32) {
        let Some(call) = self.outgoing.get_mut(&number) else { return };
        call.consumed += 1;
        if 2 * u32::from(call.consumed) >= u32::from(call.credit) {
            let items = std::mem::take(&mut call.consumed);
            call.granted += items;
            self.outbox.push((Side::Caller, number), Head::Credit(items), Bytes::new(), 0);
        }
    }

    /// Sends requests as long as the other side has places. Small ones pass large ones that have to wait for those before.
    fn place_waiting(&mut self) {
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
    fn remove_outgoing(&mut self, number: u32) -> bool {
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
    fn give_up(&mut self, number: u32) {
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

    // Calls of the other side.

    /// The handler of a call sends an item. Returns whether there still is that call, and a grant; `cost` is given back in any case.
    pub(super) fn item(&mut self, number: u32, body: Bytes, cost: usize) -> bool {
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
    pub(super) fn answer(&mut self, number: u32, result: Result<Bytes, CallError>) {
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
    pub(super) fn ignore(&mut self, number: u32) {
        if let Some(call) = self.incoming.remove(&number) {
            self.bodies -= counted(call.size);
            self.forget_deadline(Side::Called, number, call.deadline);
            self.outbox.forget((Side::Called, number));
        }
    }

    /// The most bytes of a body that the other side takes.
    pub(super) fn most_to_send(&self) -> usize {
        self.remote.map_or(0, |remote| remote.body)
    }

    /// Ends all calls of the other side.
    pub(super) fn stop_serving(&mut self) {
        let mut numbers: Vec<u32> = self.incoming.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.stop(number);
            self.answer(number, Err(CallError::Closed));
        }
    }

    /// Has the handler of a call dropped, if it runs.
    fn stop(&mut self, number: u32) {
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

    // Time, and the end.

    /// Ends the calls whose time is over.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, (side, number))) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            match side {
                Side::Caller => {
                    let error = if self.remote.is_some() { CallError::TimedOut } else { CallError::Unsupported };
                    self.give_up(number);
                    self.outputs.push_back(Output::End { number, result: Err(error) });
                    self.place_waiting();
                }
                Side::Called => {
                    self.stop(number);
                    self.answer(number, Err(CallError::TimedOut));
                }
            }
        }
    }

    /// The link is over, and so are all calls: those of which nothing was sent with this error.
    pub(super) fn close(&mut self, unsent: CallError) {
        self.closed = true;
        let mut numbers: Vec<u32> = self.outgoing.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let was_placed = self.remove_outgoing(number);
            let is_unsent = self.outbox.forget((Side::Caller, number));
            let error = if was_placed && !is_unsent { CallError::Closed } else { unsent.clone() };
            self.outputs.push_back(Output::End { number, result: Err(error) });
        }
        let mut numbers: Vec<u32> = self.incoming.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.stop(number);
            self.ignore(number);
        }
        self.outbox.clear();
    }

    fn forget_deadline(&mut self, side: Side, number: u32, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, (side, number)));
        }
    }

    // Frames.

    /// Takes a frame of the other side.
    pub(super) fn receive(&mut self, now: Instant, frame: Bytes) -> Result<(), Violation> {
        let Some(frame) = Frame::decode(frame)? else { return Ok(()) };
        match (&frame, self.remote) {
            (Frame::Hello { calls, body, bodies }, None) => {
                let (calls, body, bodies) = (*calls as usize, *body as usize, *bodies as usize);
                self.remote = Some(Remote { calls, body, bodies });
                self.place_waiting();
                return Ok(());
            }
            (Frame::Hello { .. }, Some(_)) | (_, None) => return Err(Violation::Hello),
            _ => {}
        }
        match frame {
            Frame::Hello { .. } => Ok(()),
            Frame::Call { number, head, size, part } => self.called(now, number, head, size, part),
            Frame::Request { number, part } => self.requested(number, &part),
            Frame::Cancel { number } => {
                if self.incoming.contains_key(&number) {
                    self.stop(number);
                    self.ignore(number);
                } else {
                    self.stray += 1;
                }
                Ok(())
            }
            Frame::Credit { number, items } => self.credited(number, items),
            Frame::Item { number, size, part } => self.replied(number, Reply::Item, size, part),
            Frame::Answer { number, size, part } => self.replied(number, Reply::Answer, size, part),
            Frame::Failure { number, code, size, part } => self.replied(number, Reply::Failure(code), size, part),
            Frame::Reply { number, part } => self.replied_more(number, &part),
        }
    }

    fn called(&mut self, now: Instant, number: u32, head: CallHead, size: u32, part: Bytes) -> Result<(), Violation> {
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

    fn requested(&mut self, number: u32, part: &[u8]) -> Result<(), Violation> {
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

    fn credited(&mut self, number: u32, items: u16) -> Result<(), Violation> {
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

    fn replied(&mut self, number: u32, reply: Reply, size: u32, part: Bytes) -> Result<(), Violation> {
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

    fn replied_more(&mut self, number: u32, part: &[u8]) -> Result<(), Violation> {
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

#[cfg(test)]
mod tests;
