//! Peers on a line of numbers, with the links that a test wants.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::*;
use crate::overlay::routing::{Admission, Row};
use crate::overlay::seal::{NONCE_BYTES, NotAuthentic, Plain, PublicKey, Session, TAG_BYTES, Tag};

pub(super) const DELAY: Duration = Duration::from_millis(10);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The id of the peer with this number.
pub(super) fn id(number: usize) -> OverlayId {
    let mut bytes = [0; OverlayId::BYTES];
    bytes[12..].copy_from_slice(&(number as u64).to_be_bytes());
    OverlayId::from_bytes(bytes)
}

pub(super) fn number(id: &OverlayId) -> usize {
    u64::from_be_bytes(id.as_bytes()[12..].try_into().unwrap()) as usize
}

/// No secrets, but what is altered is found out.
#[derive(Debug)]
pub(super) struct Checked(pub(super) Plain);

impl Checked {
    pub(super) fn new(id: OverlayId, session: u64) -> Self {
        Self(Plain::new(id, session))
    }

    fn tag(from: &PublicKey, to: &Session, header: &[u8], nonce: &[u8], body: &[u8]) -> Tag {
        let mut hasher = DefaultHasher::new();
        (from, to, header, nonce, body).hash(&mut hasher);
        let mut tag = [7; TAG_BYTES];
        tag[..8].copy_from_slice(&hasher.finish().to_be_bytes());
        tag
    }
}

impl Seal for Checked {
    fn contact(&self) -> Contact {
        self.0.contact()
    }

    fn id_of(&self, key: &PublicKey) -> OverlayId {
        self.0.id_of(key)
    }

    fn seal(&mut self, to: &Contact, header: &[u8], nonce: &[u8; NONCE_BYTES], body: &mut [u8]) -> Option<Tag> {
        Some(Self::tag(&self.contact().key, &to.session, header, nonce, body))
    }

    fn open(
        &mut self,
        from: &PublicKey,
        header: &[u8],
        nonce: &[u8; NONCE_BYTES],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let (body, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        if tag == Self::tag(from, &self.contact().session, header, nonce, body) { Ok(()) } else { Err(NotAuthentic) }
    }
}

/// What a table was told.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) received: Vec<(Sender, Vec<u8>)>,
    pub(super) looked_for: Vec<OverlayId>,
    pub(super) silent: BTreeSet<OverlayId>,
    pub(super) actions: VecDeque<Action>,
}

/// Knows all its neighbours, and goes to the one whose number is closest.
#[derive(Debug)]
pub(super) struct Line {
    me: OverlayId,
    neighbours: BTreeSet<OverlayId>,
    pub(super) notes: Arc<Mutex<Notes>>,
}

impl Line {
    pub(super) fn new(me: OverlayId) -> Self {
        Self { me, neighbours: BTreeSet::new(), notes: Arc::default() }
    }
}

impl Routing for Line {
    fn id(&self) -> OverlayId {
        self.me
    }

    fn admits(&self, _: &OverlayId) -> Admission {
        Admission::Yes
    }

    fn up(&mut self, peer: OverlayId, _: bool, _: Instant) {
        assert!(self.neighbours.insert(peer), "{peer} is up already");
    }

    fn down(&mut self, peer: &OverlayId, _: Instant) {
        assert!(self.neighbours.remove(peer), "{peer} is not up");
    }

    fn unreachable(&mut self, _: &OverlayId, _: Instant) {}

    fn responds(&mut self, peer: &OverlayId, responds: bool, _: Instant) {
        let silent = &mut self.notes.lock().unwrap().silent;
        assert!(if responds { silent.remove(peer) } else { silent.insert(*peer) });
    }

    fn next_hop(&self, target: &OverlayId, avoid: &dyn Fn(&OverlayId) -> bool) -> Option<OverlayId> {
        let silent = &self.notes.lock().unwrap().silent;
        let far = |id: &OverlayId| number(id).abs_diff(number(target));
        let closer = self.neighbours.iter().filter(|id| far(id) < far(&self.me) && !avoid(id));
        closer.min_by_key(|id| (silent.contains(id), far(id))).copied()
    }

    fn is_responsible(&self, target: &OverlayId) -> bool {
        self.next_hop(target, &|_| false).is_none()
    }

    fn look_for(&mut self, target: &OverlayId, _: Instant) {
        self.notes.lock().unwrap().looked_for.push(*target);
    }

    fn update_finger(&mut self, row: u32, _: Instant) -> Result<(), FingerError> {
        let message = Bytes::from(vec![row as u8]);
        self.notes.lock().unwrap().actions.push_back(Action::Route { to: id(row as usize), message });
        Ok(())
    }

    fn update_finger_table(&mut self, now: Instant) -> Result<(), FingerError> {
        (1..3).try_for_each(|row| self.update_finger(row, now))
    }

    fn receive(&mut self, from: Sender, message: &[u8], _: Instant) {
        self.notes.lock().unwrap().received.push((from, message.to_vec()));
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.notes.lock().unwrap().actions.pop_front()
    }

    fn neighbours(&self) -> Vec<OverlayId> {
        self.neighbours.iter().copied().collect()
    }

    fn table(&self) -> Vec<Row> {
        Vec::new()
    }

    fn ignored(&self) -> u64 {
        0
    }

    fn state_bytes(&self) -> usize {
        0
    }
}

/// What has come out of the routers for those above them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Delivered { from: usize, verified: bool, kind: Kind, body: Bytes },
    Confirmed(SendId),
    Failed(SendId, SendFailure),
    Up(usize),
    Down(usize),
    Released(usize),
    Foreign { to: usize, path: Vec<usize>, nonce: String, data: String },
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) routers: BTreeMap<usize, Router>,
    pub(super) notes: BTreeMap<usize, Arc<Mutex<Notes>>>,
    links: BTreeSet<(usize, usize)>,
    flying: BTreeMap<(Instant, u64), (usize, usize, Bytes)>,
    sent: u64,
    /// Peers that neither hear nor say anything, though their links stand.
    pub(super) mute: BTreeSet<usize>,
    /// Whether a peer says that it has taken a message, and drops it.
    pub(super) drops: Option<fn(usize, &Head) -> bool>,
    pub(super) told: Vec<(usize, Told)>,
    /// How often each message was sent by a hop, by nonce and sender.
    pub(super) sends: HashMap<(OverlayId, wire::Nonce), usize>,
    /// All packets, if a test wants them.
    pub(super) record: Option<Vec<(usize, usize, Bytes)>>,
    sessions: u64,
    pub(super) config: RouterConfig,
}

impl Net {
    pub(super) fn new() -> Self {
        let (routers, notes, links, flying, mute, told, sends) = Default::default();
        let config = RouterConfig::default();
        let now = Instant::now();
        let (drops, record) = (None, None);
        Self { now, routers, notes, links, flying, sent: 0, mute, drops, told, sends, record, sessions: 0, config }
    }

    /// Peers with these numbers, each linked to the next.
    pub(super) fn line(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut net = Self::new();
        let numbers: Vec<usize> = numbers.into_iter().collect();
        numbers.iter().for_each(|number| net.add(*number));
        numbers.windows(2).for_each(|pair| net.link(pair[0], pair[1]));
        net.run(SECOND);
        net
    }

    /// Adds a peer, or starts it anew.
    pub(super) fn add(&mut self, number: usize) {
        self.sessions += 1;
        let routing = Line::new(id(number));
        self.notes.insert(number, routing.notes.clone());
        let seal = Box::new(Checked::new(id(number), self.sessions));
        let router = Router::new(Box::new(routing), seal, self.config.clone(), self.sessions);
        self.routers.insert(number, router);
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.insert((from, to));
            self.with(from, |router, now| router.neighbour_up(id(to), Some(Plain::key_of(&id(to))), now));
        }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if self.links.remove(&(from, to)) && self.routers.contains_key(&from) {
                self.with(from, |router, now| router.neighbour_down(&id(to), now));
            }
        }
    }

    /// The link leads nowhere any more, and nobody has noticed yet.
    pub(super) fn lose(&mut self, a: usize, b: usize) {
        for link in [(a, b), (b, a)] {
            assert!(self.links.remove(&link));
        }
    }

    pub(super) fn remove(&mut self, number: usize) {
        self.routers.remove(&number);
        let links: Vec<(usize, usize)> = self.links.iter().filter(|(from, _)| *from == number).copied().collect();
        links.into_iter().for_each(|(from, to)| self.cut(from, to));
    }

    /// Calls a router, and does what it wants done.
    pub(super) fn with<T>(&mut self, number: usize, call: impl FnOnce(&mut Router, Instant) -> T) -> T {
        let router = self.routers.get_mut(&number).unwrap();
        let result = call(router, self.now);
        while let Some(output) = router.poll_output() {
            let told = match output {
                Output::Transmit { to, packet } => {
                    if let Some(head) = (packet[0] == wire::MESSAGE).then(|| Head::parse(&packet).unwrap()) {
                        *self.sends.entry((head.from, head.nonce)).or_default() += 1;
                    }
                    self.record
                        .iter_mut()
                        .for_each(|record| record.push((number, super::net::number(&to), packet.clone())));
                    self.sent += 1;
                    self.flying.insert((self.now + DELAY, self.sent), (number, super::net::number(&to), packet));
                    continue;
                }
                Output::Foreign { to, message } => Told::Foreign {
                    to: super::net::number(&to),
                    path: message.path.iter().map(super::net::number).collect(),
                    nonce: message.nonce,
                    data: message.data.get().to_owned(),
                },
                Output::NeighbourUp(id) => Told::Up(super::net::number(&id)),
                Output::NeighbourDown(id) => Told::Down(super::net::number(&id)),
                Output::Deliver { from, verified, through, kind, body } => {
                    let over = super::net::number(&through);
                    let is_link = over == number || kind == Kind::Foreign || self.links.contains(&(over, number));
                    assert!(is_link, "it has come over a link");
                    Told::Delivered { from: super::net::number(&from), verified, kind, body }
                }
                Output::Confirmed { send } => Told::Confirmed(send),
                Output::Failed { send, reason, .. } => Told::Failed(send, reason),
                Output::Release(id) => Told::Released(super::net::number(&id)),
                Output::Connect(_) => continue,
            };
            self.told.push((number, told));
        }
        result
    }

    /// Lets so much time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let packet = self.flying.keys().next().map(|(at, _)| *at);
            let timer =
                self.routers.iter().filter_map(|(number, router)| Some((router.next_timeout()?, *number))).min();
            let next = packet.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, (from, to, packet)) = self.flying.pop_first().unwrap();
                let is_up = self.links.contains(&(to, from)) && self.routers.contains_key(&to);
                let dropped = Head::parse(&packet)
                    .filter(|head| packet[0] == wire::MESSAGE && self.drops.is_some_and(|drops| drops(to, head)));
                if let Some(head) = dropped {
                    self.sent += 1;
                    self.flying.insert((self.now + DELAY, self.sent), (to, from, wire::taken(head.hop)));
                } else if is_up && !self.mute.contains(&from) && !self.mute.contains(&to) {
                    self.with(to, |router, now| router.receive(&id(from), packet, now));
                }
            } else if let Some((_, number)) = timer {
                self.with(number, |router, now| router.handle_timeout(now));
            }
        }
        self.now = end;
    }

    /// Sends a message of the application.
    pub(super) fn send(&mut self, from: usize, to: usize, body: &'static str, confirm: Option<Duration>) -> SendId {
        self.with(from, |router, now| {
            router.send(id(to), Kind::Binary, Bytes::from_static(body.as_bytes()), confirm, now)
        })
        .unwrap()
    }

    /// Takes what was told, without ups and downs.
    pub(super) fn take_told(&mut self) -> Vec<(usize, Told)> {
        let told = std::mem::take(&mut self.told);
        told.into_iter().filter(|(_, told)| !matches!(told, Told::Up(_) | Told::Down(_))).collect()
    }

    pub(super) fn counters(&self, number: usize) -> Counters {
        self.routers[&number].counters()
    }
}

/// A message from an application that is proven to be its.
pub(super) fn delivered(at: usize, from: usize, body: &'static str) -> (usize, Told) {
    (at, Told::Delivered { from, verified: true, kind: Kind::Binary, body: Bytes::from_static(body.as_bytes()) })
}
