//! What the crate's callbacks and the pump tell the link task.
//!
//! The callbacks run on the driver and must not block, and an end must never get lost: so this is a set of facts with a
//! wake-up rather than a queue. The only list in it is bounded.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use webrtc::data_channel::DataChannel;
use webrtc::peer_connection::{
    PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionIceEvent, RTCPeerConnectionState,
};

use crate::error::CloseReason;
use crate::lock::lock;
use crate::protocol::limits::MAX_STREAMS;

/// The protocol of the data channels beside the main one, between pmesh peers.
pub(super) const STREAM_PROTOCOL: &str = "pmesh";

/// The same, of those that may lose messages: the crate does not tell what the other side chose.
pub(super) const LOSSY_STREAM_PROTOCOL: &str = "pmesh.lossy";

/// The longest label of a stream: a number of 32 bits. The crate keeps the labels as long as the connection.
const MAX_LABEL_BYTES: usize = 10;

/// Local candidates of one link. Further ones are dropped.
const MAX_CANDIDATES: usize = 64;

/// What has happened since the link task last looked.
#[derive(Default)]
pub(super) struct News {
    /// Local candidates, as in an SDP attribute: `candidate:…`.
    pub(super) candidates: Vec<String>,
    /// The channel that the remote created.
    pub(super) channel: Option<Arc<dyn DataChannel>>,
    /// All that was queued before closing has been sent.
    pub(super) flushed: bool,
    /// The connection is closed, though the reader may still hand on what had arrived.
    pub(super) closed: bool,
    /// The link is over.
    pub(super) ended: Option<CloseReason>,
}

#[derive(Default)]
struct State {
    news: News,
    /// Whether there is any.
    fresh: bool,
    candidates_seen: usize,
    gathered: bool,
    channel_seen: bool,
    streams_seen: usize,
    open: bool,
    shut: bool,
}

/// See the [module documentation](self).
pub(super) struct Mailbox {
    state: Mutex<State>,
    changed: Notify,
    sides: mpsc::Sender<Side>,
    /// For the pump.
    arriving: Mutex<Option<mpsc::Receiver<Side>>>,
}

impl Mailbox {
    pub(super) fn new() -> Arc<Self> {
        let (sides, arriving) = mpsc::channel(2 * MAX_STREAMS);
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), sides, arriving: Mutex::new(Some(arriving)) })
    }

    /// A stream to be pumped. Too many of the other side end the link; the pipe bounds those of ours.
    pub(super) fn side(&self, side: Side) {
        if !side.own {
            let mut state = lock(&self.state);
            state.streams_seen += 1;
            let seen = state.streams_seen;
            drop(state);
            if seen > MAX_STREAMS {
                return self.end(CloseReason::Protocol("too many data channels".into()));
            }
        }
        // There is room for all of both sides. Without a pump the link is over.
        let _ = self.sides.try_send(side);
    }

    /// The streams to be pumped, once.
    pub(super) fn take_sides(&self) -> Option<mpsc::Receiver<Side>> {
        lock(&self.arriving).take()
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        if state.shut {
            return;
        }
        change(&mut state);
        state.fresh = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The link is over. Only the first reason counts.
    pub(super) fn end(&self, reason: CloseReason) {
        self.tell(|state| {
            state.news.ended.get_or_insert(reason);
        });
    }

    /// The link broke, or could not be made.
    pub(super) fn lost(&self, why: &str) {
        self.tell(|state| {
            let reason = if state.open { CloseReason::Lost } else { CloseReason::Failed };
            state.news.ended.get_or_insert_with(|| reason(why.into()));
        });
    }

    /// The link is open.
    pub(super) fn opened(&self) {
        self.tell(|state| {
            state.open = true;
        });
    }

    /// Whether the link is, or was, open.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// All that was queued before closing has been sent.
    pub(super) fn flushed(&self) {
        self.tell(|state| state.news.flushed = true);
    }

    /// What has happened, once something has. For the link task only. Cancel safe.
    pub(super) async fn news(&self) -> News {
        loop {
            {
                let mut state = lock(&self.state);
                if std::mem::take(&mut state.fresh) {
                    return std::mem::take(&mut state.news);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until all local candidates are known, or the link is over. For the link task only. Cancel safe.
    pub(super) async fn gathered(&self) {
        loop {
            {
                let state = lock(&self.state);
                if state.gathered || state.news.ended.is_some() {
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Forgets everything and takes nothing more: a channel kept here would keep the connection alive.
    pub(super) fn shut(&self) {
        let news = {
            let mut state = lock(&self.state);
            state.shut = true;
            std::mem::take(&mut state.news)
        };
        drop(news);
        // What waits there goes with it.
        drop(self.take_sides());
    }
}

/// A stream beside the main one, made by this side or by the other.
pub(super) struct Side {
    /// The number that the side gave it that made it.
    pub(super) id: u32,
    pub(super) own: bool,
    /// Whether messages may get lost on it.
    pub(super) lossy: bool,
    pub(super) stream: Arc<dyn DataChannel>,
}

impl Side {
    /// One that the other side made; `None` if it is none.
    async fn of_remote(stream: Arc<dyn DataChannel>) -> Option<Self> {
        let lossy = match stream.protocol().await.ok()?.as_str() {
            STREAM_PROTOCOL => false,
            LOSSY_STREAM_PROTOCOL => true,
            _ => return None,
        };
        let label = stream.label().await.ok()?;
        let id = label.parse().ok().filter(|_| label.len() <= MAX_LABEL_BYTES)?;
        Some(Self { id, own: false, lossy, stream })
    }
}

/// Connects the crate's callbacks to the mailbox.
pub(super) struct Callbacks(pub(super) Arc<Mailbox>);

#[async_trait]
impl PeerConnectionEventHandler for Callbacks {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        // The end of the candidates comes as an empty one.
        let Ok(init) = event.candidate.to_json() else { return };
        self.0.tell(|state| {
            state.candidates_seen += 1;
            if state.candidates_seen <= MAX_CANDIDATES {
                state.news.candidates.push(init.candidate);
            }
        });
    }

    async fn on_ice_gathering_state_change(&self, gathering: RTCIceGatheringState) {
        if gathering == RTCIceGatheringState::Complete {
            self.0.tell(|state| state.gathered = true);
        }
    }

    async fn on_connection_state_change(&self, connection: RTCPeerConnectionState) {
        tracing::debug!(%connection, "connection state");
        match connection {
            RTCPeerConnectionState::Failed => self.0.lost("nothing is heard from the other side"),
            RTCPeerConnectionState::Closed => self.0.tell(|state| state.news.closed = true),
            _ => {}
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        if let Some(side) = Side::of_remote(channel.clone()).await {
            return self.0.side(side);
        }
        self.0.tell(|state| {
            if std::mem::replace(&mut state.channel_seen, true) {
                let reason = CloseReason::Protocol("more than one data channel".into());
                state.news.ended.get_or_insert(reason);
            } else {
                state.news.channel = Some(channel);
            }
        });
    }
}
