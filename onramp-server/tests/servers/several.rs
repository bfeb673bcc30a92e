//! Two servers at one database: what is done at one is seen at the other.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Database, NotDone, Server, Session};

/// After so many seconds what others have done is seen.
const REFRESH: u32 = 1;

/// Time for everything else that happens on a busy machine.
const MARGIN: Duration = Duration::from_secs(10);

async fn hears(session: &mut Session, kind: &str, data: serde_json::Value) {
    let mut expected = json!({ "type": kind, "data": data });
    if kind == "peerDisconnect" {
        // With the trust.
        expected["ended"] = true.into();
    }
    assert_eq!(session.next().await.unwrap(), expected);
}

async fn what_is_done_at_one_is_seen_at_the_other(database: &Database) {
    for name in ["alice", "bob", "carol"] {
        database.add(name).await;
    }
    let (here, there) = (Server::start(database, REFRESH).await, Server::start(database, REFRESH).await);
    let mut alice = here.door.log_in("alice").await.unwrap();
    let mut bob = here.door.log_in("bob").await.unwrap();
    let mut bob_there = there.door.log_in("bob").await.unwrap();
    let numbers = [alice.number, bob.number];
    let in_time = |since: Instant| assert!(since.elapsed() < Duration::from_secs(REFRESH.into()) + MARGIN);

    let token = alice.token("Bobby").await.unwrap();
    let claimed = Instant::now();
    bob_there.claim("Ali", &token).await.unwrap();
    for (session, alias, number) in [(&mut alice, "Bobby", numbers[1]), (&mut bob, "Ali", numbers[0])] {
        hears(session, "userAdd", json!(alias)).await;
        hears(session, "peerConnect", json!({ "name": alias, "id": number })).await;
    }
    in_time(claimed);

    let revoked = Instant::now();
    bob_there.ask("revokeTrust", json!({ "name": "Ali" })).await.unwrap();
    for (session, alias, number) in [(&mut alice, "Bobby", numbers[1]), (&mut bob, "Ali", numbers[0])] {
        hears(session, "peerDisconnect", json!(number)).await;
        hears(session, "userRemove", json!(alias)).await;
    }
    in_time(revoked);
}

/// A token is claimed at both servers at once.
async fn of_two_claims_one_wins(database: &Database) {
    for name in ["issuer", "dave", "erin"] {
        database.add(name).await;
    }
    let (here, there) = (Server::start(database, REFRESH).await, Server::start(database, REFRESH).await);
    let mut issuer = here.door.log_in("issuer").await.unwrap();
    let mut dave = here.door.log_in("dave").await.unwrap();
    let mut erin = there.door.log_in("erin").await.unwrap();
    for number in 0..10 {
        let token = issuer.token(&format!("winner {number}")).await.unwrap();
        let claims = tokio::join!(dave.claim("Issuer", &token), erin.claim("Issuer", &token));
        let lost = Err(NotDone::Refused("unknownToken".into()));
        let winner = match claims {
            (Ok(()), other) if other == lost => &mut dave,
            (other, Ok(())) if other == lost => &mut erin,
            both => panic!("{both:?}"),
        };
        winner.ask("revokeTrust", json!({ "name": "Issuer" })).await.unwrap();
    }
}

#[tokio::test]
async fn sqlite() {
    let database = Database::sqlite();
    what_is_done_at_one_is_seen_at_the_other(&database).await;
    of_two_claims_one_wins(&database).await;
    database.remove().await;
}

#[tokio::test]
async fn postgres() {
    let Some(database) = Database::postgres("several").await else { return };
    what_is_done_at_one_is_seen_at_the_other(&database).await;
    of_two_claims_one_wins(&database).await;
    database.remove().await;
}
