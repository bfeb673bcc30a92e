//! The hub with accounts in virtual time: what each login is told, and who reaches whom.

mod model;
mod performance;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::onramp::accounts::Trusted;
use crate::protocol::directory::{Introduction, Request};

const A: AccountId = AccountId(1);
const B: AccountId = AccountId(2);
const C: AccountId = AccountId(3);

fn limits() -> Limits {
    Limits {
        announce: true,
        max_connections: 100,
        max_logins: 10,
        rate: None,
        queue_frames: 8,
        queue_bytes: 4000,
        total_queue_bytes: 100_000,
    }
}

/// What the store has: aliases by viewer and viewed, and epochs.
#[derive(Default)]
struct Store {
    trust: BTreeMap<(AccountId, AccountId), String>,
    epochs: BTreeMap<AccountId, Result<i64, Ended>>,
}

impl Store {
    fn read(&self, account: AccountId) -> Snapshot {
        let of = self.trust.iter().filter(|((viewer, _), _)| *viewer == account);
        Snapshot {
            epoch: self.epochs.get(&account).copied().unwrap_or(Ok(0)),
            trusted: of.map(|((_, other), alias)| Trusted { alias: alias.clone(), account: *other }).collect(),
        }
    }

    fn trust(&mut self, a: AccountId, b: AccountId) {
        for (viewer, other) in [(a, b), (b, a)] {
            self.trust.insert((viewer, other), format!("{}-of-{}", other.0, viewer.0));
        }
    }

    fn revoke(&mut self, a: AccountId, b: AccountId) {
        for pair in [(a, b), (b, a)] {
            self.trust.remove(&pair);
        }
    }
}

/// A hub with its driver: bells are the numbers of the logins.
struct World {
    hub: AccountHub<usize>,
    store: Store,
    ids: Vec<PeerId>,
    bells: Vec<usize>,
    now: Instant,
}

impl World {
    fn new(limits: Limits) -> Self {
        let (hub, now) = (AccountHub::new(limits), Instant::now());
        Self { hub, store: Store::default(), ids: Vec::new(), bells: Vec::new(), now }
    }

    fn refresh(&mut self, account: AccountId) -> Vec<AccountId> {
        let Some(ticket) = self.hub.begin_again(account) else { return Vec::new() };
        let others = self.hub.learn(account, ticket, self.store.read(account), &mut self.bells);
        self.hub.finish(account);
        others
    }

    fn join(&mut self, account: AccountId, place: Place) -> Result<usize, Refusal> {
        let ticket = self.hub.begin(account);
        let snapshot = self.store.read(account);
        let epoch = snapshot.epoch.unwrap_or_default();
        for other in self.hub.learn(account, ticket, snapshot, &mut self.bells) {
            self.refresh(other);
        }
        let login = self.ids.len();
        let joined = self.hub.join(account, epoch, place, login, &mut self.bells);
        self.hub.finish(account);
        self.ids.push(joined?);
        Ok(login)
    }

    /// A peer of the directory; its number is that of the login and 1000.
    fn directory(&mut self, account: AccountId) -> usize {
        let number = PeerNumber::new(1000 + self.ids.len() as u64).unwrap();
        self.join(account, Place::Directory(number)).unwrap()
    }

    fn peer(&mut self, account: AccountId, dialect: Dialect) -> usize {
        let address = Address::new(format!("peer-{}", self.ids.len())).unwrap();
        self.join(account, Place::Peer { address, dialect }).unwrap()
    }

    fn leave(&mut self, login: usize) {
        self.hub.disconnect(self.ids[login], Reason::Left, &mut self.bells);
    }

    /// All that is due, and what the last pull said.
    fn pull(&mut self, login: usize) -> (Vec<String>, Next) {
        let mut all = Vec::new();
        loop {
            let mut batch = Vec::new();
            let next = self.hub.pull(self.ids[login], &mut batch);
            all.extend(batch.iter().map(|text| text.as_str().to_owned()));
            if next != Next::Pull {
                return (all, next);
            }
        }
    }

    fn told(&mut self, login: usize) -> Vec<String> {
        self.pull(login).0
    }

    fn request(&mut self, login: usize, text: &str) {
        let (id, now) = (self.ids[login], self.now);
        match Request::parse(text) {
            Ok((Request::Introduce { what, route, data }, request)) => {
                let text = crate::protocol::directory::introduction(what, data, None).into();
                self.hub.introduce(id, route, text, request, now, &mut self.bells);
            }
            Ok(other) => panic!("{other:?}"),
            Err(malformed) => drop(self.hub.malformed(id, malformed.id, now, &mut self.bells)),
        }
    }

    fn frame(&mut self, login: usize, text: &str) {
        let own = Address::new(format!("peer-{login}")).unwrap();
        self.hub.text(self.ids[login], Inbound::read(text, &own), self.now, &mut self.bells);
    }
}

fn offer(to: usize, from: usize, id: Option<u64>) -> String {
    let id = id.map(|id| format!(",\"id\":{id}")).unwrap_or_default();
    format!(r#"{{"type":"peerRequest","data":{{"to":{},"from":{},"x":1.50}}{id}}}"#, 1000 + to, 1000 + from)
}

fn refused(id: u64, code: &str, message: &str) -> String {
    format!(r#"{{"type":"error","data":{{"code":"{code}","message":"{message}"}},"id":{id}}}"#)
}

#[test]
fn a_login_is_told_who_it_is_and_who_is_there() {
    let mut world = World::new(limits());
    world.store.trust(A, B);
    world.store.trust(A, C);
    let bob = world.directory(B);
    let first = world.directory(A);
    let second = world.directory(A);
    assert_eq!(
        world.told(second),
        [
            r#"{"type":"userAdd","data":"Us"}"#,
            r#"{"type":"setPeerId","data":{"peerId":1002}}"#,
            r#"{"type":"userList","data":["2-of-1","3-of-1"]}"#,
            r#"{"type":"peerList","data":[{"name":"Us","id":1001},{"name":"2-of-1","id":1000}]}"#,
        ]
    );
    let told = world.told(bob);
    assert_eq!(told[3], r#"{"type":"peerList","data":[]}"#);
    assert_eq!(
        told[4..],
        [1001, 1002].map(|id| format!(r#"{{"type":"peerConnect","data":{{"name":"1-of-2","id":{id}}}}}"#))
    );
    world.leave(first);
    assert_eq!(world.told(second), [r#"{"type":"peerDisconnect","data":1001}"#]);
    world.directory(A);
    assert_eq!(world.told(second), [r#"{"type":"peerConnect","data":{"name":"Us","id":1003}}"#]);
    assert_eq!(
        world.told(bob),
        [r#"{"type":"peerDisconnect","data":1001}"#, r#"{"type":"peerConnect","data":{"name":"1-of-2","id":1003}}"#]
    );
}

#[test]
fn trust_that_comes_and_goes_is_told_to_both_sides() {
    let mut world = World::new(limits());
    let (alice, bob, other) = (world.directory(A), world.directory(B), world.directory(B));
    let carol = world.directory(C);
    for login in [alice, bob, other, carol] {
        world.told(login);
    }
    world.store.trust(A, B);
    assert_eq!(world.refresh(A), [B], "who has not been read since is to be read");
    assert_eq!(world.told(alice), [r#"{"type":"userAdd","data":"2-of-1"}"#], "not visible before both sides are known");
    assert!(world.refresh(B).is_empty());
    assert_eq!(
        world.told(alice),
        [
            r#"{"type":"peerConnect","data":{"name":"2-of-1","id":1001}}"#,
            r#"{"type":"peerConnect","data":{"name":"2-of-1","id":1002}}"#,
        ]
    );
    for login in [bob, other] {
        assert_eq!(
            world.told(login),
            [r#"{"type":"userAdd","data":"1-of-2"}"#, r#"{"type":"peerConnect","data":{"name":"1-of-2","id":1000}}"#]
        );
    }
    world.store.revoke(A, B);
    assert_eq!(world.refresh(A), [B]);
    assert_eq!(
        world.told(alice),
        [
            r#"{"type":"peerDisconnect","data":1001,"ended":true}"#,
            r#"{"type":"peerDisconnect","data":1002,"ended":true}"#,
            r#"{"type":"userRemove","data":"2-of-1"}"#,
        ]
    );
    world.refresh(B);
    assert_eq!(
        world.told(bob),
        [r#"{"type":"peerDisconnect","data":1000,"ended":true}"#, r#"{"type":"userRemove","data":"1-of-2"}"#]
    );
    assert!(world.told(carol).is_empty());
}

#[test]
fn introductions_pass_only_between_those_who_trust_each_other() {
    let mut world = World::new(limits());
    world.store.trust(A, B);
    let (alice, bob, carol) = (world.directory(A), world.directory(B), world.directory(C));
    let plain = world.peer(B, Dialect::Pmesh);
    let gone = world.directory(B);
    world.leave(gone);
    for login in [alice, bob, carol, plain] {
        world.told(login);
    }
    world.request(alice, &offer(bob, alice, Some(7)));
    assert_eq!(world.told(bob), [r#"{"type":"peerRequest","data":{"to":1001,"from":1000,"x":1.50}}"#]);
    assert_eq!(world.told(alice), [r#"{"type":"ok","data":null,"id":7}"#]);
    // Untrusted, never there, gone, and of the other kind look the same.
    for to in [carol, 77, gone, plain] {
        world.request(alice, &offer(to, alice, Some(8)));
        assert_eq!(world.told(alice), [refused(8, "unreachable", "no peer of this number can be reached")]);
        world.request(alice, &offer(to, alice, None));
        assert!(world.told(alice).is_empty());
    }
    // Not from oneself, or between others.
    for text in [offer(bob, carol, Some(9)), offer(bob, bob, Some(9)), offer(alice, carol, Some(9))] {
        world.request(alice, &text);
        assert_eq!(world.told(alice), [refused(9, "forged", "an introduction must be from your own number")]);
    }
    world.request(alice, r#"{"type":"peerResponse","data":{"to":1001,"from":1000,"peer":1002}}"#);
    world.request(alice, r#"{"type":"peerRequest","data":{"to":1001,"from":1002,"from":1000}}"#);
    for (login, told) in [(bob, 0), (carol, 0), (plain, 0)] {
        assert_eq!(world.told(login).len(), told);
    }
    let stats = world.hub.stats();
    assert_eq!((stats.relayed, stats.undeliverable, stats.forged, stats.malformed), (1, 8, 4, 1));
    // Trust that ends while an introduction is under way.
    world.store.revoke(A, B);
    world.refresh(A);
    world.request(bob, &offer(alice, bob, Some(1)));
    assert!(world.told(bob).last().unwrap().contains("unreachable"));
    assert!(!world.told(alice).iter().any(|text| text.contains("peerRequest")));
}

#[test]
fn peers_of_p_see_and_reach_whom_they_trust() {
    let mut world = World::new(limits());
    world.store.trust(A, B);
    let (alice, bob, carol) = (world.peer(A, Dialect::Pmesh), world.peer(B, Dialect::P), world.peer(C, Dialect::Pmesh));
    world.directory(A);
    assert_eq!(world.told(alice), [r#"[16,"peer-0"]"#, r#"[0,"peer-1"]"#]);
    assert_eq!(world.told(bob), [r#"[0,"peer-0"]"#]);
    assert_eq!(world.told(carol), [r#"[16,"peer-2"]"#]);
    world.frame(alice, r#"[6,"peer-1",{"a": 1}]"#);
    assert_eq!(world.told(bob), [r#"[7,"peer-0",{"a": 1}]"#]);
    for to in ["peer-2", "peer-3", "nobody"] {
        world.frame(alice, &format!(r#"[6,"{to}",1]"#));
        world.frame(bob, &format!(r#"[6,"{to}",1]"#));
        assert_eq!(world.told(alice), [format!(r#"[17,"{to}","unknown"]"#)]);
    }
    assert!(world.told(bob).is_empty() && world.told(carol).is_empty());
    world.store.revoke(A, B);
    world.refresh(B);
    assert_eq!(world.told(alice), [r#"[18,"peer-1"]"#]);
    assert!(world.told(bob).is_empty(), "there is no frame for it");
    world.frame(bob, r#"[6,"peer-0",1]"#);
    assert!(world.told(alice).is_empty());
}

#[test]
fn logins_end_with_their_account_or_its_password() {
    for (epoch, ended) in [
        (Ok(1), Ended::PasswordChanged),
        (Err(Ended::Deactivated), Ended::Deactivated),
        (Err(Ended::Deleted), Ended::Deleted),
    ] {
        let mut world = World::new(limits());
        world.store.trust(A, B);
        let (alice, bob) = (world.directory(A), world.directory(B));
        world.told(alice);
        world.told(bob);
        world.store.epochs.insert(A, epoch);
        world.request(bob, &offer(alice, bob, None));
        // A login by the old password is under way.
        let ticket = world.hub.begin(A);
        world.refresh(A);
        let old = Snapshot { epoch: Ok(0), trusted: Vec::new() };
        assert!(world.hub.learn(A, ticket, old, &mut world.bells).is_empty(), "it is older");
        let late = Place::Directory(PeerNumber::new(5).unwrap());
        assert_eq!(world.hub.join(A, 0, late, 9, &mut world.bells), Err(Refusal::Ended));
        world.hub.finish(A);
        let (told, next) = world.pull(alice);
        assert_eq!((told.len(), next), (1, Next::Ended(ended)), "what was queued before is still told");
        assert_eq!(world.told(bob), [r#"{"type":"peerDisconnect","data":1000,"ended":true}"#]);
        world.request(alice, &offer(bob, alice, None));
        assert!(!world.hub.asks(world.ids[alice], world.now).0);
        assert!(world.told(bob).is_empty());
        world.leave(alice);
        world.leave(bob);
        assert!(world.hub.accounts.is_empty() && world.hub.numbers.is_empty() && world.hub.logins.is_empty());
    }
}

#[test]
fn who_reads_nothing_is_thrown_out_and_not_left_in_the_dark() {
    let mut world = World::new(Limits { max_connections: 3 * MAX_TOLD, ..limits() });
    world.store.trust(A, B);
    let (alice, bob) = (world.directory(A), world.directory(B));
    world.told(alice);
    // A login is welcomed with four texts.
    for _ in 0..MAX_TOLD / 2 + 2 {
        let login = world.directory(B);
        world.leave(login);
        world.told(bob);
    }
    for _ in 0..9 {
        world.request(bob, &offer(alice, bob, None));
    }
    assert_eq!(world.hub.stats().busy, 1, "what peers send does not throw it out");
    let carol = world.directory(B);
    assert!(world.pull(alice) == (Vec::new(), Next::TooFarBehind));
    assert_eq!((world.hub.stats().queued_frames, world.hub.stats().queued_bytes), (0, 0));
    world.leave(alice);
    assert_eq!(world.told(bob).last().unwrap(), r#"{"type":"peerDisconnect","data":1000}"#);
    assert_eq!(world.told(carol).len(), 5);
}

#[test]
fn who_asks_for_long_answers_and_reads_none_is_thrown_out() {
    let mut world = World::new(limits());
    let alice = world.directory(A);
    let answer = "x".repeat(256 * 1024);
    let id = world.ids[alice];
    // The welcome.
    let told = |world: &World| (world.hub.stats().told_frames, world.hub.stats().told_bytes);
    assert_eq!((told(&world).0, world.hub.stats().queued_frames), (4, 0));
    let bytes = told(&world).1;
    let welcome = world.told(alice);
    assert_eq!(bytes, welcome.iter().map(String::len).sum::<usize>());
    assert_eq!(told(&world), (0, 0));
    for _ in 0..8 {
        world.hub.tell(id, answer.as_str().into(), &mut Vec::new());
    }
    assert!(!world.hub.logins[&id].is_behind, "two megabytes may wait");
    world.hub.tell(id, "x".repeat(bytes + 1).as_str().into(), &mut Vec::new());
    assert!(world.pull(alice) == (Vec::new(), Next::TooFarBehind));
    assert_eq!(told(&world), (0, 0));
}

#[test]
fn logins_are_bounded_and_numbers_are_used_once() {
    let mut world = World::new(Limits { max_logins: 2, max_connections: 3, ..limits() });
    let directory = |number| Place::Directory(PeerNumber::new(number).unwrap());
    assert_eq!(world.join(A, directory(1)), Ok(0));
    assert_eq!(world.join(A, directory(1)), Err(Refusal::Taken));
    assert_eq!(world.join(A, directory(2)), Ok(1));
    assert_eq!(world.join(A, directory(3)), Err(Refusal::TooMany));
    assert_eq!(world.join(B, directory(3)), Ok(2));
    assert_eq!(world.join(C, directory(4)), Err(Refusal::Full));
    world.hub.close(&mut world.bells);
    assert_eq!(world.pull(0).1, Next::GoAway);
    assert_eq!(world.join(C, directory(4)), Err(Refusal::Closed));
    assert_eq!(world.hub.accounts.len(), 2);
}

#[test]
fn introductions_keep_their_kind() {
    for (what, name) in [(Introduction::Request, "peerRequest"), (Introduction::Response, "peerResponse")] {
        let mut world = World::new(limits());
        let (a, b) = (world.directory(A), world.directory(A));
        world.told(b);
        let data = r#"{"to":1001,"from":1000,"peer":1000,"spd":{}}"#;
        world.request(a, &crate::protocol::directory::introduction(what, data, Some(1)));
        assert_eq!(world.told(b), [format!(r#"{{"type":"{name}","data":{data}}}"#)]);
    }
}
