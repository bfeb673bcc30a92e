//! Accepts connections, gives each a task, and ends them all.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Stats;
use super::accounts::Accounts;
use super::connection::{Bell, CLOSE_TIMEOUT};
use super::hub::{Hub, Limits};
use super::members::{AccountOptions, Members};
use super::undecided::{Place, Undecided};
use super::{door, open};
use crate::lock::lock;

/// Connections that may be open beyond the allowed peers: requests that are not decided, and answers underway.
/// Beyond, connections are closed unanswered, of the address that has most of them.
const UNDECIDED: usize = 1024;

/// Pause after an error of accepting, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause before the watch over accounts begins anew: what has ended it may do so again.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// What connections need beside the hub.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) max_frame_bytes: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) ping_interval: Option<Duration>,
}

/// What all connections share.
pub(super) struct Shared {
    hub: Mutex<Hub<Arc<Bell>>>,
    /// With accounts. The hub is empty then.
    members: Option<Arc<Members>>,
    pub(super) options: Options,
    max_sockets: usize,
    undecided: Arc<Undecided>,
    closing: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(limits: Limits, options: Options, accounts: Option<(Accounts, AccountOptions)>) -> Self {
        let members = accounts.map(|(accounts, options)| Arc::new(Members::new(accounts, limits.clone(), options)));
        Self {
            max_sockets: limits.max_connections.saturating_add(UNDECIDED),
            members,
            undecided: Arc::default(),
            hub: Mutex::new(Hub::new(limits)),
            options,
            closing: watch::Sender::new(false),
        }
    }

    /// Works on the hub, and then, without its lock, rings the bells that this asked for.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Hub<Arc<Bell>>, &mut Vec<Arc<Bell>>) -> T) -> T {
        let mut bells = Vec::new();
        let result = work(&mut lock(&self.hub), &mut bells);
        for bell in bells {
            bell.ring();
        }
        result
    }

    /// A place for one more connection beside these, if there is one or another gives one up.
    fn place(&self, from: IpAddr, connections: usize) -> Option<Place> {
        let is_room = connections < self.max_sockets;
        if !is_room {
            // This one or another.
            self.refused(true);
        }
        // Those that give one up may take a moment to go.
        let is_bearable = connections < self.max_sockets.saturating_add(UNDECIDED);
        is_bearable.then(|| self.undecided.enter(from, is_room))?
    }

    /// Counts a connection that did not become a peer.
    pub(super) fn refused(&self, full: bool) {
        match &self.members {
            Some(members) => members.with(|hub, _| hub.refused(full)),
            None => self.with(|hub, _| hub.refused(full)),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match &self.members {
            Some(members) => members.with(|hub, _| hub.stats()),
            None => self.with(|hub, _| hub.stats()),
        }
    }

    fn close(&self) {
        self.closing.send_replace(true);
        match &self.members {
            Some(members) => members.with(|hub, bells| hub.close(bells)),
            None => self.with(|hub, bells| hub.close(bells)),
        }
    }

    /// Becomes true when the onramp shuts down.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}

/// Serves until `shutdown` completes, and then sends everybody away.
pub(super) async fn serve(listeners: Vec<TcpListener>, shared: Arc<Shared>, shutdown: impl Future) {
    let mut tasks = JoinSet::new();
    let mut watch = JoinSet::new();
    if let Some(members) = &shared.members {
        // From before anybody can log in.
        follow(&mut watch, members.clone(), Duration::ZERO);
    }
    let mut shutdown = pin!(shutdown);
    let mut turn = 0;
    loop {
        tokio::select! {
            _ = &mut shutdown => break,
            Some(_) = tasks.join_next() => {}
            Some(ended) = watch.join_next() => {
                tracing::error!(?ended, "the watch over accounts has ended; it begins anew");
                if let Some(members) = &shared.members {
                    follow(&mut watch, members.clone(), WATCH_PAUSE);
                }
            }
            accepted = accept(&listeners, &mut turn) => match accepted {
                Ok((tcp, from)) => {
                    let Some(place) = shared.place(from, tasks.len()) else { continue };
                    // Frames are written in batches already: waiting for more would only delay them.
                    let _ = tcp.set_nodelay(true);
                    match &shared.members {
                        Some(members) => tasks.spawn(door::serve(shared.clone(), members.clone(), place, tcp)),
                        None => tasks.spawn(open::serve(shared.clone(), place, tcp)),
                    };
                }
                Err(error) => tracing::warn!(%error, "cannot accept connections"),
            },
        }
    }
    drop(listeners);
    tracing::info!(connections = tasks.len(), "shutting down");
    shared.close();
    // Every connection ends by its own timeout; this one is for a runtime that is overloaded.
    let _ = timeout(2 * CLOSE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

/// Follows what happens to accounts from now on, first after a pause.
fn follow(watch: &mut JoinSet<()>, members: Arc<Members>, pause: Duration) {
    let changes = members.accounts.subscribe();
    watch.spawn(async move {
        sleep(pause).await;
        members.watch(changes).await;
    });
}

/// The next connection of any listener. After an error it waits a little. Cancel-safe.
async fn accept(listeners: &[TcpListener], turn: &mut usize) -> io::Result<(TcpStream, IpAddr)> {
    let accepted = poll_fn(|cx| {
        for _ in listeners {
            *turn = (*turn + 1) % listeners.len();
            if let Poll::Ready(accepted) = listeners[*turn].poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    });
    match accepted.await {
        Ok((tcp, from)) => Ok((tcp, from.ip().to_canonical())),
        Err(error) => {
            sleep(ACCEPT_PAUSE).await;
            Err(error)
        }
    }
}
