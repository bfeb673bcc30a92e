//! The command from outside: its options, what it writes, its exit codes.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::accounts::{Person, send, server, terminate};
use common::{Running, events, ignores_hangup, output, program, soon};
use pmesh::onramp::Onramp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// A key file, and its peer id.
async fn key(folder: &tempfile::TempDir, name: &str) -> (String, String) {
    let file = folder.path().join(name).to_str().unwrap().to_owned();
    let made = output(&["id", "--new", "--json", &file]).await;
    assert!(made.status.success());
    let id = events(&made)[0]["peerId"].as_str().unwrap().to_owned();
    (file, id)
}

#[tokio::test]
async fn a_key_file_is_made_once_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (file, id) = key(&folder, "key.pem").await;
    let shown = output(&["id", &file]).await;
    assert_eq!((shown.status.code(), str::from_utf8(&shown.stdout).unwrap()), (Some(0), format!("{id}\n").as_str()));
    let again = output(&["id", "--new", "--json", &file]).await;
    assert_eq!((again.status.code(), &events(&again)[0]["reason"]), (Some(1), &json!("alreadyExists")));
    assert_eq!(output(&["id", &file]).await.stdout, shown.stdout, "it is as it was");
    let none = output(&["id", "--json", folder.path().join("none").to_str().unwrap()]).await;
    assert_eq!((none.status.code(), &events(&none)[0]["reason"]), (Some(1), &json!("notFound")));
}

#[tokio::test]
async fn peers_know_each_other_by_their_keys() {
    let onramp = Onramp::bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    let folder = tempfile::tempdir().unwrap();
    let (alice_file, alice_id) = key(&folder, "alice.pem").await;
    let (bob_file, bob_id) = key(&folder, "bob.pem").await;
    let (_, carol_id) = key(&folder, "carol.pem").await;

    let mut alice = Running::peer(&url, &["--identity", &alice_file, "--require-identity"]);
    assert_eq!(alice.event("open").await["peerId"], Value::Null, "an onramp has none");
    let mut bob = Running::peer(&url, &["--identity", &bob_file, "--expect", &alice_id]);
    let alice_address = bob.event("message").await["json"].clone();

    // The one that is expected by the command is not there; the one of the command line is.
    bob.command(json!({"cmd": "connect", "to": alice_address, "expect": carol_id})).await;
    let error = bob.event("error").await;
    assert_eq!((&error["reason"], &error["node"]), (&json!("unexpectedPeer"), &alice_address));
    bob.command(json!({"cmd": "connect", "to": alice_address})).await;
    let open = bob.event("open").await;
    assert_eq!((&open["node"], &open["peerId"]), (&alice_address, &json!(alice_id)));
    assert_eq!(alice.event("open").await["peerId"], json!(bob_id));

    alice.command(json!({"cmd": "peers"})).await;
    let peers = alice.event("peers").await;
    assert_eq!(peers["peerId"], json!(alice_id));
    assert!(peers["peers"].as_array().unwrap().iter().any(|peer| peer["peerId"] == json!(bob_id)), "{peers}");

    bob.command(json!({"cmd": "close", "to": alice_address})).await;
    assert_eq!(bob.event("close").await["node"], alice_address);
    for mut peer in [alice, bob] {
        peer.command(json!({"cmd": "quit"})).await;
        assert_eq!(peer.end().await, Some(0));
    }
}

#[tokio::test]
async fn a_peer_without_its_key_file_does_not_start() {
    let output = output(&["peer", "--json", "--onramp", "ws://127.0.0.1:1", "--identity", "/no/such/file"]).await;
    assert_eq!((output.status.code(), &events(&output)[0]["reason"]), (Some(1), &json!("notFound")));
    assert!(str::from_utf8(&output.stderr).unwrap().contains("/no/such/file"));
}

/// As after `nohup`.
#[tokio::test]
async fn the_end_of_the_terminal_is_ignored_if_it_was() {
    let (url, _) = server(&["alice"]).await;
    let alice = Person::log_in(&url, "alice").await;
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$0" "$@""#]).arg(env!("CARGO_BIN_EXE_pmesh"));
    command.args(["who", "--follow", "--login"]).arg(alice.file());
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It listens for signals before it writes.
    soon(lines.next_line()).await.unwrap().unwrap();
    send(&child, "HUP").await;
    assert!(ignores_hangup(&child.id().unwrap().to_string()));
    terminate(&child).await;
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
}

/// Its last lines are to be written, and nobody reads them.
#[tokio::test]
async fn a_second_signal_ends_a_program_that_takes_its_time_to_end() {
    let mut hub = Running::overlay(&["--listen", "127.0.0.1:0"]);
    let url = format!("ws://{}", hub.event("overlay-ready").await["listen"].as_str().unwrap());
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut peer = program(&["peer", "--json", "--bootstrap", &url]).stdin(Stdio::null()).spawn().unwrap();
        let id = hub.event("overlay-peer").await["id"].clone();
        // More than a pipe holds.
        for _ in 0..10 {
            hub.command(json!({"cmd": "overlay-send", "id": id, "json": "x".repeat(20_000), "confirm": 30})).await;
        }
        for _ in 0..10 {
            hub.event("overlay-sent").await;
        }
        send(&peer, signal).await;
        hub.event("overlay-peer-left").await;
        // Whoever does so in anger does so more than twice.
        let killed = async {
            loop {
                send(&peer, signal).await;
                if let Ok(status) = timeout(Duration::from_millis(150), peer.wait()).await {
                    return status.unwrap().code();
                }
            }
        };
        assert_eq!(soon(killed).await, Some(code));
    }
}

#[tokio::test]
async fn a_peer_outlives_its_input_and_not_its_reader() {
    for options in [&["--json"][..], &[]] {
        let peer = [&["peer", "--listen", "127.0.0.1:0"], options].concat();
        let mut peer = program(&peer).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(peer.stdout.take().unwrap()).lines();
        soon(lines.next_line()).await.unwrap().unwrap();
        assert_eq!(peer.try_wait().unwrap(), None);
        drop(lines);
        assert_eq!(soon(peer.wait()).await.unwrap().code(), Some(1));
    }
}

#[tokio::test]
async fn both_ends_of_a_bench() {
    let mut waiting = Running::start(&["bench", "--listen", "127.0.0.1:0", "--loopback", "--json"]);
    let url = waiting.event("listening").await["url"].as_str().unwrap().to_owned();
    let measured = output(&["bench", "--connect", &url, "--loopback", "--json", "--seconds", "0.1"]).await;
    assert_eq!(measured.status.code(), Some(0), "{measured:?}");
    let events = events(&measured);
    let floods: Vec<(&str, u64)> = events
        .iter()
        .filter(|event| event["event"] == "throughput" && event["bytesPerSecond"].as_f64().unwrap() > 0.0)
        .map(|event| (event["direction"].as_str().unwrap(), event["size"].as_u64().unwrap()))
        .collect();
    let sizes = [65_536, 16_384, 100];
    assert_eq!(floods, sizes.map(|size| [("send", size), ("receive", size)]).concat());
    let [.., round_trip, connect] = events.as_slice() else { panic!("{events:?}") };
    assert!(round_trip["p50Micros"].as_f64() > Some(0.0) && round_trip["p99Micros"].as_f64() > Some(0.0));
    assert!(connect["medianMillis"].as_f64() > Some(0.0) && connect["count"].as_u64() > Some(0));
    assert_eq!(waiting.end().await, Some(0), "it ends with the run");
}

#[tokio::test]
async fn a_bench_at_an_onramp_with_accounts() {
    let (url, _) = server(&["alice"]).await;
    let alice = Person::log_in(&url, "alice").await;
    let login = alice.file().to_str().unwrap().to_owned();
    let options = ["--loopback", "--login", &login];
    let waiting = Running::start(&[&["bench", "--listen", &url], &options[..]].concat());
    let measured = output(&[&["bench", "--connect", &url, "--seconds", "0.1"], &options[..]].concat()).await;
    assert_eq!((measured.status.code(), waiting.end().await), (Some(0), Some(0)), "{measured:?}");
    for end in ["--listen", "--connect"] {
        let done = output(&["bench", end, &format!("{url}/?token=T0p-s3cret"), "--json"]).await;
        assert!(done.status.code() == Some(1) && !format!("{done:?}").contains("T0p"), "{done:?}");
    }
}

#[tokio::test]
async fn a_bench_without_another_end_says_so() {
    for (arguments, code, message) in [
        (&["bench", "--listen", "127.0.0.1:0", "--wait", "0.2"][..], 1, "the other end does not come"),
        (&["bench", "--connect", "ws://127.0.0.1:1"], 1, "cannot meet anybody at ws://127.0.0.1:1"),
        (&["bench", "--listen", "no such host:0"], 1, "cannot listen on no such host:0"),
        (&["bench"], 2, "--listen"),
        (&["bench", "--connect", "ws://127.0.0.1:1", "--seconds", "0"], 2, "not a number of seconds"),
    ] {
        let output = output(arguments).await;
        let told = str::from_utf8(&output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(message), "{told}");
    }
    let onramp = Onramp::bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    let alone = output(&["bench", "--connect", &url, "--wait", "0.2", "--json"]).await;
    assert_eq!((alone.status.code(), &events(&alone)[0]["message"]), (Some(1), &json!("there is no other end")));
}
