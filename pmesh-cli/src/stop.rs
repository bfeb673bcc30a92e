//! How a command is told to stop.

use std::error::Error;
use std::fmt;

use futures_util::future::select_all;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// A command was told to stop before it was done.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl Error for Stopped {}

/// Waits until the program is told to stop: by SIGTERM, SIGINT, SIGQUIT, or the end of its terminal (SIGHUP), unless that was
/// ignored at the start, as `nohup` has it; where the system does not tell, SIGHUP is left as it was. Listens from this call on. Where it cannot listen, a signal ends the program at once.
pub(crate) fn stopped() -> impl Future<Output = ()> + Send + 'static {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
    if !ignores(&status, Signal::HUP) {
        kinds.push(SignalKind::hangup());
    }
    let signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    async move {
        if signals.is_empty() {
            return std::future::pending().await;
        }
        let told = signals.into_iter().map(|mut signal| Box::pin(async move { signal.recv().await }));
        select_all(told).await;
    }
}

/// Whether a process with this status, as Linux tells it, ignores a signal, or may do so.
fn ignores(status: &str, signal: Signal) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_what_is_ignored() {
        let status = "Name:\tpmesh\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000006\n";
        let ignored = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::PIPE].map(|signal| ignores(status, signal));
        assert_eq!(ignored, [true, false, false, true]);
        assert!(ignores("", Signal::HUP) && ignores("SigIgn:\tno mask\n", Signal::HUP), "nothing is known");
    }
}
