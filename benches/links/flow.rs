//! Stress of the credit flow between two pmesh peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pmesh::Node;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::options::Options;
use crate::pair::{End, Pair, Reader, Variant};
use crate::{Result, facts};

/// The smallest holds the number of the message and nothing else.
const SIZES: [usize; 4] = [8, 100, 1024, 65_536];

/// Silence after which the link counts as dead.
const DEAD: Duration = Duration::from_secs(20);

/// The windows in which the rate after a pause is looked at, and the part of the full rate that counts as back.
const WINDOW: Duration = Duration::from_millis(50);
const BACK: f64 = 0.8;

pub(crate) async fn run(options: Options) -> Result<()> {
    println!("{}\n", facts::machine()?);
    let (seconds, pause) = (options.seconds.as_secs_f64(), options.pause.as_secs_f64());
    println!(
        "Full rate for {seconds} s, then the reader pauses for {pause} s. It works {:?} for each message.\n",
        options.work
    );
    println!(
        "| message | messages/s | MB/s | longest gap, ms | queued during the pause | memory during it, KB | back at full rate \
         after, ms | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        if options.wants(&size.to_string()) {
            println!("{}", stress(size, &options).await?);
        }
    }
    Ok(())
}

struct Flood {
    stop: Arc<AtomicBool>,
    /// Messages that `send` has taken.
    sent: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Flood {
    fn start(end: End, size: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let task = tokio::spawn(async move {
            let mut body = vec![0_u8; size];
            for number in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                body[..8].copy_from_slice(&number.to_le_bytes());
                end.send(&body).await?;
                count.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, sent, task }
    }
}

/// Reads messages and checks that none is missing.
struct Check {
    reader: Reader,
    next: u64,
    size: usize,
    work: Duration,
}

impl Check {
    async fn read(&mut self) -> Result<()> {
        let message = timeout(DEAD, self.reader.next()).await.map_err(|_| format!("dead after {}", self.next))??;
        self.check(&message)
    }

    fn check(&mut self, message: &Bytes) -> Result<()> {
        let number = message.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if number != Some(self.next) || message.len() != self.size {
            return Err(format!("message {number:?} instead of {}", self.next).into());
        }
        self.next += 1;
        if !self.work.is_zero() {
            let begin = Instant::now();
            while begin.elapsed() < self.work {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Reads for this long, and returns messages per second and the longest gap.
    async fn read_for(&mut self, span: Duration) -> Result<(f64, Duration)> {
        let (begin, first) = (Instant::now(), self.next);
        let (mut last, mut gap) = (begin, Duration::ZERO);
        while last - begin < span {
            self.read().await?;
            let now = Instant::now();
            gap = gap.max(now - last);
            last = now;
        }
        Ok(((self.next - first) as f64 / (last - begin).as_secs_f64(), gap))
    }
}

async fn stress(size: usize, options: &Options) -> Result<String> {
    let pair = Pair::open(Variant::Pmesh, size).await?;
    let End::Tree(sender) = pair.a.clone() else { return Err("no node".into()) };
    let mut check = Check { reader: pair.b.reader(), next: 0, size, work: options.work };
    let flood = Flood::start(pair.a.clone(), size);
    let (rate, gap) = check.read_for(options.seconds).await?;

    let (read, resident) = (check.next, facts::resident_kb());
    tokio::time::sleep(options.pause).await;
    let waiting = flood.sent.load(Ordering::Relaxed) - read;
    let grown = facts::resident_kb().saturating_sub(resident);
    let buffered = sender.buffered();

    let resumed = Instant::now();
    let back = loop {
        let begin = resumed.elapsed();
        let (now, _) = check.read_for(WINDOW).await?;
        if now >= rate * BACK {
            break begin;
        }
        if begin > DEAD {
            return Err(format!("{size} B: {now:.0} messages/s instead of {rate:.0} after the pause").into());
        }
    };
    flood.stop.store(true, Ordering::Relaxed);
    let lost = finish(&mut check, flood, &sender).await?;
    pair.close().await?;
    Ok(format!(
        "| {size} B | {rate:.0} | {:.1} | {:.1} | {waiting} ({buffered} B in the sender) | {grown} | {:.0} | {lost} |",
        rate * size as f64 / 1e6,
        gap.as_secs_f64() * 1e3,
        back.as_secs_f64() * 1e3,
    ))
}

/// Reads the rest, and returns how many messages are missing.
async fn finish(check: &mut Check, flood: Flood, sender: &Node) -> Result<u64> {
    // The sender may wait for room: it ends as this reads.
    while !flood.task.is_finished() || sender.buffered() > 0 {
        if let Ok(message) = timeout(WINDOW, check.reader.next()).await {
            check.check(&message?)?;
        }
    }
    flood.task.await??;
    let sent = flood.sent.load(Ordering::Relaxed);
    while check.next < sent {
        check.read().await?;
    }
    Ok(sent - check.next)
}
