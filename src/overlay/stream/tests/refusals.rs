//! Dialling that fails, and those who are not who they say.

use super::*;
use crate::overlay::Distance;

#[tokio::test(start_paused = true)]
async fn nobody_answers() {
    let net = Net::new(Path::of(10));
    let (a, alice) = net.peer(1);
    let start = Instant::now();
    let nobody = OverlayId::from_bytes([7; 20]);
    let (one, two) = tokio::join!(alice.dial(nobody, "files"), alice.dial(nobody, "files"));
    assert_eq!((one.unwrap_err(), two.unwrap_err()), (DialError::TimedOut, DialError::TimedOut));
    assert_eq!(start.elapsed().as_secs(), DIAL_TIMEOUT.as_secs());
    assert_eq!(alice.dial(OverlayId::from_bytes([0; 20]), "files").await.unwrap_err(), DialError::TimedOut);
    assert_eq!(alice.dial(a, "files").await.unwrap_err(), DialError::OwnId);
    for name in ["", &"x".repeat(MAX_SERVICE_NAME + 1)] {
        assert_eq!(alice.dial(nobody, name).await.unwrap_err(), DialError::InvalidName);
        assert_eq!(alice.listen(name).unwrap_err(), ListenError::InvalidName);
    }
    assert_eq!(alice.pool.len(), 0, "nothing is kept of them");
    // And nobody waits for them.
    let start = Instant::now();
    alice.close().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn services_come_and_go() {
    let net = Net::new(Path::of(10));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    assert_eq!(alice.dial(b, "files").await.unwrap_err(), DialError::NoSuchService);
    let mut listener = bob.listen("files").unwrap();
    assert_eq!(bob.listen("files").unwrap_err(), ListenError::InUse);
    let mut accepted_by_peer = alice.dial(b, "files").await.unwrap();
    let mut waiting = alice.dial(b, "files").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    drop(listener);
    assert_eq!(waiting.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(alice.dial(b, "files").await.unwrap_err(), DialError::NoSuchService);
    accepted.write_u8(7).await.unwrap();
    assert_eq!(accepted_by_peer.read_u8().await.unwrap(), 7, "it stays");
    assert!(bob.listen("files").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_accept_is_busy() {
    let net = Net::new(Path::of(10));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    let mut streams = Vec::new();
    for _ in 0..BACKLOG {
        streams.push(alice.dial(b, "files").await.unwrap());
    }
    assert_eq!(alice.dial(b, "files").await.unwrap_err(), DialError::Busy);
    listener.accept().await.unwrap();
    assert!(alice.dial(b, "files").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn connections_that_we_make_are_bounded() {
    let net = Net::new(Path::of(10));
    let (_, alice) = net.peer(1);
    let nobody = |number| OverlayId::from_bytes([number as u8; 20]);
    let dials = (0..MAX_CONNECTIONS).map(|number| {
        // The first of these ids is no address.
        let to = if number == 0 { nobody(1).at(&Distance::power_of_two(0)) } else { nobody(number) };
        alice.dial(to, "files")
    });
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        alice.dial(net.peer(2).0, "files").await
    };
    let (dialled, late) = tokio::join!(futures_util::future::join_all(dials), late);
    assert!(dialled.into_iter().all(|dialled| dialled.unwrap_err() == DialError::TimedOut));
    assert_eq!(late.unwrap_err(), DialError::TooManyPeers);
    assert_eq!(alice.pool.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn handshakes_that_others_make_are_bounded() {
    let path = Path::of(100);
    let net = Net::new(path);
    let ((b, bob), (_, alice)) = (net.peer(1), net.peer(2));
    echo(bob.listen("echo").unwrap());
    let others: Vec<_> = (0..incoming::MAX_HANDSHAKES).map(|number| net.peer(10 + number as u8).1).collect();
    let flood = futures_util::future::join_all(others.iter().map(|other| other.dial(b, "echo")));
    let honest = async {
        // Their first packets have arrived, and no more will.
        tokio::time::sleep(Duration::from_millis(150)).await;
        net.set(path.loss(1000));
        tokio::time::sleep(Duration::from_millis(500)).await;
        others.iter().for_each(|other| drop(net.attach(other.id)));
        net.set(path);
        let first = alice.dial(b, "echo").await.map(drop);
        tokio::time::sleep(Duration::from_secs(15)).await;
        echoes(alice.dial(b, "echo").await.unwrap(), b"hello").await;
        first
    };
    let (flood, first) = tokio::join!(flood, honest);
    assert!(flood.into_iter().all(|dialled| dialled.is_err()));
    assert_eq!(first, Err(DialError::Busy));
}

#[tokio::test(start_paused = true)]
async fn who_answers_for_another_id_gets_nothing() {
    let net = Net::new(Path::of(10));
    let (_, alice) = net.peer(1);
    let bob = OverlayId::of(&Identity::from_secret([2; 32]).peer_id());
    let mallory = Streams::new(&Identity::from_secret([3; 32]), net.attach(bob));
    let mut listener = mallory.listen("files").unwrap();
    assert_eq!(alice.dial(bob, "files").await.unwrap_err(), DialError::NotAuthentic);
    assert!(timeout(Duration::from_secs(60), listener.accept()).await.is_err(), "no stream");
}

#[tokio::test(start_paused = true)]
async fn who_dials_as_another_id_gets_nothing() {
    let net = Net::new(Path::of(10));
    let (b, bob) = net.peer(2);
    let mut listener = bob.listen("files").unwrap();
    let alice = OverlayId::of(&Identity::from_secret([1; 32]).peer_id());
    let mallory = Streams::new(&Identity::from_secret([3; 32]), net.attach(alice));
    assert_eq!(mallory.dial(b, "files").await.unwrap_err(), DialError::NotAuthentic);
    assert!(timeout(Duration::from_secs(60), listener.accept()).await.is_err(), "no stream");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_changes_packets_changes_no_stream() {
    let net = Net::new(Path::of(10));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    echo(bob.listen("echo").unwrap());
    let stream = alice.dial(b, "echo").await.unwrap();
    net.set(Path { forged: 50, ..Path::of(10) });
    echoes(stream, &pattern(5_000_000)).await;
}

#[tokio::test(start_paused = true)]
async fn dialling_that_is_given_up_leaves_nothing() {
    let net = Net::new(Path::of(100));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    let mut listener = bob.listen("files").unwrap();
    // Before the connection stands, and while the answer is on its way.
    for millis in [50, 250, 150] {
        assert!(timeout(Duration::from_millis(millis), alice.dial(b, "files")).await.is_err());
    }
    timeout(Duration::from_secs(60), alice.endpoint.wait_idle()).await.unwrap();
    assert_eq!(alice.pool.len(), 0);
    // Those whose request has arrived were accepted, and are reset.
    while let Ok(Some(mut stream)) = timeout(Duration::from_secs(1), listener.accept()).await {
        assert!(stream.read_u8().await.is_err());
    }
    assert!(alice.dial(b, "files").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn junk_is_nobody() {
    let net = Net::new(Path::of(1));
    let ((_, alice), (b, bob)) = (net.peer(1), net.peer(2));
    echo(bob.listen("echo").unwrap());
    let mallory = net.attach(OverlayId::from_bytes([9; 20]));
    for len in 0..2000 {
        std::future::poll_fn(|cx| mallory.poll_writable(cx)).await;
        let mut junk = pattern(len * 31 % 20_000);
        junk.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= (len * at) as u8);
        mallory.try_send(&b, junk.into()).unwrap();
    }
    echoes(alice.dial(b, "echo").await.unwrap(), b"hello").await;
}
