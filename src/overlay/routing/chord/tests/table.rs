//! Single tables, and the tables that the server of webrtc-explorer was recorded to make.

use std::time::{Duration, Instant};

use super::super::ideal::Ring;
use super::super::{Action, Admission, Chord, ChordConfig, Routing, Sender};
use super::net::Net;
use crate::overlay::routing::FingerError;
use crate::overlay::{OverlayId, RingId};

const ROWS: [u32; 6] = [0, 10, 12, 20, 30, 47];

/// Peer, predecessor, successor.
const THREE: &[[u64; 3]] = &[
    [0x646907d7c66f, 0x49bf150c8cc0, 0x997b0192fa2b],
    [0x997b0192fa2b, 0x646907d7c66f, 0x49bf150c8cc0],
    [0x49bf150c8cc0, 0x997b0192fa2b, 0x646907d7c66f],
];
const EIGHT: &[[u64; 3]] = &[
    [0x2a877edec9f6, 0x1383945a7120, 0x303c0c61dab3],
    [0xfa78e2e03d40, 0x52ee495f6f17, 0x1355157603e9],
    [0x1383945a7120, 0x1355157603e9, 0x2a877edec9f6],
    [0x52ee495f6f17, 0x5296a76a80ad, 0xfa78e2e03d40],
    [0x4b7f9258d73b, 0x303c0c61dab3, 0x5296a76a80ad],
    [0x5296a76a80ad, 0x4b7f9258d73b, 0x52ee495f6f17],
    [0x303c0c61dab3, 0x2a877edec9f6, 0x4b7f9258d73b],
    [0x1355157603e9, 0xfa78e2e03d40, 0x1383945a7120],
];
/// In the ring of eight, the last row of everybody.
const LAST_ROW: u64 = 0xfa78e2e03d40;

fn peer(number: u64) -> OverlayId {
    RingId::new(number).first()
}

fn recorded() -> ChordConfig {
    ChordConfig { rows: ROWS.to_vec(), ..ChordConfig::default() }
}

#[test]
fn ideal_tables_as_recorded() {
    for recorded in [THREE, EIGHT] {
        let ring = Ring(recorded.iter().map(|[id, ..]| peer(*id)).collect());
        for [id, predecessor, successor] in recorded {
            assert_eq!(ring.predecessor(&peer(*id)), peer(*predecessor));
            assert_eq!(ring.successor(&peer(*id)), peer(*successor));
            if recorded.len() == 8 {
                for row in &ROWS[..5] {
                    assert_eq!(ring.finger(&peer(*id), *row), peer(*successor), "row {row} of {id:x}");
                }
                assert_eq!(ring.finger(&peer(*id), 47), peer(LAST_ROW));
            }
        }
    }
}

#[test]
fn tables_as_recorded() {
    for recorded_ring in [THREE, EIGHT] {
        let mut net = Net::new(1);
        let first = peer(recorded_ring[0][0]);
        for [id, ..] in recorded_ring {
            net.add(peer(*id), &recorded());
            if peer(*id) != first {
                net.link(peer(*id), first);
            }
            net.run(Duration::from_secs(1));
        }
        net.settle(Duration::from_secs(30));
        net.run(Duration::from_secs(60));
        for [id, predecessor, successor] in recorded_ring {
            let chord = &net.peers[&peer(*id)];
            assert_eq!(chord.predecessor(), Some(peer(*predecessor)));
            assert_eq!(chord.successors()[0], peer(*successor));
            if recorded_ring.len() == 8 {
                for row in &ROWS[..5] {
                    assert_eq!(chord.finger(*row), Some(peer(*successor)), "row {row} of {id:x}");
                }
                assert_eq!(chord.finger(47), Some(peer(LAST_ROW)));
            }
            let roles: Vec<String> = chord.table().into_iter().map(|row| row.role).collect();
            assert_eq!(roles[..2], ["predecessor", "successor 0"]);
            assert_eq!(roles[roles.len() - 1], "finger 47");
        }
    }
}

/// A peer with number 0x100000000000, and settled members at these numbers.
fn among(numbers: &[u64]) -> (Chord, Instant) {
    let now = Instant::now();
    let mut chord = Chord::new(peer(0x1000_0000_0000), ChordConfig::default(), 1, now);
    for number in numbers {
        chord.up(peer(*number), true, now);
        chord.receive(Sender::Neighbour(peer(*number)), &[0, 3], now);
    }
    while chord.poll_action().is_some() {}
    (chord, now)
}

fn hop(chord: &Chord, target: u64) -> Option<u64> {
    chord.next_hop(&peer(target), &|_| false).map(|id| id.ring().number())
}

#[test]
fn next_hops() {
    let (chord, _) = among(&[0x1800_0000_0000, 0x3000_0000_0000, 0x7000_0000_0000, 0x0800_0000_0000]);
    assert_eq!(hop(&chord, 0x3000_0000_0000), Some(0x3000_0000_0000), "the peer itself");
    assert_eq!(hop(&chord, 0x4000_0000_0000), Some(0x3000_0000_0000), "the nearest before it");
    assert_eq!(hop(&chord, 0x6f00_0000_0000), Some(0x7000_0000_0000), "the one just behind it");
    assert_eq!(hop(&chord, 0x1700_0000_0000), Some(0x1800_0000_0000), "the successor answers for it");
    assert_eq!(hop(&chord, 0x0900_0000_0000), None, "ours");
    assert_eq!(hop(&chord, 0x1000_0000_0000), None, "we");
    assert_eq!(hop(&chord, 0x0700_0000_0000), Some(0x0800_0000_0000), "back to the predecessor");
    assert!(chord.is_responsible(&peer(0x0900_0000_0000)) && !chord.is_responsible(&peer(0x0700_0000_0000)));
}

#[test]
fn a_successor_that_is_dead_or_silent_is_left_out() {
    let (mut chord, now) = among(&[0x1800_0000_0000, 0x2000_0000_0000, 0x0800_0000_0000]);
    let target = 0x1700_0000_0000;
    let avoided = chord.next_hop(&peer(target), &|id| *id == peer(0x1800_0000_0000));
    assert_eq!(avoided, Some(peer(0x2000_0000_0000)));
    chord.responds(&peer(0x1800_0000_0000), false, now);
    assert_eq!(hop(&chord, target), Some(0x2000_0000_0000));
    chord.responds(&peer(0x2000_0000_0000), false, now);
    chord.responds(&peer(0x0800_0000_0000), false, now);
    assert_eq!(hop(&chord, target), Some(0x1800_0000_0000), "there is no other");
    chord.down(&peer(0x1800_0000_0000), now);
    assert_eq!(hop(&chord, target), Some(0x2000_0000_0000));
}

#[test]
fn newcomers_and_originals_are_no_hops() {
    let (mut chord, now) = among(&[0x7000_0000_0000, 0x0800_0000_0000]);
    chord.up(peer(0x2000_0000_0000), true, now);
    chord.up(peer(0x2800_0000_0000), false, now);
    assert_eq!(hop(&chord, 0x2900_0000_0000), Some(0x7000_0000_0000));
    assert_eq!(hop(&chord, 0x2000_0000_0000), Some(0x2000_0000_0000), "but they get what is for them");
    assert_eq!(hop(&chord, 0x2800_0000_0000), Some(0x2800_0000_0000));
    assert_eq!(chord.successors()[0], peer(0x2000_0000_0000));
    assert!(!chord.neighbours().contains(&peer(0x2800_0000_0000)));
    let before = chord.ignored();
    chord.receive(Sender::Neighbour(peer(0x2800_0000_0000)), &[0, 3], now);
    assert_eq!(chord.ignored(), before + 1);
}

#[test]
fn a_full_table_lets_in_who_is_near() {
    let now = Instant::now();
    let config = ChordConfig { rows: vec![47], successors: 1, max_links: 3, ..ChordConfig::default() };
    let mut chord = Chord::new(peer(0x1000_0000_0000), config, 1, now);
    for number in [0x2000_0000_0000, 0x0800_0000_0000, 0x3000_0000_0000] {
        assert_eq!(chord.admits(&peer(number)), Admission::Yes);
        chord.up(peer(number), true, now);
    }
    assert_eq!(chord.admits(&peer(0x5000_0000_0000)), Admission::No);
    assert_eq!(chord.admits(&peer(0x1001_0000_0000)), Admission::Instead(peer(0x3000_0000_0000)));
    chord.up(peer(0x1001_0000_0000), true, now);
    let released = std::iter::from_fn(|| chord.poll_action()).any(|a| a == Action::Release(peer(0x3000_0000_0000)));
    assert!(released && chord.neighbours().len() == 3);
    assert_eq!(chord.admits(&peer(0x0801_0000_0000)), Admission::Instead(peer(0x2000_0000_0000)));
    // Who comes all the same gets what is for it, and nothing else.
    chord.up(peer(0x5000_0000_0000), true, now);
    assert_eq!(chord.neighbours().len(), 3);
    assert_eq!(hop(&chord, 0x5000_0000_0000), Some(0x5000_0000_0000));
}

#[test]
fn a_link_goes_when_neither_side_needs_it() {
    let (mut chord, now) = among(&[0x1800_0000_0000, 0x0800_0000_0000]);
    let other = peer(0x9f00_0000_0000);
    let near = [0x1900_0000_0000, 0x1a00_0000_0000, 0x1b00_0000_0000, 0x9000_0000_0000, 0x5000_0000_0000];
    for number in near {
        chord.up(peer(number), true, now);
    }
    chord.up(other, true, now);
    let release = |chord: &mut Chord, seconds: std::ops::Range<u64>| {
        let mut released = false;
        for second in seconds {
            chord.handle_timeout(now + Duration::from_secs(second));
            released |= std::iter::from_fn(|| chord.poll_action()).any(|action| action == Action::Release(other));
        }
        released
    };
    assert!(!release(&mut chord, 0..30), "the other side needs it");
    chord.receive(Sender::Neighbour(other), &[0, 1], now + Duration::from_secs(30));
    assert!(release(&mut chord, 30..60));
}

#[test]
fn rows_can_be_added() {
    let (mut chord, now) = among(&[0x1800_0000_0000, 0x9000_0000_0000]);
    assert_eq!(chord.finger(0), None);
    assert_eq!(chord.update_finger(0, now), Ok(()));
    assert_eq!(chord.update_finger(48, now), Err(FingerError::NoSuchRow));
    assert_eq!(chord.finger(0), Some(peer(0x1800_0000_0000)));
    assert_eq!(chord.finger(48), None);
    let asked = |chord: &mut Chord| {
        std::iter::from_fn(|| chord.poll_action()).filter(|a| matches!(a, Action::Route { .. })).count()
    };
    assert_eq!(asked(&mut chord), 1);
    assert_eq!(chord.update_finger_table(now), Ok(()));
    assert_eq!(asked(&mut chord), 1 + ChordConfig::default().rows.len());
}
