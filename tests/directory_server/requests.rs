//! Tokens, and everything that happens at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::*;

#[tokio::test]
async fn tokens_are_claimed_once_and_say_why_not() {
    let server = Server::with(&["a", "b", "c"], &[]).await;
    let ((mut a, _), (mut b, b_number)) = (server.directory("a").await, server.directory("b").await);
    let (mut c, _) = server.directory("c").await;
    for alias in ["", "Us", "*", "123", "a\u{7}"] {
        assert_eq!(a.answer("requestToken", json!({ "name": alias })).await, Err("invalidAlias".into()), "{alias}");
    }
    let token = a.answer("requestToken", json!({ "name": "B" })).await.unwrap()["token"].clone();
    let claim = |name: &str, token: &Value| json!({ "name": name, "token": token });
    assert_eq!(a.answer("claimToken", claim("me", &token)).await, Err("ownToken".into()));
    assert_eq!(b.answer("claimToken", claim("A", &json!("guess"))).await, Err("unknownToken".into()));
    assert_eq!(b.answer("claimToken", claim("Us", &token)).await, Err("invalidAlias".into()));
    let (told, done) = b.ask("claimToken", claim("A", &token)).await;
    assert_eq!((done["type"].as_str(), told.len()), (Some("ok"), 2), "what it means is told before: {told:?}");
    assert_eq!(told[0], json!({ "type": "userAdd", "data": "A" }));
    assert_eq!(a.json().await, json!({ "type": "userAdd", "data": "B" }));
    assert_eq!(a.json().await, json!({ "type": "peerConnect", "data": { "name": "B", "id": b_number } }));
    // Used, by whomever.
    for peer in [&mut b, &mut c] {
        assert_eq!(peer.answer("claimToken", claim("A2", &token)).await, Err("unknownToken".into()));
    }
    let again = a.answer("requestToken", json!({ "name": "B2" })).await.unwrap()["token"].clone();
    assert_eq!(b.answer("claimToken", claim("A2", &again)).await, Err("alreadyTrusted".into()));
    assert_eq!(a.answer("requestToken", json!({ "name": "B" })).await, Err("aliasTaken".into()));
    assert_eq!(c.arrived().await, Vec::<Value>::new());
}

#[tokio::test]
async fn of_two_claims_at_once_one_wins() {
    let server = Server::with(&["a", "b", "c"], &[]).await;
    let (mut a, _) = server.directory("a").await;
    for round in 0..20 {
        let token = a.answer("requestToken", json!({ "name": format!("winner {round}") })).await.unwrap();
        let claim = json!({ "name": format!("a {round}"), "token": token["token"] });
        let claims = ["b", "c"].map(|name| {
            let (server, claim) = (&server, claim.clone());
            async move { server.directory(name).await.0.answer("claimToken", claim).await }
        });
        let won = join_all(claims).await;
        assert_eq!(won.iter().filter(|result| result.is_ok()).count(), 1, "{won:?}");
        assert!(won.contains(&Err("unknownToken".into())), "{won:?}");
        assert_eq!(a.answer("revokeTrust", json!({ "name": format!("winner {round}") })).await, Ok(json!(null)));
    }
}

/// Requests are answered in their order, though they take different time, and however many come at once.
#[tokio::test]
async fn answers_come_in_order() {
    let server = Server::with(&["a"], &[]).await;
    let (mut a, _) = server.directory("a").await;
    for id in 0..60 {
        let text = match id % 3 {
            0 => json!({ "type": "requestToken", "data": { "name": format!("n{id}") }, "id": id }),
            1 => json!({ "type": "listTrusted", "id": id }),
            _ => json!({ "type": "nothing", "id": id }),
        };
        a.send(text.to_string()).await;
    }
    for id in 0..60 {
        assert_eq!(a.json().await["id"], id);
    }
}

/// What a session knows, by what it was told.
#[derive(Debug, Default)]
struct Known {
    users: BTreeSet<String>,
    peers: BTreeMap<u64, String>,
}

impl Known {
    fn hear(&mut self, told: &Value) {
        let (kind, data) = (told["type"].as_str().unwrap(), &told["data"]);
        let text = || data.as_str().unwrap().to_owned();
        match kind {
            "userAdd" => assert!(self.users.insert(text()), "{told} again"),
            "userRemove" => assert!(self.users.remove(&text()), "{told} for nothing"),
            "peerConnect" => {
                let name = data["name"].as_str().unwrap().to_owned();
                assert!(name == "Us" || self.users.contains(&name), "{told} before its user");
                assert_eq!(self.peers.insert(data["id"].as_u64().unwrap(), name), None, "{told} again");
            }
            "peerDisconnect" => drop(self.peers.remove(&data.as_u64().unwrap()).expect("it was there")),
            "ok" | "error" => {}
            other => panic!("{other}"),
        }
    }
}

/// Everything at once, over and over: in the end each session was told exactly what is so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_everybody_knows_what_is_so() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let server = Server::with(&NAMES, &[]).await;
    server.accounts.create("sentinel", &password_of("sentinel")).await.unwrap();
    let mut sessions = Vec::new();
    for name in NAMES {
        let mut peer = server.peer(name).await;
        let welcome = peer.welcome().await;
        let mut known = Known::default();
        for id in welcome.peers.as_array().unwrap() {
            known.peers.insert(id["id"].as_u64().unwrap(), "Us".into());
        }
        sessions.push((name, peer, welcome.number, known));
    }
    let storm = sessions.iter_mut().enumerate().map(|(own, (name, peer, _, known))| {
        let server = &server;
        async move {
            for round in 0..30 {
                let other = NAMES[(own + 1 + round % 5) % 6];
                // Many of these fail, since all change the same.
                let _ = server.accounts.trust(name, other, other, name).await;
                let brief = server.peer(name).await;
                let (told, answer) = peer.ask("revokeTrust", json!({ "name": other })).await;
                told.iter().chain([&answer]).for_each(|told| known.hear(told));
                let _ = server.accounts.trust(name, other, other, name).await;
                drop(brief);
            }
        }
    });
    join_all(storm).await;
    let only_they = async || {
        while server.handle.stats().open != NAMES.len() {
            tokio::task::yield_now().await;
        }
    };
    soon(only_they()).await;
    // Once this is told, an account was read after all that came before.
    for (name, peer, _, known) in &mut sessions {
        server.accounts.trust(name, "last", "sentinel", name).await.unwrap();
        while !known.users.contains("last") {
            known.hear(&peer.json().await);
        }
    }
    let numbers: Vec<(&str, u64)> = sessions.iter().map(|(name, _, number, _)| (*name, *number)).collect();
    for (name, peer, _, known) in &mut sessions {
        let (told, answer) = peer.ask("listTrusted", json!(null)).await;
        told.iter().for_each(|told| known.hear(told));
        let trusted: BTreeSet<String> = serde_json::from_value(answer["data"].clone()).unwrap();
        assert_eq!(known.users, trusted, "{name}");
        let visible = numbers.iter().filter(|(other, _)| trusted.contains(*other));
        let visible: BTreeMap<u64, String> = visible.map(|(other, number)| (*number, (*other).to_owned())).collect();
        assert_eq!(known.peers, visible, "{name}");
    }
}
