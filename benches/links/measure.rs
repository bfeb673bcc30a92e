//! The measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::alone::Alone;
use crate::figures::percentile;
use crate::pair::{Pair, Reader, Variant};
use crate::report::{Better, Sample};
use crate::tree::TreePair;
use crate::{Result, bare, facts, mix};

/// Silence after which a link counts as dead.
const DEAD: Duration = Duration::from_secs(10);

/// Pause after which a link with nothing left to send counts as drained.
const QUIET: Duration = Duration::from_millis(50);

/// Connects that one pair of peers makes: a peer takes no more offers at once from one introducer than 256.
const OFFERS_AT_ONCE: usize = 200;

/// One kind of measurement, and how much of it.
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    /// Most rounds in which it is run.
    pub(crate) rounds: usize,
    /// Whether only pmesh has what is measured.
    pub(crate) own: bool,
    what: What,
}

enum What {
    Flood { size: usize, warm: Duration, span: Duration, per_second: bool },
    RoundTrip { count: usize },
    Connect { count: usize },
    Alone { what: Alone, row: &'static str },
    Mix { count: usize },
}

impl Measurement {
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        let ms = Duration::from_millis;
        let (warm, span) = if quick { (ms(50), ms(200)) } else { (ms(300), ms(1500)) };
        let count = |full: usize, smoke: usize| if quick { smoke } else { full };
        let every = usize::MAX;
        let flood = |size, per_second| What::Flood { size, warm, span, per_second };
        let alone = |name, rounds, what, row| Self { name, rounds, own: false, what: What::Alone { what, row } };
        let mut all = vec![
            Self { name: "64k", rounds: every, own: false, what: flood(65_536, false) },
            Self { name: "16k", rounds: every, own: false, what: flood(16_384, false) },
            Self { name: "100b", rounds: every, own: false, what: flood(100, true) },
            Self { name: "rtt", rounds: every, own: false, what: What::RoundTrip { count: count(5_000, 200) } },
            Self { name: "connect", rounds: 1, own: false, what: What::Connect { count: count(300, 5) } },
            alone("memory", 3, Alone::Memory { pairs: count(50, 3) }, "memory of an idle pair, KB"),
            alone("stall", 3, Alone::Stall { message: 65_536 }, "memory of a flood to a reader that stopped, MB"),
            Self { name: "mix", rounds: every, own: true, what: What::Mix { count: count(10, 1) } },
        ];
        if !quick {
            // Takes half a minute each.
            all.push(alone("idle", 1, Alone::Idle { pairs: 100 }, "CPU of 100 idle pairs, % of a core"));
        }
        all
    }

    pub(crate) async fn run(&self, variant: Variant) -> Result<Vec<Sample>> {
        match self.what {
            What::Flood { size, warm, span, per_second } => flood(variant, size, warm, span, per_second).await,
            What::RoundTrip { count } => round_trip(variant, count).await,
            What::Connect { count } => connect(variant, count).await,
            What::Mix { count } => mix::run(count).await,
            What::Alone { what, row } => Ok(vec![Sample::new(row, what.run(variant).await?, Better::Lower)]),
        }
    }
}

async fn flood(variant: Variant, size: usize, warm: Duration, span: Duration, per_second: bool) -> Result<Vec<Sample>> {
    let pair = Pair::open(variant, size).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, stopped) = (pair.a.clone(), stop.clone());
    let sending = tokio::spawn(async move {
        let body = vec![7_u8; size];
        while !stopped.load(Ordering::Relaxed) {
            sender.send(&body).await?;
        }
        Result::Ok(())
    });
    let mut reader = pair.b.reader();
    // To read the clock for each message would take part in what is measured when they are small.
    let stride = if size < 1024 { 64 } else { 1 };
    let warming = take_for(&mut reader, warm, stride).await?;
    let (begin, cpu) = (Instant::now(), facts::cpu_time());
    let taken = take_for(&mut reader, span, stride).await?;
    if let (Taken { dead: true, count }, Variant::Pmesh) = (&taken, variant) {
        let (at, buffered) = (warming.count + count, pair.a.buffered());
        return Err(format!("silent for {DEAD:?} after {at} messages, {buffered} bytes wait in the sender").into());
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), (facts::cpu_time() - cpu).as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    while let Ok(message) = timeout(QUIET, reader.next()).await {
        message?;
    }
    // A link of the crate as it comes may be stalled: it is closed under the sender.
    sending.abort();
    pair.close().await?;
    let (messages, bytes) = (taken.count as f64, taken.count as f64 * size as f64);
    Ok(if per_second {
        vec![
            Sample::new(format!("{size} B messages, thousands/s"), messages / seconds / 1e3, Better::Higher),
            Sample::new(format!("{size} B messages, CPU µs each"), cpu * 1e6 / messages, Better::Lower),
        ]
    } else {
        let size = size / 1024;
        vec![
            Sample::new(format!("{size} KiB messages, MB/s"), bytes / seconds / 1e6, Better::Higher),
            Sample::new(format!("{size} KiB messages, CPU s for a GB"), cpu / bytes * 1e9, Better::Lower),
        ]
    })
}

struct Taken {
    count: u64,
    /// Nothing came any more. The bare crate does that at times: it counts as the rate that it had.
    dead: bool,
}

async fn take_for(reader: &mut Reader, span: Duration, stride: u64) -> Result<Taken> {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < span {
        let some = async {
            for _ in 0..stride {
                reader.next().await?;
                count += 1;
            }
            Result::Ok(())
        };
        match timeout(DEAD, some).await {
            Ok(done) => done?,
            Err(_) => return Ok(Taken { count, dead: true }),
        }
    }
    Ok(Taken { count, dead: false })
}

async fn round_trip(variant: Variant, count: usize) -> Result<Vec<Sample>> {
    const SIZE: usize = 64;
    let pair = Pair::open(variant, SIZE).await?;
    let (end, mut reader) = (pair.b.clone(), pair.b.reader());
    let echo = tokio::spawn(async move {
        while let Ok(message) = reader.next().await {
            end.send(&message).await?;
        }
        Result::Ok(())
    });
    let mut reader = pair.a.reader();
    let body = [7_u8; SIZE];
    let mut times = Vec::with_capacity(count);
    for turn in 0..count + count / 5 {
        let begin = Instant::now();
        pair.a.send(&body).await?;
        reader.next().await?;
        if turn >= count / 5 {
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    echo.abort();
    pair.close().await?;
    times.sort_by(f64::total_cmp);
    Ok(vec![
        Sample::new("round trip of 64 B, p50, µs", percentile(&times, 50), Better::Lower),
        Sample::new("round trip of 64 B, p99, µs", percentile(&times, 99), Better::Lower),
    ])
}

async fn connect(variant: Variant, count: usize) -> Result<Vec<Sample>> {
    // The crate as it comes takes more than half a second each time.
    let count = if variant == Variant::Plain { count.div_ceil(10) } else { count };
    let mut times = Vec::with_capacity(count);
    if variant == Variant::Pmesh {
        while times.len() < count {
            let tree = TreePair::new().await?;
            for _ in times.len()..count.min(times.len() + OFFERS_AT_ONCE) {
                let begin = Instant::now();
                let (a, b) = tree.connect().await?;
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                tokio::join!(a.close(), b.closed());
            }
            tree.close().await?;
        }
    } else {
        for _ in 0..count {
            let begin = Instant::now();
            let pair = bare::open(variant == Variant::Same, bare::limit(64)).await?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            pair.close().await?;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(vec![
        Sample::new("connect until both ends are open, median, ms", percentile(&times, 50), Better::Lower),
        Sample::new("connect, p99, ms", percentile(&times, 99), Better::Lower),
        Sample::new("connect, worst, ms", percentile(&times, 100), Better::Lower),
        Sample::new("connects made", times.len() as f64, Better::Neither),
    ])
}
