//! Links to originals of peer-relay, of which there is one for each id, and what they say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Core, Outcome, State, now};
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::compat::peer_relay::{ConnectFailure, MAX_FOUND, Machine, MachineConfig, Output, Sender};
use crate::overlay::inbox::Arrived;
use crate::overlay::router::{ForeignMessage, Kind};

/// Links to originals, with those that are being made. At it, further ones are turned away.
const MAX_LINKS: usize = 512;
/// So many links to originals are sought, as originals do, where that is allowed.
const SOUGHT_LINKS: usize = 15;
/// URLs that may wait to be dialled: all attempts that the machine makes at once.
const DIALS: usize = 64;

/// An original is to be connected to at this URL.
#[derive(Debug)]
pub(in crate::overlay) struct Dial {
    pub(in crate::overlay) peer: OverlayId,
    pub(in crate::overlay) url: String,
    /// It is a pmesh peer, as it says.
    pub(in crate::overlay) pmesh: bool,
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// `None` while the link is being made.
    sender: Option<Sender>,
}

/// What the core knows of originals.
#[derive(Debug)]
pub(super) struct Originals {
    machine: Machine,
    seeks_links: bool,
    links: HashMap<OverlayId, Place>,
    last_place: u64,
    /// Who waits for a link.
    calls: HashMap<OverlayId, Vec<oneshot::Sender<Result<(), ConnectFailure>>>>,
    dials: mpsc::Sender<Dial>,
}

impl Originals {
    fn linked(&self) -> impl Iterator<Item = &OverlayId> {
        self.links.iter().filter(|(_, place)| place.sender.is_some()).map(|(id, _)| id)
    }

    fn answer(&mut self, peer: &OverlayId, result: Result<(), ConnectFailure>) {
        for call in self.calls.remove(peer).into_iter().flatten() {
            let _ = call.send(result);
        }
    }
}

impl State {
    /// When an attempt to connect to one has taken too long.
    pub(super) fn originals_due(&self) -> Option<Instant> {
        self.originals.as_ref()?.machine.next_timeout()
    }

    /// Never waits: what finds no room is dropped, as is what an original would die of.
    pub(super) fn send_to_original(&mut self, to: &OverlayId, message: &ForeignMessage) {
        let place = self.originals.as_ref().and_then(|originals| originals.links.get(to));
        let sender = place.and_then(|place| place.sender.as_ref());
        self.dropped += u64::from(sender.is_none_or(|sender| sender.try_send(message).is_err()));
    }

    /// A peer has proven that it has this id. Whoever claims it is another one.
    pub(super) fn expel_original(&mut self, peer: &OverlayId) {
        let Some(originals) = &mut self.originals else { return };
        if originals.links.remove(peer).is_some() {
            originals.machine.down(peer);
        }
        // Who waits for a link to it has one.
        originals.answer(peer, Ok(()));
    }
}

impl Core {
    /// From now on originals are taken. Yields what is to be dialled.
    pub(in crate::overlay) fn take_originals(&self, config: MachineConfig) -> mpsc::Receiver<Dial> {
        let (dials, receiver) = mpsc::channel(DIALS);
        let originals = Originals {
            seeks_links: config.dial_answers,
            machine: Machine::new(self.id, config),
            links: HashMap::new(),
            last_place: 0,
            calls: HashMap::new(),
            dials,
        };
        lock(&self.state).originals = Some(originals);
        receiver
    }

    /// Somebody claims this id: makes sure that there is one link to it, and will be no other. `None` if it is not to come.
    pub(in crate::overlay) fn reserve(self: &Arc<Self>, peer: OverlayId) -> Option<Reserved> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let originals = state.originals.as_mut()?;
        let is_taken = peer == self.id
            || originals.links.contains_key(&peer)
            || state.links.contains_key(&peer)
            || state.router.has_key(&peer);
        if is_taken || originals.links.len() >= MAX_LINKS {
            return None;
        }
        originals.last_place += 1;
        let number = originals.last_place;
        originals.links.insert(peer, Place { number, sender: None });
        Some(Reserved { core: self.clone(), peer, number })
    }

    /// The link for which a place was reserved is there, until that is dropped.
    pub(in crate::overlay) fn original_up(&self, reserved: &Reserved, sender: Sender) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(originals) = &mut state.originals else { return };
        let peer = reserved.peer;
        let place = originals.links.get_mut(&peer).filter(|place| place.number == reserved.number);
        let Some(place) = place else { return };
        place.sender = Some(sender);
        originals.machine.up(peer);
        originals.answer(&peer, Ok(()));
        let now = now();
        state.router.neighbour_up(peer, None, now);
        self.run_originals(state, now);
        self.drive_on(state, now);
    }

    /// Brings the router a message of an original, and carries out what it decides.
    pub(in crate::overlay) fn receive_foreign(&self, from: &OverlayId, message: ForeignMessage) -> Outcome {
        let mut state = lock(&self.state);
        let now = now();
        state.router.receive_foreign(from, message, now);
        self.carry_out(&mut state, false, now)
    }

    /// Closes the link to an original, if there is one.
    pub(in crate::overlay) fn drop_original(&self, peer: &OverlayId) {
        self.original_down(peer, None);
    }

    fn original_down(&self, peer: &OverlayId, number: Option<u64>) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(originals) = &mut state.originals else { return };
        if originals.links.get(peer).is_none_or(|place| number.is_some_and(|number| number != place.number)) {
            return;
        }
        let was_up = originals.links.remove(peer).is_some_and(|place| place.sender.is_some());
        if was_up {
            originals.machine.down(peer);
            let now = now();
            state.router.neighbour_down(peer, now);
            self.drive_on(state, now);
        }
    }

    /// At a URL that was to be dialled is a pmesh peer, which is a neighbour now.
    pub(in crate::overlay) fn dialled_peer(&self, peer: &OverlayId) {
        if let Some(originals) = &mut lock(&self.state).originals {
            originals.answer(peer, Ok(()));
        }
        // What was attempted was a link to an original.
        self.dial_failed(peer);
    }

    /// A URL that was to be dialled has led to nothing.
    pub(in crate::overlay) fn dial_failed(&self, peer: &OverlayId) {
        let mut state = lock(&self.state);
        let now = now();
        if let Some(originals) = &mut state.originals {
            originals.machine.dial_failed(peer);
        }
        self.run_originals(&mut state, now);
    }

    /// Asks an original for a link. What is returned tells how that went.
    pub(in crate::overlay) fn call_original(&self, peer: OverlayId) -> oneshot::Receiver<Result<(), ConnectFailure>> {
        let (call, result) = oneshot::channel();
        let mut state = lock(&self.state);
        let state = &mut *state;
        let decided = match &state.originals {
            None => Some(Err(ConnectFailure::NotTaken)),
            Some(_) if peer == self.id => Some(Err(ConnectFailure::Unreachable)),
            Some(originals) => {
                let is_linked = state.links.contains_key(&peer) || originals.linked().any(|linked| *linked == peer);
                is_linked.then_some(Ok(()))
            }
        };
        if let Some(result) = decided {
            let _ = call.send(result);
        } else if let Some(originals) = &mut state.originals {
            let calls = originals.calls.entry(peer).or_default();
            calls.retain(|call| !call.is_closed());
            calls.push(call);
            let now = now();
            originals.machine.connect(peer, now);
            self.run_originals(state, now);
            self.drive_on(state, now);
        }
        result
    }

    /// Whether there is a link to any original.
    pub(in crate::overlay) fn has_originals(&self) -> bool {
        lock(&self.state).originals.as_ref().is_some_and(|originals| originals.linked().next().is_some())
    }

    pub(super) fn originals_timeout(&self, state: &mut State, now: Instant) {
        if let Some(originals) = &mut state.originals {
            originals.machine.handle_timeout(now);
            self.run_originals(state, now);
        }
    }

    /// A message for us has come in the way of originals.
    pub(super) fn foreign_arrived(&self, state: &mut State, from: OverlayId, data: &[u8], now: Instant) {
        let Some(originals) = &mut state.originals else { return state.dropped += 1 };
        let Originals { machine, links, .. } = originals;
        machine.receive(from, data, &|target| {
            // Only such as an original can connect to by asking through us.
            let linked = links.iter().filter(|(_, place)| place.sender.is_some());
            let mut closest: Vec<_> = linked.map(|(id, _)| *id).collect();
            closest.sort_unstable_by_key(|id| id.xor(target));
            closest.truncate(MAX_FOUND);
            closest
        });
        self.run_originals(state, now);
    }

    /// Does what the machine wants done. What it sends goes into the outputs of the router.
    fn run_originals(&self, state: &mut State, now: Instant) {
        let Some(originals) = &mut state.originals else { return };
        while let Some(output) = originals.machine.poll_output() {
            match output {
                Output::Send { to, data } => drop(state.router.send_foreign(to, data, now)),
                Output::Dial { peer, url, pmesh } => {
                    if originals.dials.try_send(Dial { peer, url, pmesh }).is_err() {
                        originals.machine.dial_failed(&peer);
                    }
                }
                Output::Candidates { by, peers } => {
                    for peer in peers {
                        state.router.named(peer, by);
                        let is_open = originals.links.len() + originals.machine.attempts() < SOUGHT_LINKS
                            && !state.links.contains_key(&peer)
                            && !state.router.has_key(&peer);
                        if originals.seeks_links && is_open {
                            originals.machine.connect(peer, now);
                        }
                    }
                }
                Output::Message { from, json } => {
                    let json: Box<str> = json.into();
                    let body = Bytes::from(json.into_string());
                    let bytes = body.len();
                    let taken = self.inbox.push(Arrived { from, verified: false, kind: Kind::Json, body }, bytes);
                    state.dropped += u64::from(!taken);
                }
                Output::ConnectFailed { peer, reason } => originals.answer(&peer, Err(reason)),
            }
        }
    }
}

/// The place of a link to an original. See [`Core::reserve`].
pub(in crate::overlay) struct Reserved {
    core: Arc<Core>,
    peer: OverlayId,
    number: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.core.original_down(&self.peer, Some(self.number));
    }
}
