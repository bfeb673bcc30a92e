//! What travels on a link. The first byte of a packet is what it is:
//!
//! ```text
//! 0 hello    version (1), which routing (1), the sender's session (8), whether it wants a hello (1)
//! 1 routing  a message of the routing table, from neighbour to neighbour
//! 2 message  see below
//! 3 taken    hop number (4)
//! 4 refused  hop number (4), sends left (1), whether somebody may have it all the same (1)
//! 5 ping
//! 6 pong
//!
//! message: 2, sends left (1), hop number (4)                         written anew by each hop
//!          flags (1: bits 0-1 mode, bit 2 confirm, bit 3 closest), purpose (1), nonce (12), to (20), from (20)
//!     sealed (0):  the sender's key (32) and session (8), the receiver's session (8)
//!                  the body, encrypted: the number of the send (8) if it wants to be confirmed, then what it says; tag (16)
//!     open (1):    the body
//!     foreign (2): length (1) and nonce as text, length (1) of the path and its ids (20 each), JSON
//! ```
//!
//! The tag authenticates all from the flags on. A message with `confirm` is answered by each hop, under the hop number that the
//! previous one has given it.

use bytes::{BufMut, Bytes, BytesMut};

use super::api::{Kind, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH};
use crate::overlay::OverlayId;
use crate::overlay::seal::{Contact, NONCE_BYTES, PublicKey, Session, TAG_BYTES};

pub(super) const VERSION: u8 = 1;

pub(super) const HELLO: u8 = 0;
pub(super) const ROUTING: u8 = 1;
pub(super) const MESSAGE: u8 = 2;
pub(super) const TAKEN: u8 = 3;
pub(super) const REFUSED: u8 = 4;
pub(super) const PING: u8 = 5;
pub(super) const PONG: u8 = 6;

const CONFIRM: u8 = 1 << 2;
const CLOSEST: u8 = 1 << 3;

/// Where the authenticated part begins.
const FLAGS_AT: usize = 6;
const NONCE_AT: usize = 8;
const TO_AT: usize = 20;
const FROM_AT: usize = 40;
const HEAD_BYTES: usize = 60;
const OUR_SESSION_AT: usize = 92;
const THEIR_SESSION_AT: usize = 100;
const SEALED_AT: usize = 108;

/// The hop number of what is not kept.
pub(super) const NO_HOP: u32 = u32::MAX;

pub(super) type Nonce = [u8; NONCE_BYTES];

/// How a message is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Sealed = 0,
    Open = 1,
    Foreign = 2,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For those above the router.
    User(Kind),
    /// A message of the routing table, to whoever is closest.
    Routing,
    /// Asks for the receiver's contact: a random number (8).
    KeyRequest,
    /// Answers: that number, then 0, key (32) and session (8); or 1, for a neighbour that is an original.
    KeyReply,
    /// What was sent to us was sealed for another session.
    Stale,
    /// It has the number of the send that has arrived.
    Receipt,
}

impl Purpose {
    /// Whether it makes links, or is an answer.
    pub(super) fn follows_trails_first(self) -> bool {
        matches!(self, Self::User(Kind::Signal) | Self::KeyRequest | Self::KeyReply | Self::Stale | Self::Receipt)
    }

    fn number(self) -> u8 {
        match self {
            Self::User(Kind::Json) => 0,
            Self::User(Kind::Binary) => 1,
            Self::User(Kind::Datagram) => 2,
            Self::User(Kind::Stream) => 3,
            Self::User(Kind::Signal) => 4,
            Self::User(Kind::Topic) => 5,
            Self::User(Kind::Foreign) => 6,
            Self::Routing => 16,
            Self::KeyRequest => 17,
            Self::KeyReply => 18,
            Self::Stale => 19,
            Self::Receipt => 20,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::User(Kind::Json),
            1 => Self::User(Kind::Binary),
            2 => Self::User(Kind::Datagram),
            3 => Self::User(Kind::Stream),
            4 => Self::User(Kind::Signal),
            5 => Self::User(Kind::Topic),
            6 => Self::User(Kind::Foreign),
            16 => Self::Routing,
            17 => Self::KeyRequest,
            18 => Self::KeyReply,
            19 => Self::Stale,
            20 => Self::Receipt,
            _ => return None,
        })
    }
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// How many more sends it may cause.
    pub(super) hops: u8,
    /// Names it between this hop and the one before.
    pub(super) hop: u32,
    pub(super) mode: Mode,
    pub(super) confirm: bool,
    pub(super) closest: bool,
    pub(super) purpose: Purpose,
    pub(super) nonce: Nonce,
    pub(super) to: OverlayId,
    pub(super) from: OverlayId,
}

fn id(bytes: &[u8]) -> Option<OverlayId> {
    Some(OverlayId::from_bytes(bytes.get(..OverlayId::BYTES)?.try_into().ok()?))
}

impl Head {
    /// Reads the head of a packet that is a message. `None` if there is none, or one that makes no sense.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let head = packet.get(..HEAD_BYTES)?;
        let flags = head[FLAGS_AT];
        let mode = match flags & 0b11 {
            0 if packet.len() >= SEALED_AT + TAG_BYTES => Mode::Sealed,
            1 => Mode::Open,
            2 => Mode::Foreign,
            _ => return None,
        };
        let (confirm, closest) = (flags & CONFIRM != 0, flags & CLOSEST != 0);
        let purpose = Purpose::of(head[FLAGS_AT + 1])?;
        let makes_sense = match (mode, purpose) {
            (Mode::Foreign, Purpose::User(Kind::Foreign)) => !confirm && !closest,
            (_, Purpose::User(Kind::Foreign)) | (Mode::Foreign, _) => false,
            (Mode::Sealed, Purpose::User(_)) => !closest,
            (Mode::Sealed, Purpose::Receipt) => !closest && confirm,
            (Mode::Open, Purpose::User(_) | Purpose::Routing) => closest && !confirm,
            (Mode::Open, Purpose::KeyRequest | Purpose::KeyReply) => !closest && confirm,
            (Mode::Open, Purpose::Stale) => !closest && !confirm,
            _ => false,
        };
        (makes_sense && flags >> 4 == 0).then_some(Self {
            hops: head[1],
            hop: u32::from_be_bytes(head[2..FLAGS_AT].try_into().ok()?),
            mode,
            confirm,
            closest,
            purpose,
            nonce: head[NONCE_AT..TO_AT].try_into().ok()?,
            to: id(&head[TO_AT..])?,
            from: id(&head[FROM_AT..])?,
        })
    }

    fn write(&self, packet: &mut BytesMut) {
        packet.put_u8(MESSAGE);
        packet.put_u8(self.hops);
        packet.put_u32(self.hop);
        let (confirm, closest) = (u8::from(self.confirm) * CONFIRM, u8::from(self.closest) * CLOSEST);
        packet.put_u8(self.mode as u8 | confirm | closest);
        packet.put_u8(self.purpose.number());
        packet.put_slice(&self.nonce);
        packet.put_slice(self.to.as_bytes());
        packet.put_slice(self.from.as_bytes());
    }

    /// A message that is not sealed.
    pub(super) fn open(&self, body: &[u8]) -> Bytes {
        let mut packet = BytesMut::with_capacity(HEAD_BYTES + body.len());
        self.write(&mut packet);
        packet.put_slice(body);
        packet.freeze()
    }

    /// A message that is to be sealed, with room for the tag.
    pub(super) fn sealed(&self, ours: &Contact, theirs: &Contact, number: Option<u64>, body: &[u8]) -> BytesMut {
        let mut packet = BytesMut::with_capacity(SEALED_AT + 8 + body.len() + TAG_BYTES);
        self.write(&mut packet);
        packet.put_slice(ours.key.as_bytes());
        packet.put_slice(ours.session.as_bytes());
        packet.put_slice(theirs.session.as_bytes());
        if let Some(number) = number {
            packet.put_u64(number);
        }
        packet.put_slice(body);
        packet
    }
}

/// The authenticated header, and what is sealed, of a sealed message.
pub(super) fn split_sealed(packet: &mut [u8]) -> (&[u8], &mut [u8]) {
    let (header, body) = packet.split_at_mut(SEALED_AT);
    (&header[FLAGS_AT..], body)
}

/// The contact of the sender of a sealed message, and the session of the receiver for which it was sealed.
pub(super) fn sessions(packet: &[u8]) -> Option<(Contact, Session)> {
    let key = PublicKey::from_bytes(packet.get(HEAD_BYTES..OUR_SESSION_AT)?.try_into().ok()?);
    let session = |at: usize| Some(Session::from_bytes(packet.get(at..at + Session::BYTES)?.try_into().ok()?));
    Some((Contact { key, session: session(OUR_SESSION_AT)? }, session(THEIR_SESSION_AT)?))
}

/// What an opened message says.
pub(super) fn opened(packet: Bytes) -> Bytes {
    packet.slice(SEALED_AT..packet.len() - TAG_BYTES)
}

/// What a message says that is not sealed.
pub(super) fn body(packet: &Bytes) -> Bytes {
    packet.slice(HEAD_BYTES..)
}

/// What tells messages of one sender with one nonce apart: the tag of a sealed one.
pub(super) fn end(packet: &[u8]) -> &[u8] {
    &packet[packet.len().saturating_sub(TAG_BYTES).max(FLAGS_AT)..]
}

/// The packet with what the next hop is to read. Copies it only if somebody else has it too.
pub(super) fn readdressed(packet: Bytes, hops: u8, hop: u32) -> Bytes {
    let mut packet = packet.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    packet[1] = hops;
    packet[2..FLAGS_AT].copy_from_slice(&hop.to_be_bytes());
    packet.freeze()
}

pub(super) fn hello(routing: u8, session: &Session, asks: bool) -> Bytes {
    let mut packet = BytesMut::with_capacity(4 + Session::BYTES);
    packet.put_slice(&[HELLO, VERSION, routing]);
    packet.put_slice(session.as_bytes());
    packet.put_u8(asks.into());
    packet.freeze()
}

/// Which routing, which session, and whether a hello is wanted. Later versions may say more behind it.
pub(super) fn parse_hello(packet: &[u8]) -> Option<(u8, Session, bool)> {
    let session = packet.get(3..3 + Session::BYTES)?.try_into().ok()?;
    let asks = *packet.get(3 + Session::BYTES)? != 0;
    (packet[1] >= VERSION).then_some((packet[2], Session::from_bytes(session), asks))
}

pub(super) fn routing(message: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(1 + message.len());
    packet.put_u8(ROUTING);
    packet.put_slice(message);
    packet.freeze()
}

pub(super) fn taken(hop: u32) -> Bytes {
    let [a, b, c, d] = hop.to_be_bytes();
    Bytes::copy_from_slice(&[TAKEN, a, b, c, d])
}

/// A message goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How many more sends it may cause.
    pub(super) hops: u8,
    /// Somebody to whom it was sent has not answered, and may have it.
    pub(super) is_unsure: bool,
}

pub(super) fn refused(hop: u32, Refusal { hops, is_unsure }: Refusal) -> Bytes {
    let [a, b, c, d] = hop.to_be_bytes();
    Bytes::copy_from_slice(&[REFUSED, a, b, c, d, hops, is_unsure.into()])
}

/// The hop number of an answer, and what it says if it is a refusal.
pub(super) fn parse_answer(packet: &[u8]) -> Option<(u32, Option<Refusal>)> {
    let hop = u32::from_be_bytes(packet.get(1..5)?.try_into().ok()?);
    let refusal = || Some(Refusal { hops: *packet.get(5)?, is_unsure: packet.get(6).is_some_and(|byte| *byte != 0) });
    let refused = if packet[0] == REFUSED { Some(refusal()?) } else { None };
    Some((hop, refused))
}

/// What answers a request for a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Contact(Contact),
    Original,
}

pub(super) fn key_reply(number: u64, reply: &Reply) -> Bytes {
    let mut body = BytesMut::with_capacity(9 + PublicKey::BYTES + Session::BYTES);
    body.put_u64(number);
    match reply {
        Reply::Contact(contact) => {
            body.put_u8(0);
            body.put_slice(contact.key.as_bytes());
            body.put_slice(contact.session.as_bytes());
        }
        Reply::Original => body.put_u8(1),
    }
    body.freeze()
}

pub(super) fn parse_number(body: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(body.get(..8)?.try_into().ok()?))
}

pub(super) fn parse_key_reply(body: &[u8]) -> Option<(u64, Reply)> {
    let reply = match (body.get(8)?, body.get(9..9 + PublicKey::BYTES + Session::BYTES)) {
        (0, Some(contact)) => {
            let (key, session) = contact.split_at(PublicKey::BYTES);
            Reply::Contact(Contact {
                key: PublicKey::from_bytes(key.try_into().ok()?),
                session: Session::from_bytes(session.try_into().ok()?),
            })
        }
        (1, _) => Reply::Original,
        _ => return None,
    };
    Some((parse_number(body)?, reply))
}

/// The body of a foreign message.
pub(super) fn foreign(nonce: &str, path: &[OverlayId], data: &str) -> Bytes {
    let mut body = BytesMut::with_capacity(2 + nonce.len() + path.len() * OverlayId::BYTES + data.len());
    body.put_u8(nonce.len() as u8);
    body.put_slice(nonce.as_bytes());
    body.put_u8(path.len() as u8);
    for id in path {
        body.put_slice(id.as_bytes());
    }
    body.put_slice(data.as_bytes());
    body.freeze()
}

/// The nonce and the path of a foreign message, and where in the body the JSON begins.
pub(super) fn parse_foreign(body: &[u8]) -> Option<(&str, Vec<OverlayId>, usize)> {
    let length = usize::from(*body.first()?);
    let nonce = body.get(1..1 + length)?;
    let path_at = 2 + length;
    let hops = usize::from(*body.get(path_at - 1)?);
    if length > MAX_FOREIGN_NONCE_BYTES || hops > MAX_FOREIGN_PATH {
        return None;
    }
    let data_at = path_at + hops * OverlayId::BYTES;
    let path = body.get(path_at..data_at)?.chunks_exact(OverlayId::BYTES).filter_map(id).collect();
    Some((std::str::from_utf8(nonce).ok()?, path, data_at))
}
