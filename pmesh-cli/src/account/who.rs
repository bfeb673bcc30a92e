//! `pmesh who`: who is there.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use pmesh::directory::{PeerNumber, Session, SessionEvent};
use serde_json::{Value, json};

use super::args::WhoArgs;
use super::{Joined, LOST, told};
use crate::mesh::{Result, shown};
use crate::output::{Unread, print, unread};
use crate::stop::stopped;

pub(super) async fn run(args: &WhoArgs) -> Result<()> {
    let joined = Joined::alone(&args.login).await?;
    let session = &joined.session;
    let shown = async { if args.follow { follow(session, args.json).await } else { show(session, args.json).await } };
    let done = tokio::select! {
        // Listened for before anything is written.
        biased;
        () = stopped() => Ok(()),
        done = shown => done,
        () = unread() => Err(Unread.into()),
    };
    joined.close().await;
    done
}

async fn show(session: &Session, as_json: bool) -> Result<()> {
    let mut users: BTreeMap<String, Vec<PeerNumber>> =
        session.users().into_iter().map(|alias| (alias, Vec::new())).collect();
    for peer in session.peers() {
        users.entry(peer.name).or_default().push(peer.number);
    }
    if as_json {
        let users: Vec<Value> = users.iter().map(|(name, peers)| json!({"name": name, "peers": peers})).collect();
        return print(json!({"number": session.number(), "users": users})).await;
    }
    for (name, peers) in users {
        let peers: Vec<String> = peers.iter().map(PeerNumber::to_string).collect();
        let there = if peers.is_empty() { "not there".to_owned() } else { peers.join(" ") };
        print(format!("{}\t{there}", shown(&name))).await?;
    }
    Ok(())
}

/// Writes events until the session is over.
async fn follow(session: &Session, as_json: bool) -> Result<()> {
    let mut events = session.events();
    while let Some(event) = events.next().await {
        if let SessionEvent::Ended { error: Some(error) } = event {
            return Err(told(error).into());
        }
        let line = if as_json { object(&event).map(|object| object.to_string()) } else { words(&event) };
        if let Some(line) = line {
            print(line).await?;
        }
    }
    Ok(())
}

fn object(event: &SessionEvent) -> Option<Value> {
    Some(match event {
        SessionEvent::Connected { number } => json!({"event": "connected", "number": number}),
        SessionEvent::Disconnected => json!({"event": "disconnected"}),
        SessionEvent::PeerConnect { name, number } => json!({"event": "peer", "name": name, "number": number}),
        SessionEvent::PeerDisconnect { number, .. } => json!({"event": "peer-left", "number": number}),
        SessionEvent::NewUser { alias } => json!({"event": "user", "name": alias}),
        SessionEvent::UserRemoved { alias } => json!({"event": "user-removed", "name": alias}),
        SessionEvent::Lagged(lost) => json!({"event": "lagged", "lost": lost}),
        _ => return None,
    })
}

fn words(event: &SessionEvent) -> Option<String> {
    Some(match event {
        SessionEvent::Connected { number } => format!("* logged in as {number}"),
        SessionEvent::Disconnected => LOST.to_owned(),
        SessionEvent::PeerConnect { name, number } => format!("* {} is here, at {number}", shown(name)),
        SessionEvent::PeerDisconnect { number, .. } => format!("* {number} has left"),
        SessionEvent::NewUser { alias } => format!("* {} is trusted", shown(alias)),
        SessionEvent::UserRemoved { alias } => format!("* {} is trusted no more", shown(alias)),
        SessionEvent::Lagged(lost) => format!("* {lost} events are lost"),
        _ => return None,
    })
}
