//! How a command gets into an overlay, and reaches a peer there.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pmesh::directory::Backoff;
use pmesh::overlay::routing::KademliaConfig;
use pmesh::overlay::routing::chord::ChordConfig;
use pmesh::overlay::stream::{DialError, Stream};
use pmesh::overlay::{Overlay, OverlayEvent, OverlayId, PeerRelayCompat};
use pmesh::{Connect, ConnectError, Node, Root};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::args::{Compat, MeshArgs, Routing};
use crate::output::{Unread, note};
use crate::reason::{of_onramp, told_bootstrap, wants_login};
use crate::stop::{Stopped, stopped};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Peers of an onramp that are dialled at once for a way into the overlay. The others are found through them.
const DIALS: usize = 8;
/// Addresses that wait to be dialled. At it, the oldest is forgotten.
const MAX_SPARE: usize = 256;
/// Neighbours that are enough to begin with.
const ENOUGH: usize = 3;
/// Different things that are said of ways into the overlay. At it, no more are.
const MAX_SAID: usize = 64;

/// How long one attempt to dial may take: the first, and the longest. Short at first, as the first packets of an attempt
/// are lost where there is no route yet.
const ATTEMPT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(16));
/// How long to wait until a peer is dialled again that was busy.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the overlay of a root.
pub(crate) async fn start(root: &Root, args: &MeshArgs) -> Result<Overlay> {
    let builder = Overlay::builder(root);
    let builder = match args.overlay.unwrap_or(Routing::Kademlia) {
        Routing::Kademlia => builder.kademlia(KademliaConfig::default()),
        Routing::Chord => builder.chord(ChordConfig::default()),
    };
    let builder = args.bootstrap.iter().fold(builder, |builder, url| builder.bootstrap(url));
    let builder = match args.compat {
        None => builder,
        Some(Compat::PeerRelay) => {
            let mut compat = PeerRelayCompat::default();
            compat.bootstrap.clone_from(&args.original);
            builder.compat_peer_relay(compat)
        }
    };
    let builder = match &args.listen {
        None => builder,
        Some(place) => {
            let found = lookup_host(place).await.map(|mut addresses| addresses.next());
            let found = found.map_err(|error| format!("cannot listen at {place}: {error}"))?;
            builder.listen(found.ok_or_else(|| format!("cannot listen at {place}: it has no address"))?)
        }
    };
    Ok(builder.start().await?)
}

/// A part in an overlay that ends with the command.
pub(crate) struct Joined {
    pub(crate) root: Root,
    pub(crate) overlay: Overlay,
    ways: Ways,
    /// What goes on in the background.
    tasks: JoinSet<()>,
}

impl Joined {
    /// Begins to get into the overlay: by whoever listens, begins at others, or is announced by an onramp. Waits for none of them. What is
    /// wrong with them is said on standard error, after who this peer is, or while a peer is looked for.
    pub(crate) async fn new(args: &MeshArgs) -> Result<Self> {
        if args.onramp.is_empty() && args.bootstrap.is_empty() && args.listen.is_none() {
            return Err("there is no way into the overlay: say --bootstrap, --onramp or --listen".into());
        }
        let onramps = args.onramps()?;
        let root = args.root()?.build();
        let overlay = start(&root, args).await?;
        let others = !args.bootstrap.is_empty() || !args.original.is_empty() || args.listen.is_some();
        let ways = Ways::new(onramps.len() + usize::from(others));
        let mut tasks = JoinSet::new();
        for (url, connect) in onramps {
            tasks.spawn(meet_at(root.clone(), url, connect, overlay.clone(), ways.clone()));
        }
        tasks.spawn(listen_for_wrong_ways(overlay.clone(), ways.clone()));
        Ok(Self { root, overlay, ways, tasks })
    }

    /// Does something in the overlay, as long as there may be a way into it and the command is not told to stop.
    pub(crate) async fn run<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = what => done,
            () = stopped() => Err(Stopped.into()),
            () = self.ways.closed() => Err(self.ways.why("there is no way into the overlay").into()),
        }
    }

    /// Says no more of ways into the overlay.
    pub(crate) fn hush(&self) {
        self.ways.hush();
    }

    /// Says on standard error who this peer is, and where it listens; then what is wrong with ways into the overlay.
    pub(crate) fn introduce(&self) {
        note!("{}", self.overlay.id());
        if let Some(address) = self.overlay.local_addr() {
            note!("listening for neighbours at ws://{address}");
        }
        self.ways.speak();
    }

    /// A stream to a service of a peer. Tries until there is a way to it, and it has time for us; says so if it takes long.
    pub(crate) async fn dial(&self, to: OverlayId, service: &str, until: Instant) -> Result<Stream> {
        self.ways.speak();
        if timeout_at(until, self.neighbour()).await.is_err() {
            return Err(self.ways.why("nobody was met in time, so there is no way into the overlay").into());
        }
        let (mut attempt, mut waits) = (ATTEMPT.0, false);
        loop {
            let soon = (Instant::now() + attempt).min(until);
            let dialled = timeout_at(soon, self.overlay.dial(to, service)).await.unwrap_or(Err(DialError::TimedOut));
            let error = match dialled {
                Ok(stream) => {
                    self.hush();
                    return Ok(stream);
                }
                Err(error @ (DialError::TimedOut | DialError::Busy | DialError::Lost | DialError::TooManyPeers)) => {
                    error
                }
                Err(error) => return Err(format!("cannot dial {to}: {error}").into()),
            };
            if Instant::now() >= until {
                return Err(match error {
                    DialError::TimedOut => {
                        format!("{to} does not answer in time: it is not there, or nobody leads to it")
                    }
                    error => format!("cannot dial {to}: {error}"),
                }
                .into());
            }
            if !waits && error == DialError::TimedOut {
                waits = true;
                // As it is if it was ended and is here again: what is sent to it may still go where it was.
                note!("waiting: {to} does not answer yet");
            }
            attempt = (2 * attempt).min(ATTEMPT.1);
            if error != DialError::TimedOut {
                sleep_until((Instant::now() + PAUSE).min(until)).await;
            }
        }
    }

    /// Waits until there is a neighbour.
    async fn neighbour(&self) {
        let mut events = self.overlay.events();
        while self.overlay.neighbours().is_empty() {
            if events.next().await.is_none() {
                return std::future::pending().await;
            }
        }
    }

    /// Ends.
    pub(crate) async fn close(mut self) {
        // They would take it for something wrong.
        self.tasks.shutdown().await;
        self.overlay.close().await;
        self.root.close().await;
    }
}

/// Ways into an overlay, and what is wrong with them.
#[derive(Clone)]
struct Ways(Arc<watch::Sender<State>>);

struct State {
    /// Those that lead to somebody, or may do so yet.
    open: usize,
    /// What was found wrong, each once, and how much of it has been said.
    wrong: Vec<String>,
    said: usize,
    speaks: bool,
    /// What was found wrong last.
    last: Option<String>,
}

impl State {
    fn say(&mut self) {
        if self.speaks {
            self.wrong[self.said..].iter().for_each(|what| note!("{}", shown(what)));
            self.said = self.wrong.len();
        }
    }
}

impl Ways {
    fn new(open: usize) -> Self {
        Self(Arc::new(watch::Sender::new(State { open, wrong: Vec::new(), said: 0, speaks: false, last: None })))
    }

    /// Says what was found wrong so far, and what will be.
    fn speak(&self) {
        self.0.send_modify(|state| {
            state.speaks = true;
            state.say();
        });
    }

    fn hush(&self) {
        self.0.send_modify(|state| state.speaks = false);
    }

    /// Something is wrong with one.
    fn wrong(&self, what: String) {
        self.0.send_modify(|state| {
            if state.wrong.len() < MAX_SAID && !state.wrong.contains(&what) {
                state.wrong.push(what.clone());
                state.say();
            }
            state.last = Some(what);
        });
    }

    /// Something else is to be said of one, now or never.
    fn tell(&self, what: String) {
        if self.0.borrow().speaks {
            note!("{}", shown(&what));
        }
    }

    /// One of them leads nowhere.
    fn close(&self) {
        self.0.send_modify(|state| state.open -= 1);
    }

    /// Waits until none is open.
    async fn closed(&self) {
        // Its sender is here.
        let _ = self.0.subscribe().wait_for(|state| state.open == 0).await;
    }

    /// This, and why if that is known.
    fn why(&self, what: &str) -> String {
        match &self.0.borrow().last {
            None => what.to_owned(),
            Some(last) => format!("{what}: {last}"),
        }
    }
}

/// Learns which URLs to begin at lead to nobody.
async fn listen_for_wrong_ways(overlay: Overlay, ways: Ways) {
    let mut events = overlay.events();
    while let Some(event) = events.next().await {
        match event {
            OverlayEvent::BootstrapFailed { url, why } => {
                ways.wrong(format!("cannot begin at {url}: {}", told_bootstrap(&why)));
            }
            // What is wrong now is told anew.
            OverlayEvent::Lagged(_) => events = overlay.events(),
            _ => {}
        }
    }
}

/// Meets peers at an onramp, if it lets us in, and again after it was lost.
async fn meet_at(root: Root, url: String, connect: Connect, overlay: Overlay, ways: Ways) {
    let mut backoff = Backoff::default();
    let mut onramp = match root.connect(connect.clone()).await {
        Ok(onramp) => onramp,
        Err(error) => {
            ways.wrong(of_onramp(&url, &error));
            return ways.close();
        }
    };
    loop {
        let since = Instant::now();
        meet(&onramp, &overlay).await;
        ways.tell(format!("{url} is lost, and dialled again: {}", onramp.closed().await));
        backoff.lost(since.elapsed());
        onramp = match dial_again(&root, &url, &connect, &ways, &mut backoff).await {
            Ok(onramp) => onramp,
            Err(error) => {
                ways.wrong(of_onramp(&url, &error));
                // Those who were met are a way as long as they are there.
                alone(&overlay).await;
                return ways.close();
            }
        };
        ways.tell(format!("{url} is back"));
    }
}

/// Dials an onramp that was lost until it is there again.
///
/// # Errors
///
/// It does not let us in any more.
async fn dial_again(
    root: &Root,
    url: &str,
    connect: &Connect,
    ways: &Ways,
    backoff: &mut Backoff,
) -> std::result::Result<Node, ConnectError> {
    loop {
        sleep(backoff.next(rand::random(), None)).await;
        match root.connect(connect.clone()).await {
            Err(error) if !is_final(&error) => ways.wrong(of_onramp(url, &error)),
            done => return done,
        }
    }
}

/// Whether an onramp will say the same again, and be bothered by it.
fn is_final(error: &ConnectError) -> bool {
    *error == ConnectError::RootClosed || wants_login(error)
}

/// Waits until there is no neighbour.
async fn alone(overlay: &Overlay) {
    let mut events = overlay.events();
    while !overlay.neighbours().is_empty() && events.next().await.is_some() {}
}

/// Dials peers that an onramp announces, until there are some neighbours, and again when there are none. Returns when it is lost.
async fn meet(onramp: &Node, overlay: &Overlay) {
    let mut announced = onramp.announcements();
    let mut events = overlay.events();
    let mut dials = JoinSet::new();
    let mut spare = VecDeque::new();
    let mut closed = pin!(onramp.closed());
    loop {
        while dials.len() < DIALS
            && overlay.neighbours().len() < ENOUGH
            && let Some(address) = spare.pop_front()
        {
            // Who is no peer of the overlay stays a node without use.
            dials.spawn(onramp.connect(address));
        }
        tokio::select! {
            Some(address) = announced.next() => {
                if spare.len() == MAX_SPARE {
                    spare.pop_front();
                }
                spare.push_back(address);
            }
            Some(_) = dials.join_next() => {}
            _ = &mut closed => break,
            event = events.next() => if event.is_none() {
                break;
            },
        }
    }
    // Some may need it no more.
    dials.detach_all();
}

/// Ends a command: what went wrong goes to standard error. That nobody reads its output any more is nothing wrong.
pub(crate) fn exit(command: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Unread>() => ExitCode::SUCCESS,
        Err(error) => {
            // It may quote what others say.
            note!("pmesh {command}: {}", shown(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// What others say, without anything that a terminal does not show as it is. Quotes stay.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}
