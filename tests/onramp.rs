//! The onramp over real sockets: every input that the original ignores, refuses or dies of, and every bound.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmesh::onramp::{Builder, Onramp, OnrampHandle, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an event, but not for ever.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("nothing happened in time")
}

struct Server {
    address: SocketAddr,
    handle: OnrampHandle,
    stop: oneshot::Sender<()>,
    run: JoinHandle<()>,
}

impl Server {
    async fn start(builder: Builder) -> Self {
        let onramp = builder.bind("127.0.0.1:0").await.unwrap();
        let (address, handle) = (onramp.local_addr(), onramp.handle());
        let (stop, stopped) = oneshot::channel();
        Self { address, handle, stop, run: tokio::spawn(onramp.run(stopped)) }
    }

    async fn default() -> Self {
        Self::start(Onramp::builder()).await
    }

    async fn tcp(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    async fn peer(&self, protocols: &str) -> Peer {
        Peer::over(self.tcp().await, protocols).await
    }

    /// A peer of `pmesh.1` with its address.
    async fn welcomed(&self) -> (Peer, String) {
        let mut peer = self.peer("pmesh.1, p").await;
        let welcome = peer.text().await;
        let address = welcome.strip_prefix("[16,\"").and_then(|rest| rest.strip_suffix("\"]")).unwrap();
        (peer, address.to_owned())
    }

    /// Waits until the counters are as they should be.
    async fn until(&self, wanted: impl Fn(&Stats) -> bool) {
        soon(async {
            while !wanted(&self.handle.stats()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Sends bytes and returns the answer to them, to its end.
    async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut tcp = self.tcp().await;
        tcp.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// The server still relays.
    async fn is_well(&self) {
        let (mut peer, own) = self.welcomed().await;
        peer.send(format!("[6,\"{own}\",1]")).await;
        while peer.text().await != format!("[7,\"{own}\",1]") {}
    }
}

struct Peer {
    socket: WebSocketStream<TcpStream>,
    protocol: String,
}

impl Peer {
    async fn over(tcp: TcpStream, protocols: &str) -> Self {
        let mut request = "ws://onramp.test/any/path?x=y".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        request.headers_mut().insert("Origin", "http://elsewhere.test".parse().unwrap());
        let (socket, response) = soon(client_async(request, tcp)).await.unwrap();
        let protocol = response.headers()["Sec-WebSocket-Protocol"].to_str().unwrap().to_owned();
        Self { socket, protocol }
    }

    async fn send(&mut self, text: impl Into<String>) {
        soon(self.socket.send(Message::text(text.into()))).await.unwrap();
    }

    async fn message(&mut self) -> Option<Result<Message, Error>> {
        soon(self.socket.next()).await
    }

    async fn text(&mut self) -> String {
        loop {
            match self.message().await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The address in an announcement.
    async fn announced(&mut self) -> String {
        let text = self.text().await;
        text.strip_prefix("[0,\"").and_then(|rest| rest.strip_suffix("\"]")).expect(&text).to_owned()
    }

    /// Reads until the close frame.
    async fn closed(&mut self) -> CloseCode {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code,
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }

    /// Nothing arrived before the answer to what is sent now.
    async fn nothing(&mut self, own: &str) {
        self.send(format!("[6,\"{own}\",\"nothing\"]")).await;
        assert_eq!(self.text().await, format!("[7,\"{own}\",\"nothing\"]"));
    }
}

#[tokio::test]
async fn peers_meet_as_at_the_original() {
    let server = Server::default().await;
    let mut a = server.peer("p").await;
    let mut b = server.peer("x, p").await;
    assert_eq!((&*a.protocol, &*b.protocol), ("p", "p"));
    let (b_name, a_name) = (a.announced().await, b.announced().await);
    let mut c = server.peer("p").await;
    assert_eq!((c.announced().await, c.announced().await), (a_name.clone(), b_name.clone()), "oldest first");
    let c_name = a.announced().await;
    assert_eq!(b.announced().await, c_name);
    let uuid = uuid::Uuid::parse_str(&c_name).unwrap();
    assert_eq!(uuid.get_version_num(), 4);

    // Extra elements are dropped, the payload keeps its bytes, and a missing one is null.
    a.send(format!(r#"[6,"{b_name}",[3,{{"z": 1, "a":2}}, "data"],"extra"]"#)).await;
    assert_eq!(b.text().await, format!(r#"[7,"{a_name}",[3,{{"z": 1, "a":2}}, "data"]]"#));
    a.send(format!(r#"[6,"{c_name}"]"#)).await;
    assert_eq!(c.text().await, format!(r#"[7,"{a_name}",null]"#));

    // A peer that leaves is not announced, and sending to it is silent.
    drop(b);
    server.until(|stats| stats.open == 2).await;
    a.send(format!(r#"[6,"{b_name}",1]"#)).await;
    a.nothing(&a_name).await;
    c.nothing(&c_name).await;
    assert_eq!(server.handle.stats().undeliverable, 1);
}

#[tokio::test]
async fn extension_peers_know_themselves_who_left_and_what_was_lost() {
    let server = Server::default().await;
    let (mut a, a_name) = server.welcomed().await;
    assert_eq!(a.protocol, "pmesh.1");
    let mut old = server.peer("p").await;
    assert_eq!(old.announced().await, a_name);
    let old_name = a.announced().await;
    let (mut b, b_name) = server.welcomed().await;
    assert_eq!((b.announced().await, b.announced().await), (a_name.clone(), old_name));
    assert_eq!((a.announced().await, old.announced().await), (b_name.clone(), b_name.clone()));

    b.send(format!("[6,\"{a_name}\",\"last words\"]")).await;
    b.socket.close(None).await.unwrap();
    while soon(b.socket.next()).await.is_some() {}
    assert_eq!(a.text().await, format!("[7,\"{b_name}\",\"last words\"]"));
    assert_eq!(a.text().await, format!("[18,\"{b_name}\"]"));
    for lost in [&*b_name, "__proto__", "toString", "constructor"] {
        a.send(format!("[6,\"{lost}\",1]")).await;
        assert_eq!(a.text().await, format!("[17,\"{lost}\",\"unknown\"]"));
    }
}

#[tokio::test]
async fn without_announcements_peers_are_strangers() {
    let server = Server::start(Onramp::builder().announce(false)).await;
    let (mut a, a_name) = server.welcomed().await;
    let (mut b, b_name) = server.welcomed().await;
    a.nothing(&a_name).await;
    b.send(format!("[6,\"{a_name}\",1]")).await;
    assert_eq!(a.text().await, format!("[7,\"{b_name}\",1]"));
    drop(b);
    server.until(|stats| stats.open == 1).await;
    a.nothing(&a_name).await;
}

#[tokio::test]
async fn what_killed_the_original_is_survived() {
    let server = Server::start(Onramp::builder().announce(false)).await;
    let (mut a, a_name) = server.welcomed().await;
    let malformed =
        ["", "{", "[", "null", "5", "{}", "[]", "true", "[6]", "[6,null,1]", "[6,7,8]", "[6,\"\",1]", "[[6]]"];
    let ignored = ["[0]", "[0,{}]", "[7,\"x\",1]", "[3,{}]", "[16,\"x\"]", "[18,\"x\"]", "[255,null]"];
    for text in malformed.iter().chain(&ignored) {
        a.send(*text).await;
    }
    soon(a.socket.send(Message::binary(vec![1, 2, 3]))).await.unwrap();
    soon(a.socket.send(Message::binary(vec![]))).await.unwrap();
    a.nothing(&a_name).await;
    let stats = server.handle.stats();
    assert_eq!((stats.malformed as usize, stats.ignored as usize), (malformed.len(), ignored.len() + 2));
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn http_is_answered() {
    let server = Server::default().await;
    for (request, status) in [
        (format!("{UPGRADE}\r\n"), "400"),
        (format!("{UPGRADE}Sec-WebSocket-Protocol: chat, px\r\n\r\n"), "400"),
        (format!("{}Sec-WebSocket-Protocol: p\r\n\r\n", UPGRADE.replace("13", "12")), "426"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "200"),
        ("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n".into(), "200"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".into(), "405"),
        ("nonsense\r\n\r\n".into(), "400"),
        ("\0\0\0\0".into(), "400"),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000)), "431"),
        (format!("{}\r\n", UPGRADE.repeat(30)), "400"),
    ] {
        let answer = server.raw(&request).await;
        assert_eq!(answer.get(..12), Some(&*format!("HTTP/1.1 {status}")), "{request:?} got {answer:?}");
    }
    assert!(server.raw("GET / HTTP/1.1\r\n\r\n").await.ends_with("subprotocol \"pmesh.1\" or \"p\".\n"));
    assert!(server.raw("HEAD / HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\n"));
    let stats = server.handle.stats();
    assert_eq!((stats.refused, stats.refused_full, stats.accepted), (12, 0, 0));
    server.is_well().await;
}

#[tokio::test]
async fn frames_may_follow_the_request_at_once() {
    let server = Server::start(Onramp::builder().announce(false)).await;
    let mut tcp = server.tcp().await;
    // A masked text frame "[6,"x",1]" with the mask 0.
    let mut bytes = format!("{UPGRADE}Sec-WebSocket-Protocol: pmesh.1\r\n\r\n").into_bytes();
    bytes.extend(b"\x81\x89\0\0\0\0[6,\"x\",1]");
    for byte in bytes {
        tcp.write_all(&[byte]).await.unwrap();
    }
    let mut answer = Vec::new();
    let end = b"[17,\"x\",\"unknown\"]";
    while !answer.ends_with(end) {
        assert!(soon(tcp.read_buf(&mut answer)).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn frames_above_the_limit_are_closed_with_1009() {
    let server = Server::start(Onramp::builder().max_frame_bytes(5000)).await;
    let (mut a, a_name) = server.welcomed().await;
    let just = format!("[6,\"{a_name}\",\"{}\"]", "x".repeat(5000 - 45));
    assert_eq!(just.len(), 5000);
    a.send(&*just).await;
    assert_eq!(a.text().await.len(), 5000);
    a.send(just + " ").await;
    assert_eq!(a.closed().await, CloseCode::Size);

    // By default the limit is that of the original, and a sender in the middle of a large frame gets to see why.
    let server = Server::default().await;
    let mut b = server.peer("p").await;
    b.send("x".repeat(1024 * 1024)).await;
    let _ = soon(b.socket.send(Message::text("x".repeat(1024 * 1024 + 1)))).await;
    assert_eq!(b.closed().await, CloseCode::Size);
    server.until(|stats| stats.open == 0 && stats.too_big == 1 && stats.malformed == 1).await;
}

#[tokio::test]
async fn what_is_no_websocket_frame_is_closed_with_1002() {
    let server = Server::default().await;
    let request = format!("{UPGRADE}Sec-WebSocket-Protocol: p\r\n\r\n");
    for (frame, code) in [
        (&b"\x81\x01x"[..], 1002u16), // not masked
        (b"\xf1\x81\0\0\0\0x", 1002), // reserved bits
        (b"\x83\x81\0\0\0\0x", 1002), // unknown kind
        (b"\x80\x81\0\0\0\0x", 1002), // continues nothing
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
    ] {
        let mut tcp = server.tcp().await;
        tcp.write_all(request.as_bytes()).await.unwrap();
        tcp.write_all(frame).await.unwrap();
        let mut answer = Vec::new();
        soon(tcp.read_to_end(&mut answer)).await.unwrap();
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_eq!((answer[body], &answer[body + 2..body + 4]), (0x88, &code.to_be_bytes()[..]), "{frame:?}");
    }
    server.until(|stats| stats.open == 0 && stats.broken == 5 && stats.too_big == 1).await;
    server.is_well().await;
}

#[tokio::test]
async fn who_does_not_read_is_disconnected_and_delays_nobody() {
    let stall = Duration::from_millis(300);
    let server =
        Server::start(Onramp::builder().announce(false).frames_per_second(0).stall_timeout(stall).queue_bytes(200_000))
            .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut lazy = Peer::over(soon(socket.connect(server.address)).await.unwrap(), "pmesh.1").await;
    let lazy_name = lazy.text().await[5..41].to_owned();
    let (mut flood, _) = server.welcomed().await;
    let (mut a, a_name) = server.welcomed().await;
    let (mut b, b_name) = server.welcomed().await;

    let frame = format!("[6,\"{lazy_name}\",\"{}\"]", "x".repeat(100_000));
    let flooding = tokio::spawn(async move {
        let (mut busy, mut unknown) = (0, 0);
        while unknown == 0 {
            flood.send(&*frame).await;
            // An answer comes only if the frame was lost, so look without waiting.
            while let Ok(Some(Ok(Message::Text(text)))) = timeout(Duration::ZERO, flood.socket.next()).await {
                busy += u32::from(text.ends_with("\"busy\"]"));
                unknown += u32::from(text.ends_with("\"unknown\"]"));
            }
        }
        busy
    });
    let mut exchanged = 0;
    while !flooding.is_finished() {
        a.send(format!("[6,\"{b_name}\",{exchanged}]")).await;
        assert_eq!(b.text().await, format!("[7,\"{a_name}\",{exchanged}]"));
        exchanged += 1;
    }
    assert!(soon(flooding).await.unwrap() > 0, "the sender was told");
    assert!(exchanged > 10, "only {exchanged} frames passed meanwhile");
    let stats = server.handle.stats();
    assert_eq!(stats.slow, 1);
    assert!(stats.busy > 0);
    // Reading on, it finds the connection reset.
    let end = loop {
        match lazy.message().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, None | Some(Err(_))));
}

#[tokio::test]
async fn a_fast_sender_is_slowed_down_and_loses_nothing() {
    let server = Server::start(Onramp::builder().announce(false).frames_per_second(200).burst(10)).await;
    let (mut a, a_name) = server.welcomed().await;
    let start = tokio::time::Instant::now();
    for n in 0..60 {
        a.send(format!("[6,\"{a_name}\",{n}]")).await;
    }
    for n in 0..60 {
        assert_eq!(a.text().await, format!("[7,\"{a_name}\",{n}]"));
    }
    assert!(start.elapsed() >= Duration::from_millis(240), "{:?}", start.elapsed());
    assert!(server.handle.stats().rate_limited > 0);
}

#[tokio::test]
async fn above_the_number_of_connections_503() {
    let server = Server::start(Onramp::builder().max_connections(2)).await;
    let first = server.peer("p").await;
    let _second = server.peer("p").await;
    let upgrade = format!("{UPGRADE}Sec-WebSocket-Protocol: p\r\n\r\n");
    assert!(server.raw(&upgrade).await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(server.raw("GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    drop(first);
    server.until(|stats| stats.open == 1).await;
    server.peer("p").await;
    assert_eq!(server.handle.stats().refused_full, 1);
}

#[tokio::test]
async fn requests_must_arrive_in_time() {
    let server = Server::start(Onramp::builder().handshake_timeout(Duration::from_millis(100))).await;
    assert!(server.raw("GET / HT").await.starts_with("HTTP/1.1 408 "));
    assert!(server.raw("").await.starts_with("HTTP/1.1 408 "));
    // Who goes before asking anything gets nothing.
    drop(server.tcp().await);
    server.until(|stats| stats.refused == 3).await;
}

#[tokio::test]
async fn silent_peers_are_disconnected_and_answering_ones_stay() {
    let interval = Duration::from_millis(100);
    let server = Server::start(Onramp::builder().announce(false).ping_interval(interval)).await;
    let mut silent = server.tcp().await;
    silent.write_all(format!("{UPGRADE}Sec-WebSocket-Protocol: p\r\n\r\n").as_bytes()).await.unwrap();
    // This one answers pings, since it reads.
    let (mut a, a_name) = server.welcomed().await;
    let reading = tokio::spawn(async move {
        a.text().await;
        a
    });
    let mut received = Vec::new();
    let end = soon(async {
        while silent.read_buf(&mut received).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
    assert!(end.is_err(), "it is reset");
    assert!(received.ends_with(b"\x89\0\x89\0"), "after two pings");
    let (mut b, b_name) = server.welcomed().await;
    b.send(format!("[6,\"{a_name}\",1]")).await;
    soon(reading).await.unwrap();
    b.nothing(&b_name).await;
    assert_eq!(server.handle.stats().silent, 1);
}

#[tokio::test]
async fn clients_may_ping_and_close_and_fragment() {
    let server = Server::start(Onramp::builder().announce(false)).await;
    let mut tcp = server.tcp().await;
    let mut bytes = format!("{UPGRADE}Sec-WebSocket-Protocol: pmesh.1\r\n\r\n").into_bytes();
    bytes.extend(b"\x01\x84\0\0\0\0[6,\"\x89\x81\0\0\0\0!\x80\x85\0\0\0\0x\",1]\x88\x82\0\0\0\0\x03\xe8");
    tcp.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    soon(tcp.read_to_end(&mut answer)).await.unwrap();
    let contains = |part: &[u8]| answer.windows(part.len()).any(|window| window == part);
    assert!(contains(b"\x8a\x01!"), "pong");
    assert!(contains(b"[17,\"x\",\"unknown\"]"));
    assert!(answer.ends_with(b"\x88\x02\x03\xe8"), "the close frame is answered");
    server.until(|stats| stats.open == 0 && stats.broken == 0).await;
}

#[tokio::test]
async fn shutting_down_sends_everybody_away_in_bounded_time() {
    let server = Server::default().await;
    let mut peers = Vec::new();
    for protocol in ["p", "pmesh.1", "p"] {
        peers.push(server.peer(protocol).await);
    }
    let asking = server.tcp().await;
    // This one will not answer the close frame.
    let mut deaf = server.tcp().await;
    deaf.write_all(format!("{UPGRADE}Sec-WebSocket-Protocol: p\r\n\r\n").as_bytes()).await.unwrap();
    server.until(|stats| stats.open == 4).await;
    server.stop.send(()).unwrap();
    for peer in &mut peers {
        assert_eq!(peer.closed().await, CloseCode::Away);
    }
    let reading = peers.into_iter().map(|mut peer| async move { while peer.message().await.is_some() {} });
    futures_util::future::join_all(reading).await;
    timeout(Duration::from_secs(3), server.run).await.expect("returns in time").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    assert_eq!(server.handle.stats().open, 0);
    drop((asking, deaf));
}

#[tokio::test]
async fn dropping_the_server_closes_everything() {
    let server = Server::default().await;
    let mut peer = server.peer("p").await;
    server.run.abort();
    assert!(soon(server.run).await.is_err());
    assert!(matches!(peer.message().await, None | Some(Err(_))));
    assert_eq!(server.handle.stats().open, 0);
}

#[tokio::test]
async fn a_thousand_connections_at_once() {
    let server = Server::start(Onramp::builder().announce(false)).await;
    let connecting = (0..1000).map(|_| server.peer("p"));
    let mut peers = soon(futures_util::future::join_all(connecting)).await;
    server.until(|stats| stats.open == 1000).await;
    peers.truncate(1);
    server.until(|stats| stats.open == 1).await;
}

#[tokio::test]
async fn a_crowd_learns_of_everybody() {
    let server = Server::default().await;
    let connecting = (0..200).map(|_| server.peer("p"));
    let mut peers = soon(futures_util::future::join_all(connecting)).await;
    let reading = peers.iter_mut().map(|peer| async move {
        for _ in 0..199 {
            peer.announced().await;
        }
    });
    soon(futures_util::future::join_all(reading)).await;
    let stats = server.handle.stats();
    assert_eq!((stats.announced, stats.slow), (200 * 199, 0));
}

#[tokio::test]
async fn binding() {
    let onramp = Onramp::bind("localhost:0").await.unwrap();
    assert!(onramp.local_addr().port() > 0);
    assert_eq!(onramp.url(), format!("ws://{}", onramp.local_addr()));
    assert!(onramp.local_addrs().iter().all(|address| address.port() == onramp.local_addr().port()));
    let again = Onramp::bind(onramp.local_addr()).await;
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert!(Onramp::bind("not a name").await.is_err());
}
