//! A peer in a process of its own, ours or an original, as the bench sees it.

use std::fmt;
use std::fs::read_to_string;
use std::process::Stdio;

use pmesh::Identity;
use pmesh::overlay::OverlayId;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{PEER, Result};

/// What is measured beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// pmesh, with neighbours over WebSockets.
    WebSocket,
    /// pmesh, with neighbours over WebRTC.
    WebRtc,
    /// peer-relay 0.0.2, in node.
    Original,
}

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::WebRtc, Self::Original];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "websocket",
            Self::WebRtc => "webrtc",
            Self::Original => "original",
        })
    }
}

/// Ends when it is dropped.
pub(crate) struct Process {
    pub(crate) id: OverlayId,
    pub(crate) url: String,
    child: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// One that listens, with neighbours at these URLs, and `links` of its own if it shall make them. An original has an identity of its own.
    pub(crate) async fn start(variant: Variant, secret: [u8; 32], bootstrap: &[String], links: bool) -> Result<Self> {
        let mut command = if variant == Variant::Original {
            let mut command = Command::new("node");
            command.arg("--expose-gc").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/overlay/original.mjs"));
            command
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(PEER);
            command
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let commands = child.stdin.take().ok_or("no input")?;
        let events = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let id = OverlayId::of(&Identity::from_secret(secret).peer_id());
        let mut this = Self { id, url: String::new(), child, commands, events };
        let secret = data_encoding::HEXLOWER.encode(&secret);
        this.command(json!({"do": "start", "secret": secret, "bootstrap": bootstrap, "make_links": links})).await?;
        let started = this.event("started").await?;
        this.id = text(&started, "id")?.parse()?;
        this.url = text(&started, "url")?.to_owned();
        Ok(this)
    }

    pub(crate) async fn command(&mut self, command: Value) -> Result<()> {
        Ok(self.commands.write_all(format!("{command}\n").as_bytes()).await?)
    }

    /// The next event, which must be this one.
    pub(crate) async fn event(&mut self, name: &str) -> Result<Value> {
        let line = self.events.next_line().await?.ok_or("a peer has ended")?;
        let event: Value = serde_json::from_str(&line)?;
        if event["event"] == name { Ok(event) } else { Err(format!("{line} instead of {name}").into()) }
    }

    /// A command and what answers it.
    pub(crate) async fn ask(&mut self, command: Value, event: &str) -> Result<Value> {
        self.command(command).await?;
        self.event(event).await
    }

    /// Kills it, without a word to anybody.
    #[allow(dead_code, reason = "for `tests/overlay_soak.rs`")]
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.child.id().ok_or("it has ended")?)
    }

    /// What it holds in memory, in KB. Zero where the system does not tell.
    pub(crate) fn resident_kb(&self) -> Result<f64> {
        let status = read_to_string(format!("/proc/{}/status", self.pid()?)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0))
    }

    /// The processor time that it has used, in seconds. Zero where the system does not tell.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = read_to_string(format!("/proc/{}/stat", self.pid()?)).unwrap_or_default();
        // After the name in parentheses; user and system time are fields 14 and 15 of all, in ticks of 10 ms.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0)
    }
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    Ok(value[name].as_str().ok_or_else(|| format!("no {name} in {value}"))?)
}

pub(crate) fn number(value: &Value, name: &str) -> Result<f64> {
    Ok(value[name].as_f64().ok_or_else(|| format!("no {name} in {value}"))?)
}
