//! As much HTTP as servers of WebSockets need: heads of requests, small bodies, and answers that close the connection.

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest request head, in bytes. A longer one is answered with 431.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines of a request. More are answered with 431.
const MAX_HEADERS: usize = 64;

/// How long a refused client may take to read the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The head of a request. It may hold secrets, so it cannot be printed.
pub(crate) struct Head {
    pub(crate) method: String,
    target: String,
    /// The minor version of HTTP/1.
    pub(crate) version: u8,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Reads a head, and says how long it is. None if it is not complete.
    pub(super) fn parse(received: &[u8]) -> Result<Option<(Self, usize)>, Page> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let bytes = match request.parse(received) {
            Ok(httparse::Status::Complete(bytes)) if bytes <= MAX_HEAD_BYTES => bytes,
            Ok(httparse::Status::Partial) if received.len() < MAX_HEAD_BYTES => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Page::HEAD_TOO_BIG),
            Err(_) => return Err(Page::BAD_REQUEST),
        };
        let head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            version: request.version.unwrap_or_default(),
            headers: request.headers.iter().map(|h| (h.name.to_owned(), h.value.trim_ascii().to_owned())).collect(),
        };
        Ok(Some((head, bytes)))
    }

    /// A whole head, for tests.
    #[cfg(test)]
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self::parse(bytes).expect("it is a head").expect("it is complete").0
    }

    /// The target up to the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// The first parameter of this name in the query, as it is.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The values of all headers of this name, which is compared without regard to case.
    pub(crate) fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The first of them that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values(name).find_map(|value| std::str::from_utf8(value).ok())
    }

    /// What they list.
    pub(crate) fn tokens(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let texts = self.values(name).filter_map(|value| std::str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',')).map(str::trim)
    }

    /// Whether it says that a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.values("content-length").any(|length| length != b"0") || self.values("transfer-encoding").next().is_some()
    }

    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token))
    }
}

/// An answer after which the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) status: &'static str,
    headers: Cow<'static, str>,
    body: Cow<'static, str>,
    without_body: bool,
}

impl Page {
    /// An answer in plain text.
    pub(crate) const fn new(status: &'static str, body: &'static str) -> Self {
        Self::with(status, "Content-Type: text/plain; charset=utf-8\r\n", body)
    }

    const fn with(status: &'static str, headers: &'static str, body: &'static str) -> Self {
        Self { status, headers: Cow::Borrowed(headers), body: Cow::Borrowed(body), without_body: false }
    }

    pub(crate) const BAD_REQUEST: Self = Self::new("400 Bad Request", "This is not an HTTP request.\n");
    /// An answer that has nothing to say.
    pub(crate) const NO_CONTENT: Self = Self::with("204 No Content", "", "");
    pub(crate) const UPGRADE_BODY: Self = Self::new("400 Bad Request", "A WebSocket upgrade has no body.\n");
    pub(crate) const BAD_UPGRADE: Self = Self::new("400 Bad Request", "This is not a WebSocket upgrade.\n");
    pub(crate) const METHOD: Self = Self::with(
        "405 Method Not Allowed",
        "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD\r\n",
        "Only GET and HEAD are known here.\n",
    );
    pub(crate) const VERSION: Self = Self::with(
        "426 Upgrade Required",
        "Content-Type: text/plain; charset=utf-8\r\nSec-WebSocket-Version: 13\r\n",
        "Only version 13 of the WebSocket protocol is known here.\n",
    );
    const HEAD_TOO_BIG: Self =
        Self::new("431 Request Header Fields Too Large", "The head of the request is too large.\n");
    const NO_LENGTH: Self = Self::new("411 Length Required", "The length of the body must be told before.\n");
    const BODY_TOO_BIG: Self = Self::new("413 Content Too Large", "The body of the request is too large.\n");
    pub(crate) const TIMEOUT: Self = Self::new("408 Request Timeout", "The request did not arrive in time.\n");
    pub(crate) const TOO_MANY: Self = Self::with(
        "429 Too Many Requests",
        "Content-Type: text/plain; charset=utf-8\r\nRetry-After: 10\r\n",
        "There are too many connections from your address.\n",
    );
    pub(crate) const FULL: Self = Self::with(
        "503 Service Unavailable",
        "Content-Type: text/plain; charset=utf-8\r\nRetry-After: 10\r\n",
        "No more connections are possible at the moment.\n",
    );

    /// An answer to a method that is none of these.
    pub(crate) fn only(methods: &str) -> Self {
        Self::new("405 Method Not Allowed", "This method is not known here.\n").header("Allow", methods)
    }

    /// A page for a browser, whose last tag begins a script. It may run that and ask the same server, and nothing else.
    pub(crate) fn html(html: &str, script: &str) -> Self {
        let digest = BASE64.encode(&Sha256::digest(script));
        let headers = "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\
                       Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";
        // Blanks would be of the script, too.
        let body = format!("{}{script}</script>\n", html.trim_end()).into();
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{digest}'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let page = Self { status: "200 OK", headers: Cow::Borrowed(headers), body, without_body: false };
        page.header("Content-Security-Policy", policy)
    }

    /// An answer in JSON that nobody may keep.
    pub(crate) fn json(status: &'static str, value: &serde_json::Value) -> Self {
        let headers = Cow::Borrowed("Content-Type: application/json\r\nCache-Control: no-store\r\n");
        Self { status, headers, body: value.to_string().into(), without_body: false }
    }

    /// The same with one more header.
    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers = format!("{}{name}: {value}\r\n", self.headers).into();
        self
    }

    pub(crate) fn without_body(mut self) -> Self {
        self.without_body = true;
        self
    }

    pub(super) fn response(&self) -> String {
        let Self { status, headers, body, without_body } = self;
        // RFC 9110 forbids it of this one: it never has a body.
        let length = if *status == Self::NO_CONTENT.status {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let body = if *without_body { "" } else { body };
        format!("HTTP/1.1 {status}\r\n{headers}{length}Connection: close\r\n\r\n{body}")
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

/// Reads the head of a request, and what came after it. `None` if the connection ends before.
pub(crate) async fn head(tcp: &mut TcpStream) -> Option<Result<(Head, Vec<u8>), Page>> {
    let mut received = Vec::with_capacity(1024);
    loop {
        match Head::parse(&received) {
            Ok(None) => {}
            Ok(Some((head, bytes))) => {
                let ahead = received.split_off(bytes);
                return Some(Ok((head, ahead)));
            }
            Err(page) => return Some(Err(page)),
        }
        let room = (MAX_HEAD_BYTES - received.len()) as u64;
        if (&mut *tcp).take(room).read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
}

/// Reads the body of a request, of which `ahead` has come already. `None` if the connection ends before.
pub(crate) async fn body(
    tcp: &mut TcpStream,
    head: &Head,
    mut ahead: Vec<u8>,
    max_bytes: usize,
) -> Option<Result<Vec<u8>, Page>> {
    let digits =
        |value: &[u8]| value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()?.parse().ok())?;
    let mut lengths = head.values("content-length").map(digits);
    let length = match (lengths.next(), lengths.next(), head.values("transfer-encoding").next()) {
        (None, None, None) => 0,
        (Some(Some(length)), None, None) => length,
        _ => return Some(Err(Page::NO_LENGTH)),
    };
    if length > max_bytes {
        return Some(Err(Page::BODY_TOO_BIG));
    }
    while ahead.len() < length {
        let room = (length - ahead.len()) as u64;
        if (&mut *tcp).take(room).read_buf(&mut ahead).await.ok()? == 0 {
            return None;
        }
    }
    ahead.truncate(length);
    Some(Ok(ahead))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().expect("it is complete").0
    }

    fn refused(text: &str) -> &'static str {
        Head::parse(text.as_bytes()).err().expect("it is refused").status
    }

    #[test]
    fn targets_and_headers_are_taken_apart() {
        let head = head("POST /a/b?x=1&token=a=b&token=c HTTP/1.1\r\nList: a, b\r\nlist: c\r\nOther:  x \r\n\r\n");
        assert_eq!((&*head.method, head.path(), head.version), ("POST", "/a/b", 1));
        assert_eq!(
            (head.parameter("token"), head.parameter("tok"), head.parameter("x")),
            (Some("a=b"), None, Some("1"))
        );
        assert_eq!(head.tokens("LIST").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((head.text("other"), head.text("none")), (Some("x"), None));
    }

    #[test]
    fn heads_are_bounded() {
        assert!(Head::parse(b"GET / HTTP/1.1\r\nHost:").unwrap().is_none());
        assert!(Head::parse(b"").unwrap().is_none());
        let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD_BYTES));
        assert_eq!(refused(&long), "431 Request Header Fields Too Large");
        assert_eq!(refused(&format!("{long}\r\n\r\n")), "431 Request Header Fields Too Large");
        let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), "431 Request Header Fields Too Large");
        assert_eq!(refused("\x16\x03\x01\x02\x00\x01\x00\x01"), "400 Bad Request");
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "400 Bad Request");
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let page = Page::new("200 OK", "hello").header("A", 1);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nA: 1\r\nContent-Length: 5\r\n\
            Connection: close\r\n\r\n";
        assert_eq!(page.response(), format!("{expected}hello"));
        assert_eq!(page.without_body().response(), expected);
        let page = Page::NO_CONTENT.header("A", 1);
        assert_eq!(page.response(), "HTTP/1.1 204 No Content\r\nA: 1\r\nConnection: close\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Head::parse(&bytes);
        }

        #[test]
        fn no_head_panics(lines in prop::collection::vec("[ -~]{0,40}", 0..80)) {
            let _ = Head::parse(format!("GET / HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes());
        }
    }
}
