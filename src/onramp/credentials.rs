//! What a request says about who sends it: credentials, the origin of the page, and the address. Pure.

use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::transport::http::Head;
use crate::transport::upgrade::BEARER;

/// By what somebody logs in.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        name: String,
        password: Zeroizing<String>,
    },
    /// A token that somebody who logged in before has got.
    Bearer(Zeroizing<String>),
}

impl Credentials {
    /// Those of a request: of its headers, its query, its subprotocols or its cookies, whichever has some first.
    pub(super) fn of(head: &Head) -> Option<Self> {
        let offered = || head.tokens("sec-websocket-protocol").find_map(|token| token.strip_prefix(BEARER));
        let token = |token: &str| Self::Bearer(Zeroizing::new(token.to_owned()));
        Self::authorization(head.text("authorization").unwrap_or_default())
            .or_else(|| head.parameter("token").or_else(offered).map(token))
            .or_else(|| Self::cookies(head))
    }

    fn authorization(header: &str) -> Option<Self> {
        let (scheme, value) = header.split_once(' ')?;
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(Zeroizing::new(value.to_owned())));
        }
        let decoded = Zeroizing::new(BASE64.decode(value.as_bytes()).ok()?);
        let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        let password = Zeroizing::new(password.to_owned());
        scheme.eq_ignore_ascii_case("basic").then(|| Self::Password { name: name.to_owned(), password })
    }

    /// As the original client sends them, which cannot set headers.
    fn cookies(head: &Head) -> Option<Self> {
        let cookie = |name: &str| {
            let texts = head.values("cookie").filter_map(|value| std::str::from_utf8(value).ok());
            let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| unescape(value.trim()))
        };
        Some(Self::Password { name: cookie("uun")?, password: Zeroizing::new(cookie("ppz")?) })
    }
}

/// What JavaScript's `escape` has made of a text: `%XX` is a Latin-1 character, `%uXXXX` a unit of UTF-16. What is neither stays as it is.
fn unescape(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (unit, length) = match first {
            '%' => hex(rest, 2, 4).map(|unit| (unit, 6)).or_else(|| hex(rest, 1, 2).map(|unit| (unit, 3))),
            _ => None,
        }
        .unzip();
        let length = length.unwrap_or(first.len_utf8());
        match unit {
            Some(unit) => units.push(unit),
            None => units.extend(rest[..length].encode_utf16()),
        }
        rest = &rest[length..];
    }
    String::from_utf16_lossy(&units)
}

/// The hexadecimal digits that follow the sign of an escape, which is one or two characters long.
fn hex(text: &str, sign: usize, digits: usize) -> Option<u16> {
    let expected = if sign == 2 { "%u" } else { "%" };
    let digits = text.strip_prefix(expected)?.get(..digits)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// How a request was sent on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Whether the page that a request comes from may send it: it is of the same origin or one of `allowed`, or there is no page. Returns the
/// origin that is to be named in the answer.
///
/// Of the same origin are pages of the same host and port, by the `scheme` of the request. If that is not known they may be of either
/// one: a proxy may have taken TLS off.
pub(super) fn check_origin<'a>(
    head: &'a Head,
    allowed: &[String],
    scheme: Option<Scheme>,
) -> Result<Option<&'a str>, ()> {
    let mut origins = head.values("origin");
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return if head.values("origin").next().is_none() { Ok(None) } else { Err(()) };
    };
    let origin = std::str::from_utf8(origin).map_err(|_| ())?;
    let is_same = origin.split_once("://").is_some_and(|(of_page, host)| {
        let is_possible = Scheme::of(of_page).is_some_and(|of_page| scheme.is_none_or(|scheme| scheme == of_page));
        is_possible && head.text("host").is_some_and(|own| own.eq_ignore_ascii_case(host))
    });
    let is_allowed = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if is_same || is_allowed { Ok(Some(origin)) } else { Err(()) }
}

impl Scheme {
    /// Some proxies call requests for upgrades by the schemes of WebSockets.
    fn of(text: &str) -> Option<Self> {
        match &*text.to_ascii_lowercase() {
            "http" | "ws" => Some(Self::Http),
            "https" | "wss" => Some(Self::Https),
            _ => None,
        }
    }
}

/// How a request came to the nearest proxy, if that tells.
pub(super) fn forwarded_scheme(head: &Head) -> Option<Scheme> {
    head.tokens("x-forwarded-proto").next_back().and_then(Scheme::of)
}

/// Whether a request seems to have come through a proxy of the operator's: it says so, and comes from next door.
pub(super) fn is_forwarded(head: &Head, peer: IpAddr) -> bool {
    let is_near = match peer.to_canonical() {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private() || peer.is_link_local(),
        IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local(),
    };
    is_near && head.values("x-forwarded-for").next().is_some()
}

/// The address of whom the nearest proxy has forwarded a request for, if there is one.
pub(super) fn forwarded_for(head: &Head) -> Option<IpAddr> {
    let last = head.tokens("x-forwarded-for").next_back()?;
    last.parse().or_else(|_| last.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &str) -> Head {
        head_of("/directory", lines)
    }

    fn head_of(target: &str, lines: &str) -> Head {
        Head::new(format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes())
    }

    fn password(name: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { name: name.to_owned(), password: password.to_owned().into() })
    }

    fn bearer(token: &str) -> Option<Credentials> {
        Some(Credentials::Bearer(token.to_owned().into()))
    }

    /// As in ECMA-262, B.2.1.1.
    fn escape(text: &str) -> String {
        let plain =
            |unit: u16| char::from_u32(unit.into()).filter(|c| c.is_ascii_alphanumeric() || "@*_+-./".contains(*c));
        let one = |unit: u16| match plain(unit) {
            Some(c) => c.to_string(),
            None if unit < 256 => format!("%{unit:02X}"),
            None => format!("%u{unit:04X}"),
        };
        text.encode_utf16().map(one).collect()
    }

    #[test]
    fn the_original_escapes_what_cookies_cannot_hold() {
        assert_eq!(escape("ä€😀;=% "), "%E4%u20AC%uD83D%uDE00%3B%3D%25%20");
        for name in ["a", "ä€😀", "a;b=c", "100%", "%u12", "%zz", "", " "] {
            let cookies = format!("Cookie: x=1; ppz={}; uun={}; y", escape(name), escape("Ünal"));
            assert!(Credentials::of(&head(&cookies)) == password("Ünal", name), "{name}");
        }
        // Malformed escapes stay as they are.
        for (text, meant) in
            [("%", "%"), ("%u12", "%u12"), ("%u12G4", "%u12G4"), ("%4", "%4"), ("%+1", "%+1"), ("%u20ac%", "€%")]
        {
            assert_eq!(unescape(text), meant);
        }
        assert!(Credentials::of(&head("Cookie: uun=a")).is_none());
        assert!(Credentials::of(&head("Cookie: uun=a\r\nCookie: ppz=b=c")) == password("a", "b=c"));
    }

    #[test]
    fn headers_come_first_then_the_query_then_subprotocols_then_cookies() {
        let cookies = "Cookie: uun=c; ppz=d";
        let offer = "Sec-WebSocket-Protocol: pmesh.directory.1, bearer.tok";
        let basic = format!("Authorization: basic {}", BASE64.encode("ä:b:c".as_bytes()));
        let all = format!("{cookies}\r\n{offer}\r\n{basic}");
        assert!(Credentials::of(&head_of("/?token=q", &all)) == password("ä", "b:c"));
        assert!(Credentials::of(&head("Authorization: Bearer  t ")) == bearer("t"));
        assert!(Credentials::of(&head_of("/?a=b&token=q", &format!("{cookies}\r\n{offer}"))) == bearer("q"));
        assert!(Credentials::of(&head(&format!("{cookies}\r\n{offer}"))) == bearer("tok"));
        assert!(Credentials::of(&head(cookies)) == password("c", "d"));
        assert!(Credentials::of(&head("Authorization: Basic !\r\nHost: x")).is_none());
        assert!(Credentials::of(&head("Authorization: Digest YTpi")).is_none());
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_they_are_allowed() {
        let allowed = ["https://app.example".to_owned()];
        let check = |lines: &str| check_origin(&head(lines), &allowed, None).map(|origin| origin.map(str::to_owned));
        assert_eq!(check("Host: a.example:1"), Ok(None));
        assert_eq!(check("Host: a.example:1\r\nOrigin: http://A.example:1"), Ok(Some("http://A.example:1".into())));
        assert_eq!(check("Host: a\r\nOrigin: https://app.example"), Ok(Some("https://app.example".into())));
        for lines in [
            "Host: a.example:1\r\nOrigin: http://a.example",
            "Host: a\r\nOrigin: null",
            "Origin: ",
            "Host: a\r\nOrigin: https://app.example.evil",
            "Host: a\r\nOrigin: http://app.example",
            "Host: a\r\nOrigin: http://a\r\nOrigin: http://evil",
            "Host: a\r\nOrigin: file://a",
            "Host: a\r\nOrigin: chrome-extension://a",
            "Host: a\r\nOrigin: a",
        ] {
            assert_eq!(check(lines), Err(()), "{lines}");
        }
    }

    #[test]
    fn pages_without_tls_are_of_another_origin_if_the_request_came_with_it() {
        let check = |origin: &str, scheme| {
            let head = head(&format!("Host: a.example:1\r\nOrigin: {origin}"));
            check_origin(&head, &[], scheme).is_ok()
        };
        let (plain, tls) = ("http://a.example:1", "HTTPS://a.example:1");
        assert!(check(plain, None) && check(tls, None));
        assert!(check(tls, Some(Scheme::Https)) && !check(plain, Some(Scheme::Https)));
        assert!(check(plain, Some(Scheme::Http)) && !check(tls, Some(Scheme::Http)));
        for (lines, scheme) in [
            ("X-Forwarded-Proto: https", Some(Scheme::Https)),
            ("X-Forwarded-Proto: http, WSS", Some(Scheme::Https)),
            ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: ws", Some(Scheme::Http)),
            ("X-Forwarded-Proto: https, gopher", None),
            ("Host: a", None),
        ] {
            assert_eq!(forwarded_scheme(&head(lines)), scheme, "{lines}");
        }
    }

    #[test]
    fn the_last_proxy_is_believed() {
        let forwarded = |lines: &str| forwarded_for(&head(lines)).map(|address| address.to_string());
        assert_eq!(forwarded("X-Forwarded-For: 1.2.3.4, 10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(
            forwarded("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: [2001:db8::1]:80").as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(forwarded("X-Forwarded-For: 1.2.3.4, unknown"), None);
        assert_eq!(forwarded("Host: a"), None);
    }

    #[test]
    fn a_proxy_is_told_by_its_header_and_its_address() {
        for (lines, peer, expected) in [
            ("X-Forwarded-For: 192.0.2.1", "127.0.0.1", true),
            ("X-Forwarded-For: unknown", "::ffff:10.1.2.3", true),
            ("x-forwarded-for: 192.0.2.1", "fd00::1", true),
            ("X-Forwarded-For: 192.0.2.1", "198.51.100.1", false),
            ("X-Forwarded-For: 192.0.2.1", "2001:db8::1", false),
            ("Host: a", "127.0.0.1", false),
        ] {
            assert_eq!(is_forwarded(&head(lines), peer.parse().unwrap()), expected, "{lines} from {peer}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(text in "\\PC*") {
            prop_assert_eq!(unescape(&escape(&text)), text);
        }

        #[test]
        fn no_escape_panics(text in "[%u0-9a-fä€]{0,20}") {
            let _ = unescape(&text);
        }
    }
}
