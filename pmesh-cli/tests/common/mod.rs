//! Programs that run, and what they write.

// Each test uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod accounts;

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("nothing happened in time")
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmesh"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).env_remove("PMESH_LOG");
    command
}

pub(crate) async fn output(arguments: &[&str]) -> Output {
    soon(program(arguments).stdin(Stdio::null()).output()).await.unwrap()
}

pub(crate) fn events(output: &Output) -> Vec<Value> {
    let text = str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a process ignores SIGHUP, or may do so.
pub(crate) fn ignores_hangup(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0)
}

/// A program that writes JSON lines.
pub(crate) struct Running {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it wrote that nobody has asked for yet.
    passed: Vec<Value>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), child, lines, passed: Vec::new() }
    }

    pub(crate) fn peer(onramp: &str, more: &[&str]) -> Self {
        Self::start(&[&["peer", "--json", "--loopback", "--onramp", onramp], more].concat())
    }

    pub(crate) fn overlay(more: &[&str]) -> Self {
        Self::start(&[&["peer", "--json", "--loopback", "--overlay", "kademlia"], more].concat())
    }

    /// The next event of this kind. Those before it are passed over.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        loop {
            let Ok(event) = timeout(PATIENCE, self.next()).await else {
                panic!("no {kind}, but {:?}", self.passed);
            };
            if event["event"] == kind {
                return event;
            }
            self.passed.push(event);
        }
    }

    /// The first event with these members: one that was passed over, or one that comes.
    pub(crate) async fn find(&mut self, members: Value) -> Value {
        let fits = |event: &Value| members.as_object().unwrap().iter().all(|(name, value)| event[name] == *value);
        if let Some(at) = self.passed.iter().position(fits) {
            return self.passed.remove(at);
        }
        loop {
            let Ok(event) = timeout(PATIENCE, self.next()).await else {
                panic!("not {members}, but {:?}", self.passed);
            };
            if fits(&event) {
                return event;
            }
            self.passed.push(event);
        }
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().expect("it has ended");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) async fn command(&mut self, command: Value) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn end(mut self) -> Option<i32> {
        soon(self.child.wait()).await.unwrap().code()
    }
}
