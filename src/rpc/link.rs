//! A link: the table of its calls under a lock, and the task that carries its frames.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::error::CallError;
use super::handle::Shared;
use super::port::{Over, Port, Receiver, Sender};
use super::request::{Caller, IncomingCall, Invocation, ResponseError, Responses};
use super::table::{Output, Start, Table};
use super::wire::{Mode, PART};
use crate::lock::lock;
use crate::node::Verdict;

/// Bytes of large requests that wait to be sent, and as many of items. At it, calls and handlers wait.
const ROOM: usize = 4 * 1024 * 1024;

/// What each item takes of the room besides its bytes.
const OVERHEAD: usize = 64;

/// How long a link that was dialled stays open without a call.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// Who gets the calls that come in. A node that is served by itself is not by its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Itself,
    All,
}

/// What a caller gets.
#[derive(Debug)]
pub(super) enum Reply {
    Item(Bytes),
    End(Result<Bytes, CallError>),
}

pub(super) struct Link {
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// There are frames to be sent.
    writable: Notify,
    /// The next deadline is earlier than it was.
    earlier: Notify,
    requests: Semaphore,
    items: Semaphore,
    over: watch::Sender<bool>,
}

struct State {
    table: Table,
    callers: HashMap<u32, mpsc::Sender<Reply>>,
    handlers: HashMap<u32, Handling>,
    /// Why calls are taken, and of whom: the first counts.
    serving: Vec<(u64, Caller)>,
    tokens: u64,
    /// When the timer fires.
    planned: Option<Instant>,
    /// Since when nobody is called.
    idle: Option<Instant>,
}

struct Handling {
    task: AbortHandle,
    credit: Arc<Semaphore>,
}

/// A call of this side. Dropping it before its end cancels it.
#[derive(Debug)]
pub(super) struct Ticket {
    link: Arc<Link>,
    number: u32,
    replies: mpsc::Receiver<Reply>,
    is_over: bool,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let state = State {
            table: Table::new(shared.limits),
            callers: HashMap::new(),
            handlers: HashMap::new(),
            serving: Vec::new(),
            tokens: 0,
            planned: None,
            idle: Some(Instant::now()),
        };
        Arc::new(Self {
            shared,
            state: Mutex::new(state),
            writable: Notify::new(),
            earlier: Notify::new(),
            requests: Semaphore::new(ROOM),
            items: Semaphore::new(ROOM),
            over: watch::Sender::new(false),
        })
    }

    /// Takes calls of this caller from here on. Returns what stops it.
    pub(super) fn serve(&self, reason: Reason, caller: Caller) -> u64 {
        let mut state = lock(&self.state);
        state.tokens += 1;
        let token = state.tokens;
        // The newest that is for the node itself goes first.
        let at = if reason == Reason::Itself { 0 } else { state.serving.len() };
        state.serving.insert(at, (token, caller));
        token
    }

    /// Takes no more calls for this reason. Those in progress end, if it was the one that counted.
    pub(super) fn stop_serving(self: &Arc<Self>, token: u64) {
        let mut state = lock(&self.state);
        let counted = state.serving.first().is_some_and(|(first, _)| *first == token);
        state.serving.retain(|(other, _)| *other != token);
        if counted {
            state.table.stop_serving();
        }
        self.settle(&mut state);
    }

    /// Has the link end soon.
    pub(super) fn stop(&self) {
        self.over.send_replace(true);
    }

    /// Waits until the link is over. Cancel safe.
    pub(super) async fn over(&self) {
        // The sender lives in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Whether no calls are in progress, either way, and nothing is left to send.
    pub(super) fn is_quiet(&self) -> bool {
        lock(&self.state).table.is_quiet()
    }

    /// Frames that were skipped, as their call is over.
    pub(super) fn stray(&self) -> u64 {
        lock(&self.state).table.stray()
    }

    /// Begins a call, once there is room for it.
    pub(super) async fn call(
        self: &Arc<Self>,
        what: (Mode, &str, u16),
        body: Bytes,
        timeout: Option<Duration>,
    ) -> Result<Ticket, CallError> {
        let begun = Instant::now();
        // Small ones do not wait for large ones: they are bounded by how many may wait.
        let cost = if body.len() > PART { body.len().min(ROOM) } else { 0 };
        let room = self.requests.acquire_many(cost as u32);
        let room = match timeout {
            Some(within) => tokio::time::timeout(within, room).await.map_err(|_| CallError::TimedOut)?,
            None => room.await,
        };
        room.map_err(|_| CallError::NotOpen)?.forget();
        let now = Instant::now();
        let within = timeout.map(|within| within.saturating_sub(now - begun));
        let mut state = lock(&self.state);
        let result = state.table.call(now.into_std(), what, body, within, cost);
        let ticket = result.map(|number| {
            let (sender, replies) = mpsc::channel(usize::from(what.2) + 1);
            state.callers.insert(number, sender);
            state.idle = None;
            Ticket { link: self.clone(), number, replies, is_over: false }
        });
        self.settle(&mut state);
        ticket
    }

    /// Sends an item of a call of the other side, once it is granted and there is room.
    pub(super) async fn send_item(
        self: &Arc<Self>,
        number: u32,
        credit: &Semaphore,
        body: Bytes,
    ) -> Result<(), ResponseError> {
        let limit = lock(&self.state).table.most_to_send();
        if body.len() > limit {
            return Err(ResponseError::TooLarge { limit });
        }
        let credit = credit.acquire().await.map_err(|_| ResponseError::Gone)?;
        // One that is larger than all of the room goes alone.
        let cost = (body.len() + OVERHEAD).min(ROOM);
        self.items.acquire_many(cost as u32).await.map_err(|_| ResponseError::Gone)?.forget();
        credit.forget();
        let mut state = lock(&self.state);
        let sent = state.table.item(number, body, cost);
        self.settle(&mut state);
        if sent { Ok(()) } else { Err(ResponseError::Gone) }
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Table)) {
        let mut state = lock(&self.state);
        change(&mut state.table);
        self.settle(&mut state);
    }

    /// Does what the table has decided.
    fn settle(self: &Arc<Self>, state: &mut State) {
        while let Some(output) = state.table.next_output() {
            match output {
                Output::Start(start) => self.start(state, start),
                Output::Stop { number } => {
                    if let Some(handling) = state.handlers.remove(&number) {
                        handling.credit.close();
                        handling.task.abort();
                    }
                }
                Output::Credit { number, items } => {
                    if let Some(handling) = state.handlers.get(&number) {
                        handling.credit.add_permits(items.into());
                    }
                }
                // Each has a place in the queue: the table takes no more items than were granted.
                Output::Item { number, body } => {
                    if let Some(caller) = state.callers.get(&number) {
                        let _ = caller.try_send(Reply::Item(body));
                    }
                }
                Output::End { number, result } => {
                    if let Some(caller) = state.callers.remove(&number) {
                        let _ = caller.try_send(Reply::End(result));
                    }
                }
            }
        }
        let (requests, items) = state.table.take_freed();
        self.requests.add_permits(requests);
        self.items.add_permits(items);
        if state.table.has_frames() {
            self.writable.notify_one();
        }
        if state.callers.is_empty() && state.idle.is_none() {
            state.idle = Some(Instant::now());
            self.earlier.notify_one();
        }
        let next = state.table.next_deadline().map(Instant::from_std);
        if next.is_some_and(|next| state.planned.is_none_or(|planned| next < planned)) {
            state.planned = next;
            self.earlier.notify_one();
        }
    }

    /// Starts the handler of a call.
    fn start(self: &Arc<Self>, state: &mut State, Start { number, head, body }: Start) {
        let refused = match (state.serving.first(), self.shared.places.clone().try_acquire_owned()) {
            (None, _) => CallError::Refused,
            (_, Err(_)) => CallError::Busy,
            (Some((_, caller)), Ok(place)) => {
                let call = IncomingCall { module: head.module.into(), caller: caller.clone() };
                let credit = Arc::new(Semaphore::new(head.items.into()));
                let responses = Responses { link: self.clone(), number, credit: credit.clone() };
                let invocation = Invocation { call, body, streams: head.mode == Mode::Stream, responses };
                let link = self.clone();
                let is_notice = head.mode == Mode::Notice;
                let task = tokio::spawn(async move {
                    let answer = AssertUnwindSafe(run(&link.shared, invocation)).catch_unwind().await;
                    let answer = answer.unwrap_or(Some(Err(CallError::Panicked)));
                    drop(place);
                    link.finish(number, answer.map(|answer| if is_notice { Ok(Bytes::new()) } else { answer }));
                });
                state.handlers.insert(number, Handling { task: task.abort_handle(), credit });
                return;
            }
        };
        state.table.answer(number, Err(refused));
    }

    /// A handler is done; `None` if the caller is to hear nothing.
    fn finish(self: &Arc<Self>, number: u32, answer: Option<Result<Bytes, CallError>>) {
        let mut state = lock(&self.state);
        if let Some(handling) = state.handlers.remove(&number) {
            // Somebody else may have its responses.
            handling.credit.close();
        }
        match answer {
            Some(answer) => state.table.answer(number, answer),
            None => state.table.ignore(number),
        }
        self.settle(&mut state);
    }

    /// Ends the link, and all calls with it: those of which nothing was sent with this error.
    pub(super) fn end(self: &Arc<Self>, unsent: CallError) {
        self.change(|table| table.close(unsent));
        self.requests.close();
        self.items.close();
        self.over.send_replace(true);
    }

    /// Carries frames until the link is over. `idle`: so long it stays without a call of this side.
    pub(super) async fn carry(self: &Arc<Self>, port: Port, idle: Option<Duration>) {
        let Port { mut sender, mut receiver } = port;
        tokio::select! {
            _ = self.write(&mut sender) => {}
            _ = self.read(&mut receiver) => {}
            () = self.watch_time(idle) => {}
            () = self.over() => {}
        }
    }

    async fn write(self: &Arc<Self>, sender: &mut Sender) -> Result<(), Over> {
        let hello = lock(&self.state).table.hello();
        sender.send(&hello).await?;
        loop {
            sender.ready().await;
            let frame = {
                let mut state = lock(&self.state);
                let frame = state.table.next_frame();
                let (requests, items) = state.table.take_freed();
                self.requests.add_permits(requests);
                self.items.add_permits(items);
                frame
            };
            match frame {
                Some(frame) => sender.send(&frame).await?,
                None => self.writable.notified().await,
            }
        }
    }

    async fn read(self: &Arc<Self>, receiver: &mut Receiver) -> Result<(), Over> {
        loop {
            let frame = receiver.receive().await?;
            let mut state = lock(&self.state);
            let received = state.table.receive(Instant::now().into_std(), frame);
            self.settle(&mut state);
            if let Err(violation) = received {
                tracing::debug!(%violation, "the other side of a link for calls does not keep to the protocol");
                return Err(Over);
            }
        }
    }

    /// Ends calls whose time is over. Returns when the link was not in use for so long.
    pub(super) async fn watch_time(self: &Arc<Self>, idle: Option<Duration>) {
        loop {
            let (planned, idle_at) = {
                let mut state = lock(&self.state);
                state.planned = state.table.next_deadline().map(Instant::from_std);
                (state.planned, idle.and_then(|idle| Some(state.idle? + idle)))
            };
            let Some(at) = planned.into_iter().chain(idle_at).min() else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.earlier.notified() => continue,
            }
            let now = Instant::now();
            let mut state = lock(&self.state);
            state.table.tick(now.into_std());
            self.settle(&mut state);
            let is_idle =
                state.table.is_idle() && state.idle.zip(idle).is_some_and(|(since, idle)| since + idle <= now);
            if is_idle {
                return;
            }
        }
    }
}

/// Asks the firewall, and runs the handler. `None` if the caller is to hear nothing.
async fn run(shared: &Shared, invocation: Invocation) -> Option<Result<Bytes, CallError>> {
    if let Some(firewall) = &shared.firewall {
        let verdict = AssertUnwindSafe(firewall.check(&invocation.call)).catch_unwind().await;
        match verdict.unwrap_or(Verdict::Refuse) {
            Verdict::Accept => {}
            Verdict::Refuse => return Some(Err(CallError::Refused)),
            Verdict::Busy => return Some(Err(CallError::Busy)),
            Verdict::Ignore => return None,
        }
    }
    Some(match shared.modules.get(invocation.call.module()) {
        Some(handler) => handler(invocation).await,
        None => Err(CallError::UnknownModule),
    })
}

impl Ticket {
    /// The next that comes: items, then the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Reply {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Reply> {
        self.replies.poll_recv(cx).map(|reply| {
            // Without an end the link is over, and with it the call.
            let reply = reply.unwrap_or(Reply::End(Err(CallError::Closed)));
            match reply {
                Reply::Item(_) => self.link.change(|table| table.consumed(self.number)),
                Reply::End(_) => self.is_over = true,
            }
            reply
        })
    }

    /// Lets the call go on without anybody who waits for it.
    pub(super) fn detach(mut self) {
        self.is_over = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = lock(&self.link.state);
            state.callers.remove(&self.number);
            state.table.cancel(self.number);
            self.link.settle(&mut state);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("is_over", &*self.over.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Rpc;

    #[tokio::test(start_paused = true)]
    async fn a_link_without_a_call_is_idle_after_a_while_and_calls_end_in_time() {
        let rpc = Rpc::new();
        let link = Link::new(rpc.shared().clone());
        let begun = Instant::now();
        let call = link.call((Mode::Call, "m", 0), Bytes::new(), Some(2 * IDLE)).await.unwrap();
        let (reply, ()) = tokio::join!(
            async {
                let mut call = call;
                let reply = call.next().await;
                assert_eq!(begun.elapsed().as_secs(), 60);
                reply
            },
            link.watch_time(Some(IDLE)),
        );
        assert!(matches!(reply, Reply::End(Err(CallError::Unsupported))));
        assert_eq!(begun.elapsed().as_secs(), 90);
        link.end(CallError::NotOpen);
        let after = link.call((Mode::Call, "m", 0), Bytes::new(), None).await;
        assert_eq!(after.err(), Some(CallError::NotOpen));
    }
}
