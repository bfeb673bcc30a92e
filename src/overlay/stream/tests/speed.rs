//! How fast a stream is. `PMESH_MEGABYTES=500 cargo test --release --lib overlay::stream::tests::speed -- --nocapture` tells.

use super::*;

/// One stream over a network in memory, in real time.
async fn measure(path: Path, megabytes: usize) -> (f64, u64) {
    let net = Net::new(path);
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("big").unwrap();
    let chunk = pattern(1_000_000);
    let send = tokio::spawn(async move {
        let mut stream = alice.dial(b, "big").await.unwrap();
        for _ in 0..megabytes {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        alice
    });
    let mut stream = listener.accept().await.unwrap();
    let start = Instant::now();
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            len => received += len,
        }
    }
    assert_eq!(received, megabytes * 1_000_000);
    let seconds = start.elapsed().as_secs_f64();
    send.await.unwrap();
    (megabytes as f64 / seconds, net.lost.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput() {
    let most: usize = std::env::var("PMESH_MEGABYTES").map_or(1, |value| value.parse().unwrap());
    for (name, path, megabytes) in [
        ("no delay", Path::of(0), 500),
        ("no delay again", Path::of(0), 500),
        ("10 ms", Path::of(10), 200),
        ("10 ms, hop of 20 MB/s with a queue of 256 KiB", Path::of(10).hop(20_000_000, 256 << 10), 100),
        ("40 ms, hop of 5 MB/s with a queue of 256 KiB", Path::of(40).hop(5_000_000, 256 << 10), 30),
        ("10 ms, 1 % loss", Path::of(10).loss(10), 50),
    ] {
        let (rate, lost) = measure(path, megabytes.min(most)).await;
        println!("{name}: {rate:.1} MB/s, {lost} packets lost");
    }
}
