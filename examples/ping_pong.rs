//! Two peers meet at an onramp and play five rounds of ping-pong.
//!
//! ```text
//! cargo run --example ping_pong
//! cargo run --example ping_pong -- --onramp ws://localhost:20500
//! ```
//!
//! Without `--onramp` the program starts an onramp of its own.

use std::error::Error;
use std::time::{Duration, Instant};

use pmesh::onramp::Onramp;
use pmesh::{Connect, Node, Offer, Root};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_stream::StreamExt;

const ROUNDS: u32 = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--onramp"), Some(url)) => game(&url).await,
        (None, _) => {
            let onramp = Onramp::bind("127.0.0.1:0").await?;
            let url = onramp.url();
            let (stop, stopped) = oneshot::channel::<()>();
            let running = tokio::spawn(onramp.run(stopped));
            game(&url).await?;
            drop(stop);
            Ok(running.await?)
        }
        _ => Err("usage: ping_pong [--onramp URL]".into()),
    }
}

async fn game(url: &str) -> Result<(), Box<dyn Error>> {
    println!("Ping and Pong go to the onramp {url}");
    // Pong lets in only who names this game in the offer data.
    let game = uuid::Uuid::new_v4().to_string();
    let expected = json!({"game": game});
    let pong = builder().firewall(move |offer: &Offer| *offer.data() == expected).build();
    let ping = builder().build();
    tokio::try_join!(play_ping(&ping, url, &game), play_pong(&pong, url))?;
    ping.close().await;
    pong.close().await;
    Ok(())
}

/// Calls everybody whom the onramp announces, until one plays.
async fn play_ping(root: &Root, url: &str, game: &str) -> Result<(), Box<dyn Error>> {
    let onramp = root.connect(url).await?;
    let mut announced = onramp.messages();
    while let Some(message) = announced.next().await {
        let Some(address) = message.as_str() else { continue };
        println!("Ping calls {address}");
        let call = Connect::to(address).offer_data(json!({"game": game})).timeout(Duration::from_secs(5));
        let peer = match onramp.connect(call).await {
            Ok(peer) => peer,
            Err(error) => {
                println!("Ping got no connection: {error}");
                continue;
            }
        };
        // Somebody else at this onramp may accept every call and not know the game.
        match timeout(Duration::from_secs(5), rounds(&peer)).await {
            Ok(result) => return result,
            Err(_) => println!("Ping got no answer from {address}"),
        }
        peer.close().await;
    }
    Err("the onramp is gone".into())
}

async fn rounds(peer: &Node) -> Result<(), Box<dyn Error>> {
    let mut messages = peer.messages();
    for round in 1..=ROUNDS {
        let started = Instant::now();
        peer.send(json!({"ping": round})).await?;
        let answer = messages.next().await.ok_or("Pong is gone")?;
        let took = started.elapsed();
        if answer != json!({"pong": round}).into() {
            return Err(format!("that is no pong: {answer:?}").into());
        }
        println!("round {round}: ping and pong in {took:.1?}");
    }
    println!("Ping closes the connection: {}", peer.close().await);
    Ok(())
}

/// Waits for a call, and answers pings until the caller closes.
async fn play_pong(root: &Root, url: &str) -> Result<(), Box<dyn Error>> {
    let connecting = root.connect(url);
    let mut callers = connecting.node().connections();
    connecting.await?;
    let caller = callers.next().await.ok_or("the onramp is gone")?;
    println!("Pong is called by {}", caller.address());
    let mut messages = caller.messages();
    while let Some(message) = messages.next().await {
        let round = message.as_json().map(|json| &json["ping"]);
        caller.send(json!({"pong": round})).await?;
    }
    println!("Pong's connection is over: {}", caller.closed().await);
    Ok(())
}

/// Settings of a peer that finds others on this machine.
fn builder() -> pmesh::RootBuilder {
    Root::builder().loopback(true).mdns(false)
}
