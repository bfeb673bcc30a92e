//! Carries messages between the pipe and the data channels.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio::time::Instant;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};
use webrtc::error::Error;
use webrtc::peer_connection::transport::DtlsTransport;

use super::mailbox::{Mailbox, Side};
use super::pace::Pace;
use super::runtime::Pump;
use super::session::Streams;
use super::socket::receive_window;
use crate::error::CloseReason;
use crate::protocol::Reliability;
use crate::protocol::proof::Confirmation;
use crate::transport::{Framing, LinkEvent, Outgoing, Pipe, StreamAction, WhenFull, WireMessage};

/// How often to look whether a peer without credit has taken everything, when closing.
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// How often to look whether more may be sent of what may get lost.
const LOSSY_POLL: Duration = Duration::from_millis(1);

/// How long to wait for messages that the driver hands on after the end of their channel.
const LATE_MESSAGES: Duration = Duration::from_millis(10);

/// After so many messages the driver is told to look for more: half of those that it holds before it parks the rest.
const ROUSE_AFTER: u32 = 128;

/// Bytes that may be on their way on all streams that may lose some. Beside the credit of the link there must be room for
/// them, and for one packet more, in the receive buffer.
const LOSSY_BYTES: usize = 64 * 1024;

/// What a pump works on.
pub(super) struct Channels {
    pub(super) pipe: Arc<Pipe>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) pace: Arc<Pace>,
    /// The channel to send on, and to receive on.
    pub(super) main: Arc<dyn DataChannel>,
    /// A second channel to receive on: towards an original P, the one we created.
    pub(super) second: Option<Arc<dyn DataChannel>>,
    pub(super) framing: Framing,
    /// What is to be confirmed before the link is open, and what knows the other side's certificate. Always there between
    /// pmesh peers.
    pub(super) confirmation: Option<(Box<Confirmation>, Arc<dyn DtlsTransport>)>,
    pub(super) streams: Streams,
}

impl Channels {
    /// The two halves, for the driver task.
    pub(super) fn into_pump(self) -> Pump {
        let (main, framing) = (self.main.clone(), self.framing);
        let own = OwnStreams {
            pipe: self.pipe.clone(),
            mailbox: self.mailbox.clone(),
            streams: self.streams,
            made: HashMap::new(),
            paused: None,
        };
        let reader = Reader {
            pipe: self.pipe,
            mailbox: self.mailbox,
            pace: self.pace,
            main: self.main,
            second: self.second,
            framing,
            confirmation: self.confirmation,
        };
        Pump { writer: Box::pin(write(own, main, framing)), reader: Box::pin(read(reader)) }
    }
}

async fn write(mut own: OwnStreams, channel: Arc<dyn DataChannel>, framing: Framing) {
    let (pipe, mailbox) = (own.pipe.clone(), own.mailbox.clone());
    loop {
        let outgoing = match own.paused {
            None => pipe.next_outgoing().await,
            // However much else there is to be sent.
            Some(since) if since.elapsed() >= LOSSY_POLL => {
                own.pace().await;
                continue;
            }
            Some(since) => tokio::select! {
                biased;
                outgoing = pipe.next_outgoing() => outgoing,
                () = tokio::time::sleep_until(since + LOSSY_POLL) => continue,
            },
        };
        let sent = match outgoing {
            Outgoing::Binary(bytes) => channel.send(bytes).await,
            Outgoing::Text(text) => match std::str::from_utf8(&text) {
                Ok(text) => channel.send_text(text).await,
                Err(error) => {
                    tracing::debug!(%error, "text that is not UTF-8 is not sent");
                    Ok(())
                }
            },
            Outgoing::Stream { id, action } => own.act(id, action).await,
            Outgoing::Finished => break,
        };
        match sent {
            Ok(()) => {}
            // The reader will tell why.
            Err(Error::ErrDataChannelClosed) => return,
            Err(Error::ErrOutboundPacketTooLarge) => tracing::debug!("a message above the negotiated size is not sent"),
            Err(error) => return mailbox.lost(&error.to_string()),
        }
    }
    if let Framing::Plain { .. } = framing {
        // A pmesh peer ends the link when it has read everything; an original does not know that it should.
        while channel.outstanding_bytes().await.is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(FLUSH_POLL).await;
        }
    }
    mailbox.flushed();
}

/// The streams that this side has made. The pipe bounds how many.
struct OwnStreams {
    pipe: Arc<Pipe>,
    mailbox: Arc<Mailbox>,
    streams: Streams,
    made: HashMap<u32, Own>,
    /// When it was last seen that too much is on its way of what may get lost.
    paused: Option<Instant>,
}

struct Own {
    stream: Arc<dyn DataChannel>,
    lossy: bool,
}

impl OwnStreams {
    async fn act(&mut self, id: u32, action: StreamAction) -> Result<(), Error> {
        match action {
            StreamAction::Open(delivery) => {
                let stream = self.streams.open(id, delivery).await?;
                let lossy = delivery.reliability != Reliability::Reliable;
                self.made.insert(id, Own { stream: stream.clone(), lossy });
                self.mailbox.side(Side { id, own: true, lossy, stream });
            }
            StreamAction::Send { lossy, packet } => {
                let Some(own) = self.made.get(&id) else { return Ok(()) };
                match own.stream.send(packet).await {
                    // The reader will tell why.
                    Err(Error::ErrDataChannelClosed) => tracing::debug!(id, "a stream is closed"),
                    sent => sent?,
                }
                if lossy {
                    self.pace().await;
                }
            }
        }
        Ok(())
    }

    /// Lets no more be sent of what may get lost while much of it is on its way, on all streams together.
    async fn pace(&mut self) {
        let mut bytes = 0;
        for own in self.made.values().filter(|own| own.lossy) {
            bytes += own.stream.outstanding_bytes().await.unwrap_or_default();
        }
        let paused = (bytes >= LOSSY_BYTES).then(Instant::now);
        if std::mem::replace(&mut self.paused, paused).is_some() != paused.is_some() {
            self.pipe.pause_lossy(paused.is_some());
        }
    }
}

/// What the reading half works on.
struct Reader {
    pipe: Arc<Pipe>,
    mailbox: Arc<Mailbox>,
    pace: Arc<Pace>,
    main: Arc<dyn DataChannel>,
    second: Option<Arc<dyn DataChannel>>,
    framing: Framing,
    confirmation: Option<(Box<Confirmation>, Arc<dyn DtlsTransport>)>,
}

async fn read(reader: Reader) {
    let mailbox = reader.mailbox.clone();
    match receive(reader).await {
        Some(reason) => mailbox.end(reason),
        None => mailbox.lost("the connection stopped by itself"),
    }
}

/// Opens the link, then hands on what arrives, until the end. Returns `None` if the driver has gone without a word.
async fn receive(reader: Reader) -> Option<CloseReason> {
    let Reader { pipe, mailbox, pace, main, second, framing, confirmation } = reader;
    loop {
        match main.poll().await {
            Some(DataChannelEvent::OnOpen) => break,
            Some(DataChannelEvent::OnClose) => return Some(CloseReason::Remote),
            Some(_) => {}
            None => return None,
        }
    }
    let peer = confirmation.as_ref().map(|(confirmation, _)| confirmation.peer_id());
    if let Some((confirmation, dtls)) = confirmation
        && let Err(end) = confirm(&main, &confirmation, dtls).await
    {
        return end;
    }
    tracing::debug!(link = pipe.link().0, "link open");
    mailbox.opened();
    pipe.open(framing, peer);
    let extension = matches!(framing, Framing::Packets { .. });
    pipe.emit(LinkEvent::Opened { extension }).await;
    if second.is_none() {
        pace.settle();
    }
    pace.portion(receive_window());
    let mut sides =
        Sides { arriving: mailbox.take_sides()?, waiting: None, streams: SelectAll::new(), allowed: extension };
    let mut taken = 0u32;
    loop {
        // What is on the main channel first: it tells what the others are.
        let event = tokio::select! {
            biased;
            event = next(&main, second.as_ref()) => event,
            ended = poll_fn(|cx| sides.poll(&pipe, cx)) => return Some(ended),
        };
        match event {
            Some(DataChannelEvent::OnMessage(message)) => {
                taken = taken.wrapping_add(1);
                if !extension && taken.is_multiple_of(ROUSE_AFTER) {
                    pace.rouse();
                }
                if let Err(reason) = deliver(&pipe, message).await {
                    return Some(reason);
                }
            }
            // Of the second channel: now nothing of the set-up is left.
            Some(DataChannelEvent::OnOpen) => pace.settle(),
            Some(DataChannelEvent::OnClose) => break,
            Some(_) => {}
            None => return None,
        }
    }
    if !extension {
        // The driver tells of the end of a channel before it hands on what arrived in the same batch. Between pmesh
        // peers an orderly end is a message itself.
        while let Ok(Some(event)) = tokio::time::timeout(LATE_MESSAGES, next(&main, second.as_ref())).await {
            if let DataChannelEvent::OnMessage(message) = event
                && let Err(reason) = deliver(&pipe, message).await
            {
                return Some(reason);
            }
        }
    }
    Some(CloseReason::Remote)
}

/// Exchanges the first messages, by which each end proves who it is. An error is the end of the link, see [`receive`].
async fn confirm(
    channel: &Arc<dyn DataChannel>,
    confirmation: &Confirmation,
    dtls: Arc<dyn DtlsTransport>,
) -> Result<(), Option<CloseReason>> {
    let broken = |error: Error| Some(CloseReason::Failed(error.to_string()));
    channel.send(confirmation.message().into()).await.map_err(broken)?;
    let message = loop {
        match channel.poll().await {
            Some(DataChannelEvent::OnMessage(message)) => break message,
            Some(DataChannelEvent::OnClose) => return Err(Some(CloseReason::Remote)),
            Some(_) => {}
            None => return Err(None),
        }
    };
    let certificates = dtls.get_remote_certificates().await.map_err(broken)?;
    let certificate = certificates.first().map_or(&[][..], Vec::as_slice);
    confirmation.check(&message.data, certificate).map_err(|error| Some(CloseReason::Unverified(error.to_string())))
}

/// The streams of channels, of both sides. All are polled as long as they live.
struct Sides {
    arriving: mpsc::Receiver<Side>,
    /// Who is woken when one arrives.
    waiting: Option<Waker>,
    streams: SelectAll<BoxStream<'static, (u32, bool, bool, DataChannelEvent)>>,
    /// Whether the other side may make any.
    allowed: bool,
}

impl Sides {
    /// Hands on what arrives on streams, until the link is over for the reason that it returns. While there are none, it
    /// costs next to nothing: it is polled whenever the main channel is.
    fn poll(&mut self, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.streams.is_empty() && self.arriving.is_empty() && self.waits_for(cx.waker()) {
            return Poll::Pending;
        }
        while let Poll::Ready(Some(side)) = self.poll_arriving(cx) {
            if !self.allowed {
                return Poll::Ready(CloseReason::Protocol("an unexpected data channel".into()));
            }
            self.streams.push(events(side));
        }
        while let Poll::Ready(Some((id, own, lossy, event))) = self.streams.poll_next_unpin(cx) {
            match event {
                DataChannelEvent::OnOpen if own => pipe.stream_opened(id),
                // What its channels send could never arrive. Streams stay, so this is the end of the link, or comes to it.
                DataChannelEvent::OnClose if own => return Poll::Ready(CloseReason::Remote),
                DataChannelEvent::OnMessage(message) if !own => {
                    if let Err(reason) = pipe.deliver_on_stream(lossy, message.data.freeze()) {
                        return Poll::Ready(reason);
                    }
                }
                _ => {}
            }
        }
        Poll::Pending
    }

    /// Whether this is who is woken when a stream arrives.
    fn waits_for(&self, waker: &Waker) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker))
    }

    fn poll_arriving(&mut self, cx: &mut Context<'_>) -> Poll<Option<Side>> {
        // Without the budget of the task: so if it is pending, who asked is woken.
        let polled = pin!(unconstrained(poll_fn(|cx| self.arriving.poll_recv(cx)))).poll(cx);
        if !self.waits_for(cx.waker()) {
            self.waiting = Some(cx.waker().clone());
        }
        polled
    }
}

/// What happens on a stream, until its end.
fn events(side: Side) -> BoxStream<'static, (u32, bool, bool, DataChannelEvent)> {
    let Side { id, own, lossy, stream } = side;
    let events = stream::unfold(Some(stream), |stream| async {
        let stream = stream?;
        let event = stream.poll().await?;
        let closed = matches!(event, DataChannelEvent::OnClose);
        Some((event, (!closed).then_some(stream)))
    });
    events.map(move |event| (id, own, lossy, event)).boxed()
}

async fn next(main: &Arc<dyn DataChannel>, second: Option<&Arc<dyn DataChannel>>) -> Option<DataChannelEvent> {
    match second {
        None => main.poll().await,
        Some(second) => tokio::select! {
            event = main.poll() => event,
            event = second.poll() => event,
        },
    }
}

async fn deliver(pipe: &Pipe, message: RTCDataChannelMessage) -> Result<(), CloseReason> {
    let data = message.data.freeze();
    let message = if message.is_string { WireMessage::Text(data) } else { WireMessage::Binary(data) };
    pipe.deliver(message, WhenFull::Overflow).await
}
