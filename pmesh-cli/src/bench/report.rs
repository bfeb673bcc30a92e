//! What is written: a table, or JSON lines.

use std::time::Duration;

use pmesh::Address;
use serde_json::{Value, json};

use super::flood::Taken;
use crate::mesh::Result;
use crate::output::print_blocking;

/// Which way a flood goes, seen from the end that measures.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    There,
    Back,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    json: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn listening(self, url: &str) -> Result<()> {
        let text = format!("waiting at {url} (on the other machine: pmesh bench --connect ws://HOST:PORT)");
        self.write(&json!({"event": "listening", "url": url}), &text)
    }

    pub(super) fn begin(self, address: &Address) -> Result<()> {
        self.write(&json!({"event": "open", "node": address}), &format!("connected to {address}"))
    }

    pub(super) fn flood(self, way: Way, size: usize, taken: Taken) -> Result<()> {
        let seconds = taken.seconds.max(1e-9);
        let (messages, bytes) = (taken.messages as f64 / seconds, taken.bytes as f64 / seconds);
        let (direction, arrow) = match way {
            Way::There => ("send", "to the other end"),
            Way::Back => ("receive", "from the other end"),
        };
        let event = json!({"event": "throughput", "direction": direction, "size": size,
            "bytesPerSecond": bytes, "messagesPerSecond": messages, "messages": taken.messages, "seconds": taken.seconds});
        let what = format!("{size} B messages {arrow}");
        self.write(&event, &row(&what, &format!("{:.1} MB/s, {messages:.0} messages/s", bytes / 1e6)))
    }

    pub(super) fn round_trips(self, size: usize, times: &mut [Duration]) -> Result<()> {
        times.sort_unstable();
        let (p50, p99) = (micros(percentile(times, 50)), micros(percentile(times, 99)));
        let event =
            json!({"event": "roundTrip", "size": size, "p50Micros": p50, "p99Micros": p99, "count": times.len()});
        let what = format!("round trip of {size} B, p50 / p99");
        self.write(&event, &row(&what, &format!("{p50:.1} / {p99:.1} µs")))
    }

    pub(super) fn connects(self, times: &mut [Duration]) -> Result<()> {
        times.sort_unstable();
        let (median, worst) = (micros(percentile(times, 50)) / 1e3, micros(percentile(times, 100)) / 1e3);
        let event = json!({"event": "connect", "medianMillis": median, "worstMillis": worst, "count": times.len()});
        let what = format!("connect, median / worst of {}", times.len());
        self.write(&event, &row(&what, &format!("{median:.2} / {worst:.2} ms")))
    }

    fn write(self, event: &Value, text: &str) -> Result<()> {
        if self.json { print_blocking(event) } else { print_blocking(text) }
    }
}

fn row(what: &str, value: &str) -> String {
    format!("{what:<44} {value}")
}

/// A percentile of sorted times; zero if there are none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 50), Duration::from_micros(100));
        assert_eq!(percentile(&times, 99), Duration::from_micros(198));
        assert_eq!(percentile(&times, 100), Duration::from_micros(200));
        assert_eq!(percentile(&times[..1], 50), Duration::from_micros(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
