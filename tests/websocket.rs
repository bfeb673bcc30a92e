//! WebSocket nodes: `wss`, and onramps that misbehave.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;
#[path = "common/tls.rs"]
mod tls;

use std::time::Duration;

use common::{Server, builder, own_address, soon};
use futures_util::{FutureExt, SinkExt, StreamExt};
use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
use pmesh::{CloseReason, Connect, ConnectError, Root};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_meet_over_wss_if_they_trust_the_certificate() {
    let onramp = Server::start().await;
    let (url, certificate) = tls::front(&onramp.url).await;
    let trusting = builder().trust_certificate(certificate).build();
    let node = soon(trusting.connect(&url)).await.unwrap();
    let address = own_address(&node);
    let other = onramp.peer().await;
    let peer = soon(other.onramp.connect(&address)).await.unwrap();
    peer.send("over TLS").await.unwrap();
    let mut all = trusting.messages();
    assert_eq!(soon(all.next()).await.unwrap().1, "over TLS".into());

    let wary = builder().build();
    assert!(matches!(soon(wary.connect(&url)).await, Err(ConnectError::Failed(_))));
}

#[tokio::test]
async fn who_logs_in_at_an_onramp_with_accounts_is_a_peer_there_and_tells_nobody_the_password() {
    let accounts = Accounts::new(MemoryStore::new(), Plain);
    accounts.create("alice", "correct horse").await.unwrap();
    let onramp = Onramp::builder().accounts(accounts).bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    let root = builder().build();
    let connect = Connect::to(&url).log_in("alice", "correct horse");
    assert!(!format!("{connect:?}").contains("YWxpY2U6"), "{connect:?}");
    let node = soon(root.connect(connect)).await.unwrap();
    assert_eq!(node.address().as_str(), url);
    let other = builder().build();
    let again = soon(other.connect(Connect::to(&url).log_in("alice", "correct horse"))).await.unwrap();
    soon(again.connect(own_address(&node))).await.unwrap();

    for (connect, status, code, why) in [
        (Connect::to(&url), 401, "noCredentials", "Log in first"),
        (Connect::to(&url).log_in("alice", "wrong"), 403, "wrongPassword", "the name or the password is wrong"),
    ] {
        let root = builder().build();
        let connecting = root.connect(connect);
        let node = connecting.node();
        let error = soon(connecting).await.unwrap_err();
        let ConnectError::Denied(denied) = &error else { panic!("{error:?}") };
        assert_eq!((denied.status, denied.code.as_deref(), &*denied.why), (status, Some(code), why));
        assert_eq!(soon(node.closed()).await, CloseReason::Denied(denied.clone()));
        assert_eq!(error.to_string(), format!("the server answers with status {status}: {why}"));
    }
}

/// A server that answers each request by this.
async fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            // The client may have enough before all is written.
            let _ = client.write_all(&answer).await;
        }
    });
    url
}

#[tokio::test]
async fn what_a_hostile_server_says_is_bounded_and_clean() {
    let answer =
        |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n{body}").into_bytes();
    let huge = "\x1b]0;title\x07 \r\n\0".repeat(4 << 20);
    let root = builder().build();
    for (answer, status) in [
        (answer("500 Oops", &huge), 500),
        (answer("403 No", &huge[..100]), 403),
        (answer("599", ""), 599),
        (b"HTTP/1.1 401 \xffx\r\n\r\n{\"code\":\"\\u001b\",\"message\":\"\\u001b[2J\"}".to_vec(), 401),
    ] {
        let error = soon(root.connect(&answering(answer).await)).await.unwrap_err();
        let ConnectError::Denied(denied) = &error else { panic!("{error:?}") };
        assert_eq!((denied.status, denied.code.as_deref()), (status, None));
        let shown = error.to_string();
        assert!(shown.len() < 300 && !shown.contains(char::is_control), "{shown:?}");
    }
    let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1\r\n\r\n".to_vec();
    let error = soon(root.connect(&answering(elsewhere).await)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Failed(why) if why.contains("302")), "{error:?}");
}

/// Passwords that cost nothing.
struct Plain;

impl Passwords for Plain {
    fn hash(&self, password: &str) -> String {
        password.to_owned()
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        hash == Some(password)
    }
}

#[tokio::test]
async fn what_is_no_onramp_gives_a_clear_error() {
    let root = Root::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for url in [format!("ws://{address}"), "http://127.0.0.1:1".into(), "not a url".into(), "wss://".into()] {
        let error = soon(root.connect(&url)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Failed(_)), "{url}: {error:?}");
    }
    // A server that is there is not bothered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for url in [format!("http://127.0.0.1:{port}"), format!("localhost:{port}")] {
        let error = soon(root.connect(&url)).await.unwrap_err();
        let scheme = "the URL begins neither with ws:// nor with wss://";
        assert_eq!(error, ConnectError::Failed(scheme.into()), "{url}");
    }
    assert!(listener.accept().now_or_never().is_none());
    assert!(root.peers().is_empty());
}

#[tokio::test]
async fn a_server_that_does_not_answer_ends_in_a_timeout() {
    let root = Root::builder().connect_timeout(Duration::from_millis(300)).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    assert_eq!(soon(root.connect(&url)).await.unwrap_err(), ConnectError::TimedOut);
    // The socket is given up too.
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    let _ = stream.shutdown().await;
}

/// A server that says whatever it likes. Takes one client.
async fn hostile(frames: Vec<Message>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            response.headers_mut().insert("sec-websocket-protocol", "p".parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
        for frame in frames {
            if socket.send(frame).await.is_err() {
                return;
            }
        }
        while let Some(Ok(_)) = socket.next().await {}
    });
    url
}

#[tokio::test]
async fn a_hostile_onramp_does_no_harm() {
    let junk = [
        "",
        "[",
        "null",
        "5",
        "{}",
        "[]",
        "[6]",
        "[7]",
        "[7,5,5]",
        "[7,\"x\",null]",
        "[7,\"x\",[3,{\"type\":\"offer\"}]]",
        "[7,\"x\",[5,{}]]",
        "[99]",
        "[6,\"__proto__\",[]]",
        "[16,\"\"]",
        "[17,\"x\"]",
        "[18]",
        "[7,\"x\",[9]]",
    ];
    let mut frames: Vec<Message> = junk.iter().map(|text| Message::text(*text)).collect();
    frames.push(Message::binary(vec![0xff; 1000]));
    frames.push(Message::text("[0,{\"still\":\"there\"}]"));
    let root = Root::new();
    let node = soon(root.connect(hostile(frames).await)).await.unwrap();
    let mut messages = node.messages();
    assert_eq!(soon(messages.next()).await, Some(vec![0xff; 1000].into()));
    assert_eq!(soon(messages.next()).await, Some(json!({"still": "there"}).into()));
    assert_eq!(root.peers(), std::slice::from_ref(&node));
    // The counters are written after each report.
    let mut counters = root.counters();
    while counters.malformed < 15 {
        tokio::task::yield_now().await;
        counters = root.counters();
    }
    assert_eq!(counters.malformed, 16, "{counters:?}");
    assert_eq!(soon(node.close()).await, CloseReason::Local);
}

#[tokio::test]
async fn a_frame_above_the_limit_ends_the_node() {
    let root = Root::new();
    let connecting = root.connect(hostile(vec![Message::binary(vec![0; 2 << 20])]).await);
    let node = connecting.node();
    // Open for so short a time that the caller may not have seen it.
    let _ = soon(connecting).await;
    assert!(matches!(soon(node.closed()).await, CloseReason::Lost(_)));
}
