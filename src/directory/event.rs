//! What happens in a session.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, ready};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::error::LoginError;
use crate::protocol::PeerNumber;

/// What happens in a session, see [`Session::events`](super::Session::events).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The session is logged in, at first or again. What has changed meanwhile follows.
    Connected {
        /// The own number from now on.
        number: PeerNumber,
    },
    /// The directory is lost. The session logs in again by itself; until then what it knows stays as it was.
    Disconnected,
    /// A peer is there.
    PeerConnect {
        /// The alias of its user; `Us` for another login of the own account.
        name: String,
        /// Its number.
        number: PeerNumber,
    },
    /// A peer is there no more, or is not to be reached any more.
    ///
    /// If it was `ended`, its calls are not taken any more, calls to it fail, and all connections to it are closed, also those of the
    /// application. Otherwise connections stay open, and its calls over them are taken, for the
    /// [grace](super::DirectoryBuilder::grace); and on and on if it logs in again, by another number, with the same key.
    PeerDisconnect {
        /// Its number.
        number: PeerNumber,
        /// Whether it is not to be believed any more that it is of this user: its login was ended because its account has another
        /// password or was closed, the trust has ended, or the number is somebody else's now. Otherwise its connection to the directory
        /// is lost or closed, and the peer may come again, by another number.
        ended: bool,
    },
    /// A user whose peers may be reached.
    NewUser {
        /// By which this account knows it.
        alias: String,
    },
    /// A user whose peers may be reached no more. Those that were there have been disconnected.
    UserRemoved {
        /// By which this account knew it.
        alias: String,
    },
    /// The session is over: the directory does not take the password any more, or [`disconnect`](super::Session::disconnect) was
    /// called. Nothing follows.
    Ended {
        /// Why, if it was not this side that ended it.
        error: Option<LoginError>,
    },
    /// The reader was too slow, and so many events are lost. Read [`Session::peers`](super::Session::peers) and
    /// [`Session::users`](super::Session::users) again.
    Lagged(u64),
}

/// A stream of [`SessionEvent`]s: first what is there, then what happens. It ends after [`SessionEvent::Ended`]. Taking one is
/// cancel safe. Dropping it stops listening.
#[derive(Debug)]
pub struct SessionEvents {
    known: VecDeque<SessionEvent>,
    later: BroadcastStream<SessionEvent>,
    over: bool,
}

impl SessionEvents {
    pub(super) fn new(known: Vec<SessionEvent>, later: broadcast::Receiver<SessionEvent>) -> Self {
        Self { known: known.into(), later: BroadcastStream::new(later), over: false }
    }
}

impl Stream for SessionEvents {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = match self.known.pop_front() {
            Some(event) => Some(event),
            None => ready!(self.later.poll_next_unpin(cx)).map(|event| match event {
                Ok(event) => event,
                Err(BroadcastStreamRecvError::Lagged(lost)) => SessionEvent::Lagged(lost),
            }),
        };
        self.over = matches!(event, Some(SessionEvent::Ended { .. }) | None);
        Poll::Ready(event)
    }
}
