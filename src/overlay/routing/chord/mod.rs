//! A ring as in Chord (Stoica et al., IEEE/ACM Transactions on Networking 2003), with the corrections of Zave (2017).
//!
//! Each peer answers for the ids from its predecessor, exclusive, to itself. It keeps links to its predecessor, to several
//! successors, and to fingers ever further around the ring, and asks its successor from time to time who is between them.
//!
//! Links are connections, so what the paper assumes of addresses is different here:
//!
//! - The table is read off the links: the successors are the first neighbours clockwise, a finger is the first neighbour at or
//!   behind its start. So nobody is in the table that is not there and has not proven its id. Names from others only
//!   lead to connection attempts.
//! - A link is mutual, so its coming up is what `notify` is in the paper, and messages may also go back over the links that
//!   others have made to us. A link stays as long as one of its ends needs it: each tells the other.
//! - A newcomer is no hop on the way of others before its place in the ring is *settled*: its successor has told it of nobody
//!   between them to whom there is no link yet.
//! - Two peers that meet by chance may be of two rings. Each asks for its place in the ring of the other before it is a hop
//!   there, and the links that follow make one ring of the two. In one ring the question comes back to who asked it.
//! - Links that only the other side needs are bounded at each distance: so who comes with many ids in one part of the ring takes its
//!   places there, not those of peers elsewhere. Who has the ids next to ours all the same is our neighbours on the ring, and what we
//!   send to peers nearby goes through it; what is further away goes by fingers, and copies of what is confirmed by other ways.
//! - Former neighbours are tried again, more and more seldom, so that a network that fell apart becomes one again. A peer that
//!   has lost all of its links is to be given a new one by whoever gave it the first.

mod config;
#[cfg(test)]
mod ideal;
mod links;
mod lookup;
mod stabilise;
#[cfg(test)]
mod tests;
mod wire;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use self::config::ChordConfig;
use self::links::{Link, Links};
use self::lookup::Lookup;
use self::wire::Message;
use self::wishes::{Former, Wishes};
use super::{Action, Admission, FingerError, Routing, Row, Sender};
use crate::overlay::{Distance, OverlayId, RingId};

/// Predecessors that a peer names to others. One is needed; of two newcomers at one place each learns of the other sooner.
const PREDECESSORS: usize = 4;
/// Links that we do not need ourselves are told apart by how far they are on the ring, in steps of so many bits.
const STEP_BITS: u32 = 2;
/// Bits of an id below those of the ring of 48 bits.
const BELOW_RING: u32 = OverlayId::BITS - RingId::BITS;

/// A place in a Chord ring. See the [module documentation](self).
///
/// In a ring where nothing changes it sends two messages to its successor and looks up one finger in each
/// [idle interval](ChordConfig::idle_interval).
#[derive(Debug)]
pub struct Chord {
    id: OverlayId,
    config: ChordConfig,
    rng: SmallRng,
    links: Links,
    wishes: Wishes,
    former: Former,
    lookups: BTreeMap<u64, Lookup>,
    /// Rows to look up soon.
    due: BTreeSet<u32>,
    /// A successor was lost, so the nearest link clockwise may be far.
    seek_successor: bool,
    /// The row whose turn it is when none is due.
    turn: usize,
    settled: bool,
    /// The successor that has told us its neighbours since it is our successor.
    confirmed: Option<OverlayId>,
    /// The predecessor and the successors, as they were last.
    near: Vec<OverlayId>,
    /// Something was changed that the table is [read off](Self::refresh).
    stale: bool,
    /// `near` has changed since the last round.
    changed: bool,
    interval: Duration,
    tick_at: Instant,
    /// When neighbours are told that `near` has changed.
    announce_at: Option<Instant>,
    announced: Option<Instant>,
    actions: VecDeque<Action>,
    ignored: u64,
}

impl Chord {
    /// A peer without links. The seed is to differ between peers, and not to be known to others.
    pub fn new(id: OverlayId, config: ChordConfig, seed: u64, now: Instant) -> Self {
        let config = config.in_range();
        Self {
            id,
            rng: SmallRng::seed_from_u64(seed),
            links: Links::new(id),
            wishes: Wishes::default(),
            former: Former::default(),
            lookups: BTreeMap::new(),
            due: BTreeSet::new(),
            seek_successor: false,
            turn: 0,
            settled: false,
            confirmed: None,
            near: Vec::new(),
            stale: false,
            changed: false,
            interval: config.interval,
            tick_at: now + config.interval,
            announce_at: None,
            announced: None,
            actions: VecDeque::new(),
            ignored: 0,
            config,
        }
    }

    /// Whether the peer has found its place in a ring. Before, messages do not go through it.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The neighbour that is next on the ring against the clock.
    pub fn predecessor(&self) -> Option<OverlayId> {
        self.links.predecessors().next()
    }

    /// The neighbours that are next on the ring clockwise, nearest first.
    pub fn successors(&self) -> Vec<OverlayId> {
        self.links.successors().take(self.config.successors).collect()
    }

    /// The peer in this row, which may be the peer itself, or `None` if the table has no such row.
    pub fn finger(&self, row: u32) -> Option<OverlayId> {
        self.config.rows.contains(&row).then(|| self.links.finger(&self.start(row)))
    }

    fn start(&self, row: u32) -> OverlayId {
        self.id.at(&Distance::power_of_two(BELOW_RING + row))
    }

    fn is_near(&self, id: &OverlayId) -> bool {
        let (ahead, behind) = self.links.ranks(id);
        ahead.min(behind) < self.config.successors
    }

    /// A link that may go when one more than fit is to be let in: the youngest that is needed least.
    fn surplus(&self, even_needed: bool) -> Option<OverlayId> {
        let members = self.links.iter().filter(|(id, link)| link.member && !self.is_near(id));
        let (id, _) = members
            .filter(|(_, link)| even_needed || !link.needed)
            .max_by_key(|(_, link)| (!link.needed, !link.wanted, link.since))?;
        Some(*id)
    }

    /// Whether it is a better finger than we have.
    fn would_be_finger(&self, id: &OverlayId) -> bool {
        let is_better = |start: &OverlayId| start.clockwise(id) < start.clockwise(&self.links.finger(start));
        self.config.rows.iter().any(|row| is_better(&self.start(*row)))
    }

    fn step(&self, id: &OverlayId) -> Option<u32> {
        let distance = self.id.clockwise(id).min(id.clockwise(&self.id));
        distance.log2().map(|bits| bits / STEP_BITS)
    }

    /// Those that are in the table only because they want to be, and that may be too many at about one distance. Who is so near that it has
    /// us among its successors is none: a ring that gives those up is never at rest.
    fn crowd(&self) -> impl Iterator<Item = (&OverlayId, &Link)> {
        let near = self.links.predecessors().nth(self.config.successors - 1).map(|id| id.clockwise(&self.id));
        let is_far = move |id: &OverlayId| near.as_ref().is_some_and(|near| id.clockwise(&self.id) > *near);
        self.links.iter().filter(move |(id, link)| link.is_guest() && is_far(id))
    }

    /// Whether there are enough of them at about this distance.
    fn is_crowded(&self, id: &OverlayId) -> bool {
        let step = self.step(id);
        self.crowd().filter(|(id, _)| self.step(id) == step).count() >= self.config.step_share()
    }

    /// Gives up the youngest of those that are too many.
    fn thin_out(&mut self) {
        let mut guests: Vec<_> = self.crowd().map(|(id, link)| (self.step(id), link.since, *id)).collect();
        guests.sort_unstable();
        for crowd in guests.chunk_by(|a, b| a.0 == b.0) {
            crowd.iter().skip(self.config.step_share()).for_each(|(_, _, id)| self.expel(*id));
        }
    }

    fn expel(&mut self, id: OverlayId) {
        if let Some(link) = self.links.get_mut(&id) {
            (link.member, link.released, link.needed) = (false, true, false);
            self.actions.push_back(Action::Release(id));
        }
    }

    fn lay_trails(&mut self, through: OverlayId, named: &[OverlayId]) {
        let named = named.iter().filter(|id| **id != through);
        self.actions.extend(named.map(|id| Action::Trail { to: *id, through }));
    }

    fn tell(&mut self, to: OverlayId, message: &Message) {
        self.actions.push_back(Action::Tell { to, message: message.encode() });
    }
}

impl Routing for Chord {
    fn id(&self) -> OverlayId {
        self.id
    }

    fn admits(&self, peer: &OverlayId) -> Admission {
        if peer == &self.id {
            return Admission::No;
        }
        let fits = self.links.members().count() < self.config.max_links;
        let near = self.is_near(peer);
        let has_role = near || self.wishes.contains(peer) || self.would_be_finger(peer);
        if self.links.get(peer).is_some_and(|link| link.member) || fits && (has_role || !self.is_crowded(peer)) {
            return Admission::Yes;
        }
        let surplus = if near || self.wishes.contains(peer) { self.surplus(near) } else { None };
        surplus.map_or(Admission::No, Admission::Instead)
    }

    fn up(&mut self, peer: OverlayId, verified: bool, now: Instant) {
        if peer == self.id || self.links.get(&peer).is_some() {
            return;
        }
        let admission = if verified { self.admits(&peer) } else { Admission::No };
        if let Admission::Instead(other) = admission {
            self.expel(other);
        }
        let wished = self.wishes.remove(&peer);
        if self.former.remove(&peer) {
            self.former.hurry(now);
        }
        let link = Link { foreign: verified && !wished, ..Link::new(verified, admission != Admission::No, now) };
        self.links.insert(peer, link);
        self.stale = true;
        self.refresh(now);
        if verified {
            self.send_state(peer, false);
            if !wished {
                self.find_place(peer, now);
            }
        }
    }

    fn down(&mut self, peer: &OverlayId, now: Instant) {
        let rows: Vec<u32> = self.config.rows.iter().copied().filter(|row| self.finger(*row) == Some(*peer)).collect();
        let Some(link) = self.links.remove(peer) else { return };
        if link.member {
            self.due.extend(rows);
            self.seek_successor |= self.near.iter().skip(1).any(|near| near == peer);
            if (link.needed || link.wanted) && !link.released {
                self.former.lost(*peer, now);
            }
        }
        self.stale = true;
        self.refresh(now);
    }

    fn unreachable(&mut self, peer: &OverlayId, now: Instant) {
        let row = self.wishes.failed(peer, now);
        self.due.extend(row);
        self.stale = true;
        self.refresh(now);
    }

    fn responds(&mut self, peer: &OverlayId, responds: bool, _: Instant) {
        if let Some(link) = self.links.get_mut(peer) {
            link.responds = responds;
        }
    }

    fn next_hop(&self, target: &OverlayId, avoid: &dyn Fn(&OverlayId) -> bool) -> Option<OverlayId> {
        let usable = |id: &OverlayId, link: &Link| (id == target || (link.member && link.settled)) && !avoid(id);
        self.links
            .next_hop(target, |id, link| usable(id, link) && link.responds)
            .or_else(|| self.links.next_hop(target, usable))
    }

    fn is_responsible(&self, target: &OverlayId) -> bool {
        self.next_hop(target, &|_| false).is_none()
    }

    fn look_for(&mut self, target: &OverlayId, now: Instant) {
        self.look_up(lookup::Purpose::Way(*target), *target, now);
    }

    fn update_finger(&mut self, row: u32, now: Instant) -> Result<(), FingerError> {
        if row >= RingId::BITS {
            return Err(FingerError::NoSuchRow);
        }
        if let Err(at) = self.config.rows.binary_search(&row) {
            self.config.rows.insert(at, row);
            self.stale = true;
        }
        self.look_up_row(row, now);
        self.refresh(now);
        Ok(())
    }

    fn update_finger_table(&mut self, now: Instant) -> Result<(), FingerError> {
        self.config.rows.clone().into_iter().try_for_each(|row| self.update_finger(row, now))
    }

    fn receive(&mut self, from: Sender, message: &[u8], now: Instant) {
        let understood = match (from, Message::decode(message)) {
            (Sender::Neighbour(from), Some(Message::Status(status))) => self.take_status(&from, status),
            (Sender::Neighbour(from), Some(Message::State { status, ask, predecessors, successors })) => {
                let understood = self.take_status(&from, status);
                if understood {
                    self.take_state(from, ask, &predecessors, &successors, now);
                }
                understood
            }
            (Sender::Neighbour(from), Some(Message::Find { request, target, asker })) => {
                from == asker && self.find_for(request, target, asker)
            }
            (Sender::Claimed(from), Some(Message::Find { request, asker, .. })) => self.answer(from, request, asker),
            (Sender::Neighbour(from) | Sender::Claimed(from), Some(Message::Found { request, asker, peers })) => {
                let understood = self.take_found(request, asker, &peers, now);
                if understood {
                    self.lay_trails(from, &peers);
                }
                understood
            }
            (_, _) => false,
        };
        self.ignored += u64::from(!understood);
        self.refresh(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now);
        }
        self.release_idle(now);
        if self.tick_at <= now {
            self.tick(now);
            self.stale = true;
            self.refresh(now);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.links.len() == 0 && self.former.is_empty() {
            return None;
        }
        [Some(self.tick_at), self.announce_at, self.next_release()].into_iter().flatten().min()
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn neighbours(&self) -> Vec<OverlayId> {
        self.links.members().collect()
    }

    fn table(&self) -> Vec<Row> {
        let row = |role, peer| Row { role, peer };
        let predecessor = self.predecessor().map(|peer| row("predecessor".to_owned(), peer));
        let successors = self.successors().into_iter().enumerate();
        let successors = successors.map(|(at, peer)| row(format!("successor {at}"), peer));
        let fingers =
            self.config.rows.iter().map(|at| row(format!("finger {at}"), self.links.finger(&self.start(*at))));
        predecessor.into_iter().chain(successors).chain(fingers).collect()
    }

    fn ignored(&self) -> u64 {
        self.ignored
    }

    fn state_bytes(&self) -> usize {
        // A map takes about half as much again as what is in it.
        let entry = size_of::<OverlayId>() + size_of::<Link>();
        let entries = self.links.len() + self.wishes.len() + self.former.len() + self.lookups.len();
        size_of::<Self>() + entries * entry * 3 / 2 + self.near.len() * size_of::<OverlayId>()
    }
}
