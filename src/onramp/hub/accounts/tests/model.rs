//! Random sequences against a model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What a login knows, by what it was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    users: BTreeSet<String>,
    peers: BTreeMap<u64, String>,
    addresses: BTreeSet<String>,
}

impl Seen {
    fn hear(&mut self, own: usize, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        if let Some(frame) = message.as_array() {
            let address = frame[1].as_str().unwrap().to_owned();
            match frame[0].as_u64().unwrap() {
                0 => assert!(self.addresses.insert(address), "announced twice"),
                18 => assert!(self.addresses.remove(&address), "left without having been there"),
                7 => assert!(self.addresses.contains(&address), "relayed from who is not there"),
                16 => {}
                other => panic!("{other}"),
            }
            return;
        }
        let data = &message["data"];
        let mut connect = |peer: &Value| {
            let name = peer["name"].as_str().unwrap().to_owned();
            assert!(self.users.contains(&name), "{name} is not known");
            assert_eq!(self.peers.insert(peer["id"].as_u64().unwrap(), name), None, "connected twice");
        };
        match message["type"].as_str().unwrap() {
            "userAdd" => assert!(self.users.insert(data.as_str().unwrap().to_owned()), "added twice"),
            "userRemove" => {
                let name = data.as_str().unwrap();
                assert!(self.users.remove(name), "removed without having been there");
                assert!(!self.peers.values().any(|peer| peer == name), "a peer of nobody");
            }
            "setPeerId" => {}
            "userList" => self.users.extend(data.as_array().unwrap().iter().map(|u| u.as_str().unwrap().to_owned())),
            "peerList" => data.as_array().unwrap().iter().for_each(&mut connect),
            "peerConnect" => connect(data),
            "peerDisconnect" => assert!(self.peers.remove(&data.as_u64().unwrap()).is_some(), "not there"),
            "peerRequest" => {
                let from = data["from"].as_u64().unwrap();
                assert!(from == 1000 + own as u64 || self.peers.contains_key(&from), "from a stranger");
            }
            other => panic!("{other}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join(i64, u8),
    Leave(usize),
    Pull(usize),
    Trust(i64, i64),
    Revoke(i64, i64),
    Password(i64, bool),
    /// A reading begins; it is learnt when it is popped.
    Begin(i64),
    Learn(usize),
    Send(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let account = || 1i64..5;
    let login = || 0usize..12;
    prop_oneof![
        4 => (account(), 0u8..4).prop_map(|(account, kind)| Step::Join(account, kind)),
        2 => login().prop_map(Step::Leave),
        4 => login().prop_map(Step::Pull),
        4 => (account(), account()).prop_map(|(a, b)| Step::Trust(a, b)),
        3 => (account(), account()).prop_map(|(a, b)| Step::Revoke(a, b)),
        1 => (account(), any::<bool>()).prop_map(|(account, active)| Step::Password(account, active)),
        3 => account().prop_map(Step::Begin),
        3 => (0usize..4).prop_map(Step::Learn),
        3 => (login(), login()).prop_map(|(a, b)| Step::Send(a, b)),
    ]
}

/// The model: logins as they should be, each with what it was told.
struct Model {
    world: World,
    here: Vec<Option<(AccountId, u8, Seen)>>,
    readings: Vec<(AccountId, Ticket, Snapshot)>,
    changed: BTreeSet<AccountId>,
    epoch: i64,
}

impl Model {
    fn expected(&self, login: usize) -> Seen {
        let (account, kind, _) = self.here[login].as_ref().unwrap();
        let trust = &self.world.store.trust;
        let alias = |other: &AccountId| match other == account {
            true => Some("Us".to_owned()),
            false => trust.get(&(*account, *other)).cloned(),
        };
        let mut seen = Seen::default();
        for (other, there) in self.here.iter().enumerate().filter(|(other, _)| *other != login) {
            let Some((user, other_kind, _)) = there else { continue };
            match (alias(user), kind / 2, other_kind / 2) {
                (Some(alias), 0, 0) => drop(seen.peers.insert(1000 + other as u64, alias)),
                (Some(_), 1, 1) => drop(seen.addresses.insert(format!("peer-{other}"))),
                _ => {}
            }
        }
        if kind / 2 == 0 {
            let of_own = trust.iter().filter(|((viewer, _), _)| viewer == account);
            seen.users = of_own.map(|(_, alias)| alias.clone()).chain(["Us".into()]).collect();
        }
        seen
    }

    fn pull(&mut self, login: usize) {
        let Some((_, _, seen)) = self.here.get_mut(login).and_then(Option::as_mut) else { return };
        let (told, next) = self.world.pull(login);
        told.iter().for_each(|text| seen.hear(login, text));
        if matches!(next, Next::Ended(_)) {
            self.here[login] = None;
            self.world.leave(login);
        } else {
            assert_eq!(next, Next::Wait);
        }
    }

    fn refresh_changed(&mut self) {
        for account in std::mem::take(&mut self.changed) {
            for other in self.world.refresh(account) {
                self.world.refresh(other);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(account, kind) if self.here.len() < 12 => {
                let account = AccountId(account);
                let login = self.here.len();
                let place = match kind {
                    0 | 1 => Place::Directory(PeerNumber::new(1000 + login as u64).unwrap()),
                    _ => Place::Peer {
                        address: Address::new(format!("peer-{login}")).unwrap(),
                        // P is not told who leaves, so what it knows is not what there is.
                        dialect: Dialect::Pmesh,
                    },
                };
                match self.world.join(account, place) {
                    Ok(_) => self.here.push(Some((account, kind, Seen::default()))),
                    Err(Refusal::Ended) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            Step::Leave(login) if self.here.get(login).is_some_and(Option::is_some) => {
                self.here[login] = None;
                self.world.leave(login);
            }
            Step::Pull(login) => self.pull(login),
            Step::Trust(a, b) if a != b => {
                self.world.store.trust(AccountId(a), AccountId(b));
                self.changed.extend([AccountId(a), AccountId(b)]);
            }
            Step::Revoke(a, b) => {
                self.world.store.revoke(AccountId(a), AccountId(b));
                self.changed.extend([AccountId(a), AccountId(b)]);
            }
            Step::Password(account, active) => {
                self.epoch += 1;
                let epoch = if active { Ok(self.epoch) } else { Err(Ended::Deactivated) };
                self.world.store.epochs.insert(AccountId(account), epoch);
                self.changed.insert(AccountId(account));
            }
            Step::Begin(account) => {
                let account = AccountId(account);
                let ticket = self.world.hub.begin(account);
                self.readings.push((account, ticket, self.world.store.read(account)));
            }
            Step::Learn(which) if which < self.readings.len() => {
                let (account, ticket, snapshot) = self.readings.remove(which);
                self.world.hub.learn(account, ticket, snapshot, &mut self.world.bells);
                self.world.hub.finish(account);
            }
            Step::Send(from, to) => {
                let both = [from, to].map(|login| self.here.get(login).and_then(Option::as_ref).map(|here| here.1 / 2));
                match both {
                    [Some(0), Some(0)] => self.world.request(from, &offer(to, from, None)),
                    [Some(1), Some(1)] if from != to => self.world.frame(from, &format!(r#"[6,"peer-{to}",1]"#)),
                    _ => {}
                }
                // What [17] says is checked elsewhere.
                if self.here.get(from).is_some_and(Option::is_some) {
                    let (told, next) = self.world.pull(from);
                    let (_, _, seen) = self.here[from].as_mut().unwrap();
                    told.iter().filter(|text| !text.starts_with("[17")).for_each(|text| seen.hear(from, text));
                    if matches!(next, Next::Ended(_)) {
                        self.here[from] = None;
                        self.world.leave(from);
                    }
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// However logins, changes and readings fall together: when all changes are read, each login was told exactly what is so; before,
    /// what it was told made sense at each moment.
    #[test]
    fn what_logins_are_told_is_what_is_so(steps in prop::collection::vec(step(), 0..80)) {
        let mut model =
            Model { world: World::new(limits()), here: Vec::new(), readings: Vec::new(), changed: BTreeSet::new(), epoch: 0 };
        for step in steps {
            model.step(step);
        }
        model.refresh_changed();
        // Readings that began before the changes are learnt last.
        for (account, ticket, snapshot) in std::mem::take(&mut model.readings) {
            model.world.hub.learn(account, ticket, snapshot, &mut model.world.bells);
            model.world.hub.finish(account);
        }
        for login in 0..model.here.len() {
            model.pull(login);
        }
        for login in 0..model.here.len() {
            model.pull(login);
            if let Some((account, _, seen)) = &model.here[login] {
                prop_assert_eq!(seen, &model.expected(login), "login {} of {:?}", login, account);
                let current = &model.world.store.epochs.get(account);
                prop_assert!(!matches!(current, Some(Err(_))), "an account that is closed is logged in");
            }
        }
        let open = model.here.iter().flatten().count();
        prop_assert_eq!(model.world.hub.stats().open, open);
        for login in 0..model.here.len() {
            model.step(Step::Leave(login));
        }
        let hub = &model.world.hub;
        prop_assert!(hub.accounts.is_empty() && hub.logins.is_empty() && hub.numbers.is_empty() && hub.names.is_empty());
        prop_assert_eq!((hub.stats().queued_frames, hub.stats().queued_bytes), (0, 0));
        prop_assert_eq!((hub.stats().told_frames, hub.stats().told_bytes), (0, 0));
    }
}
