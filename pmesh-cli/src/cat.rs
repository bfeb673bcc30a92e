//! `pmesh cat`: a stream from and to standard input and output.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use pmesh::overlay::stream::Stream;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_buf, split, stdin, stdout};
use tokio::time::Instant;

use crate::args::CatCommand;
use crate::mesh::{self, Joined, Result};
use crate::output;
use crate::reason::of_break;

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
    let done = joined.run(cat(&joined, &command)).await;
    joined.close().await;
    mesh::exit("cat", done)
}

async fn cat(joined: &Joined, command: &CatCommand) -> Result<()> {
    match command {
        CatCommand::Listen { service, .. } => {
            let mut streams = joined.overlay.listen(service)?;
            joined.introduce();
            let stream = streams.accept().await.ok_or("the overlay is closed")?;
            // One is served.
            drop(streams);
            joined.hush();
            pipe(stream).await
        }
        CatCommand::Dial { id, service, patience, .. } => {
            let stream = joined.dial(*id, service, Instant::now() + patience.timeout).await?;
            pipe(stream).await
        }
    }
}

fn broken(error: io::Error) -> String {
    format!("the stream broke: {}", of_break(&error))
}

/// Copies both ways, ends each direction on its own, and waits until the other side has everything.
async fn pipe(stream: Stream) -> Result<()> {
    let stopped = stream.stopped();
    let (mut read, mut write) = split(stream);
    let sending = async {
        let mut input = BufReader::with_capacity(BUFFER, stdin());
        tokio::select! {
            copied = copy_buf(&mut input, &mut write) => drop(copied.map_err(broken)?),
            // Whoever types may take hours to do so. What has arrived until then is still written.
            stopped = stopped => return Ok(stopped.err()),
        }
        write.shutdown().await.map_err(broken)?;
        Ok::<_, Box<dyn Error + Send + Sync>>(None)
    };
    let receiving = async {
        let (mut from, mut out) = (BufReader::with_capacity(BUFFER, &mut read), stdout());
        loop {
            let part = from.fill_buf().await.map_err(broken)?;
            if part.is_empty() {
                break;
            }
            out.write_all(part).await.map_err(output::failed)?;
            let length = part.len();
            from.consume(length);
        }
        out.flush().await.map_err(output::failed)?;
        // Whoever reads it is to see the end now, and not when this program ends.
        Ok(rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?)?)
    };
    let (unwanted, ()) = tokio::try_join!(sending, receiving)?;
    match unwanted {
        None => {}
        // The other side has said all, and wants no more.
        Some(why) if why.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
        Some(why) => return Err(broken(why).into()),
    }
    // What was written is lost if the program ends before it has arrived.
    let delivered = read.unsplit(write).delivered().await;
    Ok(delivered.map_err(|_| "the other side has ended before it had everything")?)
}
