//! The overlay as a node of the tree: like an onramp it passes the frames of negotiations on, to any overlay id.
//!
//! There are two ends: the node's, which is a [`Transport`], and that of the overlay, [`FromTree`] and
//! [`ToTree`]. Who sends a payload
//! is proven to the overlay, and here that its offer or answer shows that peer's key: so behind an address that is an
//! overlay id there is no other peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::error::CloseReason;
use crate::overlay::OverlayId;
use crate::protocol::Address;
use crate::protocol::frame::{self, Frame, Undeliverable};
use crate::protocol::limits::MAX_SIGNAL_BYTES;
use crate::protocol::signal::{Extension, Signal};
use crate::transport::attached::attached;
use crate::transport::{Account, Command, Framing, LinkEvent, Outgoing, Pipe, Transport};

/// Payloads that may wait for the overlay. At it, the tree is told that the overlay is busy.
const OUTGOING: usize = 64;
/// Payloads and answers that may wait for the tree. At it, further ones are dropped.
const INCOMING: usize = 64;

/// The two ends of a node for the overlay, in which we have this id. The first is to be
/// [attached](crate::Root::attach) to a root, as one node.
pub(crate) fn signals(own: OverlayId) -> (Arc<dyn Transport>, FromTree, ToTree) {
    let (to_overlay, outgoing) = mpsc::channel(OUTGOING);
    let (incoming, from_overlay) = mpsc::channel(INCOMING);
    let dropped = Arc::new(AtomicU64::new(0));
    let pump = Pump { own, to_overlay, from_overlay, dropped: dropped.clone() };
    let transport = attached("the overlay is one node only", |pipe, commands| pump.run(pipe, commands));
    (transport, FromTree(outgoing), ToTree { incoming, dropped })
}

/// What the tree wants passed on to other peers.
#[derive(Debug)]
pub(crate) struct FromTree(mpsc::Receiver<(OverlayId, String)>);

/// What other peers have passed on to the tree. Dropping it closes the node.
#[derive(Debug)]
pub(crate) struct ToTree {
    incoming: mpsc::Sender<Incoming>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Incoming {
    Payload { from: OverlayId, account: Account, payload: Bytes },
    Undeliverable { to: OverlayId, why: Undeliverable },
}

impl FromTree {
    /// The next payload, JSON, and whom it is for. `None` when the node is closed. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(OverlayId, String)> {
        self.0.recv().await
    }
}

impl ToTree {
    /// Hands a payload to the tree, from a peer that has proven to be that one, on this account. Never waits: what is no payload,
    /// shows another key, or finds too many before it is dropped and counted.
    pub(crate) fn deliver(&self, from: OverlayId, account: Account, payload: Bytes) {
        let sent = payload.len() <= MAX_SIGNAL_BYTES
            && self.incoming.try_send(Incoming::Payload { from, account, payload }).is_ok();
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the tree that a payload could not be brought to this peer, so that its call need not wait. Never waits.
    pub(crate) fn undeliverable(&self, to: OverlayId, why: Undeliverable) {
        if self.incoming.try_send(Incoming::Undeliverable { to, why }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was dropped so far, in both directions.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

struct Pump {
    own: OverlayId,
    to_overlay: mpsc::Sender<(OverlayId, String)>,
    from_overlay: mpsc::Receiver<Incoming>,
    dropped: Arc<AtomicU64>,
}

impl Pump {
    async fn run(mut self, pipe: Arc<Pipe>, mut commands: mpsc::Receiver<Command>) {
        pipe.open(Framing::Plain { max_message: MAX_SIGNAL_BYTES }, None);
        pipe.emit(LinkEvent::Opened { extension: true }).await;
        pipe.emit(LinkEvent::Frame(frame::welcome(&address(self.own)))).await;
        let reason = loop {
            let frame = tokio::select! {
                outgoing = pipe.next_outgoing() => match outgoing {
                    Outgoing::Text(text) => self.send(&text).map(LinkEvent::Frame),
                    Outgoing::Binary(_) | Outgoing::Stream { .. } => {
                        self.drop_one();
                        None
                    }
                    Outgoing::Finished => break CloseReason::Local,
                },
                incoming = self.from_overlay.recv() => match incoming {
                    Some(incoming) => self.receive(incoming),
                    None => break CloseReason::Remote,
                },
                command = commands.recv() => match command {
                    Some(_) => {
                        pipe.start_closing();
                        None
                    }
                    None => return,
                },
            };
            if let Some(frame) = frame {
                pipe.emit(frame).await;
            }
        };
        pipe.finish(reason).await;
    }

    /// Passes a frame of the tree on, or returns the answer to it.
    fn send(&self, text: &[u8]) -> Option<String> {
        let frame = std::str::from_utf8(text).ok().and_then(|text| Frame::parse(text).ok());
        let Some(Frame::Relay { to, payload }) = frame else {
            self.drop_one();
            return None;
        };
        match to.as_str().parse::<OverlayId>() {
            // In other letters it would not be the address that the answers come from.
            Ok(id) if address(id) != to => Some(frame::undeliverable(&to, Undeliverable::Unknown)),
            Ok(id) if id == self.own => Some(frame::relayed(&to, payload.get())),
            Ok(id) => {
                let sent = self.to_overlay.try_send((id, payload.get().to_owned()));
                sent.is_err().then(|| frame::undeliverable(&to, Undeliverable::Busy))
            }
            Err(_) => Some(frame::undeliverable(&to, Undeliverable::Unknown)),
        }
    }

    /// The frame for the tree.
    fn receive(&self, incoming: Incoming) -> Option<LinkEvent> {
        match incoming {
            Incoming::Payload { from, account, payload } => match checked(from, &payload) {
                Some(payload) => Some(LinkEvent::FrameOf { account, text: frame::relayed(&address(from), payload) }),
                None => {
                    self.drop_one();
                    None
                }
            },
            Incoming::Undeliverable { to, why } => Some(LinkEvent::Frame(frame::undeliverable(&address(to), why))),
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the frame of an offer begins.
pub(crate) const OFFER: &[u8] = b"[3,";

/// The address that a peer has in the overlay.
pub(crate) fn address(id: OverlayId) -> Address {
    Address::new(id.to_string()).expect("it has 40 bytes")
}

/// The payload, if it is one, and an offer or an answer shows the key of its sender. The tree checks the proof.
fn checked(from: OverlayId, payload: &[u8]) -> Option<&str> {
    let raw: &RawValue = serde_json::from_slice(payload).ok()?;
    let shows_key = |ext: &Option<Extension>| {
        let proof = ext.as_ref().and_then(|ext| ext.identity.as_ref());
        proof.is_some_and(|proof| OverlayId::of(&proof.key) == from)
    };
    let fits = match Signal::parse(raw).ok()? {
        // Who writes offers in another way would get around what looks for them on the way here.
        Signal::Offer { .. } if !payload.starts_with(OFFER) => false,
        Signal::Offer { ext, .. } | Signal::Answer { ext, .. } => shows_key(&ext),
        Signal::Candidate { .. } | Signal::Refusal { .. } => true,
    };
    fits.then_some(raw.get())
}

#[cfg(test)]
pub(in crate::overlay) mod tests;
