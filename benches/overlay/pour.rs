//! A stream whose bytes are checked: what goes in at one end must come out at the other.

use std::time::{Duration, Instant};

use pmesh::overlay::stream::{Listener, Stream};
use pmesh::overlay::{Overlay, OverlayId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Result;

/// The service that reads a stream to its end, and says what it was.
pub(crate) const CHECKED: &str = "checked";
const CHUNK: usize = 64 * 1024;

/// The end that writes.
pub(crate) struct Pour {
    stream: Stream,
    rng: SmallRng,
    hash: Sha256,
    bytes: u64,
}

impl Pour {
    pub(crate) async fn dial(overlay: &Overlay, to: OverlayId) -> Result<Self> {
        let stream = overlay.dial(to, CHECKED).await?;
        Ok(Self { stream, rng: SmallRng::seed_from_u64(1), hash: Sha256::new(), bytes: 0 })
    }

    /// Writes so many bytes, and says when half of them are written.
    pub(crate) async fn write(&mut self, bytes: u64) -> Result<()> {
        let (mut left, mut chunk) = (bytes, vec![0; CHUNK]);
        while left > 0 {
            let some = left.min(CHUNK as u64);
            if left > bytes / 2 && left - some <= bytes / 2 {
                println!("{}", json!({"event": "half"}));
            }
            let chunk = &mut chunk[..some as usize];
            self.rng.fill_bytes(chunk);
            self.hash.update(&*chunk);
            self.stream.write_all(chunk).await?;
            left -= some;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Ends it, and tells whether the other end has got the same.
    pub(crate) async fn end(mut self) -> Result<Value> {
        self.stream.shutdown().await?;
        let bytes = self.stream.read_u64().await?;
        let mut theirs = [0; 32];
        self.stream.read_exact(&mut theirs).await?;
        let pause = self.stream.read_u64().await?;
        let exact = bytes == self.bytes && theirs[..] == self.hash.finalize()[..];
        let hash = data_encoding::HEXLOWER.encode(&theirs);
        Ok(json!({"event": "ended", "exact": exact, "bytes": bytes, "sha256": hash, "pause_ms": pause}))
    }
}

/// The ends that read.
pub(crate) async fn check(mut listener: Listener) {
    while let Some(stream) = listener.accept().await {
        // A stream that breaks is noticed at its other end.
        tokio::spawn(async move { read(stream).await.ok() });
    }
}

async fn read(mut stream: Stream) -> Result<()> {
    let (mut buffer, mut bytes, mut hash) = (vec![0; CHUNK], 0, Sha256::new());
    let (mut last, mut pause) = (Instant::now(), Duration::ZERO);
    loop {
        let some = stream.read(&mut buffer).await?;
        pause = pause.max(last.elapsed());
        if some == 0 {
            break;
        }
        hash.update(&buffer[..some]);
        bytes += some as u64;
        last = Instant::now();
    }
    stream.write_u64(bytes).await?;
    stream.write_all(&hash.finalize()).await?;
    stream.write_u64(pause.as_millis() as u64).await?;
    stream.shutdown().await?;
    Ok(())
}
