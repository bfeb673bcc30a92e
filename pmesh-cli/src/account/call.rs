//! `pmesh call`: calls to modules of peers.

use std::io::{BufReader, stdin};

use futures_util::StreamExt;
use pmesh::ConnectError;
use pmesh::directory::{CallError, PeerNumber, Reply, Session};
use pmesh::rpc::{self, Rpc};
use serde_json::{Deserializer, Value, json};
use tokio::sync::mpsc;

use super::Joined;
use super::args::{Body, CallArgs};
use crate::mesh::Result;
use crate::output::print;
use crate::reason;
use crate::stop::{Stopped, stopped};

pub(super) async fn run(args: CallArgs) -> Result<()> {
    // Others have nothing to call here: they hear so at once, without a connection that would break when this ends.
    let joined = Joined::new(&args.session, &Rpc::new(), 0).await?;
    let done = tokio::select! {
        // Listened for before anybody is called.
        biased;
        () = stopped() => Err(Stopped.into()),
        done = call_all(&joined.session, args) => done,
    };
    joined.close().await;
    done
}

/// What has come of the calls.
#[derive(Default)]
struct Count {
    requests: usize,
    /// Requests that peers were called with, and that none of them has answered or failed at: all are bystanders.
    unheard: usize,
    /// Calls to peers that are no bystanders.
    calls: usize,
    failed: usize,
}

impl Count {
    fn verdict(&self) -> std::result::Result<(), String> {
        match self {
            Self { requests: 0, .. } => Err("nobody was called".to_owned()),
            Self { failed: 1.., .. } => Err(format!("{} of {} calls failed", self.failed, self.calls)),
            Self { unheard: 0, .. } => Ok(()),
            Self { requests: 1, .. } => Err(NOBODY.to_owned()),
            Self { unheard, requests, .. } => Err(format!("{unheard} of {requests} requests: {NOBODY}")),
        }
    }
}

/// All are bystanders.
const NOBODY: &str = "nobody has answered: whoever is there does not have this module, or takes no calls";

/// Who somebody is follows from the key alone.
const SAME_KEY: &str =
    "it has the same key as this peer, so it is the same peer: give each login an --identity of its own";

/// Whether a peer does not have the module or takes no calls, or not from here: not its answer was missed.
fn is_bystander(error: &CallError) -> bool {
    use rpc::CallError::{Refused, UnknownModule, Unsupported};
    match error {
        CallError::Gone => true,
        CallError::NotConnected(error) => {
            matches!(error, ConnectError::Refused | ConnectError::Unreachable | ConnectError::OwnAddress)
        }
        CallError::Call(error) => matches!(error, UnknownModule | Refused | Unsupported),
        _ => false,
    }
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
    Ok(count.verdict()?)
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

/// Why there is nobody to be called: an alias may be wrong, or its user away.
fn nobody(target: &str, users: &[String]) -> String {
    let is_known = users.iter().any(|user| user == target);
    let is_alias = target != "*" && target != "Us" && target.parse::<PeerNumber>().is_err();
    let why = match (is_known, is_alias) {
        (true, _) => " now",
        (false, true) => ", and no user of this name is known to you: see `pmesh trust list`",
        (false, false) => "",
    };
    format!("nobody is there as {target}{why}")
}

async fn call(session: &Session, args: &CallArgs, request: Value, count: &mut Count) -> Result<()> {
    let mut selection = session.get(&args.target).keep(args.keep);
    if let Some(timeout) = args.timeout {
        selection = selection.timeout(timeout);
    }
    let peers = selection.peers().len();
    if peers == 0 {
        return Err(nobody(&args.target, &session.users()).into());
    }
    let size = request.to_string().len();
    let mut replies = match args.stream {
        true => selection.stream(&args.module, request),
        false => selection.message(&args.module, request),
    };
    let (mut answers, mut failed, mut bystanders) = (0, 0, 0);
    while let Some(reply) = replies.next().await {
        match &reply.result {
            Ok(_) => answers += 1,
            Err(error) if is_bystander(error) => bystanders += 1,
            Err(_) => failed += 1,
        }
        print(line(&reply, size)).await?;
    }
    if args.stream {
        // A peer may have sent many items, and one that ended well without any has answered too.
        answers = peers.saturating_sub(failed + bystanders);
    }
    count.requests += 1;
    count.unheard += usize::from(answers + failed == 0);
    count.calls += answers + failed;
    count.failed += failed;
    Ok(())
}

/// A reply to a request of so many bytes.
fn line(reply: &Reply, size: usize) -> Value {
    let mut line = json!({"peer": reply.number, "name": reply.name});
    match &reply.result {
        Ok(value) => line["value"] = value.clone(),
        Err(error) => {
            line["code"] = json!(reason::of_call(error));
            line["error"] = match error {
                CallError::Call(rpc::CallError::Failed(failure)) => json!(failure.message),
                CallError::NotConnected(ConnectError::OwnAddress) => json!(SAME_KEY),
                // It may be either: each end has a limit of its own.
                CallError::Call(rpc::CallError::TooLarge { limit }) => json!(format!(
                    "the request, which has {size} bytes, or the answer has more than the {limit} that are taken"
                )),
                error => json!(error.to_string()),
            };
            if let CallError::Call(rpc::CallError::Failed(failure)) = error
                && !failure.data.is_null()
            {
                line["data"] = failure.data.clone();
            }
        }
    }
    line
}
