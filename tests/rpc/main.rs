//! Calls over WebRTC between real nodes, and over the overlay.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod overlay;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Peer, Server, soon};
use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::rpc::{CallError, Failure, IncomingCall, ModuleError, Request, Responses, Rpc, ServeError, Serving};
use pmesh::{Connect, Node, Verdict};
use serde_json::value::RawValue;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_that_are_there_before_a_node_is_served_are_answered() {
    let server = Server::start().await;
    for serves_root in [false, true] {
        let Pair { here, there, a: _a, b } = pair(&server).await;
        let (caller, called) = (Rpc::new(), Rpc::new());
        modules(&called);
        let (answered, answer) = std::sync::mpsc::sync_channel(1);
        let to = caller.on(&here);
        tokio::spawn(async move { answered.send(to.call("Add", json!([1, 2])).await) });
        // What is said after the call has arrived, and so has the call.
        let (mut said, mut heard) = (here.messages(), there.messages());
        for _ in 0..5 {
            here.send("ping").await.unwrap();
            soon(heard.next()).await.unwrap();
            there.send("pong").await.unwrap();
            soon(said.next()).await.unwrap();
        }
        let serve = async move {
            let _serving = if serves_root { called.serve(&b.root) } else { called.serve_node(&there, ()) }.unwrap();
            // This thread is held up: what it would do next is not needed for the answer.
            answer.recv_timeout(Duration::from_secs(20)).unwrap()
        };
        assert_eq!(tokio::spawn(serve).await.unwrap(), Ok(json!(3)));
    }
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

#[tokio::test]
async fn calls_that_come_before_they_are_taken_wait() {
    let server = Server::start().await;
    let (one, other) = (pair(&server).await, pair(&server).await);
    for (pair, whole_root) in [(&one, false), (&other, true)] {
        let callers = Rpc::new();
        let to = callers.on(&pair.here);
        let calling = tokio::spawn(async move { to.call("Same", json!(7)).await });
        // What is sent after it has arrived.
        let (mut heard, mut answered) = (pair.there.messages(), pair.here.messages());
        for _ in 0..3 {
            pair.here.send("ping").await.unwrap();
            soon(heard.next()).await.unwrap();
            pair.there.send("pong").await.unwrap();
            soon(answered.next()).await.unwrap();
        }
        let rpc = Rpc::new();
        modules(&rpc);
        let _serving =
            if whole_root { rpc.serve(&pair.b.root).unwrap() } else { rpc.serve_node(&pair.there, ()).unwrap() };
        assert_eq!(soon(calling).await.unwrap(), Ok(json!(7)));
    }
}

/// Says when it is dropped.
struct Dropped(mpsc::Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// A module that begins, tells so, and never ends; and what tells that its future was dropped.
fn endless(rpc: &Rpc) -> (Arc<Notify>, mpsc::Receiver<()>) {
    let (begun, (dropped, drops)) = (Arc::new(Notify::new()), mpsc::channel(1000));
    let tell = begun.clone();
    let module = rpc.module("Endless", move |_: Request| {
        let (tell, dropped) = (tell.clone(), Dropped(dropped.clone()));
        async move {
            tell.notify_one();
            let _dropped = dropped;
            std::future::pending().await
        }
    });
    module.unwrap().detach();
    (begun, drops)
}

#[tokio::test]
async fn who_gives_up_has_the_handler_dropped() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (there, _serving) = serving(&pair);
    let (begun, mut dropped) = endless(&there);
    let to = Rpc::new().on(&pair.here);
    // By dropping the future.
    {
        let call = to.call("Endless", json!(null));
        tokio::select! {
            _ = call => panic!("an answer"),
            () = soon(begun.notified()) => {}
        }
    }
    soon(dropped.recv()).await.unwrap();
    // By time.
    let short = to.clone().timeout(Duration::from_millis(50));
    assert_eq!(soon(short.call("Endless", json!(null))).await, Err(CallError::TimedOut));
    soon(dropped.recv()).await.unwrap();
    // By dropping a stream.
    let mut stream = to.stream("Endless", json!(null));
    begun.notified().await;
    tokio::select! {
        _ = stream.next() => panic!("an answer"),
        () = soon(begun.notified()) => {}
    }
    drop(stream);
    soon(dropped.recv()).await.unwrap();
    assert_eq!(soon(to.call_typed("Add", &(1, 1))).await, Ok(2));
}

#[tokio::test]
async fn a_stream_is_sent_as_fast_as_it_is_read() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (there, _serving) = serving(&pair);
    let to = Rpc::new().on(&pair.here);
    let all: Vec<u64> = soon(to.stream("Count", 1000).map(|item| item.unwrap().as_u64().unwrap()).collect()).await;
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    assert_eq!(soon(to.stream("My.Echo.Module", json!({})).count()).await, 1, "one answer is a stream of one");
    let nothing: Vec<_> = soon(to.stream("Nothing", json!({})).collect()).await;
    assert_eq!(nothing, [Err(CallError::UnknownModule)]);

    let (sent, mut sends) = mpsc::channel(1000);
    let module = there.streaming("Watched", move |_, responses: Responses| {
        let sent = sent.clone();
        async move {
            for n in 0..100 {
                responses.send(n).await?;
                sent.send(n).await?;
            }
            Err(Failure::new("at the end"))
        }
    });
    let _module = module.unwrap();
    let mut stream = to.items(8).stream("Watched", json!(null));
    assert_eq!(soon(stream.next()).await, Some(Ok(json!(0))));
    for n in 0..8 {
        assert_eq!(soon(sends.recv()).await, Some(n));
    }
    // The next ones come after a round trip at least, if at all: calls that follow are answered before.
    assert_eq!(soon(to_add(&pair.here)).await, Err(CallError::InUse));
    for n in 1..100 {
        assert_eq!(soon(stream.next()).await, Some(Ok(json!(n))));
        while sends.try_recv().is_ok_and(|sent| sent <= n + 8) {}
    }
    assert_eq!(soon(stream.next()).await, Some(Err(CallError::Failed(Failure::new("at the end")))));
    assert_eq!(soon(stream.next()).await, None);
}

/// A call by somebody else.
async fn to_add(node: &Node) -> Result<i64, CallError> {
    Rpc::new().on(node).call_typed("Add", &(1, 1)).await
}

#[tokio::test]
async fn both_sides_call_each_other_and_many_calls_wait_for_places() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (b, _serving_b) = serving(&pair);
    let a = Rpc::new();
    modules(&a);
    let _serving_a = a.serve(&pair.a.root).unwrap();
    let most = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counting = most.clone();
    let module = b.typed("Slow", move |n: usize, _| {
        let most = counting.clone();
        async move {
            let now = most.0.fetch_add(1, Ordering::SeqCst) + 1;
            most.1.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            most.0.fetch_sub(1, Ordering::SeqCst);
            Ok(n)
        }
    });
    module.unwrap().detach();
    let (to_b, to_a) = (a.on(&pair.here), b.on(&pair.there));
    let there = join_all((0..1000usize).map(|n| to_b.call_typed::<usize>("Slow", Box::leak(Box::new(n)))));
    let back = join_all((0..500i64).map(|n| to_a.call_typed::<i64>("Add", Box::leak(Box::new((n, 1))))));
    let (there, back) = soon(futures_util::future::join(there, back)).await;
    assert!(there.into_iter().enumerate().all(|(n, answer)| answer == Ok(n)));
    assert!(back.into_iter().enumerate().all(|(n, answer)| answer == Ok(n as i64 + 1)));
    assert!((2..=64).contains(&most.1.load(Ordering::SeqCst)), "{most:?}");
    // More than may wait.
    let never = join_all((0..64 + 1024).map(|_| to_b.clone().timeout(Duration::from_millis(300)).call_owned("Never")));
    let refused = join_all((0..10).map(|_| to_b.call("Add", json!([1, 1]))));
    let (never, refused) = soon(futures_util::future::join(never, refused)).await;
    assert!(never.into_iter().all(|answer| answer == Err(CallError::TimedOut)));
    assert!(refused.into_iter().all(|answer| answer == Err(CallError::Busy)));
    assert_eq!(soon(to_b.call_typed("Add", &(1, 1))).await, Ok(2));
}

trait Owned {
    async fn call_owned(self, module: &str) -> Result<Value, CallError>;
}

impl Owned for pmesh::rpc::Target {
    async fn call_owned(self, module: &str) -> Result<Value, CallError> {
        self.call(module, json!(null)).await
    }
}

#[tokio::test]
async fn a_firewall_decides_call_by_call() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let friend = pair.a.root.peer_id();
    let rpc = Rpc::builder()
        .firewall(move |call: &IncomingCall| match call.module() {
            "Panic" => panic!("a firewall that fails"),
            "Never" => Verdict::Ignore,
            "Add" => (call.caller().peer_id() == Some(friend)).into(),
            _ => Verdict::Refuse,
        })
        .build();
    modules(&rpc);
    let _serving = rpc.serve(&pair.b.root).unwrap();
    let to = Rpc::new().on(&pair.here);
    for refused in ["My.Echo.Module", "Panic", "Unknown"] {
        assert_eq!(soon(to.call(refused, json!(null))).await, Err(CallError::Refused));
    }
    let ignored = soon(to.clone().timeout(Duration::from_millis(50)).call("Never", json!(null))).await;
    assert_eq!(ignored, Err(CallError::TimedOut));
    assert_eq!(soon(to.call_typed("Add", &(1, 2))).await, Ok(3));
    let stranger = server.peer().await;
    let (here, _) = stranger.meet(&pair.b).await;
    assert_eq!(soon(Rpc::new().on(&here).call("Add", json!([1, 2]))).await, Err(CallError::Refused));
}

#[tokio::test]
async fn modules_come_and_go() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let rpc = Rpc::builder().modules(2).build();
    let hello = async |_: Request| Ok(json!("hello"));
    let guard = rpc.module("Hello", hello).unwrap();
    assert_eq!(rpc.module("Hello", hello).unwrap_err(), ModuleError::InUse);
    assert_eq!(rpc.module("", hello).unwrap_err(), ModuleError::InvalidName);
    assert_eq!(rpc.module(&"x".repeat(129), hello).unwrap_err(), ModuleError::InvalidName);
    rpc.module(&"x".repeat(128), hello).unwrap().detach();
    assert_eq!(rpc.module("Third", hello).unwrap_err(), ModuleError::TooMany { limit: 2 });
    let _serving = rpc.serve(&pair.b.root).unwrap();
    let to = Rpc::new().on(&pair.here);
    assert_eq!(soon(to.call("Hello", json!(null))).await, Ok(json!("hello")));
    drop(guard);
    assert_eq!(soon(to.call("Hello", json!(null))).await, Err(CallError::UnknownModule));
    let _again = rpc.module("Hello", async |_: Request| Ok(json!("again"))).unwrap();
    assert_eq!(soon(to.call("Hello", json!(null))).await, Ok(json!("again")));
}

#[tokio::test]
async fn calls_end_with_what_they_go_over() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (there, serving) = serving(&pair);
    let (begun, mut dropped) = endless(&there);
    let here = Rpc::new();
    let to = here.on(&pair.here);
    let in_progress = || {
        let to = to.clone();
        tokio::spawn(async move { to.call("Endless", json!(null)).await })
    };
    // A root is served once, and a node has one who calls over it.
    assert_eq!(Rpc::new().serve(&pair.b.root).unwrap_err(), ServeError::InUse);
    assert_eq!(Rpc::new().serve_node(&pair.there, ()).unwrap_err(), ServeError::InUse);

    let call = in_progress();
    soon(begun.notified()).await;
    drop(serving);
    assert_eq!(soon(call).await.unwrap(), Err(CallError::Closed));
    soon(dropped.recv()).await.unwrap();
    assert_eq!(soon(to.call("Add", json!([1, 2]))).await, Err(CallError::Refused));

    let _serving = there.serve_node(&pair.there, String::from("a name")).unwrap();
    let _name =
        there.typed("Name", async |(): (), caller: pmesh::rpc::Caller| Ok(caller.data::<String>().cloned())).unwrap();
    while to.call_typed::<String>("Name", &()).await != Ok("a name".into()) {
        tokio::task::yield_now().await;
    }
    let call = in_progress();
    soon(begun.notified()).await;
    drop((there, _name));
    assert_eq!(soon(call).await.unwrap(), Err(CallError::Closed));
    soon(dropped.recv()).await.unwrap();

    // Another one takes its place.
    let (there, _serving) = soon(async {
        let rpc = Rpc::new();
        modules(&rpc);
        loop {
            if let Ok(serving) = rpc.serve_node(&pair.there, ()) {
                return (rpc, serving);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (begun, mut dropped) = endless(&there);
    soon(async { while to.call_typed::<i64>("Add", &(1, 2)).await != Ok(3) {} }).await;
    let call = in_progress();
    soon(begun.notified()).await;
    soon(pair.there.close()).await;
    assert_eq!(soon(call).await.unwrap(), Err(CallError::Closed));
    soon(dropped.recv()).await.unwrap();
    soon(pair.here.closed()).await;
    assert_eq!(soon(to.call("Add", json!([1, 2]))).await, Err(CallError::NotOpen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_taken_up_to_a_bound_and_small_calls_pass_them() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let (there, _serving) = serving(&pair);
    let to = Rpc::new().on(&pair.here);
    let most = "x".repeat((1 << 20) - 2);
    assert_eq!(soon(to.call("Same", most.clone())).await, Ok(json!(most)));
    let limit = 1 << 20;
    assert_eq!(soon(to.call("Same", format!("{most}x"))).await, Err(CallError::TooLarge { limit }));
    // Small ones are answered while large ones are on their way: those are not parsed here, which takes longer than to send them.
    let _length = there.typed("Length", async |body: Box<RawValue>, _| Ok(body.get().len())).unwrap();
    let raw = RawValue::from_string(json!(most).to_string()).unwrap();
    let mut large = pin!(join_all((0..16).map(|_| to.call_typed::<usize>("Length", &raw))));
    let mut small = 0;
    loop {
        tokio::select! {
            biased;
            all = &mut large => {
                assert!(all.into_iter().all(|answer| answer == Ok(1 << 20)));
                break;
            }
            sum = soon(to.call_typed("Add", &(1, 2))) => {
                assert_eq!(sum, Ok(3));
                small += 1;
            }
        }
    }
    assert!(small >= 10, "only {small} small calls were answered meanwhile");
}

#[tokio::test]
async fn notices_arrive_without_an_answer() {
    let server = Server::start().await;
    let pair = pair(&server).await;
    let rpc = Rpc::new();
    let (tell, mut told) = mpsc::channel(1000);
    let module = rpc.typed("Log", move |line: u32, _| {
        let tell = tell.clone();
        async move { Ok(tell.send(line).await?) }
    });
    module.unwrap().detach();
    let _serving = rpc.serve(&pair.b.root).unwrap();
    let to = Rpc::new().on(&pair.here);
    soon(to.notify("Nothing", "is told")).await.unwrap();
    for line in 0..500 {
        soon(to.notify("Log", line)).await.unwrap();
    }
    let mut lines = Vec::new();
    for _ in 0..500 {
        lines.push(soon(told.recv()).await.unwrap());
    }
    lines.sort_unstable();
    assert_eq!(lines, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn over_a_node_that_a_relay_has_introduced() {
    let server = Server::start().await;
    let (a, b, c) = (server.peer().await, server.peer().await, server.peer().await);
    let (to_b, _) = a.meet(&b).await;
    b.meet(&c).await;
    let rpc = Rpc::new();
    modules(&rpc);
    // Nodes that come later are served too.
    let _serving = rpc.serve(&c.root).unwrap();
    server.stop().await;
    let to_c = soon(to_b.connect(Connect::to(&c.address))).await.unwrap();
    let calls = Rpc::new();
    assert_eq!(soon(calls.on(&to_c).call_typed("Add", &(1, 2))).await, Ok(3));
    // Who has no `Rpc` takes no calls.
    let nobody = calls.on(&to_b).timeout(Duration::from_millis(200));
    assert_eq!(soon(nobody.call("Add", json!([1, 2]))).await, Err(CallError::Unsupported));
}
