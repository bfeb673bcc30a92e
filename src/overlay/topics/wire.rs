//! What peers say to each other about a topic, as bytes.
//!
//! ```text
//! packet:   what it is (1), the topic (20), then as below; ids take 20 bytes, numbers are big-endian
//!  1 join            2 forward join: id, ttl 1    3 neighbour: urgent 1     4 accept
//!  5 disconnect: leaving 1, ids                   6 shuffle: id, ttl 1, ids
//!  7 shuffle reply: ids                           8 alive
//!  9 gossip: hops 1, a message (see `message`)   10 i have: for each the message's id 16, hops 1
//! 11 graft: the message's id 16, or none         12 prune
//! 16 find: token 8                               17 members: token 8, ids
//! 18 register                                    19 withdraw
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TopicId;
use super::message::MessageId;
use crate::overlay::OverlayId;

/// The most ids in a packet. One with more is malformed.
pub(super) const MAX_IDS: usize = 32;
/// The most messages that a packet announces. One with more is malformed.
pub(super) const MAX_ANNOUNCED: usize = 256;
/// Bytes before the message in a packet of gossip.
pub(super) const GOSSIP_OVERHEAD: usize = 1 + OverlayId::BYTES + 1;

/// What is said about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// Let me in.
    Join,
    /// Somebody has joined. It takes as many more steps at random as `ttl` says.
    ForwardJoin { peer: OverlayId, ttl: u8 },
    /// Let us be neighbours: if it is urgent, even if somebody else must go.
    Neighbour { urgent: bool },
    /// We are neighbours.
    Accept,
    /// We are not neighbours, or not any more. Here are others.
    Disconnect { leaving: bool, others: Vec<OverlayId> },
    /// Some peers that `origin` knows, for some of whoever is at the end of the steps.
    Shuffle { origin: OverlayId, ttl: u8, peers: Vec<OverlayId> },
    /// The answer to it.
    ShuffleReply { peers: Vec<OverlayId> },
    /// Nothing, so that the neighbour knows that we are there.
    Alive,
    /// A message, which has come so many hops.
    Gossip { hops: u8, message: Bytes },
    /// Messages that we have.
    IHave(Vec<(MessageId, u8)>),
    /// Send me messages from now on, and that one now.
    Graft(Option<MessageId>),
    /// Do not send me messages, only announce them.
    Prune,
    /// To whoever is closest to a point of the topic: who are its members?
    Find { token: u64 },
    /// Some of them, if any.
    Members { token: u64, members: Vec<OverlayId> },
    /// Count me in.
    Register,
    /// Count me out.
    Withdraw,
}

impl Packet {
    pub(super) fn encode(&self, topic: &TopicId) -> Bytes {
        let mut to = BytesMut::with_capacity(64 + self.size_hint());
        to.put_u8(self.kind());
        to.put_slice(topic.id().as_bytes());
        match self {
            Self::Join | Self::Accept | Self::Alive | Self::Prune | Self::Register | Self::Withdraw => {}
            Self::ForwardJoin { peer, ttl } => {
                to.put_slice(peer.as_bytes());
                to.put_u8(*ttl);
            }
            Self::Neighbour { urgent } => to.put_u8((*urgent).into()),
            Self::Disconnect { leaving, others } => {
                to.put_u8((*leaving).into());
                put_ids(&mut to, others);
            }
            Self::Shuffle { origin, ttl, peers } => {
                to.put_slice(origin.as_bytes());
                to.put_u8(*ttl);
                put_ids(&mut to, peers);
            }
            Self::ShuffleReply { peers } => put_ids(&mut to, peers),
            Self::Gossip { hops, message } => {
                to.put_u8(*hops);
                to.put_slice(message);
            }
            Self::IHave(messages) => {
                for (message, hops) in messages {
                    to.put_slice(&message.0);
                    to.put_u8(*hops);
                }
            }
            Self::Graft(message) => to.put_slice(message.as_ref().map_or(&[], |message| &message.0)),
            Self::Find { token } => to.put_u64(*token),
            Self::Members { token, members } => {
                to.put_u64(*token);
                put_ids(&mut to, members);
            }
        }
        to.freeze()
    }

    /// `None` if it is malformed.
    pub(super) fn decode(mut from: Bytes) -> Option<(TopicId, Self)> {
        let kind = from.try_get_u8().ok()?;
        let topic = TopicId::from(id(&mut from)?);
        let packet = match kind {
            1 => Self::Join,
            2 => Self::ForwardJoin { peer: id(&mut from)?, ttl: from.try_get_u8().ok()? },
            3 => Self::Neighbour { urgent: flag(&mut from)? },
            4 => Self::Accept,
            5 => Self::Disconnect { leaving: flag(&mut from)?, others: ids(&mut from)? },
            6 => Self::Shuffle { origin: id(&mut from)?, ttl: from.try_get_u8().ok()?, peers: ids(&mut from)? },
            7 => Self::ShuffleReply { peers: ids(&mut from)? },
            8 => Self::Alive,
            9 => Self::Gossip { hops: from.try_get_u8().ok()?, message: from.split_off(0) },
            10 => Self::IHave(announced(&mut from)?),
            11 if from.is_empty() => Self::Graft(None),
            11 => Self::Graft(Some(MessageId(array(&mut from)?))),
            12 => Self::Prune,
            16 => Self::Find { token: from.try_get_u64().ok()? },
            17 => Self::Members { token: from.try_get_u64().ok()?, members: ids(&mut from)? },
            18 => Self::Register,
            19 => Self::Withdraw,
            _ => return None,
        };
        from.is_empty().then_some((topic, packet))
    }

    pub(super) fn is_of_rendezvous(&self) -> bool {
        matches!(self, Self::Find { .. } | Self::Members { .. } | Self::Register | Self::Withdraw)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Join => 1,
            Self::ForwardJoin { .. } => 2,
            Self::Neighbour { .. } => 3,
            Self::Accept => 4,
            Self::Disconnect { .. } => 5,
            Self::Shuffle { .. } => 6,
            Self::ShuffleReply { .. } => 7,
            Self::Alive => 8,
            Self::Gossip { .. } => 9,
            Self::IHave(_) => 10,
            Self::Graft(_) => 11,
            Self::Prune => 12,
            Self::Find { .. } => 16,
            Self::Members { .. } => 17,
            Self::Register => 18,
            Self::Withdraw => 19,
        }
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Gossip { message, .. } => message.len(),
            Self::IHave(messages) => messages.len() * (MessageId::BYTES + 1),
            _ => 0,
        }
    }
}

fn put_ids(to: &mut BytesMut, ids: &[OverlayId]) {
    for id in ids {
        to.put_slice(id.as_bytes());
    }
}

fn array<const N: usize>(from: &mut Bytes) -> Option<[u8; N]> {
    let mut array = [0; N];
    from.try_copy_to_slice(&mut array).ok()?;
    Some(array)
}

fn id(from: &mut Bytes) -> Option<OverlayId> {
    array(from).map(OverlayId::from_bytes)
}

fn flag(from: &mut Bytes) -> Option<bool> {
    match from.try_get_u8() {
        Ok(0) => Some(false),
        Ok(1) => Some(true),
        _ => None,
    }
}

/// All that follows.
fn ids(from: &mut Bytes) -> Option<Vec<OverlayId>> {
    if from.len() > MAX_IDS * OverlayId::BYTES {
        return None;
    }
    let mut ids = Vec::with_capacity(from.len() / OverlayId::BYTES);
    while !from.is_empty() {
        ids.push(id(from)?);
    }
    Some(ids)
}

/// All that follows.
fn announced(from: &mut Bytes) -> Option<Vec<(MessageId, u8)>> {
    const EACH: usize = MessageId::BYTES + 1;
    if from.len() > MAX_ANNOUNCED * EACH {
        return None;
    }
    let mut messages = Vec::with_capacity(from.len() / EACH);
    while !from.is_empty() {
        messages.push((MessageId(array(from)?), from.try_get_u8().ok()?));
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peers() -> impl Strategy<Value = Vec<OverlayId>> {
        prop::collection::vec(any::<[u8; 20]>().prop_map(OverlayId::from_bytes), 0..=MAX_IDS)
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let id = || any::<[u8; 20]>().prop_map(OverlayId::from_bytes);
        let message = || any::<[u8; 16]>().prop_map(MessageId);
        prop_oneof![
            prop::sample::select(vec![
                Packet::Join,
                Packet::Accept,
                Packet::Alive,
                Packet::Prune,
                Packet::Register,
                Packet::Withdraw,
            ]),
            (id(), any::<u8>()).prop_map(|(peer, ttl)| Packet::ForwardJoin { peer, ttl }),
            any::<bool>().prop_map(|urgent| Packet::Neighbour { urgent }),
            (any::<bool>(), peers()).prop_map(|(leaving, others)| Packet::Disconnect { leaving, others }),
            (id(), any::<u8>(), peers()).prop_map(|(origin, ttl, peers)| Packet::Shuffle { origin, ttl, peers }),
            peers().prop_map(|peers| Packet::ShuffleReply { peers }),
            (any::<u8>(), any::<Vec<u8>>())
                .prop_map(|(hops, message)| Packet::Gossip { hops, message: message.into() }),
            prop::collection::vec((message(), any::<u8>()), 0..=MAX_ANNOUNCED).prop_map(Packet::IHave),
            prop::option::of(message()).prop_map(Packet::Graft),
            any::<u64>().prop_map(|token| Packet::Find { token }),
            (any::<u64>(), peers()).prop_map(|(token, members)| Packet::Members { token, members }),
        ]
    }

    proptest! {
        #[test]
        fn packets_survive(packet in packets(), topic: [u8; 20]) {
            let topic = TopicId::from(OverlayId::from_bytes(topic));
            prop_assert_eq!(Packet::decode(packet.encode(&topic)), Some((topic, packet)));
        }

        #[test]
        fn bytes_are_a_packet_or_none(mut bytes: Vec<u8>, kind in 0u8..21) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Some((topic, packet)) = Packet::decode(bytes.clone().into()) {
                prop_assert_eq!(packet.encode(&topic), bytes);
            }
        }
    }

    #[test]
    fn too_many_is_malformed() {
        let topic = TopicId::of("topic");
        let id = *topic.id();
        for (count, taken) in [(MAX_IDS, true), (MAX_IDS + 1, false), (2000, false)] {
            let packet = Packet::ShuffleReply { peers: vec![id; count] }.encode(&topic);
            assert_eq!(Packet::decode(packet).is_some(), taken);
        }
        for (count, taken) in [(MAX_ANNOUNCED, true), (MAX_ANNOUNCED + 1, false)] {
            let packet = Packet::IHave(vec![(MessageId([1; 16]), 0); count]).encode(&topic);
            assert_eq!(Packet::decode(packet).is_some(), taken);
        }
    }
}
