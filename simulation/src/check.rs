//! The network as seen from outside: whether the tables are right, and what other rules would do in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use pmesh::overlay::OverlayId;

use crate::queue::Queue;
use crate::world::{Peer, Table, World};

/// The longest path of the original's messages.
const ORIGINAL_PATH: usize = 20;

impl World {
    /// Share of the peers that have the links without which a message may get lost: on a ring to those before and behind, with
    /// buckets to somebody in each bucket that anybody is in.
    pub fn right(&self, table: &Table) -> f64 {
        let mut order: Vec<(OverlayId, Peer)> = self.alive().iter().map(|peer| (self.id(*peer), *peer)).collect();
        order.sort_unstable();
        let right = (0..order.len()).filter(|at| match table {
            Table::Chord(_) => self.ring_right(&order, *at),
            Table::Kademlia(_) => self.buckets_right(&order, *at),
        });
        right.count() as f64 / order.len().max(1) as f64
    }

    fn ring_right(&self, order: &[(OverlayId, Peer)], at: usize) -> bool {
        let count = order.len();
        let sides = [order[(at + 1) % count].1, order[(at + count - 1) % count].1];
        sides.iter().all(|side| *side == order[at].1 || self.links(order[at].1).any(|(_, peer)| peer == *side))
    }

    fn buckets_right(&self, order: &[(OverlayId, Peer)], at: usize) -> bool {
        let (id, peer) = order[at];
        let linked: HashSet<Option<u32>> = self
            .links(peer)
            .filter(|(_, other)| self.router(*other).is_some())
            .map(|(other, _)| id.xor(&other).log2())
            .collect();
        // Towards both sides of the order the buckets come one after the other, so jumping from bucket to bucket finds all.
        let (mut low, mut high) = (at, at);
        while low > 0 || high + 1 < order.len() {
            let below = low.checked_sub(1).and_then(|next| id.xor(&order[next].0).log2());
            let above = order.get(high + 1).and_then(|next| id.xor(&next.0).log2());
            let bucket = match (below, above) {
                (Some(below), Some(above)) => Some(below.min(above)),
                (below, above) => below.or(above),
            };
            if !linked.contains(&bucket) {
                return false;
            }
            low = order[..low].partition_point(|(other, _)| id.xor(other).log2() > bucket);
            high = high + order[high + 1..].partition_point(|(other, _)| id.xor(other).log2() <= bucket);
        }
        true
    }

    /// How many hops a message takes by the tables as they are now, if it does not end on the way.
    pub fn walk(&self, from: Peer, to: Peer) -> Option<u32> {
        let target = self.id(to);
        let mut at = from;
        for hops in 0..64 {
            if at == to {
                return Some(hops);
            }
            at = self.peer(&self.router(at)?.routing().next_hop(&target, &|_| false)?)?;
        }
        None
    }

    /// How many messages the rule of the original peer-relay causes in this network, and whether one arrives: at each hop to the
    /// two neighbours closest to the destination that are not in the path, and to the one that has last delivered something from
    /// there. The destination has sent a message the other way before.
    pub fn original(&self, from: Peer, to: Peer) -> (u64, bool) {
        let mut deliverers = HashMap::new();
        self.original_way(to, from, &mut deliverers);
        self.original_way(from, to, &mut deliverers)
    }

    fn original_way(&self, from: Peer, to: Peer, deliverers: &mut HashMap<(OverlayId, Peer), Peer>) -> (u64, bool) {
        let (source, target) = (self.id(from), self.id(to));
        let (mut messages, mut arrived) = (0, false);
        let mut seen = HashSet::new();
        let mut queue = Queue::new();
        queue.push(0, (from, Vec::new()));
        while let Some((now, (at, mut path))) = queue.pop(u64::MAX) {
            if let Some(before) = path.last() {
                deliverers.insert((source, at), *before);
            }
            if !seen.insert(at) || path.len() >= ORIGINAL_PATH {
                continue;
            }
            if at == to {
                arrived = true;
                continue;
            }
            path.push(at);
            let closest: BTreeMap<_, Peer> = self
                .links(at)
                .filter(|(_, peer)| !path.contains(peer))
                .map(|(id, peer)| (id.xor(&target), peer))
                .collect();
            let mut next: Vec<Peer> = closest.into_values().take(2).collect();
            if let Some(last) = deliverers.get(&(target, at))
                && !next.contains(last)
                && self.links(at).any(|(_, peer)| peer == *last)
            {
                next.push(*last);
            }
            for peer in next {
                messages += 1;
                queue.push(now + self.latency(at, peer), (peer, path.clone()));
            }
        }
        (messages, arrived)
    }
}
