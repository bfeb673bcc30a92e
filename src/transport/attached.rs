//! A link that is a task of this program: what other layers attach to a root as a node.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::{Command, Link, Pipe, Target, Transport};
use crate::error::CloseReason;
use crate::lock::lock;

/// A transport for one node, whose link `run` carries. Its commands are only to close, and end when the link is dropped. Another node over
/// it fails, because of `once`.
pub(crate) fn attached<R>(
    once: &'static str,
    run: impl FnOnce(Arc<Pipe>, mpsc::Receiver<Command>) -> R + Send + 'static,
) -> Arc<dyn Transport>
where
    R: Future<Output = ()> + Send + 'static,
{
    Arc::new(Attached { run: Mutex::new(Some(run)), once })
}

/// Until its link is started.
struct Attached<F> {
    run: Mutex<Option<F>>,
    once: &'static str,
}

impl<F, R> Transport for Attached<F>
where
    F: FnOnce(Arc<Pipe>, mpsc::Receiver<Command>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn start(&self, _: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(1);
        match lock(&self.run).take() {
            Some(run) => drop(tokio::spawn(run(pipe, receiver))),
            None => {
                let why = self.once;
                tokio::spawn(async move { pipe.finish(CloseReason::Failed(why.into())).await });
            }
        }
        Box::new(Handle(commands))
    }
}

/// Dropping it closes the channel, which ends the task.
struct Handle(mpsc::Sender<Command>);

impl Link for Handle {
    fn command(&self, command: Command) {
        // The only command is to close: one in the channel is enough.
        let _ = self.0.try_send(command);
    }
}
