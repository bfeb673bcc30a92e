//! URLs, credentials, and the way to the socket of a directory.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;
use tokio_tungstenite::tungstenite::http::Uri;
use zeroize::Zeroizing;

use super::error::LoginError;
use crate::protocol::directory::PATH;
use crate::transport::websocket::{Authorization, Dialler, Socket};

/// From the first byte until everybody who is there is known.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest text of a directory, in bytes: enough to name as many peers as are kept. A larger one ends the connection.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Until a lost directory is dialled again: at first and at most. After a login that has held for the latter it begins anew.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A name and a password. They are wiped from memory when dropped, and not shown; the system and the layers below may have copies of
/// what was sent. The crate `tungstenite` shows it in its log at the level of `TRACE`, which should stay off.
#[derive(Clone)]
pub struct Credentials {
    name: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    /// The name of an account, and its password.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: Zeroizing::new(name.into()), password: Zeroizing::new(password.into()) }
    }

    pub(super) fn change_password(&mut self, password: &str) {
        self.password = Zeroizing::new(password.to_owned());
    }

    #[cfg(test)]
    pub(super) fn has(&self, password: &str) -> bool {
        *self.password == password
    }

    pub(super) fn check(&self) -> Result<(), LoginError> {
        if self.name.is_empty() || self.name.contains(':') { Err(LoginError::InvalidName) } else { Ok(()) }
    }

    /// As HTTP's header has it.
    fn basic(&self) -> Authorization {
        Authorization::basic(&self.name, &self.password)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// The URL of a directory, with its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DirectoryUrl(String);

impl DirectoryUrl {
    /// Reads what an application has given. Without a path it is the directory's.
    ///
    /// # Errors
    ///
    /// [`LoginError::InvalidUrl`], and [`LoginError::Plaintext`] if that is not allowed and a password would cross a network.
    pub(super) fn parse(url: &str, allow_plaintext: bool) -> Result<Self, LoginError> {
        let invalid = |why: &str| LoginError::InvalidUrl(why.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid("it cannot be read"))?;
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(invalid("it has no host"));
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            // It is shown, and a secret must not be.
            return Err(invalid("it has a name, a password or a query"));
        }
        let is_plain = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => true,
            Some("wss") => false,
            _ => return Err(invalid("it begins neither with ws:// nor with wss://")),
        };
        if is_plain && !allow_plaintext && !is_loopback(host) {
            return Err(LoginError::Plaintext);
        }
        let scheme = if is_plain { "ws" } else { "wss" };
        let path = if matches!(uri.path(), "" | "/") { PATH } else { uri.path() };
        Ok(Self(format!("{scheme}://{authority}{path}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Logs in.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub(super) async fn dial(&self, dialler: &Dialler, credentials: &Credentials) -> Result<Socket, LoginError> {
        let authorization = credentials.basic();
        let dialled = dialler.dial_as(Some(&authorization), &self.0, &[], MAX_MESSAGE_BYTES);
        let (socket, _) = timeout(LOGIN_TIMEOUT, dialled).await.map_err(|_| LoginError::TimedOut)??;
        Ok(socket)
    }
}

/// Whether the host of a URL is this machine, to which a password may go in the clear: `localhost`, or a loopback address, which may be
/// in brackets. No name is looked up.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// When a lost directory is dialled again: after twice as long each time, from a second to a minute, and not all sessions at once. Good
/// for onramps too. Pure.
#[derive(Debug)]
pub struct Backoff(Duration);

/// Begins with short pauses.
impl Default for Backoff {
    fn default() -> Self {
        Self(PAUSE.0)
    }
}

impl Backoff {
    /// A login, or a connection, is lost that has held for so long. After a minute pauses are short again.
    pub fn lost(&mut self, held: Duration) {
        if held >= PAUSE.1 {
            *self = Self::default();
        }
    }

    /// The next pause, of a random number between 0 and 1. The server may have said when to come again: an hour at most is kept to.
    pub fn next(&mut self, random: f64, retry_after: Option<Duration>) -> Duration {
        let pause = self.0.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.0 = (2 * self.0).min(PAUSE.1);
        // Whatever it says, not never.
        pause.max(retry_after.unwrap_or_default().min(Duration::from_secs(3600)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<String, LoginError> {
        DirectoryUrl::parse(url, false).map(|url| url.0)
    }

    #[test]
    fn a_url_has_the_directorys_path_if_it_has_none() {
        for (url, full) in [
            ("wss://example.org", "wss://example.org/directory"),
            ("wss://example.org:8443/", "wss://example.org:8443/directory"),
            ("WSS://example.org/mesh/people", "wss://example.org/mesh/people"),
            ("ws://localhost:20500", "ws://localhost:20500/directory"),
            ("ws://127.1.2.3:1", "ws://127.1.2.3:1/directory"),
            ("ws://[::1]:20500", "ws://[::1]:20500/directory"),
        ] {
            assert_eq!(parse(url), Ok(full.to_owned()));
        }
        for bad in
            ["", "example.org", "http://localhost", "ws://", "ws://a:b@localhost", "ws://localhost/?token=x", "/x"]
        {
            assert!(matches!(parse(bad), Err(LoginError::InvalidUrl(_))), "{bad}");
        }
    }

    #[test]
    fn a_password_crosses_no_network_in_the_clear_by_accident() {
        for url in ["ws://example.org", "ws://192.168.1.1", "ws://localhost.example.org", "ws://[2001:db8::1]"] {
            assert_eq!(parse(url), Err(LoginError::Plaintext), "{url}");
            assert!(DirectoryUrl::parse(url, true).is_ok());
        }
    }

    #[test]
    fn credentials_are_not_shown_and_are_as_in_http() {
        let credentials = Credentials::new("Aladdin", "open sesame");
        assert_eq!(credentials.basic().as_str(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{credentials:?}"), "Credentials");
        assert_eq!(Credentials::new("ä", "€:😀").basic().as_str(), "Basic w6Q64oKsOvCfmIA=");
        for name in ["", "a:b"] {
            assert_eq!(Credentials::new(name, "x").check(), Err(LoginError::InvalidName));
        }
    }

    #[test]
    fn a_lost_directory_is_dialled_more_and_more_seldom() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|n| backoff.next(f64::from(n % 2), None).as_millis()).collect();
        assert_eq!(pauses, [500, 2000, 2000, 8000, 8000, 32_000, 30_000, 60_000]);
        backoff.lost(Duration::from_millis(59_999));
        assert_eq!(backoff.next(1.0, None).as_secs(), 60, "it flaps");
        backoff.lost(Duration::from_secs(60));
        assert_eq!(backoff.next(1.0, None).as_secs(), 1);
        assert_eq!(Backoff::default().next(1.0, Some(Duration::from_secs(90))).as_secs(), 90);
        assert_eq!(Backoff::default().next(0.0, Some(Duration::MAX)).as_secs(), 3600);
    }
}
