//! The sending end.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pmesh::overlay::stream::Stream;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::protocol::{Answer, FileName, Hash, Offer, SERVICE, start};
use super::{BUFFER, broken, hash, hear, patience, say};
use crate::args::SendArgs;
use crate::mesh::{self, Joined, Result};
use crate::output::note;

/// How long to wait until a receiver is asked again that has no time.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends a file, and ends when the other side has stored it.
pub(crate) async fn run(args: SendArgs) -> ExitCode {
    mesh::exit("send", send(&args).await)
}

async fn send(args: &SendArgs) -> Result<()> {
    let (mut file, offer) = open(&args.file).await?;
    let joined = Joined::new(&args.mesh).await?;
    let sent = joined.run(transfer(&joined, args, &mut file, &offer)).await;
    joined.close().await;
    sent
}

async fn open(path: &Path) -> Result<(File, Offer)> {
    let shown = path.display();
    let file = File::open(path).await.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let about = file.metadata().await?;
    if !about.is_file() {
        return Err(format!("{shown} is not a file").into());
    }
    let name =
        path.file_name().and_then(|name| name.to_str()).ok_or_else(|| format!("{shown} has no name in UTF-8"))?;
    let name = FileName::try_from(name.to_owned()).map_err(|error| format!("{shown}: {error}"))?;
    Ok((file, Offer { name, size: about.len() }))
}

/// Transfers the file, as soon as the receiver is found and has time.
async fn transfer(joined: &Joined, args: &SendArgs, file: &mut File, offer: &Offer) -> Result<()> {
    let until = Instant::now() + args.patience.timeout;
    let mut said = String::new();
    loop {
        let mut stream = joined.dial(args.id, SERVICE, until).await?;
        say(&mut stream, offer).await?;
        match hear(&mut stream, patience(offer.size)).await? {
            Answer::Have { bytes, sha256 } => return upload(stream, file, offer, bytes, &sha256).await,
            Answer::Refused { reason, later: true } if Instant::now() + PAUSE < until => {
                let reason = Answer::shown(&reason);
                if said != reason {
                    note!("waiting: {}", mesh::shown(&reason));
                    said = reason;
                }
                let _ = stream.shutdown().await;
                sleep(PAUSE).await;
            }
            answer => return finished(answer),
        }
    }
}

async fn upload(mut stream: Stream, file: &mut File, offer: &Offer, have: u64, theirs: &Hash) -> Result<()> {
    let changed = "the file was changed while it was sent";
    let mut hasher = hash(file, have.min(offer.size)).await?;
    let start = start(offer.size, have, theirs, &hasher.clone().finalize().into());
    if start.from == 0 {
        hasher = Sha256::new();
        file.rewind().await?;
    } else {
        note!("going on at byte {} of {}", start.from, offer.size);
    }
    say(&mut stream, &start).await?;
    let bar = progress(offer, start.from);
    let mut buffer = vec![0; BUFFER];
    let mut left = offer.size - start.from;
    while left > 0 {
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut buffer[..length]).await?;
        if read == 0 {
            return Err(changed.into());
        }
        hasher.update(&buffer[..read]);
        if let Err(error) = stream.write_all(&buffer[..read]).await {
            bar.abandon();
            // What it has said before it ended is why.
            return match hear(&mut stream, PAUSE).await {
                Ok(answer) => finished(answer),
                Err(_) => Err(format!(
                    "{}. The same command goes on where it was, if the other side still has its id (see --identity)",
                    broken(&error)
                )
                .into()),
            };
        }
        bar.inc(read as u64);
        left -= read as u64;
    }
    stream.write_all(&hasher.finalize()).await.map_err(|error| broken(&error))?;
    let answer = hear(&mut stream, patience(offer.size)).await?;
    // The other side waits for that, so as not to end before its answer is here.
    let _ = stream.shutdown().await;
    bar.finish();
    finished(answer)
}

fn finished(answer: Answer) -> Result<()> {
    match answer {
        Answer::Stored => Ok(()),
        Answer::Refused { reason, .. } => Err(format!("the other side says: {}", Answer::shown(&reason)).into()),
        Answer::Have { .. } => Err(super::Wrong::Message.into()),
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress(offer: &Offer, from: u64) -> ProgressBar {
    let bar = ProgressBar::new(offer.size);
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(offer.name.as_str().to_owned());
    bar.set_position(from);
    bar.reset_eta();
    bar
}
