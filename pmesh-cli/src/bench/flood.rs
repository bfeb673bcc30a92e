//! Messages of one size for some time: how many come.

use std::time::{Duration, Instant};

use pmesh::{Message, Messages, Node};
use serde::{Deserialize, Serialize};

use super::{Done, PATIENCE, Result, json, next};

/// What has come of a flood, after its first message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// From the first message to the end.
    pub(super) seconds: f64,
}

/// Sends for so long. Each message has a buffer of its own, as an application's would have.
pub(super) async fn give(node: &Node, size: usize, span: Duration) -> Result<()> {
    let body = vec![7_u8; size];
    let begin = Instant::now();
    while begin.elapsed() < span {
        // To read the clock for each message would take part in what is measured when they are small.
        for _ in 0..1 + 4096 / size.max(1) {
            node.send(body.as_slice()).await?;
        }
    }
    node.send(json(Done::Done)?).await?;
    Ok(())
}

/// Counts what comes, up to its end.
pub(super) async fn take(messages: &mut Messages, span: Duration) -> Result<Taken> {
    let first = next(messages, PATIENCE).await?;
    let begin = Instant::now();
    let mut taken = Taken { messages: 0, bytes: 0, seconds: 0.0 };
    if matches!(first, Message::Json(_)) {
        return Err("the other end sends no flood".into());
    }
    loop {
        match next(messages, PATIENCE).await? {
            Message::Binary(bytes) => {
                taken.messages += 1;
                taken.bytes += bytes.len() as u64;
            }
            Message::Json(_) => break,
        }
        // What is queued comes late, over a slow path.
        if taken.messages.is_multiple_of(1024) && begin.elapsed() > span + 6 * PATIENCE {
            return Err("the flood does not end".into());
        }
    }
    taken.seconds = begin.elapsed().as_secs_f64();
    Ok(taken)
}
