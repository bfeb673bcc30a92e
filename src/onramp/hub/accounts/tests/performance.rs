//! What a login costs: as much as it is told and others are told of it, however many there are besides.

use super::*;

/// A hub where account 0 trusts `trusted` others, each with three logins, among `strangers`.
fn world(trusted: i64, strangers: i64) -> World {
    let limits = Limits { max_connections: usize::MAX, max_logins: 3, ..limits() };
    let mut world = World::new(limits);
    for account in 1..=trusted {
        world.store.trust(AccountId(0), AccountId(account));
    }
    for account in 1..=trusted + strangers {
        for _ in 0..3 {
            let login = world.directory(AccountId(account));
            world.told(login);
        }
    }
    world
}

/// How long the first login of account 0 takes, with everybody reading what it is told: the best of `rounds`.
fn login(world: &mut World, rounds: usize) -> Duration {
    let everybody = world.ids.len();
    let times = (0..rounds).map(|_| {
        // Reading the model's store is none of it.
        let snapshot = world.store.read(AccountId(0));
        let place = Place::Directory(PeerNumber::new(7).unwrap());
        let start = Instant::now();
        let ticket = world.hub.begin(AccountId(0));
        world.hub.learn(AccountId(0), ticket, snapshot, &mut world.bells);
        let id = world.hub.join(AccountId(0), 0, place, 0, &mut world.bells).unwrap();
        world.hub.finish(AccountId(0));
        let mut batch = Vec::new();
        while world.hub.pull(id, &mut batch) == Next::Pull {}
        world.hub.disconnect(id, Reason::Left, &mut world.bells);
        let took = start.elapsed();
        assert_eq!(batch.len(), 4);
        for login in 0..everybody {
            world.told(login);
        }
        took
    });
    // What else the machine does only adds to it.
    times.min().unwrap()
}

#[test]
fn a_login_costs_as_much_as_there_is_to_be_told() {
    let (few, many) = (login(&mut world(30, 10), 31), login(&mut world(30, 3_000), 31));
    assert!(many < few * 4 + Duration::from_micros(200), "{few:?} among 10 strangers, {many:?} among 3,000");
    let large = login(&mut world(1_000, 0), 11);
    println!("{few:?} for 30 trusted accounts of three logins, {large:?} for 1,000");
    // With one scan over all for each it would be minutes.
    assert!(large < Duration::from_secs(2), "{large:?} for 1,000 trusted accounts");
}
