//! The crate's view of tokio, with two additions.
//!
//! - The pump of a link runs in the task of the crate's driver. So what the application sends wakes that task directly,
//!   and what arrives wakes the application directly: no hop between tasks on the way of a message.
//! - The driver sleeps as [`Pace`] says.

use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

use super::mailbox::Mailbox;
use super::pace::Pace;
use super::shared::LinkPorts;
use super::socket;
use super::wakes::{DRIVER, Driving, READER, WRITER, Wakers};
use crate::lock::lock;

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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
    /// What stands for the sockets that the crate binds, if ports are shared.
    ports: Option<LinkPorts>,
    /// Whether the driver has been spawned.
    driven: AtomicBool,
    #[cfg(test)]
    loss: std::sync::OnceLock<Arc<super::tests::Loss>>,
}

impl LinkRuntime {
    pub(super) fn new(mailbox: Arc<Mailbox>, keepalive: Duration, ports: Option<LinkPorts>) -> Arc<Self> {
        Arc::new(Self {
            ports,
            pace: Arc::new(Pace::new(keepalive)),
            slot: Arc::default(),
            mailbox,
            driven: AtomicBool::new(false),
            #[cfg(test)]
            loss: std::sync::OnceLock::new(),
        })
    }

    /// Makes the sockets that are bound from now on lose datagrams.
    #[cfg(test)]
    pub(super) fn lose(&self, loss: Arc<super::tests::Loss>) {
        let _ = self.loss.set(loss);
    }

    pub(super) fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    pub(super) fn ports(&self) -> Option<&LinkPorts> {
        self.ports.as_ref()
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
            pace: self.pace.clone(),
            slot: self.slot.clone(),
            mailbox: self.mailbox.clone(),
            wakers: Wakers::new(),
            fresh: DRIVER,
        }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = match &self.ports {
            Some(ports) if socket.local_addr()?.port() != socket::MDNS_PORT => {
                socket::paced(ports.replace(socket)?, self.pace.clone())
            }
            _ => socket::wrap(socket, self.pace.clone())?,
        };
        #[cfg(test)]
        if let Some(loss) = self.loss.get() {
            return Ok(loss.clone().wrap(socket));
        }
        Ok(socket)
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
        // The crate sleeps elsewhere too: when it closes a connection, and when a writer waits for room.
        if !Driving::now() {
            return TokioRuntime.sleep(duration);
        }
        let now = Instant::now();
        let duration = self.pace.sleep(duration, now);
        if duration.is_zero() {
            return Box::pin(ready(()));
        }
        let pace = self.pace.clone();
        Box::pin(async move {
            let mut sleep = pin!(tokio::time::sleep_until(now + duration));
            poll_fn(|cx| {
                if pace.take_rousing() {
                    return Poll::Ready(());
                }
                sleep.as_mut().poll(cx)
            })
            .await;
        })
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

/// Rounds of one poll before other tasks get their turn.
const ROUNDS: usize = 4;

/// The crate's driver and the pump, in one task.
struct DriverTask {
    driver: Option<BoxFuture<()>>,
    pump: PumpState,
    pace: Arc<Pace>,
    slot: Arc<Mutex<Slot>>,
    mailbox: Arc<Mailbox>,
    wakers: Wakers,
    /// Parts to poll though nobody has woken them.
    fresh: u8,
}

impl DriverTask {
    /// Polls the parts that have been woken. Returns whether all is done.
    fn round(&mut self, woken: u8) -> bool {
        let (mut writer, mut reader) = (&mut None, &mut None);
        if let PumpState::Running { writer: w, reader: r } = &mut self.pump {
            (writer, reader) = (w, r);
        }
        // What is to be sent first, so that the driver sends it now; what has arrived last, so that it is handed on now.
        if woken & WRITER != 0 {
            poll_slot(writer, &self.wakers.writer);
        }
        let meanwhile = self.wakers.take();
        if (woken | meanwhile) & DRIVER != 0 {
            self.pace.begin_turn();
            let driving = Driving::begin();
            let done = poll_slot(&mut self.driver, &self.wakers.driver);
            drop(driving);
            if done {
                *writer = None;
            }
        }
        let later = self.wakers.take();
        if (woken | meanwhile | later) & READER != 0 {
            poll_slot(reader, &self.wakers.reader);
        }
        // Woken after its turn: in the next round.
        self.fresh |= (meanwhile & WRITER) | (later & (WRITER | DRIVER));
        // What the driver asks of itself does not count, so it is said here that it may have more to take.
        if self.pace.take_poll_due() || self.pace.is_sated() || !has_budget_remaining() {
            self.fresh |= DRIVER;
        }
        // Once the driver is done, the reader still hands on what has arrived.
        self.driver.is_none() && reader.is_none()
    }
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
                    this.fresh |= WRITER | READER;
                }
                None => slot.waker = Some(cx.waker().clone()),
            }
        }
        this.wakers.register(cx.waker());
        for _ in 0..ROUNDS {
            let woken = this.wakers.take() | std::mem::take(&mut this.fresh);
            if woken != 0 && this.round(woken) {
                return Poll::Ready(());
            }
            if this.fresh == 0 && this.wakers.leave() {
                return Poll::Pending;
            }
            if this.pace.is_sated() || !has_budget_remaining() {
                // Now it is the application's turn.
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Polls what is still running. Returns whether it is done.
fn poll_slot(future: &mut Option<BoxFuture<()>>, waker: &Waker) -> bool {
    if let Some(running) = future
        && running.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
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
        self.mailbox.lost("the connection stopped by itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_driver_is_paced() {
        let runtime = LinkRuntime::new(Mailbox::new(), Duration::from_secs(2), None);
        runtime.pace().hurry();
        runtime.pace().rouse();
        let wish = Duration::from_millis(100);
        let start = Instant::now();
        runtime.sleep(wish).await;
        assert_eq!(start.elapsed(), wish, "closing a connection takes its time");
        let driving = Driving::begin();
        let paced = runtime.sleep(wish);
        drop(driving);
        let start = Instant::now();
        paced.await;
        assert!(start.elapsed() < wish);
    }
}
