//! A file goes from one peer to another over a third, which can neither read nor alter it.
//!
//! The two know nothing of each other but the id of the receiver, and where the third one listens. The stream starts over the third,
//! and takes the direct connection as soon as there is one. For the shell there is `pmesh send`.
//!
//! Run it with `cargo run --example file_transfer [FILE]`; without a file it makes one up.

use std::error::Error;
use std::time::Duration;

use pmesh::Root;
use pmesh::overlay::Overlay;
use pmesh::overlay::stream::Listener;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVICE: &str = "file";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = match std::env::args().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => vec![7; 10_000_000],
    };
    let (middle, sender, receiver) = (root(), root(), root());
    let middle = Overlay::builder(&middle).listen("127.0.0.1:0".parse()?).start().await?;
    let url = format!("ws://{}", middle.local_addr().ok_or("it listens")?);
    let receiver = Overlay::builder(&receiver).bootstrap(&url).start().await?;
    let sender = Overlay::builder(&sender).bootstrap(&url).start().await?;
    receiver.neighbour(&middle.id()).await;
    sender.neighbour(&middle.id()).await;
    let receiving = tokio::spawn(receive(receiver.listen(SERVICE)?));

    let mut stream = sender.dial(receiver.id(), SERVICE).await?;
    stream.write_all(&file).await?;
    stream.delivered().await?;
    println!("sent:     {} bytes, SHA-256 {}", file.len(), digest(&file));
    let received = tokio::time::timeout(Duration::from_secs(60), receiving).await???;
    println!("received: {} bytes, SHA-256 {}", received.len(), digest(&received));
    println!("the one in the middle has passed on {} messages", middle.counters().forwarded);
    for overlay in [sender, receiver, middle] {
        overlay.close().await;
    }
    Ok(())
}

fn root() -> Root {
    Root::builder().loopback(true).build()
}

async fn receive(mut listener: Listener) -> Result<Vec<u8>, std::io::Error> {
    let Some(mut stream) = listener.accept().await else { return Ok(Vec::new()) };
    println!("{} sends a file", stream.peer_id());
    let mut file = Vec::new();
    stream.read_to_end(&mut file).await?;
    Ok(file)
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
