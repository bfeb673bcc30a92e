//! Calls to one peer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, ready};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::CallError;
use super::handle::Rpc;
use super::link::{Reply, Ticket};
use super::wire::{Mode, is_name};
use crate::node::Node;
use crate::overlay::{Overlay, OverlayId};

/// How long a call waits for its answer by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most that a timeout may be: longer ones count as this.
const MAX_TIMEOUT: Duration = Duration::from_millis(u32::MAX as u64);

/// Items of a stream that may be on their way by default.
const ITEMS: u16 = 16;

/// The most items of a stream that may be on their way: more count as this.
const MAX_ITEMS: u16 = 1024;

/// Somebody to call: made by [`Rpc::on`] and [`Rpc::over`]. Cheap to clone; keeps its [`Rpc`].
///
/// Nothing happens before the first call. Over a node calls share its channel; over the overlay they share a stream, which is dialled
/// for the first one, and closed when there was no call for 30 seconds.
///
/// Up to 64 calls are in progress at a peer, or as many as it takes; further ones wait in order, up to 1,024, within their time.
#[derive(Clone)]
pub struct Target {
    rpc: Rpc,
    to: To,
    timeout: Option<Duration>,
    items: u16,
}

#[derive(Clone)]
pub(super) enum To {
    Node(Node),
    Overlay(Overlay, OverlayId),
}

impl Target {
    pub(super) fn new(rpc: Rpc, to: To) -> Self {
        Self { rpc, to, timeout: None, items: ITEMS }
    }

    /// The same with this much time for each call, with connecting and waiting: 30 seconds by default, 49 days at most. The other side
    /// knows of it, and drops handlers that nobody waits for any more. By default streams may take as long as they like.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.min(MAX_TIMEOUT));
        self
    }

    /// The same with so many items of each stream that may be on their way, 1 to 1,024: 16 by default. What the stream has not given
    /// yet is held here.
    #[must_use]
    pub fn items(mut self, items: u16) -> Self {
        self.items = items.clamp(1, MAX_ITEMS);
        self
    }

    /// Calls a module, and waits for its answer.
    ///
    /// A peer that does not [serve](Rpc::serve) calls of its node may yet begin to: until it does, calls wait within their time. Over the
    /// overlay it says at once that it takes none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call: the other side drops the handler when it hears of it.
    pub async fn call(&self, module: &str, request: impl Into<Value>) -> Result<Value, CallError> {
        self.call_body(module, request.into().to_string().into()).await
    }

    /// Like [`call`](Self::call), with types: what the module gives instead of the answer's is [`CallError::Unexpected`].
    ///
    /// # Errors
    ///
    /// [`CallError`]; [`Malformed`](CallError::Malformed) if the request has no form as JSON.
    pub async fn call_typed<A: DeserializeOwned>(
        &self,
        module: &str,
        request: &(impl Serialize + ?Sized),
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(request).map_err(|error| CallError::Malformed(error.to_string()))?;
        self.call_body(module, body.into()).await
    }

    /// Calls a module that answers by a stream. Nothing happens until it is polled; dropping it cancels the call.
    ///
    /// Of a module with one answer the stream has that one item.
    pub fn stream(&self, module: &str, request: impl Into<Value>) -> Responding {
        self.stream_body(module, request.into().to_string().into())
    }

    /// The same with a request that is JSON already. So are those below: one text serves any number of calls.
    pub(crate) fn stream_body(&self, module: &str, body: Bytes) -> Responding {
        let (target, module) = (self.clone(), module.to_owned());
        let call = async move { target.begin(Mode::Stream, &module, body, target.timeout).await };
        Responding { state: State::Beginning(call.boxed()), _rpc: self.rpc.clone() }
    }

    /// Calls a module, and hears nothing more of it: neither whether it is there, nor whether it failed.
    ///
    /// Returns when the call is queued. Its handler has as much time as that of a call. A connection that is lost loses those on their way.
    ///
    /// # Errors
    ///
    /// [`CallError`], of this side only.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a cancelled one has sent nothing.
    pub async fn notify(&self, module: &str, request: impl Into<Value>) -> Result<(), CallError> {
        self.notify_body(module, request.into().to_string().into()).await
    }

    pub(crate) async fn notify_body(&self, module: &str, body: Bytes) -> Result<(), CallError> {
        self.begin(Mode::Notice, module, body, self.time()).await?.detach();
        Ok(())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.timeout.unwrap_or(TIMEOUT))
    }

    pub(crate) async fn call_body<A: DeserializeOwned>(&self, module: &str, body: Bytes) -> Result<A, CallError> {
        let mut ticket = self.begin(Mode::Call, module, body, self.time()).await?;
        match ticket.next().await {
            Reply::End(result) => decode(&result?),
            Reply::Item(_) => Err(CallError::Streams),
        }
    }

    async fn begin(
        &self,
        mode: Mode,
        module: &str,
        body: Bytes,
        timeout: Option<Duration>,
    ) -> Result<Ticket, CallError> {
        if !is_name(module) {
            return Err(CallError::InvalidName);
        }
        let items = if mode == Mode::Stream { self.items } else { 0 };
        let link = self.rpc.shared().link(&self.to)?;
        link.call((mode, module, items), body, timeout).await
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Target");
        match &self.to {
            To::Node(node) => out.field("node", node.address()),
            To::Overlay(_, id) => out.field("overlay_id", id),
        };
        out.finish_non_exhaustive()
    }
}

fn decode<A: DeserializeOwned>(body: &[u8]) -> Result<A, CallError> {
    serde_json::from_slice(body).map_err(|error| CallError::Unexpected(error.to_string()))
}

/// The responses of a module, see [`Target::stream`]. Ends after the last one, or after an error.
///
/// Taking one is cancel safe. Dropping the stream cancels the call.
pub struct Responding {
    state: State,
    _rpc: Rpc,
}

enum State {
    Beginning(Pin<Box<dyn Future<Output = Result<Ticket, CallError>> + Send>>),
    Running(Ticket),
    Over,
}

impl Stream for Responding {
    type Item = Result<Value, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Beginning(call) => match ready!(call.poll_unpin(cx)) {
                    Ok(ticket) => {
                        self.state = State::Running(ticket);
                        continue;
                    }
                    Err(error) => Some(Err(error)),
                },
                State::Running(ticket) => match ready!(ticket.poll_next(cx)) {
                    Reply::Item(body) => return Poll::Ready(Some(decode(&body))),
                    Reply::End(Ok(body)) if body.is_empty() => None,
                    // Of a module that does not stream.
                    Reply::End(Ok(body)) => Some(decode(&body)),
                    Reply::End(Err(error)) => Some(Err(error)),
                },
            };
            self.state = State::Over;
            return Poll::Ready(item);
        }
    }
}

impl fmt::Debug for Responding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Beginning(_) => "Responding(beginning)",
            State::Running(_) => "Responding(running)",
            State::Over => "Responding(over)",
        })
    }
}
