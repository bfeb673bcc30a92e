use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn number(number: u64) -> PeerNumber {
    PeerNumber::new(number).unwrap()
}

fn named(name: &str, id: u64) -> Named {
    Named { name: name.into(), id: number(id) }
}

fn take(presence: &mut Presence, notices: &[Notice]) -> Vec<SessionEvent> {
    let mut events = Vec::new();
    for notice in notices {
        presence.handle(notice, &mut events);
    }
    events
}

fn login(own: u64, users: &[&str], peers: &[(&str, u64)]) -> Vec<Notice> {
    vec![
        Notice::UserAdd("Us".into()),
        Notice::SetPeerId(number(own)),
        Notice::UserList(users.iter().map(|user| (*user).to_owned()).collect()),
        Notice::PeerList(peers.iter().map(|(name, id)| named(name, *id)).collect()),
    ]
}

fn connect(name: &str, id: u64) -> SessionEvent {
    SessionEvent::PeerConnect { name: name.into(), number: number(id) }
}

fn disconnect(id: u64) -> SessionEvent {
    SessionEvent::PeerDisconnect { number: number(id), ended: false }
}

fn end(id: u64) -> SessionEvent {
    SessionEvent::PeerDisconnect { number: number(id), ended: true }
}

fn connected(id: u64) -> SessionEvent {
    SessionEvent::Connected { number: number(id) }
}

fn new(alias: &str) -> SessionEvent {
    SessionEvent::NewUser { alias: alias.into() }
}

fn removed(alias: &str) -> SessionEvent {
    SessionEvent::UserRemoved { alias: alias.into() }
}

#[test]
fn a_login_tells_who_is_there() {
    let mut presence = Presence::new();
    presence.begin();
    let notices = login(1, &["Bob", "Dave"], &[("Us", 2), ("Bob", 3), ("Us", 1)]);
    let events = take(&mut presence, &notices[..3]);
    assert!(!presence.is_complete());
    assert_eq!(events, [connected(1), new("Bob"), new("Dave")]);
    let events = take(&mut presence, &notices[3..]);
    assert_eq!(events, [connect("Us", 2), connect("Bob", 3)]);
    assert!(presence.is_complete());
    assert_eq!((presence.own(), presence.ignored()), (Some(number(1)), 1), "the own number is no peer");
    let selected = |target: &str| presence.select(&target.into()).iter().map(|(n, _)| n.get()).collect::<Vec<_>>();
    assert_eq!(selected("*"), [3, 2]);
    assert_eq!((selected("Us"), selected("Bob"), selected("Dave")), (vec![2], vec![3], vec![]));
    assert_eq!((selected("3"), selected("1"), selected("Eve")), (vec![3], vec![], vec![]));
    assert_eq!(presence.select(&3.into()).len(), 1);
    assert_eq!(presence.select(&u64::MAX.into()), []);
}

#[test]
fn after_a_new_login_only_what_differs_is_told() {
    let mut presence = Presence::new();
    presence.begin();
    take(&mut presence, &login(1, &["Bob", "Dave"], &[("Bob", 3), ("Dave", 4), ("Us", 9)]));
    presence.begin();
    assert_eq!(presence.own(), None);
    let events = take(&mut presence, &login(7, &["Bob", "Eve"], &[("Bob", 3), ("Bob", 5), ("Eve", 6)]));
    let expected =
        [connected(7), end(4), removed("Dave"), new("Eve"), disconnect(9), connect("Bob", 5), connect("Eve", 6)];
    assert_eq!(events, expected);
    assert_eq!(presence.ignored(), 0);
}

#[test]
fn what_contradicts_is_put_right_or_ignored() {
    let mut presence = Presence::new();
    presence.begin();
    take(&mut presence, &login(1, &["Bob"], &[("Bob", 3)]));
    let events = take(
        &mut presence,
        &[
            Notice::PeerConnect(named("Bob", 3)),
            Notice::PeerConnect(named("Bob", 1)),
            Notice::PeerDisconnect { number: number(8), ended: true },
            Notice::UserAdd("Bob".into()),
            Notice::UserAdd("x".repeat(MAX_NAME_BYTES + 1)),
            Notice::UserAdd(String::new()),
            Notice::UserRemove("Us".into()),
            Notice::UserRemove("Nobody".into()),
            Notice::SetPeerId(number(77)),
        ],
    );
    assert_eq!((events, presence.ignored()), (vec![], 9));
    // Under another alias, and of a user who is named only afterwards.
    let events = take(&mut presence, &[Notice::PeerConnect(named("Eve", 3)), Notice::PeerConnect(named("Us", 4))]);
    assert_eq!(events, [end(3), new("Eve"), connect("Eve", 3), connect("Us", 4)]);
    let events = take(&mut presence, &[Notice::UserRemove("Eve".into())]);
    assert_eq!(events, [end(3), removed("Eve")]);
    assert_eq!(presence.own(), Some(number(1)));
}

#[test]
fn the_own_number_was_perhaps_that_of_a_peer() {
    let mut presence = Presence::new();
    presence.begin();
    take(&mut presence, &login(1, &[], &[("Us", 2)]));
    presence.begin();
    assert_eq!(take(&mut presence, &[Notice::SetPeerId(number(2))]), [connected(2), end(2)]);
}

#[test]
fn the_other_logins_of_the_own_account_end_with_this_one() {
    let mut presence = Presence::new();
    presence.begin();
    take(&mut presence, &login(1, &["Bob"], &[("Us", 2), ("Bob", 3), ("Us", 4)]));
    presence.begin();
    let mut events = Vec::new();
    presence.account_ended(&mut events);
    assert_eq!(events, [end(2), end(4)]);
    assert_eq!(presence.peers().count(), 1);
}

/// Who is not to be believed any more to be who it was is told from who has left.
#[test]
fn who_has_another_name_has_ended_and_who_is_missing_has_left() {
    let mut presence = Presence::new();
    presence.begin();
    take(&mut presence, &login(1, &["Bob", "Eve"], &[("Bob", 3), ("Bob", 4), ("Bob", 5), ("Bob", 6), ("Us", 7)]));
    let left = |number, ended| Notice::PeerDisconnect { number, ended };
    assert_eq!(take(&mut presence, &[left(number(3), false)]), [disconnect(3)]);
    assert_eq!(take(&mut presence, &[left(number(4), true), left(number(4), true)]), [end(4)]);
    presence.begin();
    let events = take(&mut presence, &login(2, &["Bob", "Eve"], &[("Eve", 6)]));
    assert_eq!(events, [connected(2), disconnect(5), end(6), disconnect(7), connect("Eve", 6)]);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut presence = Presence::new();
    presence.begin();
    let users: Vec<String> = (0..=MAX_USERS).map(|n| format!("user {n}")).collect();
    take(&mut presence, &[Notice::SetPeerId(number(1)), Notice::UserList(users)]);
    assert_eq!((presence.users().count(), presence.ignored()), (MAX_USERS, 1));
    let peers = (2..=MAX_PEERS as u64 + 2).map(|n| named("user 7", n)).collect();
    take(&mut presence, &[Notice::PeerList(peers)]);
    assert_eq!((presence.peers().count(), presence.ignored()), (MAX_PEERS, 2));
    take(&mut presence, &[Notice::PeerConnect(named("somebody else", 1 << 40))]);
    assert_eq!((presence.peers().count(), presence.ignored()), (MAX_PEERS, 3));
}

fn notice() -> impl Strategy<Value = Notice> {
    let alias = || prop_oneof![Just("Us".to_owned()), Just("a".to_owned()), Just("b".to_owned()), Just(String::new())];
    let id = || (0u64..6).prop_map(number);
    let peer = move || (alias(), id()).prop_map(|(name, id)| Named { name, id });
    prop_oneof![
        alias().prop_map(Notice::UserAdd),
        alias().prop_map(Notice::UserRemove),
        id().prop_map(Notice::SetPeerId),
        prop::collection::vec(alias(), 0..4).prop_map(Notice::UserList),
        prop::collection::vec(peer(), 0..5).prop_map(Notice::PeerList),
        peer().prop_map(Notice::PeerConnect),
        (id(), any::<bool>()).prop_map(|(number, ended)| Notice::PeerDisconnect { number, ended }),
    ]
}

proptest! {
    /// Who follows the events knows what the session knows, whatever the directory says in whatever order.
    #[test]
    fn events_tell_everything(notices in prop::collection::vec((notice(), any::<bool>()), 0..60)) {
        let mut presence = Presence::new();
        let (mut users, mut peers) = (BTreeSet::new(), std::collections::BTreeMap::new());
        for (notice, again) in notices {
            if again {
                presence.begin();
            }
            for event in take(&mut presence, &[notice]) {
                match event {
                    SessionEvent::Connected { number } => prop_assert_eq!(presence.own(), Some(number)),
                    SessionEvent::PeerConnect { name, number } => {
                        prop_assert!(name == "Us" || users.contains(&name));
                        prop_assert!(peers.insert(number, name).is_none());
                    }
                    SessionEvent::PeerDisconnect { number, .. } => prop_assert!(peers.remove(&number).is_some()),
                    SessionEvent::NewUser { alias } => prop_assert!(users.insert(alias)),
                    SessionEvent::UserRemoved { alias } => {
                        prop_assert!(peers.values().all(|name| *name != alias));
                        prop_assert!(users.remove(&alias));
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let known: BTreeSet<String> = presence.users().map(|alias| alias.to_string()).collect();
            prop_assert_eq!(&known, &users);
            let known = presence.peers().map(|(number, alias)| (number, alias.to_string())).collect();
            prop_assert_eq!(&peers, &known);
            prop_assert_eq!(presence.peers.len(), peers.len());
            prop_assert!(presence.own().is_none_or(|own| !peers.contains_key(&own)));
        }
    }
}
