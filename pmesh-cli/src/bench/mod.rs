//! `pmesh bench`: what the connection between two machines can do.
//!
//! The end that measures calls the one that waits, which first says [`HELLO`]. Then it asks, one question after the
//! other: to take a flood and say what came, to send one, to echo, to close. Floods go on for a fixed time; who gets one
//! counts it.

mod flood;
mod measure;
mod report;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::{Message, Messages};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::args::BenchArgs;
use crate::mesh::{self, Result};
use crate::output::print_blocking;

/// The offer data by which the two ends know each other, and the first message of the one that waits.
const HELLO: &str = "pmesh bench 1";

/// How long the other end may be silent longer than it should.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest message of a flood, in bytes. The end that waits refuses to send larger ones.
const MAX_SIZE: usize = 64 * 1024;

/// Longest flood. The end that waits refuses a longer one.
const MAX_FLOOD: Duration = Duration::from_secs(86_400);

/// What the end that waits is asked. Each is answered but `Close` and `End`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
enum Ask {
    /// Count the binary messages that follow, up to [`Done`], and answer with [`Taken`](flood::Taken).
    Take { millis: u64 },
    /// Send binary messages of this size for this time, then [`Done`].
    Give { size: usize, millis: u64 },
    /// Close, so that the next call is a new connection.
    Close,
    /// Everything is measured.
    End,
}

/// The end of a flood.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Done {
    #[serde(rename = "done")]
    Done,
}

/// Runs one end until everything is measured.
pub(crate) async fn run(args: BenchArgs) -> ExitCode {
    let done = match (&args.listen, &args.connect) {
        (Some(place), _) => wait::run(place, &args).await,
        (_, Some(url)) => measure::run(url, &args).await,
        (None, None) => Err("either --listen or --connect".into()),
    };
    if let Err(error) = &done
        && args.json
    {
        let _ = print_blocking(serde_json::json!({"event": "error", "message": error.to_string()}));
    }
    mesh::exit("bench", done)
}

/// The next message, which must come within the time.
async fn next(messages: &mut Messages, within: Duration) -> Result<Message> {
    match timeout(within, messages.next()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err("the connection is lost".into()),
        Err(_) => Err(format!("nothing has come from the other end for {within:?}").into()),
    }
}

/// The next message as this type.
async fn answer<T: for<'de> Deserialize<'de>>(messages: &mut Messages, within: Duration) -> Result<T> {
    match next(messages, within).await? {
        Message::Json(value) => Ok(serde_json::from_value(value)?),
        Message::Binary(_) => Err("the other end sends something else than an answer".into()),
    }
}

fn json(value: impl Serialize) -> Result<Message> {
    Ok(Message::Json(serde_json::to_value(value)?))
}
