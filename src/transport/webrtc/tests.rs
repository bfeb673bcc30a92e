use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::protocol::limits::MAX_MESSAGE_BYTES;
use crate::protocol::packet::Kind;
use crate::protocol::signal::{Candidate, Description, DescriptionKind};
use crate::transport::pipe::{Rejected, Subscription};
use crate::transport::{LinkEvent, LinkId, Queues, Remote};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

fn loopback() -> WebRtc {
    WebRtc::new(config())
}

fn config() -> WebRtcConfig {
    WebRtcConfig { bind: vec!["127.0.0.1:0".parse().unwrap()], mdns: false, ..WebRtcConfig::default() }
}

fn pmesh() -> Remote {
    Remote::Pmesh { window: credit_window(), max_message: None }
}

struct Peer {
    link: Option<Box<dyn Link>>,
    pipe: Arc<Pipe>,
    events: mpsc::Receiver<(LinkId, LinkEvent)>,
}

impl Peer {
    fn start(transport: &WebRtc, target: Target) -> Self {
        let (sender, events) = mpsc::channel(64);
        let pipe = Pipe::new(LinkId(1), sender, Queues::new(credit_window(), MAX_MESSAGE_BYTES));
        let link = transport.start(target, pipe.clone());
        Self { link: Some(link), pipe, events }
    }

    fn command(&self, command: Command) {
        self.link.as_ref().unwrap().command(command);
    }

    async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.unwrap().1
    }

    async fn description(&mut self) -> Description {
        match self.event().await {
            LinkEvent::Description(description) => description,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> CloseReason {
        loop {
            match self.event().await {
                LinkEvent::Closed(reason) => {
                    // As the driver does.
                    self.pipe.queues().shut(reason.clone());
                    return reason;
                }
                LinkEvent::Description(_) | LinkEvent::Candidate(_) | LinkEvent::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn opened(&mut self) -> bool {
        match self.event().await {
            LinkEvent::Opened { extension } => extension,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, kind: Kind, body: impl Into<Bytes>) {
        soon(self.pipe.queues().send(kind, body.into())).await.unwrap();
    }
}

async fn next(messages: &mut Subscription) -> Option<(Kind, Bytes)> {
    soon(poll_fn(|cx| messages.poll_next(cx))).await
}

async fn open_with(transport: &WebRtc, remote: Remote) -> (Peer, Peer) {
    let mut offerer = Peer::start(transport, Target::Offer);
    let offer = offerer.description().await;
    let mut answerer = Peer::start(transport, Target::Answer { offer, remote });
    let description = answerer.description().await;
    assert!(description.sdp.contains("a=setup:active") || description.sdp.contains("a=setup:passive"));
    offerer.command(Command::Answer { description, remote });
    let extension = remote != Remote::Original;
    assert_eq!(offerer.opened().await, extension);
    assert_eq!(answerer.opened().await, extension);
    (offerer, answerer)
}

async fn open() -> (Peer, Peer) {
    open_with(&loopback(), pmesh()).await
}

async fn echo(a: &Peer, b: &Peer, kind: Kind, body: Bytes) {
    let (mut at_a, mut at_b) = (a.pipe.queues().subscribe(), b.pipe.queues().subscribe());
    a.send(kind, body.clone()).await;
    let got = next(&mut at_b).await.unwrap();
    assert!(got == (kind, body.clone()), "{} bytes there", body.len());
    b.send(kind, got.1).await;
    assert!(next(&mut at_a).await.unwrap() == (kind, body.clone()), "{} bytes back", body.len());
}

fn json(length: usize) -> Bytes {
    match length {
        0 => "".into(),
        1 => "1".into(),
        _ => format!("\"{}\"", "x".repeat(length - 2)).into(),
    }
}

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
    let too_large = a.pipe.queues().try_send(Kind::Binary, vec![0; (256 << 10) + 1].into());
    assert_eq!(too_large, Err(Rejected::TooLarge(256 << 10)));
}

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
        let mut messages = b.pipe.queues().subscribe();
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
    let mut b = Peer::start(&transport, Target::Answer { offer, remote: pmesh() });
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
    a.command(Command::Answer { description, remote: pmesh() });
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
    let mut b = Peer::start(&transport, Target::Answer { offer, remote: pmesh() });
    let (description, of_b) = strip(&b.description().await);
    a.command(Command::Answer { description, remote: pmesh() });
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
async fn closing_before_it_is_open_ends_it_at_once() {
    let mut early = Peer::start(&loopback(), Target::Offer);
    early.command(Command::Close);
    assert_eq!(early.closed().await, CloseReason::Local);
    let mut offered = Peer::start(&loopback(), Target::Offer);
    offered.description().await;
    offered.command(Command::Close);
    assert_eq!(offered.closed().await, CloseReason::Local);
    assert_eq!(offered.pipe.queues().try_send(Kind::Json, "1".into()), Err(Rejected::NotOpen));
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
async fn a_peer_that_vanishes_is_noticed() {
    let config = WebRtcConfig {
        disconnected_after: Duration::from_millis(300),
        failed_after: Duration::from_millis(300),
        keepalive: Duration::from_millis(100),
        ..config()
    };
    let transport = WebRtc::new(config);
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    // The other side lives in a runtime of its own, which stops without a word.
    let (answers, mut answer) = mpsc::channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut b = Peer::start(&transport, Target::Answer { offer, remote: pmesh() });
            answers.send(b.description().await).await.unwrap();
            assert!(b.opened().await);
            stopped.await.unwrap();
        });
    });
    let description = soon(answer.recv()).await.unwrap();
    a.command(Command::Answer { description, remote: pmesh() });
    assert!(a.opened().await);
    stop.send(()).unwrap();
    other.join().unwrap();
    assert!(matches!(a.closed().await, CloseReason::Lost(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_read_stops_the_sender_and_nothing_is_lost() {
    let (a, b) = open().await;
    let mut messages = b.pipe.queues().subscribe();
    let mut sent = 0u32;
    // The sender stops for good when neither side can do anything any more: then nothing changes for half a second.
    while timeout(Duration::from_millis(500), send_number(&a, sent)).await.is_ok() {
        sent += 1;
    }
    assert_eq!(a.pipe.queues().try_send(Kind::Binary, vec![0; 10_000].into()), Err(Rejected::Full));
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

async fn send_number(peer: &Peer, number: u32) {
    let mut body = vec![0; 10_000];
    body[..4].copy_from_slice(&number.to_be_bytes());
    peer.pipe.queues().send(Kind::Binary, body.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_left_behind() {
    let metrics = tokio::runtime::Handle::current().metrics();
    drop(open().await);
    let settled = |most: usize| {
        let metrics = metrics.clone();
        async move {
            while metrics.num_alive_tasks() > most {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    soon(settled(0)).await;
    for n in 0..20 {
        let remote = if n % 4 == 0 { Remote::Original } else { pmesh() };
        let (mut a, mut b) = open_with(&loopback(), remote).await;
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
        drop((offered, answering));
    }
    soon(settled(0)).await;
}

/// Processor time that this process has used, in seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 =
        stat.rsplit(')').next().unwrap_or("").split(' ').skip(12).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

async fn flood(a: Peer, b: Peer, length: usize, count: u32) {
    let mut messages = b.pipe.queues().subscribe();
    let body = Bytes::from(vec![1; length]);
    let of_a = a.pipe.clone();
    let (start, processor) = (Instant::now(), processor_time());
    let sender = tokio::spawn(async move {
        for _ in 0..count {
            a.pipe.queues().send(Kind::Binary, body.clone()).await.unwrap();
        }
        a
    });
    for n in 0..count {
        let next = poll_fn(|cx| messages.poll_next(cx));
        let Ok(message) = timeout(Duration::from_secs(10), next).await else {
            let short = |pipe: &Pipe| {
                let text = format!("{pipe:?}");
                let (head, tail) = text.split_once("message_bytes").unwrap();
                format!("{} ... {}", &head[..500.min(head.len())], tail)
            };
            panic!("stuck after {n}: sender {} receiver {}", short(&of_a), short(&b.pipe));
        };
        assert_eq!(message.unwrap().1.len(), length);
    }
    let time = start.elapsed().as_secs_f64();
    let processor = processor_time() - processor;
    let rate = f64::from(count) / time;
    let megabytes = f64::from(count) * length as f64 / 1e6;
    println!(
        "{length} B: {:.0} MB/s, {rate:.0} messages/s; processor {:.2} s/GB, {:.2} us/message",
        megabytes / time,
        processor / megabytes * 1000.0,
        processor * 1e6 / f64::from(count)
    );
    drop(soon(sender).await);
}

/// Prints figures. Run by hand: `cargo test --release --lib webrtc::tests::figures -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn figures() {
    let wanted = |what: &str| std::env::var("FIGURES").map_or(true, |list| list.split(',').any(|item| item == what));
    if wanted("open") {
        let mut times = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            let pair = open().await;
            times.push(start.elapsed());
            drop(pair);
        }
        times.sort();
        println!("set-up: p50 {:?} p90 {:?} max {:?}", times[50], times[90], times[99]);
    }
    for (length, count) in [(64 << 10, 16_000), (16_000, 40_000), (1000, 400_000), (100, 3_000_000)] {
        if wanted(&length.to_string()) {
            let (a, b) = open().await;
            flood(a, b, length, count).await;
        }
    }
    if wanted("original") {
        for (length, count) in [(64 << 10, 4_000), (1000, 50_000), (100, 200_000)] {
            let (a, b) = open_with(&loopback(), Remote::Original).await;
            flood(a, b, length, count).await;
        }
    }
    if wanted("trip") {
        for remote in [pmesh(), Remote::Original] {
            let (a, b) = open_with(&loopback(), remote).await;
            let (mut at_a, mut at_b) = (a.pipe.queues().subscribe(), b.pipe.queues().subscribe());
            let echo = tokio::spawn(async move {
                while let Some((kind, body)) = poll_fn(|cx| at_b.poll_next(cx)).await {
                    if b.pipe.queues().send(kind, body).await.is_err() {
                        break;
                    }
                }
            });
            let mut times = Vec::new();
            let (start, processor) = (Instant::now(), processor_time());
            for _ in 0..20_000 {
                let start = Instant::now();
                a.pipe.queues().send(Kind::Binary, vec![1; 64].into()).await.unwrap();
                poll_fn(|cx| at_a.poll_next(cx)).await.unwrap();
                times.push(start.elapsed());
            }
            times.sort();
            println!(
                "round trip 64 B: p50 {:?} p99 {:?}; {:?} in all; processor {:.1} us",
                times[10_000],
                times[19_800],
                start.elapsed(),
                (processor_time() - processor) * 1e6 / 20_000.0
            );
            echo.abort();
        }
    }
}

/// The crate by itself, with the same settings: what the pipe and the pump are to be compared with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn bare() {
    use super::mailbox::Mailbox;
    use super::session::{Purpose, Session};
    use bytes::BytesMut;
    use webrtc::data_channel::{DataChannel, DataChannelEvent};
    async fn pair() -> (Session, Session, Arc<dyn DataChannel>, Arc<dyn DataChannel>) {
        let purpose = Purpose { max_message: 65_536, mdns: false };
        let (mail_a, mail_b) = (Mailbox::new(), Mailbox::new());
        let mut a = Session::build(&config(), &mail_a, purpose).await.unwrap();
        let mut b = Session::build(&config(), &mail_b, purpose).await.unwrap();
        let at_a = a.create_channel().await.unwrap();
        let offer = a.describe(DescriptionKind::Offer, true).await.unwrap();
        b.set_remote(offer).await.unwrap();
        let answer = b.describe(DescriptionKind::Answer, true).await.unwrap();
        a.set_remote(answer).await.unwrap();
        let at_b = loop {
            if let Some(channel) = mail_b.news().await.channel {
                break channel;
            }
        };
        assert!(matches!(at_a.poll().await, Some(DataChannelEvent::OnOpen)));
        assert!(matches!(at_b.poll().await, Some(DataChannelEvent::OnOpen)));
        a.runtime.pace().settle();
        b.runtime.pace().settle();
        (a, b, at_a, at_b)
    }
    let message = async |channel: &Arc<dyn DataChannel>| loop {
        if let DataChannelEvent::OnMessage(message) = channel.poll().await.unwrap() {
            break message;
        }
    };
    for (length, count) in [(64_960, 16_000)] {
        let (a, b, at_a, at_b) = pair().await;
        let (start, processor) = (Instant::now(), processor_time());
        tokio::spawn(async move {
            for _ in 0..count {
                at_a.send(BytesMut::from(&vec![1; length][..])).await.unwrap();
            }
        });
        for _ in 0..count {
            message(&at_b).await;
        }
        let time = start.elapsed().as_secs_f64();
        let processor = processor_time() - processor;
        let megabytes = f64::from(count) * length as f64 / 1e6;
        println!("bare {length} B: {:.0} MB/s; processor {:.2} s/GB", megabytes / time, processor / megabytes * 1000.0);
        a.close().await;
        b.close().await;
    }
    let (a, b, at_a, at_b) = pair().await;
    tokio::spawn(async move {
        while let Some(event) = at_b.poll().await {
            if let DataChannelEvent::OnMessage(message) = event {
                at_b.send(message.data).await.unwrap();
            }
        }
    });
    let mut times = Vec::new();
    let (all, processor) = (Instant::now(), processor_time());
    for _ in 0..20_000 {
        let start = Instant::now();
        at_a.send(BytesMut::from(&[1; 64][..])).await.unwrap();
        message(&at_a).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "bare round trip 64 B: p50 {:?} p99 {:?}; {:?} in all; processor {:.1} us",
        times[10_000],
        times[19_800],
        all.elapsed(),
        (processor_time() - processor) * 1e6 / 20_000.0
    );
    a.close().await;
    b.close().await;
}
