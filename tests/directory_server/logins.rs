//! Every way in, and who is kept out.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use data_encoding::BASE64;
use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{name}:{password}").as_bytes()))
}

/// An upgrade to the directory as text, with more header lines.
fn upgrade(host: &str, lines: &str) -> String {
    format!(
        "GET /directory HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

#[tokio::test]
async fn cookies_hold_whatever_the_original_escapes() {
    let accounts = accounts();
    let names = ["plain", "ä€😀", "a;b", "a=b", "100%", "%u12", "%u20AC", "a,b \"c\"", "€"];
    for name in names {
        accounts.create(name, &format!("password {name}")).await.unwrap();
    }
    let server = Server::start(Onramp::builder(), accounts).await;
    for name in names {
        server.cookies(name, &format!("password {name}")).await.unwrap_or_else(|status| panic!("{name}: {status}"));
        for wrong in [String::new(), format!("password {name} "), format!("password {name}x")] {
            // Blanks around it are no part of a value that is not escaped; here they are.
            assert_eq!(server.cookies(name, &wrong).await.err(), Some(403), "{name}: {wrong:?}");
        }
    }
    assert_eq!(server.cookies("", "").await.err(), Some(403));
    for cookie in ["uun=plain", "ppz=password plain", "", "uun", "xuun=plain; ppz=password%20plain"] {
        assert_eq!(server.upgrade("/directory", &[("Cookie", cookie)]).await.err(), Some(401), "{cookie}");
    }
    // By name, wherever they are.
    let cookie = "a=b; ppz=password%20plain; c; uun=plain";
    server.upgrade("/directory?x=1", &[("Cookie", cookie)]).await.unwrap();
}

#[tokio::test]
async fn native_apps_and_browsers_log_in() {
    let server = Server::with(&["ä"], &[]).await;
    let password = password_of("ä");
    let header = basic("ä", &password);
    server.upgrade("/directory", &[("Authorization", &header)]).await.unwrap().welcome().await;
    assert_eq!(server.upgrade("/directory", &[("Authorization", &basic("ä", "wrong"))]).await.err(), Some(403));
    assert_eq!(server.upgrade("/directory", &[("Authorization", &basic("nobody", "wrong"))]).await.err(), Some(403));

    let by_header = server.post("/login", &format!("Authorization: {header}\r\n"), "").await;
    let by_json = server.post("/login", "", &json!({ "name": "ä", "password": password }).to_string()).await;
    for answer in [&by_header, &by_json] {
        assert_eq!((answer.status, &answer.body["expiresIn"]), (200, &json!(300)), "{}", answer.head);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        let token = answer.body["token"].as_str().unwrap();
        server.upgrade("/directory", &[("Authorization", &format!("Bearer {token}"))]).await.unwrap().welcome().await;
        server.upgrade(&format!("/directory?token={token}"), &[]).await.unwrap().welcome().await;
        let offer = format!("pmesh.directory.1, bearer.{token}");
        let mut peer = server.upgrade("/directory", &[("Sec-WebSocket-Protocol", &offer)]).await.unwrap();
        assert_eq!(peer.protocol.as_deref(), Some("pmesh.directory.1"));
        peer.welcome().await;
        let offer = format!("bearer.{token}, p");
        let peer = server.upgrade("/", &[("Sec-WebSocket-Protocol", &offer)]).await.unwrap();
        assert_eq!(peer.protocol.as_deref(), Some("p"));
    }
    assert_eq!(server.upgrade("/directory?token=guess", &[]).await.err(), Some(403));
    // A new password ends them.
    let token = by_json.body["token"].as_str().unwrap();
    server.accounts.set_password("ä", "another one").await.unwrap();
    assert_eq!(server.upgrade(&format!("/directory?token={token}"), &[]).await.err(), Some(403));
}

#[tokio::test]
async fn who_is_refused_is_told_how_to_do_better() {
    let server = Server::with(&["a"], &[]).await;
    let host = server.address.to_string();
    let answer = Answer::of(&server.raw(upgrade(&host, "")).await);
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"pmesh\", charset=\"UTF-8\""));
    assert_eq!(server.post("/login", "", "").await.status, 401);
    for body in ["{", "{}", "[]", r#"{"name":"a"}"#, r#"{"name":1,"password":2}"#] {
        assert_eq!(server.post("/login", "", body).await.body["code"], "malformed", "{body}");
    }
    let wrong = server.post("/login", "", r#"{"name":"a","password":"x"}"#).await;
    assert_eq!((wrong.status, &wrong.body["code"]), (403, &json!("wrongPassword")));
    // Bodies are bounded, and their length is told.
    let large = "x".repeat(4097);
    assert_eq!(server.post("/login", "", &large).await.status, 413);
    for head in ["Transfer-Encoding: chunked", "Content-Length: x", "Content-Length: 1\r\nContent-Length: 2"] {
        let answer = server.raw(format!("POST /login HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    }
    for (request, status) in [
        ("GET /login HTTP/1.1\r\n\r\n", 405),
        ("PUT /login HTTP/1.1\r\n\r\n", 405),
        ("PUT /invite HTTP/1.1\r\n\r\n", 405),
        ("POST /directory HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        ("GET /directory HTTP/1.1\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\n\r\n", 200),
    ] {
        let answer = Answer::of(&server.raw(request).await);
        assert_eq!(answer.status, status, "{request}");
        let allowed = match request.split(' ').nth(1) {
            Some("/login") => "POST, OPTIONS",
            Some("/invite") => "GET, HEAD, POST, OPTIONS",
            _ => "GET, HEAD",
        };
        assert_eq!(answer.header("Allow"), (status == 405).then_some(allowed), "{request}");
    }
    assert_eq!(server.upgrade("/directory", &[("Sec-WebSocket-Protocol", "p")]).await.err(), Some(400));
    assert_eq!(server.handle.stats().denied, 3);
}

#[tokio::test]
async fn requests_have_so_much_time() {
    let accounts = accounts();
    let short = Duration::from_millis(50);
    let server = Server::start(Onramp::builder().handshake_timeout(short), accounts).await;
    for unfinished in ["", "GET /", "POST /login HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"] {
        let answer = server.raw(unfinished).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let mut tcp = server.tcp().await;
    tcp.write_all(b"POST /login HTTP/1.1\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(tcp.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out() {
    let accounts = accounts();
    accounts.create("a", &password_of("a")).await.unwrap();
    let server = Server::start(Onramp::builder().allow_origins(["https://app.example"]), accounts).await;
    let own = format!("http://{}", server.address);
    let cookie = format!("uun=a; ppz={}", escape(&password_of("a")));
    for (origin, refused) in [
        (&*own, None),
        ("https://app.example", None),
        ("https://evil.example", Some(403)),
        ("null", Some(403)),
        ("https://app.example.evil.example", Some(403)),
    ] {
        let headers = [("Cookie", &*cookie), ("Origin", origin)];
        assert_eq!(server.upgrade("/directory", &headers).await.err(), refused, "{origin}");
        let p = [headers[0], headers[1], ("Sec-WebSocket-Protocol", "p")];
        assert_eq!(server.upgrade("/", &p).await.err(), refused, "{origin}");
        let body = json!({ "name": "a", "password": password_of("a") }).to_string();
        let login = server.post("/login", &format!("Origin: {origin}\r\n"), &body).await;
        let allowed = refused.is_none().then_some(origin);
        assert_eq!((login.status, login.header("Access-Control-Allow-Origin")), (refused.unwrap_or(200), allowed));
        let preflight = format!("OPTIONS /login HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\n\r\n", server.address);
        let preflight = Answer::of(&server.raw(preflight).await);
        assert_eq!(preflight.status, refused.unwrap_or(204));
        assert_eq!(
            preflight.header("Content-Length").is_some(),
            refused.is_some(),
            "there is nothing to have a length"
        );
        assert_eq!(preflight.header("Access-Control-Allow-Origin"), allowed);
        assert_eq!(preflight.header("Access-Control-Allow-Methods"), allowed.map(|_| "POST"));
    }
}

/// Whoever can alter a page without TLS does not log in with TLS by it.
#[tokio::test]
async fn pages_without_tls_are_kept_out_where_a_proxy_has_it() {
    for trusted in [false, true] {
        let accounts = accounts();
        accounts.create("a", &password_of("a")).await.unwrap();
        let server = Server::start(Onramp::builder().trust_forwarded(trusted), accounts).await;
        let cookie = format!("uun=a; ppz={}", escape(&password_of("a")));
        for (scheme, forwarded, refused) in [("http", "https", trusted), ("https", "wss", false), ("http", "", false)] {
            let origin = format!("{scheme}://{}", server.address);
            let headers = [("Cookie", &*cookie), ("Origin", &origin), ("X-Forwarded-Proto", forwarded)];
            let answer = server.upgrade("/directory", &headers).await.err();
            assert_eq!(answer, refused.then_some(403), "{scheme} behind {forwarded}");
        }
    }
}

#[tokio::test]
async fn invitations_make_accounts_once() {
    let server = Server::with(&["a"], &[]).await;
    let (mut a, _) = server.directory("a").await;
    assert_eq!(a.answer("inviteUser", json!({ "email": "nonsense" })).await, Err("invalidEmail".into()));
    let invite = a.answer("inviteUser", json!({ "email": "b@example.org" })).await.unwrap();
    assert_eq!(invite["expiresIn"], 7 * 24 * 60 * 60);
    let accept = async |invite: &str, name: &str, password: &str| {
        let body = json!({ "invite": invite, "name": name, "password": password }).to_string();
        let answer = server.post("/invite", "", &body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(!message.contains("token"), "{message}");
        (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
    };
    let secret = invite["invite"].as_str().unwrap();
    assert_eq!(accept("guess", "b", &password_of("b")).await, (400, "unknownToken".into()));
    assert_eq!(accept(secret, "b", "short").await, (400, "invalidPassword".into()));
    assert_eq!(accept(secret, "a", &password_of("b")).await, (409, "nameTaken".into()));
    assert_eq!(accept(secret, "b", &password_of("b")).await, (200, String::new()));
    assert_eq!(accept(secret, "c", &password_of("b")).await, (400, "unknownToken".into()));
    server.directory("b").await;
    // The original is told that nothing came of it: an invitation is worth nothing to who does not get it.
    a.send(r#"{"type":"inviteUser","data":{"email":"c@example.org"}}"#).await;
    assert_eq!(a.text().await, r#"{"type":"error"}"#);
}

/// The secret is behind the `#` of the link, which the server never sees.
#[tokio::test]
async fn a_link_to_an_invitation_opens_a_page_that_accepts_it() {
    let server = Server::with(&["a"], &[]).await;
    let page = server.raw(format!("GET /invite HTTP/1.1\r\nHost: {}\r\n\r\n", server.address)).await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Type: text/html"), "{head}");
    assert!(head.contains("Referrer-Policy: no-referrer") && head.contains("Cache-Control: no-store"), "{head}");
    let script = body.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    assert!(script.contains("location.hash") && script.contains(r#"method: "POST""#));
    let (_, policy) = head.split_once("Content-Security-Policy: default-src 'none'; script-src 'sha256-").unwrap();
    assert_eq!(policy.split_once('\'').unwrap().0, BASE64.encode(&Sha256::digest(script)), "or browsers do not run it");
    let without_body = server.raw("HEAD /invite HTTP/1.1\r\n\r\n").await;
    assert_eq!(without_body.split_once("\r\n\r\n").unwrap().1, "");
}

/// Behind a proxy the throttle counts by whom the proxy has forwarded for, if it is told to.
#[tokio::test]
async fn the_address_may_be_that_of_whom_a_proxy_forwards_for() {
    for trusted in [false, true] {
        let accounts = accounts();
        accounts.create("a", &password_of("a")).await.unwrap();
        let server = Server::start(Onramp::builder().trust_forwarded(trusted), accounts).await;
        let forwarded = async |address: &str, password: &str| {
            let body = json!({ "name": "a", "password": password }).to_string();
            server.post("/login", &format!("X-Forwarded-For: 192.0.2.9, {address}\r\n"), &body).await
        };
        for number in 0.. {
            let answer = forwarded("192.0.2.1", &format!("wrong {number}")).await;
            if answer.status == 429 {
                assert!(answer.header("Retry-After").unwrap().parse::<u64>().unwrap() > 0);
                break;
            }
            assert_eq!(answer.status, 403);
        }
        let other = forwarded("192.0.2.2", &password_of("a")).await;
        assert_eq!(other.status, if trusted { 200 } else { 429 });
    }
}

/// Passwords whose check takes until the sender is gone.
struct Stuck(Mutex<Receiver<()>>);

impl Passwords for Stuck {
    fn hash(&self, password: &str) -> String {
        Cheap.hash(password)
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        let _ = self.0.lock().unwrap().recv();
        Cheap.verify(password, hash)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_take_only_so_long_and_only_so_many_wait() {
    let (release, stuck) = sync_channel(1);
    let accounts = Accounts::builder(MemoryStore::new(), Stuck(Mutex::new(stuck))).attempts_at_once(1, 1).build();
    accounts.create("a", &password_of("a")).await.unwrap();
    let server = Server::start(Onramp::builder().login_timeout(Duration::from_millis(200)), accounts).await;
    let login = || async { server.cookies("a", &password_of("a")).await };
    let (first, second) = tokio::join!(login(), login());
    assert_eq!((first.err(), second.err()), (Some(503), Some(503)));
    assert_eq!((server.handle.stats().refused_full, server.handle.stats().open), (2, 0));
    drop(release);
    soon(async { while server.cookies("a", &password_of("a")).await.is_err() {} }).await;
}
