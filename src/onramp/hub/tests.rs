//! The hub in virtual time: every input of the table in the module's documentation, every bound, random sequences.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits {
        announce: true,
        max_connections: 100,
        max_logins: 100,
        rate: None,
        queue_frames: 8,
        queue_bytes: 400,
        total_queue_bytes: 100_000,
    }
}

fn name(n: usize) -> Address {
    Address::new(format!("peer-{n}")).unwrap()
}

/// A hub with its driver: bells are the numbers of the peers.
struct World {
    hub: Hub<usize>,
    ids: Vec<PeerId>,
    bells: Vec<usize>,
    now: Instant,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self { hub: Hub::new(limits), ids: Vec::new(), bells: Vec::new(), now: Instant::now() }
    }

    /// Peers 0, 1, … of the dialects, who have read what greets them.
    fn with(limits: Limits, dialects: &[Dialect]) -> Self {
        let mut world = Self::new(limits);
        for dialect in dialects {
            world.connect(*dialect).unwrap();
        }
        for peer in 0..dialects.len() {
            world.pull(peer);
        }
        world.bells.clear();
        world
    }

    fn connect(&mut self, dialect: Dialect) -> Result<usize, Refusal> {
        let peer = self.ids.len();
        let id = self.hub.connect(name(peer), dialect, peer, &mut self.bells)?;
        self.ids.push(id);
        Ok(peer)
    }

    fn send(&mut self, peer: usize, text: &str) -> Option<Instant> {
        let inbound = Inbound::read(text, &name(peer));
        self.hub.text(self.ids[peer], inbound, self.now, &mut self.bells)
    }

    fn leave(&mut self, peer: usize) {
        self.hub.disconnect(self.ids[peer], Reason::Left, &mut self.bells);
    }

    fn pull_once(&mut self, peer: usize) -> (Vec<String>, Next) {
        let mut batch = Vec::new();
        let next = self.hub.pull(self.ids[peer], &mut batch);
        assert!(batch.len() <= BATCH_FRAMES);
        (batch.iter().map(|text| text.to_string()).collect(), next)
    }

    /// All that is due.
    fn pull(&mut self, peer: usize) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let (batch, next) = self.pull_once(peer);
            all.extend(batch);
            match next {
                Next::Pull => {}
                Next::Wait => return all,
                other => panic!("{other:?}"),
            }
        }
    }
}

use Dialect::{P, Pmesh};

#[test]
fn newcomers_learn_of_everybody_oldest_first_and_everybody_of_them() {
    let mut world = World::new(limits());
    for _ in 0..3 {
        world.connect(P).unwrap();
    }
    assert_eq!(world.pull(2), [r#"[0,"peer-0"]"#, r#"[0,"peer-1"]"#]);
    assert_eq!(world.pull(0), [r#"[0,"peer-1"]"#, r#"[0,"peer-2"]"#]);
    world.leave(1);
    world.connect(P).unwrap();
    // 1 has just rung no bell of 2: nothing is announced on `p` when a peer leaves.
    assert_eq!(world.pull(2), [r#"[0,"peer-3"]"#]);
    assert_eq!(world.pull(3), [r#"[0,"peer-0"]"#, r#"[0,"peer-2"]"#]);
    assert_eq!(world.hub.stats().announced, 7);
}

#[test]
fn extension_peers_are_welcomed_and_told_who_left() {
    let mut world = World::with(limits(), &[P, Pmesh, P]);
    world.connect(Pmesh).unwrap();
    assert_eq!(world.bells, [0, 1, 2]);
    assert_eq!(world.pull(3), [r#"[16,"peer-3"]"#, r#"[0,"peer-0"]"#, r#"[0,"peer-1"]"#, r#"[0,"peer-2"]"#]);
    world.pull(0);
    world.pull(1);
    world.bells.clear();
    world.leave(0);
    assert_eq!(world.bells, [1, 3]);
    assert_eq!(world.pull(1), [r#"[18,"peer-0"]"#]);
    assert_eq!(world.pull(3), [r#"[18,"peer-0"]"#]);
    assert_eq!(world.pull(2), [r#"[0,"peer-3"]"#]);
}

#[test]
fn without_announcements_only_the_welcome_is_sent() {
    let mut world = World::new(Limits { announce: false, ..limits() });
    for dialect in [Pmesh, P, Pmesh] {
        world.connect(dialect).unwrap();
    }
    assert_eq!(world.pull(0), [r#"[16,"peer-0"]"#]);
    assert!(world.pull(1).is_empty());
    world.leave(0);
    assert_eq!(world.pull(2), [r#"[16,"peer-2"]"#]);
    assert!(world.bells.is_empty());
    assert!(world.hub.log.is_empty());
}

#[test]
fn who_comes_and_leaves_at_once_is_announced_all_the_same() {
    let mut world = World::with(limits(), &[P, Pmesh]);
    world.connect(P).unwrap();
    world.send(2, r#"[6,"peer-1",1]"#);
    world.leave(2);
    world.connect(P).unwrap();
    assert_eq!(world.pull(0), [r#"[0,"peer-2"]"#, r#"[0,"peer-3"]"#]);
    assert_eq!(
        world.pull(1),
        [r#"[0,"peer-2"]"#, r#"[0,"peer-3"]"#, r#"[7,"peer-2",1]"#, r#"[18,"peer-2"]"#],
        "announced, relayed, left"
    );
    assert_eq!(world.pull(3), [r#"[0,"peer-0"]"#, r#"[0,"peer-1"]"#]);
}

#[test]
fn payloads_are_relayed_byte_by_byte() {
    let mut world = World::with(limits(), &[P, P]);
    for (text, relayed) in [
        (r#"[6,"peer-1",{"b":1,"a":[1, 2]}]"#, r#"[7,"peer-0",{"b":1,"a":[1, 2]}]"#),
        (r#"[6,"peer-1"]"#, r#"[7,"peer-0",null]"#),
        (r#"[6,"peer-1",1,"extra",{}]"#, r#"[7,"peer-0",1]"#),
    ] {
        world.send(0, text);
        assert_eq!(world.bells, [1]);
        assert_eq!(world.pull(1), [relayed]);
        world.bells.clear();
    }
    world.send(1, r#"[6,"peer-1","me"]"#);
    assert_eq!(world.pull(1), [r#"[7,"peer-1","me"]"#]);
    assert_eq!(world.hub.stats().relayed, 4);
    assert_eq!((world.hub.stats().queued_frames, world.hub.stats().queued_bytes), (0, 0));
}

#[test]
fn unknown_destinations_are_told_on_the_extension_only() {
    let mut world = World::with(limits(), &[P, Pmesh, P]);
    world.leave(2);
    world.pull(1);
    for to in ["peer-2", "nobody", "__proto__", "toString", "constructor"] {
        for peer in [0, 1] {
            world.send(peer, &format!("[6,\"{to}\",1]"));
        }
        assert_eq!(world.pull(1), [format!("[17,\"{to}\",\"unknown\"]")]);
        assert!(world.pull(0).is_empty());
    }
    assert_eq!(world.hub.stats().undeliverable, 10);
}

#[test]
fn what_is_not_for_an_onramp_is_counted_and_ignored() {
    let mut world = World::with(limits(), &[P, Pmesh]);
    let malformed =
        ["", "nonsense", "null", "5", "{}", "[]", "true", "[6]", "[6,null,1]", "[6,5,1]", "[6,\"\",1]", "[\"6\"]"];
    let ignored =
        ["[0]", "[0,\"x\"]", "[7,\"peer-1\",1]", "[16,\"a\"]", "[17,\"a\",\"busy\"]", "[18,\"a\"]", "[99,1]", "[3]"];
    for peer in [0, 1] {
        for text in malformed.iter().chain(&ignored) {
            assert_eq!(world.send(peer, text), None);
        }
        world.hub.binary(world.ids[peer], world.now);
    }
    let stats = world.hub.stats();
    assert_eq!(stats.malformed as usize, 2 * malformed.len());
    assert_eq!(stats.ignored as usize, 2 * ignored.len() + 2);
    assert!(world.bells.is_empty() && world.pull(0).is_empty() && world.pull(1).is_empty());
}

#[test]
fn a_full_queue_drops_and_tells_the_sender() {
    let mut world = World::with(limits(), &[P, Pmesh, Pmesh]);
    for n in 0..10 {
        world.send(1, &format!(r#"[6,"peer-0",{n}]"#));
    }
    assert_eq!(world.pull(1), [r#"[17,"peer-0","busy"]"#, r#"[17,"peer-0","busy"]"#]);
    assert_eq!(world.pull(0).len(), 8);
    // By bytes: one frame of any size fits, a second does not.
    let large = format!(r#"[6,"peer-0","{}"]"#, "x".repeat(500));
    world.send(2, &large);
    world.send(2, &large);
    assert_eq!(world.pull(2), [r#"[17,"peer-0","busy"]"#]);
    assert_eq!(world.pull(0).len(), 1);
    assert_eq!(world.hub.stats().busy, 3);
    assert_eq!(world.hub.stats().open, 3);
}

#[test]
fn what_is_pulled_counts_until_it_is_written() {
    let mut world = World::with(limits(), &[P, P]);
    world.send(0, r#"[6,"peer-1","x"]"#);
    assert!(matches!(world.pull_once(1), (batch, Next::Pull) if batch.len() == 1));
    assert_eq!(world.hub.stats().queued_frames, 1);
    assert!(matches!(world.pull_once(1), (batch, Next::Wait) if batch.is_empty()));
    assert_eq!((world.hub.stats().queued_frames, world.hub.stats().queued_bytes), (0, 0));
    // Gone in the middle of it: nothing stays counted.
    world.send(0, r#"[6,"peer-1","x"]"#);
    world.pull_once(1);
    world.leave(1);
    assert_eq!((world.hub.stats().queued_frames, world.hub.stats().queued_bytes), (0, 0));
}

#[test]
fn all_queues_together_are_bounded() {
    let mut world = World::with(Limits { total_queue_bytes: 300, ..limits() }, &[P, P, P]);
    let text = |to| format!(r#"[6,"peer-{to}","{}"]"#, "x".repeat(100));
    for to in [0, 1, 2] {
        world.send(0, &text(to));
    }
    assert_eq!((world.hub.stats().relayed, world.hub.stats().busy), (2, 1));
    world.leave(1);
    world.send(0, &text(2));
    assert_eq!((world.hub.stats().relayed, world.hub.stats().queued_frames), (3, 2));
}

#[test]
fn connections_are_bounded_and_places_come_free() {
    let mut world = World::new(Limits { max_connections: 2, ..limits() });
    world.connect(P).unwrap();
    world.connect(P).unwrap();
    assert_eq!(world.connect(P), Err(Refusal::Full));
    world.leave(0);
    world.leave(0);
    assert_eq!(world.connect(P), Ok(2));
    let taken = world.hub.connect(name(2), P, 9, &mut world.bells);
    assert_eq!(taken, Err(Refusal::Full));
    world.leave(1);
    assert_eq!(world.hub.connect(name(2), P, 9, &mut world.bells), Err(Refusal::Taken));
}

#[test]
fn a_fast_sender_is_paused_and_loses_nothing() {
    let rate = Rate::new(10, 5);
    let mut world = World::with(Limits { rate, queue_frames: 1000, queue_bytes: 100_000, ..limits() }, &[P, P]);
    let start = world.now;
    for n in 0..105 {
        if let Some(resume) = world.send(0, &format!(r#"[6,"peer-1",{n}]"#)) {
            world.now = resume;
        }
    }
    let took = world.now - start;
    assert!(took >= Duration::from_millis(9900) && took <= Duration::from_millis(10_100), "{took:?}");
    assert_eq!(world.pull(1).len(), 105);
    assert!(world.hub.stats().rate_limited >= 99);
    assert_eq!(world.hub.control(world.ids[1], world.now), None);
}

#[test]
fn closing_sends_everybody_away_and_lets_nobody_in() {
    let mut world = World::with(limits(), &[P, Pmesh]);
    world.send(0, r#"[6,"peer-1",1]"#);
    world.bells.clear();
    world.hub.close(&mut world.bells);
    assert_eq!(world.bells, [0], "the other bell is still ringing");
    assert_eq!(world.pull_once(0), (vec![], Next::GoAway));
    assert_eq!(world.pull_once(1), (vec![], Next::GoAway));
    assert_eq!(world.connect(P), Err(Refusal::Closed));
}

#[test]
fn bells_ring_once_until_all_is_pulled() {
    let mut world = World::with(limits(), &[P, P]);
    for _ in 0..3 {
        world.send(0, r#"[6,"peer-1",1]"#);
    }
    assert_eq!(world.bells, [1]);
    world.pull(1);
    world.send(0, r#"[6,"peer-1",1]"#);
    assert_eq!(world.bells, [1, 1]);
}

#[test]
fn a_large_roster_comes_in_batches() {
    let mut world = World::new(Limits { max_connections: 1000, ..limits() });
    for _ in 0..500 {
        world.connect(P).unwrap();
    }
    let told = world.pull(499);
    assert_eq!(told.len(), 499);
    assert!(told.iter().enumerate().all(|(n, text)| *text == format!("[0,\"peer-{n}\"]")));
    // Relays wait for the announcements before them.
    world.send(499, r#"[6,"peer-0",1]"#);
    assert_eq!(world.pull(0).last().unwrap(), r#"[7,"peer-499",1]"#);
}

#[test]
fn who_sleeps_through_more_departures_than_are_logged_is_too_far_behind() {
    let mut world = World::with(limits(), &[P, Pmesh]);
    for _ in 0..=LOGGED_DEPARTURES {
        let peer = world.connect(P).unwrap();
        world.leave(peer);
    }
    let mut next = Next::Pull;
    while next == Next::Pull {
        next = world.pull_once(1).1;
    }
    assert_eq!(next, Next::TooFarBehind);
    world.pull(0);
    assert_eq!(world.hub.log.len(), LOGGED_DEPARTURES);
    world.leave(1);
    world.leave(0);
    assert!(world.hub.log.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Connect(bool),
    Leave(usize),
    Relay(usize, usize),
    Text(usize, String),
    Pull(usize),
    PullAll(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => any::<bool>().prop_map(Step::Connect),
        1 => any::<usize>().prop_map(Step::Leave),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Relay(a, b)),
        1 => (any::<usize>(), "[\\[\\]0-9a-z\", ]{0,12}").prop_map(|(a, text)| Step::Text(a, text)),
        3 => any::<usize>().prop_map(Step::Pull),
        1 => any::<usize>().prop_map(Step::PullAll),
    ];
    prop::collection::vec(step, 0..120)
}

/// What one peer has seen, checked frame by frame.
#[derive(Default)]
struct Seen {
    known: Vec<Address>,
    gone: Vec<Address>,
    last: HashMap<Address, u64>,
}

impl Seen {
    fn check(&mut self, dialect: Dialect, own: &Address, text: &str) {
        match Frame::parse(text).expect("only frames are sent") {
            Frame::Message(json) => {
                let address: Address = serde_json::from_str(json.get()).unwrap();
                assert!(address != *own && !self.known.contains(&address), "announced once");
                self.known.push(address);
            }
            Frame::Relayed { from, payload } => {
                assert!(from == *own || self.known.contains(&from), "announced before");
                assert!(!self.gone.contains(&from), "and still there");
                let count: u64 = payload.get().parse().unwrap();
                let last = self.last.insert(from, count);
                assert!(last.is_none_or(|last| last < count), "in order");
            }
            Frame::Welcome { address } => {
                assert!(dialect == Pmesh && address == *own && self.known.is_empty() && self.last.is_empty());
            }
            Frame::Left { address } => {
                assert!(dialect == Pmesh && self.known.contains(&address) && !self.gone.contains(&address));
                self.gone.push(address);
            }
            Frame::Undeliverable { .. } => assert_eq!(dialect, Pmesh),
            Frame::Relay { .. } => panic!("an onramp asks for no relaying"),
        }
    }
}

proptest! {
    #[test]
    fn random_sequences_keep_the_invariants(steps in steps(), announce in any::<bool>()) {
        let mut world = World::new(Limits { announce, max_connections: 12, ..limits() });
        let mut live: Vec<usize> = Vec::new();
        let mut dialects = Vec::new();
        let mut seen: Vec<Seen> = Vec::new();
        let mut count = 0u64;
        for step in steps {
            let pick = |n: usize| if live.is_empty() { None } else { Some(live[n % live.len()]) };
            match step {
                Step::Connect(extension) => {
                    let dialect = if extension { Pmesh } else { P };
                    match world.connect(dialect) {
                        Ok(peer) => {
                            prop_assert!(live.len() < 12);
                            live.push(peer);
                            dialects.push(dialect);
                            seen.push(Seen::default());
                        }
                        Err(refusal) => prop_assert_eq!((refusal, live.len()), (Refusal::Full, 12)),
                    }
                }
                Step::Leave(n) => if let Some(peer) = pick(n) {
                    world.leave(peer);
                    live.retain(|other| *other != peer);
                },
                Step::Relay(a, b) => if let (Some(from), false) = (pick(a), seen.is_empty()) {
                    count += 1;
                    let before = world.hub.stats();
                    let to = b % seen.len();
                    world.send(from, &format!(r#"[6,"peer-{to}",{count}]"#));
                    let after = world.hub.stats();
                    let relayed = after.relayed > before.relayed;
                    prop_assert!(!relayed || live.contains(&to), "relayed to present peers only");
                    prop_assert_eq!(after.undeliverable > before.undeliverable, !live.contains(&to));
                },
                Step::Text(n, text) => if let Some(peer) = pick(n) { world.send(peer, &text); },
                Step::Pull(n) => if let Some(peer) = pick(n) {
                    for text in world.pull_once(peer).0 {
                        check(&mut seen[peer], dialects[peer], peer, &text, announce);
                    }
                },
                Step::PullAll(n) => if let Some(peer) = pick(n) {
                    for text in world.pull(peer) {
                        check(&mut seen[peer], dialects[peer], peer, &text, announce);
                    }
                    if announce {
                        let known = live.iter().filter(|other| **other != peer);
                        for other in known {
                            prop_assert!(seen[peer].known.contains(&name(*other)), "knows everybody here");
                        }
                    }
                },
            }
            let stats = world.hub.stats();
            prop_assert_eq!(stats.open, live.len());
            let queued: usize = world.hub.peers.values().map(|peer| peer.outbox.state().0).sum();
            let bytes: usize = world.hub.peers.values().map(|peer| peer.outbox.state().1).sum();
            prop_assert_eq!((stats.queued_frames, stats.queued_bytes), (queued, bytes));
            prop_assert!(world.hub.peers.values().all(|peer| peer.outbox.state().2 <= 8));
            prop_assert!(world.hub.peers.values().all(|peer| peer.outbox.state().2 == 0 || peer.outbox.state().3));
            prop_assert!(world.hub.log.len() <= LOGGED_DEPARTURES);
        }
    }
}

fn check(seen: &mut Seen, dialect: Dialect, peer: usize, text: &str, announce: bool) {
    if !announce && let Ok(Frame::Relayed { from, .. }) = Frame::parse(text) {
        // Nobody is announced, so anybody may relay.
        if !seen.known.contains(&from) && from != name(peer) {
            seen.known.push(from);
        }
    }
    seen.check(dialect, &name(peer), text);
}
