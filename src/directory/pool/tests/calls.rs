//! Calls get connections, in turns and in time.

use super::*;

#[test]
fn a_call_that_does_not_keep_its_connection_closes_it_at_once() {
    let mut world = World::new(slots(5));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&call));
    let other = world.call(1, false);
    assert!(world.started.contains_key(&other), "a connection serves many calls");
    world.finish(call);
    assert!(world.closing.is_empty());
    world.finish(other);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn a_kept_connection_is_closed_five_to_ten_seconds_after_its_last_call() {
    for seed in 0..20 {
        let mut world = World::with_seed(slots(5), seed);
        let kept = world.call(1, true);
        world.dialled(1, Ok(()));
        world.finish(kept);
        world.pass(Duration::from_millis(4999));
        let other = world.call(1, false);
        assert!(world.started.contains_key(&other), "it is there for the next call");
        world.pass(Duration::from_secs(60));
        world.finish(other);
        world.pass(Duration::from_millis(4999));
        assert!(world.closing.is_empty());
        world.pass(Duration::from_millis(5002));
        assert_eq!(world.closing, [peer(1)].into());
    }
}

#[test]
fn a_hundred_peers_get_their_turns_in_five_places() {
    let mut world = World::new(slots(5));
    for number in 0..100 {
        world.call(number, number >= 50);
    }
    let mut done = 0;
    while let Some(dialled) = world.dialling.first().copied() {
        world.dialled(dialled.get(), Ok(()));
        let calls: Vec<_> = world.started.keys().copied().collect();
        for call in calls {
            world.finish(call);
            done += 1;
        }
        for peer in world.closing.clone() {
            world.closed(peer.get());
        }
    }
    assert_eq!(done, 100);
    // Without any time: who is only kept gives way.
    assert_eq!(world.dials, (0..100).map(peer).collect::<Vec<_>>());
    assert_eq!(world.open.len(), 5, "the last ones are kept, as nobody waits");
}

#[test]
fn who_is_connected_is_called_without_a_place() {
    let mut world = World::new(slots(1));
    world.call(1, false);
    world.open.insert(peer(2), false);
    let call = world.call(2, false);
    assert!(world.started.contains_key(&call));
    world.finish(call);
    // A peer that waits for a place calls by itself.
    let other = world.call(3, false);
    world.open.insert(peer(3), false);
    world.pool.opened(peer(3), world.now);
    world.act();
    assert!(world.started.contains_key(&other));
    world.finish(other);
    assert!(world.closing.is_empty(), "what others have made stays");
}

#[test]
fn who_does_not_answer_is_dialled_again_behind_the_others() {
    let mut world = World::new(PoolConfig { retries: 1, ..slots(1) });
    let (silent, other) = (world.call(1, false), world.call(2, false));
    world.dialled(1, Err(ConnectError::TimedOut));
    assert_eq!(world.dials, [peer(1), peer(2)]);
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    world.dialled(1, Err(ConnectError::TimedOut));
    assert_eq!(world.failed[&silent], NoConnection::Failed(ConnectError::TimedOut));
    assert_eq!(world.dials.len(), 3);
}

#[test]
fn who_is_busy_is_asked_again_after_a_pause_and_holds_no_place() {
    let mut world = World::new(PoolConfig { retries: 0, ..slots(1) });
    let (call, other) = (world.call(1, false), world.call(2, false));
    world.dialled(1, Err(ConnectError::Busy));
    assert_eq!(world.dialling, [peer(2)].into(), "the place is free");
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    world.pass(Duration::from_millis(1500));
    for _ in 0..10 {
        world.dialled(1, Err(ConnectError::Busy));
        world.pass(Duration::from_millis(499));
        assert!(world.dialling.is_empty());
        world.pass(Duration::from_millis(1002));
    }
    world.dialled(1, Err(ConnectError::Refused));
    assert_eq!(world.failed[&call], NoConnection::Failed(ConnectError::Refused));
}

#[test]
fn no_call_waits_for_ever() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.pass(Duration::from_millis(59_999));
    assert!(world.failed.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.failed[&call], NoConnection::TimedOut);
    assert!(world.dialling.is_empty(), "an attempt that nobody waits for is dropped");
}

#[test]
fn calls_to_a_peer_that_leaves_fail_unless_they_are_on_their_way() {
    let mut world = World::new(slots(1));
    let (active, waiting) = (world.call(1, true), world.call(2, true));
    world.dialled(1, Ok(()));
    world.left(1);
    world.left(2);
    assert_eq!(world.failed[&waiting], NoConnection::Gone);
    assert!(world.started.contains_key(&active));
    world.finish(active);
    assert_eq!(world.closing, [peer(1)].into(), "nobody can be called there any more");
    world.closed(1);
    world.call(3, true);
    world.left(3);
    assert!(world.dialling.is_empty());
}

#[test]
fn without_the_directory_calls_wait() {
    let mut world = World::new(slots(5));
    world.call(1, false);
    world.pool.set_online(false);
    world.dialled(1, Err(ConnectError::ViaClosed));
    let other = world.call(2, false);
    world.pass(Duration::from_secs(30));
    assert!(world.dialling.is_empty() && world.failed.is_empty());
    world.pool.set_online(true);
    world.act();
    assert_eq!(world.dialling, [peer(1), peer(2)].into());
    world.dialled(2, Ok(()));
    assert!(world.started.contains_key(&other));
}

#[test]
fn the_calls_of_a_connection_that_is_lost_do_not_count_for_the_next_one() {
    let mut world = World::new(slots(1));
    let old = world.call(1, false);
    world.dialled(1, Ok(()));
    world.closed(1);
    let new = world.call(1, false);
    world.dialled(1, Ok(()));
    world.finish(old);
    assert!(world.closing.is_empty(), "the new call uses it");
    world.finish(new);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn too_many_calls_fail_at_once() {
    let mut world = World::new(PoolConfig { waiting: 3, ..slots(1) });
    for number in 0..3 {
        world.call(number, false);
    }
    let beyond = world.call(3, false);
    assert_eq!(world.failed[&beyond], NoConnection::Full);
    world.dialled(0, Ok(()));
    let call = world.call(0, false);
    assert!(world.started.contains_key(&call));
}

#[test]
fn times_may_be_for_ever() {
    let ever = (Duration::MAX, Duration::MAX);
    let config = PoolConfig { wait: Duration::MAX, connect_timeout: ever, pause: ever, idle: ever, ..slots(1) };
    let mut world = World::new(config);
    world.config.connect_timeout = (FOREVER, FOREVER);
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert_eq!(world.pool.next_timeout(), Some(world.now + FOREVER));
    world.used.insert(peer(1));
    world.call(2, false);
    assert!(world.lent.contains(&peer(1)));
    world.dialled(2, Err(ConnectError::Busy));
    world.call(3, false);
    world.dialled(3, Err(ConnectError::AlreadyConnected));
    world.pass(Duration::from_secs(100_000_000));
    assert!(world.failed.is_empty() && world.dialling.is_empty());
}

#[test]
fn a_call_that_has_waited_for_who_is_busy_says_so() {
    let mut world = World::new(PoolConfig { wait: Duration::from_secs(5), ..slots(2) });
    let (busy, silent) = (world.call(1, false), world.call(2, false));
    while !world.failed.contains_key(&busy) {
        if world.dialling.contains(&peer(1)) {
            world.dialled(1, Err(ConnectError::Busy));
        }
        world.pass(Duration::from_millis(100));
    }
    let was_busy = NoConnection::Failed(ConnectError::Busy);
    assert_eq!((&world.failed[&busy], &world.failed[&silent]), (&was_busy, &NoConnection::TimedOut));
    // It was so before.
    let later = world.call(1, false);
    world.dialled(1, Err(ConnectError::Busy));
    world.pass(Duration::from_millis(1500));
    world.dialled(1, Err(ConnectError::TimedOut));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.failed[&later], NoConnection::TimedOut);
}
