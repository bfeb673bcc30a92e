//! What happens in the overlay.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, ready};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::OverlayId;

/// What happens in the overlay, see [`Overlay::events`](super::Overlay::events).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverlayEvent {
    /// There is a direct link to this peer now.
    NeighbourUp(OverlayId),
    /// There is no direct link to this peer any more.
    NeighbourDown(OverlayId),
    /// The reader was too slow, and so many events are lost. Read [`Overlay::neighbours`](super::Overlay::neighbours) again.
    Lagged(u64),
}

/// A stream of [`OverlayEvent`]s. Taking one is cancel safe. Dropping it stops listening.
#[derive(Debug)]
pub struct OverlayEvents(BroadcastStream<OverlayEvent>);

impl OverlayEvents {
    pub(super) fn new(events: broadcast::Receiver<OverlayEvent>) -> Self {
        Self(BroadcastStream::new(events))
    }
}

impl Stream for OverlayEvents {
    type Item = OverlayEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OverlayEvent>> {
        Poll::Ready(ready!(self.0.poll_next_unpin(cx)).map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(lost)) => OverlayEvent::Lagged(lost),
        }))
    }
}
