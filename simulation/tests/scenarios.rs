//! Each scenario with a few dozen peers, so that it does not take long without optimisation. The seed is that of the environment variable `PMESH_SEED`, or 1.

use std::time::Duration;

use pmesh::overlay::routing::KademliaConfig;
use pmesh::overlay::routing::chord::ChordConfig;
use pmesh_simulation::scenario::hops::{self, Effort};
use pmesh_simulation::scenario::{attacks, churn};
use pmesh_simulation::world::{Oddities, Settings, Table};

const PEERS: usize = 50;
/// Attacks are many.
const ATTACKED: usize = 40;

fn kademlia() -> Settings {
    Settings::new(Table::Kademlia(KademliaConfig::default()), pmesh_simulation::seed(None))
}

fn chord() -> Settings {
    Settings::new(Table::Chord(ChordConfig::default()), pmesh_simulation::seed(None))
}

fn effort() -> Effort {
    Effort { messages: 200, joins: 10, idle: Duration::from_secs(30), laid_out: false }
}

fn nothing_odd(oddities: &Oddities) {
    assert_eq!((oddities.without_link, oddities.restless, oddities.stranded), (0, 0, 0));
}

fn everything_arrives(settings: Settings, peers: usize, most_hops: f64, most_links: usize) {
    everything_arrives_with(effort(), settings, peers, most_hops, most_links);
}

fn everything_arrives_with(effort: Effort, settings: Settings, peers: usize, most_hops: f64, most_links: usize) {
    let row = hops::run(settings, peers, effort);
    assert_eq!(row.right, 1.0);
    assert_eq!((row.plain.delivered, row.plain.twice), (200, 0));
    assert_eq!((row.confirmed.delivered, row.confirmed.confirmed, row.confirmed.twice), (200, 200, 0));
    assert!(row.plain.hops <= most_hops, "{} hops", row.plain.hops);
    // One message for each hop, and none beside.
    assert!(row.plain.each(pmesh_simulation::observe::Class::User) < row.plain.hops * 1.01);
    assert!(row.links.1 <= most_links, "{} links", row.links.1);
    assert!(row.original.0 > 5.0 * row.plain.hops, "the rule of the original costs {}", row.original.0);
    nothing_odd(&row.oddities);
}

#[test]
fn with_buckets_every_message_arrives() {
    everything_arrives(kademlia(), 100, 2.0, 90);
}

#[test]
fn on_a_ring_every_message_arrives() {
    everything_arrives(chord(), 100, 3.3, 64);
}

#[test]
fn a_ring_that_is_put_together_is_as_good() {
    everything_arrives_with(Effort { laid_out: true, ..effort() }, chord(), 100, 3.3, 64);
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let figures = |seed| {
        let row = hops::run(Settings { seed, ..chord() }, 30, effort());
        hops::Row { resident: None, ..row }
    };
    assert_eq!(figures(7), figures(7));
    assert_ne!(figures(7), figures(8));
}

#[test]
fn the_same_seed_gives_the_same_figures_with_buckets() {
    let figures = |seed| {
        let row = hops::run(Settings { seed, ..kademlia() }, 30, effort());
        hops::Row { resident: None, ..row }
    };
    assert_eq!(figures(7), figures(7));
}

fn a_third_vanishes(settings: Settings) {
    let failures = churn::failures(settings, PEERS, 0.3, 200);
    assert!(failures.at_once.rate() > 0.9, "{}", failures.at_once.rate());
    // It takes 15 seconds until anybody notices.
    assert!(failures.right_after.is_some_and(|after| after < Duration::from_secs(60)), "{:?}", failures.right_after);
    assert_eq!(failures.mended.delivered, 200);
}

#[test]
fn with_buckets_a_third_vanishes() {
    a_third_vanishes(kademlia());
}

#[test]
fn on_a_ring_a_third_vanishes() {
    a_third_vanishes(chord());
}

fn peers_come_and_go(settings: Settings) {
    let churn = churn::continuous(settings, PEERS, 0.05, Duration::from_secs(60), false);
    assert!(churn.fares.rate() > 0.97, "{}", churn.fares.rate());
}

#[test]
fn with_buckets_peers_come_and_go() {
    peers_come_and_go(kademlia());
}

#[test]
fn on_a_ring_peers_come_and_go() {
    peers_come_and_go(chord());
}

fn two_halves_become_one(settings: Settings) {
    let partition = churn::partition(settings, PEERS, Duration::from_secs(60), 200);
    // Without help within two minutes, or else by one link.
    let within = |time: Option<Duration>, most| time.is_some_and(|time| time <= Duration::from_secs(most));
    assert!(within(partition.healed, 120) || within(partition.helped, 120), "{partition:?}");
    assert_eq!(partition.fares.delivered, 200);
}

#[test]
fn with_buckets_two_halves_become_one() {
    two_halves_become_one(kademlia());
}

#[test]
fn on_a_ring_two_halves_become_one() {
    two_halves_become_one(chord());
}

fn attacks_are_bounded(settings: Settings) {
    for attack in attacks::ATTACKS {
        let harm = attacks::attack(settings.clone(), ATTACKED, attack, 25);
        let (least, name) = (if attack.2 == 20 { 0.6 } else { 0.9 }, harm.name);
        assert!(harm.confirmed.rate() > least, "{name}: {}", harm.confirmed.rate());
        assert_eq!((harm.plain.twice, harm.confirmed.twice), (0, 0), "{name}: nothing is delivered twice");
        assert!(harm.links < 150, "{name}: {} links", harm.links);
        if harm.name.contains("flood") {
            assert!(harm.counters.over_budget > 1000, "{name}: {:?}", harm.counters);
        }
        assert!(harm.state.1 < 3 * harm.state.0, "{name}: {:?} bytes", harm.state);
    }
}

#[test]
fn with_buckets_attacks_are_bounded() {
    attacks_are_bounded(kademlia());
}

#[test]
fn on_a_ring_attacks_are_bounded() {
    attacks_are_bounded(chord());
}

#[test]
fn with_buckets_nobody_is_eclipsed() {
    let harm = attacks::eclipse(kademlia(), 150, 50).unwrap();
    let (bad, good) = harm.victim.unwrap();
    // Beside those in the table there may be a few links through which attackers have joined.
    let most = KademliaConfig::default().bucket + 5;
    assert!(bad <= most && good >= 10, "{bad} links to attackers, {good} to others");
    assert!(harm.confirmed.rate() > 0.8, "{}", harm.confirmed.rate());
}

#[test]
fn on_a_ring_an_eclipse_costs_no_confirmed_message() {
    let harm = attacks::eclipse(chord(), 150, 50).unwrap();
    let (bad, good) = harm.victim.unwrap();
    assert!(good >= 10, "{bad} links to attackers, {good} to others");
    assert!(harm.confirmed.rate() > 0.8, "{}", harm.confirmed.rate());
}
