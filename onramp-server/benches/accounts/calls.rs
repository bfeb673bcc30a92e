//! Calls through the library, between sessions that have roots of their own, over WebRTC on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use pmesh::directory::{Credentials, Directory, PoolConfig, Session};
use pmesh::rpc::{ModuleGuard, Request};
use pmesh::{Address, PeerNumber, Root};
use serde_json::{Value, json};

use crate::figures::percentile;
use crate::options::Options;
use crate::server::{Server, Variant, add, user};
use crate::{PASSWORD, Result, Sample};

const MODULE: &str = "My.Echo.Module";
const CHANNEL: &str = "ping";

/// Accounts of the crowd, which share its peers.
const CROWDS: usize = 2;

/// Numbers of rows.
const MICROS: f64 = 1e6;
const MILLIS: f64 = 1e3;

pub(crate) async fn run(options: &Options) -> Result<Vec<Sample>> {
    let folder = tempfile::tempdir()?;
    let crowds: Vec<String> = (0..CROWDS).map(|crowd| format!("crowd{crowd}")).collect();
    add(folder.path(), "alice").await?;
    for crowd in &crowds {
        add(folder.path(), crowd).await?;
        user(folder.path(), &["trust", "alice", crowd]).await?;
    }
    let server = Server::start(Variant::Pmesh, folder.path(), 0).await?;
    let mut samples = one_peer(&server, &crowds[0], options).await?;
    samples.extend(everybody(&server, &crowds, options).await?);
    Ok(samples)
}

struct Peer {
    session: Session,
    root: Root,
    _echo: ModuleGuard,
}

impl Peer {
    async fn log_in(server: &Server, name: &str, outgoing: usize) -> Result<Self> {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let root = Root::builder().bind([here]).mdns(false).build();
        let mut pool = PoolConfig::default();
        pool.outgoing = outgoing;
        let url = format!("ws://{}", server.address);
        let directory = Directory::builder().root(&root).pool(pool);
        let session = directory.connect(&url, Credentials::new(name, PASSWORD)).await?;
        let _echo = session.module(MODULE, async |request: Request| Ok(request.into_body()))?;
        Ok(Self { session, root, _echo })
    }

    async fn leave(self) {
        self.session.disconnect().await;
        self.root.close().await;
    }

    /// Waits until so many peers are there.
    async fn sees(&self, peers: usize) -> Result<()> {
        let mut events = self.session.events();
        while self.session.peers().len() < peers {
            events.next().await.ok_or("the session has ended")?;
        }
        Ok(())
    }

    /// Waits until there is no connection to this peer.
    async fn parted(&self, other: PeerNumber) -> Result<()> {
        if let Some(node) = self.root.peer(&Address::new(other.to_string())?) {
            node.closed().await;
        }
        Ok(())
    }
}

/// Calls a target, and returns how many have answered.
async fn call(peer: &Peer, target: impl Into<pmesh::directory::Target>, keep: bool) -> Result<usize> {
    let replies = peer.session.get(target).keep(keep).message(MODULE, request());
    let answers = replies.map(|reply| reply.result.map(drop)).try_fold(0, async |count, ()| Ok(count + 1)).await;
    Ok(answers?)
}

fn request() -> Value {
    json!({ "text": "Friday" })
}

/// Does something, and notes how long it took.
async fn timed<T>(times: &mut Vec<f64>, work: impl Future<Output = Result<T>>) -> Result<()> {
    let begin = Instant::now();
    work.await?;
    times.push(begin.elapsed().as_secs_f64());
    Ok(())
}

fn percentiles(what: &str, unit: &str, scale: f64, mut times: Vec<f64>) -> Vec<Sample> {
    times.sort_by(f64::total_cmp);
    [50, 99].map(|at| (format!("{what}, {unit}, p{at}"), percentile(&times, at) * scale)).into()
}

/// Latencies of calls to one peer.
async fn one_peer(server: &Server, name: &str, options: &Options) -> Result<Vec<Sample>> {
    let alice = Peer::log_in(server, "alice", 5).await?;
    let bob = Peer::log_in(server, name, 5).await?;
    let (own, number) = (alice.session.number(), bob.session.number());
    alice.sees(1).await?;
    let mut samples = Vec::new();

    let mut times = Vec::new();
    for _ in 0..options.some(200, 5) {
        timed(&mut times, call(&alice, number, false)).await?;
        alice.parted(number).await?;
        bob.parted(own).await?;
    }
    samples.extend(percentiles("a call, connecting for it included", "ms", MILLIS, times));

    let node = alice.session.connect(number).await?;
    let other = bob.root.peer(&Address::new(own.to_string())?).ok_or("no connection")?;
    other.opened().await?;
    let (here, there) = (node.open_channel(CHANNEL)?, other.channel(CHANNEL)?);
    let echo = tokio::spawn(async move {
        let mut messages = there.messages();
        while let Some(message) = messages.next().await {
            if there.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut pongs = pin!(here.messages());
    let count = options.some(10_000, 100);
    let (mut pings, mut direct, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let target = alice.session.rpc().on(&node);
    // In turns, so that what else happens on the machine is shared.
    for _ in 0..count {
        let ping = async {
            here.send(request()).await?;
            Ok(pongs.next().await.ok_or("the channel is over")?)
        };
        timed(&mut pings, ping).await?;
        timed(&mut direct, async { Ok(target.call(MODULE, request()).await?) }).await?;
        timed(&mut calls, call(&alice, number, true)).await?;
    }
    samples.extend(percentiles("a ping over a channel of the same node", "µs", MICROS, pings));
    samples.extend(percentiles("a call by `Rpc::on` of that node", "µs", MICROS, direct));
    samples.extend(percentiles("a call by `Session::get`, over an open connection", "µs", MICROS, calls));
    echo.abort();
    alice.leave().await;
    bob.leave().await;
    Ok(samples)
}

/// Calls to a hundred peers at once.
async fn everybody(server: &Server, crowds: &[String], options: &Options) -> Result<Vec<Sample>> {
    let count = options.some(100, 10);
    let log_in = |peer: usize| Peer::log_in(server, &crowds[peer % CROWDS], 5);
    let crowd: Vec<Peer> = stream::iter(0..count).map(log_in).buffered(4).try_collect().await?;
    let mut samples = Vec::new();
    for outgoing in [5, 100] {
        let alice = Peer::log_in(server, "alice", outgoing).await?;
        alice.sees(count).await?;
        // A pool that holds all of them is asked once more.
        let times: &[&str] = if outgoing < count { &[""] } else { &["", ", again, over connections that are open"] };
        for what in times {
            let begin = Instant::now();
            let answered = call(&alice, "*", true).await?;
            let time = begin.elapsed().as_secs_f64();
            if answered != count {
                return Err(format!("{answered} have answered").into());
            }
            samples.push((format!("`get(\"*\")` of {count} peers, pool of {outgoing}{what}, ms"), time * MILLIS));
        }
        alice.leave().await;
    }
    for peer in crowd {
        peer.leave().await;
    }
    Ok(samples)
}
