use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_seen_by_the_other_side() {
    for remote in [pmesh(), Remote::Original] {
        let (mut a, mut b) = open_with(&loopback(), remote).await;
        let start = Instant::now();
        a.command(Command::Close);
        assert_eq!(b.closed().await, CloseReason::Remote);
        let seen = start.elapsed();
        assert_eq!(a.closed().await, CloseReason::Local);
        println!("close seen after {seen:?}, done after {:?}", start.elapsed());
        assert!(seen < Duration::from_secs(1), "{seen:?}");
        drop((a.pipe, b.pipe));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_right_before_closing_arrives() {
    for remote in [pmesh(), Remote::Original] {
        let (mut a, mut b) = open_with(&loopback(), remote).await;
        let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
        let reader = tokio::spawn(async move {
            let mut got = 0;
            while let Some((_, body)) = next(&mut messages).await {
                assert_eq!(body.len(), 100_000);
                got += 1;
            }
            got
        });
        for _ in 0..50 {
            a.send(Kind::Binary, vec![0; 100_000]).await;
        }
        a.command(Command::Close);
        assert_eq!(a.closed().await, CloseReason::Local);
        assert_eq!(b.closed().await, CloseReason::Remote);
        assert_eq!(soon(reader).await.unwrap(), 50, "{remote:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_before_it_is_open_ends_it_at_once() {
    let mut early = Peer::start(&loopback(), Target::Offer);
    early.command(Command::Close);
    assert_eq!(early.closed().await, CloseReason::Local);
    let mut offered = Peer::start(&loopback(), Target::Offer);
    offered.description().await;
    offered.command(Command::Close);
    assert_eq!(offered.closed().await, CloseReason::Local);
    assert_eq!(
        offered.pipe.queues().try_send(offered.pipe.queues().main(), Kind::Json, "1".into()),
        Err(Rejected::NotOpen)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_link_ends_it_without_an_event_and_the_other_side_sees_it() {
    let (a, mut b) = open().await;
    let Peer { link, pipe, mut events } = a;
    drop((link, pipe));
    assert_eq!(b.closed().await, CloseReason::Remote);
    assert_eq!(soon(events.recv()).await, None, "no event, and nothing holds the pipe any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_from_a_quiet_link_is_noticed_in_time() {
    let config = WebRtcConfig {
        disconnected_after: Duration::from_millis(800),
        failed_after: Duration::from_millis(400),
        keepalive: Duration::from_millis(400),
        ..config()
    };
    let silence = config.disconnected_after + config.failed_after;
    let transport = WebRtc::new(config);
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    let ours = offer.clone();
    // The other side lives in a runtime of its own, which stops without a word.
    let (answers, mut answer) = mpsc::channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut b = Peer::start(&transport, Target::Answer { offer: offer.clone(), remote: pmesh() });
            let answer = b.description().await;
            let [_, theirs] = confirmations(&offer, &answer);
            b.command(Command::Confirm(Box::new(theirs)));
            answers.send(answer).await.unwrap();
            assert!(b.opened().await);
            stopped.await.unwrap();
        });
    });
    let description = soon(answer.recv()).await.unwrap();
    a.command(Command::Confirm(Box::new(confirmations(&ours, &description)[0].clone())));
    a.command(Command::Answer { description, remote: pmesh() });
    assert!(a.opened().await);
    // A quiet link stays open, for longer than it would without signs of life.
    timeout(3 * silence, a.events.recv()).await.expect_err("nothing happens");
    stop.send(()).unwrap();
    other.join().unwrap();
    let vanished = Instant::now();
    assert!(matches!(a.closed().await, CloseReason::Lost(_)));
    let noticed = vanished.elapsed();
    println!("noticed after {noticed:?}");
    assert!(noticed < silence + Duration::from_secs(1), "{noticed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_left_behind() {
    let metrics = tokio::runtime::Handle::current().metrics();
    drop(open().await);
    let settled = |most: usize| {
        let metrics = metrics.clone();
        async move {
            while metrics.num_alive_tasks() > most {
                tokio::task::yield_now().await;
            }
        }
    };
    soon(settled(0)).await;
    let mut pipes = Vec::new();
    for n in 0..20 {
        let remote = if n % 4 == 0 { Remote::Original } else { pmesh() };
        let (mut a, mut b) = open_with(&loopback(), remote).await;
        pipes.extend([Arc::downgrade(&a.pipe), Arc::downgrade(&b.pipe)]);
        match n % 3 {
            0 => {
                a.command(Command::Close);
                a.closed().await;
                b.closed().await;
            }
            1 => drop(a.link.take()),
            _ => {
                b.command(Command::Close);
                drop((a.link.take(), b.link.take()));
            }
        }
        // Negotiations that are abandoned at each stage.
        drop(Peer::start(&loopback(), Target::Offer));
        let mut offered = Peer::start(&loopback(), Target::Offer);
        let offer = offered.description().await;
        let answering = Peer::start(&loopback(), Target::Answer { offer, remote });
        pipes.extend([Arc::downgrade(&offered.pipe), Arc::downgrade(&answering.pipe)]);
        drop((offered, answering));
    }
    soon(settled(0)).await;
    assert!(pipes.iter().all(|pipe| pipe.upgrade().is_none()), "a connection is kept alive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sides_that_disagree_on_what_they_are_end_with_a_reason() {
    let transport = loopback();
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    let mut b = Peer::start(&transport, Target::Answer { offer, remote: Remote::Original });
    let description = b.description().await;
    a.command(Command::Answer { description, remote: pmesh() });
    assert!(matches!(a.closed().await, CloseReason::Protocol(_)));
}
