//! The onramp: the WebSocket server where peers meet, as a library.
//!
//! An onramp gives every connection a random address, tells peers of each other, and relays what one sends to
//! another. It speaks the protocol of the original onramp (subprotocol `p`), and on the subprotocol `pmesh.1` also
//! tells a peer its own address, who left, and which frames could not be delivered. Once peers have connected to
//! each other they need it no more.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use pmesh::onramp::Onramp;
//!
//! let onramp = Onramp::bind("127.0.0.1:0").await?;
//! println!("peers may connect to {}", onramp.url());
//! let handle = onramp.handle();
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let server = tokio::spawn(onramp.run(stopped));
//!
//! assert_eq!(handle.stats().open, 0);
//! drop(stop);
//! server.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does with what it gets
//!
//! | from a client | happens |
//! |---|---|
//! | `[6, to, payload]` | arrives at `to` as `[7, from, payload]`, byte by byte; relaying to oneself works |
//! | the same, `to` not here | nothing on `p`; `[17, to, "unknown"]` back on `pmesh.1` |
//! | the same, the queue of `to` is full | dropped; `[17, to, "busy"]` back on `pmesh.1` |
//! | any other frame, text that is no frame, binary | counted and ignored |
//! | a frame above [`max_frame_bytes`](Builder::max_frame_bytes) | close 1009 |
//! | faster than [`frames_per_second`](Builder::frames_per_second) | reading pauses: nothing is lost |
//! | text that is not UTF-8, or no WebSocket frames at all | close 1007, close 1002 |
//! | it stops reading | its queue fills, then frames to it are dropped; after [`stall_timeout`](Builder::stall_timeout) it is disconnected |
//! | an upgrade without subprotocol `p` or `pmesh.1`, or with a body | HTTP 400 |
//! | a plain HTTP GET or HEAD | 200 and a line of text; other methods 405 |
//! | an upgrade above [`max_connections`](Builder::max_connections) | HTTP 503 |
//! | an upgrade while the onramp shuts down | closed without an answer |
//!
//! # Accounts
//!
//! With [`Builder::accounts`] whoever connects must log in, and meets only the peers of those whom it trusts, and its own. Nobody
//! else's are shown, and nothing reaches them: who is not trusted, who is not here and who never was look the same.
//!
//! | request | is |
//! |---|---|
//! | an upgrade at `/directory` | a session of the directory, which speaks the protocol of BoneValue (p2p-platform); it needs no subprotocol |
//! | an upgrade elsewhere, with `p` or `pmesh.1` | a peer as in the open mode, but of its own circle |
//! | `POST /login`, `{"name", "password"}` or HTTP Basic | `{"token", "expiresIn"}`: a token by which one logs in for some minutes, as a browser must |
//! | `POST /invite`, `{"invite", "name", "password"}` | an account for who was invited, or `{"code", "message"}` |
//!
//! `GET /invite` is a page for browsers that does so: a link to it with the invitation behind a `#`, `https://HOST/invite#INVITE`, is one that
//! works once. Browsers send what is there to nobody.
//!
//! Upgrades say who they are by HTTP Basic or a bearer token in `Authorization`, by a token as the parameter `token` of the query or as the
//! subprotocol `bearer.TOKEN` (browsers need a second one that is answered: `pmesh.directory.1`), or by the cookies `uun` and `ppz` of
//! the original; the first of them counts. Without any the answer is 401, with wrong ones 403, with too many wrong ones or as too many sessions
//! 429, and 503 while too many log in at once. Web pages may log in from the onramp's own host and from
//! [`allow_origins`](Builder::allow_origins). There is no TLS: put a proxy in front, and see
//! [`trust_forwarded`](Builder::trust_forwarded), also for which pages are of its own host.
//!
//! | from a session of the directory | happens |
//! |---|---|
//! | `peerRequest`, `peerResponse` to a peer that it may reach | arrives there as it is |
//! | the same to another number | nothing; with an `id` the error `unreachable` |
//! | the same from a number not its own, or between others | counted; with an `id` the error `forged` |
//! | the same, too much waits there | dropped; with an `id` the error `busy` |
//! | `requestToken`, `claimToken`, `revokeTrust`, `changePassword`, `deleteAccount` | is done, one after the other, and answered; reading pauses meanwhile |
//! | `inviteUser`, `listTrusted` | `{"invite", "expiresIn"}`, aliases. Without an `id` they are refused: the original has no answer that could hold an invitation |
//! | what is none of these | counted; with an `id` the error `malformed` |
//! | too many announcements left unread (8,192), or nothing taken for [`stall_timeout`](Builder::stall_timeout) | it is disconnected: what a session was told is always what is so |
//!
//! Who claims or revokes has been told what changes before the answer; all sessions of the other side are told at the same time. Sessions
//! end with close code 4001 when their account is deleted or deactivated, or gets another password. What is changed through the same
//! [`Accounts`](accounts::Accounts) takes effect at once, what other processes do to the same database within
//! [`refresh_interval`](Builder::refresh_interval).
//!
//! # Announcements
//!
//! Unless [switched off](Builder::announce), a newcomer gets `[0, address]` for every peer present, oldest first,
//! and each of them gets the newcomer's. Peers on `pmesh.1` get `[16, address]` with their own address before
//! anything else, and `[18, address]` when a peer leaves. Who comes is announced before anything it relays arrives,
//! and who leaves after that.
//!
//! # Memory
//!
//! An idle connection costs less than 3 KiB (10,000 of them, release build, 64-bit Linux), announcements or not: those are
//! not queued, but computed when they can be written. A connection that once carried a large frame keeps WebSocket
//! buffers of that size, [`max_frame_bytes`](Builder::max_frame_bytes) at most in each direction, until it ends.

pub mod accounts;
mod agenda;
mod connection;
mod credentials;
mod door;
mod hub;
mod line;
mod members;
mod open;
mod options;
mod rate;
mod serve;
mod session;
mod stats;
mod undecided;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, ToSocketAddrs};

pub use options::Builder;
use serve::Shared;
pub use stats::Stats;

/// A signalling server that is bound to its addresses and not yet running.
///
/// Connections are accepted by the operating system from the moment of binding, and served while [`run`](Self::run)
/// runs. Dropping an onramp releases the addresses.
pub struct Onramp {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// Looks at an onramp from outside, while it runs and after it. Cheap to clone; does not keep it running.
#[derive(Clone)]
pub struct OnrampHandle {
    shared: Arc<Shared>,
}

impl Onramp {
    /// An onramp with other than the default options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Binds an onramp with the default options. See [`Builder::bind`].
    ///
    /// # Errors
    ///
    /// Those of [`Builder::bind`].
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::builder().bind(addr).await
    }

    /// The first address that it listens on. If it was bound to port 0, this has the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses that it listens on: one or more. They have the same port.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The URL for peers on this machine: `ws://` and [`local_addr`](Self::local_addr).
    pub fn url(&self) -> String {
        format!("ws://{}", self.local_addr())
    }

    /// A handle to read the counters while the onramp runs.
    pub fn handle(&self) -> OnrampHandle {
        OnrampHandle { shared: self.shared.clone() }
    }

    /// Serves until `shutdown` completes, whatever its output.
    ///
    /// Then it stops to listen, sends every peer a close frame with code 1001, and waits at most two seconds for
    /// their answers. What was queued for peers is not delivered any more.
    ///
    /// Errors of single connections end those. Errors of accepting, such as a lack of file descriptors, are
    /// logged, and accepting is tried again 50 milliseconds later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes everything at once, without close frames. It must be polled in a tokio runtime
    /// with IO and time enabled.
    pub async fn run(self, shutdown: impl Future) {
        serve::serve(self.listeners, self.shared, shutdown).await;
    }
}

impl OnrampHandle {
    /// The counters of this moment. Takes the lock that relaying takes, for a moment.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

impl fmt::Debug for Onramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Onramp").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl fmt::Debug for OnrampHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnrampHandle").field("stats", &self.stats()).finish()
    }
}
