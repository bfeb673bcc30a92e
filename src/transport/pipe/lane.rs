//! What the two sides of the pipe and the application share of a channel.

use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, watch};

use super::SEND_QUEUE_BYTES;
use super::inbox::Inbox;
use crate::lock::lock;
use crate::protocol::channel::Delivery;

/// User messages that may wait to be sent on a channel besides the main one, in bytes. At it, `send` waits and `try_send`
/// says full.
const LANE_QUEUE_BYTES: usize = 256 * 1024;

/// The number of the main channel, in both directions.
pub(super) const MAIN: u32 = 0;

/// One channel: see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Lane {
    /// By which we announce it.
    pub(super) id: u32,
    name: String,
    delivery: Delivery,
    /// Bytes that may wait to be sent.
    pub(super) capacity: usize,
    /// Bytes for which there is room. Closed when the channel takes no more.
    pub(super) room: Semaphore,
    pub(super) inbox: Mutex<Inbox>,
    over: watch::Sender<bool>,
}

impl Lane {
    fn new(id: u32, name: String, delivery: Delivery, capacity: usize, window: (u32, u32)) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            delivery,
            capacity,
            room: Semaphore::new(capacity),
            inbox: Mutex::new(Inbox::new(window)),
            over: watch::Sender::new(false),
        })
    }

    /// The main channel, which grants this much credit.
    pub(super) fn main(window: (u32, u32)) -> Arc<Self> {
        Self::new(MAIN, String::new(), Delivery::default(), SEND_QUEUE_BYTES, window)
    }

    /// A named channel, which grants this much credit.
    pub(super) fn named(id: u32, name: String, delivery: Delivery, window: (u32, u32)) -> Arc<Self> {
        Self::new(id, name, delivery, LANE_QUEUE_BYTES, window)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What holds for messages that this side sends.
    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether messages may still be taken to be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.room.is_closed()
    }

    /// Waits until one of the sides has ended the channel, or its link is over. Cancel safe.
    pub(crate) async fn over(&self) {
        // The sender lives in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Nothing more comes or goes.
    pub(super) fn end(&self) {
        self.room.close();
        lock(&self.inbox).shut();
        self.over.send_replace(true);
    }
}
