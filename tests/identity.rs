//! An onramp that does with introductions what it likes, and real peers at it. Nobody is taken for somebody else.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{builder, soon};
use futures_util::{SinkExt, StreamExt};
use pmesh::{CloseReason, Connect, ConnectError, Event, Node, NodeKind, Offer, PeerId, Root, RootBuilder};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// A relayed payload, with the names it goes from and to.
#[derive(Debug, Clone)]
struct Relayed {
    from: &'static str,
    to: &'static str,
    payload: Value,
}

/// What the onramp makes of each payload.
type Deed = Box<dyn FnMut(Relayed) -> Vec<Relayed> + Send>;

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Its clients are Alice, Bob and Carol, in the order in which they come.
struct Hostile {
    url: String,
    clients: Arc<Mutex<HashMap<&'static str, mpsc::Sender<String>>>>,
}

impl Hostile {
    async fn start(deed: impl FnMut(Relayed) -> Vec<Relayed> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let clients = Arc::<Mutex<HashMap<_, _>>>::default();
        let deed: Arc<Mutex<Deed>> = Arc::new(Mutex::new(Box::new(deed)));
        let all = clients.clone();
        tokio::spawn(async move {
            for name in NAMES {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, receiver) = mpsc::channel(64);
                all.lock().unwrap().insert(name, sender);
                tokio::spawn(serve(name, stream, receiver, all.clone(), deed.clone()));
            }
        });
        Self { url, clients }
    }

    async fn peer(&self, builder: RootBuilder) -> (Root, Node) {
        let root = builder.build();
        let onramp = soon(root.connect(&self.url)).await.unwrap();
        (root, onramp)
    }

    async fn bring(&self, relayed: Relayed) {
        let client = self.clients.lock().unwrap()[relayed.to].clone();
        client.send(json!([7, relayed.from, relayed.payload]).to_string()).await.unwrap();
    }
}

#[expect(clippy::result_large_err, reason = "the signature of tungstenite's callback")]
fn accept_p(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("Sec-WebSocket-Protocol", "p".parse().unwrap());
    Ok(response)
}

async fn serve(
    name: &'static str,
    stream: TcpStream,
    mut outgoing: mpsc::Receiver<String>,
    all: Arc<Mutex<HashMap<&'static str, mpsc::Sender<String>>>>,
    deed: Arc<Mutex<Deed>>,
) {
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, accept_p).await.unwrap();
    loop {
        tokio::select! {
            Some(text) = outgoing.recv() => socket.send(Message::text(text)).await.unwrap(),
            message = socket.next() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return,
                };
                let frame: Value = serde_json::from_str(&text).unwrap();
                let to = NAMES.into_iter().find(|name| frame[1] == *name).unwrap();
                let relayed = Relayed { from: name, to, payload: frame[2].clone() };
                for Relayed { from, to, payload } in deed.lock().unwrap()(relayed) {
                    let client = all.lock().unwrap().get(to).cloned();
                    client.unwrap().try_send(json!([7, from, payload]).to_string()).unwrap();
                }
            }
        }
    }
}

fn is_offer(payload: &Value) -> bool {
    payload[0] == 3
}

fn is_answer(payload: &Value) -> bool {
    payload[0] == 4
}

/// The extension field of an offer or an answer.
fn ext(payload: &mut Value) -> &mut Value {
    let at = if is_offer(payload) { 3 } else { 2 };
    &mut payload[at]
}

/// Exchanges the certificate for another.
fn swap_fingerprint(payload: &mut Value) {
    let sdp = payload[1]["sdp"].as_str().unwrap();
    let line = sdp.lines().find(|line| line.starts_with("a=fingerprint:")).unwrap();
    let other = format!("a=fingerprint:sha-256 {}", ["AB"; 32].join(":"));
    payload[1]["sdp"] = sdp.replace(line, &other).into();
}

fn swap_key(payload: &mut Value, key: PeerId) {
    ext(payload)["identity"]["key"] = key.to_string().into();
}

/// Whether there is an open connection to a peer.
fn connected(root: &Root) -> bool {
    root.peers().iter().any(|node| node.kind() == NodeKind::WebRtc && node.is_open())
}

/// Bob, who takes everybody and must not hear a word.
async fn bob(onramp: &Hostile) -> (Root, tokio::task::JoinHandle<()>) {
    let (root, _) = onramp.peer(builder().accept_timeout(Duration::from_secs(3))).await;
    let mut events = root.events();
    let watch = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Open { node } = event {
                assert_ne!(node.kind(), NodeKind::WebRtc, "{node:?}");
            }
        }
    });
    (root, watch)
}

/// Alice calls Bob while the onramp does this to offers and answers. Returns how that ends; nobody gets a connection.
async fn call_through(
    mut deed: impl FnMut(&mut Value) + Send + 'static,
    connect: impl FnOnce(PeerId) -> Connect,
    alice: RootBuilder,
) -> ConnectError {
    let onramp = Hostile::start(move |mut relayed| {
        deed(&mut relayed.payload);
        vec![relayed]
    })
    .await;
    let (alice, to_bob) = onramp.peer(alice).await;
    let (bob, watch) = bob(&onramp).await;
    let error = soon(to_bob.connect(connect(bob.peer_id()))).await.unwrap_err();
    assert!(!connected(&alice));
    soon(bob.close()).await;
    soon(watch).await.unwrap();
    error
}

fn anybody(_: PeerId) -> Connect {
    Connect::to("bob").timeout(Duration::from_secs(10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_known_before_its_first_message() {
    let onramp = Hostile::start(|relayed| vec![relayed]).await;
    let (alice, to_bob) = onramp.peer(builder()).await;
    let (bob, _) = onramp.peer(builder()).await;
    let mut messages = bob.messages();
    let node = soon(to_bob.connect(Connect::to("bob").expect(bob.peer_id()))).await.unwrap();
    assert_eq!(node.peer_id(), Some(bob.peer_id()));
    node.try_send("at once").unwrap();
    let (from, _) = soon(messages.next()).await.unwrap();
    assert_eq!(from.peer_id(), Some(alice.peer_id()));
    assert_eq!(to_bob.peer_id(), None, "an onramp has none");
    let error = soon(alice.connect(Connect::to(&onramp.url).expect(bob.peer_id()))).await.unwrap_err();
    assert_eq!(error, ConnectError::UnexpectedPeer { expected: bob.peer_id(), found: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_fingerprints_and_keys_are_noticed() {
    let key = pmesh::Identity::generate().peer_id();
    for part in [is_offer, is_answer] {
        for (fingerprint, swapped) in [(true, false), (false, true), (true, true)] {
            let error = call_through(
                move |payload| {
                    if part(payload) && fingerprint {
                        swap_fingerprint(payload);
                    }
                    if part(payload) && swapped {
                        swap_key(payload, key);
                    }
                },
                anybody,
                builder(),
            )
            .await;
            assert!(matches!(error, ConnectError::Unverified(_)), "{fingerprint} {swapped}: {error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_extension_fields_are_noticed() {
    let alterations: [fn(&mut Value); 4] = [
        |ext| ext["window"] = json!([4_000_000_000_u32, 200]),
        |ext| ext["maxMessage"] = 1.into(),
        |ext| ext["identity"] = Value::Null,
        |ext| ext["identity"]["nonce"] = "AAAAAAAAAAAAAAAAAAAAAA".into(),
    ];
    for alter in alterations {
        for part in [is_offer, is_answer] {
            let deed = move |payload: &mut Value| {
                if part(payload) {
                    alter(ext(payload));
                }
            };
            let error = call_through(deed, anybody, builder()).await;
            assert!(matches!(error, ConnectError::Unverified(_)), "{error:?}");
        }
    }
    // So is offer data.
    let deed = |payload: &mut Value| {
        if is_offer(payload) {
            payload[2] = "another secret".into();
        }
    };
    let error = call_through(deed, |_| Connect::to("bob").offer_data("secret"), builder()).await;
    assert!(matches!(error, ConnectError::Unverified(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_extension_fields_nobody_passes_for_a_peer_with_identity() {
    fn strip(payload: &mut Value) {
        if is_offer(payload) || is_answer(payload) {
            payload.as_array_mut().unwrap().retain(|element| element["identity"].is_null());
        }
    }
    let expecting = |bob| anybody(bob).expect(bob);
    let error = call_through(strip, expecting, builder()).await;
    assert!(matches!(error, ConnectError::UnexpectedPeer { found: None, .. }), "{error:?}");
    let error = call_through(strip, anybody, builder().require_identity(true)).await;
    assert_eq!(error, ConnectError::NoIdentity);

    // Who wants to talk to originals too can see that it is none.
    let onramp = Hostile::start(|mut relayed| {
        strip(&mut relayed.payload);
        vec![relayed]
    })
    .await;
    let (_alice, to_bob) = onramp.peer(builder()).await;
    let (_bob, _) = onramp.peer(builder()).await;
    let node = soon(to_bob.connect("bob")).await.unwrap();
    assert_eq!(node.peer_id(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_man_in_the_middle_is_nobody_but_himself() {
    // Carol is in league with the onramp: what is for Bob comes to her, and her answers come from Bob.
    let onramp = Hostile::start(|relayed| match relayed {
        Relayed { from: "alice", to: "bob", payload } => vec![Relayed { from: "alice", to: "carol", payload }],
        Relayed { from: "carol", to: "alice", payload } => vec![Relayed { from: "bob", to: "alice", payload }],
        // And she calls Bob in the name of Alice.
        Relayed { from: "carol", to: "bob", payload } => vec![Relayed { from: "alice", to: "bob", payload }],
        Relayed { from: "bob", to: "alice", payload } => vec![Relayed { from: "bob", to: "carol", payload }],
        other => vec![other],
    })
    .await;
    let (alice, to_bob) = onramp.peer(builder()).await;
    let friend = alice.peer_id();
    let only_alice = builder().firewall(move |offer: &Offer| offer.peer_id() == Some(friend));
    let (bob, _) = onramp.peer(only_alice).await;
    let (carol, from_carol) = onramp.peer(builder()).await;
    let error = soon(to_bob.connect(Connect::to("bob").expect(bob.peer_id()))).await.unwrap_err();
    let (expected, found) = (bob.peer_id(), Some(carol.peer_id()));
    assert_eq!(error, ConnectError::UnexpectedPeer { expected, found });
    assert_eq!(soon(from_carol.connect("bob")).await.unwrap_err(), ConnectError::Refused);
    // Who expects nobody is connected, and told to whom.
    let node = soon(to_bob.connect("bob")).await.unwrap();
    assert_eq!(node.peer_id(), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_offer_connects_nobody() {
    let offers = Arc::new(Mutex::new(Vec::new()));
    let kept = offers.clone();
    let onramp = Hostile::start(move |relayed| {
        if is_offer(&relayed.payload) {
            kept.lock().unwrap().push(relayed.clone());
        }
        vec![relayed]
    })
    .await;
    let (alice, to_bob) = onramp.peer(builder()).await;
    let (bob, _) = onramp.peer(builder().accept_timeout(Duration::from_secs(2))).await;
    let node = soon(to_bob.connect("bob")).await.unwrap();
    assert_eq!(node.peer_id(), Some(bob.peer_id()));
    let accepted = bob.peers().into_iter().find(|node| node.kind() == NodeKind::WebRtc).unwrap();
    soon(accepted.opened()).await.unwrap();
    assert_eq!(accepted.peer_id(), Some(alice.peer_id()));
    soon(node.close()).await;
    soon(accepted.closed()).await;
    let mut connections = bob.connections();
    let offer = offers.lock().unwrap()[0].clone();
    onramp.bring(offer).await;
    let repeated = soon(connections.next()).await.unwrap();
    // Alice says that she waits for no such answer.
    let reason = soon(repeated.opened()).await.unwrap_err();
    assert!(matches!(reason, CloseReason::Remote | CloseReason::TimedOut | CloseReason::Failed(_)), "{reason:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_answer_is_noticed() {
    let mut answers: Vec<Value> = Vec::new();
    let mut session = Value::Null;
    let onramp = Hostile::start(move |mut relayed| {
        if is_offer(&relayed.payload) {
            session = ext(&mut relayed.payload)["session"].clone();
        }
        if is_answer(&relayed.payload) {
            answers.push(relayed.payload.clone());
            relayed.payload = answers[0].clone();
            ext(&mut relayed.payload)["session"] = session.clone();
        }
        vec![relayed]
    })
    .await;
    let (_alice, to_bob) = onramp.peer(builder()).await;
    let (bob, _) = onramp.peer(builder()).await;
    let node = soon(to_bob.connect("bob")).await.unwrap();
    let accepted = bob.peers().into_iter().find(|node| node.kind() == NodeKind::WebRtc).unwrap();
    soon(node.close()).await;
    soon(accepted.closed()).await;
    let error = soon(to_bob.connect("bob")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unverified(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflected_offer_connects_nobody_to_herself() {
    let onramp = Hostile::start(|relayed| {
        let Relayed { from, to, payload } = relayed;
        vec![Relayed { from: to, to: from, payload }]
    })
    .await;
    let (alice, to_bob) = onramp.peer(builder()).await;
    let error = soon(to_bob.connect("bob")).await.unwrap_err();
    assert_eq!(error, ConnectError::OwnAddress);
    assert!(!connected(&alice));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossed_sessions_are_noticed() {
    // The answers of Bob and Carol are exchanged, with what is needed for Alice to look at them.
    let mut answers: Vec<Relayed> = Vec::new();
    let onramp = Hostile::start(move |relayed| {
        if !is_answer(&relayed.payload) {
            return vec![relayed];
        }
        answers.push(relayed);
        if answers.len() < 2 {
            return vec![];
        }
        let [mut a, mut b] = [answers[0].clone(), answers[1].clone()];
        std::mem::swap(&mut a.from, &mut b.from);
        let session = ext(&mut a.payload)["session"].clone();
        ext(&mut a.payload)["session"] = ext(&mut b.payload)["session"].clone();
        ext(&mut b.payload)["session"] = session;
        vec![a, b]
    })
    .await;
    let (alice, onramp_of_alice) = onramp.peer(builder()).await;
    let (_bob, _) = onramp.peer(builder()).await;
    let (_carol, _) = onramp.peer(builder()).await;
    let (to_bob, to_carol) = tokio::join!(
        soon(onramp_of_alice.connect("bob").into_future()),
        soon(onramp_of_alice.connect("carol").into_future())
    );
    for error in [to_bob.unwrap_err(), to_carol.unwrap_err()] {
        assert!(matches!(error, ConnectError::Unverified(_)), "{error:?}");
    }
    assert!(!connected(&alice));
}
