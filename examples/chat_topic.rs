//! A chat room without a server: a topic of the overlay. Any peer that listens is a way in.
//!
//! ```text
//! cargo run --example chat_topic -- --listen 127.0.0.1:20600
//! cargo run --example chat_topic -- --bootstrap ws://127.0.0.1:20600
//! ```
//!
//! Each line of standard input is a message. The program ends with its input.

use std::error::Error;

use pmesh::overlay::{Overlay, OverlayBuilder, TopicMessages};
use pmesh::{Message, Root};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio_stream::StreamExt;

const ROOM: &str = "the room of the example chat_topic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let overlay = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => peer().listen("127.0.0.1:0".parse()?),
        (Some("--listen"), Some(address)) => peer().listen(address.parse()?),
        (Some("--bootstrap"), Some(url)) => peer().bootstrap(url),
        _ => return Err("usage: chat_topic [--listen ADDRESS | --bootstrap URL]".into()),
    };
    let overlay = overlay.start().await?;
    println!("You are {}.", overlay.id());
    if let Some(address) = overlay.local_addr() {
        println!("Others come in by: --bootstrap ws://{address}");
    }
    chat(&overlay, BufReader::new(tokio::io::stdin())).await?;
    overlay.close().await;
    Ok(())
}

/// Says every line of the input, and prints what others say, until the input ends.
async fn chat(overlay: &Overlay, input: impl AsyncBufRead + Unpin) -> Result<(), Box<dyn Error>> {
    let room = overlay.topic(ROOM)?;
    let mut messages = room.messages();
    let mut lines = input.lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => if let Err(error) = room.broadcast(line).await {
                    println!("That was not sent: {error}");
                },
                None => return Ok(()),
            },
            heard = hear(&mut messages) => println!("{}", heard.ok_or("the overlay is closed")?),
        }
    }
}

/// What is said next, as it is to be printed.
async fn hear(messages: &mut TopicMessages) -> Option<String> {
    Some(match messages.next().await? {
        Ok(said) => {
            let name = &said.origin.to_string()[..8];
            match said.message {
                Message::Json(text) => format!("{name}: {}", text.as_str().unwrap_or("(no text)")),
                Message::Binary(bytes) => format!("{name}: ({} bytes)", bytes.len()),
            }
        }
        Err(lagged) => lagged.to_string(),
    })
}

/// A peer that finds others on this machine too.
fn peer() -> OverlayBuilder {
    Overlay::builder(&Root::builder().loopback(true).mdns(false).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_says_the_other_hears() -> Result<(), Box<dyn Error>> {
        let first = peer().listen("127.0.0.1:0".parse()?).start().await?;
        let address = first.local_addr().ok_or("it listens")?;
        let second = peer().bootstrap(format!("ws://{address}")).start().await?;
        let room = first.topic(ROOM)?;
        let mut messages = room.messages();
        // The input does not end before the room has heard it.
        let (mut keyboard, input) = tokio::io::duplex(100);
        tokio::io::AsyncWriteExt::write_all(&mut keyboard, b"Hello!\n").await?;
        let heard = async {
            let heard = hear(&mut messages).await;
            drop(keyboard);
            heard
        };
        let (chatted, heard) = tokio::join!(chat(&second, BufReader::new(input)), heard);
        chatted?;
        assert_eq!(heard, Some(format!("{}: Hello!", &second.id().to_string()[..8])));
        second.close().await;
        first.close().await;
        Ok(())
    }
}
