//! Calls over WebRTC between real nodes, and over the overlay.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Peer, Server, builder, soon};
use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::overlay::{Overlay, OverlayId};
use pmesh::rpc::{CallError, Failure, IncomingCall, ModuleError, Request, Responses, Rpc, ServeError, Serving};
use pmesh::{Connect, Node, Verdict};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// Two peers with a node each to the other.
struct Pair {
    here: Node,
    there: Node,
    a: Peer,
    b: Peer,
}

async fn pair(server: &Server) -> Pair {
    let (a, b) = (server.peer().await, server.peer().await);
    let (here, there) = a.meet(&b).await;
    Pair { here, there, a, b }
}

/// Has echo, add, count, and those that go wrong.
fn modules(rpc: &Rpc) {
    rpc.module("My.Echo.Module", async |request: Request| {
        Ok(json!({"text": format!("Not {}", request.body()["text"].as_str().unwrap_or_default())}))
    })
    .unwrap()
    .detach();
    rpc.typed("Add", async |(a, b): (i64, i64), _caller| {
        a.checked_add(b).ok_or_else(|| Failure::new("too large").with_code("overflow").with_data(json!([a, b])))
    })
    .unwrap()
    .detach();
    rpc.streaming("Count", async |request: Request, responses: Responses| {
        for n in 0..request.body().as_u64().unwrap_or_default() {
            responses.send(n).await?;
        }
        Ok(())
    })
    .unwrap()
    .detach();
    rpc.module("Panic", async |_: Request| -> Result<Value, Failure> { panic!("a secret") }).unwrap().detach();
    rpc.module("Io", async |_: Request| Ok(std::fs::read_to_string("/nowhere")?.into())).unwrap().detach();
    rpc.module("Never", async |_: Request| Ok(std::future::pending().await)).unwrap().detach();
    rpc.module("Same", async |request: Request| Ok(request.into_body())).unwrap().detach();
}

fn serving(pair: &Pair) -> (Rpc, Serving) {
    let rpc = Rpc::new();
    modules(&rpc);
    let serving = rpc.serve(&pair.b.root).unwrap();
    (rpc, serving)
}

#[tokio::test]
async fn answers_and_failures_over_a_node() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (_rpc, _serving) = serving(&pair);
    let rpc = Rpc::new();
    let to = rpc.on(&pair.here);
    let answer = soon(to.call("My.Echo.Module", json!({"text": "Friday"}))).await;
    assert_eq!(answer, Ok(json!({"text": "Not Friday"})));
    assert_eq!(soon(to.call_typed("Add", &(1, 2))).await, Ok(3));
    let failure = Failure::new("too large").with_code("overflow").with_data(json!([i64::MAX, 1]));
    assert_eq!(soon(to.call_typed::<i64>("Add", &(i64::MAX, 1))).await, Err(CallError::Failed(failure)));
    assert_eq!(soon(to.call("Panic", json!(null))).await, Err(CallError::Panicked));
    assert_eq!(soon(to.call("Nothing", json!(null))).await, Err(CallError::UnknownModule));
    assert!(matches!(soon(to.call("Io", json!(null))).await, Err(CallError::Failed(_))));
    assert!(matches!(soon(to.call("Add", json!("x"))).await, Err(CallError::Malformed(_))));
    assert!(matches!(soon(to.call_typed::<String>("Add", &(1, 2))).await, Err(CallError::Unexpected(_))));
    assert_eq!(soon(to.call("Count", json!(1))).await, Err(CallError::Streams));
    assert_eq!(soon(to.call("", json!(1))).await, Err(CallError::InvalidName));
    assert_eq!(soon(to.call_typed("Add", &(20, 22))).await, Ok(42));
    // An onramp knows no calls.
    assert_eq!(soon(rpc.on(&pair.a.onramp).call("Add", json!(1))).await, Err(CallError::Unsupported));
}
