//! Links that are full, under a paused clock.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{advance, timeout};

use super::super::patience::HOLD;
use super::*;
use crate::overlay::link::signal::tests::Mesh;
use crate::overlay::link::{CHANNEL, Link, Packets};

/// A link, what comes back on it, and its far end.
async fn link() -> (Mesh, Entry, Packets, Link) {
    let mesh = Mesh::default();
    let (to_b, to_a) = mesh.connected().await;
    let over = |node: Node| Link::over(node.reserved_channel(CHANNEL).unwrap()).unwrap();
    let Link { sender, packets, .. } = over(to_b);
    (mesh, Entry::new(1, sender, None, Instant::now()), packets, over(to_a))
}

fn packet() -> Bytes {
    vec![0; 10_000].into()
}

/// Hands it packets until there is no room.
fn fill(entry: &mut Entry) -> Handed {
    loop {
        match entry.hand(packet(), false, now()) {
            Handed::Taken => {}
            other => return other,
        }
    }
}

/// Reads what is on its way, but at most so much.
async fn drain(packets: &mut Packets, most: usize) {
    let mut read = 0;
    while read < most
        && let Ok(Some(_)) = timeout(Duration::from_millis(1), packets.next()).await
    {
        read += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_full_now_and_then_drops_nothing() {
    let (_mesh, mut entry, _back, mut there) = link().await;
    for _ in 0..20 {
        let Handed::Wait(held) = fill(&mut entry) else { panic!("dropped") };
        let (sent, ()) = tokio::join!(held.sender.send(held.packet), drain(&mut there.packets, usize::MAX));
        sent.unwrap();
        assert!(matches!(entry.hand(packet(), false, now()), Handed::Taken));
        advance(2 * HOLD).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_takes_nothing_holds_others_up_for_a_while_and_is_closed_then() {
    let (_mesh, mut entry, _back, _there) = link().await;
    let mut held_up = 0;
    while matches!(fill(&mut entry), Handed::Wait(_) | Handed::Dropped) {
        held_up += u32::from(matches!(entry.hand(packet(), false, now()), Handed::Wait(_)));
        advance(HOLD).await;
    }
    let most = STUCK.as_millis() / HOLD.as_millis();
    assert!((50..60).contains(&held_up), "{held_up} of {most} times");
}

#[tokio::test(start_paused = true)]
async fn a_link_on_which_somebody_always_waits_is_not_one_that_takes_nothing() {
    let (_mesh, mut entry, _back, mut there) = link().await;
    let sends = |sender: Arc<Sender>| async move { while sender.send(packet()).await.is_ok() {} };
    let senders = [tokio::spawn(sends(entry.sender.clone())), tokio::spawn(sends(entry.sender.clone()))];
    let end = now() + 2 * STUCK;
    while now() < end {
        drain(&mut there.packets, 20).await;
        advance(Duration::from_millis(500)).await;
        assert!(!matches!(entry.hand(packet(), false, now()), Handed::Over));
    }
    senders.iter().for_each(|sender| sender.abort());
}
