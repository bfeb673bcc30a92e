//! A running overlay among those that speak as originals do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use pmesh::overlay::compat::peer_relay::{ConnectFailure, Data, encode_id};
use pmesh::overlay::router::ForeignMessage;
use pmesh::overlay::{Overlay, OverlayBuilder, OverlayError, OverlayId, OverlaySendError, PeerRelayCompat};
use pmesh::{Identity, Message as AppMessage, Root};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_tungstenite::tungstenite::Message;

use super::shared::{Raw, connect, has_neighbours, id, killers, message, overlay, soon, url};

fn compat(builder: OverlayBuilder) -> OverlayBuilder {
    builder.compat_peer_relay(PeerRelayCompat::default())
}

async fn ours() -> Overlay {
    overlay(compat).await
}

/// Somebody with a link, who looks like an original.
struct Them {
    id: OverlayId,
    socket: Raw,
}

impl Them {
    async fn join(at: &Overlay, id: OverlayId) -> Self {
        let mut them = Self { id, socket: connect(&url(at), encode_id(&id)).await };
        assert_eq!(soon(them.socket.next()).await.unwrap().unwrap(), Message::text(encode_id(&at.id())));
        them.say(at.id(), &Data::FindPeers(id)).await;
        // The answer: the link is open.
        assert_eq!(them.hear("foundPeers").await.0, at.id());
        them
    }

    async fn say(&mut self, to: OverlayId, data: &Data<'_>) {
        self.text(message(self.id, to, data).encode()).await;
    }

    async fn user(&mut self, to: OverlayId, json: Value) {
        self.say(to, &Data::User(&to_raw_value(&json).unwrap())).await;
    }

    async fn text(&mut self, text: String) {
        soon(self.socket.send(Message::text(text))).await.unwrap();
    }

    /// What comes until this finds what it looks for. All of it is such as an original survives.
    async fn find<T>(&mut self, found: impl Fn(&ForeignMessage, &Value) -> Option<T>) -> T {
        soon(async {
            loop {
                let next = self.socket.next().await.expect("the link is gone").unwrap();
                let Message::Text(text) = next else { continue };
                let message = ForeignMessage::decode(&text).unwrap();
                assert!(message.is_harmless(), "{text}");
                if let Some(found) = found(&message, &serde_json::from_str(message.data.get()).unwrap()) {
                    return found;
                }
            }
        })
        .await
    }

    /// The next message for it with data of this type: from whom, and the data.
    async fn hear(&mut self, kind: &str) -> (OverlayId, Value) {
        let own = self.id;
        let of_kind = |message: &ForeignMessage, data: &Value| {
            (message.to == own && data["type"] == kind).then(|| (message.from, data["data"].clone()))
        };
        self.find(of_kind).await
    }

    /// The next data of this type that comes for somebody else.
    async fn hear_for(&mut self, to: OverlayId, kind: &str) -> Value {
        self.find(|message, data| (message.to == to && data["type"] == kind).then(|| data["data"].clone())).await
    }

    async fn is_gone(&mut self) {
        soon(async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }
}

#[tokio::test]
async fn two_that_know_only_us_reach_each_other_and_us() {
    let us = ours().await;
    let (mut a, mut b) = (Them::join(&us, id(2)).await, Them::join(&us, id(3)).await);
    a.user(b.id, json!({"a": 1})).await;
    assert_eq!(b.hear("user").await, (a.id, json!({"a": 1})));
    b.user(us.id(), json!("to us")).await;
    let got = soon(us.messages().next()).await.unwrap();
    assert_eq!((got.from, got.verified, got.message), (b.id, false, AppMessage::Json(json!("to us"))));
    soon(us.send(a.id, json!("from us"))).await.unwrap();
    assert_eq!(a.hear("user").await, (us.id(), json!("from us")));
    assert_eq!(soon(us.send(a.id, vec![1u8])).await, Err(OverlaySendError::Original));
    let confirmed = us.send_confirmed(a.id, json!(1), Duration::from_secs(5));
    assert_eq!(soon(confirmed).await, Err(OverlaySendError::Original));

    // Who asks us whom we know hears of those that it can reach through us, and of itself.
    a.say(us.id(), &Data::FindPeers(a.id)).await;
    assert_eq!(a.hear("foundPeers").await, (us.id(), json!([a.id, b.id])));
    a.say(us.id(), &Data::HandshakeOffer).await;
    b.say(a.id, &Data::HandshakeOffer).await;
    assert_eq!(a.hear("handshake-offer").await.0, b.id, "who has a link gets no answer");
}

#[tokio::test]
async fn what_kills_originals_is_survived_and_not_passed_on() {
    let us = ours().await;
    let (mut good, mut other) = (Them::join(&us, id(3)).await, Them::join(&us, id(4)).await);
    let mut messages = us.messages();
    for to in [us.id(), other.id] {
        let mut bad = Them::join(&us, id(2)).await;
        for (_, text, _) in killers(bad.id, to) {
            bad.text(text).await;
        }
        soon(bad.socket.send(Message::binary(vec![1; 100]))).await.unwrap();
        // It arrives after all that came before.
        bad.user(to, json!("after")).await;
        if to == other.id {
            let after = |message: &ForeignMessage, data: &Value| {
                (message.from == id(2) && data["data"] == "after").then_some(())
            };
            other.find(after).await;
        } else {
            while soon(messages.next()).await.unwrap().message != AppMessage::Json(json!("after")) {}
        }
        good.user(other.id, json!("still here")).await;
        assert_eq!(other.hear("user").await, (good.id, json!("still here")));
        good.user(us.id(), json!("still here")).await;
        assert_eq!(soon(messages.next()).await.unwrap().from, good.id);
    }
    assert!(us.dropped() > 0, "what is harmful was dropped on its way to an original");
}

#[tokio::test]
async fn there_is_one_link_to_an_id_and_none_to_who_has_ours() {
    let us = ours().await;
    let mut first = Them::join(&us, id(2)).await;
    for claimed in [id(2), us.id()] {
        let mut second = connect(&url(&us), encode_id(&claimed)).await;
        while let Some(Ok(said)) = soon(second.next()).await {
            assert!(!said.is_text(), "it must not hear our id: {said}");
        }
    }
    first.user(us.id(), json!(1)).await;
    assert_eq!(soon(us.messages().next()).await.unwrap().from, first.id);
    // When it is gone, the id is free.
    drop(first);
    has_neighbours(&us, &[]).await;
    Them::join(&us, id(2)).await;
}

#[tokio::test]
async fn who_proves_an_id_takes_the_place_of_who_claims_it() {
    let us = ours().await;
    let identity = Identity::generate();
    let mut claims = Them::join(&us, OverlayId::of(&identity.peer_id())).await;
    let root = Root::builder().identity(identity).bind(["127.0.0.1:0".parse().unwrap()]).mdns(false).build();
    let peer = soon(compat(Overlay::builder(&root).bootstrap(url(&us))).start()).await.unwrap();
    has_neighbours(&peer, &[us.id()]).await;
    claims.is_gone().await;
    has_neighbours(&us, &[peer.id()]).await;
    let mut messages = peer.messages();
    soon(us.send_confirmed(peer.id(), json!("sealed"), Duration::from_secs(20))).await.unwrap();
    assert!(soon(messages.next()).await.unwrap().verified);
    // And nobody takes its place, not even when it is gone: its key is known.
    peer.close().await;
    has_neighbours(&us, &[]).await;
    let mut again = connect(&url(&us), encode_id(&peer.id())).await;
    while let Some(Ok(said)) = soon(again.next()).await {
        assert!(!said.is_text(), "{said}");
    }
    // What is for it does not go in the way of originals.
    let mut other = Them::join(&us, id(2)).await;
    assert_eq!(soon(us.send(peer.id(), json!("secret"))).await, Err(OverlaySendError::NoRoute));
    soon(us.send(other.id, json!("hello"))).await.unwrap();
    assert_eq!(other.hear("user").await.1, json!("hello"));
}

#[tokio::test]
async fn json_for_whom_no_peer_knows_goes_to_originals_and_nothing_else_does() {
    let us = ours().await;
    let mut original = Them::join(&us, id(2)).await;
    let nobody = id(9);
    assert!(us.is_original(&original.id) && !us.is_original(&nobody));
    assert_eq!(soon(us.send(nobody, vec![1u8])).await, Err(OverlaySendError::NoRoute));
    soon(us.send(nobody, json!("alone"))).await.unwrap();
    assert_eq!(original.hear_for(nobody, "user").await, json!("alone"));
    // With a peer that could know, it is asked first.
    let root = Root::builder().bind(["127.0.0.1:0".parse().unwrap()]).mdns(false).build();
    let peer = soon(compat(Overlay::builder(&root).bootstrap(url(&us))).start()).await.unwrap();
    has_neighbours(&us, &[original.id, peer.id()]).await;
    soon(us.send(nobody, json!("in company"))).await.unwrap();
    assert_eq!(original.hear_for(nobody, "user").await, json!("in company"));
    // Not through a peer without originals.
    let mut events = Box::pin(original.hear_for(nobody, "user"));
    soon(peer.send(nobody, json!("of another"))).await.unwrap();
    let confirmed = soon(peer.send_confirmed(nobody, json!("of another"), Duration::from_secs(20))).await;
    assert_eq!(confirmed, Err(OverlaySendError::NoRoute));
    assert_eq!(events.as_mut().now_or_never(), None);
}

#[tokio::test]
async fn one_address_has_so_many_links_and_no_more() {
    let us = ours().await;
    let mut many = Vec::new();
    for n in 0..128 {
        many.push(Them::join(&us, id(n)).await);
    }
    assert!(soon(tokio_tungstenite::connect_async(url(&us))).await.is_err());
    many.pop();
    has_neighbours(&us, &(0..127).map(id).collect::<Vec<_>>()).await;
    Them::join(&us, id(200)).await;
}

#[tokio::test]
async fn a_disconnected_one_is_gone_and_a_closed_overlay_lets_go_of_all() {
    let us = ours().await;
    let (mut a, mut b) = (Them::join(&us, id(2)).await, Them::join(&us, id(3)).await);
    soon(us.disconnect(&a.id)).await;
    a.is_gone().await;
    assert_eq!(us.neighbours(), [b.id]);
    soon(us.close()).await;
    b.is_gone().await;
}

#[tokio::test]
async fn what_an_original_answers_is_dialled_only_if_that_is_allowed() {
    let us = ours().await;
    let mut them = Them::join(&us, id(2)).await;
    let asked = id(9);
    let answer = |ws: &str| json!({"type": "handshake-answer", "data": {"ws": ws, "wrtc": false}}).to_string();
    let calling = us.link_original(asked);
    let answering = async {
        them.hear_for(asked, "handshake-offer").await;
        let data = serde_json::from_str(&answer("ws://127.0.0.1:1")).unwrap();
        let forged = ForeignMessage { data, from: asked, ..message(id(2), us.id(), &Data::HandshakeOffer) };
        them.text(forged.encode()).await;
    };
    let (result, ()) = tokio::join!(soon(calling), answering);
    assert_eq!(result, Err(ConnectFailure::NotAllowed));
    assert_eq!(soon(us.link_original(id(2))).await, Ok(()));
    assert_eq!(soon(us.link_original(us.id())).await, Err(ConnectFailure::Unreachable));
    let without = overlay(|builder| builder).await;
    assert_eq!(soon(without.link_original(id(2))).await, Err(ConnectFailure::NotTaken));
    let (mut no_web_socket, mut no_url) = (PeerRelayCompat::default(), PeerRelayCompat::default());
    no_web_socket.bootstrap = vec!["http://host".into()];
    no_url.url = Some("no url".into());
    for compat in [no_web_socket, no_url] {
        let root = Root::builder().build();
        let refused = soon(Overlay::builder(&root).compat_peer_relay(compat).start()).await;
        assert!(matches!(refused, Err(OverlayError::InvalidUrl(_))));
    }
}

#[tokio::test]
async fn an_original_behind_tls_is_dialled_with_the_certificates_of_the_root() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut compat = PeerRelayCompat::default();
    compat.bootstrap = vec![format!("wss://localhost:{}", listener.local_addr().unwrap().port())];
    let root =
        Root::builder().bind(["127.0.0.1:0".parse().unwrap()]).mdns(false).trust_certificate(certificate.to_vec());
    let us = soon(Overlay::builder(&root.build()).compat_peer_relay(compat).start()).await.unwrap();
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    let tls = soon(TlsAcceptor::from(Arc::new(config)).accept(tcp)).await.unwrap();
    let mut original = soon(tokio_tungstenite::accept_async(tls)).await.unwrap();
    soon(original.send(Message::text(encode_id(&id(2))))).await.unwrap();
    assert_eq!(soon(original.next()).await.unwrap().unwrap(), Message::text(encode_id(&us.id())));
    let first = message(id(2), us.id(), &Data::FindPeers(id(2)));
    soon(original.send(Message::text(first.encode()))).await.unwrap();
    has_neighbours(&us, &[id(2)]).await;
}
