//! Peers in a line: each is linked with the one before it and the one behind it, and with nobody else.

use pmesh::Identity;
use pmesh::onramp::Onramp;
use pmesh::overlay::OverlayId;
use serde_json::json;

use crate::Result;
use crate::process::{Process, Variant, text};

pub(crate) struct Line {
    pub(crate) peers: Vec<Process>,
}

/// A secret whose overlay id begins with these three bits.
pub(crate) fn secret(prefix: u8) -> [u8; 32] {
    loop {
        let secret = rand::random();
        if OverlayId::of(&Identity::from_secret(secret).peer_id()).as_bytes()[0] >> 5 == prefix {
            return secret;
        }
    }
}

impl Line {
    /// With so many relays between its ends. The ids grow from all zeros to all ones, so that by XOR each peer is closer to either
    /// end than the one before.
    pub(crate) async fn open(variant: Variant, relays: usize) -> Result<Self> {
        let mut peers: Vec<Process> = Vec::new();
        for at in 0..relays + 2 {
            let secret = secret((at * 7 / (relays + 1)) as u8);
            let before = peers.last().filter(|_| variant != Variant::WebRtc);
            let bootstrap: Vec<String> = before.map(|peer| peer.url.clone()).into_iter().collect();
            peers.push(Process::start(variant, secret, &bootstrap, false).await?);
        }
        if variant == Variant::WebRtc {
            introduce(&mut peers).await?;
        }
        for at in 1..peers.len() {
            let id = peers[at - 1].id;
            peers[at].ask(json!({"do": "neighbour", "id": id}), "neighbour").await?;
            let id = peers[at].id;
            peers[at - 1].ask(json!({"do": "neighbour", "id": id}), "neighbour").await?;
        }
        Ok(Self { peers })
    }

    pub(crate) fn first(&mut self) -> &mut Process {
        &mut self.peers[0]
    }

    pub(crate) fn last(&self) -> OverlayId {
        self.peers[self.peers.len() - 1].id
    }

    /// The processor time that all have used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.peers.iter().map(Process::cpu_seconds).sum()
    }

    /// What the first relay holds in memory when it has tidied up, in KB.
    pub(crate) async fn relay_kb(&mut self) -> Result<f64> {
        self.peers[1].ask(json!({"do": "tidy"}), "tidied").await?;
        self.peers[1].resident_kb()
    }

    /// What its peers dropped, lest a figure hides it.
    pub(crate) async fn dropped(&mut self) -> Result<String> {
        let mut all = String::new();
        for peer in &mut self.peers {
            let counters = peer.ask(json!({"do": "counters"}), "counters").await?;
            all += &format!("\n    dropped {}, {}", counters["dropped"], text(&counters, "all")?);
        }
        Ok(all)
    }
}

/// Connects each to the one before, over an onramp.
pub(crate) async fn introduce(peers: &mut [Process]) -> Result<()> {
    let onramp = Onramp::builder().announce(false).bind("127.0.0.1:0").await?;
    let url = onramp.url();
    let running = tokio::spawn(onramp.run(std::future::pending::<()>()));
    let mut before: Option<String> = None;
    for peer in peers {
        let own = peer.ask(json!({"do": "onramp", "url": url}), "onramp").await?;
        if let Some(address) = before {
            peer.ask(json!({"do": "meet", "address": address}), "met").await?;
        }
        before = Some(text(&own, "address")?.to_owned());
    }
    running.abort();
    Ok(())
}
