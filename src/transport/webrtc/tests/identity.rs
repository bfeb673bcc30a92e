//! What the two ends tell each other first.

use super::*;

/// Two ends that are connected, and have to confirm what `alter` makes of what they should.
async fn confirming(alter: impl FnOnce(&Description, &Description, &mut [Option<Confirmation>; 2])) -> (Peer, Peer) {
    let transport = loopback();
    let mut a = Peer::start(&transport, Target::Offer);
    let offer = a.description().await;
    let b_offer = Target::Answer { offer: offer.clone(), remote: pmesh() };
    let mut b = Peer::start(&transport, b_offer);
    let description = b.description().await;
    let mut both = confirmations(&offer, &description).map(Some);
    alter(&offer, &description, &mut both);
    let [ours, theirs] = both.map(|one| one.map(|one| Command::Confirm(Box::new(one))));
    if let Some(theirs) = theirs {
        b.command(theirs);
    }
    if let Some(ours) = ours {
        a.command(ours);
    }
    a.command(Command::Answer { description, remote: pmesh() });
    (a, b)
}

fn assert_takes_nothing(peer: &Peer) {
    let queues = peer.pipe.queues();
    assert_eq!(queues.try_send(queues.main(), Kind::Binary, Bytes::new()), Err(Rejected::NotOpen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_that_think_of_different_introductions_do_not_open() {
    // Each signs what it knows; the two know different things, as with an introducer that puts its own key on both.
    let (mut a, mut b) = confirming(|offer, answer, both| {
        let [_, theirs] = both;
        let other = Description { kind: offer.kind, sdp: format!("{}a=x:other\r\n", offer.sdp) };
        let [mallory, answerer] = [9, 2].map(|n| Identity::from_secret([n; 32]));
        let terms = Terms { session: Session(1), window: credit_window(), max_message: None };
        let (_, forged) = Offered::sign(&mallory, Base64([1; 16]), terms, &Value::Null, &other.sdp).unwrap();
        *theirs = Some(forged.sign_answer(&answerer, Base64([2; 16]), terms, &answer.sdp).unwrap().1);
    })
    .await;
    let reasons = [a.closed_unopened().await, b.closed_unopened().await];
    let unverified = CloseReason::Unverified("a signature does not fit".into());
    assert!(reasons.contains(&unverified), "{reasons:?}");
    let other = [unverified, CloseReason::Remote];
    assert!(reasons.iter().all(|reason| other.contains(reason)), "{reasons:?}");
    assert_takes_nothing(&a);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_than_the_announced_does_not_open() {
    // The signatures fit, but DTLS has seen another certificate than they are about.
    let (mut a, mut b) = confirming(|offer, answer, both| {
        let own = offer.sdp.lines().find(|line| line.starts_with("a=fingerprint")).unwrap();
        let line = crate::protocol::proof::Fingerprint::of_certificate(b"another").line();
        let other = Description { kind: offer.kind, sdp: offer.sdp.replace(&format!("{own}\r\n"), &line) };
        *both = confirmations(&other, answer).map(Some);
    })
    .await;
    let certificate = CloseReason::Unverified("the certificate is another than the one announced".into());
    assert_eq!(b.closed_unopened().await, certificate);
    // This one may have been content before it hears of it.
    a.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_confirms_nothing_is_not_open() {
    let (mut a, b) = confirming(|_, _, both| both[1] = None).await;
    // Time to connect, and to say something.
    assert!(timeout(Duration::from_millis(500), a.event()).await.is_err());
    assert_takes_nothing(&b);
    assert_takes_nothing(&a);
    drop(b);
}
