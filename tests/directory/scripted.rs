//! Sessions at a directory that says what the test wants.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmesh::directory::{
    CallError, Credentials, Directory, DirectoryBuilder, Peer, RequestError, Session, SessionEvent,
};
use pmesh::{ConnectError, PeerNumber, Root};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::common::{builder, soon};
use crate::server::{all, event, one};

/// A login, seen from the directory.
pub(crate) struct Script(pub(crate) WebSocketStream<TcpStream>);

impl Script {
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "as the crate has it")]
        let check = |request: &Request, response: Response| {
            assert_eq!(request.uri(), "/directory");
            let headers = request.headers();
            // alice:correct horse
            assert_eq!(headers["Authorization"], "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==");
            assert!(!headers.contains_key("Sec-WebSocket-Protocol") && !headers.contains_key("Cookie"));
            Ok(response)
        };
        Self(tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap())
    }

    pub(crate) async fn say(&mut self, text: impl ToString) {
        self.0.send(Message::text(text.to_string())).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = soon(self.0.next()).await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// What comes with a login.
    pub(crate) async fn welcome(&mut self, own: u64, users: Value, peers: Value) {
        self.say(json!({"type": "userAdd", "data": "Us"})).await;
        self.say(json!({"type": "setPeerId", "data": {"peerId": own}})).await;
        self.say(json!({"type": "userList", "data": users})).await;
        self.say(json!({"type": "peerList", "data": peers})).await;
    }
}

pub(crate) struct Scene {
    pub(crate) listener: TcpListener,
    pub(crate) script: Script,
    pub(crate) session: Session,
    root: Root,
}

impl Scene {
    /// Alice is 1; Bob is there, as 2.
    pub(crate) async fn begin() -> Self {
        Self::begin_with(Directory::builder()).await
    }

    pub(crate) async fn begin_with(directory: DirectoryBuilder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let root = builder().build();
        let directory = directory.root(&root);
        let connecting = directory.connect(&url, Credentials::new("alice", "correct horse"));
        let serving = async {
            let mut script = Script::accept(&listener).await;
            script.welcome(1, json!(["Bob"]), json!([{"name": "Bob", "id": 2}])).await;
            script
        };
        let (session, script) = tokio::join!(soon(connecting), serving);
        Self { session: session.unwrap(), listener, script, root }
    }

    fn bob(&self) -> Peer {
        self.session.peers().into_iter().find(|peer| peer.name == "Bob").unwrap()
    }

    /// Waits until everything that was said so far is taken.
    pub(crate) async fn settle(&mut self) {
        let (listed, ()) = tokio::join!(self.session.trusted(), async {
            let request = self.script.hear().await;
            assert_eq!(request["type"], "listTrusted");
            self.script.say(json!({"type": "ok", "id": request["id"], "data": []})).await;
        });
        assert_eq!(listed, Ok(vec![]));
    }
}

#[tokio::test]
async fn offers_are_as_the_original_writes_them_and_more() {
    let mut scene = Scene::begin().await;
    assert_eq!(scene.session.number().get(), 1);
    assert_eq!(scene.bob().number.get(), 2);
    let call = scene.session.get("Bob").message("Echo", 1);
    let offer = scene.script.hear().await;
    assert_eq!(offer["type"], "peerRequest");
    let data = &offer["data"];
    assert_eq!((&data["to"], &data["from"], &data["peer"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(data["spd"]["type"], "offer");
    assert!(data["spd"]["sdp"].as_str().unwrap().starts_with("v=0"));
    assert_eq!((&data["pmesh"][0], &data["pmesh"][1]), (&json!(3), &data["spd"]));
    // The directory cannot bring it to him.
    let refusal = json!({"code": "unreachable", "message": "no peer of this number can be reached"});
    scene.script.say(json!({"type": "error", "id": offer["id"], "data": refusal})).await;
    assert_eq!(one(call).await, Err(CallError::NotConnected(ConnectError::Unreachable)));
}

#[tokio::test]
async fn an_original_is_not_waited_for() {
    let mut scene = Scene::begin().await;
    let call = scene.session.get("Bob").message("Echo", 1);
    let offer = scene.script.hear().await;
    scene.script.say(json!({"type": "ok", "id": offer["id"], "data": null})).await;
    let answer = json!({"to": 1, "from": 2, "peer": 2, "spd": {"type": "answer", "sdp": "v=0\r\n"}});
    scene.script.say(json!({"type": "peerResponse", "data": answer})).await;
    assert_eq!(one(call).await, Err(CallError::NotConnected(ConnectError::Unreachable)));
    assert_eq!(scene.session.counters().originals, 1);
}

#[tokio::test]
async fn what_the_directory_cannot_mean_is_counted() {
    let mut scene = Scene::begin().await;
    let offer = json!([3, {"type": "offer", "sdp": "v=0\r\n"}, null]);
    let of = |to: u64, from: u64, peer: u64| json!({"type": "peerRequest", "data": {"to": to, "from": from, "peer": peer, "pmesh": offer}});
    // From nobody who was named, from oneself, for another one, between others.
    for forged in [of(1, 3, 3), of(1, 1, 1), of(2, 2, 2), of(1, 2, 9)] {
        scene.script.say(forged).await;
    }
    for malformed in ["", "null", "[]", "{}", r#"{"type":"peerConnect","data":{"name":"Bob"}}"#, r#"{"type":"new"}"#] {
        scene.script.say(malformed).await;
    }
    for ignored in [
        json!({"type": "peerConnect", "data": {"name": "Bob", "id": 2}}),
        json!({"type": "peerConnect", "data": {"name": "Us", "id": 1}}),
        json!({"type": "peerDisconnect", "data": 77}),
        json!({"type": "userRemove", "data": "Nobody"}),
    ] {
        scene.script.say(ignored).await;
    }
    scene.settle().await;
    let counters = scene.session.counters();
    assert_eq!((counters.foreign, counters.malformed, counters.ignored), (4, 6, 4));
    // What the tree gets is its own to judge.
    scene.script.say(of(1, 2, 2)).await;
    let huge = json!({"to": 1, "from": 2, "pmesh": "x".repeat(200_000)});
    scene.script.say(json!({"type": "peerRequest", "data": huge})).await;
    scene.settle().await;
    assert_eq!(scene.session.counters().originals, 1);
    assert_eq!(scene.session.peers(), [scene.bob()]);
}

#[tokio::test]
async fn notices_may_come_in_any_order() {
    let mut scene = Scene::begin().await;
    scene.script.say(json!({"type": "peerConnect", "data": {"name": "Eve", "id": 5}})).await;
    scene.script.say(json!({"type": "userAdd", "data": "Eve"})).await;
    scene.script.say(json!({"type": "peerConnect", "data": {"name": "Eve", "id": 2}})).await;
    scene.settle().await;
    assert_eq!(scene.session.users(), ["Bob", "Eve"]);
    let numbers: Vec<u64> = scene.session.peers().iter().map(|peer| peer.number.get()).collect();
    assert_eq!(numbers, [2, 5]);
    assert!(all(scene.session.get("Bob").message("Echo", 1)).await.is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_said_to_be_lost_and_the_new_login_counts() {
    let mut scene = Scene::begin().await;
    let mut events = scene.session.events();
    let claim = scene.session.claim_token("Carol", "token");
    let lose = async {
        let request = scene.script.hear().await;
        assert_eq!(request["data"], json!({"name": "Carol", "token": "token"}));
        scene.script.0.close(None).await.unwrap();
    };
    assert_eq!(tokio::join!(claim, lose).0, Err(RequestError::Lost));
    let mut script = Script::accept(&scene.listener).await;
    script.welcome(7, json!(["Bob", "Carol"]), json!([{"name": "Carol", "id": 3}, {"name": "Us", "id": 8}])).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&SessionEvent::PeerConnect { name: "Us".into(), number: PeerNumber::new(8).unwrap() }) {
        seen.push(soon(events.next()).await.unwrap());
    }
    let number = |number| PeerNumber::new(number).unwrap();
    let expected = [
        SessionEvent::Connected { number: number(1) },
        SessionEvent::NewUser { alias: "Bob".into() },
        SessionEvent::PeerConnect { name: "Bob".into(), number: number(2) },
        SessionEvent::Disconnected,
        SessionEvent::Connected { number: number(7) },
        SessionEvent::NewUser { alias: "Carol".into() },
        SessionEvent::PeerDisconnect { number: number(2), ended: false },
        SessionEvent::PeerConnect { name: "Carol".into(), number: number(3) },
        SessionEvent::PeerConnect { name: "Us".into(), number: number(8) },
    ];
    assert_eq!(seen, expected);
    assert_eq!((scene.session.number(), scene.root.peers().len()), (number(7), 1));
}

#[tokio::test]
async fn requests_have_a_bound() {
    let scene = Scene::begin().await;
    let requests: Vec<_> = (0..64).map(|_| scene.session.trusted()).collect();
    let mut requests = futures_util::future::join_all(requests);
    assert!(futures_util::FutureExt::now_or_never(&mut requests).is_none());
    assert_eq!(soon(scene.session.trusted()).await, Err(RequestError::Busy));
    // Who gives up makes room.
    drop(requests);
    let again = scene.session.trusted();
    assert!(futures_util::FutureExt::now_or_never(again).is_none());
    drop(scene.script);
    event(&scene.session, |event| matches!(event, SessionEvent::Connected { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_directory_that_takes_logins_and_loses_them_is_dialled_more_and_more_seldom() {
    let mut scene = Scene::begin().await;
    let mut pauses = Vec::new();
    for _ in 0..3 {
        scene.script.0.close(None).await.unwrap();
        let lost = std::time::Instant::now();
        scene.script = Script::accept(&scene.listener).await;
        pauses.push(lost.elapsed());
        scene.script.welcome(1, json!(["Bob"]), json!([])).await;
        soon(scene.session.connected()).await.unwrap();
    }
    assert!(pauses[1] >= Duration::from_secs(1) && pauses[2] >= Duration::from_secs(2), "{pauses:?}");
}
