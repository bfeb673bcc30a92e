//! Roots that use one UDP port each. In a test program of its own, because it counts the sockets of the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::collections::HashSet;
use std::fs;

use common::{Server, builder, soon};
use futures_util::StreamExt;
use pmesh::Node;

/// The local ports of the UDP sockets of this process.
fn udp_ports() -> Vec<u16> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let own: HashSet<String> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let mut ports = Vec::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if own.contains(columns[9]) {
                ports.push(u16::from_str_radix(columns[1].rsplit(':').next().unwrap(), 16).unwrap());
            }
        }
    }
    ports.sort_unstable();
    ports
}

async fn talk(from: &Node, to: &Node, text: &str) {
    let mut messages = to.messages();
    from.send(text).await.unwrap();
    assert_eq!(soon(messages.next()).await, Some(text.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mesh_of_six_has_six_sockets() {
    const PEERS: usize = 6;
    let server = Server::start().await;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        peers.push(server.peer_of(builder().shared_port(0)).await);
    }
    assert!(udp_ports().is_empty(), "bound when the first link is made");
    let mut pairs = Vec::new();
    for (number, here) in peers.iter().enumerate() {
        for there in &peers[..number] {
            pairs.push(here.meet(there).await);
        }
    }
    let ports = udp_ports();
    assert_eq!(ports.len(), PEERS, "{ports:?}");
    for (number, (a, b)) in pairs.iter().enumerate() {
        talk(a, b, &format!("there {number}")).await;
        talk(b, a, &format!("back {number}")).await;
    }
    // All links of one peer close, and are made again on the same port.
    for number in 1..PEERS {
        let (here, there) = (&peers[number], &peers[0]);
        let node = here.root.peer(&there.address).unwrap();
        let other = there.root.peer(&here.address).unwrap();
        soon(node.close()).await;
        soon(other.closed()).await;
        let (a, b) = there.meet(here).await;
        talk(&a, &b, &format!("again {number}")).await;
    }
    assert_eq!(udp_ports(), ports);
    // The root and its links gone, so is the port.
    drop(pairs);
    for peer in peers.drain(..) {
        soon(peer.root.close()).await;
    }
    soon(async {
        while !udp_ports().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
