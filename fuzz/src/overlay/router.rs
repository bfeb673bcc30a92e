//! The packets between neighbours.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use super::seal::{Contact, PublicKey, Session, TAG_BYTES};
use super::{any_id, any_ids};
use crate::memory;

#[path = "../../../src/overlay/router/api.rs"]
mod api;
#[path = "../../../src/overlay/router/wire.rs"]
mod wire;

pub(crate) use api::{ForeignMessage, Kind, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH};
use wire::{Head, Mode, Purpose, Reply};

/// Reading a packet holds no more than a path.
const MOST_MEMORY: usize = 1024;

/// Either any bytes are read, or, after a byte that no packet begins with, any packet is written.
pub fn check(data: &[u8]) {
    if let [255, data @ ..] = data {
        // The input is at its end: nothing to check.
        let _ = any_packet(&mut Unstructured::new(data));
    } else {
        let packet = Bytes::copy_from_slice(data);
        let (_, peak) = memory::peak(|| any_bytes(&packet));
        assert!(peak <= MOST_MEMORY + 4 * data.len(), "{peak} bytes for {}", data.len());
    }
}

/// What is read is written as it was.
fn any_bytes(packet: &Bytes) {
    if let Some(head) = Head::parse(packet) {
        let written = head.open(&wire::body(packet));
        assert_eq!(written[1..], packet[1..]);
        assert!(wire::end(packet).len() >= TAG_BYTES);
        if head.mode == Mode::Sealed {
            let (ours, theirs) = wire::sessions(packet).expect("a sealed message names sessions");
            let theirs = Contact { key: ours.key, session: theirs };
            let opened = wire::opened(packet.clone());
            let mut again = head.sealed(&ours, &theirs, None, &opened);
            again.extend_from_slice(wire::end(packet));
            assert_eq!(again[1..], packet[1..]);
            let (header, sealed) = wire::split_sealed(&mut again);
            assert_eq!((header.len() + sealed.len(), sealed.len()), (packet.len() - 6, opened.len() + TAG_BYTES));
        }
        check_foreign(&wire::body(packet));
    }
    check_foreign(packet);
    if let Some((routing, session, asks)) = wire::parse_hello(packet) {
        assert_eq!(wire::parse_hello(&wire::hello(routing, &session, asks)), Some((routing, session, asks)));
    }
    if let Some((hop, refused)) = wire::parse_answer(packet) {
        let written = refused.map_or_else(|| wire::taken(hop), |hops| wire::refused(hop, hops));
        assert_eq!(wire::parse_answer(&written), Some((hop, refused)));
        assert_eq!(written[1..5], packet[1..5]);
    }
    if let Some((number, reply)) = wire::parse_key_reply(packet) {
        assert!(packet.starts_with(&wire::key_reply(number, &reply)));
        assert_eq!(wire::parse_number(packet), Some(number));
    }
}

fn check_foreign(body: &[u8]) {
    let Some((nonce, path, data_at)) = wire::parse_foreign(body) else { return };
    assert!(nonce.len() <= MAX_FOREIGN_NONCE_BYTES && path.len() <= MAX_FOREIGN_PATH);
    let written = wire::foreign(nonce, &path, "");
    assert_eq!(written, body[..data_at]);
}

fn any_contact(input: &mut Unstructured<'_>) -> Result<Contact> {
    let key = PublicKey::from_bytes(input.arbitrary()?);
    Ok(Contact { key, session: Session::from_bytes(input.arbitrary()?) })
}

/// What is written is read as it was.
fn any_packet(input: &mut Unstructured<'_>) -> Result<()> {
    let kinds = [Kind::Json, Kind::Binary, Kind::Datagram, Kind::Stream, Kind::Signal, Kind::Topic].map(Purpose::User);
    let (mode, confirm, closest, purposes) = match input.int_in_range(0..=6)? {
        0 => (Mode::Sealed, input.arbitrary()?, false, &kinds[..]),
        1 => (Mode::Sealed, true, false, &[Purpose::Receipt][..]),
        2 => (Mode::Open, false, true, &kinds[..]),
        3 => (Mode::Open, false, true, &[Purpose::Routing][..]),
        4 => (Mode::Open, true, false, &[Purpose::KeyRequest, Purpose::KeyReply][..]),
        5 => (Mode::Open, false, false, &[Purpose::Stale][..]),
        _ => (Mode::Foreign, false, false, &[Purpose::User(Kind::Foreign)][..]),
    };
    let head = Head {
        hops: input.arbitrary()?,
        hop: input.arbitrary()?,
        mode,
        confirm,
        closest,
        purpose: *input.choose(purposes)?,
        nonce: input.arbitrary()?,
        to: any_id(input)?,
        from: any_id(input)?,
    };
    let (ours, theirs) = (any_contact(input)?, any_contact(input)?);
    let (number, hop, hops): (u64, u32, u8) = input.arbitrary()?;
    let path = any_ids(input, MAX_FOREIGN_PATH)?;
    let nonce = "7".repeat(input.int_in_range(0..=MAX_FOREIGN_NONCE_BYTES + 1)?);
    let text: String = input.arbitrary()?;
    let packet = match mode {
        Mode::Sealed => {
            let mut packet = head.sealed(&ours, &theirs, confirm.then_some(number), text.as_bytes());
            packet.extend_from_slice(&[7; TAG_BYTES]);
            let opened = wire::opened(packet.clone().freeze());
            let (said, known) = if confirm { opened.split_at(8) } else { (&[][..], &opened[..]) };
            assert!((!confirm || wire::parse_number(said) == Some(number)) && known == text.as_bytes());
            assert_eq!(wire::sessions(&packet), Some((ours, theirs.session)));
            packet.freeze()
        }
        Mode::Open => head.open(text.as_bytes()),
        Mode::Foreign => {
            let body = wire::foreign(&nonce, &path, &text);
            let fits = nonce.len() <= MAX_FOREIGN_NONCE_BYTES && path.len() <= MAX_FOREIGN_PATH;
            let read = wire::parse_foreign(&body).map(|(nonce, path, at)| (nonce.to_owned(), path, body.slice(at..)));
            assert_eq!(read, fits.then(|| (nonce, path, text.clone().into())));
            head.open(&body)
        }
    };
    assert_eq!(Head::parse(&packet), Some(head));
    let further = wire::readdressed(packet, hops, hop);
    assert_eq!(Head::parse(&further), Some(Head { hop, hops, ..head }));
    for reply in [Reply::Contact(theirs), Reply::Original] {
        assert_eq!(wire::parse_key_reply(&wire::key_reply(number, &reply)), Some((number, reply)));
    }
    assert_eq!(wire::parse_answer(&wire::taken(hop)), Some((hop, None)));
    let refusal = wire::Refusal { hops, is_unsure: confirm };
    assert_eq!(wire::parse_answer(&wire::refused(hop, refusal)), Some((hop, Some(refusal))));
    assert_eq!(wire::parse_hello(&wire::hello(hops, &ours.session, confirm)), Some((hops, ours.session, confirm)));
    Ok(())
}
