//! `pmesh serve`: a module that runs a command for each call.

use std::sync::Arc;

use futures_util::StreamExt;
use pmesh::directory::{Peer, Session, SessionEvent};
use pmesh::rpc::{IncomingCall, Rpc};

use super::args::ServeArgs;
use super::job::Jobs;
use super::{Joined, LOST, told};
use crate::mesh::{Result, shown};
use crate::output::note;
use crate::stop::stopped;

/// Calls of one peer that are taken in any case; they are busy rather than waiting at the caller.
const CALLS: usize = 64;
/// Peers that have a connection beyond those for which commands run: they are told at once that this one is busy. Others wait until a
/// connection is closed.
const SPARE: usize = 8;

pub(super) async fn run(args: ServeArgs) -> Result<()> {
    let ServeArgs { module, jobs: at_once, timeout, only, session, command } = args;
    let at_once = usize::from(at_once);
    let rpc = Rpc::builder()
        .calls(at_once)
        .calls_from_one(at_once.max(CALLS))
        .firewall(move |call: &IncomingCall| {
            let peer = call.caller().data::<Peer>();
            peer.is_some_and(|peer| only.is_empty() || only.contains(&peer.name))
        })
        .build();
    let jobs = Arc::new(Jobs::new(command, timeout)?);
    let running = jobs.clone();
    // Before anybody can call.
    let guard = rpc.module(&module, move |request| {
        let jobs = running.clone();
        async move { jobs.run(request).await }
    })?;
    // One user has half of the places at most.
    let joined = Joined::new(&session, &rpc, 2 * (at_once + SPARE)).await?;
    let done = tokio::select! {
        // Listened for before anybody is told that this is ready.
        biased;
        () = stopped() => Ok(()),
        done = introduce(&joined.session, &module) => done,
    };
    drop(guard);
    jobs.stop().await;
    joined.close().await;
    done
}

/// Says at each login who this peer is, until the session is over.
async fn introduce(session: &Session, module: &str) -> Result<()> {
    let mut events = session.events();
    while let Some(event) = events.next().await {
        match event {
            SessionEvent::Connected { number } => note!("serving {} as {number}", shown(module)),
            SessionEvent::Disconnected => note!("{LOST}"),
            SessionEvent::Ended { error } => {
                return Err(error.map_or_else(|| "the session is over".to_owned(), told).into());
            }
            _ => {}
        }
    }
    Ok(())
}
