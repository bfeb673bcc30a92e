//! `pmesh cat`: a stream from and to standard input and output.

use std::process::ExitCode;
use std::time::Duration;

use pmesh::overlay::OverlayId;
use pmesh::overlay::stream::{Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, copy_buf, split, stdin, stdout};
use tokio::time::{Instant, sleep, timeout};

use crate::args::CatCommand;
use crate::mesh::{self, Joined, Result};

/// A second stream, by which two of this command tell each other that they have everything: what was written to a stream is
/// lost if the program ends before it has arrived.
const END: &str = "pmesh.cat.end";
/// What is said on it.
const DONE: u8 = b'.';
/// How long what is on its way may take where the other side is another program.
const LINGER: Duration = Duration::from_secs(3);
/// How long to wait for the other side to end.
const FAREWELL: Duration = Duration::from_secs(5);

const BUFFER: usize = 64 * 1024;

/// Runs until both directions have ended.
pub(crate) async fn run(command: CatCommand) -> ExitCode {
    let mesh = match &command {
        CatCommand::Listen { mesh, .. } | CatCommand::Dial { mesh, .. } => mesh,
    };
    let joined = match Joined::new(mesh).await {
        Ok(joined) => joined,
        Err(error) => return mesh::exit("cat", Err(error)),
    };
    let done = tokio::select! {
        done = cat(&joined, &command) => done,
        () = mesh::stopped() => Err("stopped".into()),
    };
    joined.close().await;
    mesh::exit("cat", done)
}

async fn cat(joined: &Joined, command: &CatCommand) -> Result<()> {
    match command {
        CatCommand::Listen { service, .. } => {
            let mut streams = joined.overlay.listen(service)?;
            let ends = joined.overlay.listen(END)?;
            joined.introduce();
            let stream = streams.accept().await.ok_or("the overlay is closed")?;
            // One is served.
            drop(streams);
            let peer = stream.overlay_id();
            pipe(stream).await?;
            end_listening(ends, peer).await
        }
        CatCommand::Dial { id, service, patience, .. } => {
            let stream = joined.dial(*id, service, Instant::now() + patience.timeout).await?;
            let end = joined.overlay.dial(*id, END).await;
            pipe(stream).await?;
            end_dialling(end.ok()).await
        }
    }
}

/// Copies both ways, and ends each direction on its own.
async fn pipe(stream: Stream) -> Result<()> {
    let (read, mut write) = split(stream);
    let sending = async {
        copy_buf(&mut BufReader::with_capacity(BUFFER, stdin()), &mut write).await?;
        write.shutdown().await
    };
    let receiving = async {
        let mut out = stdout();
        copy_buf(&mut BufReader::with_capacity(BUFFER, read), &mut out).await?;
        out.flush().await?;
        // Whoever reads it is to see the end now, and not when this program ends.
        Ok(rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?)?)
    };
    tokio::try_join!(sending, receiving).map_err(|error| format!("the stream broke: {error}"))?;
    Ok(())
}

/// Says that we have everything, and waits until the other side has.
async fn end_dialling(end: Option<Stream>) -> Result<()> {
    let Some(mut end) = end else {
        sleep(LINGER).await;
        return Ok(());
    };
    let told = async {
        end.write_u8(DONE).await?;
        let done = end.read_u8().await?;
        end.shutdown().await.map(|()| done == DONE)
    };
    match told.await {
        Ok(true) => Ok(()),
        _ => Err("the other side has ended before it had everything".into()),
    }
}

async fn end_listening(mut ends: Listener, peer: OverlayId) -> Result<()> {
    let came = timeout(LINGER, async {
        loop {
            let end = ends.accept().await;
            if end.as_ref().is_none_or(|end| end.overlay_id() == peer) {
                return end;
            }
        }
    });
    let Ok(Some(mut end)) = came.await else { return Ok(()) };
    if !matches!(end.read_u8().await, Ok(DONE)) || end.write_u8(DONE).await.is_err() {
        return Err("the other side has ended before it had everything".into());
    }
    // Not before it has heard so.
    let _ = timeout(FAREWELL, end.read_u8()).await;
    Ok(())
}
