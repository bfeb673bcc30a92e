//! Links of shared ports through a TURN server.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use tokio::net::UdpSocket;

use super::*;
use crate::lock::lock;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 6;
const ERROR_CODE: u16 = 9;
const REALM: u16 = 0x14;
const NONCE: u16 = 0x15;
const CHANNEL_NUMBER: u16 = 0x0c;
const XOR_PEER_ADDRESS: u16 = 0x12;
const DATA: u16 = 0x13;
const XOR_RELAYED_ADDRESS: u16 = 0x16;
const XOR_MAPPED_ADDRESS: u16 = 0x20;
const LIFETIME: u16 = 0x0d;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = [kind.to_be_bytes(), (value.len() as u16).to_be_bytes()].concat();
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn message(kind: u16, transaction: &[u8], attributes: &[u8]) -> Vec<u8> {
    let length = (attributes.len() as u16).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, &COOKIE, transaction, attributes].concat()
}

fn value(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        if u16::from_be_bytes([*a, *b]) == wanted {
            return tail.get(..length);
        }
        rest = tail.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn masked(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("{address}") };
    let octets = address.ip().octets().into_iter().zip(COOKIE).map(|(byte, key)| byte ^ key);
    [0, 1].into_iter().chain((address.port() ^ 0x2112).to_be_bytes()).chain(octets).collect()
}

fn unmasked(value: &[u8]) -> SocketAddr {
    let octets: [u8; 4] = std::array::from_fn(|at| value[4 + at] ^ COOKIE[at]);
    (octets, u16::from_be_bytes([value[2], value[3]]) ^ 0x2112).into()
}

/// What a client, known by its address as with any TURN server, has allocated.
struct Allocation {
    relay: Arc<UdpSocket>,
    channels: Arc<Mutex<HashMap<SocketAddr, [u8; 2]>>>,
}

/// A TURN server (RFC 8656) that takes any password. Tells of each allocation.
async fn turn_server() -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let address = socket.local_addr().unwrap();
    let (sender, allocated) = mpsc::channel(100);
    tokio::spawn(async move {
        let mut allocations: HashMap<SocketAddr, Allocation> = HashMap::new();
        let mut buffer = [0; 2000];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let received = &buffer[..length];
            if received[0] >= 0x40 {
                let Some(allocation) = allocations.get(&client) else { continue };
                let size = usize::from(u16::from_be_bytes([received[2], received[3]]));
                let channel =
                    lock(&allocation.channels).iter().find(|(_, n)| n[..] == received[..2]).map(|(to, _)| *to);
                let _ = allocation.relay.send_to(&received[4..4 + size], channel.unwrap()).await;
                continue;
            }
            let (transaction, attributes) = (&received[8..20], &received[20..]);
            let peer = value(attributes, XOR_PEER_ADDRESS).map(unmasked);
            let kind = u16::from_be_bytes([received[0], received[1]]);
            let mut answer = attribute(LIFETIME, &600u32.to_be_bytes());
            match kind {
                1 => answer = attribute(XOR_MAPPED_ADDRESS, &masked(client)),
                3 if value(attributes, USERNAME).is_none() => {
                    let refused =
                        [attribute(ERROR_CODE, &[0, 0, 4, 1]), attribute(REALM, b"r"), attribute(NONCE, b"n")];
                    let refusal = message(0x113, transaction, &refused.concat());
                    let _ = socket.send_to(&refusal, client).await;
                    continue;
                }
                3 => {
                    let relay = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                    answer.extend(attribute(XOR_RELAYED_ADDRESS, &masked(relay.local_addr().unwrap())));
                    answer.extend(attribute(XOR_MAPPED_ADDRESS, &masked(client)));
                    let allocation = Allocation { relay, channels: Arc::default() };
                    tokio::spawn(relay_back(
                        socket.clone(),
                        client,
                        allocation.relay.clone(),
                        allocation.channels.clone(),
                    ));
                    assert!(allocations.insert(client, allocation).is_none(), "one allocation for each address");
                    sender.send(client).await.unwrap();
                }
                9 => {
                    let number = value(attributes, CHANNEL_NUMBER).unwrap();
                    lock(&allocations[&client].channels).insert(peer.unwrap(), [number[0], number[1]]);
                }
                0x16 => {
                    let data = value(attributes, DATA).unwrap();
                    let _ = allocations[&client].relay.send_to(data, peer.unwrap()).await;
                    continue;
                }
                _ => {}
            }
            let _ = socket.send_to(&message(kind | 0x100, transaction, &answer), client).await;
        }
    });
    (address, allocated)
}

async fn relay_back(
    server: Arc<UdpSocket>,
    client: SocketAddr,
    relay: Arc<UdpSocket>,
    channels: Arc<Mutex<HashMap<SocketAddr, [u8; 2]>>>,
) {
    let mut buffer = [0; 2000];
    while let Ok((length, from)) = relay.recv_from(&mut buffer).await {
        let data = &buffer[..length];
        let channel = lock(&channels).get(&from).copied();
        let packet = match channel {
            Some(number) => [&number[..], &(length as u16).to_be_bytes(), data].concat(),
            None => {
                let attributes = [attribute(XOR_PEER_ADDRESS, &masked(from)), attribute(DATA, data)].concat();
                message(0x17, &[9; 12], &attributes)
            }
        };
        let _ = server.send_to(&packet, client).await;
    }
}

fn relayed_only(mut description: Description) -> Description {
    let lines = description.sdp.lines().filter(|l| !l.starts_with("a=candidate:") || l.contains(" typ relay"));
    description.sdp = lines.map(|line| format!("{line}\r\n")).collect();
    description
}

/// Passes on relayed candidates only, until the end is open. Returns what it has seen of the others.
async fn open_by_relay(here: &mut Peer, there: &dyn Link, seen: &mut String) {
    loop {
        match here.event().await {
            LinkEvent::Opened { .. } => return,
            LinkEvent::Candidate(candidate) if candidate.candidate.contains(" typ relay") => {
                there.command(Command::Candidate(candidate));
            }
            LinkEvent::Candidate(candidate) => *seen += &format!("{}\n", candidate.candidate),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_a_shared_port_go_through_a_turn_server_by_sockets_of_their_own() {
    let (server, mut allocated) = turn_server().await;
    let transport = || {
        let servers = vec![
            IceServer { urls: vec![format!("stun:{server}")], ..IceServer::default() },
            IceServer { urls: vec![format!("turn:{server}")], username: "user".into(), credential: "pass".into() },
        ];
        WebRtc::new(WebRtcConfig { shared_port: Some(0), ice_servers: servers, ..config() })
    };
    let (hub, others) = (transport(), [transport(), transport()]);
    let mut pairs = Vec::new();
    let mut seen = String::new();
    for other in &others {
        let mut a = Peer::start(&hub, Target::Offer);
        let offer = relayed_only(a.description().await);
        let mut b = Peer::start(other, Target::Answer { offer: offer.clone(), remote: pmesh() });
        let description = relayed_only(b.description().await);
        join(&a, &offer, &b, description);
        let (to_a, to_b) = (a.link.take().unwrap(), b.link.take().unwrap());
        let mut unused = String::new();
        tokio::join!(open_by_relay(&mut a, &*to_b, &mut seen), open_by_relay(&mut b, &*to_a, &mut unused));
        (a.link, b.link) = (Some(to_a), Some(to_b));
        pairs.push((a, b));
    }
    // The hub told each of them the one port that it has, as its own and as the server sees it.
    let ports: HashSet<_> = seen.lines().map(|line| line.split(' ').nth(5)).collect();
    assert!(seen.contains(" typ srflx") && ports.len() == 1, "{seen}");
    for (a, b) in &pairs {
        for length in [1, 1000, 100_000] {
            echo(a, b, Kind::Binary, vec![7; length].into()).await;
        }
    }
    let clients: HashSet<_> = std::iter::from_fn(|| allocated.try_recv().ok()).collect();
    assert_eq!(clients.len(), 4, "{clients:?}");
}
