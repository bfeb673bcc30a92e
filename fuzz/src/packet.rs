//! The packets of a data channel.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use crate::memory;
use crate::protocol::channel::{Delivery, MAX_OPENING_BYTES, Opening, Reliability};
use crate::protocol::limits::{MAX_CHANNEL_NAME_BYTES, MAX_PACKET_BYTES};
use crate::protocol::packet::{Assembler, Kind, PacketBuilder, PacketReader, Record, Sequence};

/// The largest message here: small, so that it is often met.
const MAX_MESSAGE: usize = 300;

/// Either any bytes are read as packets, or any messages are put into packets and read again.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The input is at its end: what there was has been checked.
    let _ = if input.arbitrary() == Ok(true) { messages_come_back(&mut input) } else { any_packets(&mut input) };
}

/// What is read keeps to the limits and is what the records say; what waits to be complete is bounded.
fn any_packets(input: &mut Unstructured<'_>) -> Result<()> {
    let mut reader = Reader::default();
    while !input.is_empty() {
        for packet in packets(input, MAX_MESSAGE)? {
            let mut left = packet.len();
            let mut failed = false;
            for record in PacketReader::new(packet) {
                assert!(!failed, "a record after an error");
                let Ok(record) = record else {
                    failed = true;
                    continue;
                };
                assert!(left >= 2 + record.body.len(), "more comes out than went in");
                left -= 2 + record.body.len();
                check_control(&record);
                if record.kind.is_message() && !reader.take(record) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// What puts messages together, and what is to come of it.
#[derive(Default)]
struct Reader {
    sequence: Sequence,
    assembler: Assembler,
    kind: Option<Kind>,
    parts: Vec<u8>,
}

impl Reader {
    /// Takes a record. Returns false if it is refused.
    fn take(&mut self, record: Record) -> bool {
        let Ok(complete) = self.sequence.accept(&record, MAX_MESSAGE) else { return false };
        if record.first {
            self.parts.clear();
            self.kind = Some(record.kind);
        }
        self.parts.extend_from_slice(&record.body);
        assert!(self.parts.len() <= MAX_MESSAGE);
        let (message, held) = memory::peak(|| self.assembler.push(record));
        assert!(held <= 4 * MAX_MESSAGE, "{held} bytes to put a message together");
        assert_eq!(complete, message.as_ref().map(|(_, body)| body.len()));
        if let Some((kind, body)) = message {
            assert_eq!((Some(kind), body.as_ref()), (self.kind, self.parts.as_slice()));
        }
        true
    }
}

/// Any bytes; or some control records, and a message; or records of one length, each in a packet of its own: messages, or
/// pieces of one.
pub(crate) fn packets(input: &mut Unstructured<'_>, most: usize) -> Result<Box<dyn Iterator<Item = Bytes>>> {
    match input.int_in_range(0..=2)? {
        0 => {
            let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
            return Ok(Box::new(std::iter::once(Bytes::copy_from_slice(input.bytes(length)?))));
        }
        1 => {
            let mut packet = PacketBuilder::new(most);
            for _ in 0..input.int_in_range(1..=3)? {
                control(input, &mut packet)?;
            }
            if input.arbitrary()? {
                packet.push_whole(Kind::Binary, &[7; 20]);
            }
            return Ok(Box::new(std::iter::once(packet.finish().freeze())));
        }
        _ => {}
    }
    let kind: u8 = input.int_in_range(0..=15)?;
    // Two or three of those are just too much, or just enough.
    let length = match input.arbitrary()? {
        true => *input.choose(&[0, 1, most / 2, most / 2 + 1, most])?,
        false => input.int_in_range(0..=most)?,
    };
    let count = *input.choose(&[1, 2, 3, 16])?;
    let (whole, ends, longer) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
    let packet = move |index| {
        let first = if whole || index == 0 { 0x10 } else { 0 };
        let length = if longer && index + 1 == count { length + 1 } else { length };
        let last = if whole || (ends && index + 1 == count) { 0x20 } else { 0 };
        let mut packet =
            vec![kind | first | last, length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
        packet.resize(packet.len() + length, index as u8);
        packet.into()
    };
    Ok(Box::new((0..count).map(packet)))
}

/// Appends a record about channels and credit, most often with small numbers.
fn control(input: &mut Unstructured<'_>, packet: &mut PacketBuilder) -> Result<()> {
    let mut number = || match input.ratio(7, 8)? {
        true => input.int_in_range(0..=3),
        false => input.arbitrary(),
    };
    let numbers = [number()?, number()?, number()?];
    let kind = *input.choose(&[Kind::Credit, Kind::Close, Kind::Channel, Kind::Open, Kind::Shut, Kind::Arrived])?;
    let count = match kind {
        Kind::Open => {
            let reliability = match input.int_in_range(0..=2)? {
                0 => Reliability::Reliable,
                1 => Reliability::MaxRetransmits(input.arbitrary()?),
                _ => Reliability::MaxLifetime(Duration::from_millis(input.arbitrary::<u16>()?.into())),
            };
            let delivery = Delivery { ordered: input.arbitrary()?, reliability };
            let name = input.choose(&["a", "b", "c"])?.repeat(*input.choose(&[1, 1, 1, 300])?);
            let opening = Opening { id: numbers[0], answers: numbers[1], delivery, name };
            packet.push_whole(kind, &opening.encode());
            return Ok(());
        }
        Kind::Close | Kind::Channel => 1,
        Kind::Shut | Kind::Arrived => 2,
        _ => 3,
    };
    packet.push_numbers(kind, &numbers[..count]);
    Ok(())
}

/// What a record says is written as one that says the same.
fn check_control(record: &Record) {
    if let Ok(numbers) = record.numbers::<3>() {
        let mut packet = PacketBuilder::new(64);
        assert!(packet.push_numbers(record.kind, &numbers));
        let again = PacketReader::new(packet.finish().freeze()).next().and_then(std::result::Result::ok);
        assert_eq!(again.map(|record| record.numbers()), Some(Ok(numbers)));
    }
    if let Ok(opening) = Opening::decode(record) {
        let body = opening.encode();
        assert!(body.len() <= MAX_OPENING_BYTES && opening.name.len() <= MAX_CHANNEL_NAME_BYTES);
        assert_eq!(Opening::decode(&Record { body: body.freeze(), ..record.clone() }), Ok(opening));
    }
}

/// Messages and frames, cut in any way, come out in order and whole.
fn messages_come_back(input: &mut Unstructured<'_>) -> Result<()> {
    let limit = if input.ratio(1, 8)? { MAX_PACKET_BYTES } else { input.int_in_range(5..=200)? };
    let mut packets = vec![PacketBuilder::new(limit)];
    let (mut messages, mut frames) = (Vec::new(), Vec::new());
    while !input.is_empty() && packets.len() < 1000 {
        let kind = *input.choose(&[Kind::Json, Kind::Binary, Kind::Frame])?;
        let body = vec![input.arbitrary()?; input.int_in_range(0..=MAX_MESSAGE)?];
        let mut offset = 0;
        loop {
            let most = input.int_in_range(1..=400).unwrap_or(400);
            let packet = packets.last_mut().expect("there is always one");
            let before = (offset, packet.len());
            let done = packet.push(kind, &body, &mut offset, most);
            assert!(packet.len() <= limit && offset - before.0 <= most.min(packet.len() - before.1));
            if done {
                break;
            }
            packets.push(PacketBuilder::new(limit));
        }
        if kind == Kind::Frame { &mut frames } else { &mut messages }.push((kind, Bytes::from(body)));
    }
    let (mut sequences, mut assemblers) = <([Sequence; 2], [Assembler; 2])>::default();
    let (mut out_messages, mut out_frames) = (Vec::new(), Vec::new());
    for packet in packets {
        let (cost, packet) = (packet.cost(), packet.finish().freeze());
        let mut paid = false;
        for record in PacketReader::new(packet.clone()) {
            let record = record.expect("what is written is a packet");
            paid |= record.kind.is_message();
            let at = usize::from(record.kind == Kind::Frame);
            let complete = sequences[at].accept(&record, MAX_MESSAGE).expect("what is written is in sequence");
            let whole = assemblers[at].push(record);
            assert_eq!(complete, whole.as_ref().map(|(_, body)| body.len()));
            if at == 1 { &mut out_frames } else { &mut out_messages }.extend(whole);
        }
        assert_eq!(cost, if paid { packet.len() } else { 0 });
    }
    assert_eq!((messages, frames), (out_messages, out_frames));
    Ok(())
}
