//! What the integration tests share: an onramp within the process, and peers that meet there over 127.0.0.1.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and a failed test may panic"
)]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::onramp::Onramp;
use pmesh::{Address, Node, Root, RootBuilder};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No test waits longer for one thing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Fails instead of hanging.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

/// A running onramp that announces nobody.
pub struct Server {
    pub url: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        let onramp = Onramp::builder().announce(false).bind("127.0.0.1:0").await.unwrap();
        let url = onramp.url();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(onramp.run(async {
            let _ = stopped.await;
        }));
        Self { url, stop, running }
    }

    /// Stops it, and waits until it has.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        soon(self.running).await.unwrap();
    }

    /// A peer that is at this onramp.
    pub async fn peer(&self) -> Peer {
        self.peer_of(builder()).await
    }

    pub async fn peer_of(&self, builder: RootBuilder) -> Peer {
        let root = builder.build();
        let onramp = soon(root.connect(&self.url)).await.unwrap();
        let address = own_address(&onramp);
        Peer { root, onramp, address }
    }
}

/// A root with its onramp node and its address there.
pub struct Peer {
    pub root: Root,
    pub onramp: Node,
    pub address: Address,
}

impl Peer {
    /// Connects to another peer of the onramp. Returns both ends.
    pub async fn meet(&self, other: &Peer) -> (Node, Node) {
        let here = soon(self.onramp.connect(&other.address)).await.unwrap();
        (here, other.accepted(&self.address).await)
    }

    /// The open node of a peer that dialled this one.
    pub async fn accepted(&self, address: &Address) -> Node {
        let mut connections = self.root.connections();
        let node = match self.root.peer(address) {
            Some(node) => node,
            None => {
                soon(async {
                    loop {
                        let node = connections.next().await.unwrap();
                        if node.address() == address {
                            return node;
                        }
                    }
                })
                .await
            }
        };
        soon(node.opened()).await.unwrap();
        node
    }
}

/// The settings of a peer that stays on this machine.
pub fn builder() -> RootBuilder {
    Root::builder().bind([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).mdns(false)
}

/// The address that an onramp gave to this root.
pub fn own_address(onramp: &Node) -> Address {
    onramp.own_address().expect("an onramp of pmesh says so before the node is open").clone()
}
