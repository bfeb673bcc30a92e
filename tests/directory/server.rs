//! A directory within the process, and sessions at it.

use std::net::SocketAddr;

use futures_util::StreamExt;
use pmesh::directory::{
    Credentials, Directory, DirectoryBuilder, LoginError, Peer, PoolConfig, Replies, Reply, Session, SessionEvent,
};
use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{Accounts, Allowance, MemoryStore, Passwords, Throttling};
use pmesh::rpc::{ModuleGuard, Request};
use pmesh::{PeerNumber, Root, RootBuilder};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::common::{builder, soon};

/// Of every account.
pub(crate) const PASSWORD: &str = "correct horse";

/// Hashes that cost nothing.
struct Plain;

impl Passwords for Plain {
    fn hash(&self, password: &str) -> String {
        format!("plain {password}")
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        hash.is_some_and(|hash| hash == self.hash(password))
    }
}

pub(crate) struct Server {
    pub(crate) accounts: Accounts,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    /// With these accounts, all of which trust each other, by their names.
    pub(crate) async fn start(names: &[&str]) -> Self {
        let strict = Allowance { burst: 3, every: std::time::Duration::from_secs(60) };
        let throttling = Throttling { pair: strict, ..Throttling::default() };
        let accounts = Accounts::builder(MemoryStore::new(), Plain).throttling(throttling).build();
        for (n, name) in names.iter().enumerate() {
            accounts.create(name, PASSWORD).await.unwrap();
            for other in &names[..n] {
                accounts.trust(name, other, other, name).await.unwrap();
            }
        }
        Self::at("127.0.0.1:0".parse().unwrap(), accounts).await
    }

    pub(crate) async fn at(address: SocketAddr, accounts: Accounts) -> Self {
        let onramp = Onramp::builder().accounts(accounts.clone()).bind(address).await.unwrap();
        let address = onramp.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(onramp.run(async {
            let _ = stopped.await;
        }));
        Self { accounts, address, stop, running }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Stops it. The accounts stay.
    pub(crate) async fn stop(self) -> (SocketAddr, Accounts) {
        let _ = self.stop.send(());
        soon(self.running).await.unwrap();
        (self.address, self.accounts)
    }

    pub(crate) async fn log_in(&self, name: &str) -> Login {
        self.log_in_with(name, PoolConfig::default()).await
    }

    pub(crate) async fn log_in_with(&self, name: &str, pool: PoolConfig) -> Login {
        self.log_in_as(name, builder(), Directory::builder().pool(pool)).await
    }

    pub(crate) async fn log_in_as(&self, name: &str, root: RootBuilder, directory: DirectoryBuilder) -> Login {
        let root = root.build();
        let session = self.connect(name, PASSWORD, directory.root(&root)).await.unwrap();
        Login { session, root }
    }

    pub(crate) async fn connect(
        &self,
        name: &str,
        password: &str,
        directory: DirectoryBuilder,
    ) -> Result<Session, LoginError> {
        soon(directory.connect(&self.url(), Credentials::new(name, password))).await
    }
}

/// A session and its root.
pub(crate) struct Login {
    pub(crate) session: Session,
    pub(crate) root: Root,
}

impl Login {
    pub(crate) fn number(&self) -> PeerNumber {
        self.session.number()
    }

    /// The peers that it makes or has connections to.
    pub(crate) fn connected(&self) -> Vec<u64> {
        let mut peers: Vec<u64> =
            self.root.peers().iter().filter_map(|node| node.address().as_str().parse().ok()).collect();
        peers.sort_unstable();
        peers
    }

    /// Waits until exactly these peers are there besides it.
    pub(crate) async fn sees(&self, others: &[&Self]) {
        let mut expected: Vec<_> = others.iter().map(|other| other.number()).collect();
        expected.sort_unstable();
        let mut events = self.session.events();
        soon(async {
            loop {
                let mut peers: Vec<_> = self.session.peers().iter().map(|peer| peer.number).collect();
                peers.sort_unstable();
                if peers == expected {
                    break;
                }
                events.next().await.unwrap();
            }
        })
        .await;
    }

    /// Waits until the connection to this peer is over.
    pub(crate) async fn parted(&self, other: PeerNumber) {
        let address = pmesh::Address::new(other.to_string()).unwrap();
        if let Some(node) = self.root.peer(&address) {
            soon(node.closed()).await;
        }
    }

    /// Answers with who calls and what it says.
    pub(crate) fn echo(&self) -> ModuleGuard {
        self.session.module("Echo", async |request: Request| Ok(json!([caller(&request), request.body()]))).unwrap()
    }
}

pub(crate) fn caller(request: &Request) -> Value {
    request.caller().data::<Peer>().map_or(Value::Null, |peer| json!([peer.name, peer.number]))
}

/// The next event of which this is something.
pub(crate) async fn event<T>(session: &Session, mut pick: impl FnMut(&SessionEvent) -> Option<T>) -> T {
    let mut events = session.events();
    soon(async {
        loop {
            if let Some(found) = pick(&events.next().await.unwrap()) {
                return found;
            }
        }
    })
    .await
}

pub(crate) async fn all(replies: Replies) -> Vec<Reply> {
    let mut replies: Vec<Reply> = soon(replies.collect()).await;
    replies.sort_by_key(|reply| (reply.name.clone(), reply.number));
    replies
}

/// The only reply.
pub(crate) async fn one(replies: Replies) -> Result<Value, pmesh::directory::CallError> {
    let mut all = all(replies).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).result
}
