//! Streams over a network in memory, in virtual time.

mod net;
mod paths;
mod refusals;
mod speed;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use self::net::{Net, Path};
use super::outgoing::IDLE;
use super::*;

/// Bytes that tell where they are.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Gives back what each stream says, until it ends.
fn echo(mut listener: Listener) {
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
}

/// Checks that what is sent comes back.
async fn echoes(stream: Stream, sent: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), received) =
        timeout(Duration::from_secs(60), async { tokio::join!(send, read.read_to_end(&mut got)) }).await.unwrap();
    received.unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_between_two_keys() {
    let net = Net::new(Path::of(10));
    let ((a, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut files = bob.listen("files").unwrap();
    let (dialled, accepted) = tokio::join!(alice.dial(b, "files"), files.accept());
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    let peer = |secret| Identity::from_secret([secret; 32]).peer_id();
    assert_eq!((dialled.peer_id(), dialled.overlay_id(), dialled.service()), (peer(2), b, "files"));
    assert_eq!((accepted.peer_id(), accepted.overlay_id(), accepted.service()), (peer(1), a, "files"));

    // Each direction ends on its own.
    dialled.write_all(b"question").await.unwrap();
    dialled.shutdown().await.unwrap();
    dialled.shutdown().await.unwrap();
    assert_eq!(dialled.write(b"more").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    let mut text = String::new();
    accepted.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    accepted.write_all(b"answer").await.unwrap();
    accepted.shutdown().await.unwrap();
    drop(accepted);
    let mut text = String::new();
    dialled.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_streams_at_once_both_ways() {
    let net = Net::new(Path::of(5));
    let ((a, alice), (b, bob)) = (net.peer(1), net.peer(2));
    echo(alice.listen("echo").unwrap());
    echo(bob.listen("echo").unwrap());
    let (alice, bob) = (Arc::new(alice), Arc::new(bob));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (from, to) = if number % 2 == 0 { (&alice, b) } else { (&bob, a) };
        let from = Arc::clone(from);
        tasks.spawn(async move {
            let stream = from.dial(to, "echo").await.unwrap();
            echoes(stream, &pattern(1000 * number)).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(alice.endpoint.stats().outgoing_handshakes, 1, "one connection for all that one side dials");
    assert_eq!(bob.endpoint.stats().outgoing_handshakes, 1);
}

#[tokio::test(start_paused = true)]
async fn twenty_megabytes() {
    for path in [Path::of(0), Path::of(20).hop(20_000_000, 500_000), Path::of(10).loss(10)] {
        let net = Net::new(path);
        let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
        let mut listener = bob.listen("big").unwrap();
        let sent = pattern(20_000_000);
        let send = async {
            let mut stream = alice.dial(b, "big").await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let receive = async {
            let mut got = Vec::new();
            listener.accept().await.unwrap().read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(send, receive);
        assert!(got == sent, "{} bytes over {path:?}", got.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_its_writer_only() {
    let net = Net::new(Path::of(1));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut slow = bob.listen("slow").unwrap();
    echo(bob.listen("echo").unwrap());
    let mut stream = alice.dial(b, "slow").await.unwrap();
    let mut unread = slow.accept().await.unwrap();
    let mut written = 0;
    let chunk = pattern(10_000);
    while let Ok(len) = timeout(Duration::from_secs(5), stream.write(&chunk)).await {
        written += len.unwrap();
    }
    // The window, of which the request has taken some.
    let window = config::STREAM_WINDOW as usize;
    assert!((window - 10..=window).contains(&written), "{written} bytes are held");
    // Another stream of the same connection gets through all the same.
    echoes(alice.dial(b, "echo").await.unwrap(), &pattern(100_000)).await;
    let mut got = vec![0; written];
    unread.read_exact(&mut got).await.unwrap();
    stream.write_all(b"end").await.unwrap();
    unread.read_exact(&mut [0; 3]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_reset_and_what_is_shut_down_arrives() {
    let net = Net::new(Path::of(50).hop(100_000, 200_000));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let mut stream = alice.dial(b, "files").await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    drop(stream);
    let error = accepted.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // It takes longer than an idle connection lives.
    let sent = pattern(5_000_000);
    let mut stream = alice.dial(b, "files").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    let send = async {
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
    };
    let mut got = Vec::new();
    let start = Instant::now();
    let ((), received) = tokio::join!(send, accepted.read_to_end(&mut got));
    received.unwrap();
    assert!(got == sent);
    assert!(start.elapsed() > IDLE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_is_closed() {
    let net = Net::new(Path::of(10));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    echo(bob.listen("echo").unwrap());
    let stream = alice.dial(b, "echo").await.unwrap();
    tokio::time::sleep(IDLE * 10).await;
    assert_eq!(alice.endpoint.open_connections(), 1, "a stream keeps it open");
    let start = Instant::now();
    echoes(stream, b"still here").await;
    timeout(IDLE * 2, alice.endpoint.wait_idle()).await.unwrap();
    timeout(IDLE * 2, bob.endpoint.wait_idle()).await.unwrap();
    assert!(start.elapsed() >= IDLE && start.elapsed() < IDLE + Duration::from_secs(5), "{:?}", start.elapsed());
    echoes(alice.dial(b, "echo").await.unwrap(), b"again").await;
}

#[tokio::test(start_paused = true)]
async fn closing_tells_everybody() {
    let net = Net::new(Path::of(10));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let mut stream = alice.dial(b, "files").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    let start = Instant::now();
    bob.close().await;
    bob.close().await;
    assert!(listener.accept().await.is_none());
    assert_eq!(bob.listen("other").unwrap_err(), ListenError::Closed);
    assert_eq!(bob.dial(net.peer(3).0, "files").await.unwrap_err(), DialError::Closed);
    assert_eq!(accepted.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(start.elapsed() < CLOSE_TIMEOUT + Duration::from_millis(100), "{:?}", start.elapsed());
    drop((alice, bob));
}
