//! Trees that talk to each other, under random timing.

use rand::RngExt;
use serde_json::Value;

use super::sim::*;
use crate::error::CloseReason;

fn succeeded(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Opened | Outcome::Redirected(_))
}

/// Two hosts on an onramp.
fn pair(seed: u64, rules: [Rule; 2]) -> (Sim, [usize; 2]) {
    let mut sim = Sim::new(seed, Net::default());
    sim.onramp(true);
    let hosts = rules.map(|rule| sim.host(rule));
    sim.run_for(1000);
    (sim, hosts)
}

/// Each calls the other at some time within so many milliseconds.
fn dial_both(sim: &mut Sim, a: usize, b: usize, within: u64) {
    for (from, to) in [(a, b), (b, a)] {
        let delay = sim.rng.random_range(0..within);
        sim.dial_at(delay, from, "ws0", to);
    }
}

#[test]
fn glare_ends_with_one_connection_whatever_the_timing() {
    seeds(200, |seed| {
        let (mut sim, [a, b]) = pair(seed, [Rule::Accept; 2]);
        dial_both(&mut sim, a, b, 150);
        sim.run();
        sim.assert_quiet();
        assert_eq!((sim.open(a, b), sim.open(b, a)), (1, 1));
        assert!(succeeded(&sim.outcomes(a)[0]) && succeeded(&sim.outcomes(b)[0]));
    });
}

#[test]
fn glare_with_one_side_that_refuses_or_ignores_still_connects() {
    seeds(200, |seed| {
        let rule = if seed % 2 == 0 { Rule::Refuse } else { Rule::Ignore };
        let (mut sim, [a, b]) = pair(seed, [rule, Rule::Accept]);
        dial_both(&mut sim, a, b, 150);
        sim.run();
        sim.assert_quiet();
        assert_eq!((sim.open(a, b), sim.open(b, a)), (1, 1));
        assert!(succeeded(&sim.outcomes(a)[0]), "the side that refuses is accepted by the other");
    });
}

#[test]
fn a_call_succeeds_although_the_other_side_gives_its_own_up_at_any_time() {
    seeds(300, |seed| {
        let (mut sim, [a, b]) = pair(seed, [Rule::Accept; 2]);
        dial_both(&mut sim, a, b, 100);
        let delay = sim.rng.random_range(0..400);
        sim.at(delay, Event::AbandonLatest(a));
        sim.run();
        sim.assert_quiet();
        // Opened at one side, the link ends if the other gives it up before it is open there.
        assert!(succeeded(&sim.outcomes(b)[0]), "{:?}", sim.outcomes(b));
        assert!(sim.open(a, b) <= 1 && sim.open(a, b) == sim.open(b, a));
        assert!(sim.now.duration_since(sim.start).as_secs() < 60);
    });
}

#[test]
fn glare_over_two_introducers_ends_with_one_connection_and_two_successful_calls() {
    seeds(300, |seed| {
        let mut sim = Sim::new(seed, Net::default());
        sim.onramp(true);
        sim.onramp(seed % 2 == 0);
        let (a, b) = (sim.host(Rule::Accept), sim.host(Rule::Accept));
        sim.run_for(1000);
        for (from, to) in [(a, b), (b, a)] {
            for via in ["ws0", "ws1"] {
                let delay = sim.rng.random_range(0..300);
                sim.dial_at(delay, from, via, to);
            }
        }
        sim.run();
        sim.assert_quiet();
        assert_eq!((sim.open(a, b), sim.open(b, a)), (1, 1));
        for host in [a, b] {
            assert!(sim.outcomes(host).iter().all(succeeded), "{:?} {:?}", sim.outcomes(a), sim.outcomes(b));
        }
    });
}

#[test]
fn an_original_is_dialled_and_dials() {
    seeds(50, |seed| {
        let mut sim = Sim::new(seed, Net::default());
        sim.onramp(seed % 2 == 0);
        let (a, o) = (sim.host(Rule::Accept), sim.original());
        sim.run_for(1000);
        let (from, to) = if seed % 3 == 0 { (a, o) } else { (o, a) };
        sim.dial_at(0, from, "ws0", to);
        sim.run();
        sim.assert_quiet();
        assert_eq!(sim.open(a, o), 1);
        let original = &sim.originals[&o];
        assert!(original.has(&name(a)) && original.choked == 0);
        assert_eq!(original.open(&name(a)), 1);
    });
}

#[test]
fn glare_with_an_original_that_dialled_before_it_got_our_offer() {
    seeds(200, |seed| {
        let mut sim = Sim::new(seed, Net::default());
        sim.onramp(true);
        let (a, o) = (sim.host(Rule::Accept), sim.original());
        sim.run_for(1000);
        // It sends its offer before it can have ours: its answer to ours is an orphan's.
        sim.dial_at(0, o, "ws0", a);
        sim.net.setup = 0..=0;
        sim.run_for(1);
        sim.net.setup = 0..=80;
        sim.dial_at(0, a, "ws0", o);
        sim.run();
        sim.assert_quiet();
        assert_eq!(sim.open(a, o), 1);
        assert!(succeeded(&sim.outcomes(a)[0]));
        let original = &sim.originals[&o];
        assert!(original.has(&name(a)), "the connection is the one it keeps");
        assert_eq!((original.open(&name(a)), original.choked), (1, 0));
    });
}

#[test]
fn glare_with_an_original_that_dials_after_it_got_our_offer() {
    seeds(200, |seed| {
        let mut sim = Sim::new(seed, Net { setup: 20..=20, ..Net::default() });
        sim.onramp(true);
        let (a, o) = (sim.host(Rule::Accept), sim.original());
        sim.run_for(1000);
        sim.dial_at(0, a, "ws0", o);
        while sim.originals[&o].connections.len() < 2 {
            sim.run_for(1);
        }
        sim.dial_at(1, o, "ws0", a);
        sim.run();
        sim.assert_quiet();
        assert_eq!(sim.open(a, o), 1);
        assert!(sim.originals[&o].has(&name(a)) && sim.originals[&o].choked == 0);
    });
}

#[test]
fn peers_introduce_peers_and_originals_introduce_them_too() {
    seeds(50, |seed| {
        let mut sim = Sim::new(seed, Net::default());
        sim.onramp(true);
        let (a, relay, b) = if seed % 2 == 0 {
            (sim.host(Rule::Accept), sim.host(Rule::Accept), sim.host(Rule::Accept))
        } else {
            (sim.host(Rule::Accept), sim.original(), sim.host(Rule::Accept))
        };
        sim.run_for(1000);
        sim.dial_at(0, a, "ws0", relay);
        sim.dial_at(0, b, "ws0", relay);
        sim.run();
        sim.dial_at(0, a, &name(relay), b);
        sim.run();
        sim.assert_quiet();
        assert_eq!((sim.open(a, b), sim.open(b, a)), (1, 1));
    });
}

/// A mesh of hosts on one or two onramps that dial each other at random, through anything.
fn mesh(seed: u64, net: Net, dials: usize) -> (Sim, usize) {
    let mut sim = Sim::new(seed, net);
    for _ in 0..sim.rng.random_range(1..=2) {
        let extension = sim.rng.random_bool(0.7);
        sim.onramp(extension);
    }
    let hosts = sim.rng.random_range(3..=8);
    for _ in 0..hosts {
        sim.host(Rule::Accept);
    }
    sim.run_for(200);
    for _ in 0..dials {
        let (host, to) = (sim.rng.random_range(0..hosts), sim.rng.random_range(0..hosts));
        let delay = sim.rng.random_range(0..4000);
        let timeout = sim.rng.random_range(5..40);
        sim.at(delay, Event::Dial { host, via: None, to: name(to), data: Value::Null, timeout });
    }
    (sim, hosts)
}

#[test]
fn without_loss_every_call_that_can_succeed_does() {
    seeds(60, |seed| {
        let (mut sim, hosts) = mesh(seed, Net::default(), 40);
        sim.run();
        sim.assert_quiet();
        for host in 0..hosts {
            for call in sim.hosts[host].as_ref().unwrap().calls.values() {
                let outcome = call.outcome.as_ref().unwrap();
                let allowed = match outcome {
                    Outcome::Failed(CloseReason::OwnAddress) => call.to == name(host),
                    // The peer that should introduce them does not know it, or one of its links lost to another and took
                    // the frames that were on it along.
                    Outcome::Failed(CloseReason::Unreachable | CloseReason::ViaClosed | CloseReason::TimedOut) => {
                        call.via.starts_with('p')
                    }
                    other => succeeded(other),
                };
                assert!(allowed, "host {host}: {call:?}");
            }
        }
    });
}

#[test]
fn whatever_happens_nothing_is_left_over() {
    seeds(80, |seed| {
        let trouble = Net {
            latency: 1..=400,
            verdict: 0..=1000,
            loss: 0.1,
            duplication: 0.1,
            ordered: seed % 2 == 0,
            ..Net::default()
        };
        let (mut sim, hosts) = mesh(seed, trouble, 60);
        for _ in 0..15 {
            let host = sim.rng.random_range(0..hosts);
            let delay = sim.rng.random_range(0..6000);
            let event = match sim.rng.random_range(0..10) {
                0 => Event::Crash(host),
                1..5 => Event::CloseRandom(host),
                _ => Event::AbandonLatest(host),
            };
            sim.at(delay, event);
        }
        sim.run();
        sim.assert_quiet();
    });
}
