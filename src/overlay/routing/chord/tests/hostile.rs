//! Neighbours that lie.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::wire::{MAX_IDS, Message, Status};
use super::super::{Action, Chord, ChordConfig, Routing, Sender};
use crate::overlay::OverlayId;
use crate::overlay::routing::Admission;

fn id(number: u8) -> OverlayId {
    let mut bytes = [0; 20];
    bytes[0] = number;
    OverlayId::from_bytes(bytes)
}

fn actions(chord: &mut Chord) -> Vec<Action> {
    let actions = std::iter::from_fn(|| chord.poll_action());
    actions.filter(|action| !matches!(action, Action::Trail { .. })).collect()
}

#[test]
fn answers_that_nobody_asked_for() {
    let now = Instant::now();
    let mut chord = Chord::new(id(10), ChordConfig::default(), 1, now);
    chord.up(id(20), true, now);
    actions(&mut chord);
    let found = Message::Found { request: 7, asker: id(10), peers: vec![id(11)] }.encode();
    let state = Message::State {
        status: Status { settled: true, need: true },
        ask: true,
        predecessors: vec![id(11)],
        successors: vec![],
    };
    chord.receive(Sender::Claimed(id(20)), &found, now);
    chord.receive(Sender::Neighbour(id(20)), &found, now);
    chord.receive(Sender::Claimed(id(20)), &state.encode(), now);
    chord.receive(Sender::Neighbour(id(21)), &state.encode(), now);
    let other = Message::Find { request: 7, target: id(1), asker: id(99) }.encode();
    chord.receive(Sender::Neighbour(id(20)), &other, now);
    let other = Message::Found { request: 7, asker: id(99), peers: vec![id(11)] }.encode();
    chord.receive(Sender::Claimed(id(20)), &other, now);
    chord.receive(Sender::Neighbour(id(20)), b"junk", now);
    assert_eq!(chord.ignored(), 7);
    assert_eq!(actions(&mut chord), []);
}

#[test]
fn names_that_nobody_bears() {
    let mut now = Instant::now();
    let mut rng = StdRng::seed_from_u64(1);
    let mut chord = Chord::new(id(10), ChordConfig::default(), 1, now);
    chord.up(id(20), true, now);
    chord.up(id(250), true, now);
    let (mut tried, mut most) = (0, 0);
    for _ in 0..600 {
        let names: Vec<OverlayId> = (0..MAX_IDS)
            .map(|_| {
                let mut bytes: [u8; 20] = rng.random();
                (bytes[0], bytes[1]) = (10, bytes[1] | 1);
                OverlayId::from_bytes(bytes)
            })
            .collect();
        let status = Status { settled: true, need: true };
        let state = Message::State { status, ask: false, predecessors: names.clone(), successors: names };
        chord.receive(Sender::Neighbour(id(20)), &state.encode(), now);
        for action in actions(&mut chord) {
            if let Action::Connect(peer) = action {
                tried += 1;
                chord.unreachable(&peer, now);
            }
        }
        now += Duration::from_millis(100);
        chord.handle_timeout(now);
        most = most.max(chord.state_bytes());
    }
    assert!(tried <= MAX_IDS, "{tried} attempts within a minute");
    // An honest neighbour is still heard.
    let status = Status { settled: true, need: true };
    let state = Message::State { status, ask: false, predecessors: vec![], successors: vec![id(11)] };
    chord.receive(Sender::Neighbour(id(250)), &state.encode(), now);
    assert!(actions(&mut chord).contains(&Action::Connect(id(11))));
    assert!(most < 20_000, "{most} bytes");
}

#[test]
fn many_ids_in_one_part_of_the_ring_take_a_share_of_the_table() {
    let now = Instant::now();
    let mut rng = StdRng::seed_from_u64(3);
    let mut chord = Chord::new(id(10), ChordConfig::default(), 1, now);
    let honest: Vec<OverlayId> = (0..15).map(|at| id(11 + at * 16)).collect();
    honest.iter().for_each(|id| chord.up(*id, true, now));
    for _ in 0..200 {
        let mut bytes: [u8; 20] = rng.random();
        (bytes[0], bytes[1]) = (10, bytes[1] | 0x80);
        chord.up(OverlayId::from_bytes(bytes), true, now);
    }
    let members = chord.neighbours();
    assert!(honest.iter().all(|id| members.contains(id)), "nobody gives way to them");
    // Eight are near on either side, and of two steps of distance twelve each are there for their own sake.
    assert!((8..=8 + 2 * 12).contains(&(members.len() - honest.len())), "{} of {}", honest.len(), members.len());
    assert_eq!(chord.admits(&id(200)), Admission::Yes, "there is room for others");
    let mut bytes = [0xff; 20];
    bytes[0] = 10;
    assert_eq!(chord.admits(&OverlayId::from_bytes(bytes)), Admission::No);
}

#[derive(Debug, Clone)]
enum Input {
    Up(u8, bool),
    Down(u8),
    Unreachable(u8),
    Responds(u8, bool),
    LookFor(u8),
    Receive(u8, bool, Vec<u8>),
    State(u8, Vec<u8>),
    Wait(u16),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (any::<u8>(), any::<bool>()).prop_map(|(peer, verified)| Input::Up(peer, verified)),
        any::<u8>().prop_map(Input::Down),
        any::<u8>().prop_map(Input::Unreachable),
        (any::<u8>(), any::<bool>()).prop_map(|(peer, responds)| Input::Responds(peer, responds)),
        any::<u8>().prop_map(Input::LookFor),
        (any::<u8>(), any::<bool>(), vec(any::<u8>(), 0..60))
            .prop_map(|(peer, near, bytes)| { Input::Receive(peer, near, bytes) }),
        (any::<u8>(), vec(any::<u8>(), 0..MAX_IDS)).prop_map(|(peer, names)| Input::State(peer, names)),
        any::<u16>().prop_map(Input::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_comes(inputs in vec(input(), 0..200), target in any::<u8>()) {
        let mut now = Instant::now();
        let config = ChordConfig { max_links: 24, ..ChordConfig::default() };
        let mut chord = Chord::new(id(0), config, 1, now);
        for input in inputs {
            match input {
                Input::Up(peer, verified) => chord.up(id(peer), verified, now),
                Input::Down(peer) => chord.down(&id(peer), now),
                Input::Unreachable(peer) => chord.unreachable(&id(peer), now),
                Input::Responds(peer, responds) => chord.responds(&id(peer), responds, now),
                Input::LookFor(peer) => chord.look_for(&id(peer), now),
                Input::Receive(peer, true, bytes) => chord.receive(Sender::Neighbour(id(peer)), &bytes, now),
                Input::Receive(peer, false, bytes) => chord.receive(Sender::Claimed(id(peer)), &bytes, now),
                Input::State(peer, names) => {
                    let status = Status { settled: true, need: false };
                    let successors = names.into_iter().map(id).collect();
                    let state = Message::State { status, ask: true, predecessors: vec![], successors };
                    chord.receive(Sender::Neighbour(id(peer)), &state.encode(), now);
                }
                Input::Wait(time) => {
                    now += Duration::from_millis(u64::from(time));
                    chord.handle_timeout(now);
                }
            }
            let connects_to_itself = actions(&mut chord).contains(&Action::Connect(id(0)));
            prop_assert!(!connects_to_itself);
            // 24, and what a promoted link of somebody else's adds.
            prop_assert!(chord.neighbours().len() <= 24 + 9);
            prop_assert!(chord.lookups.len() <= 64 && chord.wishes.len() <= 256 && chord.former.len() <= 16);
            // Whoever is chosen is a neighbour, and never the one before it again on the way back.
            let target = id(target);
            if let Some(hop) = chord.next_hop(&target, &|_| false) {
                prop_assert!(hop != id(0) && chord.links.get(&hop).is_some());
                prop_assert!(!chord.is_responsible(&target));
            }
        }
    }
}
