//! How the two ends of a connection agree to close it: who has made it asks, and the other end says whether it has calls over it. From a
//! yes on it begins none, so no call is lost because the connection is closed.
//!
//! On a channel of the connection: `"part"`, answered by `true` or `false`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::core::Core;
use crate::lock::lock;
use crate::node::{Channel, Message, Node};
use crate::protocol::PeerNumber;

/// The channel.
const CHANNEL: &str = "pmesh.directory";
const QUESTION: &str = "part";
/// How long to wait for an answer. Who gives none is no session, or gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// One end. Dropping it gives no more answers.
#[derive(Debug)]
pub(super) struct Parting {
    channel: Channel,
    asked: Arc<Mutex<Option<oneshot::Sender<bool>>>>,
    answering: AbortHandle,
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Parting {
    /// Answers the other end of an open node. `None` if it knows no channels.
    pub(super) fn begin(core: &Arc<Core>, peer: PeerNumber, node: &Node) -> Option<Self> {
        let channel = node.reserved_channel(CHANNEL).ok()?;
        let asked: Arc<Mutex<Option<oneshot::Sender<bool>>>> = Arc::default();
        let mut messages = channel.messages();
        let (core, node, answers, waiting) = (Arc::downgrade(core), node.clone(), channel.clone(), asked.clone());
        let answering = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match message {
                    Message::Json(Value::Bool(may)) => {
                        // Nobody may have asked.
                        let _ = lock(&waiting).take().map(|asked| asked.send(may));
                    }
                    Message::Json(question) if question == QUESTION => {
                        let Some(core) = core.upgrade() else { return };
                        let may = core.may_part(peer, &node);
                        drop(core);
                        if answers.send(Value::Bool(may)).await.is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        Some(Self { channel, asked, answering: answering.abort_handle() })
    }

    /// Asks whether this end may close the connection, and waits for the answer for 2 seconds at most.
    pub(super) async fn ask(&self) -> bool {
        let (sender, answer) = oneshot::channel();
        *lock(&self.asked) = Some(sender);
        if self.channel.send(QUESTION).await.is_err() {
            return true;
        }
        timeout(PATIENCE, answer).await.ok().and_then(Result::ok).unwrap_or(true)
    }
}
