//! Nodes that another layer of this program carries: like an onramp such a node passes the frames of negotiations on, to the peers that
//! the layer knows. So an overlay, or a login at a directory, introduces peers to the tree.
//!
//! There are two ends: the node's, which is a [`Transport`], and that of the layer, [`FromTree`] and [`ToTree`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Account, Command, Framing, Link, LinkEvent, Outgoing, Pipe, Target, Transport, WhenFull, WireMessage};
use crate::error::CloseReason;
use crate::lock::lock;
use crate::protocol::Address;
use crate::protocol::frame::{self, Frame, Undeliverable};
use crate::protocol::limits::MAX_SIGNAL_BYTES;

/// Payloads that may wait for the layer. At it, the tree is told that it is busy.
pub(crate) const OUTGOING: usize = 64;

/// What the layer calls a peer.
pub(crate) trait Name: Copy + PartialEq + Send + Sync + 'static {
    /// What a second node over the same transport fails with.
    const ONE_NODE: &str;
    /// Payloads, answers and notices that may wait for the tree. At it, further ones are dropped.
    const INCOMING: usize;

    /// The peer's address in the tree.
    fn address(&self) -> Address;

    /// Whose address it is. Written in another way it is nobody's: answers would come from another address.
    fn of_address(address: &Address) -> Option<Self>;

    /// The payload for the tree, JSON, in what this peer has sent. `None` if it is not to get there.
    fn payload<'a>(&self, sent: &'a [u8]) -> Option<&'a str>;
}

/// The two ends of a node, in which we have this name. The first is to be [attached](crate::Root::attach) to a root, as one node.
pub(crate) fn introducer<N: Name>(own: N) -> (Arc<dyn Transport>, FromTree<N>, ToTree<N>) {
    let (to_layer, outgoing) = mpsc::channel(OUTGOING);
    let (incoming, from_layer) = mpsc::channel(N::INCOMING);
    let dropped = Arc::new(AtomicU64::new(0));
    let pump = Pump { own, to_layer, from_layer, dropped: dropped.clone() };
    (Arc::new(Introducer(Mutex::new(Some(pump)))), FromTree(outgoing), ToTree { incoming, dropped })
}

/// What the tree wants passed on to other peers.
#[derive(Debug)]
pub(crate) struct FromTree<N>(mpsc::Receiver<(N, String)>);

/// What other peers, and the layer itself, say to the tree. Dropping it closes the node.
#[derive(Debug)]
pub(crate) struct ToTree<N> {
    incoming: mpsc::Sender<Incoming<N>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Incoming<N> {
    Sent { from: N, account: Option<Account>, what: Bytes },
    Undeliverable { to: N, why: Undeliverable },
    Here(Vec<N>),
    Left(N),
}

impl<N> FromTree<N> {
    /// The next payload, JSON, and whom it is for. `None` when the node is closed. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(N, String)> {
        self.0.recv().await
    }
}

/// Nothing here ever waits: what finds too many before it is dropped and counted.
impl<N> ToTree<N> {
    /// Hands the tree what a peer has sent, who is that one for certain. What is too large, or no payload, is dropped and counted.
    pub(crate) fn deliver(&self, from: N, account: Option<Account>, what: Bytes) {
        if what.len() <= MAX_SIGNAL_BYTES {
            self.push(Incoming::Sent { from, account, what });
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the tree that a payload could not be brought to this peer, so that its call need not wait.
    pub(crate) fn undeliverable(&self, to: N, why: Undeliverable) {
        self.push(Incoming::Undeliverable { to, why });
    }

    /// Announces peers.
    pub(crate) fn here(&self, peers: Vec<N>) {
        if !peers.is_empty() {
            self.push(Incoming::Here(peers));
        }
    }

    /// Says that a peer has left.
    pub(crate) fn left(&self, peer: N) {
        self.push(Incoming::Left(peer));
    }

    /// What was dropped so far, in both directions.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, incoming: Incoming<N>) {
        if self.incoming.try_send(incoming).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The node's end, with its pump until the link is started.
struct Introducer<N>(Mutex<Option<Pump<N>>>);

impl<N: Name> Transport for Introducer<N> {
    fn start(&self, _: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(1);
        match lock(&self.0).take() {
            Some(pump) => drop(tokio::spawn(pump.run(pipe, receiver))),
            None => drop(tokio::spawn(async move { pipe.finish(CloseReason::Failed(N::ONE_NODE.into())).await })),
        }
        Box::new(Handle(commands))
    }
}

/// Dropping it closes the channel, which ends the pump.
struct Handle(mpsc::Sender<Command>);

impl Link for Handle {
    fn command(&self, command: Command) {
        // The only command is to close: one in the channel is enough.
        let _ = self.0.try_send(command);
    }
}

struct Pump<N> {
    own: N,
    to_layer: mpsc::Sender<(N, String)>,
    from_layer: mpsc::Receiver<Incoming<N>>,
    dropped: Arc<AtomicU64>,
}

impl<N: Name> Pump<N> {
    async fn run(mut self, pipe: Arc<Pipe>, mut commands: mpsc::Receiver<Command>) {
        pipe.open(Framing::Plain { max_message: MAX_SIGNAL_BYTES }, None);
        pipe.emit(LinkEvent::Opened { extension: true }).await;
        pipe.emit(LinkEvent::Frame(frame::welcome(&self.own.address()))).await;
        let reason = loop {
            let event = tokio::select! {
                outgoing = pipe.next_outgoing() => match outgoing {
                    Outgoing::Text(text) => self.send(&text).map(LinkEvent::Frame),
                    Outgoing::Binary(_) | Outgoing::Stream { .. } => self.drop_one(),
                    Outgoing::Finished => break CloseReason::Local,
                },
                incoming = self.from_layer.recv() => match incoming {
                    Some(Incoming::Sent { from, account, what }) => self.receive(from, account, &what),
                    Some(Incoming::Undeliverable { to, why }) => {
                        Some(LinkEvent::Frame(frame::undeliverable(&to.address(), why)))
                    }
                    Some(Incoming::Left(peer)) => Some(LinkEvent::Frame(frame::left(&peer.address()))),
                    Some(Incoming::Here(peers)) => {
                        self.announce(&pipe, peers).await;
                        None
                    }
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
            if let Some(event) = event {
                pipe.emit(event).await;
            }
        };
        pipe.finish(reason).await;
    }

    /// Passes a frame of the tree on, or returns the answer to it.
    fn send(&self, text: &[u8]) -> Option<String> {
        let frame = std::str::from_utf8(text).ok().and_then(|text| Frame::parse(text).ok());
        let Some(Frame::Relay { to, payload }) = frame else { return self.drop_one() };
        match N::of_address(&to) {
            Some(peer) if peer == self.own => Some(frame::relayed(&to, payload.get())),
            Some(peer) => {
                let sent = self.to_layer.try_send((peer, payload.get().to_owned()));
                sent.is_err().then(|| frame::undeliverable(&to, Undeliverable::Busy))
            }
            None => Some(frame::undeliverable(&to, Undeliverable::Unknown)),
        }
    }

    /// The frame for the tree.
    fn receive(&self, from: N, account: Option<Account>, what: &[u8]) -> Option<LinkEvent> {
        let Some(payload) = from.payload(what) else { return self.drop_one() };
        let text = frame::relayed(&from.address(), payload);
        Some(match account {
            Some(account) => LinkEvent::FrameOf { account, text },
            None => LinkEvent::Frame(text),
        })
    }

    async fn announce(&self, pipe: &Pipe, peers: Vec<N>) {
        for peer in peers {
            let text = frame::announcement(&peer.address());
            // Introductions do not wait for a reader of announcements: what is too much for it is dropped.
            if pipe.deliver(WireMessage::Text(text.into()), WhenFull::Overflow).await.is_err() {
                self.drop_one::<()>();
            }
        }
    }

    fn drop_one<T>(&self) -> Option<T> {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}
