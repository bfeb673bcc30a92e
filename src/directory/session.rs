//! What an application holds of a session.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::core::{Core, Phase, SessionCounters};
use super::error::RequestError;
use super::event::SessionEvents;
use super::login::Credentials;
use super::selection::Selection;
use super::target::Target;
use crate::lock::lock;
use crate::node::{ConnectError, Node, Root};
use crate::protocol::PeerNumber;
use crate::protocol::directory::Request;
use crate::rpc::{self, Caller, Failure, ModuleError, ModuleGuard, Responses, Rpc};

/// A peer that the directory has named. Handlers get it of those who call, by [`Caller::data`].
///
/// ```
/// use pmesh::directory::Peer;
/// use pmesh::rpc::{Failure, Request, Rpc};
/// use serde_json::json;
///
/// # fn example(rpc: &Rpc) -> Result<(), pmesh::rpc::ModuleError> {
/// let _hello = rpc.module("Hello", async |request: Request| match request.caller().data::<Peer>() {
///     Some(Peer { name, number, .. }) => Ok(json!(format!("Hello {name}, at {number}"))),
///     None => Err(Failure::new("who are you?")),
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// The alias by which this account knows its user; `Us` for another login of the own account.
    pub name: String,
    /// Its number, as long as it is logged in.
    pub number: PeerNumber,
}

impl Peer {
    pub(super) fn new(name: &str, number: PeerNumber) -> Self {
        Self { name: name.to_owned(), number }
    }
}

/// An invitation of somebody who has no account yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invitation {
    /// By which an account is made, once: to be brought to the one who is invited.
    pub secret: String,
    /// How long it is good for.
    pub expires_in: Duration,
}

/// The password in use, and one that may be the right one by now.
pub(super) struct Password(Mutex<Known>);

struct Known {
    current: Credentials,
    /// Whether the directory was asked about it.
    is_tried: bool,
    other: Option<Credentials>,
}

impl Password {
    /// One by which there is a login.
    pub(super) fn new(credentials: Credentials) -> Self {
        Self(Mutex::new(Known { current: credentials, is_tried: true, other: None }))
    }

    /// To be tried now.
    pub(super) fn get(&self) -> Credentials {
        let mut known = lock(&self.0);
        known.is_tried = true;
        known.current.clone()
    }

    /// The one that was tried is not worth anything any more. Whether there is another one.
    pub(super) fn try_other(&self) -> bool {
        let mut known = lock(&self.0);
        if known.is_tried {
            known.take_other();
        }
        !known.is_tried
    }

    /// A change is asked for: it may be done although no answer comes. Returns what may have been the right one before.
    fn may_become(&self, password: &str) -> Option<Credentials> {
        let mut known = lock(&self.0);
        let mut other = known.current.clone();
        other.change_password(password);
        known.other.replace(other)
    }

    /// The change was done.
    fn has_changed(&self) {
        lock(&self.0).take_other();
    }

    /// The change was not done: all is as it was before.
    fn stays(&self, other: Option<Credentials>) {
        lock(&self.0).other = other;
    }
}

impl Known {
    fn take_other(&mut self) {
        if let Some(other) = self.other.take() {
            (self.current, self.is_tried) = (other, false);
        }
    }
}

/// A login at a directory: who is there, and calls to them.
///
/// Handles are cheap to clone. When the last one is dropped, with the [`Selection`]s and [`Replies`](super::Replies) that were made of
/// it, the session ends at once, and with it the connections that it had made for calls; [`disconnect`](Self::disconnect) does so in
/// good order.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    password: Arc<Password>,
    running: AbortHandle,
    stop: watch::Sender<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.running.abort();
        self.core.end(None);
    }
}

impl Session {
    pub(super) fn new(
        core: Arc<Core>,
        password: Arc<Password>,
        running: AbortHandle,
        stop: watch::Sender<bool>,
    ) -> Self {
        Self { inner: Arc::new(Inner { core, password, running, stop }) }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    /// The own number: the one of the latest login.
    pub fn number(&self) -> PeerNumber {
        self.core().number().expect("there is no session before the first login")
    }

    /// Whether the session is logged in now.
    pub fn is_connected(&self) -> bool {
        self.core().is_online()
    }

    /// The aliases of all users whose peers may be reached, without the own account.
    pub fn users(&self) -> Vec<String> {
        self.core().lock().presence.users().map(|alias| alias.to_string()).collect()
    }

    /// The peers that are there, by users, without this one.
    pub fn peers(&self) -> Vec<Peer> {
        self.core().lock().presence.peers().map(|(number, alias)| Peer::new(alias, number)).collect()
    }

    /// First what is there, as events, then what happens. A reader that is more than 1,024 events behind loses the oldest and gets
    /// [`Lagged`](super::SessionEvent::Lagged).
    pub fn events(&self) -> SessionEvents {
        let (known, later) = self.core().listen();
        SessionEvents::new(known, later)
    }

    /// Waits until the session is logged in: at once if it is. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotConnected`] if it is over.
    pub async fn connected(&self) -> Result<(), RequestError> {
        let mut phase = self.core().phase();
        let reached = phase.wait_for(|phase| *phase != Phase::Joining).await;
        if reached.is_ok_and(|phase| *phase == Phase::Online) { Ok(()) } else { Err(RequestError::NotConnected) }
    }

    /// Whom to call: `"*"` for all, `"Us"` for the other logins of the own account, an alias, or the number of a peer. Nobody is looked
    /// up before a call.
    pub fn get(&self, target: impl Into<Target>) -> Selection {
        Selection::new(self.clone(), target.into())
    }

    /// Connects to a peer, for messages and channels besides calls, and to be introduced to others through it. The connection is the
    /// application's: calls use it, and it is not closed by this session, unless the login of the peer is
    /// [ended](super::SessionEvent::PeerDisconnect).
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(&self, peer: PeerNumber) -> Result<Node, ConnectError> {
        self.core().connect(peer).await
    }

    /// The root that the connections belong to.
    pub fn root(&self) -> &Root {
        &self.core().root
    }

    /// The directory as a node of the tree, whose [announcements](Node::announcements) are numbers. Each login has one of its own.
    /// `None` while the session is not logged in.
    pub fn node(&self) -> Option<Node> {
        self.core().lock().node.as_ref().map(|(node, _)| node.clone())
    }

    /// Where modules are registered, and by which calls are made.
    pub fn rpc(&self) -> &Rpc {
        &self.core().rpc
    }

    /// Registers a module, as [`Rpc::module`] does. Peers of the directory may call it; who they are is told by [`Peer`].
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn module<F, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(rpc::Request) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        self.rpc().module(name, handler)
    }

    /// Registers a module with types, as [`Rpc::typed`] does.
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn typed<F, Q, A, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(Q, Caller) -> T + Send + Sync + 'static,
        Q: DeserializeOwned + 'static,
        A: serde::Serialize + 'static,
        T: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        self.rpc().typed(name, handler)
    }

    /// Registers a module that answers by a stream, as [`Rpc::streaming`] does.
    ///
    /// # Errors
    ///
    /// [`ModuleError`].
    pub fn streaming<F, T>(&self, name: &str, handler: F) -> Result<ModuleGuard, ModuleError>
    where
        F: Fn(rpc::Request, Responses) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.rpc().streaming(name, handler)
    }

    /// Invites somebody who has no account.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    ///
    /// # Cancel safety
    ///
    /// Of a cancelled request it is not known whether it was done. So it is with all of those below.
    pub async fn invite(&self, email: &str) -> Result<Invitation, RequestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            invite: String,
            expires_in: u64,
        }
        let data = self.request(Request::InviteUser { email: email.to_owned() }).await?;
        read(data).map(|Data { invite, expires_in }| Invitation {
            secret: invite,
            expires_in: Duration::from_secs(expires_in),
        })
    }

    /// Makes a token for somebody who is to be known by this alias, and trusted. Who [claims](Self::claim_token) it, once and within
    /// ten minutes by default, is; so it should be given to the right one only.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn request_token(&self, alias: &str) -> Result<String, RequestError> {
        #[derive(Deserialize)]
        struct Data {
            token: String,
        }
        let data = self.request(Request::RequestToken { name: alias.to_owned() }).await?;
        read(data).map(|Data { token }| token)
    }

    /// Claims the token of somebody, who is to be known by this alias. From then on both accounts trust each other, and see each other's
    /// peers.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. After [`Lost`](RequestError::Lost) and [`TimedOut`](RequestError::TimedOut) look at [`trusted`](Self::trusted):
    /// a second claim of the same token fails.
    pub async fn claim_token(&self, alias: &str, token: &str) -> Result<(), RequestError> {
        self.request(Request::ClaimToken { name: alias.to_owned(), token: token.to_owned() }).await.map(drop)
    }

    /// The aliases of all accounts that this one trusts.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn trusted(&self) -> Result<Vec<String>, RequestError> {
        read(self.request(Request::ListTrusted).await?)
    }

    /// Ends the trust, on both sides. Neither sees the other's peers any more, and all connections by which the directory has introduced
    /// them to each other are closed.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn revoke(&self, alias: &str) -> Result<(), RequestError> {
        self.request(Request::RevokeTrust { name: alias.to_owned() }).await.map(drop)
    }

    /// Changes the password of the account. All its logins end, this one too, which logs in again by itself with the new password.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. After [`Lost`](RequestError::Lost) and [`TimedOut`](RequestError::TimedOut) this session tries both passwords.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<(), RequestError> {
        let password = &self.inner.password;
        let before = password.may_become(new);
        let request = Request::ChangePassword { old: old.to_owned(), new: new.to_owned() };
        match self.request(request).await {
            Ok(_) => password.has_changed(),
            Err(RequestError::Lost | RequestError::TimedOut | RequestError::Unexpected) => {
                return Err(RequestError::Lost);
            }
            Err(error) => {
                password.stays(before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the account. Its sessions end.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub async fn delete_account(&self, password: &str) -> Result<(), RequestError> {
        self.request(Request::DeleteAccount { password: password.to_owned() }).await.map(drop)
    }

    async fn request(&self, request: Request<'_>) -> Result<Value, RequestError> {
        self.core().request(request).await
    }

    /// What was dropped or ignored so far.
    pub fn counters(&self) -> SessionCounters {
        self.core().counters()
    }

    /// Ends the session, for all its handles: sends what is queued, for at most 2 seconds, and closes the connections that it had made
    /// for calls. A root of the session's own is closed too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the end goes on.
    pub async fn disconnect(&self) {
        self.inner.stop.send_replace(true);
        // The task has the receiver until it is done.
        self.inner.stop.closed().await;
    }
}

fn read<T: DeserializeOwned>(data: Value) -> Result<T, RequestError> {
    serde_json::from_value(data).map_err(|_| RequestError::Unexpected)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("number", &self.core().number()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Password {
        Password::new(Credentials::new("alice", "a"))
    }

    fn tried(password: &Password) -> bool {
        password.get().has("b")
    }

    #[test]
    fn a_password_that_is_none_any_more_is_not_tried_again() {
        let known = password();
        assert!(!known.try_other() && !known.try_other());
        drop(known.may_become("b"));
        known.stays(None);
        assert!(!known.try_other());
    }

    #[test]
    fn a_change_that_was_not_done_does_not_undo_an_earlier_one_of_which_nothing_was_heard() {
        let known = password();
        drop(known.may_become("b"));
        let before = known.may_become("c");
        known.stays(before);
        assert!(known.try_other() && tried(&known));
    }

    #[test]
    fn the_new_password_is_tried_once_whoever_hears_of_the_change_first() {
        for answer_is_first in [true, false] {
            let known = password();
            drop(known.may_become("b"));
            if answer_is_first {
                known.has_changed();
            }
            assert!(known.try_other());
            assert!(tried(&known));
            known.has_changed();
            assert!(!known.try_other(), "it was tried");
        }
        // It is dialled while the answer comes.
        let known = password();
        drop(known.may_become("b"));
        known.get();
        known.has_changed();
        assert!(known.try_other() && tried(&known));
    }
}
