//! Builds a connection, and describes it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::mdns::MulticastSocket;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use webrtc::data_channel::{DataChannel, RTCDataChannelInit};
use webrtc::error::{Error, Result};
use webrtc::peer_connection::transport::DtlsTransport;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, RTCConfigurationBuilder, RTCIceCandidateInit, RTCIceServer,
    RTCSessionDescription, SettingEngineBuilder,
};

use super::mailbox::{Callbacks, LOSSY_STREAM_PROTOCOL, Mailbox, STREAM_PROTOCOL};
use super::runtime::LinkRuntime;
use super::shared::LinkPorts;
use super::{WebRtcConfig, addresses, socket};
use crate::protocol::limits::{DEFAULT_REMOTE_MESSAGE_BYTES, MAX_CANDIDATE_BYTES};
use crate::protocol::signal::{Candidate, Description, DescriptionKind};
use crate::protocol::{Delivery, P_PROTOCOL, Reliability};

/// Bytes that may be on their way on one channel before sending waits. Between pmesh peers the credit is smaller; this
/// is what slows us down towards an original P.
const SEND_BUFFER_BYTES: usize = 1_000_000;

/// How long to wait for local candidates before the description goes out, when no server has to be asked.
const GATHERING: Duration = Duration::from_millis(50);

/// Candidates of the other side that are used. Further ones are ignored: each costs checks and memory.
pub(super) const MAX_REMOTE_CANDIDATES: usize = 64;

/// What the connection is to be made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose {
    /// Whether it is to be offered, not to answer.
    pub(super) offer: bool,
    /// The largest message accepted, in bytes.
    pub(super) max_message: u32,
    /// Whether the other side may send `.local` candidates.
    pub(super) mdns: bool,
}

/// A connection that is being made, or is open.
pub(super) struct Session {
    connection: Arc<dyn PeerConnection>,
    pub(super) runtime: Arc<LinkRuntime>,
    mailbox: Arc<Mailbox>,
    /// The local description, for the candidates in it.
    sdp: String,
    user_fragment: Option<String>,
    remote_candidates: usize,
}

impl Session {
    /// Binds sockets and starts the driver.
    ///
    /// # Errors
    ///
    /// No socket could be bound, or a server of the configuration is malformed.
    pub(super) async fn build(config: &WebRtcConfig, mailbox: &Arc<Mailbox>, purpose: Purpose) -> Result<Self> {
        // Boxed: else the link task, which waits for this once, would stay as large as it needs to be for it.
        Box::pin(Self::make(config, mailbox, purpose)).await
    }

    async fn make(config: &WebRtcConfig, mailbox: &Arc<Mailbox>, purpose: Purpose) -> Result<Self> {
        let mdns = purpose.mdns && has_multicast();
        let none = Some(Duration::ZERO);
        let ports = config.ports.as_ref().map(|ports| ports.enter(config, purpose.offer)).transpose();
        let ports = ports.map_err(|error| Error::Other(error.to_string()))?;
        let mut settings = SettingEngineBuilder::new()
            .with_ice_timeouts(Some(config.disconnected_after), Some(config.failed_after), Some(config.keepalive))
            .with_host_acceptance_min_wait(none)
            .with_srflx_acceptance_min_wait(none)
            .with_prflx_acceptance_min_wait(none)
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(purpose.max_message))
            .with_sctp_max_receive_buffer_size(socket::receive_window())
            .with_multicast_dns_mode(if mdns { MulticastDnsMode::QueryOnly } else { MulticastDnsMode::Disabled });
        if let Some(ports) = &ports {
            settings = settings.with_ice_credentials(ports.user.clone(), ports.password.clone());
        }
        let servers = config.ice_servers.iter().map(|server| RTCIceServer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: server.credential.clone(),
        });
        let addresses = ports.as_ref().map_or_else(|| addresses::to_bind(config), LinkPorts::to_bind);
        let runtime = LinkRuntime::new(mailbox.clone(), config.keepalive, ports);
        #[cfg(test)]
        if let Some(loss) = &config.loss {
            runtime.lose(loss.clone());
        }
        let connection = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::default().with_ice_servers(servers.collect()).build())
            .with_setting_engine(settings.build())
            .with_handler(Arc::new(Callbacks(mailbox.clone())))
            .with_runtime(runtime.clone())
            .with_udp_addrs(addresses)
            .with_data_channel_send_buffer_limit(SEND_BUFFER_BYTES)
            .build()
            .await?;
        Ok(Self {
            connection: Arc::new(connection),
            runtime,
            mailbox: mailbox.clone(),
            sdp: String::new(),
            user_fragment: None,
            remote_candidates: 0,
        })
    }

    /// Creates our data channel.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub(super) async fn create_channel(&self) -> Result<Arc<dyn DataChannel>> {
        let init = RTCDataChannelInit { protocol: P_PROTOCOL.into(), ..RTCDataChannelInit::default() };
        self.connection.create_data_channel(P_PROTOCOL, Some(init)).await
    }

    /// What makes streams, as long as the connection is there.
    pub(super) fn streams(&self) -> Streams {
        Streams(Arc::downgrade(&self.connection))
    }

    /// Makes and applies the offer or the answer, with the candidates that are known by then.
    ///
    /// # Errors
    ///
    /// An answer to an offer without a data channel, or the connection is closed.
    pub(super) async fn describe(&mut self, kind: DescriptionKind, wait: bool) -> Result<Description> {
        let description = match kind {
            DescriptionKind::Offer => self.connection.create_offer(None).await?,
            DescriptionKind::Answer => self.connection.create_answer(None).await?,
        };
        self.connection.set_local_description(description.clone()).await?;
        if wait && tokio::time::timeout(GATHERING, self.mailbox.gathered()).await.is_err() {
            tracing::debug!("local candidates are not complete yet, the rest is trickled");
        }
        let sdp = self.outward(self.connection.local_description().await.unwrap_or(description).sdp);
        self.user_fragment = attribute(&sdp, "ice-ufrag").map(str::to_owned);
        self.sdp.clone_from(&sdp);
        Ok(Description { kind, sdp })
    }

    /// Applies the other side's description.
    ///
    /// # Errors
    ///
    /// It is malformed, or does not fit.
    pub(super) async fn set_remote(&mut self, description: Description) -> Result<()> {
        let candidates = description.sdp.matches("a=candidate:").count();
        if candidates > MAX_REMOTE_CANDIDATES {
            return Err(Error::Other(format!("{candidates} candidates in a description")));
        }
        self.remote_candidates = candidates;
        let description = match description.kind {
            DescriptionKind::Offer => RTCSessionDescription::offer(description.sdp)?,
            DescriptionKind::Answer => RTCSessionDescription::answer(description.sdp)?,
        };
        contain(self.connection.set_remote_description(description)).await?;
        self.runtime.pace().hurry();
        Ok(())
    }

    /// Adds a candidate of the other side. One that cannot be used is ignored.
    pub(super) async fn add_candidate(&mut self, candidate: Candidate) {
        if candidate.candidate.is_empty() {
            return;
        }
        self.remote_candidates += 1;
        if self.remote_candidates > MAX_REMOTE_CANDIDATES || candidate.candidate.len() > MAX_CANDIDATE_BYTES {
            tracing::debug!("too many or too long candidates: one is ignored");
            return;
        }
        let init = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: candidate.sdp_mid,
            sdp_mline_index: candidate.sdp_m_line_index,
            username_fragment: candidate.username_fragment,
            url: None,
        };
        if let Err(error) = contain(self.connection.add_ice_candidate(init)).await {
            tracing::debug!(%error, "a candidate cannot be used");
        }
        self.runtime.pace().hurry();
    }

    /// A local candidate as it is to be sent, or `None` if the description has it already.
    pub(super) fn to_send(&self, candidate: String) -> Option<Candidate> {
        let candidate = self.outward(candidate);
        if candidate.is_empty() || self.sdp.contains(&candidate) {
            return None;
        }
        Some(Candidate {
            candidate,
            sdp_mid: Some("0".into()),
            sdp_m_line_index: Some(0),
            username_fragment: self.user_fragment.clone(),
        })
    }

    /// What the crate says of our candidates, as the other side is to hear it.
    fn outward(&self, text: String) -> String {
        match self.runtime.ports() {
            Some(ports) => ports.rename(&text),
            None => text,
        }
    }

    /// The largest message that can be sent, in bytes. Known once both descriptions are.
    pub(super) async fn max_message(&self) -> usize {
        let Some(sctp) = self.connection.sctp().await else { return DEFAULT_REMOTE_MESSAGE_BYTES };
        sctp.max_message_size().await.map_or(DEFAULT_REMOTE_MESSAGE_BYTES, |bytes| bytes as usize)
    }

    /// What knows the certificate of the other side. There once both descriptions are known.
    pub(super) async fn dtls(&self) -> Option<Arc<dyn DtlsTransport>> {
        Some(self.connection.sctp().await?.transport())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Arc<dyn PeerConnection> {
        &self.connection
    }

    /// Closes the connection and waits, about 100 ms at most, until its driver has told the other side. Not to be called
    /// from the driver's task.
    pub(super) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "closing a connection");
        }
    }
}

/// Makes data channels beside the main one. Does not keep the connection alive.
pub(super) struct Streams(Weak<dyn PeerConnection>);

impl Streams {
    /// Makes one, of this number.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub(super) async fn open(&self, id: u32, delivery: Delivery) -> Result<Arc<dyn DataChannel>> {
        let connection = self.0.upgrade().ok_or(Error::ErrDataChannelClosed)?;
        let (max_retransmits, max_packet_life_time) = match delivery.reliability {
            Reliability::Reliable => (None, None),
            Reliability::MaxRetransmits(times) => (Some(times), None),
            Reliability::MaxLifetime(time) => (None, Some(u16::try_from(time.as_millis()).unwrap_or(u16::MAX))),
        };
        let lossy = delivery.reliability != Reliability::Reliable;
        let init = RTCDataChannelInit {
            ordered: delivery.ordered,
            max_retransmits,
            max_packet_life_time,
            protocol: if lossy { LOSSY_STREAM_PROTOCOL } else { STREAM_PROTOCOL }.into(),
            ..RTCDataChannelInit::default()
        };
        connection.create_data_channel(&id.to_string(), Some(init)).await
    }
}

/// Whether a socket for multicast DNS can be had. Without a route for it, or with its port taken, the crate could not build
/// a connection that is to use it.
fn has_multicast() -> bool {
    let socket = MulticastSocket::new().into_std();
    socket.inspect_err(|error| tracing::debug!(%error, "no multicast DNS")).is_ok()
}

/// A panic of the crate over what a peer sent is an error like any other.
async fn contain<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| Err(Error::Other("the WebRTC stack gave up".into())))
}

/// The value of the first attribute of this name.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found() {
        let sdp = "v=0\r\na=ice-ufragile:no\r\na=ice-ufrag:abc\r\n";
        assert_eq!(attribute(sdp, "ice-ufrag"), Some("abc"));
        assert_eq!(attribute(sdp, "mid"), None);
    }
}
