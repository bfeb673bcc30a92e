//! Connections that end, and who may close them.

use super::*;

#[test]
fn no_call_to_a_peer_that_is_disowned_goes_on() {
    let mut world = World::new(slots(2));
    let (active, kept) = (world.call(1, false), world.call(1, true));
    world.dialled(1, Ok(()));
    world.finish(kept);
    let (waiting, other) = (world.call(2, false), world.call(3, false));
    world.disowned(1);
    world.disowned(2);
    assert_eq!(world.failed[&active], NoConnection::NotVouched);
    assert_eq!(world.failed[&waiting], NoConnection::Gone, "it was not called");
    assert_eq!(world.dialling, [peer(3)].into(), "the attempt is dropped, and the places are free");
    // The number is somebody else's now.
    let again = world.call(1, false);
    assert!(!world.started.contains_key(&again) && !world.dialling.contains(&peer(1)), "not over the old connection");
    world.finish(active);
    world.closed(1);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&again));
    world.dialled(3, Ok(()));
    assert!(world.started.contains_key(&other));
    world.finish(again);
    world.finish(other);
    // It has connected while it is dialled.
    world.closed(1);
    world.closed(3);
    world.call(4, false);
    world.open.insert(peer(4), false);
    world.pool.opened(peer(4), world.now);
    world.disowned(4);
    assert!(world.dialling.is_empty());
    world.pool.disowned(peer(9), false, world.now);
    assert_eq!(world.pool.poll_action(), None);
}

#[test]
fn a_connection_that_the_other_side_uses_is_left_for_a_moment_and_takes_no_place() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.used.insert(peer(1));
    world.call(2, false);
    world.finish(call);
    assert_eq!(world.dialling, [peer(2)].into());
    for _ in 0..3 {
        assert!(world.closing.is_empty());
        world.pass(Duration::from_millis(1500));
    }
    let again = world.call(1, false);
    assert!(world.started.contains_key(&again));
    world.used.clear();
    world.pass(Duration::from_secs(5));
    assert!(world.closing.is_empty(), "it is used by this side too");
    world.finish(again);
    assert_eq!(world.closing, [peer(1)].into());
}

#[test]
fn a_connection_that_the_other_side_may_close_is_not_used_any_more() {
    let mut world = World::new(slots(1));
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    assert!(!world.release(1), "it is used");
    world.finish(call);
    assert!(world.release(1));
    assert!(!world.pool.give_away(peer(1), world.now));
    let (waiting, other) = (world.call(1, false), world.call(2, false));
    assert_eq!(world.dialling, [peer(2)].into(), "the place is free");
    world.closed(1);
    world.dialled(2, Ok(()));
    world.finish(other);
    world.closed(2);
    assert_eq!(world.dialling, [peer(1)].into());
    world.finish(waiting);
    // One that nobody here has used.
    world.open.insert(peer(3), false);
    assert!(world.release(3));
    let call = world.call(3, false);
    assert!(!world.started.contains_key(&call));
    world.closed(3);
    assert_eq!(world.dialling, [peer(3)].into());
}

#[test]
fn who_has_let_the_other_side_close_a_connection_does_not_use_it_although_that_one_did() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert_eq!(world.closing, [peer(1)].into());
    // The other side has said that it uses it, and is done: what it said comes later than that it asks.
    assert!(world.release(1));
    world.pool.is_used(peer(1), world.now);
    let call = world.call(1, false);
    assert!(!world.started.contains_key(&call));
    world.closed(1);
    assert_eq!(world.dialling, [peer(1)].into());
}

#[test]
fn a_connection_that_the_other_side_may_close_and_does_not_is_cut() {
    let mut world = World::new(slots(1));
    let call = world.call(1, true);
    world.dialled(1, Ok(()));
    world.finish(call);
    assert!(world.release(1));
    let waiting = world.call(1, false);
    world.pass(Duration::from_secs(3));
    assert!(world.release(1), "it may ask again, and has no more time");
    world.pass(Duration::from_millis(1999));
    assert!(world.cut.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.cut, [peer(1)].into());
    world.closed(1);
    world.dialled(1, Ok(()));
    assert!(world.started.contains_key(&waiting));
    world.finish(waiting);
    world.closed(1);
    assert_eq!(world.pool.next_timeout(), None);
}

#[test]
fn what_the_application_takes_over_is_not_closed_and_frees_its_place() {
    let mut world = World::new(slots(1));
    let call = world.call(1, false);
    world.dialled(1, Ok(()));
    world.open.insert(peer(1), false);
    assert!(world.pool.give_away(peer(1), world.now));
    world.call(2, false);
    assert_eq!(world.dialling, [peer(2)].into());
    world.finish(call);
    assert!(world.closing.is_empty());
}
