//! What members of a topic say to each other.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use super::{OverlayId, any_id, any_ids};
use crate::{memory, proof};

#[path = "../../../src/overlay/topics/message.rs"]
mod message;
#[path = "../../../src/overlay/topics/wire.rs"]
mod wire;

use message::{Message, MessageId};
use wire::{MAX_ANNOUNCED, MAX_IDS, Packet};

/// Reading a packet holds no more than what it announces.
const MOST_MEMORY: usize = 16 * 1024;

/// As much of it as the codec needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId(OverlayId);

impl TopicId {
    fn id(&self) -> &OverlayId {
        &self.0
    }
}

impl From<OverlayId> for TopicId {
    fn from(id: OverlayId) -> Self {
        Self(id)
    }
}

/// Either any bytes are read, or, after a byte that no packet begins with, any packet is written.
pub fn check(data: &[u8]) {
    match data {
        // An error means that the input is at its end: nothing to check.
        [0, data @ ..] => drop(any_packet(&mut Unstructured::new(data))),
        [255, data @ ..] => drop(any_message(&mut Unstructured::new(data))),
        data => any_bytes(Bytes::copy_from_slice(data)),
    }
}

/// What is read is written as it was.
fn any_bytes(data: Bytes) {
    let (read, peak) = memory::peak(|| Packet::decode(data.clone()));
    assert!(peak <= MOST_MEMORY, "{peak} bytes for {}", data.len());
    let Some((topic, packet)) = read else { return };
    assert_eq!(packet.encode(&topic), data);
    if let Packet::Gossip { message, .. } = packet {
        // Nobody has signed it.
        assert_eq!(Message::open(&topic, message), None);
    }
}

fn any_message_id(input: &mut Unstructured<'_>) -> Result<MessageId> {
    Ok(MessageId(input.arbitrary()?))
}

/// What is written is read as it was. Lists that are too long are malformed.
fn any_packet(input: &mut Unstructured<'_>) -> Result<()> {
    let topic = TopicId(any_id(input)?);
    let kind = input.int_in_range(0..=15)?;
    let peer = any_id(input)?;
    let (ttl, flag, token): (u8, bool, u64) = input.arbitrary()?;
    let ids = any_ids(input, MAX_IDS)?;
    let announced = match input.int_in_range(0..=3)? {
        0 => MAX_ANNOUNCED,
        1 => MAX_ANNOUNCED + 1,
        _ => input.int_in_range(0..=MAX_ANNOUNCED)?,
    };
    let message = any_message_id(input)?;
    let fits = match kind {
        4 | 5 | 6 | 11 => ids.len() <= MAX_IDS,
        8 => announced <= MAX_ANNOUNCED,
        _ => true,
    };
    let packet = match kind {
        0 => Packet::Join,
        1 => Packet::ForwardJoin { peer, ttl },
        2 => Packet::Neighbour { urgent: flag },
        3 => Packet::Accept,
        4 => Packet::Disconnect { leaving: flag, others: ids },
        5 => Packet::Shuffle { origin: peer, ttl, peers: ids },
        6 => Packet::ShuffleReply { peers: ids },
        7 => Packet::Gossip { hops: ttl, message: input.arbitrary::<Vec<u8>>()?.into() },
        8 => Packet::IHave(vec![(message, ttl); announced]),
        9 => Packet::Graft(flag.then_some(message)),
        10 => Packet::Find { token },
        11 => Packet::Members { token, members: ids },
        12 => Packet::Register,
        13 => Packet::Withdraw,
        14 => Packet::Alive,
        _ => Packet::Prune,
    };
    let written = packet.encode(&topic);
    assert_eq!(written[0] >= 16, packet.is_of_rendezvous());
    assert_eq!(Packet::decode(written), fits.then_some((topic, packet)));
    Ok(())
}

/// A message is that of its origin, in its topic, as it was, or none.
fn any_message(input: &mut Unstructured<'_>) -> Result<()> {
    let (identity, topic) = (proof::any_identity(input)?, TopicId(any_id(input)?));
    let (number, body): (u64, Vec<u8>) = input.arbitrary()?;
    let mut message = Message::sign(&identity, &topic, number, &body).to_vec();
    let (at, change): (usize, u8) = input.arbitrary()?;
    let at = at % message.len();
    message[at] ^= change;
    let opened = Message::open(&topic, message.into());
    assert_eq!(opened.is_some(), change == 0);
    if let Some(Message { origin, number: said, body: known }) = opened {
        assert_eq!((origin, said, &known[..]), (OverlayId::of(&identity.peer_id()), number, &body[..]));
    }
    Ok(())
}
