//! The signals that end the program.

#[cfg(unix)]
pub(crate) fn signals() -> std::io::Result<impl Future> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    if !may_ignore_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let mut signals = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>()?;
    Ok(std::future::poll_fn(move |context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }))
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
