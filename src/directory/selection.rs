//! Calls to all peers that a target means.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::AbortHandle;

use super::error::CallError;
use super::session::{Peer, Session};
use super::target::Target;
use crate::protocol::PeerNumber;

/// Calls of one message that are in progress at a time, with replies that are unread: as many as one may have connections. An answer has
/// 1 MiB by default, and a connection costs about as much.
const AT_ONCE: usize = 1024;
/// Of these, calls that wait for connections. Further ones do not yet, so that their time does not run while the pool is busy.
const CONNECTING: usize = 64;

/// Peers to be called: made by [`Session::get`]. Cheap to clone; keeps its [`Session`].
///
/// Whom it means is decided at each call: those who are there then. Peers who come later are not called, and one that leaves while
/// its call waits for a connection fails with [`CallError::Gone`].
///
/// ```no_run
/// use std::time::Duration;
/// use pmesh::directory::{Directory, LoginError};
/// use serde_json::json;
/// use tokio_stream::StreamExt;
///
/// # async fn example() -> Result<(), LoginError> {
/// let session = Directory::connect("wss://p2p.example.com", "bob", "correct horse").await?;
/// let everybody = session.get("*").timeout(Duration::from_secs(10));
/// let mut replies = everybody.message("My.Echo.Module", json!({"text": "Friday"}));
/// while let Some(reply) = replies.next().await {
///     match reply.result {
///         Ok(answer) => println!("{} at {}: {answer}", reply.name, reply.number),
///         Err(error) => println!("{} at {} did not answer: {error}", reply.name, reply.number),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Selection {
    session: Session,
    target: Target,
    keep: bool,
    timeout: Option<Duration>,
}

/// What has come of a call to one peer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The peer.
    pub number: PeerNumber,
    /// The alias by which its user is known.
    pub name: String,
    /// Its answer, or why there is none.
    pub result: Result<Value, CallError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Message,
    Stream,
    Notice,
}

impl Selection {
    pub(super) fn new(session: Session, target: Target) -> Self {
        Self { session, target, keep: false, timeout: None }
    }

    /// The same; its calls ask to keep their connections for some seconds, so that further calls find them. By default a connection is
    /// closed after the last call that uses it.
    #[must_use]
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// The same with this much time for each call once there is a connection: 30 seconds by default, and no bound for streams. How long
    /// a call waits for its connection is set by [`PoolConfig::wait`](super::PoolConfig::wait).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whom it means now.
    pub fn peers(&self) -> Vec<Peer> {
        let state = self.session.core().lock();
        state.presence.select(&self.target).iter().map(|(number, alias)| Peer::new(alias, *number)).collect()
    }

    /// Calls a module of each peer. The replies come as they are made, one of each peer.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime. So do the two below.
    pub fn message(&self, module: &str, request: impl Into<Value>) -> Replies {
        self.call(Mode::Message, module, request.into())
    }

    /// Calls a module that answers by a stream of each peer. Each item is a reply, and an error ends those of a peer. Items are sent as
    /// fast as they are read.
    pub fn stream(&self, module: &str, request: impl Into<Value>) -> Replies {
        self.call(Mode::Stream, module, request.into())
    }

    /// Calls a module of each peer without an answer: the replies are `null`, or why the call could not be sent. Connections are kept
    /// for some seconds, so that what was sent arrives.
    pub fn notify(&self, module: &str, request: impl Into<Value>) -> Replies {
        self.call(Mode::Notice, module, request.into())
    }

    fn call(&self, mode: Mode, module: &str, request: Value) -> Replies {
        let mut targets = {
            let state = self.session.core().lock();
            let mut targets = state.presence.select(&self.target);
            // Who is connected need not wait for those who are not.
            targets.sort_by_key(|(peer, _)| !state.connections.is_open(*peer));
            targets
        };
        targets.reverse();
        let (replies, receiver) = mpsc::channel(AT_ONCE);
        let calls = Calls {
            session: self.session.clone(),
            mode,
            module: module.to_owned(),
            request: request.to_string().into(),
            keep: self.keep || mode == Mode::Notice,
            timeout: self.timeout,
            replies,
        };
        Replies { receiver, running: tokio::spawn(calls.run(targets)).abort_handle() }
    }
}

/// Replies of peers, see [`Selection::message`]. It ends when each peer has answered, failed or timed out; at once if there is none.
///
/// Peers to which there are connections are called first, all at once; those to which there are none follow as connections are made, and
/// wait for nobody but those that are connecting. While it is not read, no further peers are called beyond the first thousand. Taking a reply is cancel safe. Dropping it cancels
/// what is in progress. Keeps its [`Session`].
pub struct Replies {
    receiver: mpsc::Receiver<Reply>,
    running: AbortHandle,
}

impl Stream for Replies {
    type Item = Reply;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        self.receiver.poll_recv(cx)
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// What is said to each peer.
struct Calls {
    session: Session,
    mode: Mode,
    module: String,
    request: Bytes,
    keep: bool,
    timeout: Option<Duration>,
    replies: mpsc::Sender<Reply>,
}

impl Calls {
    /// Calls the targets, the last one first.
    async fn run(self, mut targets: Vec<(PeerNumber, Arc<str>)>) {
        let connecting = Semaphore::new(CONNECTING);
        let mut running = FuturesUnordered::new();
        loop {
            // A call that begins has room for its answer, so it holds up nobody when it is done.
            let place = async { Some((connecting.acquire().await.ok()?, self.replies.reserve().await.ok()?)) };
            tokio::select! {
                Some((turn, room)) = place, if running.len() < AT_ONCE && !targets.is_empty() => {
                    if let Some((peer, alias)) = targets.pop() {
                        running.push(self.one(peer, alias, turn, room));
                    }
                }
                Some(()) = running.next() => {}
                else => break,
            }
        }
    }

    /// Calls a peer. Its `turn` is over when there is a connection.
    async fn one(&self, peer: PeerNumber, alias: Arc<str>, turn: SemaphorePermit<'_>, room: mpsc::Permit<'_, Reply>) {
        let reply = |result| Reply { number: peer, name: alias.to_string(), result };
        let (mut lease, node) = match self.session.core().connection(peer, self.keep).await {
            Ok(connection) => connection,
            Err(error) => return room.send(reply(Err(error))),
        };
        drop(turn);
        let mut target = self.session.rpc().on(&node);
        if let Some(timeout) = self.timeout {
            target = target.timeout(timeout);
        }
        let request = self.request.clone();
        match self.mode {
            Mode::Message => {
                let result = lease.hold(target.call_body(&self.module, request)).await;
                drop(lease);
                room.send(reply(result.and_then(|answer| Ok(answer?))));
            }
            Mode::Notice => {
                let result = lease.hold(target.notify_body(&self.module, request)).await;
                drop(lease);
                room.send(reply(result.and_then(|sent| Ok(sent.map(|()| Value::Null)?))));
            }
            Mode::Stream => {
                // The items need more.
                drop(room);
                let mut items = target.stream_body(&self.module, request);
                loop {
                    let item = match lease.hold(items.next()).await {
                        Ok(Some(item)) => item.map_err(Into::into),
                        Ok(None) => break,
                        Err(cut) => Err(cut),
                    };
                    let is_cut = matches!(item, Err(CallError::NotVouched));
                    if self.replies.send(reply(item)).await.is_err() || is_cut {
                        break;
                    }
                }
            }
        }
    }
}
