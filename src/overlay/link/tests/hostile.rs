//! Who does not keep to the protocol.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::transport::upgrade::{self, Site};

/// A WebSocket of which the test says every message.
async fn raw(url: &str) -> Socket {
    let (socket, protocol) = Dialler::default().dial(url, &[websocket::PROTOCOL], 1 << 20).await.unwrap();
    assert_eq!(protocol.as_deref(), Some(websocket::PROTOCOL));
    socket
}

fn handshake(secret: u8) -> Dialling {
    Dialling::new(peer(secret), [secret; 32], String::new()).unwrap()
}

async fn answer(socket: &mut Socket) -> Bytes {
    match in_time(socket.next()).await.unwrap().unwrap() {
        Frame::Binary(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// A handshake as it should be. Returns the proof.
async fn introduce(socket: &mut Socket, dialling: &Dialling) -> Vec<u8> {
    socket.send(Frame::binary(dialling.hello())).await.unwrap();
    let (_, proof) = dialling.answer(&answer(socket).await).unwrap();
    socket.send(Frame::binary(proof.clone())).await.unwrap();
    proof
}

/// Reads until the other side ends it.
async fn ended(mut socket: Socket) {
    in_time(async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[tokio::test]
async fn a_key_without_its_secret_and_a_replayed_handshake_are_turned_away() {
    let (mut listener, url) = listener(options()).await;
    // Names the key of peer 2, but signs with that of peer 3.
    let mut socket = raw(&url).await;
    let mut hello = handshake(3).hello();
    hello[1..33].copy_from_slice(peer(2).peer_id().as_bytes());
    socket.send(Frame::binary(hello)).await.unwrap();
    answer(&mut socket).await;
    socket.send(Frame::binary(peer(3).sign(b"anything").to_vec())).await.unwrap();
    ended(socket).await;
    refused(&listener, 1).await;
    // What peer 2 has said in truth, once more.
    let mut first = raw(&url).await;
    let proof = introduce(&mut first, &handshake(2)).await;
    assert_eq!(accepted(&mut listener).await.key, peer(2).peer_id());
    let mut second = raw(&url).await;
    second.send(Frame::binary(handshake(2).hello())).await.unwrap();
    answer(&mut second).await;
    second.send(Frame::binary(proof)).await.unwrap();
    ended(second).await;
    refused(&listener, 2).await;
}

#[tokio::test]
async fn junk_in_the_handshake() {
    let (mut listener, url) = listener(options()).await;
    let messages = [
        Frame::text("hello"),
        Frame::binary(vec![]),
        Frame::binary(vec![1; 64]),
        Frame::binary(vec![2; 65]),
        Frame::binary([&[1][..], &[0; 64]].concat()),
        Frame::binary(vec![1; 100_000]),
        Frame::Close(None),
    ];
    let mut count = 0;
    for message in messages {
        let mut socket = raw(&url).await;
        // It may be closed in the middle of a large one.
        let _ = socket.send(message).await;
        ended(socket).await;
        count += 1;
        refused(&listener, count).await;
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n", b""] {
        let mut tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        in_time(tcp.read_to_end(&mut answer)).await.unwrap();
        count += 1;
        refused(&listener, count).await;
    }
    let _there = dialled(&url, &peer(2)).await.unwrap();
    accepted(&mut listener).await;
}

#[tokio::test]
async fn junk_on_a_link_ends_it() {
    let (mut listener, url) = listener(options()).await;
    for junk in [Frame::text("packet"), Frame::binary(vec![0; MAX_PACKET_BYTES + 1])] {
        let mut socket = raw(&url).await;
        introduce(&mut socket, &handshake(2)).await;
        let mut link = accepted(&mut listener).await;
        socket.send(Frame::binary("packet")).await.unwrap();
        let _ = socket.send(junk).await;
        assert_eq!(in_time(link.packets.next()).await.unwrap(), "packet");
        assert_eq!(in_time(link.packets.next()).await, None);
    }
}

#[tokio::test]
async fn who_listens_must_prove_its_key_too() {
    let site = Site { protocols: &[websocket::PROTOCOL], plain: false, hello: "", no_protocol: "" };
    for own_key in [true, false] {
        let tcp = TcpListener::bind(ANY_PORT).await.unwrap();
        let url = format!("ws://{}", tcp.local_addr().unwrap());
        let (site, dialler) = (&site, peer(2));
        let fake = async move {
            let (mut tcp, _) = tcp.accept().await.unwrap();
            let (Ok(upgrade), _) = upgrade::request(&mut tcp, site).await.unwrap() else { panic!("no upgrade") };
            tcp.write_all(upgrade.response().as_bytes()).await.unwrap();
            let mut socket = WebSocketStream::from_raw_socket(tcp, Role::Server, None).await;
            let Frame::Binary(hello) = socket.next().await.unwrap().unwrap() else { panic!("no hello") };
            let identity = peer(if own_key { 1 } else { 3 });
            let (_, mut answer) = handshake::Answered::new(&identity, [5; 32], &[], &hello).unwrap();
            answer[..32].copy_from_slice(peer(1).peer_id().as_bytes());
            socket.send(Frame::binary(answer)).await.unwrap();
            socket.next().await.map(|message| matches!(message, Ok(Frame::Binary(_))))
        };
        let (fake, there) = in_time(async { tokio::join!(fake, dialled(&url, &dialler)) }).await;
        if own_key {
            assert_eq!((fake, there.unwrap().key), (Some(true), peer(1).peer_id()));
        } else {
            assert_eq!(there.unwrap_err(), DialError::Handshake(HandshakeError::Signature));
        }
    }
}

#[tokio::test]
async fn one_address_has_so_many_handshakes_at_once() {
    let (mut listener, url) = listener(options()).await;
    let mut waiting = Vec::new();
    for _ in 0..128 {
        waiting.push(TcpStream::connect(listener.local_addr()).await.unwrap());
    }
    let mut further = TcpStream::connect(listener.local_addr()).await.unwrap();
    assert_eq!(in_time(further.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(listener.refused().count(), 1);
    // Those who go make room.
    drop(waiting);
    refused(&listener, 129).await;
    let _there = dialled(&url, &peer(2)).await.unwrap();
    accepted(&mut listener).await;
}

#[tokio::test]
async fn one_address_has_so_many_links() {
    for plain in [false, true] {
        let (mut listener, url) = listener(ListenOptions { links_per_address: Some(2), plain, ..options() }).await;
        let protocols: &[&str] = if plain { &[] } else { &[websocket::PROTOCOL] };
        let mut links = Vec::new();
        for secret in 2..4 {
            let (mut socket, _) = Dialler::default().dial(&url, protocols, 1 << 20).await.unwrap();
            if !plain {
                introduce(&mut socket, &handshake(secret)).await;
            }
            links.push((socket, in_time(listener.accept()).await));
        }
        let error = Dialler::default().dial(&url, protocols, 1 << 20).await.unwrap_err();
        assert!(error.to_string().contains("429"), "{error}");
        refused(&listener, 1).await;
        // Whoever goes makes room.
        links.pop();
        Dialler::default().dial(&url, protocols, 1 << 20).await.unwrap();
    }
}

#[tokio::test]
async fn this_machine_has_any_number_of_links() {
    let (mut listener, url) = listener(options()).await;
    let mut links = Vec::new();
    for _ in 0..65 {
        let mut socket = raw(&url).await;
        introduce(&mut socket, &handshake(2)).await;
        links.push((socket, accepted(&mut listener).await));
    }
}
