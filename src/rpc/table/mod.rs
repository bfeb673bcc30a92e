//! The calls of one link, in both directions: which are in progress, which wait, and what is due to whom.
//!
//! It takes frames, what callers and handlers do, and the time, and yields frames and [`Output`]s. It holds what the other side makes it
//! hold within its [`Limits`].
//!
//! - `calls`: those of this side
//! - `served`: those of the other side

mod calls;
mod served;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use self::calls::{Outgoing, Reply};
use self::served::Incoming;
use super::error::CallError;
use super::outbox::{Key, Outbox, Side};
use super::wire::{CallHead, Frame, NoFrame, PART};

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

    /// Whether no calls are in progress either way, and nothing is left to send: no notice waits, either.
    pub(super) fn is_quiet(&self) -> bool {
        self.incoming.is_empty() && self.is_idle()
    }

    /// Frames that were skipped because their call is over, or never was.
    pub(super) fn stray(&self) -> u64 {
        self.stray
    }

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
}
