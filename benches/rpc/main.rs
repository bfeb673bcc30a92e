//! How long calls take, and how many there are in a second: over one WebRTC node on this machine, and over the overlay.
//!
//! `cargo bench --bench rpc`. With `--quick` only whether it runs.

#[path = "../common/figures.rs"]
#[allow(dead_code, reason = "this bench uses a part of it")]
mod figures;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::onramp::Onramp;
use pmesh::overlay::Overlay;
use pmesh::rpc::{Request, Responses, Rpc, Target};
use pmesh::{Node, Root, RootBuilder};
use serde_json::{Value, json};

use figures::percentile;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How often each is done.
struct Counts {
    one_by_one: usize,
    at_once: usize,
    items: u64,
    large: usize,
}

fn builder() -> RootBuilder {
    Root::builder().bind([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).mdns(false)
}

fn modules(rpc: &Rpc) -> Result<()> {
    rpc.module("Same", async |request: Request| Ok(request.into_body()))?.detach();
    rpc.streaming("Count", async |request: Request, responses: Responses| {
        for n in 0..request.body().as_u64().unwrap_or_default() {
            responses.send(n).await?;
        }
        Ok(())
    })?
    .detach();
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let counts = if quick {
        Counts { one_by_one: 50, at_once: 200, items: 200, large: 1 }
    } else {
        Counts { one_by_one: 5_000, at_once: 100_000, items: 200_000, large: 100 }
    };
    over_a_node(&counts).await?;
    over_the_overlay(&counts).await
}

async fn over_a_node(counts: &Counts) -> Result<()> {
    let onramp = Onramp::builder().announce(false).bind("127.0.0.1:0").await?;
    let url = onramp.url();
    let server = tokio::spawn(onramp.run(std::future::pending::<()>()));
    let (a, b) = (builder().build(), builder().build());
    let (at_a, at_b) = (a.connect(&url).await?, b.connect(&url).await?);
    let mut callers = at_b.connections();
    let here = at_a.connect(at_b.own_address().ok_or("no address")?).await?;
    let there = callers.next().await.ok_or("nobody called")?;
    there.opened().await?;

    let rpc = Rpc::new();
    modules(&rpc)?;
    let _serving = rpc.serve(&b)?;
    let to = Rpc::new().on(&here);
    // In turns, so that both have the same from the machine.
    let (mut pings, mut calls) = (Vec::new(), Vec::new());
    let echo = tokio::spawn(async move { echo(there).await.expect("the channel lasts") });
    for _ in 0..10 {
        pings.extend(ping(&here, counts.one_by_one / 10).await?);
        calls.extend(one_by_one(&to, counts.one_by_one / 10).await?);
    }
    show("ping over a channel", pings);
    show("call over a node", calls);
    rates(&to, counts).await?;
    mixed(&to, counts).await?;
    echo.abort();
    server.abort();
    Ok(())
}

async fn over_the_overlay(counts: &Counts) -> Result<()> {
    let start = async |at: Option<String>| {
        let root = builder().build();
        // Over the relay, not directly.
        let here = Overlay::builder(&root).listen("127.0.0.1:0".parse()?).make_links(false).connect_for_streams(false);
        Result::Ok(at.into_iter().fold(here, |here, at| here.bootstrap(at)).start().await?)
    };
    let relay = start(None).await?;
    let url = relay.local_addr().map(|at| format!("ws://{at}"));
    let (b, c) = (start(url.clone()).await?, start(url).await?);
    b.neighbour(&relay.id()).await;
    c.neighbour(&relay.id()).await;
    let rpc = Rpc::new();
    modules(&rpc)?;
    let _serving = rpc.serve_overlay(&c)?;
    let to = Rpc::new().over(&b, c.id());
    let begun = Instant::now();
    to.call("Same", json!(0)).await?;
    println!("first call over an overlay with one relay: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    show("call over an overlay with one relay", one_by_one(&to, counts.one_by_one).await?);
    rates(&to, counts).await?;
    mixed(&to, counts).await
}

async fn echo(node: Node) -> Result<()> {
    let channel = node.channel("ping")?;
    let mut messages = channel.messages();
    while let Some(message) = messages.next().await {
        channel.send(message).await?;
    }
    Ok(())
}

async fn ping(node: &Node, count: usize) -> Result<Vec<f64>> {
    let channel = node.channel("ping")?;
    let mut messages = channel.messages();
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        let begun = Instant::now();
        channel.send(json!({ "text": n })).await?;
        messages.next().await.ok_or("the channel is closed")?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

async fn one_by_one(to: &Target, count: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        let begun = Instant::now();
        to.call("Same", json!({ "text": n })).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Many calls at once, and a stream.
async fn rates(to: &Target, counts: &Counts) -> Result<()> {
    let begun = Instant::now();
    let workers = (0..64).map(|_| one_by_one(to, counts.at_once / 64));
    for times in join_all(workers).await {
        times?;
    }
    println!("64 at once: {:.0} calls/s", (counts.at_once / 64 * 64) as f64 / begun.elapsed().as_secs_f64());
    for items in [16, 256] {
        let begun = Instant::now();
        let stream = to.clone().items(items).stream("Count", counts.items);
        let count = stream.fold(0, async |count, item| count + u64::from(item.is_ok())).await;
        if count != counts.items {
            return Err("items are missing".into());
        }
        println!("a stream, {items} on their way: {:.0} items/s", count as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Small calls while 8 of 1 MB each go to and fro.
async fn mixed(to: &Target, counts: &Counts) -> Result<()> {
    let body = Value::from("x".repeat(1_000_000));
    let begun = Instant::now();
    let large = join_all((0..8).map(async |_| {
        for _ in 0..counts.large {
            to.call("Same", body.clone()).await?;
        }
        Result::Ok(())
    }));
    let mut large = std::pin::pin!(large);
    let mut times = Vec::new();
    let all = loop {
        tokio::select! {
            all = &mut large => break all,
            small = one_by_one(to, 1) => times.extend(small?),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    all.into_iter().collect::<Result<Vec<()>>>()?;
    let rate = (8 * counts.large) as f64 * 2.0 / begun.elapsed().as_secs_f64();
    show(&format!("small call while large ones go at {rate:.0} MB/s to and fro"), times);
    Ok(())
}

fn show(what: &str, mut micros: Vec<f64>) {
    micros.sort_by(f64::total_cmp);
    println!(
        "{what}: p50 {:.0} µs, p99 {:.0} µs, {} times",
        percentile(&micros, 50),
        percentile(&micros, 99),
        micros.len()
    );
}
