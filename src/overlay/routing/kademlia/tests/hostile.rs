use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Answers all questions to this neighbour with these ids.
fn answer_all(table: &mut Kademlia, from: OverlayId, actions: &[Action], ids: &[OverlayId], now: Instant) {
    for (_, token, _) in questions(actions).into_iter().filter(|(to, _, _)| *to == from) {
        table.receive(Sender::Neighbour(from), &Message::Found { token, ids: ids.to_vec() }.encode(), now);
    }
}

#[test]
fn an_attacker_with_many_ids_displaces_nobody_who_answers() {
    let mut now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    let honest: Vec<OverlayId> = (0..80).map(|at| in_bucket(152 + at % 8, at)).collect();
    honest.iter().for_each(|id| table.up(*id, true, now));
    for bucket in [159, 156] {
        for number in 1000..1200 {
            now += Duration::from_secs(1);
            let id = in_bucket(bucket, number);
            assert_ne!(table.admits(&id), Admission::Yes);
            table.up(id, true, now);
            table.handle_timeout(now);
            actions(&mut table);
        }
    }
    let lost: Vec<&OverlayId> = honest.iter().filter(|id| !table.links.fits(id)).collect();
    assert_eq!(lost, Vec::<&OverlayId>::new());
}

#[test]
fn an_attacker_close_to_us_takes_surplus_places_only() {
    let now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    let honest: Vec<OverlayId> = (0..80).map(|at| in_bucket(150 + at % 10, at)).collect();
    honest.iter().for_each(|id| table.up(*id, true, now));
    // Ids as close as those cost 2^60 keys and more, and even they leave the oldest of each bucket.
    for number in 0..500 {
        table.up(in_bucket(100 - number % 20, number), true, now);
    }
    for bucket in 150..160 {
        let oldest = honest[bucket as usize - 150];
        assert!(table.links.fits(&oldest), "bucket {bucket}");
    }
    assert_eq!(table.neighbours().len(), 80);
}

#[test]
fn answers_full_of_own_ids_leave_the_candidates_of_others() {
    let mut now = Instant::now();
    let config = KademliaConfig { parallel: 1, ..KademliaConfig::default() };
    let mut table = table(config, now);
    (0..8).for_each(|at| table.up(in_bucket(140, at), true, now));
    let attacker = in_bucket(159, 0);
    table.up(attacker, true, now);
    let done = actions(&mut table);
    let others: Vec<OverlayId> = (0..5).map(|number| in_bucket(158, number)).collect();
    answer_all(&mut table, in_bucket(140, 0), &done, &others, now);
    let heard = |table: &Kademlia| others.iter().filter(|id| table.candidates.iter().any(|c| c.id == **id)).count();
    assert_eq!(heard(&table), 5);
    let mut done = done;
    for round in 0..200 {
        let ids: Vec<OverlayId> = (0..20).map(|at| in_bucket(158, 1000 + round * 20 + at)).collect();
        answer_all(&mut table, attacker, &done, &ids, now);
        now += Duration::from_secs(3);
        table.look_for(&attacker, now);
        done = actions(&mut table);
        assert!(!questions(&done).is_empty(), "it is asked again");
    }
    assert_eq!(heard(&table), 5);
    assert!(table.candidates.bucket(158).len() <= 16);
}

#[test]
fn who_names_junk_is_believed_less() {
    let mut now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    let liar = in_bucket(159, 0);
    table.up(liar, true, now);
    let mut tried = HashSet::new();
    for round in 0..300 {
        let done = actions(&mut table);
        wishes(&done).iter().for_each(|id| table.unreachable(id, now));
        tried.extend(wishes(&done));
        let ids: Vec<OverlayId> = (0..20).map(|at| in_bucket(100 + at, round)).collect();
        answer_all(&mut table, liar, &done, &ids, now);
        now += Duration::from_secs(1);
        table.look_for(&in_bucket(120, 0), now);
    }
    assert!((20..=42).contains(&tried.len()), "{} of 6000 were tried", tried.len());
}

#[test]
fn what_was_not_asked_for_is_ignored() {
    let now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    let (neighbour, stranger) = (in_bucket(159, 0), in_bucket(158, 0));
    table.up(neighbour, true, now);
    let (_, token, _) = questions(&actions(&mut table))[0];
    let found = |token| Message::Found { token, ids: vec![in_bucket(150, 0)] }.encode();
    table.receive(Sender::Neighbour(neighbour), &found(token.wrapping_add(1)), now);
    table.receive(Sender::Neighbour(stranger), &found(token), now);
    table.receive(Sender::Claimed(neighbour), &found(token), now);
    table.receive(Sender::Neighbour(stranger), &Message::Find { token, hops: 1, target: stranger }.encode(), now);
    table.receive(Sender::Neighbour(neighbour), b"{}", now);
    assert_eq!((table.ignored(), table.candidates.iter().count(), actions(&mut table).len()), (5, 0, 0));
    table.receive(Sender::Neighbour(neighbour), &found(token), now);
    assert_eq!((table.ignored(), table.candidates.iter().count()), (5, 1));
}

#[test]
fn who_asks_too_often_gets_no_answer() {
    let mut now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    table.up(in_bucket(159, 0), true, now);
    actions(&mut table);
    let find = Message::Find { token: 1, hops: 16, target: in_bucket(159, 7) }.encode();
    let mut answers = 0;
    for _ in 0..10_000 {
        now += Duration::from_millis(1);
        table.receive(Sender::Neighbour(in_bucket(159, 0)), &find, now);
        answers += actions(&mut table).len();
    }
    assert!((90..=110).contains(&answers), "{answers}: a burst of 50, and 5 each second");
    assert_eq!(table.ignored(), 10_000 - answers as u64);
}

#[derive(Debug, Clone)]
enum Input {
    Up(u8, u8, bool),
    Down(u8, u8),
    Unreachable(u8, u8),
    Responds(u8, u8, bool),
    LookFor(u8, u8),
    /// A neighbour answers its question, if there is one, with ids of a bucket.
    Answer(u8, u8),
    Find(u8, u8, u8),
    Junk(u8, u8, Vec<u8>),
    Wait(u32),
}

fn input() -> impl Strategy<Value = Input> {
    let peer = || (130..160u8, any::<u8>());
    prop_oneof![
        6 => (peer(), any::<bool>()).prop_map(|((b, n), verified)| Input::Up(b, n, verified)),
        1 => peer().prop_map(|(b, n)| Input::Down(b, n)),
        2 => peer().prop_map(|(b, n)| Input::Unreachable(b, n)),
        1 => (peer(), any::<bool>()).prop_map(|((b, n), responds)| Input::Responds(b, n, responds)),
        1 => peer().prop_map(|(b, n)| Input::LookFor(b, n)),
        6 => peer().prop_map(|(b, n)| Input::Answer(b, n)),
        2 => (peer(), any::<u8>()).prop_map(|((b, n), hops)| Input::Find(b, n, hops)),
        1 => (peer(), prop::collection::vec(any::<u8>(), 0..450)).prop_map(|((b, n), junk)| Input::Junk(b, n, junk)),
        2 => (0..2_000_000u32).prop_map(Input::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_inputs(
        inputs in prop::collection::vec(input(), 0..300), cap in 0..60usize, bucket in 0..12usize, near in 0..10usize,
    ) {
        let config = KademliaConfig { cap, bucket, near, ..KademliaConfig::default() };
        let mut now = Instant::now();
        let mut table = table(config, now);
        let id = |bucket: u8, number: u8| in_bucket(bucket.into(), number.into());
        let mut asked: Vec<(OverlayId, u32, OverlayId)> = Vec::new();
        for input in inputs {
            match input {
                Input::Up(b, n, verified) => table.up(id(b, n), verified, now),
                Input::Down(b, n) => {
                    table.down(&id(b, n), now);
                    let first = table.neighbours().get(usize::from(n)).copied();
                    first.iter().for_each(|id| table.down(id, now));
                }
                Input::Unreachable(b, n) => {
                    table.unreachable(&id(b, n), now);
                    let pending = table.candidates.iter().find(|candidate| candidate.pending).map(|candidate| candidate.id);
                    pending.iter().for_each(|id| table.unreachable(id, now));
                }
                Input::Responds(b, n, responds) => table.responds(&id(b, n), responds, now),
                Input::LookFor(b, n) => table.look_for(&id(b, n), now),
                Input::Answer(b, n) => if let Some((from, token, _)) = asked.pop() {
                    let ids = (0..n % 21).map(|at| id(b, n.wrapping_add(at))).collect();
                    table.receive(Sender::Neighbour(from), &Message::Found { token, ids }.encode(), now);
                },
                Input::Find(b, n, hops) => {
                    let from = table.neighbours().get(usize::from(n)).copied().unwrap_or(id(b, n));
                    let find = Message::Find { token: n.into(), hops, target: id(b, n) }.encode();
                    table.receive(Sender::Neighbour(from), &find, now);
                }
                Input::Junk(b, n, junk) => table.receive(Sender::Neighbour(id(b, n)), &junk, now),
                Input::Wait(millis) => {
                    now += Duration::from_millis(millis.into());
                    table.handle_timeout(now);
                    prop_assert!(table.next_timeout().unwrap() > now - Duration::from_millis(100));
                }
            }
            let done = actions(&mut table);
            prop_assert!(done.len() <= 12, "{:?}", done);
            asked.extend(questions(&done));
            prop_assert!(table.neighbours().len() <= cap);
            prop_assert!(table.candidates.iter().filter(|candidate| candidate.pending).count() <= 4);
            let target = id(130 + (done.len() % 30) as u8, 3);
            if let Some(next) = table.next_hop(&target, &|_| false) {
                prop_assert!(next.xor(&target) < table.id.xor(&target));
            }
        }
        prop_assert!((0..160).all(|b| table.links.count(b) <= bucket));
        prop_assert!(table.candidates.iter().count() <= 192);
        prop_assert!(table.links.fit().is_sorted_by_key(|link| table.id.xor(&link.id)));
        prop_assert!(table.candidates.iter().all(|candidate| table.links.get(&candidate.id).is_none()));
        prop_assert!(table.state_bytes() < 256 * 1024);
    }
}
