//! `pmesh cat`: a stream from and to standard input and output.

use std::io;
use std::process::ExitCode;

use pmesh::overlay::stream::Stream;
use tokio::io::{AsyncWriteExt, BufReader, copy_buf, split, stdin, stdout};
use tokio::time::Instant;

use crate::args::CatCommand;
use crate::mesh::{self, Joined, Result};

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
            joined.introduce();
            let stream = streams.accept().await.ok_or("the overlay is closed")?;
            // One is served.
            drop(streams);
            pipe(stream).await
        }
        CatCommand::Dial { id, service, patience, .. } => {
            let stream = joined.dial(*id, service, Instant::now() + patience.timeout).await?;
            pipe(stream).await
        }
    }
}

/// Copies both ways, ends each direction on its own, and waits until the other side has everything.
async fn pipe(stream: Stream) -> Result<()> {
    let stopped = stream.stopped();
    let (mut read, mut write) = split(stream);
    let sending = async {
        let mut input = BufReader::with_capacity(BUFFER, stdin());
        tokio::select! {
            copied = copy_buf(&mut input, &mut write) => drop(copied?),
            // Whoever types may take hours to do so.
            stopped = stopped => return stopped.and(Err(io::ErrorKind::BrokenPipe.into())),
        }
        write.shutdown().await
    };
    let receiving = async {
        let mut out = stdout();
        copy_buf(&mut BufReader::with_capacity(BUFFER, &mut read), &mut out).await?;
        out.flush().await?;
        // Whoever reads it is to see the end now, and not when this program ends.
        Ok(rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?)?)
    };
    tokio::try_join!(sending, receiving).map_err(|error| format!("the stream broke: {error}"))?;
    // What was written is lost if the program ends before it has arrived.
    let delivered = read.unsplit(write).delivered().await;
    Ok(delivered.map_err(|_| "the other side has ended before it had everything")?)
}
