//! Who is told what, and when.

use pmesh::onramp::Onramp;
use serde_json::json;

use crate::harness::*;
use crate::shared::SharedStore;

#[tokio::test]
async fn the_messages_of_the_original_frame_by_frame() {
    let server = Server::with(&["bob", "oli"], &[]).await;
    let mut bob = server.peer("bob").await;
    assert_eq!(bob.protocol, None);
    let own = bob.text().await;
    assert_eq!(own, r#"{"type":"userAdd","data":"Us"}"#);
    let own = bob.text().await;
    let number = own.strip_prefix(r#"{"type":"setPeerId","data":{"peerId":"#).unwrap().strip_suffix("}}").unwrap();
    assert_eq!(bob.text().await, r#"{"type":"userList","data":[]}"#);
    assert_eq!(bob.text().await, r#"{"type":"peerList","data":[]}"#);

    let (mut oli, oli_number) = server.directory("oli").await;
    bob.send(r#"{"type":"requestToken","data":{"name":"Oli"}}"#).await;
    let token = bob.json().await;
    assert_eq!(token["type"], "tokenResponse");
    oli.send(json!({ "type": "claimToken", "data": { "name": "Bob", "token": token["data"]["token"] } }).to_string())
        .await;
    assert_eq!(oli.text().await, r#"{"type":"userAdd","data":"Bob"}"#);
    assert_eq!(oli.text().await, format!(r#"{{"type":"peerConnect","data":{{"name":"Bob","id":{number}}}}}"#));
    assert_eq!(bob.text().await, r#"{"type":"userAdd","data":"Oli"}"#);
    assert_eq!(bob.text().await, format!(r#"{{"type":"peerConnect","data":{{"name":"Oli","id":{oli_number}}}}}"#));

    // Introductions go through as they are.
    let request = format!(
        r#"{{"type":"peerRequest","data":{{"to":{number},"from":{oli_number},"peer":{oli_number},"spd":{{"type":"offer","sdp":"v=0\r\n"}},"n":1.50}}}}"#
    );
    oli.send(request.clone()).await;
    assert_eq!(bob.text().await, request);
    let response = format!(
        r#"{{"type":"peerResponse","data":{{"to":{oli_number},"from":{number},"peer":{number},"spd":{{"type":"answer","sdp":""}}}}}}"#
    );
    bob.send(response.clone()).await;
    assert_eq!(oli.text().await, response);

    let mut second = server.peer("oli").await;
    let welcome = second.welcome().await;
    assert_eq!(welcome.users, json!(["Bob"]));
    assert_eq!(
        welcome.peers,
        json!([{ "name": "Us", "id": oli_number }, { "name": "Bob", "id": number.parse::<u64>().unwrap() }])
    );
    let second_number = welcome.number;
    assert_eq!(oli.text().await, format!(r#"{{"type":"peerConnect","data":{{"name":"Us","id":{second_number}}}}}"#));
    assert_eq!(bob.text().await, format!(r#"{{"type":"peerConnect","data":{{"name":"Oli","id":{second_number}}}}}"#));
    drop(second);
    for peer in [&mut oli, &mut bob] {
        assert_eq!(peer.text().await, format!(r#"{{"type":"peerDisconnect","data":{second_number}}}"#));
    }
    // A claim that fails.
    oli.send(r#"{"type":"claimToken","data":{"name":"Bob","token":"==OTAw"}}"#).await;
    assert_eq!(oli.text().await, r#"{"type":"error"}"#);
    server.stop().await;
    assert_eq!(oli.closed().await.0, 1001);
}

#[tokio::test]
async fn trust_that_is_revoked_ends_presence_and_introductions_on_both_sides() {
    let server = Server::with(&["a", "b"], &[("a", "b")]).await;
    let ((mut a, a_number), (mut b, b_number)) = (server.directory("a").await, server.directory("b").await);
    assert_eq!(a.arrived().await, [json!({ "type": "peerConnect", "data": { "name": "b", "id": b_number } })]);
    let offer = json!({ "to": b_number, "from": a_number, "peer": a_number, "spd": {} });
    assert_eq!(a.answer("peerRequest", offer.clone()).await, Ok(json!(null)));
    assert_eq!(a.answer("listTrusted", json!(null)).await, Ok(json!(["b"])));
    assert_eq!(b.json().await, json!({ "type": "peerRequest", "data": offer }));
    // Trust ends before the answer to the introduction.
    let (told, done) = a.ask("revokeTrust", json!({ "name": "b" })).await;
    let gone = |number: u64| json!({ "type": "peerDisconnect", "data": number, "ended": true });
    assert_eq!(told, [gone(b_number), json!({ "type": "userRemove", "data": "b" })]);
    assert_eq!(done["type"], "ok");
    let response = json!({ "to": a_number, "from": b_number, "peer": b_number, "spd": {} });
    assert_eq!(b.answer("peerResponse", response).await, Err("unreachable".into()));
    assert_eq!(b.arrived().await, Vec::<serde_json::Value>::new());
    assert_eq!(a.arrived().await, Vec::<serde_json::Value>::new());
    assert_eq!(a.answer("revokeTrust", json!({ "name": "b" })).await, Err("unknownAlias".into()));
    assert_eq!(a.answer("listTrusted", json!(null)).await, Ok(json!([])));
    // Administrators do it without a session.
    server.accounts.trust("a", "bee", "b", "aye").await.unwrap();
    for (peer, name, number) in [(&mut a, "bee", b_number), (&mut b, "aye", a_number)] {
        assert_eq!(peer.json().await, json!({ "type": "userAdd", "data": name }));
        assert_eq!(peer.json().await, json!({ "type": "peerConnect", "data": { "name": name, "id": number } }));
    }
}

const ANOTHER_EPOCH: &str = "the password was changed, or the account was deactivated for a while";

#[tokio::test]
async fn sessions_end_with_their_account_and_its_password() {
    let server = Server::with(&["a", "b"], &[("a", "b")]).await;
    let (mut b, _) = server.directory("b").await;
    let (mut a, a_number) = server.directory("a").await;
    let (mut other, other_number) = server.directory("a").await;
    let change = json!({ "old": "wrong", "new": "a new password" });
    assert_eq!(a.answer("changePassword", change).await, Err("wrongPassword".into()));
    let change = json!({ "old": password_of("a"), "new": "short" });
    assert_eq!(a.answer("changePassword", change).await, Err("invalidPassword".into()));
    let change = json!({ "old": password_of("a"), "new": "a new password" });
    assert_eq!(a.answer("changePassword", change).await, Ok(json!(null)), "it is answered before it ends");
    for peer in [&mut a, &mut other] {
        assert_eq!(peer.closed().await, (4001, ANOTHER_EPOCH.into()));
    }
    for number in [a_number, other_number] {
        assert_eq!(b.json().await["data"]["id"], number);
    }
    for number in [a_number, other_number] {
        assert_eq!(b.json().await, json!({ "type": "peerDisconnect", "data": number, "ended": true }));
    }
    assert_eq!(server.cookies("a", &password_of("a")).await.err(), Some(403));
    let mut a = server.cookies("a", "a new password").await.unwrap();
    a.welcome().await;
    assert_eq!(a.answer("deleteAccount", json!({ "password": "wrong" })).await, Err("wrongPassword".into()));
    assert_eq!(a.answer("deleteAccount", json!({ "password": "a new password" })).await, Ok(json!(null)));
    assert_eq!(a.closed().await, (4001, "the account was deleted".into()));
    b.json().await;
    b.json().await;
    assert_eq!(b.json().await, json!({ "type": "userRemove", "data": "a" }));
    server.accounts.set_active("b", false).await.unwrap();
    assert_eq!(b.closed().await, (4001, "the account was deactivated".into()));
    assert_eq!(server.handle.stats().open, 0);
}

/// Servers that share a database know nothing of each other's changes but by reading.
#[tokio::test]
async fn what_another_process_changes_is_seen_at_the_next_round() {
    let store = SharedStore::default();
    let server = |interval| {
        let accounts = pmesh::onramp::accounts::Accounts::new(store.clone(), Cheap);
        Server::start(Onramp::builder().refresh_interval(interval), accounts)
    };
    let server = server(std::time::Duration::from_millis(20)).await;
    let elsewhere = pmesh::onramp::accounts::Accounts::new(store.clone(), Cheap);
    for name in ["a", "b"] {
        elsewhere.create(name, &password_of(name)).await.unwrap();
    }
    let ((mut a, a_number), (mut b, b_number)) = (server.directory("a").await, server.directory("b").await);
    elsewhere.trust("a", "bee", "b", "aye").await.unwrap();
    for (peer, name, number) in [(&mut a, "bee", b_number), (&mut b, "aye", a_number)] {
        assert_eq!(peer.json().await, json!({ "type": "userAdd", "data": name }));
        assert_eq!(peer.json().await, json!({ "type": "peerConnect", "data": { "name": name, "id": number } }));
    }
    elsewhere.set_password("a", "another password").await.unwrap();
    assert_eq!(a.closed().await, (4001, ANOTHER_EPOCH.into()));
    elsewhere.remove("b").await.unwrap();
    assert_eq!(b.closed().await, (4001, "the account was deleted".into()));
}

#[tokio::test]
async fn peers_of_p_meet_those_whom_they_trust() {
    let server = Server::with(&["a", "b", "c"], &[("a", "b")]).await;
    let p = async |name: &str, protocol| {
        let cookie = format!("uun={name}; ppz={}", escape(&password_of(name)));
        let mut peer = server.upgrade("/", &[("Cookie", &cookie), ("Sec-WebSocket-Protocol", protocol)]).await.unwrap();
        assert_eq!(peer.protocol.as_deref(), Some(protocol));
        let own = match protocol {
            "p" => String::new(),
            _ => peer.json().await[1].as_str().unwrap().to_owned(),
        };
        (peer, own)
    };
    assert_eq!(server.upgrade("/", &[("Sec-WebSocket-Protocol", "p")]).await.err(), Some(401));
    let (mut a, a_own) = p("a", "pmesh.1").await;
    let (mut c, c_own) = p("c", "pmesh.1").await;
    let (mut directory, number) = server.directory("b").await;
    let (mut b, b_own) = p("b", "pmesh.1").await;
    assert_eq!(b.json().await, json!([0, a_own]));
    assert_eq!(a.json().await, json!([0, b_own]));
    let (mut original, _) = p("b", "p").await;
    let first = original.json().await;
    let second = original.json().await;
    assert_eq!((&first[1], &second[1]), (&json!(a_own), &json!(b_own)), "oldest first");
    let original_own = a.json().await[1].as_str().unwrap().to_owned();
    a.send(json!([6, original_own, { "x": 1 }]).to_string()).await;
    assert_eq!(original.text().await, format!(r#"[7,"{a_own}",{{"x":1}}]"#));
    for to in [&*c_own, "nobody", &number.to_string()] {
        a.send(json!([6, to, "secret"]).to_string()).await;
        assert_eq!(a.json().await, json!([17, to, "unknown"]));
    }
    original.send(json!([6, c_own, "secret"]).to_string()).await;
    assert!(original.arrived_at(&original_own).await.is_empty());
    assert!(c.arrived_at(&c_own).await.is_empty());
    assert!(directory.arrived().await.is_empty());
    drop(original);
    assert_eq!(a.json().await, json!([18, original_own]));
    server.accounts.revoke(server.accounts.list(None, 1).await.unwrap()[0].id, "b").await.unwrap();
    assert_eq!(a.json().await, json!([18, b_own]));
    a.send(json!([6, b_own, "secret"]).to_string()).await;
    assert_eq!(a.json().await, json!([17, b_own, "unknown"]));
}

#[tokio::test]
async fn an_account_may_be_logged_in_so_often() {
    let accounts = accounts();
    accounts.create("a", &password_of("a")).await.unwrap();
    let server = Server::start(Onramp::builder().max_logins(2), accounts).await;
    let ((_first, _), (second, _)) = (server.directory("a").await, server.directory("a").await);
    assert_eq!(server.cookies("a", &password_of("a")).await.err(), Some(429));
    drop(second);
    soon(async { while server.cookies("a", &password_of("a")).await.is_err() {} }).await;
}
