//! The streams of messages and events. Dropping one is P's `removeListener`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt, ready};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::error::Event;
use super::handle::{Node, NodeState};
use super::message::Message;
use crate::lock::lock;
use crate::protocol::Address;
use crate::transport::{Lane, Subscription};

/// Messages of one node or channel, see [`Node::messages`] and [`Channel::messages`](super::Channel::messages).
///
/// Taking one is cancel safe: `next()` of a stream loses nothing when it is dropped.
#[derive(Debug)]
pub struct Messages {
    node: Node,
    subscription: Subscription,
}

impl Messages {
    pub(super) fn new(node: Node, lane: &Arc<Lane>) -> Self {
        let subscription = node.inner.queues.subscribe(lane);
        Self { node, subscription }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            let Some((kind, body)) = ready!(self.subscription.poll_next(cx)) else { return Poll::Ready(None) };
            match Message::decode(kind, body) {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(_) => self.node.report_malformed(),
            }
        }
    }
}

/// Binary messages of one node or channel, see [`Node::binaries`].
#[derive(Debug)]
pub struct Binaries(Messages);

impl Binaries {
    pub(super) fn new(messages: Messages) -> Self {
        Self(messages)
    }
}

impl Stream for Binaries {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match ready!(self.0.poll_next_unpin(cx)) {
                Some(Message::Binary(bytes)) => return Poll::Ready(Some(bytes)),
                Some(Message::Json(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Addresses that an onramp announces, see [`Node::announcements`].
#[derive(Debug)]
pub struct Announcements(Messages);

impl Announcements {
    pub(super) fn new(messages: Messages) -> Self {
        Self(messages)
    }
}

impl Stream for Announcements {
    type Item = Address;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Address>> {
        loop {
            let Some(message) = ready!(self.0.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            if let Some(Ok(address)) = message.as_str().map(Address::new) {
                return Poll::Ready(Some(address));
            }
        }
    }
}

/// Nodes that a root stream has still to take in.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    state: Mutex<(Vec<Messages>, Option<Waker>, bool)>,
}

impl Arrivals {
    pub(super) fn push(&self, messages: Messages) {
        let mut state = lock(&self.state);
        state.0.push(messages);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    /// No more nodes will come.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.2 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// Messages of all nodes, with the node each came from. See [`Root::messages`](super::Root::messages).
#[derive(Debug)]
pub struct RootMessages {
    arrivals: Arc<Arrivals>,
    nodes: SelectAll<Tagged>,
}

impl RootMessages {
    pub(super) fn new(arrivals: Arc<Arrivals>) -> Self {
        Self { arrivals, nodes: SelectAll::new() }
    }
}

impl Stream for RootMessages {
    type Item = (Node, Message);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let ended = {
            let mut state = lock(&this.arrivals.state);
            for messages in state.0.drain(..) {
                this.nodes.push(Tagged(messages));
            }
            state.1 = Some(cx.waker().clone());
            state.2
        };
        match this.nodes.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(item)),
            Poll::Ready(None) if ended => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }
}

/// Binary messages of all nodes, with the node each came from. See [`Root::binaries`](super::Root::binaries).
#[derive(Debug)]
pub struct RootBinaries(RootMessages);

impl RootBinaries {
    pub(super) fn new(messages: RootMessages) -> Self {
        Self(messages)
    }
}

impl Stream for RootBinaries {
    type Item = (Node, Bytes);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.0.poll_next_unpin(cx)) {
                Some((node, Message::Binary(bytes))) => return Poll::Ready(Some((node, bytes))),
                Some((_, Message::Json(_))) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

#[derive(Debug)]
struct Tagged(Messages);

impl Stream for Tagged {
    type Item = (Node, Message);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.0.poll_next_unpin(cx));
        Poll::Ready(message.map(|message| (self.0.node.clone(), message)))
    }
}

/// Events of one node or of the root, see [`Node::events`] and [`Root::events`](super::Root::events).
#[derive(Debug)]
pub struct Events {
    /// What had happened before the stream was made.
    past: VecDeque<Event>,
    live: Option<BroadcastStream<Event>>,
    /// The node whose end ends the stream.
    node: Option<Node>,
    ended: bool,
}

impl Events {
    pub(super) fn of_node(node: &Node) -> Self {
        // The driver changes the state and sends the event under the state's write lock, so what is seen here is exactly
        // what the live stream will not bring.
        let state = node.inner.state.borrow();
        let live = Some(BroadcastStream::new(node.listen()));
        let past = match &*state {
            NodeState::Connecting => VecDeque::new(),
            NodeState::Open => VecDeque::from([Event::Open { node: node.clone() }]),
            NodeState::Closed(reason) => VecDeque::from([Event::Close { node: node.clone(), reason: reason.clone() }]),
        };
        drop(state);
        Self { past, live, node: Some(node.clone()), ended: false }
    }

    /// `None` if the root is closed already.
    pub(super) fn of_root(events: Option<tokio::sync::broadcast::Receiver<Event>>) -> Self {
        let live = events.map(BroadcastStream::new);
        Self { past: VecDeque::new(), ended: live.is_none(), live, node: None }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match self.past.pop_front() {
            Some(event) => event,
            None => match ready!(self.live.as_mut().map_or(Poll::Ready(None), |live| live.poll_next_unpin(cx))) {
                Some(Ok(event)) => event,
                Some(Err(BroadcastStreamRecvError::Lagged(lost))) => Event::Lagged(lost),
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            },
        };
        if let (Event::Close { node, .. }, Some(own)) = (&event, &self.node) {
            self.ended = node == own;
        }
        Poll::Ready(Some(event))
    }
}

/// Nodes that come or go, see [`Node::connections`] and [`Node::disconnections`].
///
/// Where the reader is too slow some may be missing: [`Node::events`] says so, this stream does not.
#[derive(Debug)]
pub struct Nodes {
    events: Events,
    arriving: bool,
}

impl Nodes {
    pub(super) fn connections(events: Events) -> Self {
        Self { events, arriving: true }
    }

    pub(super) fn disconnections(events: Events) -> Self {
        Self { events, arriving: false }
    }
}

impl Stream for Nodes {
    type Item = Node;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Node>> {
        let own = self.events.node.clone();
        loop {
            match ready!(self.events.poll_next_unpin(cx)) {
                Some(Event::Connection { node, via }) if self.arriving && (own.is_none() || via == own) => {
                    return Poll::Ready(Some(node));
                }
                Some(Event::Disconnection { node, via }) if !self.arriving && (own.is_none() || via == own) => {
                    return Poll::Ready(Some(node));
                }
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}
