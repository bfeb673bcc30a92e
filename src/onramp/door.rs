//! The way into an onramp with accounts: which requests become sessions, and what the others are told.
//!
//! Whoever wants in proves first who it is. Queries and headers hold secrets, so only the status of an answer is logged.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::accounts::{AccountError, Chain, LoginError, StoreError};
use super::connection::{self, Link};
use super::credentials::{Credentials, check_origin, forwarded_for, forwarded_scheme, is_forwarded};
use super::hub::Refusal;
use super::members::{AccountOptions, Members, NotIn};
use super::open;
use super::serve::Shared;
use super::session::Session;
use super::undecided::Place;
use crate::protocol::directory::{DIRECTORY_PROTOCOL, PATH};
use crate::transport::http::{self, Head, Page};
use crate::transport::socket::Socket;
use crate::transport::upgrade::{Site, Upgrade};

/// Most bytes of the body of a request. A larger one is answered with 413.
const MAX_BODY_BYTES: usize = 4096;

const DIRECTORY: Site = Site {
    protocols: &[DIRECTORY_PROTOCOL],
    plain: true,
    hello: "This is a pmesh directory. Connect with a WebSocket.\n",
    no_protocol: "Offer no WebSocket subprotocol, or \"pmesh.directory.1\".\n",
};

const LOGIN: &str = "/login";
const INVITE: &str = "/invite";

/// Serves one accepted TCP connection until it ends. Dropping the future leaves the hub in order.
pub(super) fn serve(
    shared: Arc<Shared>,
    members: Arc<Members>,
    place: Place,
    tcp: TcpStream,
) -> impl Future<Output = ()> {
    connection::serve(Box::pin(place.keep(open(shared, members, tcp))))
}

async fn open(shared: Arc<Shared>, members: Arc<Members>, mut tcp: TcpStream) -> Option<Link<Session>> {
    let mut closing = shared.closing();
    let door = Door { shared, members };
    let opened = tokio::select! {
        opened = door.open(&mut tcp) => opened,
        _ = closing.wait_for(|closing| *closing) => return None,
    };
    let Door { shared, members } = door;
    let page = match opened {
        Ok((session, upgrade, ahead)) => {
            tcp.write_all(upgrade.response().as_bytes()).await.ok()?;
            return Some(Link::new(session, Socket::new(tcp, ahead)).await);
        }
        Err(page) => page,
    };
    shared.refused(page.as_ref().is_some_and(|page| page.status.starts_with("503")));
    let page = page?;
    tracing::debug!(status = page.status, "not a session");
    if ["401", "403", "429"].iter().any(|denied| page.status.starts_with(denied)) {
        members.with(|hub, _| hub.denied());
    }
    tokio::select! {
        () = page.send(tcp) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    None
}

struct Door {
    shared: Arc<Shared>,
    members: Arc<Members>,
}

impl Door {
    /// A session, or the answer to what did not become one: none if the connection has ended.
    async fn open(&self, tcp: &mut TcpStream) -> Result<(Session, Upgrade, Vec<u8>), Option<Page>> {
        let peer = tcp.peer_addr().map_err(|_| None)?.ip();
        let request = async {
            let (head, ahead) = http::head(tcp).await.ok_or(None)?.map_err(Some)?;
            let posts = head.method == "POST" && [LOGIN, INVITE].contains(&head.path());
            // Behind the head of an upgrade there may be frames already.
            let rest = match posts {
                true => http::body(tcp, &head, ahead, MAX_BODY_BYTES).await.ok_or(None)?.map_err(Some)?,
                false => ahead,
            };
            Ok::<_, Option<Page>>((head, Zeroizing::new(rest)))
        };
        let timed = timeout(self.shared.options.handshake_timeout, request).await;
        let (head, rest) = timed.map_err(|_| Some(Page::TIMEOUT))??;
        let forwarded = forwarded_for(&head).filter(|_| self.members.options.trusts_forwarded);
        let from = forwarded.unwrap_or(peer);
        if !self.members.options.trusts_forwarded && is_forwarded(&head, peer) {
            self.warn_of_proxy(peer);
        }
        if [LOGIN, INVITE].contains(&head.path()) && ["POST", "OPTIONS"].contains(&&*head.method) {
            return Err(Some(self.page(&head, &rest, from).await));
        }
        match (head.path(), &*head.method) {
            (INVITE, "GET") => return Err(Some(invitation())),
            (INVITE, "HEAD") => return Err(Some(invitation().without_body())),
            (INVITE, _) => return Err(Some(Page::only("GET, HEAD, POST, OPTIONS"))),
            (LOGIN, _) => return Err(Some(Page::only("POST, OPTIONS"))),
            _ => {}
        }
        let is_directory = head.path() == PATH;
        let upgrade = Upgrade::of(&head, if is_directory { &DIRECTORY } else { &open::SITE })?;
        self.check_origin(&head).map_err(|()| FORBIDDEN_ORIGIN)?;
        let credentials = Credentials::of(&head).ok_or_else(unauthorized)?;
        let peer = (!is_directory).then_some(&upgrade);
        let session = self.bounded(async {
            let account = self.members.log_in(&credentials, from).await.map_err(|error| login_page(&error))?;
            Session::join(&self.shared, &self.members, &account, from, peer).await.map_err(|why| not_in(&why))
        });
        let session = session.await?;
        Ok((session, upgrade, rest.to_vec()))
    }

    /// Once.
    fn warn_of_proxy(&self, proxy: IpAddr) {
        if !self.members.warned_of_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %proxy,
                "requests come through a proxy, and all who use it count as one address: anybody can keep the others out by wrong \
                 passwords, unless the proxy sets X-Forwarded-For itself and is trusted (trust_forwarded, --trust-forwarded)"
            );
        }
    }

    /// Does what hashes passwords: only so much at a time, and for so long.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Page>>) -> Result<T, Page> {
        let _place = self.members.logging_in.try_acquire().map_err(|_| Page::FULL)?;
        timeout(self.members.options.login_timeout, work).await.unwrap_or(Err(Page::FULL))
    }

    fn check_origin<'a>(&self, head: &'a Head) -> Result<Option<&'a str>, ()> {
        let AccountOptions { origins, trusts_forwarded, .. } = &self.members.options;
        check_origin(head, origins, forwarded_scheme(head).filter(|_| *trusts_forwarded))
    }

    /// What is answered to a request that does not want to become a session.
    async fn page(&self, head: &Head, body: &[u8], from: IpAddr) -> Page {
        let Ok(origin) = self.check_origin(head) else { return FORBIDDEN_ORIGIN };
        let page = match &*head.method {
            "OPTIONS" => Page::NO_CONTENT
                .header("Access-Control-Allow-Methods", "POST")
                .header("Access-Control-Allow-Headers", "Authorization, Content-Type")
                .header("Access-Control-Max-Age", 600),
            _ if head.path() == LOGIN => self.bounded(self.log_in(head, body, from)).await.unwrap_or_else(|page| page),
            _ => self.bounded(self.accept_invite(body, from)).await.unwrap_or_else(|page| page),
        };
        match origin {
            Some(origin) => page.header("Access-Control-Allow-Origin", origin).header("Vary", "Origin"),
            None => page,
        }
    }

    async fn log_in(&self, head: &Head, body: &[u8], from: IpAddr) -> Result<Page, Page> {
        #[derive(Deserialize)]
        struct Login {
            name: String,
            password: String,
        }
        let credentials = if body.is_empty() {
            Credentials::of(head).ok_or_else(unauthorized)?
        } else {
            let Login { name, password } = serde_json::from_slice(body).map_err(|_| malformed())?;
            Credentials::Password { name, password: password.into() }
        };
        let Credentials::Password { name, password } = credentials else { return Err(unauthorized()) };
        let bearer = self.members.accounts.bearer(&name, &password, from).await.map_err(|error| login_page(&error))?;
        let lifetime = bearer.expires_in.as_secs();
        Ok(Page::json("200 OK", &json!({ "token": bearer.token, "expiresIn": lifetime })))
    }

    async fn accept_invite(&self, body: &[u8], from: IpAddr) -> Result<Page, Page> {
        #[derive(Deserialize)]
        struct Acceptance {
            invite: String,
            name: String,
            password: String,
        }
        let Acceptance { invite, name, password } = serde_json::from_slice(body).map_err(|_| malformed())?;
        let (invite, password) = (Zeroizing::new(invite), Zeroizing::new(password));
        let accepted = self.members.accounts.accept_invite(&invite, &name, &password, from).await;
        accepted.map_err(|error| invitation_page(&error))?;
        Ok(Page::json("200 OK", &json!({})))
    }
}

const FORBIDDEN_ORIGIN: Page = Page::new("403 Forbidden", "Pages of this origin may not log in here.\n");

/// For who opens a link to an invitation in a browser. Nothing in it is of anybody: the secret is in the link, where only the page sees it.
fn invitation() -> Page {
    Page::html(include_str!("invite.html"), include_str!("invite.js"))
}

fn unauthorized() -> Page {
    refused("401 Unauthorized", "noCredentials", "Log in first.")
        .header("WWW-Authenticate", "Basic realm=\"pmesh\", charset=\"UTF-8\"")
}

fn malformed() -> Page {
    refused("400 Bad Request", "malformed", "This is not the JSON that is expected here.")
}

fn refused(status: &'static str, code: &str, message: impl ToString) -> Page {
    Page::json(status, &json!({ "code": code, "message": message.to_string() }))
}

/// A time to wait, in whole seconds, so that what is tried then is not too early.
fn later(page: Page, retry_after: Duration) -> Page {
    page.header("Retry-After", retry_after.as_secs() + 1)
}

fn login_page(error: &LoginError) -> Page {
    match error {
        LoginError::Wrong => refused("403 Forbidden", error.code(), error),
        LoginError::Throttled { retry_after } => {
            later(refused("429 Too Many Requests", error.code(), error), *retry_after)
        }
        LoginError::Busy => later(refused("503 Service Unavailable", error.code(), error), Duration::ZERO),
        LoginError::Failed(error) => {
            tracing::warn!(error = %Chain(error), "the store of accounts failed");
            refused("503 Service Unavailable", error.code(), error)
        }
    }
}

fn invitation_page(error: &AccountError) -> Page {
    match error {
        AccountError::Throttled { retry_after } => {
            later(refused("429 Too Many Requests", error.code(), error), *retry_after)
        }
        AccountError::Busy | AccountError::Store(StoreError::Failed(_)) => {
            tracing::warn!(error = %Chain(error), "an invitation cannot be accepted");
            refused("503 Service Unavailable", error.code(), error)
        }
        AccountError::Store(StoreError::NameTaken) => refused("409 Conflict", error.code(), error),
        AccountError::Store(StoreError::UnknownToken) => {
            refused("400 Bad Request", error.code(), "the invitation is unknown or was used")
        }
        AccountError::Store(StoreError::Expired) => {
            refused("400 Bad Request", error.code(), "the invitation has expired")
        }
        _ => refused("400 Bad Request", error.code(), error),
    }
}

fn not_in(why: &NotIn) -> Page {
    match why {
        NotIn::Login(error) => login_page(error),
        NotIn::Refused(Refusal::Ended) => login_page(&LoginError::Wrong),
        NotIn::Refused(Refusal::TooMany) => {
            refused("429 Too Many Requests", "tooManyLogins", "You are logged in too often.").header("Retry-After", 60)
        }
        NotIn::Refused(_) => Page::FULL,
    }
}
