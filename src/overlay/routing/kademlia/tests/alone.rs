use std::time::Duration;

use super::*;

#[test]
fn a_newcomer_asks_its_first_neighbour_for_those_close_to_itself() {
    let now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    table.up(in_bucket(159, 1), true, now);
    let asked = questions(&actions(&mut table));
    let [(to, token, target)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!((to, target), (in_bucket(159, 1), table.id()));
    let ids: Vec<OverlayId> = (150..158).map(|bucket| in_bucket(bucket, 1)).collect();
    table.receive(Sender::Neighbour(to), &Message::Found { token, ids: ids.clone() }.encode(), now);
    assert_eq!(wishes(&actions(&mut table)), ids[..4], "the closest first, so many at once");
    ids[..3].iter().for_each(|id| table.unreachable(id, now));
    assert_eq!(wishes(&actions(&mut table)), [], "who named junk is tried one at a time");
    table.up(ids[3], true, now);
    assert_eq!(wishes(&actions(&mut table)), ids[4..5]);
}

#[test]
fn a_message_takes_the_neighbour_that_is_closest_to_its_destination() {
    let now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    for id in [in_bucket(150, 1), in_bucket(159, 0), in_bucket(159, 8), in_bucket(10, 0)] {
        table.up(id, true, now);
    }
    let next = |table: &Kademlia, target: &OverlayId| table.next_hop(target, &|_| false);
    let target = in_bucket(159, 9);
    assert_eq!(next(&table, &target), Some(in_bucket(159, 8)));
    assert_eq!(table.next_hop(&target, &|id| *id == in_bucket(159, 8)), Some(in_bucket(159, 0)));
    table.responds(&in_bucket(159, 8), false, now);
    assert_eq!(next(&table, &target), Some(in_bucket(159, 0)), "who answers comes first");
    assert_eq!(next(&table, &in_bucket(159, 8)), Some(in_bucket(159, 0)));
    table.down(&in_bucket(159, 0), now);
    assert_eq!(next(&table, &target), Some(in_bucket(159, 8)), "there is no other");
    assert_eq!(next(&table, &in_bucket(155, 0)), None, "none is closer than we");
    assert!(table.is_responsible(&in_bucket(155, 0)) && !table.is_responsible(&target));
    assert_eq!(next(&table, &table.id()), None);
    assert!(table.is_responsible(&table.id()));
}

#[test]
fn a_guest_gets_what_is_for_it_and_takes_a_place_that_comes_free() {
    let now = Instant::now();
    let mut table = table(KademliaConfig { bucket: 2, ..KademliaConfig::default() }, now);
    let ids: Vec<OverlayId> = (0..4).map(|number| in_bucket(159, number)).collect();
    ids.iter().for_each(|id| table.up(*id, true, now));
    assert_eq!(table.neighbours(), ids[..2]);
    assert!(
        !actions(&mut table).iter().any(|action| matches!(action, Action::Release(_))),
        "somebody else wanted them"
    );
    assert_eq!(table.next_hop(&ids[3], &|_| false), Some(ids[3]));
    assert_eq!(table.next_hop(&in_bucket(159, 99), &|_| false), Some(ids[1]));
    table.down(&ids[0], now);
    assert_eq!(table.neighbours(), ids[1..3], "the older of two guests");
}

#[test]
fn who_does_not_answer_or_is_not_proven_gives_way() {
    let now = Instant::now();
    let config = KademliaConfig { bucket: 2, ..KademliaConfig::default() };
    let mut table = table(config, now);
    let ids: Vec<OverlayId> = (0..6).map(|number| in_bucket(159, number)).collect();
    table.up(ids[0], true, now);
    table.up(ids[1], false, now);
    assert_eq!(table.admits(&ids[2]), Admission::Instead(ids[1]));
    table.up(ids[3], false, now);
    assert_eq!(table.neighbours(), ids[..2], "one that is not proven takes nobody's place");
    actions(&mut table);
    table.up(ids[2], true, now);
    assert_eq!(actions(&mut table)[0], Action::Release(ids[1]));
    assert_eq!(table.admits(&ids[4]), Admission::No);
    table.responds(&ids[0], false, now);
    assert_eq!(table.admits(&ids[4]), Admission::Instead(ids[0]));
    table.responds(&ids[0], true, now);
    assert_eq!(table.admits(&ids[4]), Admission::No);
}

#[test]
fn at_the_cap_the_fullest_bucket_gives_its_youngest() {
    let now = Instant::now();
    let mut table = table(KademliaConfig { cap: 17, near: 2, ..KademliaConfig::default() }, now);
    for (bucket, links) in [(159, 6), (158, 5), (150, 6)] {
        (0..links).for_each(|number| table.up(in_bucket(bucket, number), true, now));
    }
    assert_eq!(table.admits(&in_bucket(159, 7)), Admission::No, "there are enough like it");
    assert_eq!(table.admits(&in_bucket(158, 9)), Admission::No, "it would be the same the other way round");
    assert_eq!(table.admits(&in_bucket(100, 0)), Admission::Instead(in_bucket(159, 5)));
    (0..12).for_each(|number| table.up(in_bucket(100 + number, 0), true, now));
    assert_eq!(table.neighbours().len(), 17);
    for bucket in [150, 158, 159] {
        assert!(table.links.count(bucket) >= 1, "bucket {bucket} is not given up");
    }
    assert!((0..6).all(|number| table.links.fits(&in_bucket(100 + number, 0))), "the closest stay");
}

#[test]
fn the_only_one_of_its_bucket_stays_though_it_does_not_answer() {
    let now = Instant::now();
    let mut table = table(KademliaConfig { cap: 6, near: 1, ..KademliaConfig::default() }, now);
    for (bucket, links) in [(150, 3), (158, 2), (159, 1)] {
        (0..links).for_each(|number| table.up(in_bucket(bucket, number), true, now));
    }
    table.responds(&in_bucket(159, 0), false, now);
    assert_eq!(table.admits(&in_bucket(157, 0)), Admission::Instead(in_bucket(158, 1)));
}

#[test]
fn all_of_the_closest_bucket_are_called() {
    let now = Instant::now();
    let mut table = table(KademliaConfig { target: 2, near: 2, ..KademliaConfig::default() }, now);
    (0..2).for_each(|number| table.up(in_bucket(100, number), true, now));
    let ids = [in_bucket(100, 8), in_bucket(100, 9), in_bucket(101, 0)];
    let (from, token, _) = questions(&actions(&mut table))[0];
    table.receive(Sender::Neighbour(from), &Message::Found { token, ids: ids.to_vec() }.encode(), now);
    assert_eq!(wishes(&actions(&mut table)), [ids[0], ids[1], ids[2]], "and one of the next, which has none");
    ids.iter().for_each(|id| table.up(*id, true, now));
    let (from, token, _) = questions(&actions(&mut table))[0];
    let more = vec![in_bucket(101, 1), in_bucket(100, 10)];
    table.receive(Sender::Neighbour(from), &Message::Found { token, ids: more }.encode(), now);
    assert_eq!(wishes(&actions(&mut table)), [in_bucket(100, 10)]);
}

#[test]
fn those_displaced_do_not_displace_each_other_for_ever() {
    let now = Instant::now();
    let mut table = table(KademliaConfig { cap: 24, near: 4, ..KademliaConfig::default() }, now);
    let mut rng = SmallRng::seed_from_u64(3);
    let mut displaced = 0;
    for _ in 0..2000 {
        let mut id = OverlayId::from_bytes(rand::RngExt::random(&mut rng));
        for attempt in 0.. {
            assert!(attempt < 24, "it does not come to an end");
            match table.admits(&id) {
                Admission::No => break,
                Admission::Yes => {
                    table.up(id, true, now);
                    break;
                }
                Admission::Instead(old) => {
                    table.up(id, true, now);
                    assert!(table.links.fits(&id) && !table.links.fits(&old));
                    table.down(&old, now);
                    displaced += 1;
                    id = old;
                }
            }
        }
    }
    assert_eq!(table.neighbours().len(), 24);
    assert!((20..400).contains(&displaced), "{displaced}");
}

#[test]
fn questions_of_others_are_passed_on_and_answered() {
    let now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    let (asker, closer) = (in_bucket(159, 0), in_bucket(150, 0));
    for id in [asker, closer, in_bucket(140, 0)] {
        table.up(id, true, now);
    }
    actions(&mut table);
    let target = in_bucket(150, 5);
    table.receive(Sender::Neighbour(asker), &Message::Find { token: 7, hops: 200, target }.encode(), now);
    let [Action::Tell { to, message }] = &actions(&mut table)[..] else { panic!("it is passed on") };
    let Some(Message::Find { token, hops: 15, target: passed }) = Message::decode(message) else { panic!() };
    assert_eq!((*to, passed), (closer, target));
    let found = |token| Message::Found { token, ids: vec![target] }.encode();
    table.receive(Sender::Neighbour(asker), &found(token), now);
    assert_eq!((table.ignored(), actions(&mut table).len()), (1, 0), "only who was asked may answer");
    table.receive(Sender::Neighbour(closer), &found(token), now);
    let message = Message::Found { token: 7, ids: vec![target, closer, in_bucket(140, 0)] }.encode();
    assert_eq!(actions(&mut table), [Action::Tell { to: asker, message }], "with what is known here");
    table.receive(Sender::Neighbour(closer), &found(token), now);
    assert_eq!(table.ignored(), 2, "once");
    table.receive(Sender::Neighbour(asker), &Message::Find { token: 8, hops: 0, target }.encode(), now);
    let [Action::Tell { message, .. }] = &actions(&mut table)[..] else { panic!("it is answered") };
    let ids = vec![closer, in_bucket(140, 0)];
    assert_eq!(Message::decode(message), Some(Message::Found { token: 8, ids }));
}

#[test]
fn an_idle_table_is_quiet() {
    let mut now = Instant::now();
    let mut table = table(KademliaConfig::default(), now);
    (0..60).for_each(|at| table.up(in_bucket(150 + at % 10, at), true, now));
    actions(&mut table);
    let mut hours = [0; 3];
    for hour in &mut hours {
        let end = now + Duration::from_secs(3600);
        while let Some(next) = table.next_timeout().filter(|next| *next < end) {
            assert!(next > now, "a timer that is due is done");
            now = next;
            table.handle_timeout(now);
            *hour += actions(&mut table).len();
        }
        now = end;
    }
    assert!(hours[0] <= 34 && (10..=18).contains(&hours[2]), "{hours:?}");
}
