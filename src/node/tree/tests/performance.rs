//! Ten thousand at once: nothing that grows with the square of it.

use std::time::{Duration, Instant};

use super::lone::*;
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::transport::LinkEvent;

const MANY: u64 = 10_000;

/// Even unoptimised on a busy machine this takes a second; with one scan over all for each it would take minutes.
fn in_time(what: &str, work: impl FnOnce()) {
    let started = Instant::now();
    work();
    let took = started.elapsed();
    println!("{what}: {took:?}");
    assert!(took < Duration::from_secs(20), "{what}: {took:?}");
}

fn dialling(count: u64) -> (Lone, crate::node::tree::NodeId, Vec<crate::node::tree::NodeId>) {
    let (mut lone, via) = Lone::on_ramp();
    lone.thorough = false;
    let nodes = (0..count).map(|n| lone.dial(via, &format!("p{n}"), n + 1)).collect();
    lone.take();
    (lone, via, nodes)
}

#[test]
fn ten_thousand_negotiations_through_one_introducer() {
    in_time("10,000 calls that open, and others that offer in between", || {
        let (mut lone, via, nodes) = dialling(MANY);
        for (n, node) in (0..).zip(&nodes) {
            let peer = format!("p{n}");
            lone.describe(*node, "offer");
            // Originals: checking signatures takes time in proportion, and much of it.
            lone.answered(via, &peer, None, "");
            lone.link(*node, LinkEvent::Opened { extension: false });
            if n % 64 == 0 {
                lone.now += Duration::from_secs(1);
                lone.offered(via, &format!("x{n}"), Some(1), "");
                lone.verdict(Verdict::Accept);
            }
            lone.take();
        }
    });
}

#[test]
fn ten_thousand_negotiations_that_end_one_by_one_and_all_at_once() {
    in_time("10,000 calls given up one by one", || {
        let (mut lone, _, nodes) = dialling(MANY);
        nodes.into_iter().for_each(|node| lone.abandon(node));
        assert_eq!(lone.ended().len(), MANY as usize);
        lone.tree.assert_idle();
    });
    in_time("10,000 calls that lose their introducer", || {
        let (mut lone, via, _) = dialling(MANY);
        lone.link(via, LinkEvent::Closed(CloseReason::Remote));
        assert_eq!(lone.ended().len(), MANY as usize + 1);
    });
    in_time("10,000 calls that share an attempt, given up one by one", || {
        let (mut lone, via) = Lone::on_ramp();
        lone.thorough = false;
        let nodes: Vec<_> = (1..=MANY).map(|n| lone.dial(via, "b", n)).collect();
        nodes.into_iter().for_each(|node| lone.abandon(node));
        assert_eq!(lone.ended().len(), MANY as usize);
    });
}
