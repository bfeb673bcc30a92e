//! Links of one shared port.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::*;

/// A transport of its own, as each root has one.
fn sharing(port: u16) -> WebRtc {
    WebRtc::new(WebRtcConfig { shared_port: Some(port), ..config() })
}

/// The port in the candidates of a description, or in the candidate that follows.
async fn port_in(description: &Description, peer: &mut Peer) -> u16 {
    let mut candidates = description.sdp.clone();
    if !candidates.contains("candidate:") {
        match peer.event().await {
            LinkEvent::Candidate(candidate) => candidates = candidate.candidate,
            other => panic!("{other:?}"),
        }
    }
    let lines = candidates.lines().filter(|line| line.contains("candidate:"));
    let ports: HashSet<u16> = lines.map(|line| line.split(' ').nth(5).unwrap().parse().unwrap()).collect();
    assert_eq!(ports.len(), 1, "{candidates}");
    ports.into_iter().next().unwrap()
}

/// The port of a transport, which is bound for it.
async fn port_of(transport: &WebRtc) -> u16 {
    let mut peer = Peer::start(transport, Target::Offer);
    let offer = peer.description().await;
    port_in(&offer, &mut peer).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_links_of_one_port_carry_their_own_messages() {
    let hub = sharing(0);
    let mut pairs = Vec::new();
    for number in 0..20 {
        let other = sharing(0);
        let remote = if number % 4 == 3 { Remote::Original } else { pmesh() };
        pairs.push(match number % 2 {
            0 => open_between(&hub, &other, remote).await,
            _ => open_between(&other, &hub, remote).await,
        });
    }
    let started = Instant::now();
    let echoes = pairs.iter().enumerate().map(|(number, (a, b))| async move {
        for length in [1, 1000, 60_000] {
            echo(a, b, Kind::Binary, vec![number as u8; length].into()).await;
        }
    });
    futures_util::future::join_all(echoes).await;
    println!("twenty links, three echoes each: {:?}", started.elapsed());
}

/// Reads so many messages, and says when the last one was there.
async fn drain(mut messages: Subscription, count: usize) -> Instant {
    for _ in 0..count {
        next(&mut messages).await.unwrap();
    }
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_send_at_once_do_not_stall_and_one_that_nobody_reads_disturbs_nobody() {
    const BYTES: usize = 60_000;
    const COUNT: usize = 60;
    let hub = sharing(0);
    let mut pairs = Vec::new();
    for _ in 0..7 {
        pairs.push(open_between(&sharing(0), &hub, pmesh()).await);
    }
    // Its messages lie in the queue until the credit is used up.
    let (sender, reader) = pairs.pop().unwrap();
    let unread = reader.pipe.queues().subscribe(reader.pipe.queues().main());
    let flood = tokio::spawn(async move {
        while sender.pipe.queues().send(sender.pipe.queues().main(), Kind::Binary, vec![0; BYTES].into()).await.is_ok()
        {
        }
    });
    let started = Instant::now();
    let streams = pairs.iter().map(|(from, to)| async move {
        let received = drain(to.pipe.queues().subscribe(to.pipe.queues().main()), COUNT);
        let sending = async {
            for _ in 0..COUNT {
                from.send(Kind::Binary, vec![1; BYTES]).await;
            }
        };
        let ((), end) = tokio::join!(sending, received);
        end
    });
    let ends = futures_util::future::join_all(streams).await;
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    let megabytes = (pairs.len() * COUNT * BYTES) as f64 / 1e6;
    println!("{megabytes} MB: first {:?}, last {:?}", *first - started, *last - started);
    flood.abort();
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_descriptions_name_the_port() {
    let transport = sharing(0);
    let number = port_of(&transport).await;
    let mut offerers = [Peer::start(&transport, Target::Offer), Peer::start(&transport, Target::Offer)];
    for offerer in &mut offerers {
        let offer = offerer.description().await;
        assert_eq!(port_in(&offer, offerer).await, number);
        let mut answerer = Peer::start(&sharing(0), Target::Answer { offer, remote: pmesh() });
        let answer = answerer.description().await;
        assert_ne!(port_in(&answer, &mut answerer).await, number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_close_and_open_again_between_the_same_ports() {
    let (here, there) = (sharing(0), sharing(0));
    for round in 0..6 {
        let (mut a, mut b) = match round % 2 {
            0 => open_between(&here, &there, pmesh()).await,
            _ => open_between(&there, &here, pmesh()).await,
        };
        echo(&a, &b, Kind::Binary, "hello".into()).await;
        match round % 3 {
            0 => drop(a.link.take()),
            _ => a.command(Command::Close),
        }
        if round % 3 != 2 {
            b.closed().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_link_goes_on_beside_a_newer_one_between_the_same_ports_which_opens_after_it() {
    let (here, there) = (sharing(0), sharing(0));
    let mut old = open_between(&here, &there, pmesh()).await;
    let mut new = negotiate(&there, &here, pmesh()).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        echo(&old.0, &old.1, Kind::Binary, "old".into()).await;
    }
    assert!(timeout(Duration::ZERO, both_opened(&mut new)).await.is_err());
    old.0.command(Command::Close);
    old.1.closed().await;
    both_opened(&mut new).await;
    echo(&new.0, &new.1, Kind::Binary, "new".into()).await;
    println!("open {:?} after the offer", started.elapsed());
}

/// Both ends once they are open, or `None` if one closes before.
async fn opens(mut ends: (Peer, Peer)) -> Option<(Peer, Peer)> {
    async fn opens(events: &mut mpsc::Receiver<(LinkId, LinkEvent)>, other: &dyn Link) -> Option<()> {
        loop {
            match soon(events.recv()).await?.1 {
                LinkEvent::Opened { .. } => return Some(()),
                LinkEvent::Candidate(candidate) => other.command(Command::Candidate(candidate)),
                _ => return None,
            }
        }
    }
    let (a, b) = (ends.0.link.take()?, ends.1.link.take()?);
    tokio::try_join!(async { opens(&mut ends.0.events, &*b).await.ok_or(()) }, async {
        opens(&mut ends.1.events, &*a).await.ok_or(())
    },)
    .ok()?;
    (ends.0.link, ends.1.link) = (Some(a), Some(b));
    Some(ends)
}

/// On a busy machine it happens that both handshakes are under way before either end knows of both links, and spoil each
/// other: not often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_links_that_are_made_together_between_the_same_ports_one_opens_and_works() {
    let mut spoiled = 0;
    for _ in 0..10 {
        let (here, there) = (sharing(0), sharing(0));
        let started = Instant::now();
        let (x, y) = tokio::join!(negotiate(&here, &there, pmesh()), negotiate(&there, &here, pmesh()));
        let mut racing: FuturesUnordered<_> = [opens(x), opens(y)].into_iter().collect();
        let mut winner = racing.next().await.flatten();
        if winner.is_none() {
            winner = racing.next().await.flatten();
        }
        println!("{} after {:?}", if winner.is_some() { "open" } else { "spoiled" }, started.elapsed());
        let Some((a, b)) = winner else {
            spoiled += 1;
            continue;
        };
        echo(&a, &b, Kind::Binary, "one".into()).await;
        // The other one goes.
        drop(racing);
        echo(&a, &b, Kind::Binary, "still".into()).await;
    }
    assert!(spoiled < 3, "{spoiled} of 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_passes_while_the_port_gets_garbage() {
    let (here, there) = (sharing(0), sharing(0));
    let number = port_of(&here).await;
    let (a, b) = open_between(&there, &here, pmesh()).await;
    let flood = tokio::spawn(async move {
        let stranger = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        loop {
            for garbage in [&[0; 40][..], &[22, 254, 253, 0, 0], &[0x40; 30], &[0xff; 1400], &[]] {
                let _ = stranger.send_to(garbage, (Ipv4Addr::LOCALHOST, number)).await;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut messages = b.pipe.queues().subscribe(b.pipe.queues().main());
    let started = Instant::now();
    let sending = async {
        for number in 0..100 {
            a.send(Kind::Binary, vec![number; 64_000]).await;
        }
    };
    let receiving = async {
        for number in 0..100 {
            assert_eq!(next(&mut messages).await.unwrap().1[0], number);
        }
    };
    tokio::join!(sending, receiving);
    println!("6.4 MB: {:?}", started.elapsed());
    flood.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_the_reason_until_it_is_free() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let number = taken.local_addr().unwrap().port();
    let transport = sharing(number);
    let reason = Peer::start(&transport, Target::Offer).closed_unopened().await;
    assert!(matches!(&reason, CloseReason::Failed(why) if why.contains(&number.to_string())), "{reason}");
    drop(taken);
    assert_eq!(port_of(&transport).await, number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_closed_with_the_last_link_and_the_root() {
    let (here, there) = (sharing(0), sharing(0));
    let number = port_of(&here).await;
    let (a, b) = open_between(&here, &there, pmesh()).await;
    drop(here);
    echo(&a, &b, Kind::Binary, "still there".into()).await;
    assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_err());
    drop((a, b));
    soon(async {
        while UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_shared_over_ipv6_too() {
    let bind: Vec<SocketAddr> = vec![(Ipv6Addr::LOCALHOST, 0).into()];
    if UdpSocket::bind(bind[0]).is_err() {
        return;
    }
    let sharing = || WebRtc::new(WebRtcConfig { shared_port: Some(0), bind: bind.clone(), ..config() });
    let hub = sharing();
    let pairs = [open_between(&hub, &sharing(), pmesh()).await, open_between(&sharing(), &hub, pmesh()).await];
    for (a, b) in &pairs {
        echo(a, b, Kind::Binary, vec![6; 60_000].into()).await;
    }
}
