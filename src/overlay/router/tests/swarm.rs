//! Many peers, whose links are cut and made and who fall silent, from a seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use super::net::*;

const PEERS: usize = 40;
const STEPS: [usize; 3] = [1, 5, 13];

/// Runs so many messages through a net that changes `changes` times in a hundred.
fn storm(seed: u64, messages: usize, changes: u32) -> (usize, usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut net = Net::new();
    (0..PEERS).for_each(|number| net.add(number));
    let pairs: Vec<(usize, usize)> =
        STEPS.iter().flat_map(|step| (0..PEERS - step).map(move |number| (number, number + step))).collect();
    pairs.iter().for_each(|(a, b)| net.link(*a, *b));
    let mut links: BTreeSet<(usize, usize)> = pairs.iter().copied().collect();
    net.run(SECOND);
    let (mut expected, mut bodies) = (BTreeMap::new(), BTreeMap::new());
    for message in 0..messages {
        if rng.random_ratio(changes, 100) {
            let pair = pairs[rng.random_range(0..pairs.len())];
            match rng.random_range(0..3) {
                0 if links.remove(&pair) => net.cut(pair.0, pair.1),
                0 | 1 => {
                    net.cut(pair.0, pair.1);
                    net.link(pair.0, pair.1);
                    links.insert(pair);
                }
                _ if !net.mute.remove(&pair.0) => drop(net.mute.insert(pair.0)),
                _ => {}
            }
        }
        let (from, to) = (rng.random_range(0..PEERS), rng.random_range(0..PEERS));
        let body = Bytes::from(message.to_string());
        let send = |router: &mut Router, now| router.send(id(to), Kind::Json, body.clone(), Some(SECOND * 15), now);
        let send = net.with(from, send).unwrap();
        expected.insert((from, send), (to, body.clone()));
        bodies.insert(body, 0);
        net.run(DELAY * rng.random_range(0..10));
    }
    net.mute.clear();
    net.run(SECOND * 60);
    let told = net.take_told();
    for (_, told) in &told {
        if let Told::Delivered { verified, body, .. } = told {
            assert!(verified);
            *bodies.get_mut(body).unwrap() += 1;
        }
    }
    assert!(bodies.values().all(|times| *times <= 1), "seed {seed}: delivered twice");
    let (mut confirmed, mut failed) = (0, 0);
    for (from, told) in told {
        match told {
            Told::Confirmed(send) => {
                let (_, body) = expected.remove(&(from, send)).unwrap();
                assert_eq!(bodies[&body], 1, "seed {seed}: confirmed, but not delivered");
                confirmed += 1;
            }
            Told::Failed(send, _) => {
                assert!(expected.remove(&(from, send)).is_some());
                failed += 1;
            }
            _ => {}
        }
    }
    assert!(expected.is_empty(), "seed {seed}: {} neither confirmed nor failed", expected.len());
    net.run(SECOND * 100);
    for router in net.routers.values() {
        assert!(router.sends.is_empty() && router.wanted.is_empty() && router.sends_bytes == 0);
        assert!(router.timers.len() <= router.neighbours.len());
        assert_eq!(router.held.len(), 0);
        assert!(router.neighbours.values().all(|neighbour| neighbour.held == (0, 0)));
    }
    (confirmed, failed)
}

#[test]
fn where_nothing_changes_all_arrive_at_once() {
    let (confirmed, failed) = storm(1, 300, 0);
    assert_eq!((confirmed, failed), (300, 0));
}

#[test]
fn while_links_come_and_go_each_arrives_once_or_fails() {
    let (mut confirmed, mut failed) = (0, 0);
    for seed in 0..6 {
        let (ok, not) = storm(seed, 200, 30);
        (confirmed, failed) = (confirmed + ok, failed + not);
    }
    println!("{confirmed} confirmed, {failed} failed");
    assert!(confirmed > failed);
}
