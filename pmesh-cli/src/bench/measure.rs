//! The end that measures.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use pmesh::{Address, Announcements, Connect, ConnectError, Message, Messages, Node, Root};
use tokio::time::{sleep, timeout};

use super::report::{Report, Way};
use super::{Ask, HELLO, PATIENCE, Result, answer, flood, json, next};
use crate::args::BenchArgs;
use crate::reason::of_onramp;

/// Sizes of the messages of floods, in bytes.
const FLOODS: [usize; 3] = [64 * 1024, 16 * 1024, 100];
/// Size of the messages that go back and forth, in bytes.
const ECHO: usize = 64;
/// Most round trips that are kept. A longer measurement ends there.
const ROUND_TRIPS: usize = 1_000_000;
/// Most connections that are made to measure connecting.
const CONNECTS: usize = 20;
/// Pause before an address that is just being closed is called again.
const AGAIN: Duration = Duration::from_millis(5);

pub(super) async fn run(url: &str, args: &BenchArgs) -> Result<()> {
    // Nobody is to call.
    let root = args.network.root().firewall(pmesh::Policy::refuse_all()).build();
    let measured = measure(&root, url, args).await;
    root.close().await;
    measured
}

async fn measure(root: &Root, url: &str, args: &BenchArgs) -> Result<()> {
    let report = Report::new(args.json);
    let connecting = root.connect(args.login.onramp(url)?);
    let mut announced = connecting.node().announcements();
    let onramp = connecting.await.map_err(|error| of_onramp(url, &error))?;
    let find = find(&onramp, &mut announced);
    let (mut link, address) = timeout(args.wait, find).await.map_err(|_| "there is no other end")??;
    report.begin(&address)?;
    for size in FLOODS {
        link.send_flood(size, args.seconds, &report).await?;
        link.take_flood(size, args.seconds, &report).await?;
    }
    link.round_trips(args.seconds, &report).await?;
    let mut times = Vec::with_capacity(CONNECTS);
    let begin = Instant::now();
    while times.len() < CONNECTS && (times.is_empty() || begin.elapsed() < args.seconds) {
        link.node.send(json(Ask::Close)?).await?;
        timeout(PATIENCE, link.node.closed()).await.map_err(|_| "the other end does not close")?;
        let (next, time) = reconnect(&onramp, &address).await?;
        link = next;
        times.push(time);
    }
    report.connects(&mut times)?;
    link.node.send(json(Ask::End)?).await?;
    // The other end goes first, so that it has heard of it.
    let _ = timeout(PATIENCE, link.node.closed()).await;
    Ok(())
}

/// Calls whoever is announced until it is the other end.
async fn find(onramp: &Node, announced: &mut Announcements) -> Result<(Link, Address)> {
    while let Some(address) = announced.next().await {
        let Ok(node) = onramp.connect(Connect::to(&address).offer_data(HELLO)).await else { continue };
        match Link::new(node.clone()).await {
            Ok(link) => return Ok((link, address)),
            Err(_) => drop(node.close().await),
        }
    }
    Err("the onramp is gone".into())
}

/// Calls the other end again, as soon as it takes it, and measures how long that call took.
async fn reconnect(onramp: &Node, address: &Address) -> Result<(Link, Duration)> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let begin = Instant::now();
        match onramp.connect(Connect::to(address).offer_data(HELLO)).await {
            Ok(node) => {
                let time = begin.elapsed();
                return Ok((Link::new(node).await?, time));
            }
            Err(ConnectError::AlreadyConnected) if Instant::now() < patience => sleep(AGAIN).await,
            Err(error) => return Err(format!("cannot connect again: {error}").into()),
        }
    }
}

/// An open connection to the other end.
struct Link {
    node: Node,
    messages: Messages,
}

impl Link {
    async fn new(node: Node) -> Result<Self> {
        let mut messages = node.messages();
        let hello = next(&mut messages, PATIENCE).await?;
        if hello.as_str() == Some(HELLO) { Ok(Self { node, messages }) } else { Err("not a bench".into()) }
    }

    async fn send_flood(&mut self, size: usize, span: Duration, report: &Report) -> Result<()> {
        self.node.send(json(Ask::Take { millis: millis(span) })?).await?;
        flood::give(&self.node, size, span).await?;
        // What is queued is still on its way.
        let taken = answer(&mut self.messages, 6 * PATIENCE).await?;
        report.flood(Way::There, size, taken)?;
        Ok(())
    }

    async fn take_flood(&mut self, size: usize, span: Duration, report: &Report) -> Result<()> {
        self.node.send(json(Ask::Give { size, millis: millis(span) })?).await?;
        report.flood(Way::Back, size, flood::take(&mut self.messages, span).await?)?;
        Ok(())
    }

    async fn round_trips(&mut self, span: Duration, report: &Report) -> Result<()> {
        let body = Message::from([7_u8; ECHO].as_slice());
        let mut times = Vec::new();
        let start = Instant::now();
        while times.is_empty() || (start.elapsed() < span && times.len() < ROUND_TRIPS) {
            let begin = Instant::now();
            self.node.send(body.clone()).await?;
            match next(&mut self.messages, PATIENCE).await? {
                Message::Binary(_) => times.push(begin.elapsed()),
                Message::Json(_) => return Err("the other end does not echo".into()),
            }
        }
        report.round_trips(ECHO, &mut times)?;
        Ok(())
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
