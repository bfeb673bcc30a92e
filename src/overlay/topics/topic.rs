//! One topic: its members as far as they are known, and its messages.

use std::time::Instant;

use bytes::Bytes;

use super::broadcast::{Broadcast, Gossiped};
use super::history::Allowance;
use super::membership::Membership;
use super::wire::Packet;
use super::{Counters, TopicId, TopicsConfig};
use crate::overlay::OverlayId;

/// What a topic wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Send(OverlayId, Packet),
    Up(OverlayId),
    Down(OverlayId),
    Deliver { origin: OverlayId, body: Bytes },
}

#[derive(Debug)]
pub(super) struct Topic {
    membership: Membership,
    broadcast: Broadcast,
    /// What we may send ourselves.
    pub(super) ours: Allowance,
}

impl Topic {
    pub(super) fn new(me: OverlayId, topic: TopicId, config: &TopicsConfig, seed: u64, now: Instant) -> Self {
        Self {
            membership: Membership::new(me, config, seed, now),
            broadcast: Broadcast::new(me, topic),
            ours: Allowance::new(config.origin_rate),
        }
    }

    pub(super) fn neighbours(&self) -> impl Iterator<Item = &OverlayId> {
        self.membership.neighbours()
    }

    pub(super) fn has_neighbour(&self, peer: &OverlayId) -> bool {
        self.membership.is_neighbour(peer)
    }

    pub(super) fn candidates(&mut self, peers: &[OverlayId], config: &TopicsConfig, now: Instant) {
        self.membership.candidates(peers, config, now);
    }

    pub(super) fn broadcast(&mut self, number: u64, message: Bytes, config: &TopicsConfig, now: Instant) {
        self.broadcast.broadcast(number, message, config, now);
    }

    pub(super) fn leave(&mut self) {
        self.membership.leave();
    }

    pub(super) fn gone(&mut self, peer: &OverlayId, config: &TopicsConfig, now: Instant) {
        self.membership.gone(peer, config, now);
    }

    pub(super) fn receive(
        &mut self,
        from: OverlayId,
        packet: Packet,
        config: &TopicsConfig,
        counters: &mut Counters,
        now: Instant,
    ) {
        let members = &mut self.membership;
        members.heard(&from, now);
        match packet {
            Packet::Join => members.joined(from, config, now),
            Packet::Neighbour { urgent } => members.neighbour_asked(from, urgent, config, now),
            Packet::Accept => members.accepted(from, config, now),
            Packet::Disconnect { leaving, others } => members.disconnected(from, leaving, &others, config, now),
            Packet::Shuffle { origin, ttl, peers } => members.shuffled(from, (origin, ttl), peers, config, now),
            Packet::ShuffleReply { peers } => members.shuffle_answered(&peers, config, now),
            // A message is good whoever brings it: it may have been on its way when the link ended.
            Packet::Gossip { hops, message } => {
                let gossiped = self.broadcast.gossip(from, hops, message, config, now);
                counters.count(gossiped);
                if gossiped == Gossiped::Forged {
                    members.expel(from, config, now);
                } else if !members.is_neighbour(&from) {
                    members.refuse(from, false);
                }
            }
            // Who takes us for a neighbour is told that we are not.
            _ if !members.is_neighbour(&from) => members.refuse(from, false),
            Packet::ForwardJoin { peer, ttl } => members.forward_joined(from, peer, ttl, config, now),
            Packet::IHave(messages) => self.broadcast.announced(from, messages, now),
            Packet::Graft(message) => self.broadcast.graft(from, message, now),
            Packet::Prune => self.broadcast.prune(&from),
            Packet::Alive => {}
            Packet::Find { .. } | Packet::Members { .. } | Packet::Register | Packet::Withdraw => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, config: &TopicsConfig, now: Instant) {
        self.membership.handle_timeout(config, now);
        self.broadcast.handle_timeout(config, now);
    }

    pub(super) fn next_timeout(&self, config: &TopicsConfig) -> Instant {
        self.broadcast.next_timeout().into_iter().fold(self.membership.next_timeout(config), Instant::min)
    }

    /// What is to be done, since it was asked last.
    pub(super) fn take_acts(&mut self, config: &TopicsConfig, now: Instant) -> Vec<Act> {
        let mut acts = std::mem::take(&mut self.membership.acts);
        for act in &acts {
            match act {
                Act::Up(peer) => self.broadcast.up(*peer, config, now),
                Act::Down(peer) => self.broadcast.down(peer),
                Act::Send(..) | Act::Deliver { .. } => {}
            }
        }
        acts.append(&mut self.broadcast.acts);
        for act in &acts {
            if let Act::Send(to, _) = act {
                self.membership.said(to, now);
            }
        }
        acts
    }
}
