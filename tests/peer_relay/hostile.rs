//! Who connects as an original and says what it likes. Nothing of the original is needed here.

use futures_util::{SinkExt, StreamExt};
use pmesh::onramp::Onramp;
use pmesh::overlay::OverlayId;
use pmesh::overlay::compat::peer_relay::{Data, Link, LinkError, MAX_MESSAGE_BYTES, Refused, accept, dial, encode_id};
use pmesh::overlay::router::MAX_FOREIGN_PATH;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::shared::{Raw, Us, connect, id, killers, message, next_user, send_user, soon};

const THEM: OverlayId = id(2);

async fn linked(us: &Us) -> (Link, Raw) {
    let original = async {
        let mut raw = connect(&us.url, encode_id(&THEM)).await;
        assert_eq!(soon(raw.next()).await.unwrap().unwrap(), Message::text(encode_id(&us.id)));
        let first = message(THEM, us.id, &Data::FindPeers(THEM));
        soon(raw.send(Message::text(first.encode()))).await.unwrap();
        raw
    };
    let (link, raw) = tokio::join!(us.accept(), original);
    let mut link = link.unwrap();
    let first = link.receiver.recv().await.unwrap();
    assert!(matches!(Data::decode(first.data.get().as_bytes()), Ok(Some(Data::FindPeers(id))) if id == THEM));
    (link, raw)
}

/// How the other side says that it is over, if it does.
async fn close_code(raw: &mut Raw) -> Option<CloseCode> {
    soon(async {
        while let Some(Ok(message)) = raw.next().await {
            if let Message::Close(frame) = message {
                return frame.map(|frame| frame.code);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn junk_is_counted_and_the_link_goes_on() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut raw) = linked(&us).await;
    let mut junk: Vec<_> = killers(THEM, us.id)
        .into_iter()
        .filter(|(_, _, decodes)| !decodes)
        .map(|(_, text, _)| Message::text(text))
        .collect();
    let path = vec![THEM; MAX_FOREIGN_PATH + 1];
    junk.push(Message::text(json!({"to": us.id, "from": THEM, "path": path, "nonce": "1", "data": {}}).to_string()));
    junk.push(Message::binary(vec![0xff; 1000]));
    junk.push(Message::text("[".repeat(100_000)));
    let count = junk.len() as u64;
    for message in junk {
        soon(raw.send(message)).await.unwrap();
    }
    let json = to_raw_value("still here").unwrap();
    soon(raw.send(Message::text(message(THEM, us.id, &Data::User(&json)).encode()))).await.unwrap();
    assert_eq!(next_user(&mut link).await, (THEM, json!("still here")));
    assert_eq!(link.receiver.malformed(), count);
    send_user(&link, us.id, THEM, &json!("and we"));
    let got = soon(raw.next()).await.unwrap().unwrap().into_text().unwrap();
    assert!(got.starts_with(&format!(r#"{{"to":"{THEM}","from":"{}","path":["{}"],"nonce":""#, us.id, us.id)), "{got}");
}

#[tokio::test]
async fn too_much_junk_ends_the_link() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut raw) = linked(&us).await;
    for _ in 0..200 {
        // It may be cut off before the last one.
        let _ = raw.feed(Message::text("null")).await;
    }
    let _ = raw.flush().await;
    assert_eq!(close_code(&mut raw).await, Some(CloseCode::Policy));
    assert!(soon(link.receiver.recv()).await.is_none());
    assert!(link.receiver.malformed() > 64);
    assert_eq!(link.sender.try_send(&message(us.id, THEM, &Data::HandshakeOffer)), Err(Refused::Closed));
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_link() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut raw) = linked(&us).await;
    // It may be cut off while it still sends.
    let _ = soon(raw.send(Message::text("x".repeat(MAX_MESSAGE_BYTES + 1)))).await;
    assert!(soon(link.receiver.recv()).await.is_none());
}

#[tokio::test]
async fn sending_never_waits_and_what_waits_is_bounded() {
    let us = Us::listen(id(1)).await;
    let (link, raw) = linked(&us).await;
    let large = to_raw_value(&"x".repeat(MAX_MESSAGE_BYTES / 2)).unwrap();
    let large = message(us.id, THEM, &Data::User(&large));
    // What fits into the buffers of the system is gone; then nobody reads.
    let full = soon(async {
        for sent in 0..1000 {
            if let Err(refused) = link.sender.try_send(&large) {
                return (sent, refused);
            }
            tokio::task::yield_now().await;
        }
        panic!("500 MB are on their way");
    })
    .await;
    assert_eq!(full.1, Refused::Full, "after {}", full.0);
    let too_long = to_raw_value(&"x".repeat(MAX_MESSAGE_BYTES)).unwrap();
    assert_eq!(link.sender.try_send(&message(us.id, THEM, &Data::User(&too_long))), Err(Refused::TooLong));
    drop(raw);
}

#[tokio::test]
async fn who_does_not_say_a_usable_id_hears_none() {
    let us = Us::listen(id(1)).await;
    let cases = [
        (encode_id(&us.id), LinkError::OwnId),
        (format!("\"{}\"", id(3)), LinkError::NotAdmitted(id(3))),
        ("null".into(), LinkError::NoId),
        (format!("\"{}00\"", id(3)), LinkError::NoId),
    ];
    for (first, error) in cases {
        let (link, mut raw) = tokio::join!(us.accept_if(|claimed| *claimed != id(3)), connect(&us.url, first.clone()));
        assert_eq!(link.unwrap_err(), error, "{first}");
        while let Some(Ok(message)) = soon(raw.next()).await {
            assert!(!message.is_text(), "{message}");
        }
    }
    let (link, _) =
        tokio::join!(us.accept(), async { drop(TcpStream::connect(us.listener.local_addr().unwrap()).await) });
    assert!(matches!(link, Err(LinkError::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_let_go() {
    let us = Us::listen(id(1)).await;
    let silent = TcpStream::connect(us.listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = us.listener.accept().await.unwrap();
    let made = accept(stream, &us.id, |_| true).await;
    assert_eq!(made.unwrap_err(), LinkError::TimedOut);
    drop(silent);
}

#[tokio::test]
async fn who_answers_no_ping_is_gone_after_a_while() {
    let us = Us::listen(id(1)).await;
    let (mut link, raw) = linked(&us).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    assert!(link.receiver.recv().await.is_none());
    assert!((30..120).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    drop(raw);
}

#[tokio::test]
async fn who_takes_nothing_is_gone_after_a_while_even_if_it_talks() {
    let us = Us::listen(id(1)).await;
    let (mut link, mut raw) = linked(&us).await;
    let large = to_raw_value(&"x".repeat(MAX_MESSAGE_BYTES / 2)).unwrap();
    let large = message(us.id, THEM, &Data::User(&large));
    while link.sender.try_send(&large).is_ok() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let small = Message::text(message(THEM, us.id, &Data::HandshakeOffer).encode());
    let talking = async {
        while raw.send(small.clone()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        }
    };
    let ended = async {
        tokio::select! {
            () = async { while link.receiver.recv().await.is_some() {} } => {}
            () = talking => {}
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(600), ended).await.expect("it goes on and on");
    assert!((30..120).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn either_side_closes() {
    let us = Us::listen(id(1)).await;
    for dropped in ["link", "sender", "receiver"] {
        let (mut link, raw) = linked(&us).await;
        drop(raw);
        assert!(soon(link.receiver.recv()).await.is_none(), "the other side is gone");
        let (link, mut raw) = linked(&us).await;
        match dropped {
            "link" => drop(link),
            "sender" => {
                send_user(&link, us.id, THEM, &json!("last"));
                let Link { sender, mut receiver, .. } = link;
                drop(sender);
                assert!(soon(raw.next()).await.unwrap().unwrap().is_text(), "what was sent arrives");
                assert_eq!(close_code(&mut raw).await, Some(CloseCode::Normal));
                assert!(soon(receiver.recv()).await.is_none());
                continue;
            }
            _ => drop(link.receiver),
        }
        assert_eq!(close_code(&mut raw).await, Some(CloseCode::Normal), "{dropped}");
    }
    for url in ["ws://127.0.0.1:1", "http://127.0.0.1:1", "no url"] {
        assert!(matches!(soon(dial(url, &us.id, |_| true)).await, Err(LinkError::Failed(_))), "{url}");
    }
    let onramp = Onramp::bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    let Err(LinkError::Denied(denied)) = soon(dial(&url, &us.id, |_| true)).await else { panic!("not denied") };
    assert_eq!(denied.status, 400);
}
