//! What an onramp costs: memory of an idle connection, and how much it relays.
//!
//! ```text
//! cargo run --release -p onramp-server --example onramp_memory
//! cargo run --release -p onramp-server --example onramp_memory -- --announce --connections 5000
//! cargo run --release -p onramp-server --example onramp_memory -- --original node_modules/onramp/bin/onramp
//! ```
//!
//! It starts the server as a child process on a free port of 127.0.0.1, opens idle connections to it, and prints by
//! how much its resident memory (RSS) grew for each; then pairs of peers exchange frames for some seconds. Both
//! programs need a file descriptor for each connection: see `ulimit -n`. Linux only (RSS is read from /proc).

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Connections for each source address: a machine has about 28,000 ports for one.
const PER_SOURCE: usize = 20_000;

/// Connections that are being opened at the same time.
const OPENING: usize = 64;

/// Measures an onramp.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Idle connections, at most 100,000.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Let the server announce peers to each other, which is n² frames.
    #[arg(long)]
    announce: bool,
    /// Pairs of peers that exchange frames.
    #[arg(long, default_value_t = 8)]
    pairs: usize,
    /// Seconds of exchanging.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Measure the original too: the path of its bin/onramp, run by node. It always announces.
    #[arg(long)]
    original: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    if limit < u64::from(options.connections) + 100 {
        return Err(
            format!("{} connections need more than the {limit} file descriptors allowed", options.connections).into()
        );
    }
    // Examples lie in a folder beside the programs.
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(|folder| folder.parent()).ok_or("no build folder")?;
    let ours = || {
        let mut ours = Command::new(folder.join("onramp-server"));
        ours.args([
            "--frames-per-second",
            "0",
            "--max-connections",
            "110000",
            "--ping-interval",
            "0",
            "--log",
            "error",
        ]);
        if !options.announce {
            ours.arg("--no-announce");
        }
        ours
    };
    measure_memory("pmesh", ours(), &options).await?;
    measure_relaying("pmesh", ours(), &options).await?;
    if let Some(path) = &options.original {
        let original = || {
            let mut original = Command::new("node");
            original.arg(path);
            original
        };
        measure_memory("original", original(), &options).await?;
        measure_relaying("original", original(), &options).await?;
    }
    Ok(())
}

/// Starts a server on a free port and waits until it listens.
async fn start(mut command: Command) -> Result<(Child, SocketAddr)> {
    let server = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let mut child = command
        .args(["--host", &server.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{command:?}: {error}; is it built with --release?"))?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    output.read_line(&mut String::new()).await?;
    // The original logs every message: take it away from it.
    tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
    while TcpStream::connect(server).await.is_err() {
        tokio::task::yield_now().await;
    }
    Ok((child, server))
}

async fn measure_relaying(name: &str, command: Command, options: &Options) -> Result<()> {
    let (mut child, server) = start(command).await?;
    let (frames, bytes) = exchange(server, options).await?;
    println!(
        "{name}: relayed {frames:.0} frames/s, {:.1} MB/s ({} pairs, {} bytes)",
        bytes / 1e6,
        options.pairs,
        options.payload
    );
    child.kill().await?;
    Ok(())
}

async fn measure_memory(name: &str, command: Command, options: &Options) -> Result<()> {
    let (mut child, server) = start(command).await?;
    let before = rss(&child)?;
    let began = Instant::now();
    let (mut idle, received) = open(server, options).await?;
    let opened = began.elapsed();
    let at_open = rss(&child)?;
    // Announcements are through when nothing has come for a while.
    let mut last = u64::MAX;
    while last != received.load(Relaxed) {
        last = received.load(Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let settled = began.elapsed() - Duration::from_secs(2);
    let after = rss(&child)?;
    let mut lost = 0;
    while let Some(ended) = idle.try_join_next() {
        lost += 1;
        if lost == 1 {
            eprintln!("{name}: a connection ended: {:?}", ended?);
        }
    }
    let each = |rss: u64| rss.saturating_sub(before) as f64 / f64::from(options.connections) / 1024.0;
    println!(
        "{name}: {} connections in {:.1} s, RSS {:.1} MiB before, for each {:.2} KiB when open and {:.2} KiB when idle; \
         {:.0} MB announced after {:.1} s; {lost} connections lost",
        options.connections,
        opened.as_secs_f64(),
        before as f64 / 1048576.0,
        each(at_open),
        each(after),
        last as f64 / 1e6,
        settled.as_secs_f64(),
    );
    drop(idle);
    child.kill().await?;
    Ok(())
}

/// Resident memory in bytes.
fn rss(child: &Child) -> Result<u64> {
    let id = child.id().ok_or("the server has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().next().ok_or("no VmRSS")?.parse()?;
    Ok(kibibytes * 1024)
}

type Idle = tokio::task::JoinSet<Result<()>>;

/// Opens the idle connections. Each has a task that reads away what comes; the counter is of all bytes.
async fn open(server: SocketAddr, options: &Options) -> Result<(Idle, Arc<AtomicU64>)> {
    let mut idle = tokio::task::JoinSet::new();
    let received = Arc::new(AtomicU64::new(0));
    let opening = Arc::new(Semaphore::new(OPENING));
    for number in 0..options.connections as usize {
        let permit = opening.clone().acquire_owned().await?;
        let source = Ipv4Addr::new(127, 0, 0, 1 + (number / PER_SOURCE) as u8);
        let received = received.clone();
        idle.spawn(async move { sit(server, source, permit, &received).await });
    }
    let _all = opening.acquire_many(OPENING as u32).await?;
    Ok((idle, received))
}

async fn sit(server: SocketAddr, source: Ipv4Addr, permit: impl Send, received: &AtomicU64) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let mut tcp = socket.connect(server).await?;
    tcp.write_all(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: p\r\n\r\n",
    )
    .await?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        tcp.read_exact(&mut byte).await?;
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(String::from_utf8_lossy(&answer).into());
    }
    drop(permit);
    drop(answer);
    loop {
        tcp.readable().await?;
        let mut bytes = [0; 4096];
        match tcp.try_read(&mut bytes) {
            Ok(0) => return Err("closed by the server".into()),
            Ok(count) => received.fetch_add(count as u64, Relaxed),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
    }
}

/// Lets pairs of peers exchange frames. Returns frames and bytes of payload for each second.
async fn exchange(server: SocketAddr, options: &Options) -> Result<(f64, f64)> {
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        let (mut sender, _) = peer(server).await?;
        let (mut receiver, protocol) = peer(server).await?;
        let named = if protocol == "p" {
            // The original tells no peer its own address, but the sender is told of the receiver, after all others.
            for _ in 0..2 * pair {
                text(&mut sender).await?;
            }
            text(&mut sender).await?
        } else {
            text(&mut receiver).await?
        };
        let to = named.split('"').nth(1).ok_or("no address")?.to_owned();
        pairs.push((sender, to, receiver));
    }
    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for (mut sender, to, mut receiver) in pairs {
        // Few enough on the way that no queue overflows.
        let window = Arc::new(Semaphore::new(256));
        let text = format!("[6,\"{to}\",\"{}\"]", "x".repeat(options.payload.saturating_sub(2)));
        let frame = Message::text(text);
        let (mine, received) = (window.clone(), received.clone());
        tasks.spawn(async move {
            while let Ok(permit) = mine.acquire_many(64).await {
                permit.forget();
                for _ in 0..64 {
                    if sender.feed(frame.clone()).await.is_err() {
                        return;
                    }
                }
                if sender.flush().await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            while let Some(Ok(message)) = receiver.next().await {
                if matches!(message, Message::Text(text) if text.starts_with("[7,")) {
                    received.fetch_add(1, Relaxed);
                    window.add_permits(1);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, start) = (received.load(Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let frames = (received.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    Ok((frames, frames * options.payload as f64))
}

async fn peer(server: SocketAddr) -> Result<(WebSocketStream<TcpStream>, String)> {
    let mut request = format!("ws://{server}").into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", "pmesh.1, p".parse()?);
    let tcp = TcpStream::connect(server).await?;
    tcp.set_nodelay(true)?;
    let (socket, response) = client_async(request, tcp).await?;
    let protocol = response.headers().get("Sec-WebSocket-Protocol").ok_or("no subprotocol")?.to_str()?.to_owned();
    Ok((socket, protocol))
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> Result<String> {
    Ok(socket.next().await.ok_or("closed by the server")??.into_text()?.to_string())
}
