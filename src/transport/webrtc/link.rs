//! The task of one link.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use webrtc::data_channel::DataChannel;

use super::WebRtcConfig;
use super::mailbox::{Mailbox, News};
use super::pump::Channels;
use super::session::{Purpose, Session};
use crate::error::CloseReason;
use crate::protocol::limits::MAX_PACKET_BYTES;
use crate::protocol::proof::Confirmation;
use crate::protocol::signal::{Description, DescriptionKind};
use crate::transport::{Command, Framing, LinkEvent, Pipe, Remote, Target};

/// How long closing may take: to send what is queued, and for the other side to take it.
const CLOSING: Duration = Duration::from_secs(2);

/// How long the reader of a closed connection may take to hand on what had arrived.
const DRAINING: Duration = Duration::from_secs(2);

/// The largest message accepted of an original P, and offered to anybody: what Chromium uses, and the crate's maximum.
const LARGE_MESSAGE: u32 = 262_144;

/// The largest message accepted of a pmesh peer, whose packets are smaller: it decides the size of two buffers.
const PACKET_MESSAGE: u32 = 65_536;

const _: () = assert!(MAX_PACKET_BYTES <= PACKET_MESSAGE as usize);

/// Makes the link, runs it to its end, and closes the connection. Ends by itself once the command channel is closed.
pub(super) async fn run(
    config: Arc<WebRtcConfig>,
    target: Target,
    pipe: Arc<Pipe>,
    commands: mpsc::Receiver<Box<Command>>,
    mailbox: Arc<Mailbox>,
) {
    let mut session = None;
    let mut task = LinkTask { config, pipe: pipe.clone(), commands, mailbox: mailbox.clone() };
    let mut end = task.run(target, &mut session).await;
    if task.commands.is_closed() {
        end = End::Dropped;
    }
    mailbox.shut();
    if let Some(session) = session {
        session.close().await;
    }
    match end {
        End::Told(reason) => {
            tracing::debug!(link = pipe.link().0, %reason, "link closed");
            pipe.finish(reason).await;
        }
        End::Dropped => {
            tracing::debug!(link = pipe.link().0, "link dropped");
        }
    }
}

enum End {
    /// The tree is to be told.
    Told(CloseReason),
    /// The handle was dropped.
    Dropped,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Told(reason)
    }
}

enum Phase {
    /// Our offer is out.
    Offered { own: Arc<dyn DataChannel>, confirmation: Option<Box<Confirmation>> },
    /// Both descriptions are known; the channel to send on is still to come from the other side, and, of a pmesh peer,
    /// what is to be confirmed.
    Awaiting(Awaited),
    /// The pump has been started. Open, or about to be.
    Pumping { plain: bool },
    /// Our side closes.
    Closing { plain: bool },
}

struct Awaited {
    own: Option<Arc<dyn DataChannel>>,
    framing: Framing,
    channel: Option<Arc<dyn DataChannel>>,
    confirmation: Option<Box<Confirmation>>,
}

struct LinkTask {
    config: Arc<WebRtcConfig>,
    pipe: Arc<Pipe>,
    commands: mpsc::Receiver<Box<Command>>,
    mailbox: Arc<Mailbox>,
}

impl LinkTask {
    async fn run(&mut self, target: Target, slot: &mut Option<Session>) -> End {
        let made = match target {
            Target::Url(_) => return CloseReason::Failed("a URL is no WebRTC target".into()).into(),
            Target::Offer => self.offer(slot).await,
            Target::Answer { offer, remote } => self.answer(slot, offer, remote).await,
        };
        match (made, slot) {
            (Ok(phase), Some(session)) => self.steer(session, phase).await,
            (Ok(_), None) => CloseReason::Failed("no connection was made".into()).into(),
            (Err(reason), _) => reason.into(),
        }
    }

    async fn offer(&mut self, slot: &mut Option<Session>) -> Result<Phase, CloseReason> {
        let purpose = Purpose { offer: true, max_message: LARGE_MESSAGE, mdns: self.config.mdns };
        let built = Session::build(&self.config, &self.mailbox, purpose).await.map_err(failed)?;
        let session = slot.insert(built);
        let own = session.create_channel().await.map_err(failed)?;
        self.describe(session, DescriptionKind::Offer).await?;
        Ok(Phase::Offered { own, confirmation: None })
    }

    async fn answer(
        &mut self,
        slot: &mut Option<Session>,
        offer: Description,
        remote: Remote,
    ) -> Result<Phase, CloseReason> {
        let original = remote == Remote::Original;
        let purpose = if original {
            Purpose { offer: false, max_message: LARGE_MESSAGE, mdns: self.config.mdns }
        } else {
            Purpose { offer: false, max_message: PACKET_MESSAGE, mdns: false }
        };
        let built = Session::build(&self.config, &self.mailbox, purpose).await.map_err(failed)?;
        let session = slot.insert(built);
        session.set_remote(offer).await.map_err(failed)?;
        // An original P says that it is open when it gets a channel.
        let own = if original { Some(session.create_channel().await.map_err(failed)?) } else { None };
        self.describe(session, DescriptionKind::Answer).await?;
        let framing = framing(session, remote).await?;
        Ok(Phase::Awaiting(Awaited { own, framing, channel: None, confirmation: None }))
    }

    async fn describe(&mut self, session: &mut Session, kind: DescriptionKind) -> Result<(), CloseReason> {
        // Without servers to ask, gathering is immediate: then the description holds everything.
        let wait = self.config.ice_servers.is_empty();
        let description = session.describe(kind, wait).await.map_err(failed)?;
        self.pipe.emit(LinkEvent::Description(description)).await;
        Ok(())
    }

    /// Obeys commands and follows events until the end.
    async fn steer(&mut self, session: &mut Session, mut phase: Phase) -> End {
        let mut deadline: Option<(Instant, CloseReason)> = None;
        loop {
            let due = deadline.as_ref().map_or_else(Instant::now, |(due, _)| *due);
            let next = tokio::select! {
                biased;
                news = self.mailbox.news() => self.follow(session, phase, news).await,
                command = self.commands.recv() => match command {
                    None => return End::Dropped,
                    Some(command) => self.obey(session, phase, *command).await,
                },
                () = tokio::time::sleep_until(due), if deadline.is_some() => {
                    return deadline.map_or(CloseReason::Local, |(_, reason)| reason).into();
                }
            };
            phase = match next {
                Next::Go(phase) => phase,
                Next::Within(time, reason, phase) => {
                    deadline.get_or_insert((Instant::now() + time, reason));
                    phase
                }
                Next::End(reason) => return reason.into(),
            };
        }
    }

    async fn obey(&mut self, session: &mut Session, phase: Phase, command: Command) -> Next {
        match (command, phase) {
            (Command::Confirm(confirmation), Phase::Offered { own, .. }) => {
                Next::Go(Phase::Offered { own, confirmation: Some(confirmation) })
            }
            (Command::Confirm(confirmation), Phase::Awaiting(awaited)) => {
                Next::Go(self.proceed(session, Awaited { confirmation: Some(confirmation), ..awaited }).await)
            }
            (Command::Answer { description, remote }, Phase::Offered { own, confirmation }) => {
                match self.accept(session, own, confirmation, description, remote).await {
                    Ok(phase) => Next::Go(phase),
                    Err(reason) => Next::End(reason),
                }
            }
            (Command::Candidate(candidate), phase @ (Phase::Awaiting(_) | Phase::Pumping { .. })) => {
                session.add_candidate(candidate).await;
                Next::Go(phase)
            }
            (Command::Close, Phase::Pumping { plain }) if self.mailbox.is_open() => {
                self.pipe.start_closing();
                Next::Within(CLOSING, CloseReason::Local, Phase::Closing { plain })
            }
            (Command::Close, Phase::Offered { .. } | Phase::Awaiting(_) | Phase::Pumping { .. }) => {
                Next::End(CloseReason::Local)
            }
            (command, phase) => {
                tracing::debug!(?command, "a command that does not fit is ignored");
                Next::Go(phase)
            }
        }
    }

    async fn accept(
        &mut self,
        session: &mut Session,
        own: Arc<dyn DataChannel>,
        confirmation: Option<Box<Confirmation>>,
        answer: Description,
        remote: Remote,
    ) -> Result<Phase, CloseReason> {
        session.set_remote(answer).await.map_err(failed)?;
        let framing = framing(session, remote).await?;
        let awaited = match remote {
            Remote::Original => Awaited { own: Some(own), framing, channel: None, confirmation: None },
            Remote::Pmesh { .. } => Awaited { own: None, framing, channel: Some(own), confirmation },
        };
        Ok(self.proceed(session, awaited).await)
    }

    /// Starts the pump if nothing is missing.
    async fn proceed(&self, session: &Session, awaited: Awaited) -> Phase {
        let plain = matches!(awaited.framing, Framing::Plain { .. });
        let Awaited { own: second, framing, channel: Some(main), confirmation } = awaited else {
            return Phase::Awaiting(awaited);
        };
        let confirmation = match (confirmation, session.dtls().await) {
            (Some(confirmation), Some(dtls)) => Some((confirmation, dtls)),
            (None, _) if plain => None,
            (confirmation, _) => {
                return Phase::Awaiting(Awaited { own: second, framing, channel: Some(main), confirmation });
            }
        };
        let (pipe, mailbox, pace) = (self.pipe.clone(), self.mailbox.clone(), session.runtime.pace().clone());
        let streams = session.streams();
        let channels = Channels { pipe, mailbox, pace, main, second, framing, confirmation, streams };
        session.runtime.attach(channels.into_pump());
        Phase::Pumping { plain }
    }

    async fn follow(&mut self, session: &mut Session, mut phase: Phase, news: News) -> Next {
        if self.mailbox.is_open()
            && let Some(ports) = session.runtime.ports()
        {
            ports.opened();
        }
        for candidate in news.candidates {
            if let Some(candidate) = session.to_send(candidate) {
                self.pipe.emit(LinkEvent::Candidate(candidate)).await;
            }
        }
        if let Some(channel) = news.channel {
            session.runtime.pace().hurry();
            phase = match phase {
                Phase::Awaiting(awaited @ Awaited { channel: None, .. }) => {
                    self.proceed(session, Awaited { channel: Some(channel), ..awaited }).await
                }
                Phase::Closing { .. } => phase,
                Phase::Offered { .. } | Phase::Awaiting(_) | Phase::Pumping { .. } => {
                    return Next::End(CloseReason::Protocol("an unexpected data channel".into()));
                }
            };
        }
        if let Some(reason) = news.ended {
            return Next::End(if matches!(phase, Phase::Closing { .. }) { CloseReason::Local } else { reason });
        }
        if news.flushed && matches!(phase, Phase::Closing { plain: true }) {
            return Next::End(CloseReason::Local);
        }
        if news.closed {
            if !self.mailbox.is_open() {
                return Next::End(CloseReason::Remote);
            }
            return Next::Within(DRAINING, CloseReason::Remote, phase);
        }
        Next::Go(phase)
    }
}

enum Next {
    Go(Phase),
    /// Go on, but no longer than this; then end for this reason.
    Within(Duration, CloseReason, Phase),
    End(CloseReason),
}

async fn framing(session: &Session, remote: Remote) -> Result<Framing, CloseReason> {
    let max_message = session.max_message().await;
    match remote {
        Remote::Original => Ok(Framing::Plain { max_message }),
        Remote::Pmesh { .. } if max_message < MAX_PACKET_BYTES => {
            Err(CloseReason::Protocol(format!("the other side takes messages of {max_message} bytes only")))
        }
        Remote::Pmesh { window, max_message } => Ok(Framing::Packets { window, max_message }),
    }
}

fn failed(error: webrtc::error::Error) -> CloseReason {
    CloseReason::Failed(error.to_string())
}
