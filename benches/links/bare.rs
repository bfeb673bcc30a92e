//! Pairs of the bare crate.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use tokio::sync::{Notify, mpsc};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCSessionDescription,
    SettingEngineBuilder,
};

use crate::Result;
use crate::facts;
use crate::tuned::Tuned;

/// Bytes that may be on their way before sending waits. More small messages than 256 would wait in the receiver for
/// something else to happen, so their limit is lower.
pub(crate) const SEND_BUFFER_BYTES: usize = 1_000_000;
const SEND_BUFFER_MESSAGES: usize = 200;

const MAX_MESSAGE_BYTES: u32 = 65_536;

pub(crate) struct BareEnd {
    connection: Arc<dyn PeerConnection>,
    pub(crate) channel: Arc<dyn DataChannel>,
}

pub(crate) struct BarePair {
    pub(crate) a: BareEnd,
    pub(crate) b: BareEnd,
}

impl BarePair {
    pub(crate) async fn close(self) -> Result<()> {
        tokio::try_join!(self.a.connection.close(), self.b.connection.close())?;
        Ok(())
    }
}

/// What one connection tells.
struct Handler {
    gathered: Notify,
    channel: mpsc::Sender<Arc<dyn DataChannel>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.notify_one();
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        // One channel is made, and one fits.
        let _ = self.channel.try_send(channel);
    }
}

struct Side {
    connection: Arc<dyn PeerConnection>,
    handler: Arc<Handler>,
    channel: mpsc::Receiver<Arc<dyn DataChannel>>,
    tuned: Option<Arc<Tuned>>,
}

impl Side {
    async fn new(tuned: bool, limit: usize) -> Result<Self> {
        let (sender, channel) = mpsc::channel(1);
        let handler = Arc::new(Handler { gathered: Notify::new(), channel: sender });
        let mut builder = PeerConnectionBuilder::new()
            .with_handler(handler.clone())
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .with_data_channel_send_buffer_limit(limit);
        let tuned = tuned.then(Tuned::new);
        if let Some(runtime) = &tuned {
            let none = Some(Duration::ZERO);
            let settings = SettingEngineBuilder::new()
                .with_host_acceptance_min_wait(none)
                .with_srflx_acceptance_min_wait(none)
                .with_prflx_acceptance_min_wait(none)
                .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MAX_MESSAGE_BYTES))
                .with_sctp_max_receive_buffer_size(facts::receive_window()?)
                .with_multicast_dns_mode(MulticastDnsMode::Disabled)
                .build();
            builder = builder.with_setting_engine(settings).with_runtime(runtime.clone());
        }
        Ok(Self { connection: Arc::new(builder.build().await?), handler, channel, tuned })
    }

    /// Applies the description, and returns it with all candidates.
    async fn describe(&self, description: RTCSessionDescription) -> Result<RTCSessionDescription> {
        self.connection.set_local_description(description).await?;
        self.handler.gathered.notified().await;
        Ok(self.connection.local_description().await.ok_or("no local description")?)
    }

    async fn open(self, channel: Arc<dyn DataChannel>) -> Result<BareEnd> {
        loop {
            match channel.poll().await {
                Some(DataChannelEvent::OnOpen) => break,
                Some(DataChannelEvent::OnClose) | None => return Err("closed before it was open".into()),
                Some(_) => {}
            }
        }
        if let Some(tuned) = self.tuned {
            tuned.settle();
        }
        Ok(BareEnd { connection: self.connection, channel })
    }
}

/// How many bytes of messages of this size may be on their way.
pub(crate) fn limit(message: usize) -> usize {
    SEND_BUFFER_BYTES.min(message.max(1) * SEND_BUFFER_MESSAGES)
}

/// Makes two connections, lets them have each other's description, and waits until both ends are open. Sending waits
/// when so many bytes are on their way.
pub(crate) async fn open(tuned: bool, limit: usize) -> Result<BarePair> {
    let a = Side::new(tuned, limit).await?;
    let own = a.connection.create_data_channel("bench", None).await?;
    let offer = a.describe(a.connection.create_offer(None).await?).await?;
    let mut b = Side::new(tuned, limit).await?;
    b.connection.set_remote_description(offer).await?;
    let answer = b.describe(b.connection.create_answer(None).await?).await?;
    a.connection.set_remote_description(answer).await?;
    let accept = async {
        let channel = b.channel.recv().await.ok_or("no channel")?;
        b.open(channel).await
    };
    let (a, b) = tokio::try_join!(a.open(own), accept)?;
    Ok(BarePair { a, b })
}
