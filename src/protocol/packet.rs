//! The packing used on a data channel between two pmesh peers.
//!
//! Every data channel message is binary and holds whole records, one after the other:
//!
//! ```text
//! record: flags (1 byte: bits 0-3 kind, bit 4 first, bit 5 last, bits 6-7 zero)
//!         length of the body (LEB128, at most 3 bytes)
//!         body
//! ```
//!
//! Small messages share a packet when they queue up; a large one is cut into several records, the first with `first`,
//! the last with `last`. The messages of each channel and the frames are independent sequences: a record of one may stand
//! between the records of another, never between its own. All other records are whole. Unknown kinds are skipped, so that
//! later versions can add some.
//!
//! A packet holds messages of one channel: the one that a `channel` record before them names, else the main one, which is
//! number 0. So a packet that holds any record of a message costs its whole length, and one packet, in the credit of that
//! channel and of the link. Others cost nothing. Each side numbers the channels that it sends on; see [`super::channel`].
//!
//! Messages of channels that are not ordered or not reliable go on data channels of their own, one for each kind of
//! delivery. There a packet holds a `channel` record, then whole messages, and nothing else. It costs credit as others do
//! if the channel is reliable.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A user message as JSON text.
    Json = 0,
    /// A user message as bytes.
    Binary = 1,
    /// A signalling frame as JSON text, see [`super::frame`].
    Frame = 2,
    /// Three LEB128 numbers: a channel on which the receiver sends, and bytes and packets of it that have been consumed.
    Credit = 3,
    /// A LEB128 number: the sender closes the link after this record and so many packets on other data channels, of reliable channels.
    Close = 4,
    /// A LEB128 number: the channel of the messages in this packet. Before the first of them, once.
    Channel = 6,
    /// A channel on which the sender will send, see [`super::channel::Opening`].
    Open = 7,
    /// Two LEB128 numbers: a channel, and how many packets of it went on another data channel, if it is reliable. The
    /// sender will send nothing more on the channel, and takes nothing more on its counterpart.
    Shut = 8,
    /// Two LEB128 numbers: bytes and packets, of all channels, that have arrived.
    Arrived = 9,
    /// Of a later version.
    Unknown = 15,
}

impl Kind {
    /// Whether the record is part of a user message, which costs credit.
    pub(crate) fn is_message(self) -> bool {
        matches!(self, Self::Json | Self::Binary)
    }
}

const KIND: u8 = 0b1111;
const FIRST: u8 = 1 << 4;
const LAST: u8 = 1 << 5;
const MAX_LENGTH_BYTES: usize = 3;
/// Flags and the longest length.
pub(crate) const MAX_HEADER_BYTES: usize = 1 + MAX_LENGTH_BYTES;
/// The longest LEB128 number of 32 bits.
const MAX_NUMBER_BYTES: usize = 5;
/// The longest `channel` record.
pub(crate) const MAX_CHANNEL_RECORD_BYTES: usize = 2 + MAX_NUMBER_BYTES;

/// The bytes are no packet. The link cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("malformed record")]
    Malformed,
    #[error("record out of sequence")]
    Sequence,
    #[error("message larger than allowed")]
    TooLarge,
}

/// Fills one packet of bounded size.
#[derive(Debug)]
pub(crate) struct PacketBuilder {
    packet: BytesMut,
    limit: usize,
    has_messages: bool,
}

impl PacketBuilder {
    /// An empty packet that will have at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { packet: BytesMut::new(), limit, has_messages: false }
    }

    /// Makes room for so many bytes at once.
    pub(crate) fn expect(&mut self, bytes: usize) {
        self.packet.reserve(bytes.min(self.limit));
    }

    /// Appends as much of `body[*offset..]` as fits, takes at most `most` bytes of it, and moves the offset. Returns
    /// whether the body is now complete. Takes nothing where not even one byte (or an empty body) fits.
    pub(crate) fn push(&mut self, kind: Kind, body: &[u8], offset: &mut usize, most: usize) -> bool {
        let left = body.len() - *offset;
        let room = self.limit.saturating_sub(self.packet.len() + MAX_HEADER_BYTES);
        let take = left.min(room).min(most);
        if (take == 0 && left > 0) || self.limit < self.packet.len() + MAX_HEADER_BYTES {
            return false;
        }
        let first = if *offset == 0 { FIRST } else { 0 };
        let last = if take == left { LAST } else { 0 };
        // Room for one record at a time: a lone small message should not cost a large buffer.
        self.packet.reserve(MAX_HEADER_BYTES + take);
        self.packet.put_u8(kind as u8 | first | last);
        put_number(&mut self.packet, take as u64);
        self.packet.put_slice(&body[*offset..*offset + take]);
        *offset += take;
        self.has_messages |= kind.is_message();
        take == left
    }

    /// Appends a whole record, or nothing. Returns whether it fitted.
    pub(crate) fn push_whole(&mut self, kind: Kind, body: &[u8]) -> bool {
        self.packet.len() + MAX_HEADER_BYTES + body.len() <= self.limit && self.push(kind, body, &mut 0, usize::MAX)
    }

    /// Appends a record of numbers. Returns whether it fitted.
    pub(crate) fn push_numbers(&mut self, kind: Kind, numbers: &[u32]) -> bool {
        let mut body = BytesMut::with_capacity(numbers.len() * MAX_NUMBER_BYTES);
        for number in numbers {
            put_number(&mut body, (*number).into());
        }
        self.push_whole(kind, &body)
    }

    /// What the packet costs in credit: zero if it holds nothing of a user message.
    pub(crate) fn cost(&self) -> usize {
        if self.has_messages { self.packet.len() } else { 0 }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.packet.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packet.is_empty()
    }

    pub(crate) fn finish(self) -> BytesMut {
        self.packet
    }
}

/// One record of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) body: Bytes,
}

/// Takes the records of a packet one by one. After an error it is at its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct PacketReader {
    rest: Bytes,
}

impl PacketReader {
    pub(crate) fn new(packet: Bytes) -> Self {
        Self { rest: packet }
    }

    /// Bytes that are left.
    pub(crate) fn bytes(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self) -> Option<Record> {
        let flags = *self.rest.first()?;
        let kind = match flags & KIND {
            0 => Kind::Json,
            1 => Kind::Binary,
            2 => Kind::Frame,
            3 => Kind::Credit,
            4 => Kind::Close,
            6 => Kind::Channel,
            7 => Kind::Open,
            8 => Kind::Shut,
            9 => Kind::Arrived,
            _ => Kind::Unknown,
        };
        if flags & !(KIND | FIRST | LAST) != 0 {
            return None;
        }
        let mut at = 1;
        let length = usize::try_from(number(&self.rest, &mut at, MAX_LENGTH_BYTES)?).ok()?;
        let end = at.checked_add(length).filter(|end| *end <= self.rest.len())?;
        let mut body = self.rest.split_to(end);
        body.advance(at);
        Some(Record { kind, first: flags & FIRST != 0, last: flags & LAST != 0, body })
    }
}

impl Iterator for PacketReader {
    type Item = Result<Record, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.take().ok_or_else(|| {
            self.rest = Bytes::new();
            PacketError::Malformed
        }))
    }
}

impl Record {
    /// The body of a record that may not be cut.
    pub(crate) fn whole(&self) -> Result<&Bytes, PacketError> {
        if self.first && self.last { Ok(&self.body) } else { Err(PacketError::Malformed) }
    }

    /// The numbers of a record that holds nothing else.
    pub(crate) fn numbers<const N: usize>(&self) -> Result<[u32; N], PacketError> {
        let body = self.whole()?;
        let mut at = 0;
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = number_at(body, &mut at)?;
        }
        if at == body.len() { Ok(numbers) } else { Err(PacketError::Malformed) }
    }
}

/// Checks that the records of one sequence fit together, without keeping their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sequence {
    /// Kind and bytes so far of a message that is not complete.
    open: Option<(Kind, usize)>,
}

impl Sequence {
    /// Accepts the next record of the sequence. Returns the length of the message if it is now complete.
    pub(crate) fn accept(&mut self, record: &Record, limit: usize) -> Result<Option<usize>, PacketError> {
        let before = match self.open {
            None if record.first => 0,
            Some((kind, bytes)) if !record.first && kind == record.kind => bytes,
            _ => return Err(PacketError::Sequence),
        };
        let bytes = before + record.body.len();
        if bytes > limit {
            return Err(PacketError::TooLarge);
        }
        self.open = if record.last { None } else { Some((record.kind, bytes)) };
        Ok(record.last.then_some(bytes))
    }
}

/// Puts messages together again. The records must have passed a [`Sequence`]; what does not begin with a first record,
/// because reading began in the middle of a message, is skipped.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    parts: Option<BytesMut>,
}

impl Assembler {
    /// Bytes of a message that is not complete.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.as_ref().map_or(0, BytesMut::len)
    }

    /// Takes the next record. Returns the message if it is now complete.
    pub(crate) fn push(&mut self, record: Record) -> Option<(Kind, Bytes)> {
        if record.first && record.last {
            return Some((record.kind, record.body));
        }
        if record.first {
            self.parts = Some(BytesMut::with_capacity(2 * record.body.len()));
        }
        let parts = self.parts.as_mut()?;
        parts.extend_from_slice(&record.body);
        if !record.last {
            return None;
        }
        self.parts.take().map(|parts| (record.kind, parts.freeze()))
    }
}

pub(super) fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// The number of 32 bits that begins at `at`, which is moved behind it.
pub(super) fn number_at(bytes: &[u8], at: &mut usize) -> Result<u32, PacketError> {
    number(bytes, at, MAX_NUMBER_BYTES).and_then(|n| u32::try_from(n).ok()).ok_or(PacketError::Malformed)
}

fn number(bytes: &[u8], at: &mut usize, most: usize) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..most {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(packet: Bytes) -> Result<Vec<Record>, PacketError> {
        PacketReader::new(packet).collect()
    }

    #[test]
    fn malformed_packets() {
        for packet in [&[0u8][..], &[0x70, 0], &[0x30, 5, 1], &[0x30, 0x80, 0x80, 0x80, 0x01]] {
            let packet = Bytes::copy_from_slice(packet);
            let mut reader = PacketReader::new(packet);
            assert_eq!(reader.next(), Some(Err(PacketError::Malformed)));
            assert_eq!(reader.next(), None);
        }
    }

    #[test]
    fn numbers_come_back() {
        let mut packet = PacketBuilder::new(64);
        assert!(packet.push_numbers(Kind::Credit, &[0, u32::MAX, 0]));
        assert!(packet.push_numbers(Kind::Arrived, &[0, 200]));
        assert!(!packet.push_numbers(Kind::Arrived, &[0; 60]));
        assert_eq!(packet.cost(), 0);
        let records = records(packet.finish().freeze()).unwrap();
        assert_eq!(records[0].numbers(), Ok([0, u32::MAX, 0]));
        assert_eq!(records[1].numbers(), Ok([0, 200]));
        assert_eq!(records[1].numbers::<1>(), Err(PacketError::Malformed));
        assert_eq!(records[1].numbers::<3>(), Err(PacketError::Malformed));
    }

    #[test]
    fn out_of_sequence() {
        let record = |kind, first, last| Record { kind, first, last, body: Bytes::from_static(b"x") };
        let mut sequence = Sequence::default();
        assert_eq!(sequence.accept(&record(Kind::Json, false, true), 9), Err(PacketError::Sequence));
        assert_eq!(sequence.accept(&record(Kind::Json, true, false), 9), Ok(None));
        assert_eq!(sequence.accept(&record(Kind::Binary, false, true), 9), Err(PacketError::Sequence));
        assert_eq!(sequence.accept(&record(Kind::Json, true, true), 9), Err(PacketError::Sequence));
        assert_eq!(sequence.accept(&record(Kind::Json, false, true), 1), Err(PacketError::TooLarge));
        assert_eq!(sequence.accept(&record(Kind::Json, false, true), 2), Ok(Some(2)));
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = records(bytes.into());
        }

        /// Whatever is put in, in whatever portions, comes out again in order and whole.
        #[test]
        fn messages_come_back(
            messages in proptest::collection::vec((any::<bool>(), 0usize..300), 0..20),
            limit in 16usize..128,
            most in 1usize..400,
        ) {
            let messages: Vec<(Kind, Vec<u8>)> = messages
                .into_iter()
                .enumerate()
                .map(|(n, (json, len))| (if json { Kind::Json } else { Kind::Binary }, vec![n as u8; len]))
                .collect();
            let mut packets = vec![PacketBuilder::new(limit)];
            for (kind, body) in &messages {
                let mut offset = 0;
                while !packets.last_mut().unwrap().push(*kind, body, &mut offset, most) {
                    packets.push(PacketBuilder::new(limit));
                }
            }
            let mut sequence = Sequence::default();
            let mut assembler = Assembler::default();
            let mut out = Vec::new();
            for packet in packets {
                let cost = packet.cost();
                let packet = packet.finish().freeze();
                prop_assert!(packet.len() <= limit);
                prop_assert_eq!(cost, packet.len());
                for record in records(packet).unwrap() {
                    let whole = sequence.accept(&record, 300).unwrap();
                    let message = assembler.push(record);
                    prop_assert_eq!(whole, message.as_ref().map(|(_, body)| body.len()));
                    out.extend(message.map(|(kind, body)| (kind, body.to_vec())));
                }
            }
            prop_assert_eq!(out, messages);
        }
    }
}
