//! What a directory is asked for.

use std::fs;
use std::io;

use pmesh::directory::RequestError;

use super::args::{FileArgs, InviteArgs, LoginArgs, PasswdArgs, TokenCommand, TrustCommand};
use super::link::Link;
use super::login::Login;
use super::{Joined, secret};
use crate::mesh::{Result, shown};
use crate::output::print;
use crate::stop::{Stopped, stopped};

pub(super) async fn log_in(args: LoginArgs) -> Result<()> {
    let path = args.login.path()?;
    let LoginArgs { server, name, password, .. } = args;
    let password = password.read("Password: ")?;
    let login = Login { url: server.url, name, password, allow_plaintext: server.allow_plaintext };
    // So that what is kept is right.
    Joined::with(&login).await?.close().await;
    login.save(&path)
}

pub(super) fn log_out(args: &FileArgs) -> Result<()> {
    let path = args.path()?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display()).into()),
        _ => Ok(()),
    }
}

pub(super) async fn change_password(args: &PasswdArgs) -> Result<()> {
    let path = args.login.path()?;
    let mut login = args.login.load()?;
    let new = args.password.read_new()?;
    let joined = Joined::with(&login).await?;
    let done = joined.session.change_password(&login.password, &new).await;
    joined.close().await;
    match done {
        Ok(()) => {}
        Err(error @ (RequestError::Lost | RequestError::TimedOut)) => {
            return Err(format!("{error}: log in with the new password, or else the old one").into());
        }
        Err(error) => return Err(error.into()),
    }
    login.password = new;
    login
        .save(&path)
        .map_err(|error| format!("the password is changed, but not in the file, so log in again: {error}").into())
}

pub(super) async fn token(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Request { alias, login } => {
            let token = ask(&login, async |joined| joined.session.request_token(&alias).await).await?;
            print(token).await
        }
        TokenCommand::Claim { alias, token, login } => {
            let token = secret::argument(token)?;
            ask(&login, async |joined| joined.session.claim_token(&alias, &token).await).await
        }
    }
}

pub(super) async fn trust(command: TrustCommand) -> Result<()> {
    match command {
        TrustCommand::List { login } => {
            for alias in ask(&login, async |joined| joined.session.trusted().await).await? {
                print(shown(&alias)).await?;
            }
            Ok(())
        }
        TrustCommand::Revoke { alias, login } => ask(&login, async |joined| joined.session.revoke(&alias).await).await,
    }
}

pub(super) async fn invite(args: &InviteArgs) -> Result<()> {
    let login = args.login.load()?;
    let invitation = ask_as(&login, async |joined| joined.session.invite(&args.email).await).await?;
    print(Link::new(&login.url, invitation.secret)?.text()).await
}

/// Logs in, asks, and logs out.
async fn ask<T>(
    login: &FileArgs,
    what: impl AsyncFnOnce(&Joined) -> std::result::Result<T, RequestError>,
) -> Result<T> {
    ask_as(&login.load()?, what).await
}

/// The same, with a login that is read.
async fn ask_as<T>(
    login: &Login,
    what: impl AsyncFnOnce(&Joined) -> std::result::Result<T, RequestError>,
) -> Result<T> {
    let joined = Joined::with(login).await?;
    let done = tokio::select! {
        done = what(&joined) => done.map_err(Into::into),
        () = stopped() => Err(Stopped.into()),
    };
    joined.close().await;
    done
}
