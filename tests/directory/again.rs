//! Who was away and comes again, at a directory that says what the test wants.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::directory::{Credentials, Directory, Session, SessionEvent};
use pmesh::rpc::{ModuleGuard, Request};
use pmesh::{Address, Node, PeerNumber};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::common::{builder, soon};
use crate::ended::is_served;
use crate::scripted::{Scene, Script};

/// Bob logs in too, and one of the two connects to the other.
async fn connect(scene: &mut Scene, by_bob: bool) -> (Session, Script, Node) {
    let url = format!("ws://{}", scene.listener.local_addr().unwrap());
    let root = builder().build();
    let directory = Directory::builder().root(&root);
    let welcoming = async {
        let mut script = Script::accept(&scene.listener).await;
        script.welcome(2, json!(["Alice"]), json!([{"name": "Alice", "id": 1}])).await;
        script
    };
    let logging_in = directory.connect(&url, Credentials::new("alice", "correct horse"));
    let (bob, mut script) = tokio::join!(soon(logging_in), welcoming);
    let bob = bob.unwrap();
    let introducing = async {
        loop {
            let (from, to) = tokio::select! {
                text = scene.script.hear() => (text, &mut script),
                text = script.hear() => (text, &mut scene.script),
            };
            to.say(json!({"type": from["type"], "data": from["data"]})).await;
        }
    };
    let number = |number| PeerNumber::new(number).unwrap();
    let node = tokio::select! {
        node = soon(bob.connect(number(1))), if by_bob => node.unwrap(),
        node = soon(scene.session.connect(number(2))), if !by_bob => node.unwrap(),
        () = introducing => unreachable!(),
    };
    (bob, script, node)
}

/// Alice loses the directory, and comes to it again.
async fn lose(scene: &mut Scene) -> Script {
    let mut events = scene.session.events();
    scene.script.0.close(None).await.unwrap();
    while soon(events.next()).await.unwrap() != SessionEvent::Disconnected {}
    Script::accept(&scene.listener).await
}

/// Alice takes Bob's calls: until the guard is dropped, over this node of his.
fn served(scene: &Scene, bob: &Session) -> (ModuleGuard, Node) {
    let echo = scene.session.module("Echo", async |request: Request| Ok(request.body().clone())).unwrap();
    (echo, bob.root().peer(&Address::new("1").unwrap()).unwrap())
}

/// The number is somebody else's after an absence, so who is connected by it is not believed any more to be Bob.
#[tokio::test]
async fn a_number_that_has_another_name_is_not_who_it_was() {
    let mut scene = Scene::begin().await;
    let (_bob, _scripted, node) = connect(&mut scene, false).await;
    let mut again = lose(&mut scene).await;
    assert!(node.is_open());
    again.welcome(7, json!(["Bob", "Eve"]), json!([{"name": "Eve", "id": 2}])).await;
    soon(node.closed()).await;
    let there: Vec<_> = scene.session.peers().into_iter().map(|peer| (peer.name, peer.number.get())).collect();
    assert_eq!(there, [("Eve".to_owned(), 2)]);
}

#[tokio::test]
async fn only_the_same_user_comes_again_by_a_key() {
    let mut scene = Scene::begin_with(Directory::builder().grace(Duration::from_millis(200))).await;
    let (bob, _scripted, node) = connect(&mut scene, true).await;
    scene.script.say(json!({"type": "peerConnect", "data": {"name": "Eve", "id": 3}})).await;
    vouch(&mut scene, &bob, 3).await;
    scene.script.say(json!({"type": "peerDisconnect", "data": 2})).await;
    soon(node.closed()).await;
}

/// Says by which key Alice is known.
fn is_again(text: &Value) -> bool {
    text["data"]["again"].is_string()
}

#[tokio::test]
async fn everybody_is_told_who_comes_again_however_many_they_are() {
    let mut scene = Scene::begin().await;
    let (_bob, _scripted, _node) = connect(&mut scene, true).await;
    let mut script = lose(&mut scene).await;
    // More than may wait to be sent.
    let mut untold: BTreeSet<u64> = (100..800).collect();
    let peers: Vec<_> = untold.iter().map(|id| json!({"name": "Bob", "id": id})).collect();
    script.welcome(7, json!(["Bob"]), json!(peers)).await;
    soon(scene.session.connected()).await.unwrap();
    // What is asked for meanwhile finds room.
    let asked = scene.session.trusted();
    let answering = async {
        let mut is_asked = false;
        while !untold.is_empty() || !is_asked {
            let text = script.hear().await;
            if text["type"] == "listTrusted" {
                is_asked = true;
                assert!(untold.len() > 300, "{}", untold.len());
            } else {
                let to = text["data"]["to"].as_u64().unwrap();
                assert!(is_again(&text) && untold.remove(&to), "{text}");
            }
            script.say(json!({"type": "ok", "id": text["id"], "data": []})).await;
        }
    };
    assert_eq!(soon(async { tokio::join!(asked, answering) }).await.0, Ok(vec![]));
}

#[tokio::test]
async fn who_was_busy_is_told_once_more() {
    let mut scene = Scene::begin().await;
    let (_bob, _scripted, _node) = connect(&mut scene, true).await;
    scene.script.say(json!({"type": "peerConnect", "data": {"name": "Bob", "id": 3}})).await;
    for code in ["busy", "unknown_peer"] {
        let text = scene.script.hear().await;
        assert!(is_again(&text) && text["data"]["to"] == 3, "{text}");
        let refused = json!({"code": code, "message": "it cannot"});
        scene.script.say(json!({"type": "error", "id": text["id"], "data": refused})).await;
    }
}

#[tokio::test]
async fn a_connection_of_the_application_is_served_again_when_its_peer_comes_again() {
    let mut scene = Scene::begin_with(Directory::builder().grace(Duration::from_millis(100))).await;
    let (bob, _scripted, _node) = connect(&mut scene, false).await;
    let (_echo, to_alice) = served(&scene, &bob);
    // Whether it is by his number of before, or by another one.
    for number in [2, 3] {
        until_served(&bob, &to_alice, true).await;
        scene.script.say(json!({"type": "peerDisconnect", "data": 2})).await;
        until_served(&bob, &to_alice, false).await;
        scene.script.say(json!({"type": "peerConnect", "data": {"name": "Bob", "id": number}})).await;
        assert!(is_again(&scene.script.hear().await));
        // Another login of his may have the number.
        until_served(&bob, &to_alice, false).await;
        vouch(&mut scene, &bob, number).await;
    }
    until_served(&bob, &to_alice, true).await;
}

async fn until_served(by: &Session, node: &Node, wanted: bool) {
    soon(async {
        while is_served(by.rpc(), node).await != wanted {
            // Nothing tells that a peer is served no more.
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A peer of this number says by the key of Bob that his connections are its own.
async fn vouch(scene: &mut Scene, bob: &Session, number: u64) {
    let again = json!({"to": 1, "from": number, "peer": number, "again": bob.root().peer_id().to_string()});
    scene.script.say(json!({"type": "peerResponse", "data": again})).await;
}

#[tokio::test]
async fn a_number_that_has_another_name_ends_a_connection_however_long_its_peer_was_away() {
    for is_vouched_for in [false, true] {
        let mut scene = Scene::begin_with(Directory::builder().grace(Duration::from_millis(100))).await;
        let (bob, _scripted, node) = connect(&mut scene, false).await;
        let (_echo, to_alice) = served(&scene, &bob);
        if is_vouched_for {
            scene.script.say(json!({"type": "peerConnect", "data": {"name": "Bob", "id": 3}})).await;
            vouch(&mut scene, &bob, 3).await;
        }
        scene.script.say(json!({"type": "peerDisconnect", "data": 2})).await;
        until_served(&bob, &to_alice, is_vouched_for).await;
        scene.script.say(json!({"type": "peerConnect", "data": {"name": "Eve", "id": 2}})).await;
        soon(node.closed()).await;
    }
}
