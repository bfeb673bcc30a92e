//! An original in a process of its own: see `original.mjs`.

use std::process::Stdio;

use pmesh::overlay::OverlayId;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::shared::{PATIENCE, soon};

pub(crate) struct Original {
    pub(crate) id: OverlayId,
    pub(crate) url: String,
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What was not waited for yet.
    events: Vec<Value>,
}

impl Original {
    /// One that listens, and connects to these URLs.
    pub(crate) async fn start(bootstrap: &[&str]) -> Self {
        Self::with_id(None, bootstrap).await
    }

    pub(crate) async fn with_id(id: Option<OverlayId>, bootstrap: &[&str]) -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/originals/original.mjs");
        let mut child = Command::new("node")
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is there");
        let commands = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let nobody = OverlayId::from_bytes([0; OverlayId::BYTES]);
        let mut this = Self { id: nobody, url: String::new(), child, commands, lines, events: Vec::new() };
        this.command(json!({"do": "create", "port": 0, "bootstrap": bootstrap, "id": id})).await;
        this.id = this.event(json!({"event": "created"})).await["id"].as_str().unwrap().parse().unwrap();
        this.url = this.event(json!({"event": "listening"})).await["url"].as_str().unwrap().to_owned();
        this
    }

    async fn command(&mut self, mut command: Value) {
        command["name"] = "it".into();
        soon(self.commands.write_all(format!("{command}\n").as_bytes())).await.unwrap();
    }

    pub(crate) async fn send(&mut self, to: OverlayId, data: &Value) {
        self.command(json!({"do": "send", "to": to, "data": data})).await;
    }

    pub(crate) async fn connect(&mut self, to: OverlayId) {
        self.command(json!({"do": "connect", "to": to})).await;
    }

    /// Connects to a URL, as at its start.
    pub(crate) async fn dial(&mut self, url: &str) {
        self.command(json!({"do": "dial", "url": url})).await;
    }

    /// From now on it connects to nobody, and lets nobody connect.
    pub(crate) async fn keep_to_itself(&mut self) {
        self.command(json!({"do": "keepToItself"})).await;
        self.event(json!({"event": "keepsToItself"})).await;
    }

    /// Whether there was such an event, of those that have come with others that were waited for.
    pub(crate) fn seen(&self, pattern: &Value) -> bool {
        self.events.iter().any(|event| fits(event, pattern))
    }

    /// Its neighbours, the peers it has heard of, and how many connections it waits for.
    pub(crate) async fn table(&mut self) -> (Vec<OverlayId>, Vec<OverlayId>, u64) {
        self.command(json!({"do": "table"})).await;
        let table = self.event(json!({"event": "table"})).await;
        let ids = |name: &str| serde_json::from_value(table[name].clone()).unwrap();
        (ids("peers"), ids("candidates"), table["pending"].as_u64().unwrap())
    }

    /// The first event with these members that was not waited for yet.
    pub(crate) async fn event(&mut self, pattern: Value) -> Value {
        if let Some(at) = self.events.iter().position(|event| fits(event, &pattern)) {
            return self.events.remove(at);
        }
        loop {
            let Some(line) = soon(self.lines.next_line()).await.unwrap() else {
                panic!("it died: {}", self.last_words().await);
            };
            let event: Value = serde_json::from_str(&line).unwrap();
            if fits(&event, &pattern) {
                return event;
            }
            self.events.push(event);
        }
    }

    async fn last_words(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            soon(stderr.read_to_string(&mut words)).await.unwrap();
        }
        words
    }

    /// Waits until an error that it does not catch has ended it. Returns its last words.
    pub(crate) async fn died(mut self, of: &str) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let code = ended.unwrap_or_else(|_| panic!("it survives {of}")).unwrap().code();
        let words = self.last_words().await;
        assert_eq!(code, Some(1), "{words}");
        words
    }
}

fn fits(event: &Value, pattern: &Value) -> bool {
    pattern.as_object().unwrap().iter().all(|(key, value)| event[key] == *value)
}
