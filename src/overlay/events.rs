//! What happens in the overlay.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, ready};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::OverlayId;
use super::error::{BootstrapFailure, OverlaySendError};

/// What happens in the overlay, see [`Overlay::events`](super::Overlay::events).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverlayEvent {
    /// There is a direct link to this peer now.
    NeighbourUp(OverlayId),
    /// There is no direct link to this peer any more.
    NeighbourDown(OverlayId),
    /// Messages to this peer that [`Overlay::send`](super::Overlay::send) had taken have not been sent: they waited for the key of the
    /// other side, or for a neighbour, in vain. That one was lost further on is never known.
    Undelivered {
        /// To whom.
        to: OverlayId,
        /// Why.
        why: OverlaySendError,
        /// How many: those that failed at the same time are told together.
        messages: u64,
    },
    /// A URL to [begin](super::OverlayBuilder::bootstrap) at, or one of an [original](super::PeerRelayCompat::bootstrap), has led to no
    /// link. It is told when that happens first, after there was a link, and when the reason has changed. It is dialled again all
    /// the same.
    BootstrapFailed {
        /// The URL, without the user and the query, which may be secret.
        url: String,
        /// Why.
        why: BootstrapFailure,
    },
    /// The reader was too slow, and so many events are lost. Read [`Overlay::neighbours`](super::Overlay::neighbours) again.
    Lagged(u64),
}

/// A stream of [`OverlayEvent`]s. Taking one is cancel safe. Dropping it stops listening.
#[derive(Debug)]
pub struct OverlayEvents {
    /// What holds since before it was made.
    first: VecDeque<OverlayEvent>,
    events: BroadcastStream<OverlayEvent>,
}

impl OverlayEvents {
    pub(super) fn new(first: VecDeque<OverlayEvent>, events: broadcast::Receiver<OverlayEvent>) -> Self {
        Self { first, events: BroadcastStream::new(events) }
    }
}

impl Stream for OverlayEvents {
    type Item = OverlayEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OverlayEvent>> {
        if let Some(event) = self.first.pop_front() {
            return Poll::Ready(Some(event));
        }
        Poll::Ready(ready!(self.events.poll_next_unpin(cx)).map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(lost)) => OverlayEvent::Lagged(lost),
        }))
    }
}
