//! A network of processes: all join through one that listens, and link with each other over WebRTC. Then a stream goes over three
//! relays; while it does, the relay in the middle is killed, a direct connection comes up, and that goes again. Not a byte may be
//! wrong.
//!
//! ```text
//!            .---- the network ----.          ids: A 000, R1 001, the network 010, R2 100, R3 110, B 111
//! A ---- R1 ---------- R2 ---------- R3 ---- B
//! ```
//!
//! `cargo test --test overlay_soak` has 8 processes and 10 MB; with `-- --full` it has 32 and 100 MB. It ends within two minutes,
//! and all processes with it.

// What the bench has: peers in processes of their own.
#[path = "../benches/overlay/line.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod line;
#[path = "../benches/overlay/peer.rs"]
mod peer;
#[path = "../benches/overlay/pour.rs"]
mod pour;
#[path = "../benches/overlay/process.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod process;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use self::line::{introduce, secret};
use self::process::{Process, Variant};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The argument of a process that is a peer.
const PEER: &str = "peer";
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the relays between the ends, the one in the middle.
const MIDDLE: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--list") {
        // One that is in both lists would count as left out.
        if !has("--ignored") {
            println!("overlay_soak: test");
        }
        return ExitCode::SUCCESS;
    }
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            if has(PEER) {
                return peer::run().await;
            }
            let (processes, bytes) = if has("--full") { (32, 100_000_000) } else { (8, 10_000_000) };
            timeout(PATIENCE, soak(processes, bytes)).await.map_err(|_| "it took too long")?
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay_soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(processes: usize, bytes: u64) -> Result<()> {
    let begin = Instant::now();
    let say = |what: &str| println!("{:6.2} s  {what}", begin.elapsed().as_secs_f64());
    let mut network = vec![Process::start(Variant::WebRtc, secret(0b010), &[], true).await?];
    let url = [network[0].url.clone()];
    let mut chain = Vec::new();
    for (prefix, bootstrap) in [(0b000, &[][..]), (0b001, &url), (0b100, &[]), (0b110, &url), (0b111, &[])] {
        chain.push(Process::start(Variant::WebRtc, secret(prefix), bootstrap, false).await?);
    }
    while network.len() + chain.len() < processes {
        network.push(Process::start(Variant::WebRtc, secret(0b010), &url, true).await?);
    }
    say(&format!("{processes} processes run"));
    greet_all(&mut network).await?;
    let mut links = 0;
    for peer in &mut network {
        links += neighbours(peer).await?.len();
    }
    say(&format!("each reaches three others, {:.1} links each", links as f64 / network.len() as f64));
    introduce(&mut chain).await?;
    for relay in [1, 3] {
        chain[relay].ask(json!({"do": "neighbour", "id": network[0].id}), "neighbour").await?;
    }
    pour(&mut chain, bytes, &say).await
}

/// Each sends to three others, until these confirm it.
async fn greet_all(network: &mut [Process]) -> Result<()> {
    let ids: Vec<_> = network.iter().map(|peer| peer.id).collect();
    for step in [1, 2, 7] {
        for (at, peer) in network.iter_mut().enumerate() {
            peer.command(json!({"do": "greet", "to": ids[(at + step) % ids.len()]})).await?;
        }
        for peer in network.iter_mut() {
            let greeted = peer.event("greeted").await?;
            if !greeted["error"].is_null() {
                return Err(format!("{} did not reach another: {greeted}", peer.id).into());
            }
        }
    }
    Ok(())
}

async fn neighbours(peer: &mut Process) -> Result<Vec<Value>> {
    let answer = peer.ask(json!({"do": "neighbours"}), "neighbours").await?;
    Ok(answer["ids"].as_array().cloned().unwrap_or_default())
}

/// The stream, from the first to the last.
async fn pour(chain: &mut [Process], bytes: u64, say: &impl Fn(&str)) -> Result<()> {
    let [first, .., middle, _, last] = chain else { return Err("too short a chain".into()) };
    let (a, b) = (first.id, last.id);
    let more = json!({"do": "more", "bytes": bytes / 4});
    first.ask(json!({"do": "pour", "to": b}), "pouring").await?;
    first.command(more.clone()).await?;
    first.event("half").await?;
    first.event("poured").await?;
    let relayed = middle.ask(json!({"do": "counters"}), "counters").await?["forwarded"].as_u64();
    if relayed < Some(bytes / 4 / 60_000) {
        return Err(format!("the stream does not go over relay {MIDDLE}: {relayed:?} packets").into());
    }
    say("a quarter went over three relays");
    first.command(more.clone()).await?;
    first.event("half").await?;
    middle.kill().await?;
    say("the relay in the middle is killed");
    first.event("poured").await?;
    say("half went");
    first.command(more.clone()).await?;
    first.event("half").await?;
    last.ask(json!({"do": "connect", "to": a}), "connected").await?;
    first.event("poured").await?;
    first.ask(json!({"do": "neighbour", "id": b}), "neighbour").await?;
    say("three quarters went, there is a direct connection");
    first.command(more).await?;
    first.event("half").await?;
    last.ask(json!({"do": "disconnect", "to": a}), "disconnected").await?;
    say("the direct connection is closed");
    first.event("poured").await?;
    let ended = first.ask(json!({"do": "end"}), "ended").await?;
    say(&format!("{ended}"));
    if ended["exact"] == true { Ok(()) } else { Err("what arrived is not what was sent".into()) }
}
