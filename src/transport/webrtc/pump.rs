//! Carries messages between the pipe and the data channels.

use std::sync::Arc;
use std::time::Duration;

use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};
use webrtc::error::Error;
use webrtc::peer_connection::transport::DtlsTransport;

use super::mailbox::Mailbox;
use super::pace::Pace;
use super::runtime::Pump;
use crate::error::CloseReason;
use crate::protocol::proof::Confirmation;
use crate::transport::{Framing, LinkEvent, Outgoing, Pipe, WhenFull, WireMessage};

/// How often to look whether a peer without credit has taken everything, when closing.
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// How long to wait for messages that the driver hands on after the end of their channel.
const LATE_MESSAGES: Duration = Duration::from_millis(10);

/// After so many messages the driver is told to look for more: half of those that it holds before it parks the rest.
const ROUSE_AFTER: u32 = 128;

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
}

impl Channels {
    /// The two halves, for the driver task.
    pub(super) fn into_pump(self) -> Pump {
        let writer = write(self.pipe.clone(), self.mailbox.clone(), self.main.clone(), self.framing);
        Pump { writer: Box::pin(writer), reader: Box::pin(read(self)) }
    }
}

async fn write(pipe: Arc<Pipe>, mailbox: Arc<Mailbox>, channel: Arc<dyn DataChannel>, framing: Framing) {
    loop {
        let sent = match pipe.next_outgoing().await {
            Outgoing::Binary(bytes) => channel.send(bytes).await,
            Outgoing::Text(text) => match std::str::from_utf8(&text) {
                Ok(text) => channel.send_text(text).await,
                Err(error) => {
                    tracing::debug!(%error, "text that is not UTF-8 is not sent");
                    Ok(())
                }
            },
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

async fn read(channels: Channels) {
    let mailbox = channels.mailbox.clone();
    match receive(channels).await {
        Some(reason) => mailbox.end(reason),
        None => mailbox.lost("the connection stopped by itself"),
    }
}

/// Opens the link, then hands on what arrives, until the end. Returns `None` if the driver has gone without a word.
async fn receive(channels: Channels) -> Option<CloseReason> {
    let Channels { pipe, mailbox, pace, main, second, framing, confirmation } = channels;
    loop {
        match main.poll().await {
            Some(DataChannelEvent::OnOpen) => break,
            Some(DataChannelEvent::OnClose) => return Some(CloseReason::Remote),
            Some(_) => {}
            None => return None,
        }
    }
    if let Some((confirmation, dtls)) = confirmation
        && let Err(end) = confirm(&main, &confirmation, dtls).await
    {
        return end;
    }
    tracing::debug!(link = pipe.link().0, "link open");
    mailbox.opened();
    pipe.open(framing);
    let extension = matches!(framing, Framing::Packets { .. });
    pipe.emit(LinkEvent::Opened { extension }).await;
    if second.is_none() {
        pace.settle();
    }
    pace.portion();
    let mut taken = 0u32;
    loop {
        match next(&main, second.as_ref()).await {
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
