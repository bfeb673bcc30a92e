//! Paths that change below a stream, and peers that restart.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_moves_to_another_path_and_back() {
    let relayed = Path::of(60).hop(2_000_000, 300_000);
    let direct = Path::of(2).hop(50_000_000, 300_000);
    let net = Net::new(relayed);
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("big").unwrap();
    let sent = pattern(40_000_000);
    let send = async {
        let mut stream = alice.dial(b, "big").await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    };
    let receive = async {
        let mut stream = listener.accept().await.unwrap();
        let mut got = vec![0; sent.len()];
        for (number, part) in got.chunks_mut(4_000_000).enumerate() {
            stream.read_exact(part).await.unwrap();
            // What is on its way over the slow path is overtaken, and a second of packets is lost.
            let next = if number % 2 == 0 { direct } else { relayed };
            net.set(next.loss(1000));
            let net = Arc::clone(&net);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                net.set(next);
            });
        }
        assert!(stream.read_u8().await.is_err(), "the end");
        got
    };
    let start = Instant::now();
    let (_stream, got) = tokio::join!(send, receive);
    assert!(got == sent);
    // 20 MB over the slow path take 10 seconds.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_gone_for_ten_seconds_breaks_nothing() {
    let path = Path::of(20).hop(1_000_000, 300_000);
    let net = Net::new(path);
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    echo(bob.listen("echo").unwrap());
    let busy = alice.dial(b, "echo").await.unwrap();
    let quiet = alice.dial(b, "echo").await.unwrap();
    let gone = tokio::spawn({
        let net = Arc::clone(&net);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            net.set(path.loss(1000));
            tokio::time::sleep(Duration::from_secs(10)).await;
            net.set(path);
        }
    });
    let start = Instant::now();
    echoes(busy, &pattern(3_000_000)).await;
    gone.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(35), "{:?}", start.elapsed());
    echoes(quiet, b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_restarted_is_dialled_again_at_once() {
    let net = Net::new(Path::of(20));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let mut before = alice.dial(b, "files").await.unwrap();
    let _accepted = listener.accept().await.unwrap();

    let (_, again) = net.peer(2);
    echo(again.listen("echo").unwrap());
    let start = Instant::now();
    echoes(alice.dial(b, "echo").await.unwrap(), b"hello").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(before.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_peer_that_has_restarted_and_dials_again_end() {
    let net = Net::new(Path::of(20));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let _before = alice.dial(b, "files").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();

    // Nothing is on its way that would meet a reset.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, again) = net.peer(1);
    let start = Instant::now();
    let _stream = again.dial(b, "files").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_noticed() {
    let net = Net::new(Path::of(20));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let mut stream = alice.dial(b, "files").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    net.set(Path::of(20).loss(1000));
    let start = Instant::now();
    for stream in [&mut stream, &mut accepted] {
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }
    let silence = start.elapsed().as_secs();
    assert!((34..=45).contains(&silence), "{silence} s");
}
