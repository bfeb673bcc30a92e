//! Topics over real sockets: peers that know one that listens, and what it takes to go on without some of them.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::collections::BTreeSet;

use common::{builder, soon};
use futures_util::StreamExt;
use futures_util::future::join_all;
use pmesh::overlay::topics::TopicId;
use pmesh::overlay::{BroadcastError, JoinError, Overlay, OverlayId, Topic, TopicMessages};
use serde_json::json;
use tokio::runtime::Runtime;

const PEERS: usize = 8;

/// A member of the topic.
struct Member {
    overlay: Overlay,
    topic: Topic,
    messages: TopicMessages,
}

impl Member {
    async fn start(bootstrap: Option<&str>) -> Self {
        let root = builder().build();
        let overlay = Overlay::builder(&root);
        let overlay = match bootstrap {
            Some(url) => overlay.bootstrap(url),
            None => overlay.listen("127.0.0.1:0".parse().unwrap()),
        };
        let overlay = soon(overlay.start()).await.unwrap();
        // Before it has met anybody, as applications do.
        let topic = overlay.topic("tests").unwrap();
        let messages = topic.messages();
        Self { overlay, topic, messages }
    }

    fn id(&self) -> OverlayId {
        self.overlay.id()
    }

    /// Takes so many messages, of which none may be there twice.
    async fn take(&mut self, count: usize) -> BTreeSet<(OverlayId, u64)> {
        let mut taken = BTreeSet::new();
        while taken.len() < count {
            let message = soon(self.messages.next()).await.unwrap().unwrap();
            let number = message.message.as_json().unwrap().as_u64().unwrap();
            assert!(taken.insert((message.origin, number)), "{number} of {} came twice", message.origin);
        }
        taken
    }
}

/// All in one topic. Each has direct links to so many that all stay connected when one goes away.
async fn members() -> Vec<Member> {
    let first = Member::start(None).await;
    let url = format!("ws://{}", first.overlay.local_addr().unwrap());
    let mut members = vec![first];
    for _ in 1..PEERS {
        let member = Member::start(Some(&url)).await;
        soon(member.topic.joined()).await.unwrap();
        members.push(member);
    }
    for member in &members {
        let mut events = member.overlay.events();
        while member.overlay.neighbours().len() < PEERS / 2 {
            soon(events.next()).await.unwrap();
        }
    }
    members
}

/// Everybody sends these numbers, and gets those of everybody else.
async fn all_get_all(members: &mut [Member], numbers: std::ops::Range<u64>) {
    for number in numbers.clone() {
        for member in &*members {
            soon(member.topic.broadcast(json!(number))).await.unwrap();
        }
    }
    let all: BTreeSet<_> = members.iter().flat_map(|it| numbers.clone().map(|number| (it.id(), number))).collect();
    join_all(members.iter_mut().map(|member| async {
        let expected: BTreeSet<_> = all.iter().filter(|(origin, _)| *origin != member.id()).copied().collect();
        assert_eq!(member.take(expected.len()).await, expected);
    }))
    .await;
}

#[tokio::test]
async fn every_member_gets_every_message_once() {
    let mut members = members().await;
    all_get_all(&mut members, 0..10).await;
    for member in &members {
        assert_eq!(member.overlay.topic_counters().delivered, 10 * (PEERS as u64 - 1));
        assert_eq!(member.overlay.topic_counters().forged, 0);
    }
}

#[tokio::test]
async fn who_leaves_gets_nothing_and_the_others_go_on() {
    let mut members = members().await;
    let Member { overlay, topic, mut messages } = members.pop().unwrap();
    let again = overlay.join(topic.id()).unwrap();
    drop(topic);
    soon(again.joined()).await.unwrap();
    drop(again);
    assert_eq!(soon(messages.next()).await, None, "the last handle is dropped");
    all_get_all(&mut members, 0..3).await;
    assert_eq!(overlay.topic_counters().delivered, 0);
}

#[tokio::test]
async fn a_member_is_gone_without_a_word() {
    let mut members = members().await;
    let url = format!("ws://{}", members[0].overlay.local_addr().unwrap());
    let runtime = Runtime::new().unwrap();
    let gone = runtime
        .spawn(async move {
            let member = Member::start(Some(&url)).await;
            soon(member.topic.joined()).await.unwrap();
            member
        })
        .await
        .unwrap();
    soon(gone.topic.broadcast(json!(0))).await.unwrap();
    for member in &mut members {
        assert_eq!(member.take(1).await, [(gone.id(), 0)].into());
    }
    runtime.shutdown_background();
    all_get_all(&mut members, 1..4).await;
}

#[tokio::test]
async fn the_first_peer_goes_away() {
    let mut members = members().await;
    let first = members.remove(0);
    soon(first.overlay.close()).await;
    all_get_all(&mut members, 0..3).await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_told() {
    let alone = Member::start(None).await;
    let limit = pmesh::overlay::topics::MAX_MESSAGE_BYTES - 1;
    soon(alone.topic.broadcast(vec![0; limit])).await.unwrap();
    assert_eq!(soon(alone.topic.broadcast(vec![0; limit + 1])).await, Err(BroadcastError::TooLarge { limit }));
    let too_fast = async { while soon(alone.topic.broadcast("again")).await != Err(BroadcastError::TooFast) {} };
    soon(too_fast).await;

    let Member { overlay, topic, mut messages } = alone;
    let joined: Vec<_> = (0..63).map(|number| overlay.topic(&number.to_string()).unwrap()).collect();
    assert_eq!(overlay.topic("one more").unwrap_err(), JoinError::TooManyTopics);
    drop(joined);
    let once_more = overlay.topic("one more").unwrap();
    soon(overlay.close()).await;
    assert_eq!(soon(messages.next()).await, None);
    assert_eq!(soon(topic.broadcast("too late")).await, Err(BroadcastError::Closed));
    assert_eq!(soon(once_more.joined()).await, Err(JoinError::Closed));
    assert_eq!(overlay.join(TopicId::of("tests")).unwrap_err(), JoinError::Closed);
}
