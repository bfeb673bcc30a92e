//! The task of a session: keeps it logged in, and carries texts to and fro.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt, future};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::again::Due;
use super::core::Core;
use super::error::LoginError;
use super::link::FromTree;
use super::login::{Backoff, DirectoryUrl, LOGIN_TIMEOUT};
use super::session::Password;
use crate::node::Events;
use crate::protocol::PeerNumber;
use crate::protocol::directory::ACCOUNT_CLOSED;
use crate::transport::websocket::Socket;

/// Texts that may wait to be sent. At it, requests fail and introductions are busy.
const TEXTS: usize = 256;
/// Pause between pings, so that a directory that died without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence after which a directory counts as dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);
/// How long ending in good order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a session needs to stay logged in.
pub(super) struct Tasks {
    pub(super) core: Arc<Core>,
    pub(super) url: DirectoryUrl,
    pub(super) password: Arc<Password>,
    /// Of the root.
    pub(super) events: Events,
    /// Whether the session is to end.
    pub(super) stop: watch::Receiver<bool>,
    /// Whether the root is the session's own, and ends with it.
    pub(super) owns_root: bool,
}

/// Runs until the session is over. Dropping the future ends everything at once.
pub(super) async fn run(tasks: Tasks, socket: Socket) {
    let Tasks { core, url, password, events, mut stop, owns_root } = tasks;
    let error = {
        let mut stay = pin!(stay(&core, &url, &password, socket, stop.clone()));
        tokio::select! {
            error = &mut stay => error,
            () = core.clone().watch(events) => Some(LoginError::RootClosed),
            () = core.clone().keep_time() => None,
            // The handles are gone, or one of them says so.
            () = stopped(&mut stop) => {
                // What was asked for goes out first.
                let _ = timeout(CLOSE_TIMEOUT, stay).await;
                None
            }
        }
    };
    let made = core.end(error);
    let closing = future::join_all(made.iter().map(|node| async { node.closed().await }));
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    if owns_root {
        core.root.close().await;
    }
}

/// Stays logged in. Ends when the directory has ended the login, or does not take the password any more, and no other password is known,
/// or when it is to stop.
async fn stay(
    core: &Arc<Core>,
    url: &DirectoryUrl,
    password: &Password,
    mut socket: Socket,
    mut stop: watch::Receiver<bool>,
) -> Option<LoginError> {
    let mut backoff = Backoff::default();
    loop {
        let Carried { held, ended } = carry(core, socket, stop.clone()).await;
        backoff.lost(held);
        // Of this crate's directories all say why.
        let ended = ended.filter(|reason| !reason.is_empty());
        // Nor is the directory asked once more: of many sessions of an account that would lock its owner out.
        if let Some(reason) = ended.clone().filter(|_| !password.try_other()) {
            return Some(LoginError::Ended { reason });
        }
        let dialled = tokio::select! {
            dialled = dial_again(core, url, password, &mut backoff) => dialled,
            () = stopped(&mut stop) => return None,
        };
        socket = match (dialled, ended) {
            (Ok(socket), _) => socket,
            (Err(LoginError::WrongPassword), Some(reason)) => return Some(LoginError::Ended { reason }),
            (Err(error), _) => return Some(error),
        };
    }
}

/// Dials until there is a socket, or until the password is known to be wrong.
async fn dial_again(
    core: &Core,
    url: &DirectoryUrl,
    password: &Password,
    backoff: &mut Backoff,
) -> Result<Socket, LoginError> {
    let mut retry_after = None;
    loop {
        sleep(backoff.next(rand::random(), retry_after.take())).await;
        match url.dial(core.root.dialler(), &password.get()).await {
            Err(LoginError::WrongPassword) if password.try_other() => {}
            Ok(socket) => return Ok(socket),
            Err(LoginError::WrongPassword) => return Err(LoginError::WrongPassword),
            Err(LoginError::Throttled { retry_after: at } | LoginError::TooManyLogins { retry_after: at }) => {
                retry_after = at;
            }
            Err(error) => tracing::debug!(%error, "the directory is not there"),
        }
    }
}

/// What has become of a connection.
struct Carried {
    /// How long the session was logged in.
    held: Duration,
    /// If the directory has ended the login: what it says.
    ended: Option<String>,
}

/// Carries texts until the connection is over.
async fn carry(core: &Arc<Core>, socket: Socket, mut stop: watch::Receiver<bool>) -> Carried {
    let (texts, outgoing) = mpsc::channel(TEXTS);
    let (sink, mut stream) = socket.split();
    let mut writing = pin!(write(sink, outgoing));
    core.joining(texts.clone());
    let mut from_tree: Option<FromTree> = None;
    let begun = Instant::now();
    let mut heard = begun;
    let mut ended = None;
    let in_order = loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    heard = Instant::now();
                    if let Some(node) = core.receive(&text) {
                        from_tree = Some(node);
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.filter(|frame| u16::from(frame.code) == ACCOUNT_CLOSED);
                    // It is shown.
                    ended = frame.map(|frame| frame.reason.chars().filter(|c| !c.is_control()).collect());
                    break true;
                }
                Some(Ok(_)) => heard = Instant::now(),
                Some(Err(_)) | None => break false,
            },
            Some((to, payload)) = next(&mut from_tree) => core.introduce(to, &payload),
            Ok(room) = room_when(core.tells_again(), &texts) => core.tell_again(room),
            // It may have been that of an earlier login.
            () = core.cut.notified() => if core.is_cut() { break true },
            () = &mut writing => break false,
            () = sleep_until(heard + SILENCE_LIMIT) => break false,
            () = sleep_until(begun + LOGIN_TIMEOUT), if !core.is_online() => break true,
            () = stopped(&mut stop) => break true,
        }
    };
    let held = if core.is_online() { begun.elapsed() } else { Duration::ZERO };
    core.lost(ended.is_some());
    drop(texts);
    if in_order {
        // What waits is sent, then the end.
        let _ = timeout(CLOSE_TIMEOUT, writing).await;
    }
    Carried { held, ended }
}

/// Waits until the session is to end. Cancel safe.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is no session.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn next(from_tree: &mut Option<FromTree>) -> Option<(PeerNumber, String)> {
    match from_tree {
        Some(node) => node.next().await,
        None => None,
    }
}

/// Waits until it is time, and then for room for one text. Cancel safe.
async fn room_when(
    due: Due,
    texts: &mpsc::Sender<String>,
) -> Result<mpsc::Permit<'_, String>, mpsc::error::SendError<()>> {
    match due {
        // Not even a timer's tick: there may be many.
        Due::Now => {}
        Due::At(at) => sleep_until(at.into()).await,
        Due::Never => std::future::pending().await,
    }
    texts.reserve().await
}

/// Writes texts, and closes the socket in good order when there are no more.
async fn write(mut sink: SplitSink<Socket, Message>, mut texts: mpsc::Receiver<String>) {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            text = texts.recv() => match text {
                Some(text) => sink.send(Message::text(text)).await,
                None => {
                    // The socket may be gone already.
                    let _ = sink.close().await;
                    return;
                }
            },
            _ = ping.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
