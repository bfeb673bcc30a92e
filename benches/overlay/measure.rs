//! The measurements.

use serde_json::json;

use crate::figures::percentile;
use crate::line::Line;
use crate::options::Options;
use crate::process::{Variant, number};
use crate::{Result, raw};

/// Bytes of a message that is counted, and of one that is answered, as JSON.
const FLOOD_BYTES: usize = 100;
const PING_BYTES: usize = 64;

/// Name of a row, and its value.
type Sample = (String, f64);

pub(crate) struct Measurement {
    pub(crate) name: String,
    what: What,
}

enum What {
    Rate {
        relays: usize,
        count: u64,
    },
    RoundTrip {
        relays: usize,
        count: u64,
    },
    Memory {
        relays: usize,
        count: u64,
    },
    Stream {
        relays: usize,
        megabytes: usize,
    },
    /// QUIC over UDP, without an overlay.
    Raw {
        megabytes: usize,
    },
}

impl Measurement {
    pub(crate) fn all(options: &Options) -> Vec<Self> {
        let some = |full: u64, quick: u64| if options.quick { quick } else { full };
        let mut all = Vec::new();
        for relays in 0..=3 {
            all.push(Self { name: format!("rate{relays}"), what: What::Rate { relays, count: some(200_000, 2_000) } });
            let what = What::RoundTrip { relays, count: some(5_000, 100) };
            all.push(Self { name: format!("rtt{relays}"), what });
        }
        let count = some(100_000, 2_000);
        all.push(Self { name: "memory".into(), what: What::Memory { relays: 1, count } });
        for relays in [0, 1, 3] {
            let what = What::Stream { relays, megabytes: some(200, 5) as usize };
            all.push(Self { name: format!("stream{relays}"), what });
        }
        all.push(Self { name: "raw".into(), what: What::Raw { megabytes: some(200, 5) as usize } });
        all
    }

    /// Whether this variant has what is measured.
    pub(crate) fn is_for(&self, variant: Variant) -> bool {
        match self.what {
            What::Stream { .. } => variant != Variant::Original,
            What::Raw { .. } => variant == Variant::WebSocket,
            _ => true,
        }
    }

    pub(crate) async fn run(&self, variant: Variant, options: &Options) -> Result<Vec<Sample>> {
        match self.what {
            What::Rate { relays, count } => rate(variant, relays, count, options).await,
            What::RoundTrip { relays, count } => round_trip(variant, relays, count).await,
            What::Memory { relays, count } => memory(variant, relays, count, options).await,
            What::Stream { relays, megabytes } => stream(variant, relays, megabytes, options).await,
            What::Raw { megabytes } => Ok(vec![("bare quinn over UDP, MB/s".into(), raw::quic(megabytes).await?)]),
        }
    }
}

/// Fewer with an original: it takes its time.
fn scaled(variant: Variant, count: u64) -> u64 {
    if variant == Variant::Original { count / 10 } else { count }
}

fn with(relays: usize) -> String {
    format!("{relays} relay{}", if relays == 1 { "" } else { "s" })
}

async fn flood(line: &mut Line, name: u32, warm: u64, count: u64, options: &Options) -> Result<(f64, f64, f64)> {
    let command = json!({"do": "flood", "to": line.last(), "flood": name, "warm": warm, "count": count,
                         "size": FLOOD_BYTES, "window": options.window});
    let done = line.first().ask(command, "flooded").await?;
    Ok((number(&done, "counted")? / number(&done, "seconds")?, number(&done, "sent")?, number(&done, "received")?))
}

async fn rate(variant: Variant, relays: usize, count: u64, options: &Options) -> Result<Vec<Sample>> {
    let mut line = Line::open(variant, relays).await?;
    let count = scaled(variant, count);
    flood(&mut line, 1, 0, count / 5, options).await?;
    let before = line.cpu_seconds()?;
    let (rate, sent, received) = flood(&mut line, 2, 0, count, options).await?;
    let cpu = line.cpu_seconds()? - before;
    if options.counters && variant != Variant::Original {
        eprintln!("{}", line.dropped().await?);
    }
    let with = with(relays);
    Ok(vec![
        (format!("100 B over {with}, thousands/s"), rate / 1e3),
        (format!("100 B over {with}, CPU µs each, all peers"), cpu * 1e6 / received),
        (format!("100 B over {with}, lost, %"), (sent - received) / sent * 100.0),
    ])
}

async fn round_trip(variant: Variant, relays: usize, count: u64) -> Result<Vec<Sample>> {
    let mut line = Line::open(variant, relays).await?;
    let to = line.last();
    let ping = |count: u64| json!({"do": "ping", "to": to, "count": count, "size": PING_BYTES});
    line.first().ask(ping(count / 5), "pinged").await?;
    let pinged = line.first().ask(ping(count), "pinged").await?;
    let mut times: Vec<f64> = serde_json::from_value(pinged["micros"].clone())?;
    times.sort_by(f64::total_cmp);
    let with = with(relays);
    Ok(vec![
        (format!("round trip over {with}, p50, µs"), percentile(&times, 50)),
        (format!("round trip over {with}, p99, µs"), percentile(&times, 99)),
    ])
}

/// By how much a relay grows.
async fn memory(variant: Variant, relays: usize, count: u64, options: &Options) -> Result<Vec<Sample>> {
    let mut line = Line::open(variant, relays).await?;
    let count = scaled(variant, count);
    flood(&mut line, 1, 0, count, options).await?;
    let before = line.relay_kb().await?;
    flood(&mut line, 2, 0, 3 * count, options).await?;
    let growth = (line.relay_kb().await? - before) / (3 * count) as f64 * 1e5;
    Ok(vec![
        ("memory of a relay, KB".into(), before),
        ("memory of a relay, more by each 100,000 messages, KB".into(), growth),
    ])
}

async fn stream(variant: Variant, relays: usize, megabytes: usize, options: &Options) -> Result<Vec<Sample>> {
    let mut line = Line::open(variant, relays).await?;
    let command = json!({"do": "stream", "to": line.last(), "megabytes": megabytes});
    let before = line.cpu_seconds()?;
    let done = line.first().ask(command, "streamed").await?;
    let cpu = line.cpu_seconds()? - before;
    if options.counters {
        eprintln!("{}", line.dropped().await?);
    }
    let with = with(relays);
    Ok(vec![
        (format!("stream over {with}, MB/s"), megabytes as f64 / number(&done, "seconds")?),
        (format!("stream over {with}, CPU s for a GB, all peers"), cpu * 1e3 / megabytes as f64),
    ])
}
