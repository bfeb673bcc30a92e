//! Calls over the overlay.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::Verdict;
use pmesh::overlay::{Overlay, OverlayId};
use pmesh::rpc::{CallError, IncomingCall, Rpc, ServeError};
use serde_json::json;

use crate::common::{builder, soon};
use crate::{endless, modules};

/// Three in an overlay, where the last two know the first only to begin with.
async fn overlays() -> [Overlay; 3] {
    let start = async |at: Option<&Overlay>| {
        let root = builder().build();
        let here = Overlay::builder(&root).listen("127.0.0.1:0".parse().unwrap());
        let url = at.map(|at| format!("ws://{}", at.local_addr().unwrap()));
        let overlay = soon(url.into_iter().fold(here, |here, url| here.bootstrap(url)).start()).await.unwrap();
        if let Some(at) = at {
            soon(overlay.neighbour(&at.id())).await;
        }
        overlay
    };
    let a = start(None).await;
    let (b, c) = (start(Some(&a)).await, start(Some(&a)).await);
    [a, b, c]
}

#[tokio::test]
async fn calls_go_over_the_overlay() {
    let [_a, b, c] = overlays().await;
    let rpc = Rpc::new();
    modules(&rpc);
    let _who = rpc
        .typed("Who", async |(): (), caller: pmesh::rpc::Caller| Ok(caller.overlay_id().map(|id| id.to_string())))
        .unwrap();
    let calls = Rpc::new();
    let to_c = calls.over(&b, c.id());
    assert_eq!(soon(to_c.call("Add", json!([1, 2]))).await, Err(CallError::Unsupported));
    let serving = rpc.serve_overlay(&c).unwrap();
    assert_eq!(rpc.serve_overlay(&c).unwrap_err(), ServeError::InUse);
    assert_eq!(soon(to_c.call_typed("Who", &())).await, Ok(b.id().to_string()));
    let all: Vec<u64> = soon(to_c.stream("Count", 1000).map(|item| item.unwrap().as_u64().unwrap()).collect()).await;
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    let large = "x".repeat(50_000);
    let at_once = (0..70).map(|_| to_c.call("Same", large.clone()));
    assert!(soon(join_all(at_once)).await.into_iter().all(|answer| answer == Ok(json!(large))));
    let nobody = calls.over(&b, OverlayId::from_bytes([7; 20])).timeout(Duration::from_millis(300));
    assert_eq!(soon(nobody.call("Add", json!([1, 2]))).await, Err(CallError::Unsupported));
    assert!(matches!(soon(calls.over(&b, b.id()).call("Add", 1)).await, Err(CallError::Unreachable(_))));

    let (begun, mut dropped) = endless(&rpc);
    let call = tokio::spawn(async move { to_c.call("Endless", json!(null)).await });
    soon(begun.notified()).await;
    drop(serving);
    assert_eq!(soon(call).await.unwrap(), Err(CallError::Closed));
    soon(dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn a_firewall_decides_call_by_call_over_the_overlay() {
    let [a, b, c] = overlays().await;
    let friend = b.id();
    let rpc = Rpc::builder()
        .firewall(move |call: &IncomingCall| match call.module() {
            "Panic" => panic!("a firewall that fails"),
            "Never" => Verdict::Ignore,
            "Same" => Verdict::Busy,
            "Add" => (call.caller().overlay_id() == Some(friend)).into(),
            _ => Verdict::Refuse,
        })
        .build();
    modules(&rpc);
    let _serving = rpc.serve_overlay(&c).unwrap();
    let calls = Rpc::new();
    let (of_friend, of_stranger) = (calls.over(&b, c.id()), calls.over(&a, c.id()));
    for refused in ["My.Echo.Module", "Panic", "Unknown"] {
        assert_eq!(soon(of_friend.call(refused, json!(null))).await, Err(CallError::Refused), "{refused}");
    }
    assert_eq!(soon(of_friend.call("Same", json!(null))).await, Err(CallError::Busy));
    let ignored = soon(of_friend.clone().timeout(Duration::from_millis(50)).call("Never", json!(null))).await;
    assert_eq!(ignored, Err(CallError::TimedOut));
    assert_eq!(soon(of_stranger.call("Add", json!([1, 2]))).await, Err(CallError::Refused));
    assert_eq!(soon(of_friend.call_typed("Add", &(1, 2))).await, Ok(3));
}

#[tokio::test]
async fn a_peer_that_sends_nonsense_ends_its_own_calls_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let [_a, b, c] = overlays().await;
    let rpc = Rpc::new();
    modules(&rpc);
    let _serving = rpc.serve_overlay(&c).unwrap();
    let other = overlay_at(&c).await;
    let calls = Rpc::new();
    let good = calls.over(&other, c.id());
    assert_eq!(soon(good.call_typed("Add", &(1, 2))).await, Ok(3));
    let hello = [&[0, 0, 0, 14, 0, 1][..], &[0, 0, 0, 64], &[0, 1, 0, 0], &[0, 1, 0, 0]].concat();
    let call = |number: u32| {
        let frame = [&[1][..], &number.to_be_bytes(), &[0; 7], &[5], b"Never", &[0, 0, 0, 1], b"1"].concat();
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    };
    let flood: Vec<u8> = (1..100_000).flat_map(call).collect();
    for wrong in
        [vec![0xff; 100], vec![0; 5], call(1), [hello.clone(), hello.clone()].concat(), [hello, flood].concat()]
    {
        let mut stream = soon(b.dial(c.id(), "pmesh.rpc")).await.unwrap();
        // It may be cut off while it writes.
        let _ = soon(stream.write_all(&wrong)).await;
        let mut end = Vec::new();
        let _ = soon(stream.read_to_end(&mut end)).await;
        assert!(end.len() < 100_000, "{} bytes of answers", end.len());
        assert_eq!(soon(good.call_typed("Add", &(1, 2))).await, Ok(3));
    }
}

async fn overlay_at(at: &Overlay) -> Overlay {
    let root = builder().build();
    let url = format!("ws://{}", at.local_addr().unwrap());
    let overlay = soon(Overlay::builder(&root).bootstrap(url).start()).await.unwrap();
    soon(overlay.neighbour(&at.id())).await;
    overlay
}
