//! `pmesh send` and `pmesh receive`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pmesh::Root;
use pmesh::overlay::{Overlay, OverlayId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr};

use crate::common::{output, program, soon};
use crate::{bytes, introduced, line, stop, told};

#[tokio::test]
async fn a_transfer_that_was_broken_off_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let [(key, _), ..] = line(&folder);
    let (file, into) = (folder.path().join("file"), folder.path().join("into"));
    let content = bytes(60_000_000, 4);
    std::fs::write(&file, &content).unwrap();
    std::fs::create_dir(&into).unwrap();
    let receive = ["receive", into.to_str().unwrap(), "--once", "--listen", "127.0.0.1:0"];
    let mut receive = program(&receive).stdin(Stdio::null()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut receive, true).await;
    // The same peer takes over: nobody waits for as long as the one that was killed may be silent.
    let send = ["send", file.to_str().unwrap(), &id, "--bootstrap", &url, "--identity", &key, "--timeout", "10"];

    // A sender that has sent half of it when it is killed: what is written has gone off, but for the queues on the way.
    let first = ["cat", "dial", &id, "--service", "pmesh.file", "--bootstrap", &url, "--identity", &key];
    let mut first = program(&first).stdin(Stdio::piped()).spawn().unwrap();
    let mut says = first.stdin.take().unwrap();
    let offer = [message(json!({"name": "file", "size": content.len()})), message(json!({"from": 0}))].concat();
    soon(says.write_all(&offer)).await.unwrap();
    soon(says.write_all(&content[..content.len() / 2])).await.unwrap();
    soon(first.kill()).await.unwrap();
    let part = into.join("file.part");
    let length = std::fs::metadata(&part).unwrap().len();
    assert!(length <= content.len() as u64 / 2 && !into.join("file").exists());

    let again = output(&send).await;
    assert_eq!(again.status.code(), Some(0), "{}", told(&again));
    let from = told(&again).split("going on at byte ").nth(1).expect("it began anew").split(' ').next().unwrap();
    assert!((5_000_000..content.len()).contains(&from.parse().unwrap()), "{from}");
    let received = soon(receive.wait_with_output()).await.unwrap();
    assert_eq!(received.status.code(), Some(0));
    assert!(std::fs::read(into.join("file")).unwrap() == content);
    assert!(!part.exists());
}

#[tokio::test]
async fn who_is_stopped_before_a_file_is_here_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    for (once, code, said) in [(&["--once"][..], 1, "pmesh receive: stopped\n"), (&[], 0, "")] {
        let receive = [&["receive", folder.path().to_str().unwrap(), "--listen", "127.0.0.1:0"], once].concat();
        let mut receive = program(&receive).stdin(Stdio::null()).spawn().unwrap();
        let (_, _, mut told) = introduced(&mut receive, true).await;
        stop(&receive);
        let mut rest = String::new();
        soon(told.read_to_string(&mut rest)).await.unwrap();
        assert_eq!((soon(receive.wait()).await.unwrap().code(), &*rest), (Some(code), said));
    }
}

#[tokio::test]
async fn files_that_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let [(key, from), (other, _), _] = line(&folder);
    let into = folder.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (from, target) = (from.to_string(), into.to_str().unwrap());
    let receive = ["receive", target, "--listen", "127.0.0.1:0", "--from", &from, "--max-size", "1K"];
    let mut receive = program(&receive).stdin(Stdio::null()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut receive, true).await;
    std::fs::write(into.join("there"), "as it was").unwrap();
    // What is left of another file is of no use, nor is what is longer than the file.
    std::fs::write(into.join("short.part"), "other").unwrap();
    std::fs::write(into.join("new.part"), "longer than the file").unwrap();
    for (file, key, refusal) in [
        (file("there", "new"), &key, Some("is not overwritten")),
        (file("large", &"x".repeat(1025)), &key, Some("1024 are taken at most")),
        (file("stranger", ""), &other, Some("no files are taken from this peer")),
        (file(".hidden", ""), &key, Some("begins with a dot")),
        (file("short", "something else"), &key, None),
        (file("new", "content"), &key, None),
        (file("empty", ""), &key, None),
    ] {
        let sent = output(&["send", &file, &id, "--bootstrap", &url, "--identity", key]).await;
        assert_eq!(sent.status.code(), Some(i32::from(refusal.is_some())), "{file}: {}", told(&sent));
        assert!(told(&sent).contains(refusal.unwrap_or_default()), "{file}: {}", told(&sent));
    }
    let mut files: Vec<(String, String)> = std::fs::read_dir(&into)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
        .collect();
    files.sort();
    let there = [("empty", ""), ("new", "content"), ("short", "something else"), ("there", "as it was")];
    assert_eq!(files, there.map(|(name, content)| (name.to_owned(), content.to_owned())));
}

/// A message of the protocol of files.
fn message(value: Value) -> Vec<u8> {
    let body = value.to_string().into_bytes();
    [&(body.len() as u16).to_be_bytes()[..], &body].concat()
}

/// `pmesh receive`, at which others begin.
struct Receiver {
    folder: TempDir,
    /// Where it puts files, in the folder.
    into: PathBuf,
    id: String,
    url: String,
    program: Child,
    _told: BufReader<ChildStderr>,
}

impl Receiver {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        std::fs::create_dir(&into).unwrap();
        let receive = ["receive", into.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let mut program = program(&receive).stdin(Stdio::null()).spawn().unwrap();
        let (id, url, _told) = introduced(&mut program, true).await;
        Self { folder, into, id, url, program, _told }
    }
}

#[tokio::test]
async fn one_transfer_of_a_name_at_a_time() {
    let Receiver { folder, into, id, url, .. } = &Receiver::start().await;
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let root = Root::new();
    let overlay = Overlay::builder(&root).bootstrap(url).start().await.unwrap();
    let mut other = soon(overlay.dial(id.parse().unwrap(), "pmesh.file")).await.unwrap();
    other.write_all(&message(json!({"name": "file", "size": 9}))).await.unwrap();
    // The answer: it has begun.
    soon(other.read_u8()).await.unwrap();

    let mut send = vec!["send", file.to_str().unwrap(), id, "--bootstrap", url, "--timeout", "1"];
    let refused = output(&send).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("on its way already"), "{}", told(&refused));
    *send.last_mut().unwrap() = "30";
    let mut sending = program(&send).stdin(Stdio::null()).spawn().unwrap();
    let mut waits = String::new();
    let mut says = BufReader::new(sending.stderr.take().unwrap());
    soon(says.read_line(&mut waits)).await.unwrap();
    assert_eq!(waits, "waiting: a file of that name is on its way already\n");
    drop(other);
    let sent = soon(sending.wait_with_output()).await.unwrap();
    assert_eq!(sent.status.code(), Some(0), "{}", told(&sent));
    assert_eq!(std::fs::read_to_string(into.join("file")).unwrap(), "content");
}

/// Slow senders have the places of a receiver; others are told so, wait as long as they may, and then have their turn.
#[tokio::test]
async fn when_all_places_are_taken_others_wait() {
    let Receiver { folder, into, id, url, .. } = &Receiver::start().await;
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let to: OverlayId = id.parse().unwrap();
    let (mut slow, mut held) = (Vec::new(), Vec::new());
    for sender in 0..4 {
        let root = Root::new();
        let overlay = Overlay::builder(&root).bootstrap(url).start().await.unwrap();
        for number in 0..4 {
            let mut stream = soon(overlay.dial(to, "pmesh.file")).await.unwrap();
            stream.write_all(&message(json!({"name": format!("{sender}-{number}"), "size": 9}))).await.unwrap();
            // The answer: it has begun.
            soon(stream.read_u8()).await.unwrap();
            held.push(stream);
        }
        let answer = raw(&overlay, to, &[&message(json!({"name": "one more", "size": 9}))]).await;
        assert!(answer.contains("4 files of this sender are on their way"), "{answer}");
        slow.push((root, overlay));
    }
    let mut send = vec!["send", file.to_str().unwrap(), id, "--bootstrap", url, "--timeout", "2"];
    let refused = output(&send).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("16 files are on their way already"), "{}", told(&refused));
    *send.last_mut().unwrap() = "30";
    let sending = tokio::spawn(program(&send).stdin(Stdio::null()).output());
    drop(held.pop());
    let sent = soon(sending).await.unwrap().unwrap();
    assert_eq!(sent.status.code(), Some(0), "{}", told(&sent));
    assert_eq!(std::fs::read_to_string(into.join("file")).unwrap(), "content");
}

/// Says this to `pmesh receive`, and gives all that it answers.
async fn raw(overlay: &Overlay, to: OverlayId, says: &[&[u8]]) -> String {
    let mut stream = soon(overlay.dial(to, "pmesh.file")).await.unwrap();
    for part in says {
        stream.write_all(part).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut answers = Vec::new();
    soon(stream.read_to_end(&mut answers)).await.unwrap();
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn senders_that_lie_leave_nothing() {
    let Receiver { folder, into, id, url, mut program, _told } = Receiver::start().await;
    let id = id.parse().unwrap();
    let root = Root::new();
    let overlay = Overlay::builder(&root).bootstrap(url).start().await.unwrap();
    let offer = |name: &str, size: u64| message(json!({"name": name, "size": size}));
    let start = |from: u64| message(json!({"from": from}));
    let protocol = "does not keep to the protocol";
    for (says, answer) in [
        (vec![&offer("../outside", 1)[..]], protocol),
        (vec![&offer("/tmp/outside", 1)], protocol),
        (vec![&offer("x.part", 1)], protocol),
        (vec![b"\xff\xff"], protocol),
        (vec![b"\x00\x02{]"], protocol),
        (vec![b"\x00"], "broke off"),
        (vec![&offer("huge", u64::MAX)], "are taken at most"),
        (vec![&offer("a", 4), &start(3), b"true", &[0; 32]], "was not agreed on"),
        (vec![&offer("b", 4), &start(0), b"true", &[0; 32]], "its SHA-256 does not fit"),
        (vec![&offer("c", 4), &start(0), b"more than four", &[0; 32]], "its SHA-256 does not fit"),
        (vec![&offer("d", 4)], "broke off"),
        (vec![&offer("e", 4), &start(0), b"tru"], "broke off"),
    ] {
        let answered = raw(&overlay, id, &says).await;
        assert!(answered.contains(answer), "{says:?}: {answered}");
    }
    let files = |folder: &Path| -> Vec<_> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!((files(folder.path()), files(&into)), (vec!["into".to_owned()], vec!["e.part".to_owned()]));
    assert_eq!(program.try_wait().unwrap(), None, "it goes on");
}

#[tokio::test]
async fn a_sender_is_told_why_although_nobody_reads_it_here() {
    let Receiver { folder: _folder, id, url, program: _program, _told: told, .. } = Receiver::start().await;
    drop(told);
    let root = Root::new();
    let overlay = Overlay::builder(&root).bootstrap(url).start().await.unwrap();
    let answered = raw(&overlay, id.parse().unwrap(), &[&message(json!({"name": "../outside", "size": 1}))]).await;
    assert!(answered.contains("does not keep to the protocol"), "{answered}");
}
