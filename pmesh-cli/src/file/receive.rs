//! The receiving end.

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmesh::overlay::stream::Stream;
use sha2::Digest;
use tempfile::TempPath;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::places::{Attended, Busy, Later, Places, Speed};
use super::protocol::{Answer, FileName, Hash, Intake, Offer, SERVICE, Wrong};
use super::{BUFFER, SILENCE, broken, hash, hear, patience, say};
use crate::args::ReceiveArgs;
use crate::mesh::{self, Joined, Result};
use crate::output::note;
use crate::stop::Stopped;

/// Streams that are answered at once, most of them with a word. At it, others wait.
const ATTENDED: usize = 256;
/// How long a sender may take to say what it has.
const OFFERING: Duration = Duration::from_secs(5);
/// How long the sender may take to hear that the file is stored.
const FAREWELL: Duration = Duration::from_secs(5);

/// Takes files until it is told to stop.
pub(crate) async fn run(args: ReceiveArgs) -> ExitCode {
    mesh::exit("receive", receive(args).await)
}

async fn receive(args: ReceiveArgs) -> Result<()> {
    let shown = args.dir.display();
    if !fs::metadata(&args.dir).await.map_err(|error| format!("cannot write to {shown}: {error}"))?.is_dir() {
        return Err(format!("{shown} is not a folder").into());
    }
    let joined = Joined::new(&args.mesh).await?;
    let once = args.once;
    let served = joined.run(serve(&joined, Arc::new(args))).await;
    joined.close().await;
    match served {
        // That is its usual end.
        Err(error) if !once && error.is::<Stopped>() => Ok(()),
        served => served,
    }
}

async fn serve(joined: &Joined, args: Arc<ReceiveArgs>) -> Result<()> {
    let mut listener = joined.overlay.listen(SERVICE)?;
    joined.introduce();
    let places = Places::default();
    let mut attended = JoinSet::new();
    loop {
        tokio::select! {
            stream = listener.accept(), if attended.len() < ATTENDED => {
                let stream = stream.ok_or("the overlay is closed")?;
                // Who has too many at once gets no answer: the stream ends.
                if let Some(place) = places.attend(stream.overlay_id()) {
                    attended.spawn(attend(stream, place, args.clone()));
                }
            }
            Some(done) = attended.join_next() => {
                if args.once && matches!(done, Ok(true)) {
                    return Ok(());
                }
            }
        }
    }
}

/// Serves one sender. Returns whether a file is here now.
async fn attend(mut stream: Stream, mut place: Attended, args: Arc<ReceiveArgs>) -> bool {
    let from = stream.overlay_id();
    let mut name = None;
    let stored = take(&mut stream, &mut place, &args, &mut name).await;
    place.transferred();
    let answer = match &stored {
        Ok(path) => {
            // Whether anybody reads it or not.
            let _ = writeln!(std::io::stdout(), "{}", path.display());
            Answer::Stored
        }
        Err(error) => {
            let later = error.downcast_ref::<Later>();
            if later.is_none_or(|later| place.waits(&later.name)) {
                let of = name.map(|name| format!("{}: ", name.as_str().escape_debug())).unwrap_or_default();
                note!("pmesh receive: from {from}: {of}{}", error.to_string().escape_debug());
            }
            Answer::refused(error.as_ref(), later.is_some())
        }
    };
    let farewell = async {
        say(&mut stream, &answer).await?;
        stream.shutdown().await?;
        // Not before it has heard so. What else comes is not looked at.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Result::Ok(())
    };
    let _ = timeout(FAREWELL, farewell).await;
    stored.is_ok()
}

/// Takes a file, and says its `name` as soon as that is known.
async fn take(
    stream: &mut Stream,
    place: &mut Attended,
    args: &ReceiveArgs,
    name: &mut Option<FileName>,
) -> Result<PathBuf> {
    if !args.from.is_empty() && !args.from.contains(&stream.overlay_id()) {
        return Err("no files are taken from this peer".into());
    }
    let offer: Offer = hear(stream, OFFERING).await?;
    *name = Some(offer.name.clone());
    if offer.size > args.max_size {
        return Err(format!("the file has {} bytes, and {} are taken at most", offer.size, args.max_size).into());
    }
    let path = args.dir.join(offer.name.as_str());
    if fs::symlink_metadata(&path).await.is_ok() {
        return Err("there is a file of that name, which is not overwritten".into());
    }
    place.transfer().map_err(|why| Later { name: offer.name.clone(), why })?;
    let (mut part, part_path) = open_part(&args.dir, &offer.name).await?;
    place.goes_on(&offer.name);
    let filled = fill(stream, &mut part, &offer, place.places()).await;
    // What is here is good for another time.
    part.flush().await?;
    if let Err(error) = filled {
        if error.downcast_ref() == Some(&Wrong::Hash) || part.metadata().await?.len() == 0 {
            fs::remove_file(&part_path).await?;
        }
        return Err(error);
    }
    part.sync_all().await?;
    let target = path.clone();
    let renamed = tokio::task::spawn_blocking(move || {
        TempPath::try_from_path(part_path)?.persist_noclobber(target).map_err(|failed| {
            // It would be removed with its path.
            let kept = failed.path.keep();
            kept.err().map_or(failed.error, |failed| failed.error)
        })
    });
    renamed.await?.map_err(|error| format!("the file cannot get its name: {error}"))?;
    Ok(path)
}

/// Opens what there is of a file, for one transfer at a time.
async fn open_part(dir: &Path, name: &FileName) -> Result<(File, PathBuf)> {
    let path = dir.join(name.part());
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).await;
    let part = opened.map_err(|error| format!("the file cannot be written: {error}"))?.into_std().await;
    let busy = || Later { name: name.clone(), why: Busy::Name };
    part.try_lock().map_err(|_| busy())?;
    // Another transfer may have ended in between, and what we hold is complete, under its own name.
    let identity = |about: Metadata| (about.dev(), about.ino());
    if std::fs::symlink_metadata(&path).ok().map(identity) != Some(identity(part.metadata()?)) {
        return Err(busy().into());
    }
    Ok((File::from_std(part), path))
}

/// Takes what is missing of a file.
async fn fill(stream: &mut Stream, part: &mut File, offer: &Offer, places: &Places) -> Result<()> {
    let size = part.metadata().await?.len();
    let have = if size > offer.size { 0 } else { size };
    let hasher = hash(part, have).await?;
    say(stream, &Answer::Have { bytes: have, sha256: hasher.clone().finalize().into() }).await?;
    let mut intake = Intake::new(offer.size, have, hasher);
    if intake.start(&hear(stream, patience(have)).await?)? || have < size {
        part.set_len(0).await?;
        part.rewind().await?;
    }
    let mut buffer = vec![0; BUFFER];
    let mut speed = Speed::new(Instant::now());
    while intake.missing() > 0 {
        let length = buffer.len().min(usize::try_from(intake.missing()).unwrap_or(usize::MAX));
        let read = timeout(SILENCE, stream.read(&mut buffer[..length])).await;
        let read = read.map_err(|_| "the sender is silent")?.map_err(|error| broken(&error))?;
        if read == 0 {
            return Err(Wrong::Missing.into());
        }
        intake.take(&buffer[..read])?;
        part.write_all(&buffer[..read]).await?;
        if speed.took(read, Instant::now()) && places.is_full() {
            return Err("others wait, and this is too slow".into());
        }
    }
    let mut theirs = Hash::default();
    let read = timeout(SILENCE, stream.read_exact(&mut theirs)).await;
    read.map_err(|_| "the sender is silent")?.map_err(|error| broken(&error))?;
    Ok(intake.finish(&theirs)?)
}
