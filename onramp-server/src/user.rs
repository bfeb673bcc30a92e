//! `onramp-server user`: accounts from the command line.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use pmesh::onramp::accounts::{Account, AccountError, StoreError};
use zeroize::Zeroizing;

use crate::options::User;

/// Bytes of standard input that are read for a password; longer ones are none anyway.
const MAX_INPUT: u64 = 4096;

/// Accounts that are asked for at a time.
const PAGE: usize = 500;

pub(crate) async fn run(user: User) -> Result<(), String> {
    let told = |error: AccountError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match user {
        User::Add { name, store, .. } => {
            let password = password()?;
            store.open_or_make().await?.create(&name, &password).await.map(drop).map_err(told)
        }
        User::Passwd { name, store, .. } => {
            let password = password()?;
            store.open().await?.set_password(&name, &password).await.map_err(told)
        }
        User::Remove { name, store } => store.open().await?.remove(&name).await.map_err(told),
        User::Deactivate { name, store } => store.open().await?.set_active(&name, false).await.map_err(told),
        User::Activate { name, store } => store.open().await?.set_active(&name, true).await.map_err(told),
        User::Trust { name, other, aliases, store } => {
            let (alias, alias_of_other) = match aliases.as_deref() {
                Some([alias, alias_of_other]) => (alias, alias_of_other),
                _ => (&name, &other),
            };
            let trusted = store.open().await?.trust(&name, alias_of_other, &other, alias).await;
            trusted.map_err(|error| match error {
                AccountError::Store(StoreError::OwnToken) => "an account does not trust itself".into(),
                error => told(error),
            })
        }
        User::List { store } => {
            let accounts = store.open().await?;
            let mut after = None;
            loop {
                let page = accounts.list(after.as_deref(), PAGE).await.map_err(told)?;
                let Some(last) = page.last() else { return Ok(()) };
                after = Some(last.name.clone());
                match print(&page) {
                    // Whoever reads it has enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    printed => printed.map_err(|error| error.to_string())?,
                }
            }
        }
    }
}

fn print(accounts: &[Account]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for account in accounts {
        let state = if account.is_active { "active" } else { "inactive" };
        writeln!(out, "{}\t{state}", account.name)?;
    }
    out.flush()
}

/// The first line of standard input.
fn password() -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(String::with_capacity(MAX_INPUT as usize));
    let read = std::io::stdin().lock().take(MAX_INPUT).read_line(&mut line);
    read.map_err(|error| format!("cannot read the password: {error}"))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}
