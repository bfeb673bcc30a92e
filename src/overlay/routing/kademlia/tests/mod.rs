//! Tables alone, against hostile neighbours, and in networks.

mod alone;
mod hostile;
mod network;
mod sim;

use super::*;

/// An id that differs from zero first at the bit with this number.
fn in_bucket(bucket: u32, number: u32) -> OverlayId {
    let mut bytes = [0; OverlayId::BYTES];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    let at = OverlayId::BYTES - 1 - bucket as usize / 8;
    bytes[at] |= 1 << (bucket % 8);
    OverlayId::from_bytes(bytes)
}

/// The table of the peer with id zero.
fn table(config: KademliaConfig, now: Instant) -> Kademlia {
    Kademlia::new(OverlayId::from_bytes([0; 20]), config, 1, now)
}

fn actions(table: &mut Kademlia) -> Vec<Action> {
    let actions = std::iter::from_fn(|| table.poll_action());
    actions.filter(|action| !matches!(action, Action::Trail { .. })).collect()
}

/// The neighbours that are asked, with the tokens and the targets of the questions.
fn questions(actions: &[Action]) -> Vec<(OverlayId, u32, OverlayId)> {
    let question = |action: &Action| match action {
        Action::Tell { to, message } => match Message::decode(message) {
            Some(Message::Find { token, target, .. }) => Some((*to, token, target)),
            _ => None,
        },
        _ => None,
    };
    actions.iter().filter_map(question).collect()
}

fn wishes(actions: &[Action]) -> Vec<OverlayId> {
    actions.iter().filter_map(|action| if let Action::Connect(id) = action { Some(*id) } else { None }).collect()
}
