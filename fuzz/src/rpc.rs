//! Calls: their frames, and the tables at both ends of a link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use crate::memory;

#[path = "../../src/rpc/error.rs"]
mod error;
#[path = "../../src/rpc/outbox.rs"]
mod outbox;
#[path = "../../src/rpc/table/mod.rs"]
mod table;
#[path = "../../src/rpc/wire.rs"]
mod wire;

use error::CallError;
use table::{Limits, Output, Start, Table};
use wire::{CallHead, Frame, MAX_FRAME, Mode, PART};

/// Small, so that every bound is met.
const LIMITS: Limits = Limits { calls: 3, body: 3 * PART, bodies: 4 * PART, waiting: 3 };

/// Either any bytes are read as a frame, or a table has to do with any frames, or two tables with each other.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The input is at its end: what there was has been checked.
    let _ = match input.int_in_range(0..=2) {
        Ok(0) => any_bytes(&mut input),
        Ok(1) => any_frames(&mut input),
        _ => two_tables(&mut input),
    };
}

/// What is read is written as it was, but for what later versions add to a hello, and takes no more memory.
fn any_bytes(input: &mut Unstructured<'_>) -> Result<()> {
    let code = input.arbitrary()?;
    let bytes = Bytes::copy_from_slice(input.bytes(input.len())?);
    let (frame, held) = memory::peak(|| Frame::decode(bytes.clone()));
    assert!(held <= 4096, "{held} bytes for a frame");
    if let Ok(Some(frame)) = frame {
        let written = frame.encode();
        assert!(bytes.starts_with(&written) && written.len() <= MAX_FRAME);
        assert!(bytes.len() == written.len() || matches!(frame, Frame::Hello { .. }));
    }
    // What a peer says of a failure may be anything.
    let error = wire::decode_error(code, &bytes, 100);
    let (again, body) = wire::encode_error(&error, usize::MAX);
    assert_eq!(wire::decode_error(again as u8, &body, 100), error);
    Ok(())
}

/// One end of a link, as its driver and its application have it.
struct End {
    table: Table,
    now: Instant,
    /// The calls of this side that are not over, and the items of each that are not consumed.
    calls: BTreeMap<u32, u32>,
    /// The calls of the other side that are handled here.
    running: BTreeSet<u32>,
    /// What was asked and answered by number, in bytes.
    asked: BTreeMap<u32, usize>,
    answered: BTreeMap<u32, usize>,
    /// What was taken of the room of requests and items and not given back.
    room: (usize, usize),
    /// All that this side has given the table.
    given: usize,
}

impl End {
    fn new(now: Instant) -> Self {
        Self {
            table: Table::new(LIMITS),
            now,
            calls: BTreeMap::new(),
            running: BTreeSet::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            room: (0, 0),
            given: 0,
        }
    }

    /// Something that an application does.
    fn act(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let nth =
            |numbers: Vec<u32>, input: &mut Unstructured<'_>| input.choose_index(numbers.len()).map(|n| numbers[n]);
        let (calls, running) = (self.calls.keys().copied().collect(), self.running.iter().copied().collect());
        match input.int_in_range(0..=6)? {
            0 | 1 => {
                let mode = *input.choose(&[Mode::Call, Mode::Stream, Mode::Notice])?;
                let items = if mode == Mode::Stream { input.int_in_range(1..=5)? } else { 0 };
                let within = input.arbitrary::<Option<u8>>()?.map(|millis| Duration::from_millis(millis.into()));
                let size = any_size(input)?;
                self.room.0 += size;
                self.given += size;
                // Each body can be told from all others.
                let number = self.asked.keys().last().map_or(1, |last| last + 1);
                let call = self.table.call(self.now, (mode, "m", items), body(number, size), within, size);
                if let Ok(made) = call {
                    assert_eq!(made, number, "numbers follow each other");
                    self.asked.insert(number, size);
                    self.calls.insert(number, 0);
                }
            }
            2 if !self.calls.is_empty() => {
                let number = nth(calls, input)?;
                self.calls.remove(&number);
                self.table.cancel(number);
            }
            3 if self.calls.values().any(|items| *items > 0) => {
                let unread = self.calls.iter_mut().find(|(_, items)| **items > 0);
                if let Some((number, items)) = unread {
                    *items -= 1;
                    self.table.consumed(*number);
                }
            }
            4 if !self.running.is_empty() => {
                let (number, size) = (nth(running, input)?, any_size(input)?);
                self.room.1 += size;
                self.given += size;
                if size <= self.table.most_to_send() {
                    self.table.item(number, body(number, size), size);
                } else {
                    // Its driver does not take it.
                    self.room.1 -= size;
                }
            }
            5 if !self.running.is_empty() => {
                let number = nth(running, input)?;
                self.answer(number, any_size(input)?);
            }
            _ => self.table.stop_serving(),
        }
        Ok(())
    }

    fn answer(&mut self, number: u32, size: usize) {
        assert!(self.running.remove(&number));
        self.given += size;
        self.answered.insert(number, size);
        self.table.answer(number, Ok(body(number, size)));
    }

    /// Does what the table says. Each call starts once, and ends once. `other` is who made the calls here, if it keeps to the protocol.
    fn settle(&mut self, other: Option<&Self>) {
        while let Some(output) = self.table.next_output() {
            match output {
                Output::Start(Start { number, head, body: request }) => {
                    assert!(self.running.insert(number), "{number} runs already");
                    assert!(self.running.len() <= LIMITS.calls && request.len() <= LIMITS.body);
                    if let Some(other) = other {
                        assert_eq!((request, head.module.as_str()), (body(number, other.asked[&number]), "m"));
                    }
                }
                Output::Stop { number } => assert!(self.running.remove(&number), "{number} does not run"),
                Output::Credit { number, items } => {
                    assert!(self.running.contains(&number) && (items > 0 || other.is_none()));
                }
                Output::Item { number, body: item } => {
                    *self.calls.get_mut(&number).expect("a call that is not over") += 1;
                    assert!(item.len() <= LIMITS.body);
                    assert!(other.is_none() || item == body(number, item.len()));
                }
                Output::End { number, result } => {
                    assert!(self.calls.remove(&number).is_some(), "{number} is over already");
                    if let (Ok(answer), Some(other)) = (result, other) {
                        assert_eq!(answer, body(number, other.answered[&number]));
                    }
                }
            }
        }
        let (requests, items) = self.table.take_freed();
        self.room = (self.room.0 - requests, self.room.1 - items);
    }

    fn pass(&mut self, millis: u8) {
        self.now += Duration::from_millis(millis.into());
        self.table.tick(self.now);
        assert!(self.table.next_deadline().is_none_or(|at| at > self.now));
    }
}

/// The other side sends what it likes: it is cut off or served, and what it makes this side hold is bounded.
fn any_frames(input: &mut Unstructured<'_>) -> Result<()> {
    let before = memory::in_use();
    let mut end = End::new(Instant::now());
    let hello =
        Frame::Hello { calls: input.int_in_range(0..=4)?, body: any_number(input)?, bodies: any_number(input)? };
    assert!(end.table.receive(end.now, hello.encode()).is_ok());
    while !input.is_empty() {
        let mut cut = false;
        match input.int_in_range(0..=6)? {
            0 => end.act(input)?,
            1 => end.pass(input.arbitrary()?),
            2 => {
                // What is sent can be read.
                if let Some(frame) = end.table.next_frame() {
                    assert_eq!(Frame::decode(frame.encode()), Ok(Some(frame)));
                }
            }
            3 => {
                let bytes = Bytes::copy_from_slice(input.arbitrary()?);
                cut = end.table.receive(end.now, bytes).is_err();
            }
            4 => {
                let frame = any_frame(input)?;
                cut = whole(&frame).any(|frame| end.table.receive(end.now, frame.encode()).is_err());
            }
            _ => {
                let bytes = any_frame(input)?.encode();
                cut = end.table.receive(end.now, bytes).is_err();
            }
        }
        end.settle(None);
        // Twice, as what is put together grows so.
        let most = LIMITS.bodies + (LIMITS.calls + end.calls.len()) * LIMITS.body + end.given;
        let held = memory::in_use().saturating_sub(before);
        assert!(held <= 2 * most + 256 * 1024, "{held} bytes are held");
        if cut {
            break;
        }
    }
    end.table.close(CallError::NotOpen);
    end.settle(None);
    assert!(end.calls.is_empty() && end.running.is_empty() && end.room == (0, 0));
    assert!(!end.table.has_frames() && end.table.next_deadline().is_none());
    Ok(())
}

/// Nobody who keeps to the protocol is cut off; every call that is not given up ends; what arrives is what was sent.
fn two_tables(input: &mut Unstructured<'_>) -> Result<()> {
    let start = Instant::now();
    let mut ends = [End::new(start), End::new(start)];
    for from in 0..2 {
        let hello = ends[from].table.hello().encode();
        assert!(ends[1 - from].table.receive(start, hello).is_ok());
    }
    while !input.is_empty() {
        let at = usize::from(input.arbitrary::<bool>()?);
        match input.int_in_range(0..=4)? {
            0 | 1 => ends[at].act(input)?,
            2 => ends[at].pass(input.arbitrary()?),
            _ => {
                for _ in 0..input.int_in_range(1..=8)? {
                    carry(&mut ends, at);
                }
            }
        }
        settle(&mut ends);
    }
    while ends.iter().any(|end| end.table.has_frames() || !end.running.is_empty()) {
        for at in 0..2 {
            while carry(&mut ends, at) {}
            settle(&mut ends);
            for number in ends[at].running.clone() {
                ends[at].answer(number, 1);
            }
        }
    }
    for end in &mut ends {
        end.settle(None);
        assert!(end.calls.is_empty() && end.table.is_quiet() && end.room == (0, 0));
        assert!(end.table.next_deadline().is_none());
    }
    Ok(())
}

/// Brings a frame to the other end. Returns whether there was one.
fn carry(ends: &mut [End; 2], from: usize) -> bool {
    let Some(frame) = ends[from].table.next_frame() else { return false };
    let there = &mut ends[1 - from];
    let received = there.table.receive(there.now, frame.encode());
    assert!(received.is_ok(), "{received:?}");
    settle(ends);
    true
}

fn settle(ends: &mut [End; 2]) {
    let [a, b] = ends;
    a.settle(Some(b));
    b.settle(Some(a));
}

fn body(number: u32, size: usize) -> Bytes {
    vec![number as u8; size].into()
}

/// In the order of a part, or a few, or more than is taken.
fn any_size(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match input.int_in_range(0..=5)? {
        0 => 0,
        1 => PART,
        2 => PART + 1,
        3 => LIMITS.body + usize::from(input.arbitrary::<bool>()?),
        4 => input.int_in_range(0..=2 * PART)?,
        _ => input.int_in_range(1..=3)?,
    })
}

fn any_number(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(if input.ratio(1, 4)? { input.arbitrary()? } else { input.int_in_range(0..=LIMITS.bodies as u32)? })
}

/// A frame that can be read, about a call that there may be.
fn any_frame(input: &mut Unstructured<'_>) -> Result<Frame> {
    let number = if input.ratio(1, 20)? { input.arbitrary()? } else { input.int_in_range(0..=6)? };
    let size = if input.ratio(1, 20)? { input.arbitrary()? } else { any_size(input)? as u32 };
    // Whole bodies come of parts as large as can be, and a rest.
    let most = if input.ratio(1, 4)? { input.int_in_range(1..=PART)? } else { PART };
    let part = body(number, (size as usize).min(most));
    Ok(match input.int_in_range(0..=9)? {
        0 | 1 => {
            let mode = *input.choose(&[Mode::Call, Mode::Stream, Mode::Notice])?;
            let head = CallHead {
                mode,
                millis: input.arbitrary::<u8>()?.into(),
                items: input.arbitrary()?,
                module: "m".into(),
            };
            Frame::Call { number, head, size, part }
        }
        2 | 3 => Frame::Request { number, part },
        4 => Frame::Cancel { number },
        5 => Frame::Credit { number, items: input.arbitrary()? },
        6 => Frame::Item { number, size, part },
        7 => Frame::Answer { number, size, part },
        8 => Frame::Failure { number, code: input.arbitrary()?, size, part },
        _ => Frame::Reply { number, part },
    })
}

/// A frame, and all the parts of its body that follow it.
fn whole(frame: &Frame) -> impl Iterator<Item = Frame> {
    let (number, missing) = match frame {
        Frame::Call { number, size, part, .. }
        | Frame::Item { number, size, part }
        | Frame::Answer { number, size, part }
        | Frame::Failure { number, size, part, .. } => (*number, *size as usize - part.len()),
        _ => (0, 0),
    };
    let is_call = matches!(frame, Frame::Call { .. });
    let parts = (0..missing).step_by(PART).take(8).map(move |from| body(number, PART.min(missing - from)));
    let next = move |part| if is_call { Frame::Request { number, part } } else { Frame::Reply { number, part } };
    std::iter::once(frame.clone()).chain(parts.map(next))
}
