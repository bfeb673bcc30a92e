//! Named channels of every kind under every interleaving that a seeded scheduler finds, over streams that reorder and lose.

use std::collections::{BTreeSet, HashMap};

use futures_util::FutureExt;

use super::*;
use crate::protocol::{Delivery, Reliability};

/// One side of a link in the simulation, and what it did.
struct Side {
    pipe: Arc<Pipe>,
    wire: VecDeque<Bytes>,
    /// Streams that are being made.
    opening: Vec<u32>,
    /// What is on its way on streams.
    streams: Vec<(bool, Bytes)>,
    handles: Vec<Handle>,
}

/// A channel as one side got it, in one of its lives.
struct Handle {
    lane: Arc<Lane>,
    messages: Subscription,
    sent: u32,
    /// The peer's handle whose messages were read, and which of them.
    from: Option<u32>,
    read: BTreeSet<u32>,
    closed_here: bool,
}

/// The channels: the names say what they are.
const KINDS: [(&str, Delivery); 4] = [
    ("ordered", Delivery { ordered: true, reliability: Reliability::Reliable }),
    ("unordered", Delivery { ordered: false, reliability: Reliability::Reliable }),
    ("lossy", Delivery { ordered: false, reliability: Reliability::MaxRetransmits(0) }),
    ("other", Delivery { ordered: true, reliability: Reliability::Reliable }),
];

fn body(handle: u32, number: u32, size: usize) -> Bytes {
    let mut body = [handle.to_be_bytes(), number.to_be_bytes()].concat();
    body.extend((0..size).map(|at| (at as u32).wrapping_mul(31).wrapping_add(handle ^ number) as u8));
    body.into()
}

impl Side {
    fn new(own: (u32, u32), other: (u32, u32)) -> Self {
        let (pipe, _) = pipe_with(own);
        pipe.open(Framing::Packets { window: other, max_message: None }, None);
        let mut side =
            Self { pipe, wire: VecDeque::new(), opening: Vec::new(), streams: Vec::new(), handles: Vec::new() };
        side.take(side.pipe.queues.main().clone());
        side
    }

    fn take(&mut self, lane: Arc<Lane>) {
        if !self.handles.iter().any(|handle| Arc::ptr_eq(&handle.lane, &lane)) {
            let messages = self.pipe.queues.subscribe(&lane);
            self.handles.push(Handle {
                lane,
                messages,
                sent: 0,
                from: None,
                read: BTreeSet::new(),
                closed_here: false,
            });
        }
    }

    fn send(&mut self, which: usize, size: usize) {
        let index = which % self.handles.len();
        let handle = &mut self.handles[index];
        let body = body(index as u32, handle.sent, size);
        let sent = self.pipe.queues.send(&handle.lane, Kind::Binary, body).now_or_never();
        // Otherwise it was cancelled, or the channel is closed: nothing was sent.
        handle.sent += u32::from(sent == Some(Ok(())));
    }

    fn write(&mut self) -> bool {
        match self.pipe.try_next_outgoing() {
            Some(Outgoing::Binary(packet)) => {
                assert!(packet.len() <= MAX_PACKET_BYTES);
                self.wire.push_back(packet.freeze());
                true
            }
            Some(Outgoing::Stream { id, action }) => {
                match action {
                    StreamAction::Open(_) => self.opening.push(id),
                    StreamAction::Send { lossy, packet } => self.streams.push((lossy, packet.freeze())),
                }
                true
            }
            other => {
                assert_eq!(other, None);
                false
            }
        }
    }

    fn deliver(&mut self, from: &mut Self) -> bool {
        let Some(packet) = from.wire.pop_front() else { return false };
        let delivered = self.pipe.deliver(WireMessage::Binary(packet), WhenFull::Overflow).now_or_never();
        assert_eq!(delivered, Some(Ok(())));
        true
    }

    fn open_stream(&mut self) -> bool {
        let id = self.opening.pop();
        id.map(|id| self.pipe.stream_opened(id)).is_some()
    }

    /// Any of those that are on their way, or, if it may get lost and `lose` is set, none of it.
    fn deliver_stream(&mut self, from: &mut Self, which: usize, lose: bool) -> bool {
        if from.streams.is_empty() {
            return false;
        }
        let (lossy, packet) = from.streams.swap_remove(which % from.streams.len());
        if !(lose && lossy) {
            assert_eq!(self.pipe.deliver_on_stream(lossy, packet), Ok(()));
        }
        true
    }

    fn accept(&mut self) -> bool {
        let opened = self.pipe.queues.take_opened();
        opened.map(|lane| self.take(lane)).is_some()
    }

    fn read(&mut self, which: usize) -> bool {
        let index = which % self.handles.len();
        let handle = &mut self.handles[index];
        let Poll::Ready(Some((_, got))) = next_now(&mut handle.messages) else { return false };
        let number = |at: usize| u32::from_be_bytes(got[at..at + 4].try_into().unwrap());
        let from = *handle.from.get_or_insert(number(0));
        assert_eq!(got, body(from, number(4), got.len() - 8), "whole, and of one life of the channel");
        if handle.lane.delivery() == Delivery::default() {
            assert_eq!(number(4), handle.read.len() as u32, "in order");
        }
        assert!(handle.read.insert(number(4)), "once");
        true
    }

    fn close(&mut self, which: usize) {
        let index = which % self.handles.len();
        if index > 0 {
            self.handles[index].closed_here = true;
            self.pipe.queues.close_lane(&self.handles[index].lane);
        }
    }
}

fn drain(a: &mut Side, b: &mut Side) {
    loop {
        let mut moved = false;
        for _ in 0..2 {
            moved |= a.write() | b.deliver(a) | a.accept() | a.open_stream() | b.deliver_stream(a, 0, false);
            for which in 0..a.handles.len() {
                while a.read(which) {
                    moved = true;
                }
            }
            std::mem::swap(a, b);
        }
        if !moved {
            return;
        }
    }
}

/// What one side sent and the other did not close arrived to the last byte.
fn check(from: &Side, to: &Side) {
    let mut read = HashMap::new();
    for handle in &to.handles {
        if let Some(sender) = handle.from {
            assert_eq!(from.handles[sender as usize].lane.name(), handle.lane.name());
            assert!(
                read.insert(sender, (handle.read.len() as u32, handle.closed_here)).is_none(),
                "two channels got one's messages"
            );
        }
    }
    for (index, handle) in from.handles.iter().enumerate() {
        let name = handle.lane.name();
        if name == "lossy" {
            assert!(read.get(&(index as u32)).is_none_or(|(read, _)| *read <= handle.sent));
            continue;
        }
        match read.get(&(index as u32)) {
            Some((read, false)) => assert_eq!(*read, handle.sent, "{name}"),
            Some((read, true)) => assert!(*read <= handle.sent, "{name}"),
            None => {
                let closed = to.handles.iter().any(|other| other.closed_here && other.lane.name() == name);
                assert!(handle.sent == 0 || closed, "{name}: {} messages are lost", handle.sent);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Opening, sending, cancelling, writing, delivering, reading and closing on both sides, in any order and with any
    /// windows: messages come out as they went in, on the channel on which they went in, and nothing is left over.
    #[test]
    fn channels_under_any_interleaving(
        steps in proptest::collection::vec((any::<bool>(), 0u8..16, any::<usize>(), 0usize..6_000), 1..300),
        windows in ((100u32..40_000, 1u32..20), (100u32..40_000, 1u32..20)),
    ) {
        let (mut a, mut b) = (Side::new(windows.0, windows.1), Side::new(windows.1, windows.0));
        for (swapped, step, which, size) in steps {
            let (one, other) = if swapped { (&mut b, &mut a) } else { (&mut a, &mut b) };
            match step {
                0 => {
                    let (name, delivery) = KINDS[which % KINDS.len()];
                    if let Ok(lane) = one.pipe.queues.open_lane(name, delivery) {
                        one.take(lane);
                    }
                }
                1..=3 => one.send(which, size),
                4..=5 => drop(one.write()),
                6..=7 => drop(one.deliver(other)),
                8 => drop(one.read(which)),
                9 => one.pipe.pause_lossy(size % 2 == 0),
                10 => drop(one.accept()),
                11 => drop(one.open_stream()),
                12..=13 => drop(one.deliver_stream(other, which, false)),
                14 => drop(one.deliver_stream(other, which, true)),
                _ => one.close(which),
            }
        }
        for side in [&a, &b] {
            side.pipe.pause_lossy(false);
        }
        drain(&mut a, &mut b);
        check(&a, &b);
        check(&b, &a);
        prop_assert_eq!(channels::lanes(&a.pipe), channels::lanes(&b.pipe), "both sides know the same channels");
    }
}
