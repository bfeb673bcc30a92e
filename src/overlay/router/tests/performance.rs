//! What a message costs: `PMESH_MESSAGES=200000 cargo test --release --lib router::tests::performance -- --nocapture` tells.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::super::*;
use super::net::{Line, id, number};
use crate::overlay::seal::{Plain, Session};

const ROUND: usize = 1000;

fn router(me: usize, neighbours: &[usize], now: Instant) -> Router {
    let seal = Box::new(Plain::new(id(me), me as u64));
    let rate = Rate { messages: u32::MAX, bytes: u32::MAX, burst_seconds: 1 };
    let config = RouterConfig { relay_budget: rate, ..RouterConfig::default() };
    let mut router = Router::new(Box::new(Line::new(id(me))), seal, config, me as u64);
    for neighbour in neighbours {
        let session = Session::from_bytes((*neighbour as u64).to_be_bytes());
        router.neighbour_up(id(*neighbour), Some(Plain::key_of(&id(*neighbour))), now);
        router.receive(&id(*neighbour), wire::hello(0, &session, true), now);
    }
    router
}

/// The packets that a router sends, and how many messages it delivers.
fn outputs(router: &mut Router) -> (Vec<(usize, Bytes)>, usize) {
    let (mut packets, mut delivered) = (Vec::new(), 0);
    while let Some(output) = router.poll_output() {
        match output {
            Output::Transmit { to, packet } => packets.push((number(&to), packet)),
            Output::Deliver { .. } => delivered += 1,
            _ => {}
        }
    }
    (packets, delivered)
}

/// Brings all packets to where they go, until there are none.
fn settle(routers: &mut [Router; 3], now: Instant) {
    loop {
        let mut count = 0;
        for from in 0..routers.len() {
            let (packets, _) = outputs(&mut routers[from]);
            count += packets.len();
            packets.into_iter().for_each(|(to, packet)| routers[to].receive(&id(from), packet, now));
        }
        if count == 0 {
            return;
        }
    }
}

/// As if read from a link: a buffer of its own.
fn fresh(packet: &Bytes) -> Bytes {
    BytesMut::from(&packet[..]).freeze()
}

#[test]
fn what_a_message_costs() {
    let messages: usize = std::env::var("PMESH_MESSAGES").map_or(2 * ROUND, |value| value.parse().unwrap());
    for (bytes, confirm) in [(100, None), (16 << 10, None), (100, Some(Duration::from_secs(60)))] {
        let start = Instant::now();
        let mut routers = [router(0, &[1], start), router(1, &[0, 2], start), router(2, &[1], start)];
        let body = Bytes::from(vec![7; bytes]);
        // The keys.
        routers[0].send(id(2), Kind::Binary, body.clone(), None, start).unwrap();
        settle(&mut routers, start);
        let (mut times, mut all) = ([const { Vec::new() }; 3], 0);
        for round in 0..messages / ROUND {
            let now = start + Duration::from_secs(round as u64);
            let mut clock = Instant::now();
            for _ in 0..ROUND {
                routers[0].send(id(2), Kind::Binary, body.clone(), confirm, now).unwrap();
            }
            let (mut packets, _) = outputs(&mut routers[0]);
            times[0].push(clock.elapsed());
            for at in 1..3 {
                let sent: Vec<Bytes> = packets.iter().map(|(_, packet)| fresh(packet)).collect();
                clock = Instant::now();
                sent.into_iter().for_each(|packet| routers[at].receive(&id(at - 1), packet, now));
                let (out, delivered) = outputs(&mut routers[at]);
                times[at].push(clock.elapsed());
                let (on, back) = out.into_iter().partition(|(to, _)| *to > at);
                packets = on;
                all += delivered;
                let back: Vec<(usize, Bytes)> = back;
                back.into_iter().for_each(|(to, packet)| routers[to].receive(&id(at), packet, now));
            }
            settle(&mut routers, now);
            routers.iter_mut().for_each(|router| router.handle_timeout(now));
        }
        assert_eq!(all, messages / ROUND * ROUND);
        println!("{bytes} bytes, {}", if confirm.is_some() { "confirmed" } else { "plain" });
        for (name, mut times) in ["sent", "forwarded", "delivered"].into_iter().zip(times) {
            // The machine has other things to do, so the median of the rounds tells more than their sum.
            times.sort();
            let each = |time: Duration| time.as_nanos() / ROUND as u128;
            println!("  {name}: {} ns, at best {} ns", each(times[times.len() / 2]), each(times[0]));
        }
    }
}
