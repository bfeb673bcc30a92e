use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

use super::Onramp;
use super::accounts::Accounts;
use super::hub::Limits;
use super::members::AccountOptions;
use super::rate::Rate;
use super::serve::{Options, Shared};

/// Connections that the operating system may hold before they are accepted.
const BACKLOG: u32 = 4096;

/// The options of an [`Onramp`], and what happens at each bound.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is bound"]
pub struct Builder {
    announce: bool,
    max_frame_bytes: usize,
    max_connections: usize,
    max_logins: usize,
    frames_per_second: u32,
    burst: u32,
    queue_frames: usize,
    queue_bytes: usize,
    total_queue_bytes: usize,
    stall_timeout: Duration,
    handshake_timeout: Duration,
    ping_interval: Option<Duration>,
    accounts: Option<Accounts>,
    account_options: AccountOptions,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            announce: true,
            max_frame_bytes: 1024 * 1024,
            max_connections: 20_000,
            max_logins: 100,
            frames_per_second: 200,
            burst: 1000,
            queue_frames: 1024,
            queue_bytes: 2 * 1024 * 1024,
            total_queue_bytes: 256 * 1024 * 1024,
            stall_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Some(Duration::from_secs(30)),
            accounts: None,
            account_options: AccountOptions {
                origins: Vec::new(),
                trusts_forwarded: false,
                login_timeout: Duration::from_secs(30),
                refresh_interval: Duration::from_secs(30),
            },
        }
    }
}

impl Builder {
    /// Whether peers are told who is here, who comes, and (on `pmesh.1`) who leaves. Default: yes.
    ///
    /// Without, peers have to learn each other's addresses elsewhere; an address is then a secret of its owner and
    /// of those it told.
    pub fn announce(mut self, announce: bool) -> Self {
        self.announce = announce;
        self
    }

    /// Largest message accepted from a peer, in bytes of payload. Default: 1 MiB.
    ///
    /// A peer that sends a larger one is closed with code 1009.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = bytes;
        self
    }

    /// Most peers connected at a time. Default: 20,000.
    ///
    /// Further ones are answered with HTTP 503. Each takes a file descriptor. 1,024 further connections may be
    /// open before it is known what they want; beyond those, connections are closed unanswered, of the address that has most of them.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Switches accounts on: who connects must log in, and meets those that it trusts. Default: none, the open mode.
    ///
    /// See [the module](super#accounts) for what changes. The options below are for onramps with accounts.
    pub fn accounts(mut self, accounts: Accounts) -> Self {
        self.accounts = Some(accounts);
        self
    }

    /// Most sessions of one account at a time. Default: 100. Further logins are answered with HTTP 429.
    pub fn max_logins(mut self, logins: usize) -> Self {
        self.max_logins = logins;
        self
    }

    /// Web pages of these origins, such as `https://app.example`, may log in too. Default: only those of the onramp's own host and port.
    ///
    /// Those may be of `http` and of `https`, since a proxy may have taken TLS off. Whoever can alter pages that come without TLS could
    /// then use one to log in where users do so with TLS: a proxy should say by `X-Forwarded-Proto` what it was, see
    /// [`trust_forwarded`](Self::trust_forwarded).
    ///
    /// Others are answered with HTTP 403, and so are pages without an origin of their own. What is no browser sends no origin, and may
    /// always log in.
    pub fn allow_origins(mut self, origins: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.account_options.origins = origins.into_iter().map(|origin| origin.as_ref().to_owned()).collect();
        self
    }

    /// Whether the last entry of the header `X-Forwarded-For` is believed to be the client's address, and that of `X-Forwarded-Proto` to be
    /// how the client came: only pages of the same scheme are of the onramp's own origin then. Default: no.
    ///
    /// Only for an onramp that is reached through a proxy alone, such as one for TLS: else anybody could claim any address, and be
    /// throttled as somebody else is. There it is needed: all who come through the proxy are one address otherwise, and whoever sends
    /// ten wrong passwords for an account keeps its owner out for half a minute.
    pub fn trust_forwarded(mut self, trust: bool) -> Self {
        self.account_options.trusts_forwarded = trust;
        self
    }

    /// How long a login may take, once its request is here. Default: 30 seconds. Then it is answered with HTTP 503.
    pub fn login_timeout(mut self, timeout: Duration) -> Self {
        self.account_options.login_timeout = timeout;
        self
    }

    /// How often the accounts that are logged in are read again. At least a millisecond. Default: every 30 seconds.
    ///
    /// What is changed through the same [`Accounts`] takes effect at once; what other processes do to the same database, then.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.account_options.refresh_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Messages of any kind, pings included, that a peer may send for each second in the long run. 0 means no limit.
    /// Default: 200.
    ///
    /// A peer that sends faster is read more slowly: the onramp stops reading its connection until it is within its
    /// rate, and TCP passes that on to the sender. No frame is lost and no peer is disconnected, since a peer that
    /// finds a thousand others and calls them all is no attacker; and one that is gains nothing by it.
    pub fn frames_per_second(mut self, frames: u32) -> Self {
        self.frames_per_second = frames;
        self
    }

    /// Messages that a peer may send at once, after a rest. At least 1. Default: 1,000.
    pub fn burst(mut self, frames: u32) -> Self {
        self.burst = frames;
        self
    }

    /// Frames that may wait for one peer. At least 1. Default: 1,024. Announcements do not count.
    ///
    /// A frame for a peer whose queue is full is dropped, and its sender told `busy` if it speaks `pmesh.1`. The
    /// peer stays: otherwise anybody could have it disconnected by sending faster than its line takes.
    pub fn queue_frames(mut self, frames: usize) -> Self {
        self.queue_frames = frames.max(1);
        self
    }

    /// Bytes that may wait for one peer. Default: 2 MiB. One frame may always wait, whatever its size.
    ///
    /// Beyond, the same happens as at [`queue_frames`](Self::queue_frames).
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Bytes that may wait for all peers together. Default: 256 MiB.
    ///
    /// Beyond, the same happens as at [`queue_frames`](Self::queue_frames).
    pub fn total_queue_bytes(mut self, bytes: usize) -> Self {
        self.total_queue_bytes = bytes;
        self
    }

    /// How long a peer may take nothing of what is to be sent to it. Default: 10 seconds.
    ///
    /// Then it is disconnected, without a close frame: it would not read it.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How long a client may take for its HTTP request, whose head may have 8 KiB. Default: 10 seconds.
    ///
    /// Then it is answered with HTTP 408. A larger head is answered with 431.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How often peers are pinged. None switches pings off. Default: every 30 seconds.
    ///
    /// A peer from which nothing came for three intervals, that is after two unanswered pings, is disconnected.
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.ping_interval = interval.into();
        self
    }

    /// Binds to all addresses that `addr` resolves to: `localhost` is most often two.
    ///
    /// Addresses that this machine does not have are passed over, as long as one is left. With port 0 the system
    /// chooses a port, the same for all addresses.
    ///
    /// # Errors
    ///
    /// If the name does not resolve, if an address is in use or may not be used, or if none is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases what was bound.
    pub async fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Onramp> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut passed_over = io::Error::new(ErrorKind::AddrNotAvailable, "the name resolves to no address");
        for mut address in lookup_host(addr).await? {
            let chosen = addresses.first().map(SocketAddr::port).filter(|_| address.port() == 0);
            address.set_port(chosen.unwrap_or(address.port()));
            if addresses.contains(&address) {
                continue;
            }
            match listen(address) {
                Ok(listener) => {
                    addresses.push(listener.local_addr()?);
                    listeners.push(listener);
                }
                // A port that was chosen for another address may be taken here.
                Err(error) if absent(&error) || chosen.is_some() => {
                    tracing::warn!(%address, %error, "not listening here");
                    passed_over = error;
                }
                Err(error) => return Err(error),
            }
        }
        if listeners.is_empty() {
            return Err(passed_over);
        }
        Ok(Onramp { listeners, addresses, shared: Arc::new(self.shared()) })
    }

    fn shared(self) -> Shared {
        let limits = Limits {
            announce: self.announce,
            max_connections: self.max_connections,
            max_logins: self.max_logins,
            rate: Rate::new(self.frames_per_second, self.burst),
            queue_frames: self.queue_frames,
            queue_bytes: self.queue_bytes,
            total_queue_bytes: self.total_queue_bytes,
        };
        let options = Options {
            max_frame_bytes: self.max_frame_bytes,
            handshake_timeout: self.handshake_timeout,
            stall_timeout: self.stall_timeout,
            ping_interval: self.ping_interval,
        };
        let account_options = self.account_options;
        Shared::new(limits, options, self.accounts.map(|accounts| (accounts, account_options)))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As the standard library does, so that a restart need not wait for old connections.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The machine has no such address, or no such kind of address.
fn absent(error: &io::Error) -> bool {
    let kinds = [ErrorKind::AddrNotAvailable, ErrorKind::Unsupported];
    kinds.contains(&error.kind()) || error.to_string().contains("Address family not supported")
}
