//! The crate's view of tokio, with two additions.
//!
//! - The pump of a link runs in the task of the crate's driver. So what the application sends wakes that task directly,
//!   and what arrives wakes the application directly: no hop between tasks on the way of a message.
//! - During set-up the driver is kept from sleeping on what it has just queued. It writes, handles events, reads, and
//!   sleeps; what handling events has queued would wait for the next timer, up to 200 ms, three times in a row.

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

use super::mailbox::Mailbox;
use super::socket;
use crate::error::CloseReason;

/// Sleeps that end at once after something has arrived, until the link is open.
const KICKS: u8 = 2;

/// Longest sleep while the link is being set up, and for how long after the latest step.
const HURRIED_SLEEP: Duration = Duration::from_millis(1);
const HURRY: Duration = Duration::from_secs(2);

/// Longest sleep of a link that is not open and in no hurry: an offer nobody has answered yet.
const PATIENT_SLEEP: Duration = Duration::from_millis(50);

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long the driver may sleep.
#[derive(Debug)]
pub(super) struct Pace {
    created: Instant,
    settled: AtomicBool,
    kicks: AtomicU8,
    /// End of the hurry, in milliseconds since `created`.
    hurry_until: AtomicU64,
}

impl Pace {
    fn new() -> Self {
        Self {
            created: Instant::now(),
            settled: AtomicBool::new(false),
            kicks: AtomicU8::new(0),
            hurry_until: AtomicU64::new(0),
        }
    }

    /// A datagram has arrived: what it causes must not wait for a timer.
    pub(super) fn arrived(&self) {
        if !self.settled.load(Ordering::Relaxed) {
            self.kicks.store(KICKS, Ordering::Relaxed);
        }
    }

    /// A step of the set-up has been made.
    pub(super) fn hurry(&self) {
        let until = self.created.elapsed() + HURRY;
        self.hurry_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// The link is open: sleep as the driver wishes.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// How long to sleep instead of `wish`.
    fn sleep(&self, wish: Duration) -> Duration {
        if self.settled.load(Ordering::Relaxed) {
            return wish;
        }
        let kicks = self.kicks.load(Ordering::Relaxed);
        if kicks > 0 {
            self.kicks.store(kicks - 1, Ordering::Relaxed);
            return Duration::ZERO;
        }
        let hurried = (self.created.elapsed().as_millis() as u64) < self.hurry_until.load(Ordering::Relaxed);
        wish.min(if hurried { HURRIED_SLEEP } else { PATIENT_SLEEP })
    }
}

/// The two halves that move the messages of a link. They are polled whenever the driver is.
pub(super) struct Pump {
    pub(super) writer: BoxFuture<()>,
    pub(super) reader: BoxFuture<()>,
}

/// Where the link task leaves the pump for the driver task.
#[derive(Default)]
struct Slot {
    pump: Option<Pump>,
    waker: Option<Waker>,
    /// The driver task is gone: a pump left here would keep the connection alive for ever.
    closed: bool,
}

/// The runtime of one connection.
pub(super) struct LinkRuntime {
    pace: Arc<Pace>,
    slot: Arc<Mutex<Slot>>,
    mailbox: Arc<Mailbox>,
    /// Whether the driver has been spawned.
    driven: AtomicBool,
}

impl LinkRuntime {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self { pace: Arc::new(Pace::new()), slot: Arc::default(), mailbox, driven: AtomicBool::new(false) })
    }

    pub(super) fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// Hands the pump to the driver task. If that is gone, the pump is dropped.
    pub(super) fn attach(&self, pump: Pump) {
        let waker = {
            let mut slot = lock(&self.slot);
            if slot.closed {
                return;
            }
            slot.pump = Some(pump);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for LinkRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkRuntime").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Runtime for LinkRuntime {
    fn spawn(&self, future: BoxFuture<()>) -> Box<dyn JoinHandle> {
        // The first that is spawned is the driver.
        if self.driven.swap(true, Ordering::Relaxed) {
            return TokioRuntime.spawn(future);
        }
        TokioRuntime.spawn(Box::pin(DriverTask {
            driver: Some(future),
            pump: PumpState::Awaited,
            slot: self.slot.clone(),
            mailbox: self.mailbox.clone(),
        }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket::wrap(socket, self.pace.clone())
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    /// Refuses: no TCP candidates are offered, and a peer must not make us connect to a place of its choice.
    fn connect_tcp<'a>(
        &'a self,
        _remote_addr: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let duration = self.pace.sleep(duration);
        if duration.is_zero() { Box::pin(ready(())) } else { Box::pin(tokio::time::sleep(duration)) }
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "pmesh"
    }
}

enum PumpState {
    Awaited,
    Running { writer: Option<BoxFuture<()>>, reader: Option<BoxFuture<()>> },
}

/// The crate's driver and the pump, in one task.
struct DriverTask {
    driver: Option<BoxFuture<()>>,
    pump: PumpState,
    slot: Arc<Mutex<Slot>>,
    mailbox: Arc<Mailbox>,
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let PumpState::Awaited = this.pump {
            let mut slot = lock(&this.slot);
            match slot.pump.take() {
                Some(Pump { writer, reader }) => {
                    this.pump = PumpState::Running { writer: Some(writer), reader: Some(reader) };
                }
                None => slot.waker = Some(cx.waker().clone()),
            }
        }
        let (mut writer, mut reader) = (&mut None, &mut None);
        if let PumpState::Running { writer: w, reader: r } = &mut this.pump {
            (writer, reader) = (w, r);
        }
        // What is to be sent first, so that the driver sends it now; what has arrived last, so that it is handed on now.
        poll_slot(writer, cx);
        if poll_slot(&mut this.driver, cx) {
            *writer = None;
        }
        poll_slot(reader, cx);
        // Once the driver is done, the reader still hands on what has arrived.
        if this.driver.is_none() && reader.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Polls what is still running. Returns whether it is done.
fn poll_slot(future: &mut Option<BoxFuture<()>>, cx: &mut Context<'_>) -> bool {
    if let Some(running) = future
        && running.as_mut().poll(cx).is_ready()
    {
        *future = None;
    }
    future.is_none()
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        let left = {
            let mut slot = lock(&self.slot);
            slot.closed = true;
            slot.pump.take()
        };
        drop(left);
        // Counts only if nothing else has been told before: then the driver broke.
        self.mailbox.end(CloseReason::Lost("the connection stopped by itself".into()));
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_during_set_up_is_answered_at_once() {
        let pace = Pace::new();
        pace.hurry();
        let wish = Duration::from_secs(5);
        assert_eq!(pace.sleep(wish), HURRIED_SLEEP);
        pace.arrived();
        assert_eq!(pace.sleep(wish), Duration::ZERO);
        assert_eq!(pace.sleep(wish), Duration::ZERO);
        assert_eq!(pace.sleep(wish), HURRIED_SLEEP);
    }

    #[test]
    fn an_open_link_sleeps_as_it_likes() {
        let pace = Pace::new();
        pace.hurry();
        pace.settle();
        pace.arrived();
        assert_eq!(pace.sleep(Duration::from_secs(5)), Duration::from_secs(5));
    }

    #[test]
    fn an_unanswered_offer_does_not_spin() {
        assert_eq!(Pace::new().sleep(Duration::from_secs(5)), PATIENT_SLEEP);
    }
}
