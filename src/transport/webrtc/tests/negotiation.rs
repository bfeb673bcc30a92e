use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_opens_in_milliseconds() {
    let mut times = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let pair = open().await;
        times.push(start.elapsed());
        drop(pair);
    }
    println!("time to open: {times:?}");
    times.sort();
    assert!(times[5] < Duration::from_secs(1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_no_target() {
    let mut peer = Peer::start(&loopback(), Target::Url("ws://localhost".into()));
    assert!(matches!(peer.closed().await, CloseReason::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_that_are_garbage_end_the_attempt() {
    let mut offerer = Peer::start(&loopback(), Target::Offer);
    let good = offerer.description().await.sdp;
    let mut texts: Vec<String> =
        ["", "v=0", "v=0\r\n", "garbage", "\0\u{fffd}", "v=0\r\no=- 1 2 IN IP4 0\r\ns=-\r\nt=0 0\r\n"]
            .map(str::to_owned)
            .into();
    texts.push(good.lines().filter(|line| !line.starts_with("a=fingerprint")).map(|l| format!("{l}\r\n")).collect());
    texts.push(good.lines().filter(|line| !line.starts_with("a=ice-")).map(|l| format!("{l}\r\n")).collect());
    texts.push(good.replace("m=application", "m=audio"));
    texts.push(format!("{good}{}", "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n".repeat(1000)));
    for remote in [pmesh(), Remote::Original] {
        for sdp in &texts {
            let offer = Description { kind: DescriptionKind::Offer, sdp: sdp.clone() };
            let mut peer = Peer::start(&loopback(), Target::Answer { offer, remote });
            assert!(matches!(peer.closed().await, CloseReason::Failed(_)), "{sdp}");
        }
    }
    for sdp in texts {
        let mut peer = Peer::start(&loopback(), Target::Offer);
        peer.description().await;
        let description = Description { kind: DescriptionKind::Answer, sdp };
        peer.command(Command::Answer { description, remote: pmesh() });
        assert!(matches!(peer.closed().await, CloseReason::Failed(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_that_are_garbage_are_ignored() {
    let transport = loopback();
    let mut a = Peer::start(&transport, Target::Offer);
    // Before the answer they have no meaning.
    a.command(Command::Candidate(Candidate::default()));
    let offer = a.description().await;
    let mut b = Peer::start(&transport, Target::Answer { offer: offer.clone(), remote: pmesh() });
    let garbage = [
        "",
        "candidate:",
        "candidate:garbage",
        "\0",
        "candidate:1 1 udp 1 example.invalid 9 typ host",
        "candidate:1 1 udp 1 00000000-0000-4000-8000-000000000000.local 9 typ host",
        "candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype passive",
        "candidate:1 1 udp 99999999999999999999 127.0.0.1 99999 typ host",
        "candidate:1 1 udp 1 127.0.0.1 9 typ srflx raddr",
        "candidate:1 1 udp 1 127.0.0.1",
    ];
    let description = b.description().await;
    for candidate in garbage {
        b.command(Command::Candidate(Candidate { candidate: candidate.into(), ..Candidate::default() }));
    }
    join(&a, &offer, &b, description);
    for candidate in garbage {
        let candidate =
            Candidate { candidate: candidate.into(), sdp_mid: Some("nonsense".into()), ..Candidate::default() };
        a.command(Command::Candidate(candidate));
    }
    assert!(a.opened().await && b.opened().await);
    echo(&a, &b, Kind::Binary, vec![1; 10].into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_can_come_after_the_descriptions() {
    let transport = loopback();
    let strip = |description: &Description| {
        let (candidates, rest): (Vec<&str>, Vec<&str>) =
            description.sdp.lines().partition(|line| line.starts_with("a=candidate"));
        let candidates: Vec<Candidate> = candidates
            .iter()
            .map(|line| Candidate {
                candidate: line[2..].to_owned(),
                sdp_mid: Some("0".into()),
                sdp_m_line_index: Some(0),
                username_fragment: None,
            })
            .collect();
        let sdp = rest.iter().map(|line| format!("{line}\r\n")).collect();
        (Description { kind: description.kind, sdp }, candidates)
    };
    let start = Instant::now();
    let mut a = Peer::start(&transport, Target::Offer);
    let (offer, of_a) = strip(&a.description().await);
    assert!(!of_a.is_empty(), "the description holds the candidates");
    let mut b = Peer::start(&transport, Target::Answer { offer: offer.clone(), remote: pmesh() });
    let (description, of_b) = strip(&b.description().await);
    join(&a, &offer, &b, description);
    for candidate in of_b {
        a.command(Command::Candidate(candidate));
    }
    for candidate in of_a {
        b.command(Command::Candidate(candidate));
    }
    assert!(a.opened().await && b.opened().await);
    println!("time to open, trickled: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_commands_ends_the_link() {
    let mut peer = Peer::start(&loopback(), Target::Offer);
    for _ in 0..=MAX_COMMANDS * 4 {
        peer.command(Command::Candidate(Candidate::default()));
    }
    assert!(matches!(peer.closed().await, CloseReason::Protocol(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_servers_to_ask_candidates_are_trickled() {
    // A server that never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("stun:{}", silent.local_addr().unwrap());
    let server = IceServer { urls: vec![url], ..IceServer::default() };
    let transport = WebRtc::new(WebRtcConfig { ice_servers: vec![server], ..config() });
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    let mut b = Peer::start(&transport, Target::Answer { offer: offer.clone(), remote: pmesh() });
    let description = b.description().await;
    join(&a, &offer, &b, description);
    let (mut open_a, mut open_b) = (false, false);
    let mut trickled = 0;
    while !(open_a && open_b) {
        let (event, to, open) = tokio::select! {
            event = a.event() => (event, &b, &mut open_a),
            event = b.event() => (event, &a, &mut open_b),
        };
        match event {
            LinkEvent::Candidate(candidate) => {
                assert!(candidate.candidate.starts_with("candidate:"), "{candidate:?}");
                assert_eq!((candidate.sdp_mid.as_deref(), candidate.sdp_m_line_index), (Some("0"), Some(0)));
                assert!(candidate.username_fragment.as_ref().is_some_and(|fragment| !fragment.is_empty()));
                trickled += 1;
                to.command(Command::Candidate(candidate));
            }
            LinkEvent::Opened { .. } => *open = true,
            other => panic!("{other:?}"),
        }
    }
    println!("{trickled} candidates trickled");
    echo(&a, &b, Kind::Binary, vec![1; 10].into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_addresses_and_multicast_dns_work_too() {
    let transport = WebRtc::new(WebRtcConfig { include_loopback: true, ..WebRtcConfig::default() });
    for remote in [pmesh(), Remote::Original] {
        let (a, b) = open_with(&transport, remote).await;
        echo(&a, &b, Kind::Binary, vec![1; 10].into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_ours_cannot_be_bound() {
    let config = WebRtcConfig { bind: vec!["203.0.113.1:0".parse().unwrap()], mdns: true, ..config() };
    let mut peer = Peer::start(&WebRtc::new(config), Target::Offer);
    assert!(matches!(peer.closed().await, CloseReason::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_url_is_an_error() {
    let server = IceServer { urls: vec!["nonsense".into()], ..IceServer::default() };
    let transport = WebRtc::new(WebRtcConfig { ice_servers: vec![server], ..config() });
    let mut peer = Peer::start(&transport, Target::Offer);
    assert!(matches!(peer.closed().await, CloseReason::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_fingerprint_does_not_connect() {
    let transport = loopback();
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    let mut other = Peer::start(&transport, Target::Offer);
    let foreign = other.description().await.sdp;
    let fingerprint = |sdp: &str| sdp.lines().find(|l| l.starts_with("a=fingerprint")).unwrap().to_owned();
    let mut b = Peer::start(&transport, Target::Answer { offer: offer.clone(), remote: pmesh() });
    let mut description = b.description().await;
    description.sdp = description.sdp.replace(&fingerprint(&description.sdp), &fingerprint(&foreign));
    join(&a, &offer, &b, description);
    // The handshake is given up after 8 s. What counts is that it does not open.
    assert!(matches!(b.closed_unopened().await, CloseReason::Failed(_)));
    assert!(a.events.try_recv().is_err());
}

/// The multicast port is taken by somebody who does not share it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_multicast_dns_links_open_all_the_same() {
    // Where another test has it at the moment, that is as good.
    let _taken = std::net::UdpSocket::bind("0.0.0.0:5353");
    let transport = WebRtc::new(WebRtcConfig { mdns: true, ..config() });
    let (mut a, _b) = open_with(&transport, pmesh()).await;
    a.command(Command::Close);
    assert_eq!(a.closed().await, CloseReason::Local);
}
