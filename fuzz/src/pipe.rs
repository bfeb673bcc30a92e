//! The queues between a node and its link, in both directions.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::CloseReason;
use crate::memory;
use crate::packet;
use crate::protocol::frame;
use crate::protocol::limits::{CHANNEL_CREDIT, MAX_PACKET_BYTES, MAX_SIGNAL_BYTES};
use crate::protocol::packet::{Kind, PacketReader};
use crate::transport::pipe::{
    Framing, Outgoing, Pipe, Queues, Rejected, StreamAction, Subscription, WhenFull, WireMessage,
};
use crate::transport::{LinkEvent, LinkId};

/// The largest message here: more than a packet.
const MAX_MESSAGE: usize = 80_000;

/// Steps of one run: enough for the windows to close and to open again.
const STEPS: usize = 400;

/// Either two ends talk to each other, or one end gets anything at all.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The input is at its end: what there was has been checked.
    let _ = if input.ratio(1, 3) == Ok(true) { anything(&mut input) } else { two_ends(&mut input) };
}

/// One end, and what it is to get from the other.
struct End {
    plain: bool,
    pipe: Arc<Pipe>,
    queues: Arc<Queues>,
    events: mpsc::Receiver<(LinkId, LinkEvent)>,
    reader: Option<Subscription>,
    messages: VecDeque<(Kind, Bytes)>,
    frames: VecDeque<String>,
}

impl End {
    fn new(plain: bool, window: (u32, u32)) -> Self {
        let (sender, events) = mpsc::channel(4);
        let queues = Queues::new(window, MAX_MESSAGE);
        let pipe = Pipe::new(LinkId(1), sender, queues.clone());
        Self { plain, pipe, queues, events, reader: None, messages: VecDeque::new(), frames: VecDeque::new() }
    }

    /// Delivers, and takes the frames that come of it.
    fn deliver(&mut self, message: WireMessage, on_event: impl Fn(LinkEvent, &mut VecDeque<String>)) -> Delivered {
        let pipe = self.pipe.clone();
        let mut delivery = pin!(pipe.deliver(message, WhenFull::Overflow));
        loop {
            let done = delivery.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let mut events = 0;
            while let Ok((_, event)) = self.events.try_recv() {
                on_event(event, &mut self.frames);
                events += 1;
            }
            match done {
                Poll::Ready(done) => return done,
                Poll::Pending => assert!(events > 0, "it waits for nothing"),
            }
        }
    }

    /// Reads one message, which must be the next that was sent.
    fn read(&mut self) -> bool {
        let reader = self.reader.get_or_insert_with(|| self.queues.subscribe(self.queues.main()));
        let Poll::Ready(message) = reader.poll_next(&mut Context::from_waker(Waker::noop())) else { return false };
        assert_eq!(message, self.messages.pop_front(), "messages come whole and in order");
        message.is_some()
    }
}

type Delivered = std::result::Result<(), CloseReason>;

/// Carries one message of the link. Returns false if there was none.
fn carry(from: &End, to: &mut End) -> std::result::Result<bool, CloseReason> {
    let message = match from.pipe.try_next_outgoing() {
        Some(Outgoing::Text(text)) => WireMessage::Text(text.freeze()),
        Some(Outgoing::Binary(bytes)) => WireMessage::Binary(bytes.freeze()),
        Some(other) => panic!("{other:?}: nobody has closed, or opened a channel"),
        None => return Ok(false),
    };
    if let WireMessage::Binary(packet) = &message {
        let sizes = if from.plain { 0..=MAX_MESSAGE } else { 1..=MAX_PACKET_BYTES };
        assert!(sizes.contains(&packet.len()));
    }
    let expected = |event, frames: &mut VecDeque<String>| match event {
        LinkEvent::Frame(text) => assert_eq!(Some(text), frames.pop_front(), "frames come whole and in order"),
        other => panic!("{other:?}"),
    };
    to.deliver(message, expected).map(|()| true)
}

fn window(input: &mut Unstructured<'_>) -> Result<(u32, u32)> {
    Ok((*input.choose(&[100, 5_000, 900_000])?, *input.choose(&[1, 3, 200])?))
}

/// Whatever is sent comes, in order and whole, however the two take turns.
fn two_ends(input: &mut Unstructured<'_>) -> Result<()> {
    let windows = [window(input)?, window(input)?];
    let plain = input.ratio(1, 4)?;
    let mut ends = windows.map(|window| End::new(plain, window));
    for (end, window) in ends.iter().zip([windows[1], windows[0]]) {
        let max_message = Some(MAX_MESSAGE as u64);
        let framing = match plain {
            true => Framing::Plain { max_message: MAX_MESSAGE },
            false => Framing::Packets { window, max_message },
        };
        end.pipe.open(framing, None);
    }
    if plain {
        // What nobody reads is dropped, from an original P.
        for end in &mut ends {
            end.reader = Some(end.queues.subscribe(end.queues.main()));
        }
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let [a, b] = &mut ends;
        let (from, to) = if input.arbitrary()? { (a, b) } else { (b, a) };
        match input.int_in_range(0..=5)? {
            0 | 1 => send(input, from, to)?,
            2 => signal(input, from, to)?,
            3 => drop(carry(from, to).expect("both keep to the protocol")),
            4 => drop(to.read()),
            _ if !plain => to.reader = None,
            _ => {}
        }
    }
    settle(&mut ends);
    if !plain {
        close(&mut ends);
    }
    Ok(())
}

fn send(input: &mut Unstructured<'_>, from: &End, to: &mut End) -> Result<()> {
    let size =
        if input.ratio(1, 8)? { input.int_in_range(0..=MAX_MESSAGE + 1)? } else { input.int_in_range(0..=90)? };
    let json = input.arbitrary()?;
    // Of an original P's JSON an element is read: it must be JSON.
    let (kind, body) = match json {
        true => (Kind::Json, Bytes::from(format!("\"{}\"", "j".repeat(size)))),
        false => (Kind::Binary, Bytes::from(vec![input.arbitrary()?; size])),
    };
    match from.queues.try_send(from.queues.main(), kind, body.clone()) {
        Ok(()) => to.messages.push_back((kind, body)),
        Err(Rejected::Full) => assert!(from.queues.buffered(from.queues.main()) > 0),
        Err(Rejected::TooLarge(most)) => assert!(body.len() > most && most >= MAX_MESSAGE - 4),
        Err(Rejected::NotOpen) => panic!("it is open"),
    }
    Ok(())
}

fn signal(input: &mut Unstructured<'_>, from: &End, to: &mut End) -> Result<()> {
    let size =
        if input.ratio(1, 8)? { input.int_in_range(0..=MAX_PACKET_BYTES)? } else { input.int_in_range(0..=90)? };
    let to_address = crate::protocol::Address::new("b").expect("short");
    let text = frame::relay(&to_address, &format!("\"{}\"", "f".repeat(size)));
    if from.queues.signal(text.clone()).is_ok() {
        to.frames.push_back(text);
    }
    Ok(())
}

/// Lets both send and read until nothing moves any more: then everything has come.
fn settle(ends: &mut [End; 2]) {
    let mut quiet = 0;
    // A reader that takes a part of a message frees credit, and nothing shows but the grant: one more turn.
    while quiet < 2 {
        let [a, b] = &mut *ends;
        let mut moves = carry(a, b).expect("both keep to the protocol");
        moves |= carry(b, a).expect("both keep to the protocol");
        moves |= a.read();
        moves |= b.read();
        quiet = if moves { 0 } else { quiet + 1 };
    }
    for end in ends {
        assert!(end.messages.is_empty() && end.frames.is_empty(), "stuck");
        assert_eq!(end.queues.buffered(end.queues.main()), 0);
    }
}

/// The close comes after all else, and is the end.
fn close([a, b]: &mut [End; 2]) {
    a.pipe.start_closing();
    assert_eq!(a.queues.try_send(a.queues.main(), Kind::Binary, Bytes::new()), Err(Rejected::NotOpen));
    assert_eq!(carry(a, b), Err(CloseReason::Remote));
    assert_eq!(a.pipe.try_next_outgoing(), Some(Outgoing::Finished));
    assert_eq!(a.pipe.try_next_outgoing(), None);
    for end in [a, b] {
        end.queues.shut();
        assert!(!end.read());
    }
}

/// Whatever comes: no panic, and no more memory than was granted and the limits allow.
fn anything(input: &mut Unstructured<'_>) -> Result<()> {
    let before = memory::in_use();
    let window = window(input)?;
    let mut end = End::new(false, window);
    end.pipe.open(Framing::Packets { window: self::window(input)?, max_message: None }, None);
    // An unfinished frame and an unfinished message in buffers that grow, packets of channels that are not known yet, and
    // the pipe itself; then what each channel may hold.
    let mut most = 2 * window.0 as usize + 4 * (MAX_SIGNAL_BYTES + MAX_MESSAGE) + 64 * 1024;
    let an_entry_each = 512 * window.1 as usize;
    let a_channel = CHANNEL_CREDIT.0.min(window.0) as usize + an_entry_each + 4096;
    most += an_entry_each;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let stream = if input.ratio(1, 4)? { Some(input.arbitrary()?) } else { None };
        for packet in packet::packets(input, MAX_PACKET_BYTES - 5)? {
            let opens = PacketReader::new(packet.clone()).flatten().filter(|record| record.kind == Kind::Open).count();
            most += opens * a_channel;
            let delivered = match stream {
                Some(lossy) => {
                    // Of what may get lost, the latest is kept.
                    most += if lossy { packet.len() + 512 } else { 0 };
                    end.pipe.deliver_on_stream(lossy, packet)
                }
                None => end.deliver(WireMessage::Binary(packet), |event, _| {
                    let LinkEvent::Frame(text) = event else { return };
                    assert!(text.len() <= MAX_SIGNAL_BYTES);
                }),
            };
            assert!(memory::in_use().saturating_sub(before) <= most, "{} bytes", memory::in_use() - before);
            if delivered.is_err() {
                return Ok(());
            }
        }
        if input.ratio(1, 4)?
            && let Ok(lane) = end.queues.open_lane(input.choose(&["a", "b"])?, Default::default())
        {
            most += a_channel;
            // Or it is being closed.
            let _ = end.queues.try_send(&lane, Kind::Binary, Bytes::from_static(b"sent"));
            if input.arbitrary()? {
                end.queues.close_lane(&lane);
            }
        }
        if input.ratio(1, 4)? {
            let reader = end.reader.get_or_insert_with(|| end.queues.subscribe(end.queues.main()));
            if let Poll::Ready(Some((_, body))) = reader.poll_next(&mut Context::from_waker(Waker::noop())) {
                assert!(body.len() <= MAX_MESSAGE);
            }
        }
        if input.ratio(1, 4)? {
            if let Some(Outgoing::Stream { id, action: StreamAction::Open(_) }) = end.pipe.try_next_outgoing() {
                end.pipe.stream_opened(id);
            }
            drop(end.queues.take_opened());
        }
    }
    Ok(())
}
