//! The end that waits, and does what it is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::onramp::Onramp;
use pmesh::{Message, Node, NodeKind, Offer, Root};
use tokio::time::{Instant, timeout_at};

use super::report::Report;
use super::{Ask, HELLO, MAX_FLOOD, MAX_SIZE, PATIENCE, Result, flood, json, next};
use crate::args::BenchArgs;
use crate::reason::of_onramp;

pub(super) async fn run(place: &str, args: &BenchArgs) -> Result<()> {
    let report = Report::new(args.json);
    let root = args.network.root().firewall(|offer: &Offer| offer.data() == HELLO).build();
    // Stops with this function.
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let url = if place.contains("://") {
        place.to_owned()
    } else {
        let bound = Onramp::builder().frames_per_second(0).bind(place).await;
        let onramp = bound.map_err(|error| format!("cannot listen on {place}: {error}"))?;
        let mut address = onramp.local_addr();
        report.listening(&onramp.url())?;
        address.set_ip(match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        });
        tokio::spawn(onramp.run(stopped));
        format!("ws://{address}")
    };
    let served = serve(&root, &url, args).await;
    root.close().await;
    served
}

/// Serves one connection after the other until all is measured.
async fn serve(root: &Root, url: &str, args: &BenchArgs) -> Result<()> {
    let wait = args.wait;
    let mut nodes = root.connections();
    let connect = args.login.onramp(url)?;
    root.connect(connect).await.map_err(|error| of_onramp(url, &error))?;
    let mut until = Instant::now() + wait;
    loop {
        let came = timeout_at(until, nodes.next()).await;
        let node = came.map_err(|_| "the other end does not come")?.ok_or("the root is closed")?;
        if node.kind() != NodeKind::WebRtc {
            continue;
        }
        let done = attend(&node).await;
        node.close().await;
        match done {
            Ok(true) => return Ok(()),
            Ok(false) => until = Instant::now() + wait.max(PATIENCE),
            Err(error) => return Err(error),
        }
    }
}

/// Does what is asked. Returns whether all is measured.
async fn attend(node: &Node) -> Result<bool> {
    let mut messages = node.messages();
    if node.opened().await.is_err() {
        return Ok(false);
    }
    node.send(HELLO).await?;
    loop {
        let value = match next(&mut messages, PATIENCE).await? {
            // An echo, which costs nothing but the way.
            bytes @ Message::Binary(_) => {
                node.send(bytes).await?;
                continue;
            }
            Message::Json(value) => value,
        };
        match serde_json::from_value(value).map_err(|error| format!("the other end asks what is not known: {error}"))? {
            Ask::Take { millis } => {
                let taken = flood::take(&mut messages, Duration::from_millis(millis).min(MAX_FLOOD)).await?;
                node.send(json(taken)?).await?;
            }
            Ask::Give { size, millis } => {
                let span = Duration::from_millis(millis);
                if size > MAX_SIZE || span > MAX_FLOOD {
                    return Err("the other end asks for more than is sent".into());
                }
                flood::give(node, size, span).await?;
            }
            Ask::Close => return Ok(false),
            Ask::End => return Ok(true),
        }
    }
}
