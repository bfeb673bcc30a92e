//! Real WebRTC over 127.0.0.1.

mod closing;
mod hostile;
mod identity;
mod loss;
mod messages;
mod negotiation;
mod shared;
mod streams;
mod turn;

pub(crate) use loss::Loss;

use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

use crate::identity::Identity;
use crate::protocol::limits::MAX_MESSAGE_BYTES;
use crate::protocol::packet::Kind;
use crate::protocol::proof::{Base64, Confirmation, Offered, Terms};
use crate::protocol::signal::{Candidate, Description, DescriptionKind, Session};
use crate::transport::pipe::{Rejected, Subscription};
use crate::transport::{LinkEvent, LinkId, Queues, Remote};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

fn loopback() -> WebRtc {
    WebRtc::new(config())
}

fn config() -> WebRtcConfig {
    WebRtcConfig { bind: vec!["127.0.0.1:0".parse().unwrap()], mdns: false, ..WebRtcConfig::default() }
}

fn pmesh() -> Remote {
    Remote::Pmesh { window: credit_window(), max_message: None }
}

struct Peer {
    link: Option<Box<dyn Link>>,
    pipe: Arc<Pipe>,
    events: mpsc::Receiver<(LinkId, LinkEvent)>,
}

impl Peer {
    fn start(transport: &WebRtc, target: Target) -> Self {
        let (sender, events) = mpsc::channel(64);
        let pipe = Pipe::new(LinkId(1), sender, Queues::new(credit_window(), MAX_MESSAGE_BYTES));
        let link = transport.start(target, pipe.clone());
        Self { link: Some(link), pipe, events }
    }

    fn command(&self, command: Command) {
        self.link.as_ref().unwrap().command(command);
    }

    async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.unwrap().1
    }

    async fn description(&mut self) -> Description {
        match self.event().await {
            LinkEvent::Description(description) => description,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> CloseReason {
        loop {
            match self.event().await {
                LinkEvent::Closed(reason) => {
                    // As the driver does.
                    self.pipe.queues().shut();
                    return reason;
                }
                LinkEvent::Description(_) | LinkEvent::Candidate(_) | LinkEvent::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn closed_unopened(&mut self) -> CloseReason {
        match self.event().await {
            LinkEvent::Closed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn opened(&mut self) -> bool {
        match self.event().await {
            LinkEvent::Opened { extension } => extension,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, kind: Kind, body: impl Into<Bytes>) {
        soon(self.pipe.queues().send(self.pipe.queues().main(), kind, body.into())).await.unwrap();
    }
}

async fn next(messages: &mut Subscription) -> Option<(Kind, Bytes)> {
    soon(poll_fn(|cx| messages.poll_next(cx))).await
}

/// What the two ends have to confirm: the offerer, then the answerer.
fn confirmations(offer: &Description, answer: &Description) -> [Confirmation; 2] {
    let [offerer, answerer] = [1, 2].map(|n| Identity::from_secret([n; 32]));
    let terms = Terms { session: Session(1), window: credit_window(), max_message: None };
    let (_, offered) = Offered::sign(&offerer, Base64([1; 16]), terms, &Value::Null, &offer.sdp).unwrap();
    let (proof, of_answerer) = offered.sign_answer(&answerer, Base64([2; 16]), terms, &answer.sdp).unwrap();
    [offered.verify_answer(&offerer, &proof, terms, &answer.sdp).unwrap(), of_answerer]
}

/// Brings the answer, and to both what they have to confirm.
fn join(offerer: &Peer, offer: &Description, answerer: &Peer, answer: Description) {
    let [ours, theirs] = confirmations(offer, &answer);
    answerer.command(Command::Confirm(Box::new(theirs)));
    offerer.command(Command::Confirm(Box::new(ours)));
    offerer.command(Command::Answer { description: answer, remote: pmesh() });
}

async fn open_with(transport: &WebRtc, remote: Remote) -> (Peer, Peer) {
    open_between(transport, transport, remote).await
}

/// Waits until an end is open. Passes candidates on: on a busy machine they miss the description.
async fn opened(events: &mut mpsc::Receiver<(LinkId, LinkEvent)>, other: &dyn Link) -> bool {
    loop {
        match soon(events.recv()).await.unwrap().1 {
            LinkEvent::Opened { extension } => return extension,
            LinkEvent::Candidate(candidate) => other.command(Command::Candidate(candidate)),
            other => panic!("{other:?}"),
        }
    }
}

/// Brings offer and answer. The offerer comes first.
async fn negotiate(here: &WebRtc, there: &WebRtc, remote: Remote) -> (Peer, Peer) {
    let mut offerer = Peer::start(here, Target::Offer);
    let offer = offerer.description().await;
    let mut answerer = Peer::start(there, Target::Answer { offer: offer.clone(), remote });
    let description = answerer.description().await;
    assert!(description.sdp.contains("a=setup:active") || description.sdp.contains("a=setup:passive"));
    if remote == Remote::Original {
        offerer.command(Command::Answer { description, remote });
    } else {
        join(&offerer, &offer, &answerer, description);
    }
    (offerer, answerer)
}

/// Waits until both ends are open.
async fn both_opened((offerer, answerer): &mut (Peer, Peer)) -> (bool, bool) {
    tokio::join!(
        opened(&mut offerer.events, answerer.link.as_deref().unwrap()),
        opened(&mut answerer.events, offerer.link.as_deref().unwrap()),
    )
}

async fn open_between(here: &WebRtc, there: &WebRtc, remote: Remote) -> (Peer, Peer) {
    let mut ends = negotiate(here, there, remote).await;
    let extension = remote != Remote::Original;
    assert_eq!(both_opened(&mut ends).await, (extension, extension));
    ends
}

async fn open() -> (Peer, Peer) {
    open_with(&loopback(), pmesh()).await
}

async fn echo(a: &Peer, b: &Peer, kind: Kind, body: Bytes) {
    let (mut at_a, mut at_b) =
        (a.pipe.queues().subscribe(a.pipe.queues().main()), b.pipe.queues().subscribe(b.pipe.queues().main()));
    a.send(kind, body.clone()).await;
    let got = next(&mut at_b).await.unwrap();
    assert!(got == (kind, body.clone()), "{} bytes there", body.len());
    b.send(kind, got.1).await;
    assert!(next(&mut at_a).await.unwrap() == (kind, body.clone()), "{} bytes back", body.len());
}

fn json(length: usize) -> Bytes {
    match length {
        0 => "".into(),
        1 => "1".into(),
        _ => format!("\"{}\"", "x".repeat(length - 2)).into(),
    }
}

/// The task of a link lives as long as the link: what only the set-up needs has to be boxed.
#[test]
fn the_task_of_a_link_is_small() {
    let (_commands, receiver) = mpsc::channel(1);
    let (sender, _events) = mpsc::channel(1);
    let pipe = Pipe::new(LinkId(1), sender, Queues::new(credit_window(), MAX_MESSAGE_BYTES));
    let task = link::run(Arc::default(), Target::Offer, pipe, receiver, Mailbox::new());
    let size = std::mem::size_of_val(&task);
    println!("{size} bytes");
    assert!(size <= 4096, "{size}");
}
