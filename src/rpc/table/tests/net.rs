//! Two tables and what is on the way between them, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::rpc::error::CallError;
use crate::rpc::table::{Limits, Output, Start, Table, Violation};
use crate::rpc::wire::Mode;

pub(super) const LIMITS: Limits = Limits { calls: 4, body: 100_000, bodies: 200_000, waiting: 8 };

/// One side: its table, the frames to it, and what its callers and handlers have seen.
pub(super) struct End {
    pub(super) table: Table,
    pub(super) inbox: VecDeque<Bytes>,
    /// Handlers that run.
    pub(super) running: BTreeMap<u32, Start>,
    pub(super) most_running: usize,
    pub(super) stopped: Vec<u32>,
    pub(super) items: BTreeMap<u32, Vec<Bytes>>,
    pub(super) ends: BTreeMap<u32, Result<Bytes, CallError>>,
    pub(super) calls: Vec<u32>,
    pub(super) cancelled: Vec<u32>,
    /// Room that calls and items have taken and not got back.
    pub(super) room: (usize, usize),
}

pub(super) struct Net {
    pub(super) ends: [End; 2],
    pub(super) now: Instant,
}

impl End {
    fn new(limits: Limits) -> Self {
        Self {
            table: Table::new(limits),
            inbox: VecDeque::new(),
            running: BTreeMap::new(),
            most_running: 0,
            stopped: Vec::new(),
            items: BTreeMap::new(),
            ends: BTreeMap::new(),
            calls: Vec::new(),
            cancelled: Vec::new(),
            room: (0, 0),
        }
    }

    pub(super) fn settle(&mut self) {
        while let Some(output) = self.table.next_output() {
            match output {
                Output::Start(start) => {
                    assert!(self.running.insert(start.number, start).is_none());
                    self.most_running = self.most_running.max(self.running.len());
                }
                Output::Stop { number } => {
                    assert!(self.running.remove(&number).is_some(), "a handler that does not run is stopped");
                    self.stopped.push(number);
                }
                Output::Credit { .. } => {}
                Output::Item { number, body } => {
                    assert!(!self.ends.contains_key(&number) && !self.cancelled.contains(&number));
                    self.items.entry(number).or_default().push(body);
                }
                Output::End { number, result } => {
                    assert!(!self.cancelled.contains(&number), "a call that was cancelled has an end");
                    assert!(self.ends.insert(number, result).is_none(), "a call has two ends");
                }
            }
        }
        let freed = self.table.take_freed();
        self.room.0 -= freed.0;
        self.room.1 -= freed.1;
    }
}

impl Net {
    /// Two ends that have not said hello.
    pub(super) fn silent(limits: [Limits; 2]) -> Self {
        Self { ends: limits.map(End::new), now: Instant::now() }
    }

    pub(super) fn new() -> Self {
        let mut net = Self::silent([LIMITS; 2]);
        net.hello();
        net
    }

    pub(super) fn hello(&mut self) {
        for end in 0..2 {
            let hello = self.ends[end].table.hello().encode();
            self.ends[1 - end].inbox.push_back(hello);
        }
        self.run();
    }

    pub(super) fn call(&mut self, end: usize, mode: Mode, body: usize, time: Option<u64>) -> Result<u32, CallError> {
        let items = if mode == Mode::Stream { 4 } else { 0 };
        let within = time.map(Duration::from_millis);
        let here = &mut self.ends[end];
        here.room.0 += body + 1;
        let called = here.table.call(self.now, (mode, "m", items), vec![7; body].into(), within, body + 1);
        here.calls.extend(called.clone().ok());
        here.settle();
        called
    }

    pub(super) fn cancel(&mut self, end: usize, number: u32) {
        self.ends[end].table.cancel(number);
        if !self.ends[end].ends.contains_key(&number) {
            self.ends[end].cancelled.push(number);
        }
        self.ends[end].settle();
    }

    pub(super) fn answer(&mut self, end: usize, number: u32, result: Result<usize, CallError>) {
        self.ends[end].running.remove(&number);
        self.ends[end].table.answer(number, result.map(|bytes| vec![8; bytes].into()));
        self.ends[end].settle();
    }

    pub(super) fn item(&mut self, end: usize, number: u32, bytes: usize) -> bool {
        self.ends[end].room.1 += bytes + 1;
        let sent = self.ends[end].table.item(number, vec![9; bytes].into(), bytes + 1);
        self.ends[end].settle();
        sent
    }

    /// Puts a frame of one end on the way.
    pub(super) fn send(&mut self, from: usize) -> bool {
        let Some(frame) = self.ends[from].table.next_frame() else { return false };
        self.ends[from].settle();
        self.ends[1 - from].inbox.push_back(frame.encode());
        true
    }

    /// An end takes a frame.
    pub(super) fn receive(&mut self, end: usize) -> Result<bool, Violation> {
        let Some(frame) = self.ends[end].inbox.pop_front() else { return Ok(false) };
        let received = self.ends[end].table.receive(self.now, frame);
        self.ends[end].settle();
        received.map(|()| true)
    }

    /// Until nothing is on the way.
    pub(super) fn run(&mut self) {
        loop {
            let mut moved = false;
            for end in 0..2 {
                moved |= self.send(end);
                moved |= self.receive(end).unwrap();
            }
            if !moved {
                return;
            }
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        for end in &mut self.ends {
            end.table.tick(self.now);
            end.settle();
            assert!(end.table.next_deadline().is_none_or(|at| at > self.now));
        }
    }
}
