//! What the machine and this process are.

use std::fs::read_to_string;
use std::net::UdpSocket;
use std::time::Duration;

use socket2::SockRef;

use crate::Result;

/// What is asked of the system for each socket and direction, in bytes.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The receive window of SCTP that the socket buffers hold, as pmesh chooses it.
pub(crate) fn receive_window() -> Result<u32> {
    Ok(match granted()? {
        2_097_152.. => 1024 * 1024,
        1_048_576.. => 512 * 1024,
        _ => 256 * 1024,
    })
}

/// Asks for large buffers, past the system's limit where this process may. What is refused stays as it is.
pub(crate) fn enlarge(socket: &UdpSocket) {
    if !force(socket) {
        let socket = SockRef::from(socket);
        // The machine's facts tell what was granted.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    }
}

#[cfg(target_os = "linux")]
fn force(socket: &UdpSocket) -> bool {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_ok()
        && setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn force(_socket: &UdpSocket) -> bool {
    false
}

/// The receive buffer that a socket gets, in bytes.
fn granted() -> Result<usize> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    enlarge(&socket);
    let reported = SockRef::from(&socket).recv_buffer_size()?;
    // Linux reports twice what it grants, the rest being for its own bookkeeping.
    Ok(if cfg!(target_os = "linux") { reported / 2 } else { reported })
}

/// One line about the machine.
pub(crate) fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let model = read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| std::env::consts::OS.to_owned());
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(format!(
        "{cores} cores of {}, kernel {}, load {} before the run, UDP receive buffer of {} bytes granted, SCTP window {} bytes",
        model.as_deref().unwrap_or("unknown kind"),
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
        granted()?,
        receive_window()?,
    ))
}

/// What this process holds in memory, in KB. Zero where the system does not tell.
pub(crate) fn resident_kb() -> u64 {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The processor time that this process has used so far. Zero where the system does not tell.
pub(crate) fn cpu_time() -> Duration {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses; user and system time are fields 14 and 15 of all, in ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
