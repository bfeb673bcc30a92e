//! Originals and running overlays, in all orders.

use futures_util::{SinkExt, StreamExt};
use pmesh::Message;
use pmesh::overlay::compat::peer_relay::{ConnectFailure, Data, encode_id};
use pmesh::overlay::{Overlay, OverlayBuilder, OverlayId, PeerRelayCompat};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::original::Original;
use super::shared::{connect, has_neighbours, id, killers, message, overlay, soon, url};

/// An overlay that begins at these originals, and dials what they answer.
async fn ours(originals: &[&Original]) -> Overlay {
    overlay(|builder| at(builder, originals)).await
}

fn at(builder: OverlayBuilder, originals: &[&Original]) -> OverlayBuilder {
    let mut compat = without_dialling(originals);
    compat.dial_answers = true;
    builder.compat_peer_relay(compat)
}

fn without_dialling(originals: &[&Original]) -> PeerRelayCompat {
    let mut compat = PeerRelayCompat::default();
    compat.bootstrap = originals.iter().map(|original| original.url.clone()).collect();
    compat
}

async fn from_ours(us: &Overlay, original: &mut Original, said: &str) {
    soon(us.send(original.id, json!({"said": said}))).await.unwrap();
    original.event(json!({"event": "message", "from": us.id(), "data": {"said": said}})).await;
}

async fn from_original(original: &mut Original, us: &Overlay, said: &str) {
    let mut messages = us.messages();
    original.send(us.id(), &json!([said, null, 1.5])).await;
    assert_eq!(next(&mut messages).await, (original.id, false, json!([said, null, 1.5])));
}

async fn next(
    messages: &mut (impl StreamExt<Item = pmesh::overlay::OverlayMessage> + Unpin),
) -> (OverlayId, bool, Value) {
    let got = soon(messages.next()).await.unwrap();
    let Message::Json(json) = got.message else { panic!("not JSON") };
    (got.from, got.verified, json)
}

async fn between(a: &mut Original, b: &mut Original, said: &str) {
    a.send(b.id, &json!(said)).await;
    b.event(json!({"event": "message", "from": a.id, "data": said})).await;
    b.send(a.id, &json!(said)).await;
    a.event(json!({"event": "message", "from": b.id, "data": said})).await;
}

async fn are_linked(a: &mut Original, b: OverlayId) {
    a.event(json!({"event": "peer", "id": b})).await;
}

#[tokio::test]
async fn original_and_ours_whoever_dials() {
    let us = ours(&[]).await;
    let mut a = Original::start(&[&url(&us)]).await;
    // Before it can know that there is a link.
    a.send(us.id(), &json!("first")).await;
    assert_eq!(next(&mut us.messages()).await, (a.id, false, json!("first")));
    from_ours(&us, &mut a, "hello").await;

    let mut b = Original::start(&[]).await;
    let other = ours(&[&b]).await;
    from_ours(&other, &mut b, "before there is a link").await;
    from_original(&mut b, &other, "hello").await;
    assert_eq!(b.table().await.0, [other.id()]);
    soon(other.disconnect(&b.id)).await;
    b.event(json!({"event": "gone", "id": other.id()})).await;
}

#[tokio::test]
async fn both_dial_at_once_and_there_is_one_link() {
    for theirs in [id(0), id(0xff)] {
        let mut original = Original::with_id(Some(theirs), &[]).await;
        let us = ours(&[&original]).await;
        original.connect(us.id()).await;
        original.dial(&url(&us)).await;
        original.dial(&url(&us)).await;
        has_neighbours(&us, &[original.id]).await;
        from_original(&mut original, &us, "once").await;
        from_ours(&us, &mut original, "once").await;
        assert_eq!(original.table().await.0, [us.id()]);
        assert!(!original.seen(&json!({"event": "gone"})), "a link has broken");
    }
}

#[tokio::test]
async fn original_ours_original() {
    let us = ours(&[]).await;
    let mut a = Original::start(&[&url(&us)]).await;
    let mut b = Original::start(&[&url(&us)]).await;
    are_linked(&mut b, us.id()).await;
    between(&mut a, &mut b, "through us").await;
    // Each is told about the other, and connects by itself.
    are_linked(&mut a, b.id).await;
    are_linked(&mut b, a.id).await;
    soon(us.close()).await;
    a.event(json!({"event": "gone", "id": us.id()})).await;
    b.event(json!({"event": "gone", "id": us.id()})).await;
    between(&mut a, &mut b, "without us").await;
}

#[tokio::test]
async fn ours_original_ours() {
    let mut original = Original::start(&[]).await;
    let a = overlay(|builder| builder.compat_peer_relay(without_dialling(&[&original]))).await;
    let b = overlay(|builder| builder.compat_peer_relay(without_dialling(&[&original]))).await;
    are_linked(&mut original, a.id()).await;
    are_linked(&mut original, b.id()).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut messages = to.messages();
        soon(from.send(to.id(), json!("through an original"))).await.unwrap();
        assert_eq!(next(&mut messages).await, (from.id(), false, json!("through an original")));
    }
    assert_eq!(soon(a.link_original(b.id())).await, Err(ConnectFailure::NotAllowed));

    // Where that is allowed, a pmesh peer that an original has named becomes a neighbour of its own kind.
    let c = ours(&[&original]).await;
    are_linked(&mut original, c.id()).await;
    soon(c.link_original(a.id())).await.unwrap();
    let mut messages = a.messages();
    soon(c.send(a.id(), json!("sealed"))).await.unwrap();
    assert_eq!(next(&mut messages).await, (c.id(), true, json!("sealed")));
}

#[tokio::test]
async fn original_original_ours() {
    let middle = Original::start(&[]).await;
    let mut far = Original::start(&[&middle.url]).await;
    are_linked(&mut far, middle.id).await;
    let us = ours(&[&middle]).await;
    has_neighbours(&us, &[middle.id, far.id]).await;
    // The one in the middle has named the other, and one of us has asked for a link.
    are_linked(&mut far, us.id()).await;
    from_ours(&us, &mut far, "hello").await;
    from_original(&mut far, &us, "hello").await;
}

#[tokio::test]
async fn original_original_ours_ours_without_shortcuts() {
    let mut middle = Original::start(&[]).await;
    let mut far = Original::start(&[&middle.url]).await;
    are_linked(&mut far, middle.id).await;
    far.keep_to_itself().await;
    let us = overlay(|builder| builder.compat_peer_relay(without_dialling(&[&middle]))).await;
    are_linked(&mut middle, us.id()).await;
    from_ours(&us, &mut far, "hello").await;
    from_original(&mut far, &us, "hello").await;
    assert_eq!(us.neighbours(), [middle.id]);
    // A peer of ours that knows no original reaches it too.
    let other = overlay(|builder| at(builder.bootstrap(url(&us)), &[])).await;
    has_neighbours(&other, &[us.id()]).await;
    from_ours(&other, &mut far, "from afar").await;
    from_original(&mut far, &other, "from afar").await;
}

#[tokio::test]
async fn ours_ours_original() {
    let b = ours(&[]).await;
    let a = overlay(|builder| at(builder.bootstrap(url(&b)), &[])).await;
    has_neighbours(&a, &[b.id()]).await;
    let mut original = Original::start(&[&url(&b)]).await;
    are_linked(&mut original, b.id()).await;
    from_ours(&a, &mut original, "hello").await;
    from_original(&mut original, &a, "hello").await;
    // It connects to the one that it has heard of, and is asked by it.
    original.connect(a.id()).await;
    are_linked(&mut original, a.id()).await;
    has_neighbours(&a, &[b.id(), original.id]).await;
    soon(a.disconnect(&original.id)).await;
    original.event(json!({"event": "gone", "id": a.id()})).await;
    soon(a.link_original(original.id)).await.unwrap();
    are_linked(&mut original, a.id()).await;
    from_original(&mut original, &a, "directly").await;
}

/// Overlays in a line, of which each knows the one before.
async fn line(length: usize) -> Vec<Overlay> {
    let mut line: Vec<Overlay> = Vec::new();
    for _ in 0..length {
        let bootstrap = line.last().map(url);
        let next = overlay(|builder| {
            let builder = at(builder, &[]).make_links(false);
            bootstrap.into_iter().fold(builder, OverlayBuilder::bootstrap)
        });
        let next = next.await;
        if let Some(last) = line.last() {
            has_neighbours(&next, &[last.id()]).await;
        }
        line.push(next);
    }
    line
}

#[tokio::test]
async fn original_ours_ours_ours_original() {
    let line = line(3).await;
    let mut left = Original::start(&[&url(&line[0])]).await;
    let mut right = Original::start(&[&url(&line[2])]).await;
    are_linked(&mut left, line[0].id()).await;
    are_linked(&mut right, line[2].id()).await;
    between(&mut left, &mut right, "through three").await;
    for us in &line {
        from_original(&mut left, us, "to each").await;
        from_original(&mut right, us, "to each").await;
        from_ours(us, &mut left, "from each").await;
        from_ours(us, &mut right, "from each").await;
    }
    // They connect by themselves too, signalled through the three.
    left.connect(right.id).await;
    are_linked(&mut right, left.id).await;
    are_linked(&mut left, right.id).await;
    assert_eq!((left.table().await.2, right.table().await.2), (0, 0));
}

#[tokio::test]
async fn ours_and_originals_in_turns() {
    let mut first = Original::start(&[]).await;
    let a = ours(&[&first]).await;
    let b = overlay(|builder| at(builder.bootstrap(url(&a)), &[])).await;
    has_neighbours(&b, &[a.id()]).await;
    let mut last = Original::start(&[&url(&b)]).await;
    are_linked(&mut first, a.id()).await;
    are_linked(&mut last, b.id()).await;
    between(&mut first, &mut last, "through two").await;
    from_ours(&b, &mut first, "hello").await;
    from_ours(&a, &mut last, "hello").await;
    // Between peers of ours all is sealed, whatever else there is.
    let mut messages = b.messages();
    soon(a.send(b.id(), json!("sealed"))).await.unwrap();
    assert_eq!(next(&mut messages).await, (a.id(), true, json!("sealed")));
}

#[tokio::test]
async fn five_that_begin_at_ours_all_connect() {
    let us = ours(&[]).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(Original::start(&[&url(&us)]).await);
    }
    let ids: Vec<OverlayId> = all.iter().map(|original| original.id).collect();
    has_neighbours(&us, &ids).await;
    for original in &mut all {
        are_linked(original, us.id()).await;
        let own = original.id;
        for other in ids.iter().filter(|other| **other != own) {
            are_linked(original, *other).await;
        }
        assert!(!original.seen(&json!({"event": "gone"})), "a link has broken");
        assert_eq!(original.table().await.2, 0, "it keeps a place for who cannot be reached");
    }
}

#[tokio::test]
async fn what_kills_originals_stops_at_ours() {
    let us = ours(&[]).await;
    let mut a = Original::start(&[&url(&us)]).await;
    let mut b = Original::start(&[&url(&us)]).await;
    are_linked(&mut a, us.id()).await;
    are_linked(&mut b, us.id()).await;
    for to in [us.id(), a.id, b.id] {
        let bad = id(2);
        let mut raw = connect(&url(&us), encode_id(&bad)).await;
        soon(raw.next()).await.unwrap().unwrap();
        // Signals are passed on, for pages: one in node.js dies of them whoever relays.
        let texts = killers(bad, to).into_iter().filter(|(name, ..)| !name.starts_with("a signal"));
        let last = message(bad, to, &Data::FindPeers(bad)).encode();
        for text in texts.map(|(_, text, _)| text).chain([last]) {
            soon(raw.send(Frame::text(text))).await.unwrap();
        }
        // All has passed when the answer is here.
        while !soon(raw.next()).await.unwrap().unwrap().to_text().unwrap().contains(&format!(r#""from":"{to}""#)) {}
    }
    between(&mut a, &mut b, "alive").await;
    from_original(&mut a, &us, "alive").await;
    from_ours(&us, &mut b, "alive").await;
}
