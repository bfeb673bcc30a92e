//! Standard output and standard error, and that nobody may read them any more.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::{AsyncWriteExt, stdout};
use tokio::sync::oneshot;

use crate::mesh::Result;

/// Nobody reads standard output any more, as `head -1` when it has its line. A command then ends, and has not failed.
#[derive(Debug)]
pub(crate) struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output")
    }
}

impl Error for Unread {}

/// What an error of writing to standard output means.
pub(crate) fn failed(error: io::Error) -> Box<dyn Error + Send + Sync> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Unread.into(),
        _ => format!("cannot write to standard output: {error}").into(),
    }
}

/// Writes a line.
pub(crate) async fn print(line: impl fmt::Display) -> Result<()> {
    let line = format!("{line}\n");
    let mut out = stdout();
    out.write_all(line.as_bytes()).await.map_err(failed)?;
    out.flush().await.map_err(failed)
}

/// Writes a line, and blocks until it is written.
pub(crate) fn print_blocking(line: impl fmt::Display) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(failed)
}

/// Waits until nobody reads standard output any more, though nothing is written.
pub(crate) async fn unread() {
    let (is_unread, told) = oneshot::channel();
    // It cannot be cancelled: it ends with the program.
    let watching = std::thread::Builder::new().spawn(move || {
        let out = io::stdout();
        // Nothing but its end is asked for, and that is always told.
        let mut polled = [PollFd::new(&out, PollFlags::empty())];
        while poll(&mut polled, None) == Err(Errno::INTR) {}
        if polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            let _ = is_unread.send(());
        }
    });
    if watching.is_err() || told.await.is_err() {
        // It cannot be known.
        std::future::pending().await
    }
}

/// Says something to people, on standard error. Nobody may be there to read it: what is under way goes on.
macro_rules! note {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($what)*);
    }};
}
pub(crate) use note;
