//! `pmesh send` and `pmesh receive`: files over an overlay.

mod places;
mod protocol;
mod receive;
mod send;

pub(crate) use receive::run as receive;
pub(crate) use send::run as send;

use std::io;
use std::time::Duration;

use pmesh::overlay::stream::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use self::protocol::{MAX_MESSAGE, Wrong};
use crate::mesh::Result;
use crate::reason::of_break;

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// How long the other side may be silent in the middle. A way that breaks is replaced sooner.
const SILENCE: Duration = Duration::from_secs(20);

/// Bytes that a slow machine reads and hashes, or brings to its disk, in a second.
const SLOW: u64 = 10_000_000;

/// How long the other side may be silent while it works on so many bytes.
fn patience(bytes: u64) -> Duration {
    SILENCE + Duration::from_secs(bytes / SLOW)
}

async fn say(stream: &mut Stream, message: &impl Serialize) -> Result<()> {
    let written = stream.write_all(&protocol::encode(message)?).await;
    Ok(written.map_err(|error| broken(&error))?)
}

/// The next message of the other side.
async fn hear<T: DeserializeOwned>(stream: &mut Stream, time: Duration) -> Result<T> {
    let message = async {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_MESSAGE {
            return Ok(None);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        io::Result::Ok(Some(body))
    };
    let heard = tokio::time::timeout(time, message).await.map_err(|_| "the other side is silent")?;
    let body = heard.map_err(|error| broken(&error))?.ok_or(Wrong::Message)?;
    Ok(protocol::decode(&body)?)
}

fn broken(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Wrong::Missing.to_string();
    }
    format!("{}: {}", Wrong::Missing, of_break(error))
}

/// Hashes the next so many bytes, or fails if there are less.
async fn hash(file: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<Sha256> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut buffer[..length]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..read]);
        left -= read as u64;
    }
    Ok(hasher)
}
