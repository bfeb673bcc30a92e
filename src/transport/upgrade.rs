//! The HTTP side of a WebSocket server: which requests become WebSockets, and what the others are told.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What there is at a port.
#[derive(Debug)]
pub(crate) struct Site {
    /// The subprotocols, the best first.
    pub(crate) protocols: &'static [&'static str],
    /// Whether a WebSocket without any is taken too.
    pub(crate) plain: bool,
    /// What a browser is told.
    pub(crate) hello: &'static str,
    /// What is told to who offers none of the subprotocols.
    pub(crate) no_protocol: &'static str,
}

/// Longest request head, in bytes. A longer one is answered with 431.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines of a request. More are answered with 431.
const MAX_HEADERS: usize = 64;

/// How long a refused client may take to read the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The head is not complete: read on.
    Incomplete,
    /// It becomes a WebSocket.
    Upgrade(Upgrade),
    /// It is answered, and the connection closed.
    Page(Page),
}

/// A request that may become a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The subprotocol, as the site has it. `None` of a plain WebSocket.
    pub(crate) protocol: Option<&'static str>,
    /// The same as the client spelled it.
    spelled: Option<String>,
    accept: String,
    /// Bytes of the head; what follows belongs to the WebSocket.
    head_bytes: usize,
}

impl Upgrade {
    /// The answer that switches protocols.
    pub(crate) fn response(&self) -> String {
        let protocol = self.spelled.as_ref().map(|spelled| format!("Sec-WebSocket-Protocol: {spelled}\r\n"));
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{}\r\n",
            self.accept,
            protocol.unwrap_or_default()
        )
    }
}

/// An answer that is not a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) status: &'static str,
    header: &'static str,
    text: &'static str,
    without_body: bool,
}

impl Page {
    const fn new(status: &'static str, text: &'static str) -> Self {
        Self { status, header: "", text, without_body: false }
    }

    const BAD_REQUEST: Self = Self::new("400 Bad Request", "This is not an HTTP request.\n");
    const BAD_UPGRADE: Self = Self::new("400 Bad Request", "This is not a WebSocket upgrade.\n");
    const METHOD: Self = Self {
        header: "Allow: GET, HEAD\r\n",
        ..Self::new("405 Method Not Allowed", "Only GET and HEAD are known here.\n")
    };
    const VERSION: Self = Self {
        header: "Sec-WebSocket-Version: 13\r\n",
        ..Self::new("426 Upgrade Required", "Only version 13 of the WebSocket protocol is known here.\n")
    };
    const HEAD_TOO_BIG: Self =
        Self::new("431 Request Header Fields Too Large", "The head of the request is too large.\n");
    pub(crate) const TIMEOUT: Self = Self::new("408 Request Timeout", "The request did not arrive in time.\n");
    pub(crate) const TOO_MANY: Self = Self {
        header: "Retry-After: 10\r\n",
        ..Self::new("429 Too Many Requests", "There are too many connections from your address.\n")
    };
    pub(crate) const FULL: Self = Self {
        header: "Retry-After: 10\r\n",
        ..Self::new("503 Service Unavailable", "No more connections are possible at the moment.\n")
    };

    fn response(&self) -> String {
        let Self { status, header, text, without_body } = self;
        let length = text.len();
        let body = if *without_body { "" } else { text };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             {header}Connection: close\r\n\r\n{body}"
        )
    }

    /// Answers, and waits for a bounded time until the client has it.
    pub(crate) async fn send(self, mut tcp: TcpStream) {
        let answer = async {
            tcp.write_all(self.response().as_bytes()).await?;
            tcp.shutdown().await?;
            // Closing with unread input would reset the connection, and the answer could be lost.
            let mut rest = [0; 1024];
            while tcp.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    }
}

/// Reads a request head, and what came after it. `None` if the connection ends before.
pub(crate) async fn request(tcp: &mut TcpStream, site: &Site) -> Option<(Result<Upgrade, Page>, Vec<u8>)> {
    let mut received = Vec::with_capacity(1024);
    loop {
        match answer(&received, site) {
            Answer::Incomplete => {}
            Answer::Page(page) => return Some((Err(page), Vec::new())),
            Answer::Upgrade(upgrade) => {
                let ahead = received.split_off(upgrade.head_bytes);
                return Some((Ok(upgrade), ahead));
            }
        }
        let room = (MAX_HEAD_BYTES - received.len()) as u64;
        if (&mut *tcp).take(room).read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
}

/// Decides about what was received of a request so far.
fn answer(received: &[u8], site: &Site) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(received) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= MAX_HEAD_BYTES => bytes,
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD_BYTES => return Answer::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Answer::Page(Page::HEAD_TOO_BIG),
        Err(_) => return Answer::Page(Page::BAD_REQUEST),
    };
    let wants_upgrade = has_token(&request, "upgrade", "websocket");
    match request.method {
        Some("GET") if wants_upgrade => match upgrade(&request, head_bytes, site) {
            Ok(upgrade) => Answer::Upgrade(upgrade),
            Err(page) => Answer::Page(page),
        },
        Some("GET") => Answer::Page(Page::new("200 OK", site.hello)),
        Some("HEAD") => Answer::Page(Page { without_body: true, ..Page::new("200 OK", site.hello) }),
        _ => Answer::Page(Page::METHOD),
    }
}

fn upgrade(request: &httparse::Request<'_, '_>, head_bytes: usize, site: &Site) -> Result<Upgrade, Page> {
    if request.version != Some(1) || !has_token(request, "connection", "upgrade") {
        return Err(Page::BAD_UPGRADE);
    }
    if values(request, "sec-websocket-version").next() != Some(&b"13"[..]) {
        return Err(Page::VERSION);
    }
    let key = values(request, "sec-websocket-key").next().filter(|key| key.len() == 24).ok_or(Page::BAD_UPGRADE)?;
    // The original compares without regard to case and answers with the client's spelling.
    let offered = |name: &str| tokens(request, "sec-websocket-protocol").find(|t| t.eq_ignore_ascii_case(name));
    let chosen = site.protocols.iter().find_map(|name| Some((*name, offered(name)?.to_owned())));
    let plain = site.plain && values(request, "sec-websocket-protocol").next().is_none();
    if chosen.is_none() && !plain {
        return Err(Page::new("400 Bad Request", site.no_protocol));
    }
    let (protocol, spelled) = chosen.unzip();
    Ok(Upgrade { protocol, spelled, accept: derive_accept_key(key), head_bytes })
}

fn values<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

fn tokens<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    values(request, name).filter_map(|value| std::str::from_utf8(value).ok()).flat_map(|v| v.split(',')).map(str::trim)
}

fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    tokens(request, name).any(|t| t.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "Host: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://any.example\r\n";

    const SITE: Site = Site { protocols: &["pmesh.1", "p"], plain: false, hello: "hello", no_protocol: "which?" };

    fn answer(received: &[u8]) -> Answer {
        super::answer(received, &SITE)
    }

    fn request(lines: &str) -> Answer {
        answer(format!("GET /any/path?x=1 HTTP/1.1\r\n{lines}\r\n").as_bytes())
    }

    fn status(answer: Answer) -> &'static str {
        match answer {
            Answer::Page(page) => page.status,
            other => panic!("no page: {other:?}"),
        }
    }

    #[test]
    fn the_best_subprotocol_is_chosen_from_lists_and_repeated_headers() {
        for (offer, protocol, chosen) in [
            ("Sec-WebSocket-Protocol: p\r\n", "p", "p"),
            ("Sec-WebSocket-Protocol: P\r\n", "p", "P"),
            ("Sec-WebSocket-Protocol: pmesh.1, p\r\n", "pmesh.1", "pmesh.1"),
            ("Sec-WebSocket-Protocol: p,pmesh.1\r\n", "pmesh.1", "pmesh.1"),
            ("Sec-WebSocket-Protocol: x, p , y\r\n", "p", "p"),
            ("Sec-WebSocket-Protocol: p\r\nsec-websocket-protocol: pmesh.1\r\n", "pmesh.1", "pmesh.1"),
        ] {
            let Answer::Upgrade(upgrade) = request(&format!("{GOOD}{offer}")) else { panic!("refused: {offer}") };
            assert_eq!((upgrade.protocol, upgrade.spelled.as_deref()), (Some(protocol), Some(chosen)));
            // The example of RFC 6455 section 1.3.
            assert!(upgrade.response().contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(upgrade.response().ends_with(&format!("\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n")));
        }
    }

    #[test]
    fn a_site_may_take_websockets_without_a_subprotocol() {
        let site = Site { plain: true, ..SITE };
        let request = |lines: &str| super::answer(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), &site);
        let Answer::Upgrade(upgrade) = request(GOOD) else { panic!("refused") };
        assert_eq!(upgrade.protocol, None);
        assert!(upgrade.response().ends_with("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        assert_eq!(status(request(&format!("{GOOD}Sec-WebSocket-Protocol: chat\r\n"))), "400 Bad Request");
        let Answer::Upgrade(upgrade) = request(&format!("{GOOD}Sec-WebSocket-Protocol: p\r\n")) else {
            panic!("refused")
        };
        assert_eq!(upgrade.protocol, Some("p"));
    }

    #[test]
    fn what_is_not_an_upgrade_gets_a_page() {
        let p = "Sec-WebSocket-Protocol: p\r\n";
        assert_eq!(status(request(GOOD)), "400 Bad Request");
        assert_eq!(status(request(&format!("{GOOD}Sec-WebSocket-Protocol: px, chat\r\n"))), "400 Bad Request");
        assert_eq!(status(request(&format!("{}{p}", GOOD.replace("==\r", "\r")))), "400 Bad Request");
        assert_eq!(status(request(&format!("{}{p}", GOOD.replace("13", "8")))), "426 Upgrade Required");
        assert_eq!(
            status(request(&format!("{}{p}", GOOD.replace("Connection: keep-alive, Upgrade\r\n", "")))),
            "400 Bad Request"
        );
        assert_eq!(status(answer(format!("GET / HTTP/1.0\r\n{GOOD}{p}\r\n").as_bytes())), "400 Bad Request");
        assert_eq!(status(answer(format!("POST / HTTP/1.1\r\n{GOOD}{p}\r\n").as_bytes())), "405 Method Not Allowed");
        assert_eq!(status(answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")), "200 OK");
        assert_eq!(status(answer(b"BREW / HTTP/1.1\r\n\r\n")), "405 Method Not Allowed");
        assert_eq!(status(answer(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")), "400 Bad Request");
        assert_eq!(status(answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), "400 Bad Request");
        let Answer::Page(page) = answer(b"HEAD / HTTP/1.1\r\n\r\n") else { panic!("no page") };
        assert!(page.response().starts_with("HTTP/1.1 200 OK\r\n") && page.response().ends_with("\r\n\r\n"));
    }

    #[test]
    fn heads_are_bounded() {
        assert_eq!(answer(b"GET / HTTP/1.1\r\nHost:"), Answer::Incomplete);
        assert_eq!(answer(b""), Answer::Incomplete);
        let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD_BYTES));
        assert_eq!(status(answer(long.as_bytes())), "431 Request Header Fields Too Large");
        assert_eq!(status(answer(format!("{long}\r\n\r\n").as_bytes())), "431 Request Header Fields Too Large");
        assert_eq!(status(request(&"a: b\r\n".repeat(MAX_HEADERS + 1))), "431 Request Header Fields Too Large");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&bytes);
        }

        #[test]
        fn no_head_panics(lines in prop::collection::vec("[ -~]{0,40}", 0..80)) {
            let _ = answer(format!("GET / HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes());
        }
    }
}
