//! A peer of ours in a process of its own: commands as JSON lines, answers likewise. `original.mjs` understands the same.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use pmesh::overlay::stream::{Listener, Stream};
use pmesh::overlay::{Overlay, OverlayId, OverlayMessage, OverlayMessages};
use pmesh::{Identity, Message, Node, Root};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, stdin};
use tokio::time::timeout;

use crate::Result;
use crate::pour::{self, Pour};

/// Silence after which what is on its way counts as lost.
const SILENCE: Duration = Duration::from_secs(1);
/// The service that reads a stream to its end, and says how long it was.
const SINK: &str = "sink";
const CHUNK: usize = 64 * 1024;
/// How long a greeting may take until it is confirmed.
const GREETING: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    Start { secret: String, bootstrap: Vec<String>, make_links: bool },
    Greet { to: OverlayId },
    Neighbours,
    Connect { to: OverlayId },
    Disconnect { to: OverlayId },
    Pour { to: OverlayId },
    More { bytes: u64 },
    End,
    Onramp { url: String },
    Meet { address: String },
    Neighbour { id: OverlayId },
    Flood(Flood),
    Ping { to: OverlayId, count: u32, size: usize },
    Stream { to: OverlayId, megabytes: usize },
    Counters,
    Tidy,
}

#[derive(Debug, Deserialize)]
struct Flood {
    to: OverlayId,
    flood: u32,
    warm: u64,
    count: u64,
    size: usize,
    window: u64,
}

/// What has come of the flood that is counted.
#[derive(Default)]
struct Count {
    flood: String,
    received: u64,
    last: u64,
}

struct Peer {
    overlay: Overlay,
    messages: OverlayMessages,
    onramp: Option<Node>,
    count: Count,
    pour: Option<Pour>,
}

/// Runs until the input ends.
pub(crate) async fn run() -> Result<()> {
    let mut lines = BufReader::new(stdin()).lines();
    let mut peer = None;
    loop {
        let command = match &mut peer {
            None => lines.next_line().await?,
            Some(Peer { messages, overlay, count, .. }) => tokio::select! {
                line = lines.next_line() => line?,
                Some(message) = messages.next() => {
                    respond(overlay, count, message).await?;
                    continue;
                }
            },
        };
        let Some(line) = command else { return Ok(()) };
        match (serde_json::from_str(&line)?, &mut peer) {
            (Command::Start { secret, bootstrap, make_links }, peer) => {
                *peer = Some(Peer::start(&secret, bootstrap, make_links).await?);
            }
            (command, Some(peer)) => say(&peer.obey(command).await?),
            (_, None) => return Err("not started".into()),
        }
    }
}

fn say(event: &Value) {
    println!("{event}");
}

/// JSON text of so many bytes.
fn padded(mut text: String, size: usize) -> Message {
    while text.len() + 2 < size {
        text.push('x');
    }
    Message::Json(text.into())
}

async fn respond(
    overlay: &Overlay,
    count: &mut Count,
    OverlayMessage { from, message, .. }: OverlayMessage,
) -> Result<()> {
    let Message::Json(Value::String(text)) = message else { return Err("not a message of ours".into()) };
    let (kind, rest) = text.split_at(1);
    let mut asked = kind == "e";
    match kind {
        "f" => {
            let mut parts = rest.split(',');
            let (flood, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if flood != count.flood {
                *count = Count { flood: flood.to_owned(), ..Count::default() };
            }
            count.received += 1;
            count.last = count.last.max(number.parse()?);
            asked = count.received.is_multiple_of(100);
        }
        "p" => overlay.send(from, Value::from(format!("q{rest}"))).await?,
        _ => {}
    }
    if asked {
        let ack = format!("a{},{},{}", count.flood, count.received, count.last);
        overlay.send(from, Value::from(ack)).await?;
    }
    Ok(())
}

impl Peer {
    async fn start(secret: &str, bootstrap: Vec<String>, make_links: bool) -> Result<Self> {
        let secret = data_encoding::HEXLOWER.decode(secret.as_bytes())?;
        let identity = Identity::from_secret(secret.try_into().map_err(|_| "not a secret")?);
        let root = Root::builder().bind([(Ipv4Addr::LOCALHOST, 0).into()]).mdns(false).identity(identity).build();
        let builder = Overlay::builder(&root).listen((Ipv4Addr::LOCALHOST, 0).into());
        let builder = builder.make_links(make_links).connect_for_streams(make_links);
        let overlay = bootstrap.into_iter().fold(builder, |builder, url| builder.bootstrap(url)).start().await?;
        tokio::spawn(sink(overlay.listen(SINK)?));
        tokio::spawn(pour::check(overlay.listen(pour::CHECKED)?));
        let url = overlay.local_addr().map(|address| format!("ws://{address}"));
        say(&json!({"event": "started", "id": overlay.id(), "url": url}));
        Ok(Self { messages: overlay.messages(), overlay, onramp: None, count: Count::default(), pour: None })
    }

    async fn obey(&mut self, command: Command) -> Result<Value> {
        Ok(match command {
            Command::Start { .. } => return Err("started twice".into()),
            Command::Onramp { url } => {
                let onramp = self.overlay.root().connect(url).await?;
                let address = onramp.own_address().map(ToString::to_string);
                self.onramp = Some(onramp);
                json!({"event": "onramp", "address": address})
            }
            Command::Meet { address } => {
                self.onramp.as_ref().ok_or("no onramp")?.connect(address).await?;
                json!({"event": "met"})
            }
            Command::Neighbour { id } => {
                self.overlay.neighbour(&id).await;
                json!({"event": "neighbour"})
            }
            Command::Neighbours => json!({"event": "neighbours", "ids": self.overlay.neighbours()}),
            Command::Greet { to } => {
                let greeted = self.overlay.send_confirmed(to, Value::from("hello"), GREETING).await;
                json!({"event": "greeted", "error": greeted.err().map(|error| error.to_string())})
            }
            Command::Connect { to } => {
                self.overlay.connect(to).await?;
                json!({"event": "connected"})
            }
            Command::Disconnect { to } => {
                self.overlay.disconnect(&to).await;
                json!({"event": "disconnected"})
            }
            Command::Pour { to } => {
                self.pour = Some(Pour::dial(&self.overlay, to).await?);
                json!({"event": "pouring"})
            }
            Command::More { bytes } => {
                self.pour.as_mut().ok_or("no stream")?.write(bytes).await?;
                json!({"event": "poured"})
            }
            Command::End => self.pour.take().ok_or("no stream")?.end().await?,
            Command::Flood(flood) => self.flood(flood).await?,
            Command::Ping { to, count, size } => self.ping(to, count, size).await?,
            Command::Stream { to, megabytes } => self.stream(to, megabytes).await?,
            Command::Counters => {
                let (counters, dropped) = (self.overlay.counters(), self.overlay.dropped());
                json!({"event": "counters", "dropped": dropped, "forwarded": counters.forwarded,
                       "all": format!("{counters:?}")})
            }
            Command::Tidy => json!({"event": "tidied"}),
        })
    }

    /// The next message whose text begins so.
    async fn next(&mut self, kind: &str) -> Result<String> {
        loop {
            let message = self.messages.next().await.ok_or("the overlay is over")?;
            match message.message {
                Message::Json(Value::String(text)) if text.starts_with(kind) => return Ok(text),
                _ => respond(&self.overlay, &mut self.count, message).await?,
            }
        }
    }

    /// At most `window` messages are on their way.
    async fn flood(&mut self, Flood { to, flood, warm, count, size, window }: Flood) -> Result<Value> {
        let (total, prefix) = (warm + count, format!("a{flood},"));
        let (mut sent, mut base, mut received, mut asked) = (0, 0, 0, 0);
        let mut begin = None;
        while received < total && asked < 3 {
            while sent < total && sent - base < window {
                sent += 1;
                self.overlay.send(to, padded(format!("f{flood},{sent},"), size)).await?;
                if sent % 100 == 0
                    && let Some(ack) = self.next(&prefix).now_or_never()
                {
                    (received, base) = acknowledged(&ack?, base)?;
                }
            }
            match timeout(SILENCE, self.next(&prefix)).await {
                Ok(ack) => (received, base) = acknowledged(&ack?, base)?,
                Err(_) => {
                    asked += u32::from(sent == total);
                    base = sent;
                    self.overlay.send(to, Value::from(format!("e{flood}"))).await?;
                }
            }
            if begin.is_none() && received >= warm {
                begin = Some((Instant::now(), received));
            }
        }
        let (begin, counted) = begin.ok_or("nothing came")?;
        let idle = SILENCE * asked;
        let seconds = begin.elapsed().saturating_sub(idle).as_secs_f64();
        Ok(json!({"event": "flooded", "sent": sent, "received": received, "counted": received - counted,
                  "seconds": seconds}))
    }

    async fn ping(&mut self, to: OverlayId, count: u32, size: usize) -> Result<Value> {
        let mut times = Vec::new();
        for turn in 0..count {
            let begin = Instant::now();
            self.overlay.send(to, padded(format!("p{turn},"), size)).await?;
            timeout(SILENCE, self.next(&format!("q{turn},"))).await.map_err(|_| "a ping was lost")??;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Ok(json!({"event": "pinged", "micros": times}))
    }

    async fn stream(&mut self, to: OverlayId, megabytes: usize) -> Result<Value> {
        let mut stream = self.overlay.dial(to, SINK).await?;
        let chunk = vec![7; CHUNK];
        let begin = Instant::now();
        let bytes = megabytes * 1_000_000;
        for at in (0..bytes).step_by(CHUNK) {
            stream.write_all(&chunk[..CHUNK.min(bytes - at)]).await?;
        }
        stream.shutdown().await?;
        let arrived = stream.read_u64().await?;
        let seconds = begin.elapsed().as_secs_f64();
        if arrived != bytes as u64 {
            return Err(format!("{arrived} of {bytes} bytes came").into());
        }
        Ok(json!({"event": "streamed", "seconds": seconds}))
    }
}

/// How many have arrived, and up to which number.
fn acknowledged(ack: &str, base: u64) -> Result<(u64, u64)> {
    let mut parts = ack.split(',').skip(1);
    let mut next = || parts.next().ok_or("no acknowledgement");
    Ok((next()?.parse()?, base.max(next()?.parse()?)))
}

async fn sink(mut listener: Listener) {
    while let Some(stream) = listener.accept().await {
        // A stream that breaks is noticed at its other end.
        tokio::spawn(async move { drain(stream).await.ok() });
    }
}

async fn drain(mut stream: Stream) -> Result<()> {
    let (mut buffer, mut bytes) = (vec![0; 4 * CHUNK], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            some => bytes += some as u64,
        }
    }
    stream.write_u64(bytes).await?;
    stream.shutdown().await?;
    Ok(())
}
