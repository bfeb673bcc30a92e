//! Makes the accounts and their trust, as people do: by invitations, and by tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::Mutex;

use crate::client::{Credentials, Login, post};
use crate::options::Options;
use crate::server::{Server, TRUSTED, Variant, add};
use crate::{PASSWORD, Result, Sample};

/// Clients that do something at a time.
pub(crate) const AT_ONCE: usize = 16;

/// A ring of accounts, each of which trusts its neighbours on both sides.
pub(crate) async fn ring(folder: &Path, options: &Options) -> Result<Vec<Sample>> {
    add(folder, "user0").await?;
    let server = Server::start(Variant::Pmesh, folder, options.accounts).await?;
    let address = &server.address;

    let inviter = Arc::new(Mutex::new(Login::new(address, Credentials::of(0)).await?));
    let begin = Instant::now();
    let invite = async |account: usize| {
        let invited = inviter.lock().await.ask("inviteUser", json!({ "email": "somebody@example.com" })).await?;
        let name = format!("user{account}");
        post(address, "/invite", json!({ "invite": invited["invite"], "name": name, "password": PASSWORD })).await?;
        Result::Ok(())
    };
    at_once(1..options.accounts, invite).await?;
    let accounts = (options.accounts - 1) as f64 / begin.elapsed().as_secs_f64();

    let log_in = |account| async move { Login::new(address, Credentials::of(account)).await.map(Mutex::new) };
    let logins: Vec<_> = stream::iter(0..options.accounts).map(log_in).buffered(AT_ONCE).try_collect().await?;
    let begin = Instant::now();
    let befriend = async |pair: usize| {
        let (a, b) =
            (pair % options.accounts, (pair % options.accounts + pair / options.accounts + 1) % options.accounts);
        let asked = logins[a].lock().await.ask("requestToken", json!({ "name": format!("user{b}") })).await?;
        let claim = json!({ "name": format!("user{a}"), "token": asked["token"] });
        logins[b].lock().await.ask("claimToken", claim).await?;
        Result::Ok(())
    };
    let pairs = options.accounts * TRUSTED / 2;
    at_once(0..pairs, befriend).await?;
    let trust = pairs as f64 / begin.elapsed().as_secs_f64();
    Ok(vec![
        ("accounts made by invitation, each second".into(), accounts),
        ("tokens asked for and claimed, each second".into(), trust),
    ])
}

/// Does something for each number, several at a time.
pub(crate) async fn at_once<F>(numbers: std::ops::Range<usize>, work: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(numbers.map(Ok)).try_for_each_concurrent(AT_ONCE, work).await
}
