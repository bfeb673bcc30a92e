//! `pmesh call`: calls to modules of peers.

use std::io::{BufReader, stdin};

use futures_util::StreamExt;
use pmesh::directory::{CallError, Reply, Session};
use pmesh::rpc::{self, Rpc};
use serde_json::{Deserializer, Value, json};
use tokio::sync::mpsc;

use super::args::{Body, CallArgs};
use super::{Joined, print};
use crate::mesh::{Result, stopped};
use crate::reason;

pub(super) async fn run(args: CallArgs) -> Result<()> {
    let joined = Joined::new(&args.session, &Rpc::new()).await?;
    let done = tokio::select! {
        done = call_all(&joined.session, args) => done,
        () = stopped() => Err("stopped".into()),
    };
    joined.close().await;
    done
}

/// How many calls were made, and how many of them failed.
#[derive(Default)]
struct Count {
    calls: usize,
    failed: usize,
}

async fn call_all(session: &Session, mut args: CallArgs) -> Result<()> {
    let mut count = Count::default();
    match std::mem::replace(&mut args.request, Body::Stdin) {
        Body::One(request) => call(session, &args, request, &mut count).await?,
        Body::Stdin => {
            let mut requests = requests();
            while let Some(request) = requests.recv().await {
                let request = request.map_err(|error| format!("no JSON on standard input: {error}"))?;
                call(session, &args, request, &mut count).await?;
            }
        }
    }
    match count {
        Count { calls: 0, .. } => Err("nobody was called".into()),
        Count { failed: 0, .. } => Ok(()),
        Count { calls, failed } => Err(format!("{failed} of {calls} calls failed").into()),
    }
}

/// Each JSON value on standard input, as it comes.
fn requests() -> mpsc::Receiver<serde_json::Result<Value>> {
    let (values, receiver) = mpsc::channel(1);
    // Reading cannot be cancelled: it ends with the program.
    tokio::task::spawn_blocking(move || {
        for value in Deserializer::from_reader(BufReader::new(stdin())).into_iter() {
            let last = value.is_err();
            if values.blocking_send(value).is_err() || last {
                return;
            }
        }
    });
    receiver
}

async fn call(session: &Session, args: &CallArgs, request: Value, count: &mut Count) -> Result<()> {
    let mut selection = session.get(&args.target).keep(args.keep);
    if let Some(timeout) = args.timeout {
        selection = selection.timeout(timeout);
    }
    let peers = selection.peers().len();
    if peers == 0 {
        return Err(format!("nobody is there as {}", args.target).into());
    }
    let mut replies = if args.stream {
        // One that ends well without any item has answered too.
        count.calls += peers;
        selection.stream(&args.module, request)
    } else {
        selection.message(&args.module, request)
    };
    while let Some(reply) = replies.next().await {
        count.calls += usize::from(!args.stream);
        count.failed += usize::from(reply.result.is_err());
        print(line(&reply)).await?;
    }
    Ok(())
}

fn line(reply: &Reply) -> Value {
    let mut line = json!({"peer": reply.number, "name": reply.name});
    match &reply.result {
        Ok(value) => line["value"] = value.clone(),
        Err(error) => {
            line["code"] = json!(reason::of_call(error));
            line["error"] = json!(error.to_string());
            if let CallError::Call(rpc::CallError::Failed(failure)) = error {
                line["error"] = json!(failure.message);
                if !failure.data.is_null() {
                    line["data"] = failure.data.clone();
                }
            }
        }
    }
    line
}
