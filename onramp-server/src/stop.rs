//! The signals that end the program.

/// Signals that come so soon after the first are the same one: `timeout`, and terminals that close, send it to a process and again to
/// its group.
#[cfg(unix)]
const SAME: std::time::Duration = std::time::Duration::from_millis(100);

/// Waits for the first of them. A further one ends the program at once.
#[cfg(unix)]
pub(crate) fn signals() -> std::io::Result<impl Future> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    if !may_ignore_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let signals = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?)));
    let mut signals = signals.collect::<std::io::Result<Vec<_>>>()?;
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        next(&mut signals).await;
        // Who is not there any more has ended.
        let _ = tell.send(());
        let first = std::time::Instant::now();
        loop {
            let kind = next(&mut signals).await;
            if first.elapsed() >= SAME {
                // As a shell has it of a program that was ended by it.
                std::process::exit(128 + kind.as_raw_value());
            }
        }
    });
    Ok(told)
}

/// The next signal of these.
#[cfg(unix)]
async fn next(
    signals: &mut [(tokio::signal::unix::SignalKind, tokio::signal::unix::Signal)],
) -> tokio::signal::unix::SignalKind {
    use std::task::Poll;
    std::future::poll_fn(|context| {
        let mut came =
            signals.iter_mut().filter_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Whether the program was started to survive the terminal, as by `nohup`. Where the system does not tell, SIGHUP is left as it was.
#[cfg(unix)]
fn may_ignore_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 != 0)
}

#[cfg(not(unix))]
pub(crate) fn signals() -> std::io::Result<impl Future> {
    Ok(tokio::signal::ctrl_c())
}
