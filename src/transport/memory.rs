//! Links within the process, for tests: they work under a paused clock, and can be watched and cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{
    Command, Framing, Link, LinkEvent, Outgoing, Pipe, Remote, StreamAction, Target, Transport, WhenFull, WireMessage,
};
use crate::error::CloseReason;
use crate::identity::PeerId;
use crate::lock::lock;
use crate::protocol::proof::Fingerprint;
use crate::protocol::signal::{Candidate, Description, DescriptionKind};

/// One end of a link that is being made.
struct End {
    pipe: Arc<Pipe>,
    remote: Option<Remote>,
    peer: Option<u64>,
    peer_id: Option<PeerId>,
    commands: mpsc::Receiver<Command>,
}

#[derive(Default)]
struct State {
    next: u64,
    ends: HashMap<u64, End>,
}

/// Makes links for [`Target::Offer`] and [`Target::Answer`]: the descriptions name the two ends.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
}

impl Memory {
    fn sdp(end: u64) -> String {
        let fingerprint = Fingerprint::of_certificate(&end.to_be_bytes()).line();
        format!("memory {end}\r\n{fingerprint}a=ice-ufrag:u{end}\r\n")
    }

    fn parse(description: &Description) -> Option<u64> {
        description.sdp.strip_prefix("memory ")?.split_once('\r')?.0.parse().ok()
    }

    fn describe(&self, end: u64, pipe: Arc<Pipe>, kind: DescriptionKind) {
        tokio::spawn(async move {
            let candidate = Candidate {
                candidate: format!("candidate of {end}"),
                username_fragment: Some(format!("u{end}")),
                ..Candidate::default()
            };
            pipe.emit(LinkEvent::Candidate(candidate)).await;
            pipe.emit(LinkEvent::Description(Description { kind, sdp: Self::sdp(end) })).await;
        });
    }

    /// Both descriptions are exchanged: takes both ends out and lets them talk.
    fn join(&self, a: u64, b: u64) {
        let mut state = lock(&self.state);
        if let (Some(a), Some(b)) = (state.ends.remove(&a), state.ends.remove(&b)) {
            tokio::spawn(run(a, b));
        }
    }
}

impl Transport for Memory {
    fn start(&self, target: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(128);
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let end = state.next;
        let (remote, peer, kind) = match target {
            Target::Offer => (None, None, DescriptionKind::Offer),
            Target::Answer { offer, remote } => (Some(remote), Self::parse(&offer), DescriptionKind::Answer),
            Target::Url(_) => unreachable!("not for this transport"),
        };
        state.ends.insert(end, End { pipe: pipe.clone(), remote, peer, peer_id: None, commands: receiver });
        drop(state);
        self.describe(end, pipe, kind);
        Box::new(Handle { end, memory: self.clone(), commands })
    }
}

struct Handle {
    end: u64,
    memory: Memory,
    commands: mpsc::Sender<Command>,
}

impl Link for Handle {
    fn command(&self, command: Command) {
        match command {
            Command::Answer { description, remote } => {
                let peer = Memory::parse(&description);
                if let Some(end) = self.memory.state.lock().unwrap().ends.get_mut(&self.end) {
                    end.remote = Some(remote);
                    end.peer = peer;
                }
                if let Some(peer) = peer {
                    self.memory.join(self.end, peer);
                }
            }
            Command::Confirm(confirmation) => {
                if let Some(end) = self.memory.state.lock().unwrap().ends.get_mut(&self.end) {
                    end.peer_id = Some(confirmation.peer_id());
                }
            }
            other => drop(self.commands.try_send(other)),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.memory.state).ends.remove(&self.end);
    }
}

async fn run(mut a: End, mut b: End) {
    for end in [&a, &b] {
        let (framing, extension) = match end.remote {
            Some(Remote::Pmesh { window, max_message }) => (Framing::Packets { window, max_message }, true),
            _ => (Framing::Plain { max_message: 65_536 }, false),
        };
        end.pipe.open(framing, end.peer_id);
        end.pipe.emit(LinkEvent::Opened { extension }).await;
    }
    let mut tasks = JoinSet::new();
    for (from, to) in [(a.pipe.clone(), b.pipe.clone()), (b.pipe.clone(), a.pipe.clone())] {
        tasks.spawn(async move {
            loop {
                let delivered = match from.next_outgoing().await {
                    Outgoing::Text(text) => to.deliver(WireMessage::Text(text.freeze()), WhenFull::Overflow).await,
                    Outgoing::Binary(bytes) => {
                        to.deliver(WireMessage::Binary(bytes.freeze()), WhenFull::Overflow).await
                    }
                    Outgoing::Stream { id, action } => match action {
                        StreamAction::Open(_) => {
                            from.stream_opened(id);
                            Ok(())
                        }
                        StreamAction::Send { lossy, packet } => to.deliver_on_stream(lossy, packet.freeze()),
                    },
                    Outgoing::Finished => break (from, CloseReason::Local, to, CloseReason::Remote),
                };
                if let Err(reason) = delivered {
                    let other = if reason == CloseReason::Remote { CloseReason::Local } else { CloseReason::Remote };
                    break (from, other, to, reason);
                }
            }
        });
    }
    let ended = loop {
        tokio::select! {
            command = a.commands.recv() => match command {
                Some(Command::Close) => a.pipe.start_closing(),
                Some(_) => {}
                None => break (a.pipe.clone(), CloseReason::Local, b.pipe.clone(), CloseReason::Remote),
            },
            command = b.commands.recv() => match command {
                Some(Command::Close) => b.pipe.start_closing(),
                Some(_) => {}
                None => break (b.pipe.clone(), CloseReason::Local, a.pipe.clone(), CloseReason::Remote),
            },
            Some(Ok(ended)) = tasks.join_next() => break ended,
        }
    };
    let (one, reason, other, other_reason) = ended;
    one.finish(reason).await;
    other.finish(other_reason).await;
}

/// An onramp within the process: the target of every [`Target::Url`]. Gives addresses `p1`, `p2`, …, announces nobody, and
/// can be stopped.
#[derive(Clone)]
pub(crate) struct MemoryOnramp {
    peers: Arc<Mutex<Vec<Option<Arc<Pipe>>>>>,
    stop: tokio::sync::watch::Sender<bool>,
    /// Whether it speaks the extension.
    extension: bool,
}

impl MemoryOnramp {
    pub(crate) fn new(extension: bool) -> Self {
        Self { peers: Arc::default(), stop: tokio::sync::watch::Sender::new(false), extension }
    }

    /// Closes every connection.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Puts a frame on the wire to the n-th client.
    pub(crate) async fn inject(&self, to: usize, text: String) {
        let pipe = self.peers.lock().unwrap()[to - 1].clone();
        if let Some(pipe) = pipe {
            pipe.deliver(WireMessage::Text(text.into()), WhenFull::Wait).await.unwrap();
        }
    }

    async fn serve(self, pipe: Arc<Pipe>, mut commands: mpsc::Receiver<Command>) {
        use crate::protocol::frame::{self, Frame, Undeliverable};
        let number = {
            let mut peers = self.peers.lock().unwrap();
            peers.push(Some(pipe.clone()));
            peers.len()
        };
        let own = crate::protocol::Address::new(format!("p{number}")).unwrap();
        pipe.open(Framing::Plain { max_message: 1 << 20 }, None);
        pipe.emit(LinkEvent::Opened { extension: self.extension }).await;
        if self.extension {
            pipe.emit(LinkEvent::Frame(frame::welcome(&own))).await;
        }
        let mut stop = self.stop.subscribe();
        let reason = loop {
            let outgoing = tokio::select! {
                outgoing = pipe.next_outgoing() => outgoing,
                _ = stop.wait_for(|stop| *stop) => break CloseReason::Remote,
                command = commands.recv() => match command {
                    Some(_) => { pipe.start_closing(); continue }
                    None => break CloseReason::Local,
                },
            };
            let Outgoing::Text(text) = outgoing else { break CloseReason::Local };
            let text = String::from_utf8(text.to_vec()).unwrap();
            if let Ok(Frame::Relay { to, payload }) = Frame::parse(&text) {
                let index = to.as_str().strip_prefix('p').and_then(|n| n.parse::<usize>().ok());
                let peer = index.and_then(|n| self.peers.lock().unwrap().get(n - 1).cloned().flatten());
                match peer {
                    Some(peer) => peer.emit(LinkEvent::Frame(frame::relayed(&own, payload.get()))).await,
                    None if self.extension => {
                        let text = frame::undeliverable(&to, Undeliverable::Unknown);
                        pipe.emit(LinkEvent::Frame(text)).await;
                    }
                    None => {}
                }
            }
        };
        self.peers.lock().unwrap()[number - 1] = None;
        pipe.finish(reason).await;
    }
}

impl Transport for MemoryOnramp {
    fn start(&self, _: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(8);
        tokio::spawn(self.clone().serve(pipe, receiver));
        Box::new(Commands(commands))
    }
}

struct Commands(mpsc::Sender<Command>);

impl Link for Commands {
    fn command(&self, command: Command) {
        drop(self.0.try_send(command));
    }
}
