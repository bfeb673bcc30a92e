//! Logins, how presence spreads, memory, and introductions.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Credentials, Login, Presence, post};
use crate::figures::percentile;
use crate::options::Options;
use crate::server::{Server, TRUSTED, Variant};
use crate::setup::AT_ONCE;
use crate::{PASSWORD, Result, Sample};

/// Logins of each account.
const PEERS: usize = 3;

/// Pairs that are introduced to each other all the time, and how many introductions of each are under way.
const PAIRS: usize = 16;
const WINDOW: usize = 8;

/// Bytes of a description.
const SDP_BYTES: usize = 1000;

struct Run<'a> {
    variant: Variant,
    server: Server,
    options: &'a Options,
    presence: Arc<Presence>,
    clients: JoinSet<()>,
    samples: Vec<Sample>,
}

pub(crate) async fn run(variant: Variant, folder: &Path, options: &Options) -> Result<Vec<Sample>> {
    let server = Server::start(variant, folder, options.accounts).await?;
    let (presence, clients, samples) = (Arc::default(), JoinSet::new(), Vec::new());
    let mut run = Run { variant, server, options, presence, clients, samples };
    let tokens = run.log_all_in().await?;
    run.come_and_go(&tokens).await?;
    run.introduce().await?;
    Ok(run.samples)
}

impl Run<'_> {
    fn sample(&mut self, what: impl Into<String>, value: f64) {
        self.samples.push((what.into(), value));
    }

    /// Milliseconds, at p50 and p99.
    fn times(&mut self, what: &str, mut times: Vec<f64>) {
        times.sort_by(f64::total_cmp);
        self.sample(format!("{what}, ms, p50"), percentile(&times, 50));
        self.sample(format!("{what}, ms, p99"), percentile(&times, 99));
    }

    /// Logs in with each of these, and returns how many that were each second.
    async fn log_in(&mut self, all: impl Iterator<Item = Credentials>) -> Result<f64> {
        let (begin, address, mut count) = (Instant::now(), &self.server.address, 0);
        let mut logins = stream::iter(all).map(|one| Login::new(address, one)).buffer_unordered(AT_ONCE);
        while let Some(login) = logins.try_next().await? {
            self.clients.spawn(login.follow(self.presence.clone()));
            count += 1;
        }
        Ok(f64::from(count) / begin.elapsed().as_secs_f64())
    }

    /// Logs everybody in: once by the password, and then by a token where there are tokens. Returns these.
    async fn log_all_in(&mut self) -> Result<Vec<String>> {
        let accounts = self.options.accounts;
        self.presence.expect((accounts * PEERS * (TRUSTED * PEERS + PEERS - 1)) as i64);
        let rate = self.log_in((0..accounts).map(Credentials::of)).await?;
        self.sample("logins by password, each second", rate);
        let address = &self.server.address;
        let token = async |account: usize| {
            let name = format!("user{account}");
            let answer = post(address, "/login", json!({ "name": name, "password": PASSWORD })).await?;
            Result::Ok(answer["token"].as_str().ok_or("no token")?.to_owned())
        };
        let asking = if self.variant == Variant::Pmesh { accounts } else { 0 };
        let tokens: Vec<String> = stream::iter(0..asking).map(token).buffered(AT_ONCE).try_collect().await?;

        let before = self.server.resident_kb(self.variant).await?;
        let further = (0..accounts * (PEERS - 1)).map(|login| credentials(&tokens, login % accounts));
        let rate = self.log_in(further).await?;
        let logged_in = Instant::now();
        let (_, right) = self.presence.reached().await?;
        let grown = self.server.resident_kb(self.variant).await? - before;
        if !tokens.is_empty() {
            self.sample("logins by bearer token, each second", rate);
        }
        let behind = right.saturating_duration_since(logged_in);
        self.sample("everybody knows of everybody, ms after the last login", behind.as_secs_f64() * 1e3);
        self.sample("memory of the server for each login, KB", grown / (accounts * (PEERS - 1)) as f64);
        Ok(tokens)
    }

    /// One more peer of an account comes and goes, again and again.
    async fn come_and_go(&mut self, tokens: &[String]) -> Result<()> {
        let watchers = TRUSTED * PEERS + PEERS;
        let (mut logged_in, mut spread, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.options.some(300, 10) {
            let account = round * 7919 % self.options.accounts;
            self.presence.expect(watchers as i64);
            let begin = Instant::now();
            let login = Login::new(&self.server.address, credentials(tokens, account)).await?;
            let (first, last) = self.presence.reached().await?;
            logged_in.push((last - begin).as_secs_f64() * 1e3);
            spread.push((last - first).as_secs_f64() * 1e3);
            self.presence.expect(-(watchers as i64));
            let begin = Instant::now();
            login.leave().await?;
            let (_, last) = self.presence.reached().await?;
            gone.push((last - begin).as_secs_f64() * 1e3);
        }
        if !tokens.is_empty() {
            self.times(&format!("a peer logs in by bearer token, until all {watchers} know"), logged_in);
        }
        self.times(&format!("a peer comes, from the first to the last of {watchers} who know"), spread);
        self.times(&format!("a peer goes, until all {watchers} know"), gone);
        Ok(())
    }

    /// Pairs who trust each other send each other offers and answers.
    async fn introduce(&mut self) -> Result<()> {
        let (mut offering, mut answering) = (JoinSet::new(), JoinSet::new());
        let time = Duration::from_millis(self.options.some(3000, 200) as u64);
        let mut pairs = Vec::new();
        for pair in 0..PAIRS.min(self.options.accounts / 2) {
            let a = Login::new(&self.server.address, Credentials::of(2 * pair)).await?;
            let b = Login::new(&self.server.address, Credentials::of(2 * pair + 1)).await?;
            pairs.push((a, b));
        }
        let (begin, before) = (Instant::now(), self.server.cpu_seconds()?);
        for (a, b) in pairs {
            let (from, to) = (a.number, b.number);
            answering.spawn(answer(b, from));
            offering.spawn(offer(a, to, begin + time));
        }
        let mut introductions = 0;
        while let Some(done) = offering.join_next().await {
            introductions += done??;
        }
        let (seconds, cpu) = (begin.elapsed().as_secs_f64(), self.server.cpu_seconds()? - before);
        // An offer and an answer.
        self.sample("introductions, thousands each second", f64::from(introductions) / seconds / 1e3);
        self.sample("introductions, CPU µs of the server each", cpu * 1e6 / f64::from(introductions));
        Ok(())
    }
}

/// By the token of an account, or, where there are none, by its name and password.
fn credentials(tokens: &[String], account: usize) -> Credentials {
    tokens.get(account).map_or_else(|| Credentials::of(account), |token| Credentials::Bearer(token.clone()))
}

fn introduction(kind: &str, what: &str, from: u64, to: u64) -> String {
    let data = json!({ "to": to, "from": from, "peer": from, "spd": { "type": what, "sdp": "x".repeat(SDP_BYTES) } });
    json!({ "type": kind, "data": data }).to_string()
}

/// Sends offers, as many at a time as may be under way, until it is time. Returns how many were answered.
async fn offer(mut login: Login, to: u64, until: Instant) -> Result<u32> {
    let offer = introduction("peerRequest", "offer", login.number, to);
    for _ in 0..WINDOW {
        login.send(offer.clone()).await?;
    }
    let mut answered = 0;
    while Instant::now() < until {
        if login.text().await?.contains(r#""type":"peerResponse""#) {
            answered += 1;
            login.send(offer.clone()).await?;
        }
    }
    Ok(answered)
}

/// Answers each offer, until the server is gone.
async fn answer(mut login: Login, to: u64) -> Result<()> {
    let answer = introduction("peerResponse", "answer", login.number, to);
    loop {
        if login.text().await?.contains(r#""type":"peerRequest""#) {
            login.send(answer.clone()).await?;
        }
    }
}
