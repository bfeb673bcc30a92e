//! How a command is told to stop.

use std::error::Error;
use std::future::poll_fn;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::oneshot;

/// A command was told to stop before it was done.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl Error for Stopped {}

/// Signals that come so soon after the first are the same one: `timeout`, and terminals that close, send it to a process and again to
/// its group.
const SAME: Duration = Duration::from_millis(100);

/// Waits until the program is told to stop: by SIGTERM, SIGINT, SIGQUIT, or the end of its terminal (SIGHUP), unless that was
/// ignored at the start, as `nohup` has it; where the system does not tell, SIGHUP is left as it was. Listens from this call on. Where it cannot listen, a signal ends the program at once.
/// So does a further one, as what follows the first may take its time. One for which nobody waits any more, as the program is about to end,
/// counts as the first.
pub(crate) fn stopped() -> impl Future<Output = ()> + Send + 'static {
    let (tell, told) = oneshot::channel();
    let is_listening = listen(tell).is_ok();
    async move {
        if !is_listening || told.await.is_err() {
            std::future::pending().await
        }
    }
}

/// Listens in a thread of its own, as those of the runtime may be blocked: by a terminal that shows nothing more, for one.
fn listen(tell: oneshot::Sender<()>) -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
    if !ignores(&status, Signal::HUP) {
        kinds.push(SignalKind::hangup());
    }
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (ready, is_ready) = mpsc::sync_channel(1);
    let listening = async move {
        let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| Some((kind, signal(kind).ok()?))).collect();
        drop(ready);
        next(&mut signals).await;
        // Who is not there any more has ended.
        let _ = tell.send(());
        let first = Instant::now();
        let mut kind = next(&mut signals).await;
        while first.elapsed() < SAME {
            kind = next(&mut signals).await;
        }
        // As a shell has it of a program that was ended by it.
        std::process::exit(128 + kind.as_raw_value())
    };
    std::thread::Builder::new().spawn(move || runtime.block_on(listening))?;
    // Nothing is said: it is ready when the other end is gone.
    let _: Result<(), _> = is_ready.recv();
    Ok(())
}

/// The next signal of these.
async fn next(signals: &mut [(SignalKind, unix::Signal)]) -> SignalKind {
    poll_fn(|context| {
        let mut came =
            signals.iter_mut().filter_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
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
