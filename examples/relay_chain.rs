//! Five peers in a line, each of which knows only those beside it. A message goes from one end to the other over all of them.
//!
//! ```text
//! cargo run --example relay_chain
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use pmesh::overlay::{Overlay, OverlayId};
use pmesh::{Identity, Offer, Root};
use serde_json::json;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// How the ids of the peers begin, in bits. Along the line each is closer to the end than the one before (by XOR, as Kademlia sees
/// it), and on the way back closer to the beginning. In a network with more links no such order is needed.
const BEGINNINGS: [u8; 5] = [0b0000, 0b0001, 0b0011, 0b0111, 0b1111];

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    timeout(PATIENCE, chain()).await?
}

async fn chain() -> Result<(), Box<dyn Error>> {
    let mut line: Vec<Overlay> = Vec::new();
    for beginning in BEGINNINGS {
        // Who refuses all offers gets no direct connections, so the line stays a line.
        let root = Root::builder().identity(identity(beginning)).firewall(|_: &Offer| false).build();
        let builder = Overlay::builder(&root).listen("127.0.0.1:0".parse()?);
        let builder = match line.last().and_then(Overlay::local_addr) {
            Some(before) => builder.bootstrap(format!("ws://{before}")),
            None => builder,
        };
        line.push(builder.start().await?);
    }
    for (at, overlay) in line.iter().enumerate() {
        let beside = if at == 0 || at == line.len() - 1 { 1 } else { 2 };
        let mut events = overlay.events();
        while overlay.neighbours().len() < beside {
            events.next().await.ok_or("the overlay is closed")?;
        }
        println!("{} has {beside} neighbour{}", overlay.id(), if beside == 1 { "" } else { "s" });
    }
    let [first, .., last] = &line[..] else { return Err("the line is too short".into()) };

    // Each takes a message there, and its confirmation back. Before the first the other end is asked for its key, and new peers have
    // other things to tell each other too.
    let mut messages = last.messages();
    for round in 1..=3 {
        let before: Vec<u64> = line.iter().map(|overlay| overlay.counters().forwarded).collect();
        let started = Instant::now();
        first.send_confirmed(last.id(), json!({"round": round}), PATIENCE).await?;
        let took = started.elapsed();
        let message = messages.next().await.ok_or("the overlay is closed")?;
        println!("{:?} of {} is at the other end, confirmed in {took:.1?}", message.message, message.from);
        for (overlay, before) in line.iter().zip(before) {
            let forwarded = overlay.counters().forwarded - before;
            if forwarded > 0 {
                println!("  {} has passed on {forwarded} messages", overlay.id());
            }
        }
    }
    for overlay in &line {
        overlay.close().await;
        overlay.root().close().await;
    }
    Ok(())
}

/// A key whose id begins with these four bits.
fn identity(beginning: u8) -> Identity {
    loop {
        let identity = Identity::generate();
        if OverlayId::of(&identity.peer_id()).as_bytes()[0] >> 4 == beginning {
            return identity;
        }
    }
}
