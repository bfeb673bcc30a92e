//! Links by themselves.

use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use pmesh::overlay::OverlayId;
use pmesh::overlay::compat::peer_relay::{
    ConnectFailure, Data, Link, LinkError, Machine, MachineConfig, Output, dial, encode_id,
};
use pmesh::overlay::router::ForeignMessage;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use super::original::Original;
use super::shared::{Us, connect, id, killers, message, next_user, send_user, soon};

/// The next message of a link with what it says.
async fn next(link: &mut Link) -> (ForeignMessage, Value) {
    let message = soon(link.receiver.recv()).await.expect("the link is gone");
    let data = serde_json::from_str(message.data.get()).unwrap();
    (message, data)
}

/// Nothing is sent that the other side has to answer: it says what it has to say.
async fn talk(original: &mut Original, link: &mut Link, us: OverlayId) {
    let json = json!({"to the original": ["ü", 1.5, null]});
    send_user(link, us, original.id, &json);
    original.event(json!({"event": "message", "from": us, "data": json})).await;
    let json = json!("to us");
    original.send(us, &json).await;
    assert_eq!(next_user(link).await, (original.id, json));
}

/// An original whose first neighbour we are.
async fn comes_to(us: &Us) -> (Link, Original) {
    let bootstrap = [us.url.as_str()];
    let (link, original) = tokio::join!(us.accept(), Original::start(&bootstrap));
    (link.unwrap(), original)
}

#[tokio::test]
async fn an_original_connects_to_us() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut original) = comes_to(&us).await;
    assert_eq!(link.id, original.id);
    original.event(json!({"event": "peer", "id": us.id})).await;
    let (asked, data) = next(&mut link).await;
    assert_eq!((asked.to, asked.from, asked.path), (us.id, original.id, vec![original.id]));
    assert_eq!(data, json!({"type": "findPeers", "data": original.id}));
    talk(&mut original, &mut link, us.id).await;
}

#[tokio::test]
async fn we_connect_to_an_original() {
    let mut original = Original::start(&[]).await;
    let us = id(1);
    let mut link = soon(dial(&original.url, &us, |_| true)).await.unwrap();
    assert_eq!(link.id, original.id);
    original.event(json!({"event": "peer", "id": us})).await;
    talk(&mut original, &mut link, us).await;
    assert_eq!(original.table().await.0, [us]);
    drop(link);
    original.event(json!({"event": "gone", "id": us})).await;
}

#[tokio::test]
async fn an_original_asks_those_for_a_connection_that_we_tell_it_of() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut original) = comes_to(&us).await;
    let candidate = id(9);
    let found = message(us.id, original.id, &Data::FoundPeers(vec![original.id, candidate]));
    link.sender.try_send(&found).unwrap();
    let (asked, data) = loop {
        let (asked, data) = next(&mut link).await;
        if asked.to == candidate {
            break (asked, data);
        }
    };
    assert_eq!((asked.from, data), (original.id, json!({"type": "handshake-offer"})));
    let (peers, candidates, pending) = original.table().await;
    assert_eq!(peers, [us.id]);
    assert!(candidates.contains(&candidate));
    assert_eq!(pending, 1, "it keeps a place for who cannot be reached");
}

/// Passes messages of originals on, as simply as can be.
fn pass_on(us: OverlayId, mut message: ForeignMessage, to: &Link) {
    message.path.push(us);
    to.sender.try_send(&message).unwrap();
}

#[tokio::test]
async fn originals_understand_what_we_relay() {
    let us = Us::listen(id(1)).await;
    let (mut first, mut a) = comes_to(&us).await;
    let (mut second, mut b) = comes_to(&us).await;
    a.event(json!({"event": "peer"})).await;
    a.send(b.id, &json!([1])).await;
    let relayed = loop {
        let (message, _) = next(&mut first).await;
        if message.to == b.id {
            break message;
        }
    };
    pass_on(us.id, relayed, &second);
    b.event(json!({"event": "message", "from": a.id, "data": [1]})).await;
    b.connect(a.id).await;
    let offer = loop {
        let (message, _) = next(&mut second).await;
        if message.to == a.id {
            break message;
        }
    };
    pass_on(us.id, offer, &first);
    let answer = loop {
        let (message, data) = next(&mut first).await;
        if data["type"] == "handshake-answer" {
            break message;
        }
    };
    assert_eq!((answer.to, answer.from), (b.id, a.id));
    pass_on(us.id, answer, &second);
    a.event(json!({"event": "peer", "id": b.id})).await;
    b.event(json!({"event": "peer", "id": a.id})).await;
}

/// The machine with one link, which all that it sends goes over.
struct Node {
    id: OverlayId,
    machine: Machine,
    link: Link,
}

impl Node {
    async fn joined(us: &Us, relay: &Original, dial_answers: bool) -> Self {
        let mut config = MachineConfig::default();
        (config.url, config.dial_answers) = (Some(us.url.clone()), dial_answers);
        let mut machine = Machine::new(us.id, config);
        let link = soon(dial(&relay.url, &us.id, |_| true)).await.unwrap();
        machine.up(relay.id);
        Self { id: us.id, machine, link }
    }

    /// Does what the machine wants, until it wants something else than to send.
    fn act(&mut self) -> Option<Output> {
        loop {
            match self.machine.poll_output()? {
                Output::Send { to, data } => {
                    let data = Data::decode(data.get().as_bytes()).unwrap().unwrap();
                    self.link.sender.try_send(&message(self.id, to, &data)).unwrap();
                }
                output => return Some(output),
            }
        }
    }

    async fn take(&mut self) {
        let (message, _) = next(&mut self.link).await;
        if message.to == self.id {
            let relay = self.link.id;
            self.machine.receive(message.from, message.data.get().as_bytes(), &|_| vec![relay]);
        }
    }

    /// Until the machine wants something of this kind.
    async fn until<T>(&mut self, pick: impl Fn(Output) -> Option<T>) -> T {
        loop {
            while let Some(output) = self.act() {
                if let Some(found) = pick(output) {
                    return found;
                }
            }
            self.take().await;
        }
    }
}

/// Two originals that are neighbours.
async fn two() -> (Original, Original) {
    let mut relay = Original::start(&[]).await;
    let mut other = Original::start(&[&relay.url]).await;
    other.event(json!({"event": "peer", "id": relay.id})).await;
    relay.event(json!({"event": "peer", "id": other.id})).await;
    (relay, other)
}

#[tokio::test]
async fn an_original_finds_us_through_another_and_dials_us() {
    let (relay, mut other) = two().await;
    let us = Us::listen(id(1)).await;
    let mut node = Node::joined(&us, &relay, false).await;
    // It tells us about the other one: that is where the other one is known to it.
    let found =
        node.until(|output| if let Output::Candidates { peers, .. } = output { Some(peers) } else { None }).await;
    assert!(found.contains(&other.id), "{found:?}");
    other.connect(us.id).await;
    let mut accepting = std::pin::pin!(us.accept());
    let mut link = loop {
        tokio::select! {
            link = &mut accepting => break link.unwrap(),
            () = node.take() => while node.act().is_some() {},
        }
    };
    assert_eq!(link.id, other.id);
    other.event(json!({"event": "peer", "id": us.id})).await;
    talk(&mut other, &mut link, us.id).await;
}

#[tokio::test]
async fn we_find_an_original_through_another_and_dial_it() {
    let (relay, mut other) = two().await;
    let us = Us::listen(id(1)).await;
    let mut node = Node::joined(&us, &relay, true).await;
    node.machine.connect(other.id, Instant::now());
    let dialled =
        node.until(|output| if let Output::Dial { peer, url, .. } = output { Some((peer, url)) } else { None });
    let (peer, url) = dialled.await;
    assert_eq!(peer, other.id);
    let mut link = soon(dial(&url, &us.id, |claimed| *claimed == peer)).await.unwrap();
    node.machine.up(peer);
    other.event(json!({"event": "peer", "id": us.id})).await;
    talk(&mut other, &mut link, us.id).await;

    // Who has a link to us does not answer.
    node.machine.down(&relay.id);
    node.machine.connect(relay.id, Instant::now());
    while let Some(until) = node.machine.next_timeout() {
        assert!(node.act().is_none());
        node.machine.handle_timeout(until);
    }
    let failed =
        node.until(|output| if let Output::ConnectFailed { reason, .. } = output { Some(reason) } else { None });
    assert_eq!(failed.await, ConnectFailure::TimedOut);
}

/// What the module says about two connections, and why a link keeps its id to itself until the other one is admitted.
#[tokio::test]
async fn a_second_connection_costs_both_unless_it_says_no_id() {
    for (ours, theirs) in [(id(1), id(2)), (id(2), id(1))] {
        let mut original = Original::with_id(Some(theirs), &[]).await;
        let mut first = soon(dial(&original.url, &ours, |_| true)).await.unwrap();
        original.event(json!({"event": "peer", "id": ours})).await;
        let refused = soon(dial(&original.url, &ours, |_| false)).await;
        assert_eq!(refused.unwrap_err(), LinkError::NotAdmitted(theirs));
        talk(&mut original, &mut first, ours).await;

        let second = soon(dial(&original.url, &ours, |_| true)).await.unwrap_err();
        // It closes the second, or does not listen to it, until we close it.
        assert_eq!(matches!(second, LinkError::NoRoom), ours < theirs, "{second:?}");
        original.event(json!({"event": "gone", "id": ours})).await;
        soon(async { while first.receiver.recv().await.is_some() {} }).await;
    }
}

#[tokio::test]
async fn an_original_with_a_full_table_says_its_id_and_no_more() {
    let mut original = Original::with_id(Some(id(0xff)), &[]).await;
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(connect(&original.url, encode_id(&id(n))).await);
        original.event(json!({"event": "peer", "id": id(n)})).await;
    }
    assert_eq!(soon(dial(&original.url, &id(20), |_| true)).await.unwrap_err(), LinkError::NoRoom);
    // In the other half of the ids there is room.
    assert!(soon(dial(&original.url, &id(0x80), |_| true)).await.is_ok());
    assert_eq!(original.table().await.0.iter().filter(|peer| **peer != id(0x80)).count(), 20);
}

#[tokio::test]
async fn an_original_takes_any_subprotocol() {
    let original = Original::start(&[]).await;
    let mut request = original.url.as_str().into_client_request().unwrap();
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, "pmesh.overlay.1, other".parse().unwrap());
    let (_, response) = soon(tokio_tungstenite::connect_async(request)).await.unwrap();
    assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "pmesh.overlay.1");
}

#[tokio::test]
async fn what_kills_an_original_does_us_no_harm() {
    let from = id(2);
    for (name, text, decodes) in killers(from, id(3)) {
        let original = Original::with_id(Some(id(3)), &[]).await;
        let mut raw = connect(&original.url, encode_id(&from)).await;
        // Its id, and then its first message: so it listens.
        for _ in 0..2 {
            soon(raw.next()).await.unwrap().unwrap();
        }
        soon(raw.send(Message::text(text.clone()))).await.unwrap();
        let words = original.died(name).await;
        assert!(words.contains("Error"), "{name}: {words}");

        assert_eq!(ForeignMessage::decode(&text).is_ok(), decodes, "{name}");
        if let Ok(message) = ForeignMessage::decode(&text) {
            assert_eq!(message.is_harmless(), name.starts_with("a signal"), "{name}");
            let mut config = MachineConfig::default();
            config.dial_answers = true;
            let mut machine = Machine::new(id(3), config);
            machine.connect(from, Instant::now());
            machine.receive(message.from, message.data.get().as_bytes(), &|_| Vec::new());
            while let Some(output) = machine.poll_output() {
                assert!(!matches!(output, Output::Dial { .. }), "{name}: {output:?}");
            }
        }
    }
    // As the first thing on a link, and a binary message at any time.
    for first in [Message::text("null"), Message::text("5"), Message::text("{}"), Message::binary(vec![1])] {
        let original = Original::start(&[]).await;
        let mut raw = connect(&original.url, encode_id(&from)).await;
        if first.is_text() {
            raw = soon(tokio_tungstenite::connect_async(&original.url)).await.unwrap().0;
        }
        soon(raw.send(first)).await.unwrap();
        original.died("at the start").await;
    }
}
