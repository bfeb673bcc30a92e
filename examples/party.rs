//! Alice and Charlie each know only Bob. Bob introduces them, then he and the servers leave, and the two still talk.
//!
//! ```text
//! cargo run --example party
//! ```

use std::error::Error;
use std::time::Duration;

use pmesh::onramp::Onramp;
use pmesh::{Event, Messages, Node, NodeKind, Root};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    timeout(Duration::from_secs(60), party()).await.map_err(|_| "the party did not end within a minute")?
}

async fn party() -> Result<(), Box<dyn Error>> {
    // Alice is at the first onramp, Charlie at the second, Bob at both.
    let (first, second) = (Server::start().await?, Server::start().await?);
    println!("Two onramps are running: {} and {}", first.url, second.url);
    let (alice, bob, charlie) = (peer(), peer(), peer());

    let (charlie_at_alice, alice_at_charlie, ()) = tokio::try_join!(
        alice_joins(&alice, &first.url),
        charlie_joins(&charlie, &second.url),
        bob_joins(&bob, [&first.url, &second.url]),
    )?;
    let mut alice_hears = charlie_at_alice.messages();
    let mut charlie_hears = alice_at_charlie.messages();
    say("Alice", &charlie_at_alice, "Hi, I'm Alice!", &mut charlie_hears).await?;
    say("Charlie", &alice_at_charlie, "Hi, I'm Charlie!", &mut alice_hears).await?;

    println!("The onramps stop, and Bob leaves.");
    let others = [("Alice", alice.peers(), &charlie_at_alice), ("Charlie", charlie.peers(), &alice_at_charlie)];
    first.stop().await?;
    second.stop().await?;
    bob.close().await;
    for (name, peers, friend) in others {
        for node in peers.iter().filter(|node| *node != friend) {
            println!("{name} has lost {}: {}", node.address(), node.closed().await);
        }
    }

    say("Alice", &charlie_at_alice, "Are you still there, Charlie?", &mut charlie_hears).await?;
    say("Charlie", &alice_at_charlie, "Yes, and nobody is between us.", &mut alice_hears).await?;
    alice.close().await;
    charlie.close().await;
    println!("The party is over.");
    Ok(())
}

/// Bob calls everybody whom an onramp announces, welcomes them, and tells them of each other.
async fn bob_joins(root: &Root, urls: [&str; 2]) -> Result<(), Box<dyn Error>> {
    // Messages of all nodes, listened to before there is any.
    let mut messages = root.messages();
    for url in urls {
        root.connect(url).await?;
    }
    let mut guests: Vec<Node> = Vec::new();
    while guests.len() < 2 {
        let (onramp, message) = messages.next().await.ok_or("Bob's root was closed")?;
        let Some(address) = message.as_str().filter(|_| onramp.kind() == NodeKind::WebSocket) else { continue };
        println!("Bob calls {address} via {}", onramp.address());
        let guest = onramp.connect(address).await?;
        guest.send("Welcome to the party, I'm Bob!").await?;
        for other in &guests {
            guest.send(format!("{} is also here.", other.address())).await?;
            other.send(format!("{} is also here.", guest.address())).await?;
        }
        guests.push(guest);
    }
    Ok(())
}

/// Alice waits for a call. When the caller says who else is here, she asks the caller to introduce her.
async fn alice_joins(root: &Root, url: &str) -> Result<Node, Box<dyn Error>> {
    // The node can be had before it is open, so nobody can call before she listens.
    let connecting = root.connect(url);
    let mut callers = connecting.node().connections();
    connecting.await?;
    let bob = callers.next().await.ok_or("the onramp left before anybody called Alice")?;
    let mut messages = bob.messages();
    while let Some(message) = messages.next().await {
        let text = message.as_str().unwrap_or_default();
        println!("Alice hears: {text}");
        if let Some(address) = text.strip_suffix(" is also here.") {
            println!("Alice calls {address} via Bob");
            return Ok(bob.connect(address).await?);
        }
    }
    Err("Bob left before he said who is here".into())
}

/// Charlie only waits: for Bob, who comes via the onramp, and for whom Bob introduces.
async fn charlie_joins(root: &Root, url: &str) -> Result<Node, Box<dyn Error>> {
    let mut events = root.events();
    root.connect(url).await?;
    while let Some(event) = events.next().await {
        let Event::Connection { node, via: Some(via) } = event else { continue };
        println!("Charlie is called by {} via {}", node.address(), via.address());
        if via.kind() == NodeKind::WebRtc {
            node.opened().await?;
            return Ok(node);
        }
    }
    Err("nobody was introduced to Charlie".into())
}

/// Sends a text to the node, and waits until the other side hears it.
async fn say(name: &str, to: &Node, text: &str, other_side: &mut Messages) -> Result<(), Box<dyn Error>> {
    println!("{name} says: {text}");
    to.send(text).await?;
    let heard = other_side.next().await.ok_or("the other side is gone")?;
    println!("The other hears: {}", heard.as_str().unwrap_or_default());
    if heard.as_str() == Some(text) { Ok(()) } else { Err("something else was heard".into()) }
}

/// A peer that finds others on this machine.
fn peer() -> Root {
    Root::builder().loopback(true).mdns(false).build()
}

/// An onramp that runs in the background.
struct Server {
    url: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let onramp = Onramp::bind("127.0.0.1:0").await?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self { url: onramp.url(), stop, running: tokio::spawn(onramp.run(stopped)) })
    }

    async fn stop(self) -> Result<(), Box<dyn Error>> {
        drop(self.stop);
        Ok(self.running.await?)
    }
}
