use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_all_sizes_pass_between_pmesh_peers() {
    let (a, b) = open().await;
    for length in [0, 1, 64 << 10, 256 << 10, 1 << 20] {
        echo(&a, &b, Kind::Binary, vec![7; length].into()).await;
        echo(&b, &a, Kind::Binary, vec![8; length].into()).await;
        if length > 0 {
            echo(&a, &b, Kind::Json, json(length)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_all_sizes_pass_as_the_original_sends_them() {
    let (a, b) = open_with(&loopback(), Remote::Original).await;
    for length in [0, 1, 64 << 10, 256 << 10] {
        echo(&a, &b, Kind::Binary, vec![7; length].into()).await;
        echo(&b, &a, Kind::Binary, vec![8; length].into()).await;
        if length > 0 {
            let json = json(length - if length > 4 { 4 } else { 0 });
            echo(&a, &b, Kind::Json, json.clone()).await;
            echo(&b, &a, Kind::Json, json).await;
        }
    }
    let too_large = a.pipe.queues().try_send(a.pipe.queues().main(), Kind::Binary, vec![0; (256 << 10) + 1].into());
    assert_eq!(too_large, Err(Rejected::TooLarge(256 << 10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_read_stops_the_sender_and_nothing_is_lost() {
    let (a, b) = open().await;
    let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
    let mut sent = 0u32;
    // The sender stops for good when neither side can do anything any more: then nothing changes for half a second.
    while timeout(Duration::from_millis(500), send_number(&a, sent)).await.is_ok() {
        sent += 1;
    }
    assert_eq!(
        a.pipe.queues().try_send(a.pipe.queues().main(), Kind::Binary, vec![0; 10_000].into()),
        Err(Rejected::Full)
    );
    assert!(sent < 1000, "{sent} messages of 10 kB and nobody reads");
    let total = sent + 500;
    let sender = tokio::spawn(async move {
        for number in sent..total {
            send_number(&a, number).await;
        }
        a
    });
    for number in 0..total {
        let (_, body) = next(&mut messages).await.unwrap();
        assert_eq!(body[..4], number.to_be_bytes());
    }
    drop(soon(sender).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_messages_without_credit_do_not_stall() {
    let (a, b) = open_with(&loopback(), Remote::Original).await;
    let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
    let start = Instant::now();
    let sender = tokio::spawn(async move {
        for number in 0..20_000u32 {
            a.send(Kind::Binary, number.to_be_bytes().to_vec()).await;
        }
        a
    });
    for number in 0..20_000u32 {
        assert_eq!(next(&mut messages).await.unwrap().1, number.to_be_bytes()[..]);
    }
    println!("20000 messages in {:?}", start.elapsed());
    drop(soon(sender).await.unwrap());
}

async fn send_number(peer: &Peer, number: u32) {
    let mut body = vec![0; 10_000];
    body[..4].copy_from_slice(&number.to_be_bytes());
    peer.pipe.queues().send(peer.pipe.queues().main(), Kind::Binary, body.into()).await.unwrap();
}
