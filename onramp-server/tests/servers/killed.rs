//! A server that is killed while clients log in, make accounts, and ask for tokens and claim them: after a restart everything that
//! clients were told is so, nothing is done by halves, and no token can be claimed again.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Database, Door, NotDone, PASSWORD, Server};

const ROUNDS: u64 = 8;
const CLIENTS: usize = 4;

/// How far something has come, as a client knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    NotAsked,
    Asked,
    Done,
}

/// An account that is made by an invitation, and trust between it and who has invited.
#[derive(Debug, Clone)]
struct Deal {
    inviter: String,
    name: String,
    invite: String,
    account: State,
    /// Which the inviter was told.
    token: Option<String>,
    claim: State,
}

/// What one client was told.
type Told = Arc<Mutex<Vec<Deal>>>;

fn note(told: &Told, change: impl FnOnce(&mut Deal)) {
    change(told.lock().unwrap().last_mut().unwrap());
}

async fn accept(door: &Door, invite: &str, name: &str) -> Result<(), NotDone> {
    door.post("/invite", json!({ "invite": invite, "name": name, "password": PASSWORD })).await.map(drop)
}

/// Makes one deal after another, until there is nobody to make it with.
async fn client(door: Door, inviter: String, round: u64, told: Told, answers: watch::Sender<u64>) -> NotDone {
    let answered = || answers.send_modify(|answers| *answers += 1);
    let deal = async |number: u64| {
        let mut own = door.log_in(&inviter).await?;
        let name = format!("{inviter}-{round}-{number}");
        let invited = own.ask("inviteUser", json!({ "email": "somebody@example.com" })).await?;
        let invite = invited["invite"].as_str().unwrap().to_owned();
        let (account, claim) = (State::Asked, State::NotAsked);
        let (inviter, again) = (inviter.clone(), invite.clone());
        told.lock().unwrap().push(Deal { inviter, name: name.clone(), invite, account, token: None, claim });
        accept(&door, &again, &name).await?;
        note(&told, |deal| deal.account = State::Done);
        answered();
        let token = own.token(&name).await?;
        note(&told, |deal| deal.token = Some(token.clone()));
        answered();
        // The others are left to be claimed later.
        if number.is_multiple_of(2) {
            let mut other = door.log_in(&name).await?;
            note(&told, |deal| deal.claim = State::Asked);
            other.claim("inviter", &token).await?;
            note(&told, |deal| deal.claim = State::Done);
            answered();
        }
        Ok(())
    };
    for number in 0.. {
        if let Err(why) = deal(number).await {
            return why;
        }
    }
    unreachable!()
}

/// What clients were told until the server was killed, after so many answers and some time more.
async fn told_by_one_that_is_killed(server: Server, round: u64, answers: u64, after: Duration) -> Vec<Deal> {
    let (count, mut counted) = watch::channel(0);
    let told: [Told; CLIENTS] = Default::default();
    let mut clients = JoinSet::new();
    for (number, told) in told.iter().enumerate() {
        clients.spawn(client(server.door.clone(), format!("user{number}"), round, told.clone(), count.clone()));
    }
    let enough = async { drop(counted.wait_for(|count| *count >= answers).await.unwrap()) };
    tokio::select! {
        () = crate::harness::soon(enough) => {}
        Some(ended) = clients.join_next() => panic!("a client has ended: {ended:?}"),
    }
    // Not to wait for something, but to kill it anywhere between two answers.
    tokio::time::sleep(after).await;
    server.kill().await;
    while let Some(why) = clients.join_next().await {
        assert_eq!(why.unwrap(), NotDone::Lost);
    }
    told.iter().flat_map(|told| told.lock().unwrap().clone()).collect()
}

/// Looks at everything that clients were told, and brings it to its end. Returns how many claims nobody knew the end of.
async fn check(door: &Door, deals: &mut [Deal]) -> usize {
    let mut open = 0;
    let mut probe = door.log_in("probe").await.unwrap();
    for deal in deals {
        let mut other = match (door.log_in(&deal.name).await, deal.account) {
            (Ok(session), _) => session,
            (Err(why), State::Asked) => {
                assert_eq!(why, NotDone::Refused("403".into()), "{deal:?}");
                accept(door, &deal.invite, &deal.name).await.unwrap();
                door.log_in(&deal.name).await.unwrap()
            }
            (Err(why), _) => panic!("{deal:?}: {why:?}"),
        };
        deal.account = State::Done;
        let refused = |code: &str| Err(NotDone::Refused(code.into()));
        assert_eq!(accept(door, &deal.invite, "again").await, refused("unknownToken"), "{deal:?}");

        let Some(token) = &deal.token else { continue };
        let inviter = door.log_in(&deal.inviter).await.unwrap();
        let trust = (inviter.users.contains(&deal.name), other.users.contains(&"inviter".to_owned()));
        match (deal.claim, trust) {
            (State::Done | State::Asked, (true, true)) => {}
            (State::NotAsked | State::Asked, (false, false)) => other.claim("inviter", token).await.unwrap(),
            _ => panic!("{deal:?}: {trust:?}"),
        }
        open += usize::from(deal.claim == State::Asked);
        deal.claim = State::Done;
        assert_eq!(probe.claim("somebody", token).await, refused("unknownToken"), "{deal:?}");
    }
    open
}

async fn nothing_told_is_lost(database: &Database) {
    let mut random = RandomState::new().hash_one(0);
    println!("seed {random}");
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    database.add("probe").await;
    for number in 0..CLIENTS {
        database.add(&format!("user{number}")).await;
    }
    let (mut all, mut open) = (Vec::new(), 0);
    let mut server = Server::start(database, 30).await;
    for round in 0..ROUNDS {
        let (answers, after) = (10 + next(50), Duration::from_micros(next(20_000)));
        let mut told = told_by_one_that_is_killed(server, round, answers, after).await;
        server = Server::start(database, 30).await;
        open += check(&server.door, &mut told).await;
        all.append(&mut told);
    }
    // After more deaths than one.
    assert_eq!(check(&server.door, &mut all).await, 0);
    let names: HashSet<_> = all.iter().map(|deal| &deal.name).collect();
    let tokens = all.iter().filter(|deal| deal.token.is_some()).count();
    println!("{ROUNDS} deaths, {} accounts, {tokens} tokens, {open} claims under way", names.len());
    assert!(names.len() == all.len() && tokens > 30, "too little was told to mean anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost_with_sqlite() {
    let database = Database::sqlite();
    nothing_told_is_lost(&database).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost_with_postgres() {
    let Some(database) = Database::postgres("killed").await else { return };
    nothing_told_is_lost(&database).await;
    database.remove().await;
}
