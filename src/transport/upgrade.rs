//! Which requests become WebSockets, and what the others are told.

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{self, Head, Page};

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

/// Before a token that is offered as a subprotocol, since browsers cannot set headers. It is none.
pub(crate) const BEARER: &str = "bearer.";

/// A request that may become a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The subprotocol, as the site has it. `None` of a plain WebSocket.
    pub(crate) protocol: Option<&'static str>,
    /// The same as the client spelled it.
    spelled: Option<String>,
    accept: String,
}

impl Upgrade {
    /// What a request gets: it becomes a WebSocket, or is answered.
    pub(crate) fn of(head: &Head, site: &Site) -> Result<Self, Page> {
        match &*head.method {
            "GET" if head.has_token("upgrade", "websocket") => Self::checked(head, site),
            "GET" => Err(Page::new("200 OK", site.hello)),
            "HEAD" => Err(Page::new("200 OK", site.hello).without_body()),
            _ => Err(Page::METHOD),
        }
    }

    fn checked(head: &Head, site: &Site) -> Result<Self, Page> {
        if head.version != 1 || !head.has_token("connection", "upgrade") {
            return Err(Page::BAD_UPGRADE);
        }
        // It would be taken for frames, or, by a proxy in front, for another request.
        if head.has_body() {
            return Err(Page::UPGRADE_BODY);
        }
        if head.values("sec-websocket-version").next() != Some(&b"13"[..]) {
            return Err(Page::VERSION);
        }
        let key = head.values("sec-websocket-key").next().filter(|key| key.len() == 24).ok_or(Page::BAD_UPGRADE)?;
        let offered = || head.tokens("sec-websocket-protocol").filter(|token| !token.starts_with(BEARER));
        // The original compares without regard to case and answers with the client's spelling.
        let spelled = |name: &str| offered().find(|token| token.eq_ignore_ascii_case(name));
        let chosen = site.protocols.iter().find_map(|name| Some((*name, spelled(name)?.to_owned())));
        if chosen.is_none() && !(site.plain && offered().next().is_none()) {
            return Err(Page::new("400 Bad Request", site.no_protocol));
        }
        let (protocol, spelled) = chosen.unzip();
        Ok(Self { protocol, spelled, accept: derive_accept_key(key) })
    }

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

/// Reads a request head, and what came after it. `None` if the connection ends before.
pub(crate) async fn request(tcp: &mut TcpStream, site: &Site) -> Option<(Result<Upgrade, Page>, Vec<u8>)> {
    match http::head(tcp).await? {
        Ok((head, ahead)) => Some((Upgrade::of(&head, site), ahead)),
        Err(page) => Some((Err(page), Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Host: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://any.example\r\n";

    const SITE: Site = Site { protocols: &["pmesh.1", "p"], plain: false, hello: "hello", no_protocol: "which?" };

    fn answer(request: &str, site: &Site) -> Result<Upgrade, Page> {
        let (head, _) = Head::parse(request.as_bytes())?.expect("it is complete");
        Upgrade::of(&head, site)
    }

    fn request(lines: &str) -> Result<Upgrade, Page> {
        answer(&format!("GET /any/path?x=1 HTTP/1.1\r\n{lines}\r\n"), &SITE)
    }

    fn status(answer: Result<Upgrade, Page>) -> &'static str {
        answer.expect_err("no page").status
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
            let upgrade = request(&format!("{GOOD}{offer}")).expect(offer);
            assert_eq!((upgrade.protocol, upgrade.spelled.as_deref()), (Some(protocol), Some(chosen)));
            // The example of RFC 6455 section 1.3.
            assert!(upgrade.response().contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(upgrade.response().ends_with(&format!("\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n")));
        }
    }

    #[test]
    fn a_site_may_take_websockets_without_a_subprotocol() {
        let site = Site { plain: true, ..SITE };
        let request = |lines: &str| answer(&format!("GET / HTTP/1.1\r\n{lines}\r\n"), &site);
        let upgrade = request(GOOD).unwrap();
        assert_eq!(upgrade.protocol, None);
        assert!(upgrade.response().ends_with("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        assert_eq!(status(request(&format!("{GOOD}Sec-WebSocket-Protocol: chat\r\n"))), "400 Bad Request");
        let upgrade = request(&format!("{GOOD}Sec-WebSocket-Protocol: p\r\n")).unwrap();
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
        for body in [
            "Content-Length: 5",
            "Content-Length: 0\r\nContent-Length: 5",
            "Transfer-Encoding: chunked",
            "Content-Length: 00",
        ] {
            let page = request(&format!("{GOOD}{p}{body}\r\n")).unwrap_err();
            assert!(page.response().ends_with("A WebSocket upgrade has no body.\n"), "{body}");
        }
        assert!(request(&format!("{GOOD}{p}Content-Length: 0\r\n")).is_ok());
        let answer = |request: &str| answer(request, &SITE);
        assert_eq!(status(answer(&format!("GET / HTTP/1.0\r\n{GOOD}{p}\r\n"))), "400 Bad Request");
        assert_eq!(status(answer(&format!("POST / HTTP/1.1\r\n{GOOD}{p}\r\n"))), "405 Method Not Allowed");
        assert_eq!(status(answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), "200 OK");
        assert_eq!(status(answer("BREW / HTTP/1.1\r\n\r\n")), "405 Method Not Allowed");
        let page = answer("HEAD / HTTP/1.1\r\n\r\n").unwrap_err().response();
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_token_is_no_subprotocol() {
        let bearer = "Sec-WebSocket-Protocol: bearer.abc";
        let upgrade = request(&format!("{GOOD}{bearer}, p\r\n")).unwrap();
        assert_eq!((upgrade.protocol, upgrade.spelled.as_deref()), (Some("p"), Some("p")));
        assert_eq!(status(request(&format!("{GOOD}{bearer}\r\n"))), "400 Bad Request");
        let site = Site { plain: true, ..SITE };
        let plain = answer(&format!("GET / HTTP/1.1\r\n{GOOD}{bearer}\r\n\r\n"), &site).unwrap();
        assert!(!plain.response().contains("bearer"));
    }
}
