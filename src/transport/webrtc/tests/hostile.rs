//! What hostile peers do with data channels.

use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};

use super::mailbox::STREAM_PROTOCOL;
use super::session::{Purpose, Session as Connection};
use super::*;
use crate::protocol::limits::MAX_STREAMS;
use crate::protocol::{Delivery, Reliability};

/// A connection without a pipe, and the peer at its other end.
struct Hostile {
    connection: Connection,
    mailbox: Arc<Mailbox>,
    main: Arc<dyn DataChannel>,
    /// Until it is applied.
    answer: Option<Description>,
    victim: Peer,
    confirmation: Confirmation,
}

impl Hostile {
    /// Makes the offer and gets the answer. Nothing is connected yet: of channels that are made from when the association begins
    /// until it stands, the crate says nothing to the other side.
    async fn offer(remote: Remote) -> Self {
        let mailbox = Mailbox::new();
        let purpose = Purpose { max_message: 65_536, mdns: false, offer: true };
        let mut connection = Connection::build(&config(), &mailbox, purpose).await.unwrap();
        let main = connection.create_channel().await.unwrap();
        let offer = connection.describe(DescriptionKind::Offer, true).await.unwrap();
        let mut victim = Peer::start(&loopback(), Target::Answer { offer: offer.clone(), remote });
        let answer = victim.description().await;
        let [confirmation, theirs] = confirmations(&offer, &answer);
        if remote != Remote::Original {
            victim.command(Command::Confirm(Box::new(theirs)));
        }
        Self { connection, mailbox, main, answer: Some(answer), victim, confirmation }
    }

    async fn connect(&mut self) {
        let answer = self.answer.take().unwrap();
        self.connection.set_remote(answer).await.unwrap();
    }

    /// Opens the link, too.
    async fn confirm(&mut self) {
        while !matches!(soon(self.main.poll()).await, Some(DataChannelEvent::OnOpen)) {}
        self.main.send(self.confirmation.message().into()).await.unwrap();
        assert!(self.victim.opened().await);
    }

    async fn open(&self, label: &str) -> Arc<dyn DataChannel> {
        let init = RTCDataChannelInit { protocol: STREAM_PROTOCOL.into(), ..RTCDataChannelInit::default() };
        self.connection.connection().create_data_channel(label, Some(init)).await.unwrap()
    }

    /// Asserts that the link ends for this reason.
    async fn ends(mut self, why: &str) {
        assert_eq!(self.victim.closed().await, CloseReason::Protocol(why.into()));
        self.connection.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_data_channels_end_the_link() {
    let mut hostile = Hostile::offer(pmesh()).await;
    let mut streams = Vec::new();
    for id in 1..=MAX_STREAMS {
        streams.push(hostile.open(&id.to_string()).await);
    }
    hostile.connect().await;
    hostile.confirm().await;
    let lane = hostile.victim.pipe.queues().open_lane("x", Delivery::default()).unwrap();
    hostile.victim.pipe.queues().try_send(&lane, Kind::Binary, Bytes::new()).unwrap();
    // The first message is the confirmation.
    for _ in 0..2 {
        while !matches!(soon(hostile.main.poll()).await, Some(DataChannelEvent::OnMessage(_))) {}
    }
    // Closing some makes no room.
    soon(streams[0].close()).await.unwrap();
    streams.push(hostile.open("1000").await);
    hostile.ends("too many data channels").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_channels_of_no_kind_end_the_link_whenever_they_come() {
    for label in ["x".to_owned(), "1".repeat(11), format!("{}1", "0".repeat(60_000))] {
        let mut hostile = Hostile::offer(pmesh()).await;
        let _stream = hostile.open(&label).await;
        hostile.connect().await;
        hostile.ends("more than one data channel").await;
    }
    let mut hostile = Hostile::offer(pmesh()).await;
    hostile.connect().await;
    hostile.confirm().await;
    let _stream = hostile.open("00000000001").await;
    hostile.ends("more than one data channel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_original_makes_no_further_data_channel() {
    let mut hostile = Hostile::offer(Remote::Original).await;
    let _stream = hostile.open("1").await;
    hostile.connect().await;
    hostile.ends("an unexpected data channel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_a_stream_of_the_other_side_ends_the_link() {
    let mut hostile = Hostile::offer(pmesh()).await;
    hostile.connect().await;
    hostile.confirm().await;
    let delivery = Delivery { ordered: false, reliability: Reliability::Reliable };
    let lane = hostile.victim.pipe.queues().open_lane("x", delivery).unwrap();
    hostile.victim.pipe.queues().try_send(&lane, Kind::Binary, Bytes::new()).unwrap();
    let made = soon(hostile.mailbox.take_sides().unwrap().recv()).await.unwrap();
    made.stream.close().await.unwrap();
    assert_eq!(hostile.victim.closed().await, CloseReason::Remote);
    hostile.connection.close().await;
}
