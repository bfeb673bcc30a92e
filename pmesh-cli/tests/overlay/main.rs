//! The overlay from the command line: peers in a line, streams, files.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod files;

use std::path::Path;
use std::process::{Output, Stdio};

use common::{Running, events, output, program, soon};
use pmesh::onramp::Onramp;
use pmesh::overlay::{Overlay, OverlayId};
use pmesh::{Identity, Root};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr};

/// Three key files and their ids, in a line: the middle one is between the others by XOR, so messages find their way along the line.
fn line(folder: &TempDir) -> [(String, OverlayId); 3] {
    let mut keys = [0, 1, 2].map(|n| {
        let file = folder.path().join(format!("{n}.pem"));
        let id = OverlayId::of(&Identity::create(&file).unwrap().peer_id());
        (file.to_str().unwrap().to_owned(), id)
    });
    let apart = |at: usize, keys: &[(String, OverlayId); 3]| keys[(at + 1) % 3].1.xor(&keys[(at + 2) % 3].1);
    let middle = (0..3).max_by_key(|at| apart(*at, &keys)).unwrap();
    keys.swap(1, middle);
    keys
}

/// A peer that listens for neighbours, and its URL.
async fn hub(key: &str) -> (Running, String) {
    let mut hub = Running::overlay(&["--identity", key, "--listen", "127.0.0.1:0"]);
    let url = format!("ws://{}", hub.event("overlay-ready").await["listen"].as_str().unwrap());
    (hub, url)
}

fn bytes(length: u32, seed: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

/// A program that says on standard error who it is, and perhaps where it listens.
async fn introduced(child: &mut Child, listens: bool) -> (String, String, BufReader<ChildStderr>) {
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let (mut id, mut place) = (String::new(), String::new());
    soon(told.read_line(&mut id)).await.unwrap();
    if listens {
        soon(told.read_line(&mut place)).await.unwrap();
    }
    let url = place.split_whitespace().last().unwrap_or_default();
    (id.trim().to_owned(), url.to_owned(), told)
}

async fn feed(mut child: Child, input: Vec<u8>) -> Output {
    let mut to = child.stdin.take().unwrap();
    let writing = tokio::spawn(async move { to.write_all(&input).await });
    let output = soon(child.wait_with_output()).await.unwrap();
    writing.await.unwrap().unwrap();
    output
}

/// As a user would.
fn stop(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn told(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn messages_and_connections_along_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let [(a_key, a_id), (b_key, b_id), (c_key, c_id)] = line(&folder);
    let (mut a, a_url) = hub(&a_key).await;
    let mut b = Running::overlay(&["--identity", &b_key, "--listen", "127.0.0.1:0", "--bootstrap", &a_url]);
    let ready = b.event("overlay-ready").await;
    assert_eq!(ready["id"], json!(b_id));
    let b_url = format!("ws://{}", ready["listen"].as_str().unwrap());
    let mut c = Running::overlay(&["--identity", &c_key, "--bootstrap", &b_url]);
    assert_eq!(c.event("overlay-ready").await, json!({"event": "overlay-ready", "id": c_id}));
    for (peer, neighbour) in [(&mut a, b_id), (&mut b, c_id), (&mut c, b_id)] {
        peer.find(json!({"event": "overlay-peer", "id": neighbour})).await;
    }

    a.command(json!({"cmd": "overlay-send", "id": c_id, "json": {"hello": [1, 2]}, "confirm": 20})).await;
    assert_eq!(
        c.event("overlay-message").await,
        json!({"event": "overlay-message", "from": a_id, "json": {"hello": [1, 2]}})
    );
    a.find(json!({"event": "overlay-sent", "id": c_id})).await;
    c.command(json!({"cmd": "overlay-send", "id": a_id, "base64": "AAH/"})).await;
    assert_eq!(a.event("overlay-binary").await, json!({"event": "overlay-binary", "from": c_id, "base64": "AAH/"}));

    a.command(json!({"cmd": "overlay-connect", "id": c_id})).await;
    let open = a.find(json!({"event": "open", "node": c_id})).await;
    a.find(json!({"event": "overlay-connected", "id": c_id})).await;
    // It is said as well if there is nothing to be done.
    a.command(json!({"cmd": "overlay-connect", "id": c_id})).await;
    a.find(json!({"event": "overlay-connected", "id": c_id})).await;
    assert_eq!(open["kind"], "webrtc");
    a.find(json!({"event": "overlay-peer", "id": c_id})).await;
    a.command(json!({"cmd": "table"})).await;
    let table = a.event("table").await;
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["role"].is_string() && row["peer"] == json!(b_id)), "{table}");
    a.command(json!({"cmd": "overlay-disconnect", "id": c_id})).await;
    a.find(json!({"event": "close", "node": c_id})).await;

    c.command(json!({"cmd": "quit"})).await;
    assert_eq!(c.end().await, Some(0));
    b.find(json!({"event": "overlay-peer-left", "id": c_id})).await;
}

#[tokio::test]
async fn commands_that_cannot_be_carried_out_are_errors() {
    let (mut peer, _) = hub_alone().await;
    let nobody = OverlayId::from_bytes([7; OverlayId::BYTES]);
    for (command, reason) in [
        (json!({"cmd": "overlay-send", "id": "abc", "json": 1}), Value::Null),
        (json!({"cmd": "overlay-send", "id": nobody, "json": 1, "base64": ""}), Value::Null),
        (json!({"cmd": "overlay-send", "id": nobody, "json": 1, "confirm": -1}), Value::Null),
        (json!({"cmd": "overlay-send", "id": nobody, "json": 1, "confirm": 5}), json!("noRoute")),
        (json!({"cmd": "overlay-send", "id": nobody, "json": "x".repeat(100_000)}), json!("tooLarge")),
    ] {
        peer.command(command.clone()).await;
        let error = peer.event("error").await;
        assert_eq!((&error["node"], &error["reason"]), (&command["id"], &reason), "{error}");
    }
    let onramp = onramp().await;
    let mut without = Running::peer(&onramp, &[]);
    without.command(json!({"cmd": "table"})).await;
    assert!(without.event("error").await["message"].as_str().unwrap().contains("--overlay"));
    let bad = output(&["peer", "--json", "--listen", "127.0.0.1:99999"]).await;
    assert_eq!((bad.status.code(), &events(&bad)[0]["event"]), (Some(1), &json!("error")));
}

#[tokio::test]
async fn more_messages_than_can_wait_are_read_when_it_is_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let [(key, id), ..] = line(&folder);
    let (_hub, url) = hub(&key).await;
    let peer = program(&["peer", "--json", "--bootstrap", &url]).stdin(Stdio::piped()).spawn().unwrap();
    let line = format!("{}\n", json!({"cmd": "overlay-send", "id": id, "json": "one of many"}));
    let peer = feed(peer, format!("{}{{\"cmd\":\"quit\"}}\n", line.repeat(20_000)).into_bytes()).await;
    let mut errors = events(&peer);
    errors.retain(|event| event["event"] == "error");
    // Those that waited at the end, and no others.
    assert!(errors.len() < 5000 && errors.iter().all(|error| error["reason"] == "closed"), "{errors:?}");
    assert_eq!(peer.status.code(), Some(0));
}

#[tokio::test]
async fn what_leads_to_nobody_is_an_error() {
    let onramp = onramp().await;
    let nowhere = "ws://127.0.0.1:1/";
    let secret = format!("{nowhere}?token=secret");
    let (_hub, url) = hub_alone().await;
    let walled = walled().await;
    let urls = [&secret, &onramp, &walled, &url].map(|url| ["--bootstrap", url]);
    let mut peer = Running::overlay(&urls.concat());
    for (url, reason, told) in [
        (nowhere, "failed", "could not connect: "),
        (&onramp, "noPeer", "(if it is an onramp, say --onramp)"),
        (&walled, "notLoggedIn", "status 401: Unauthorized (if it is an onramp, see `pmesh login`, and say --onramp)"),
    ] {
        let error = peer.find(json!({"event": "error", "node": url, "reason": reason})).await;
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
    let nobody = OverlayId::from_bytes([7; OverlayId::BYTES]);
    peer.command(json!({"cmd": "overlay-send", "id": nobody, "json": 1})).await;
    peer.find(json!({"event": "error", "node": nobody, "reason": "noRoute"})).await;
}

/// A server that wants a login of everybody.
async fn walled() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut client = BufReader::new(client);
            let mut line = String::new();
            while client.read_line(&mut line).await.unwrap() > 2 {
                line.clear();
            }
            client.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    });
    url
}

async fn hub_alone() -> (Running, String) {
    let mut hub = Running::overlay(&["--listen", "127.0.0.1:0"]);
    let url = format!("ws://{}", hub.event("overlay-ready").await["listen"].as_str().unwrap());
    (hub, url)
}

async fn onramp() -> String {
    let onramp = Onramp::bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    url
}

#[tokio::test]
async fn a_chat_sends_to_an_id() {
    let (mut hub, url) = hub_alone().await;
    let mut chat = program(&["peer", "--loopback", "--bootstrap", &url]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = chat.stdin.take().unwrap();
    let mut lines = BufReader::new(chat.stdout.take().unwrap()).lines();
    let mut line = async || soon(lines.next_line()).await.unwrap().unwrap();
    let id = line().await.strip_prefix("* in the overlay as ").unwrap().to_owned();
    let neighbour = hub.event("overlay-peer").await["id"].clone();
    assert_eq!(neighbour, json!(id));
    let there = line().await;
    let hub_id = there.strip_prefix("* ").unwrap().strip_suffix(" is a neighbour").unwrap();
    input.write_all(format!("/to {hub_id} good day\n").as_bytes()).await.unwrap();
    assert_eq!(hub.event("overlay-message").await["json"], json!("good day"));
    hub.command(json!({"cmd": "overlay-send", "id": id, "json": "\u{1b}[2J"})).await;
    assert_eq!(line().await, format!("{hub_id}: \"\\u001b[2J\""));
    // Who is a neighbour by a WebSocket only does not get what goes to everybody.
    input.write_all(b"good day\n").await.unwrap();
    assert_eq!(line().await, "! nobody is there to read this");
    hub.command(json!({"cmd": "quit"})).await;
    assert_eq!(line().await, format!("* {hub_id} is no neighbour any more"));
}

#[tokio::test]
async fn a_stream_carries_both_ways_over_a_third() {
    let folder = tempfile::tempdir().unwrap();
    let [(listen_key, listen_id), (hub_key, _), (dial_key, _)] = line(&folder);
    let (mut hub, url) = hub(&hub_key).await;
    let options = ["--bootstrap", &url, "--loopback", "--identity"];
    let listen = [&["cat", "listen", "--service", "a test"], &options[..], &[&listen_key]].concat();
    let mut listen = program(&listen).stdin(Stdio::piped()).spawn().unwrap();
    let (id, _, _told) = introduced(&mut listen, false).await;
    assert_eq!(id, listen_id.to_string());
    hub.find(json!({"event": "overlay-peer", "id": id})).await;
    let dial = [&["cat", "dial", &id, "--service", "a test"], &options[..], &[&dial_key]].concat();
    let dial = program(&dial).stdin(Stdio::piped()).spawn().unwrap();
    let (there, back) = (bytes(10_000_000, 1), bytes(10_000_000, 2));
    let (listen, dial) = tokio::join!(feed(listen, back.clone()), feed(dial, there.clone()));
    assert_eq!((listen.status.code(), dial.status.code()), (Some(0), Some(0)), "{}", told(&dial));
    assert!(listen.stdout == there && dial.stdout == back);
}

#[tokio::test]
async fn one_direction_ends_before_the_other() {
    let chord = ["--overlay", "chord"];
    let listen = [&["cat", "listen", "--listen", "127.0.0.1:0"], &chord[..]].concat();
    let mut listen = program(&listen).stdin(Stdio::null()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut listen, true).await;
    let dial = [&["cat", "dial", &id, "--bootstrap", &url], &chord[..]].concat();
    let mut dial = program(&dial).stdin(Stdio::piped()).spawn().unwrap();
    // The end of the other direction comes while this one is open.
    let mut out = dial.stdout.take().unwrap();
    assert_eq!(soon(out.read(&mut [0])).await.unwrap(), 0);
    let sent = bytes(1_000_000, 3);
    let (dial, listen) = tokio::join!(feed(dial, sent.clone()), soon(listen.wait_with_output()));
    assert_eq!((dial.status.code(), listen.as_ref().unwrap().status.code()), (Some(0), Some(0)), "{}", told(&dial));
    assert!(listen.unwrap().stdout == sent);
}

/// Though nobody types anything.
#[tokio::test]
async fn who_is_left_alone_with_an_open_input_ends() {
    let mut listen = program(&["cat", "listen", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut listen, true).await;
    let mut dial = program(&["cat", "dial", &id, "--bootstrap", &url]).stdin(Stdio::piped()).spawn().unwrap();
    let _input = dial.stdin.take();
    let mut out = dial.stdout.take().unwrap();
    assert_eq!(soon(out.read(&mut [0])).await.unwrap(), 0, "the other direction has ended");
    stop(&listen);
    // That the other side wants no more may arrive before its end, or not.
    let dial = soon(dial.wait_with_output()).await.unwrap();
    assert!(dial.status.success() || told(&dial).contains("the stream broke: the "), "{}", told(&dial));
}

/// One that answers and goes, as a clock does.
#[tokio::test]
async fn what_has_arrived_is_written_though_the_other_side_wants_no_more() {
    let root = Root::new();
    let overlay = Overlay::builder(&root).listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let url = format!("ws://{}", overlay.local_addr().unwrap());
    let mut streams = overlay.listen("clock").unwrap();
    let id = overlay.id().to_string();
    let dial = ["cat", "dial", &id, "--service", "clock", "--bootstrap", &url];
    let mut dial = program(&dial).stdin(Stdio::piped()).spawn().unwrap();
    let _input = dial.stdin.take();
    let mut stream = soon(streams.accept()).await.unwrap();
    let answer = bytes(1_000_000, 5);
    stream.write_all(&answer).await.unwrap();
    soon(stream.delivered()).await.unwrap();
    drop(stream);
    let dial = soon(dial.wait_with_output()).await.unwrap();
    assert_eq!(dial.status.code(), Some(0), "{}", told(&dial));
    assert!(dial.stdout == answer, "{} bytes", dial.stdout.len());
}

#[tokio::test]
async fn a_stream_that_nobody_reads_to_its_end_is_no_failure() {
    let mut listen = program(&["cat", "listen", "--listen", "127.0.0.1:0"]).stdin(Stdio::piped()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut listen, true).await;
    let mut dial = program(&["cat", "dial", &id, "--bootstrap", &url]).stdin(Stdio::piped()).spawn().unwrap();
    drop(dial.stdout.take());
    let mut says = listen.stdin.take().unwrap();
    tokio::spawn(async move { while says.write_all(&[b'x'; 4096]).await.is_ok() {} });
    assert_eq!(soon(dial.wait()).await.unwrap().code(), Some(0));
    let mut told = String::new();
    soon(dial.stderr.take().unwrap().read_to_string(&mut told)).await.unwrap();
    assert_eq!(told, "");
    soon(listen.kill()).await.unwrap();
}

#[tokio::test]
async fn an_onramp_is_a_way_into_the_overlay() {
    let onramp = onramp().await;
    let options = ["--onramp", &onramp, "--loopback"];
    let mut listen = program(&[&["cat", "listen"], &options[..]].concat()).stdin(Stdio::piped()).spawn().unwrap();
    let (id, _, _told) = introduced(&mut listen, false).await;
    let dial = program(&[&["cat", "dial", &id], &options[..]].concat()).stdin(Stdio::piped()).spawn().unwrap();
    let (listen, dial) = tokio::join!(feed(listen, b"pong".to_vec()), feed(dial, b"ping".to_vec()));
    assert_eq!((&listen.stdout[..], &dial.stdout[..]), (&b"ping"[..], &b"pong"[..]), "{}", told(&dial));
}

/// An onramp that is started at this address, and stopped.
async fn onramp_at(address: &str) -> (String, impl AsyncFnOnce()) {
    let onramp = Onramp::bind(address).await.unwrap();
    let url = onramp.url();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(onramp.run(stopped));
    (url, async move || {
        drop(stop);
        soon(running).await.unwrap();
    })
}

#[tokio::test]
async fn an_onramp_that_comes_back_is_dialled_again() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut stop) = onramp_at("127.0.0.1:0").await;
    let options = ["--onramp", &url, "--loopback"];
    let receive = [&["receive", folder.path().to_str().unwrap()], &options[..]].concat();
    let mut receive = program(&receive).stdin(Stdio::null()).spawn().unwrap();
    let (id, _, says) = introduced(&mut receive, false).await;
    let mut says = says.lines();
    let file = folder.path().join("source");
    let address = url.strip_prefix("ws://").unwrap().trim_end_matches('/');
    for name in ["one", "two", "three"] {
        let file = file.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, name).unwrap();
        let sent = output(&[&["send", file.to_str().unwrap(), &id], &options[..]].concat()).await;
        assert_eq!(sent.status.code(), Some(0), "{}", told(&sent));
        stop().await;
        let lost = soon(says.next_line()).await.unwrap().unwrap();
        assert!(lost.starts_with(&format!("{url} is lost, and dialled again: ")), "{lost}");
        (_, stop) = onramp_at(address).await;
        let back = soon(says.next_line()).await.unwrap().unwrap();
        assert_eq!(back, format!("{url} is back"));
    }
}

/// An onramp that takes connections and says nothing.
#[tokio::test]
async fn a_silent_onramp_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("ws://{}", listener.local_addr().unwrap());
    let options = ["--onramp", &silent, "--connect-timeout", "60000"];
    let nobody = OverlayId::from_bytes([7; OverlayId::BYTES]).to_string();
    let dial = output(&[&["cat", "dial", &nobody, "--timeout", "0.5"], &options[..]].concat()).await;
    assert_eq!(dial.status.code(), Some(1));
    assert!(told(&dial).contains("nobody was met in time"), "{}", told(&dial));

    let listen = [&["cat", "listen", "--listen", "127.0.0.1:0"], &options[..]].concat();
    let mut listen = program(&listen).stdin(Stdio::null()).spawn().unwrap();
    let (id, url, _told) = introduced(&mut listen, true).await;
    let dial = output(&[&["cat", "dial", &id, "--bootstrap", &url], &options[..]].concat()).await;
    assert_eq!((dial.status.code(), told(&dial)), (Some(0), ""));
}

#[tokio::test]
async fn who_waits_is_told_of_a_wrong_way() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["cat", "listen"][..], &["receive", folder.path().to_str().unwrap()]] {
        let listen = [command, &["--bootstrap", "ws://127.0.0.1:1"]].concat();
        let mut listen = program(&listen).stdin(Stdio::null()).spawn().unwrap();
        let (_, _, told) = introduced(&mut listen, false).await;
        let wrong = soon(told.lines().next_line()).await.unwrap().unwrap();
        assert!(wrong.starts_with("cannot begin at ws://127.0.0.1:1: could not connect: "), "{wrong}");
    }
}

/// The paths of `file!` are relative to it.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[tokio::test]
async fn who_waits_for_an_answer_is_told_once() {
    let (_hub, url) = hub_alone().await;
    let nobody = OverlayId::from_bytes([7; OverlayId::BYTES]).to_string();
    // Longer than two attempts.
    let dial = output(&["cat", "dial", &nobody, "--bootstrap", &url, "--timeout", "7"]).await;
    let waits = format!("waiting: {nobody} does not answer yet\npmesh cat: {nobody} does not answer in time");
    assert!(told(&dial).starts_with(&waits), "{}", told(&dial));
}

#[tokio::test]
async fn nobody_has_that_id() {
    let (_hub, url) = hub_alone().await;
    let nobody = OverlayId::from_bytes([7; OverlayId::BYTES]).to_string();
    let missing = format!("{nobody} does not answer in time");
    let unmet = "nobody was met in time, so there is no way into the overlay: cannot begin at ws://127.0.0.1:1: ";
    for (arguments, code, message) in [
        (&["cat", "dial", &nobody, "--bootstrap", &url, "--timeout", "1"][..], 1, missing.as_str()),
        (&["send", file!(), &nobody, "--bootstrap", &url, "--timeout", "1"], 1, &missing),
        (&["cat", "dial", &nobody, "--bootstrap", "ws://127.0.0.1:1", "--timeout", "1"], 1, unmet),
        (
            &["cat", "listen", "--onramp", "ws://127.0.0.1:1"],
            1,
            "the overlay: cannot meet anybody at ws://127.0.0.1:1: ",
        ),
        (&["cat", "dial", &nobody, "--overlay", "chord"], 1, "there is no way into the overlay"),
        (&["cat", "dial", "abc", "--bootstrap", &url], 2, "40 hexadecimal digits"),
        (&["cat", "listen"], 2, "--bootstrap"),
    ] {
        let output = soon(program(arguments).current_dir(root()).stdin(Stdio::null()).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains(message), "{}", told(&output));
    }
}
