//! A login: its place in the hub with accounts, and what it asks for.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::accounts::{Account, AccountError, AccountId, Chain, StoreError};
use super::connection::{Bell, Incoming, Member};
use super::hub::accounts::Place;
use super::hub::{Inbound, Next, PeerId, Reason};
use super::members::{Members, NotIn};
use super::open;
use super::serve::{Options, Shared};
use crate::protocol::Address;
use crate::protocol::directory::{self, Notice, PeerNumber, Refused, Request};
use crate::transport::upgrade::Upgrade;

/// A login that is connected. Dropping it leaves; what it has asked for is done to its end if that has begun.
pub(super) struct Session {
    shared: Arc<Shared>,
    members: Arc<Members>,
    bell: Arc<Bell>,
    id: PeerId,
    account: AccountId,
    /// The account's when it logged in.
    epoch: i64,
    from: IpAddr,
    /// Of a peer of P.
    address: Option<Address>,
    /// What it has asked for last, while that is under way. Dropping the sender tells it that the login is gone.
    work: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    here: bool,
}

impl Session {
    /// Logs a peer of the directory in, or one of P if the upgrade is to that.
    pub(super) async fn join(
        shared: &Arc<Shared>,
        members: &Arc<Members>,
        account: &Account,
        from: IpAddr,
        peer: Option<&Upgrade>,
    ) -> Result<Self, NotIn> {
        let bell = Arc::new(Bell::default());
        let (id, address) = match peer.map(open::name) {
            None => (members.join(account, bell.clone(), || Place::Directory(random_number())).await?, None),
            Some((address, dialect)) => {
                let place = || Place::Peer { address: address.clone(), dialect };
                (members.join(account, bell.clone(), place).await?, Some(address))
            }
        };
        bell.ring();
        let (shared, members, epoch, account) = (shared.clone(), members.clone(), account.epoch, account.id);
        Ok(Self { shared, members, bell, id, account, epoch, from, address, work: None, here: true })
    }

    fn text(&mut self, text: &Utf8Bytes, now: Instant) -> Option<Instant> {
        if let Some(own) = &self.address {
            let inbound = Inbound::read(text, own);
            return self.members.with(|hub, bells| hub.text(self.id, inbound, now, bells));
        }
        match Request::parse(text) {
            Ok((Request::Introduce { what, route, data }, request)) => {
                let text = directory::introduction(what, data, None).into();
                self.members.with(|hub, bells| hub.introduce(self.id, route, text, request, now, bells))
            }
            Ok(_) => {
                let (may, resume) = self.members.with(|hub, _| hub.asks(self.id, now));
                if may {
                    let (here, gone) = oneshot::channel();
                    self.work = Some((tokio::spawn(self.asked().answer(text.clone(), gone)), here));
                }
                resume
            }
            Err(malformed) => self.members.with(|hub, bells| hub.malformed(self.id, malformed.id, now, bells)),
        }
    }

    fn asked(&self) -> Asked {
        let Self { members, id, account, epoch, from, .. } = self;
        Asked { members: members.clone(), id: *id, account: *account, epoch: *epoch, from: *from }
    }
}

/// A number that nobody can guess.
fn random_number() -> PeerNumber {
    PeerNumber::new(rand::random::<u64>() >> 11).expect("53 bits are left")
}

impl Member for Session {
    fn options(&self) -> &Options {
        &self.shared.options
    }

    fn bell(&self) -> &Bell {
        &self.bell
    }

    fn pull(&mut self, batch: &mut Vec<Utf8Bytes>) -> Next {
        match self.members.with(|hub, _| hub.pull(self.id, batch)) {
            // What it has asked for is answered first: that may be why it ends.
            Next::Ended(_) if self.work.is_some() => Next::Wait,
            next => next,
        }
    }

    fn take(&mut self, incoming: Incoming, now: Instant) -> Option<Instant> {
        match incoming {
            Incoming::Text(text) => self.text(&text, now),
            Incoming::Binary => self.members.with(|hub, _| hub.binary(self.id, now)),
            Incoming::Control => self.members.with(|hub, _| hub.control(self.id, now)),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((work, _)) = &mut self.work else { return Poll::Ready(()) };
        if Pin::new(work).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.work = None;
        // It may have been told to end meanwhile.
        self.bell.ring();
        Poll::Ready(())
    }

    fn leave(&mut self, reason: Reason) {
        if std::mem::take(&mut self.here) {
            self.work = None;
            self.members.with(|hub, bells| hub.disconnect(self.id, reason, bells));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave(Reason::Left);
    }
}

/// Who has asked for something that takes time.
struct Asked {
    members: Arc<Members>,
    id: PeerId,
    account: AccountId,
    epoch: i64,
    from: IpAddr,
}

/// Why a request is not done.
enum NotDone {
    Account(AccountError),
    /// It has no `id` by which its answer could be told apart, and the original knows no answer to it.
    NoId,
}

impl<E: Into<AccountError>> From<E> for NotDone {
    fn from(error: E) -> Self {
        Self::Account(error.into())
    }
}

impl Asked {
    /// Does what a text asks for, and answers, unless the login is `gone` before its turn.
    async fn answer(self, text: Utf8Bytes, gone: oneshot::Receiver<()>) {
        let Ok((request, id)) = Request::parse(&text) else { return };
        let is_token = matches!(request, Request::RequestToken { .. });
        let ends = matches!(request, Request::ChangePassword { .. } | Request::DeleteAccount { .. });
        let reads = matches!(request, Request::ListTrusted);
        let mut turn = None;
        let done = async {
            if !reads {
                turn = Some(self.turn(gone).await?);
            }
            self.work(request, id.is_some()).await
        };
        let done = done.await;
        let answer = match (done, id) {
            (Ok(data), Some(id)) => Some(Notice::Ok { id, data }),
            (Ok(data), None) if is_token => {
                data["token"].as_str().map(|token| Notice::TokenResponse { token: token.to_owned() })
            }
            (Ok(_), None) => None,
            (Err(NotDone::Account(error)), Some(_)) => Some(Notice::Error { id, refused: Some(refused(&error)) }),
            // As the original: it has no reasons.
            (Err(_), _) => Some(Notice::Error { id: None, refused: None }),
        };
        if let Some(answer) = answer {
            self.members.with(|hub, bells| hub.tell(self.id, answer.to_json().into(), bells));
        }
        if ends && turn.is_some() {
            self.members.refresh(self.account).await;
        }
        // Whoever is next knows whether its login was ended.
        drop(turn);
    }

    async fn turn(&self, gone: oneshot::Receiver<()>) -> Result<OwnedMutexGuard<()>, AccountError> {
        let turn = tokio::select! {
            turn = self.members.may_write(self.account) => turn.ok_or(AccountError::Busy)?,
            _ = gone => return Err(StoreError::PasswordChanged.into()),
        };
        // Those before it may have taken long.
        let may = self.members.with(|hub, _| hub.may_ask(self.id));
        if may { Ok(turn) } else { Err(StoreError::PasswordChanged.into()) }
    }

    async fn work(&self, request: Request<'_>, has_id: bool) -> Result<Value, NotDone> {
        let Self { members, account, epoch, from, .. } = self;
        let (accounts, account, epoch, from) = (&members.accounts, *account, Some(*epoch), *from);
        match request {
            // The hub does that.
            Request::Introduce { .. } => {}
            // Nobody could be told the invitation.
            Request::InviteUser { .. } | Request::ListTrusted if !has_id => return Err(NotDone::NoId),
            Request::InviteUser { email } => {
                let invite = accounts.invite(account, epoch, &email).await?;
                return Ok(json!({ "invite": invite.secret, "expiresIn": invite.expires_in.as_secs() }));
            }
            Request::RequestToken { name } => {
                return Ok(json!({ "token": accounts.request_token(account, epoch, &name).await? }));
            }
            Request::ListTrusted => {
                let trusted = accounts.trusted(account).await?;
                return Ok(trusted.into_iter().map(|trusted| trusted.alias).collect());
            }
            Request::ClaimToken { name, token } => {
                accounts.claim_token(account, epoch, &name, &token).await?;
                members.refresh(account).await;
            }
            Request::RevokeTrust { name } => {
                let other = accounts.revoke(account, &name).await?;
                members.refresh(account).await;
                members.refresh(other).await;
            }
            Request::ChangePassword { old, new } => accounts.change_password(account, &old, &new, from).await?,
            Request::DeleteAccount { password } => accounts.delete_account(account, &password, from).await?,
        }
        Ok(Value::Null)
    }
}

fn refused(error: &AccountError) -> Refused {
    if let AccountError::Store(StoreError::Failed(error)) = error {
        tracing::warn!(error = %Chain(&**error), "the store of accounts failed");
    }
    Refused { code: error.code().to_owned(), message: error.to_string() }
}
