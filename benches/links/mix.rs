//! Small messages on a channel beside huge ones on the main one.

use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::Result;
use crate::figures::percentile;
use crate::report::{Better, Sample};
use crate::tree::TreePair;

/// The huge messages.
const HUGE_BYTES: usize = 64 << 20;

/// The small ones.
const SMALL_BYTES: usize = 64;

/// Pause between two small messages.
const PACE: Duration = Duration::from_millis(1);

/// How long small messages are on their way while so many huge ones are.
pub(crate) async fn run(count: usize) -> Result<Vec<Sample>> {
    let tree = TreePair::with_messages_of(HUGE_BYTES).await?;
    let (a, b) = tree.connect().await?;
    let (here, there) = (a.channel("small")?, b.channel("small")?);
    let start = Instant::now();
    let reading = tokio::spawn(async move {
        let mut messages = there.binaries();
        let mut times = Vec::new();
        while let Some(message) = messages.next().await {
            let sent = Duration::from_nanos(u64::from_be_bytes(message[..8].try_into()?));
            times.push((start.elapsed() - sent).as_secs_f64() * 1e3);
        }
        Result::Ok(times)
    });
    let sending = tokio::spawn(async move {
        let body = bytes::Bytes::from(vec![7; HUGE_BYTES]);
        for _ in 0..count {
            a.send(body.clone()).await?;
        }
        Result::Ok(())
    });
    let huge = async {
        let mut messages = b.binaries();
        for _ in 0..count {
            messages.next().await.ok_or("the node is closed")?;
        }
        Result::Ok(start.elapsed())
    };
    let small = async {
        let mut tick = tokio::time::interval(PACE);
        loop {
            tick.tick().await;
            let mut body = vec![0; SMALL_BYTES];
            body[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
            here.send(body).await?;
        }
    };
    let elapsed = tokio::select! {
        elapsed = huge => elapsed?,
        failed = small => return failed,
    };
    sending.await??;
    here.close().await;
    let mut times = reading.await??;
    tree.close().await?;
    times.sort_by(f64::total_cmp);
    let sample = |percent| {
        let what = format!("64 B beside 64 MiB on another channel, p{percent}, ms");
        Sample::new(what, percentile(&times, percent), Better::Lower)
    };
    let rate = (count * HUGE_BYTES) as f64 / elapsed.as_secs_f64() / 1e6;
    Ok(vec![sample(50), sample(99), Sample::new("64 MiB messages beside them, MB/s", rate, Better::Higher)])
}
