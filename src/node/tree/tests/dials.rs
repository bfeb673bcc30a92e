//! Connect calls: how they end at each stage, and calls that share an attempt.

use serde_json::{Value, json};

use super::lone::*;
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::protocol::signal::{Refusal, Session, Signal};
use crate::transport::{LinkEvent, Target};

#[test]
fn a_call_that_is_given_up_at_each_stage() {
    for stage in 0..5 {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.dial(via, "b", 5);
        if stage >= 1 {
            lone.describe(node, "offer");
        }
        if stage == 2 {
            lone.offered(via, "b", Some(9), &sdp("b"));
        }
        if stage == 3 {
            lone.answered(via, "b", Some(5), &sdp("b"));
        }
        if stage == 4 {
            lone.offered(via, "b", Some(9), &sdp("b"));
            lone.verdict(Verdict::Accept);
        }
        let link = lone.tree.nodes[&node].link;
        lone.take();
        lone.abandon(node);
        lone.abandon(node);
        if stage == 4 {
            assert_eq!(lone.take(), [], "the other side's offer was accepted, and goes on");
            lone.turned_down(via, "b", 9, Refusal::Failed);
            assert_eq!(lone.ended(), [(node, CloseReason::Remote)], "but nobody here insists on it");
            continue;
        }
        let closed = Out::Closed { node, reason: CloseReason::Cancelled, via: Some(via) };
        assert_eq!(lone.take(), [Out::Drop { link }, closed], "stage {stage}");
        if stage == 2 {
            lone.verdict_on(crate::node::tree::CheckId(1), Verdict::Accept);
            assert!(matches!(lone.take()[..], [Out::Create { .. }, ..]), "the other side's offer stands");
        } else {
            lone.tree.assert_idle();
        }
    }
}

#[test]
fn a_call_that_is_closed_or_times_out_or_loses_its_introducer_at_each_stage() {
    for stage in 0..5 {
        for end in 0..3 {
            let (mut lone, via) = Lone::on_ramp();
            let node = lone.dial(via, "b", 5);
            match stage {
                0 => {}
                1 => lone.describe(node, "offer"),
                2 => {
                    lone.describe(node, "offer");
                    lone.offered(via, "b", Some(9), &sdp("b"));
                }
                3 => {
                    lone.describe(node, "offer");
                    lone.answered(via, "b", Some(5), &sdp("b"));
                }
                _ => {
                    lone.describe(node, "offer");
                    lone.offered(via, "b", Some(9), &sdp("b"));
                    lone.verdict(Verdict::Accept);
                }
            }
            lone.take();
            let reason = match end {
                0 => {
                    lone.close(node);
                    CloseReason::Local
                }
                1 => {
                    lone.pass(19);
                    assert_eq!(lone.ended(), []);
                    lone.pass(1);
                    CloseReason::TimedOut
                }
                _ => {
                    lone.link(via, LinkEvent::Closed(CloseReason::Remote));
                    assert!(!lone.tree.nodes.contains_key(&via));
                    if stage == 3 {
                        assert_eq!(lone.ended(), [(via, CloseReason::Remote)], "it is not needed any more");
                        lone.link(node, LinkEvent::Opened { extension: true });
                        assert!(lone.take().contains(&Out::Opened { node, peer: Some(identity_of("b").peer_id()) }));
                        continue;
                    }
                    lone.outputs.retain(|output| !matches!(output, Out::Closed { node, .. } if *node == via));
                    CloseReason::ViaClosed
                }
            };
            assert_eq!(lone.ended(), [(node, reason)], "stage {stage}, end {end}");
            assert!(!lone.tree.links.keys().any(|link| lone.tree.links[link] == node));
        }
    }
}

#[test]
fn an_introducer_that_is_told_to_close_carries_nothing_more() {
    let (mut lone, via) = Lone::on_ramp();
    let dialling = lone.offering(via, "b", 5);
    lone.offered(via, "c", Some(9), &sdp("c"));
    let check = lone.check();
    let accepted = lone.accepted(via, "d", Some(7));
    lone.take();
    lone.close(via);
    lone.close(via);
    let outputs = lone.take();
    assert!(outputs.contains(&Out::CancelCheck { check }));
    assert_eq!(outputs.iter().filter(|output| matches!(output, Out::Closed { .. })).count(), 1);
    assert!(outputs.contains(&Out::Closed { node: dialling, reason: CloseReason::ViaClosed, via: Some(via) }));
    lone.offered(via, "e", Some(1), &sdp("e"));
    assert_eq!(lone.take(), []);
    let late = lone.dial(via, "f", 1);
    assert_eq!(lone.ended(), [(late, CloseReason::ViaClosed)]);
    lone.link(via, LinkEvent::Closed(CloseReason::Local));
    assert_eq!(lone.ended(), [(via, CloseReason::Local)]);
    lone.link(accepted, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Opened { node: accepted, peer: Some(identity_of("d").peer_id()) }));
    lone.tree.assert_idle();
}

#[test]
fn incoming_negotiations_end_after_the_accept_timeout_or_with_their_introducer() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "relay");
    let slow = lone.accepted(via, "b", Some(5));
    lone.pass(29);
    lone.offered(peer, "c", Some(5), &sdp("c"));
    let unanswered = lone.verdict(Verdict::Accept);
    assert_eq!(lone.ended(), []);
    lone.pass(1);
    assert_eq!(lone.ended(), [(slow, CloseReason::TimedOut)]);
    lone.link(peer, LinkEvent::Closed(CloseReason::Lost("gone".into())));
    let lost = (peer, CloseReason::Lost("gone".into()));
    assert_eq!(lone.ended(), [(unanswered, CloseReason::ViaClosed), lost]);
    lone.tree.assert_idle();
}

#[test]
fn who_cannot_go_on_with_an_accepted_offer_says_so() {
    for end in 0..3 {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.accepted(via, "b", Some(5));
        lone.take();
        match end {
            0 => lone.pass(30),
            1 => lone.close(node),
            _ => lone.link(node, LinkEvent::Closed(CloseReason::Failed("no socket".into()))),
        }
        let refusal = Signal::Refusal { session: Session(5), why: Refusal::Failed };
        assert_eq!(lone.sent(), [("b".to_owned(), refusal)]);
    }
    // The other side, which has the answer already.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.turned_down(via, "b", 5, Refusal::Connected);
    assert_eq!(lone.ended(), [], "about a copy of the offer");
    lone.turned_down(via, "b", 5, Refusal::Failed);
    assert_eq!(lone.ended(), [(node, CloseReason::Failed("the other side gave up".into()))]);
    lone.tree.assert_idle();
}

#[test]
fn urls_open_time_out_close_and_are_given_up() {
    let mut lone = Lone::new();
    let ends = [CloseReason::TimedOut, CloseReason::Local, CloseReason::Cancelled, CloseReason::RootClosed];
    for reason in ends {
        let node = lone.id();
        lone.tree.connect_url(node, address("ws://x"), "p", std::time::Duration::from_secs(5), lone.now);
        lone.settle();
        assert!(matches!(
            lone.take()[..],
            [Out::Connection { via: None, .. }, Out::Start { target: Target::Url(_), .. }]
        ));
        let dial = lone.dial(node, "b", 1);
        assert_eq!(lone.ended(), [(dial, CloseReason::ViaClosed)], "not open yet");
        match reason {
            CloseReason::TimedOut => lone.pass(5),
            CloseReason::Local => lone.close(node),
            CloseReason::Cancelled => lone.abandon(node),
            _ => {
                lone.tree.close_all(&CloseReason::RootClosed);
                lone.settle();
            }
        }
        assert!(matches!(&lone.take()[..], [Out::Drop { .. }, Out::Closed { reason: told, .. }] if *told == reason));
        lone.tree.assert_idle();
    }
    assert!(lone.tree.is_empty());
}

#[test]
fn calls_to_one_address_share_an_attempt() {
    let (mut lone, via) = Lone::on_ramp();
    let first = lone.offering(via, "b", 5);
    let (second, third) = (lone.dial(via, "b", 6), lone.dial(via, "b", 7));
    assert_eq!(lone.sent().len(), 1);
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.link(first, LinkEvent::Opened { extension: true });
    let outputs = lone.take();
    for call in [second, third] {
        assert!(outputs.contains(&Out::Redirect { node: call, instead: first }));
        assert!(outputs.contains(&Out::Closed { node: call, reason: CloseReason::Duplicate, via: None }));
    }
    let fourth = lone.dial(via, "b", 8);
    assert!(lone.take().contains(&Out::Redirect { node: fourth, instead: first }));
    lone.tree.assert_idle();
}

#[test]
fn a_call_joins_an_incoming_negotiation_and_tries_itself_if_that_fails() {
    let (mut lone, via) = Lone::on_ramp();
    let incoming = lone.accepted(via, "b", Some(5));
    let (joined, other) = (lone.dial(via, "b", 6), lone.dial(via, "b", 7));
    lone.take();
    lone.turned_down(via, "b", 5, Refusal::Failed);
    assert_eq!(lone.ended(), [(incoming, CloseReason::Remote)]);
    assert_eq!(lone.tree.pending.get(via, &address("b")), Some(joined));
    lone.describe(joined, "offer");
    lone.answered(via, "b", Some(6), &sdp("b"));
    lone.link(joined, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Redirect { node: other, instead: joined }));
    lone.tree.assert_idle();
}

#[test]
fn a_call_that_shares_an_attempt_is_given_up_closed_or_times_out_by_itself() {
    let (mut lone, via) = Lone::on_ramp();
    let owner = lone.offering(via, "b", 5);
    let calls: Vec<_> = (0..4).map(|n| lone.dial_with(via, "b", 10 + n, Value::Null, 5 + 5 * n)).collect();
    lone.take();
    lone.pass(5);
    assert_eq!(lone.ended(), [(calls[0], CloseReason::TimedOut)]);
    lone.abandon(calls[1]);
    assert_eq!(lone.ended(), [(calls[1], CloseReason::Cancelled)]);
    lone.close(calls[2]);
    lone.close(calls[2]);
    assert_eq!(lone.ended(), [(calls[2], CloseReason::Local)]);
    // The attempt goes on for those who are left.
    lone.abandon(owner);
    assert_eq!(lone.ended(), []);
    lone.abandon(calls[3]);
    assert_eq!(lone.ended(), [(calls[3], CloseReason::Cancelled), (owner, CloseReason::Cancelled)]);
    lone.tree.assert_idle();
}

#[test]
fn a_call_with_more_time_goes_on_alone() {
    let (mut lone, via) = Lone::on_ramp();
    let short = lone.dial_with(via, "b", 5, Value::Null, 2);
    let long = lone.dial_with(via, "b", 6, json!("mine"), 20);
    lone.take();
    lone.pass(2);
    assert_eq!(lone.ended(), [(short, CloseReason::TimedOut)]);
    lone.describe(long, "offer");
    assert!(matches!(&lone.sent()[..], [(_, Signal::Offer { data, .. })] if data == "mine"));
    lone.pass(17);
    assert_eq!(lone.ended(), []);
    lone.pass(1);
    assert_eq!(lone.ended(), [(long, CloseReason::TimedOut)], "with its own time, counted from its call");
}

#[test]
fn a_refusal_counts_for_all_calls_with_the_same_offer_data() {
    let (mut lone, via) = Lone::on_ramp();
    let owner = lone.dial_with(via, "b", 5, json!("wrong"), 20);
    let same = lone.dial_with(via, "b", 6, json!("wrong"), 20);
    let other = lone.dial_with(via, "b", 7, json!("right"), 20);
    lone.describe(owner, "offer");
    lone.take();
    lone.turned_down(via, "b", 5, Refusal::Refused);
    assert_eq!(lone.ended(), [(owner, CloseReason::Refused), (same, CloseReason::Refused)]);
    lone.describe(other, "offer");
    assert!(matches!(&lone.sent()[..], [(_, Signal::Offer { data, .. })] if data == "right"));
}

#[test]
fn calls_that_share_an_attempt_end_with_their_introducer_and_with_the_root() {
    for root in [true, false] {
        let (mut lone, via) = Lone::on_ramp();
        let (owner, joined) = (lone.offering(via, "b", 5), lone.dial(via, "b", 6));
        let incoming = lone.accepted(via, "c", Some(1));
        let behind = lone.dial(via, "c", 2);
        lone.take();
        if root {
            lone.tree.close_all(&CloseReason::RootClosed);
            lone.settle();
            let of_via = [(owner, CloseReason::ViaClosed), (joined, CloseReason::ViaClosed)];
            let alone = [(incoming, CloseReason::RootClosed), (behind, CloseReason::RootClosed)];
            assert_eq!(lone.ended(), [of_via, alone].concat());
        } else {
            lone.close(via);
            assert_eq!(lone.ended(), [(owner, CloseReason::ViaClosed), (joined, CloseReason::ViaClosed)]);
            lone.pass(30);
            assert_eq!(lone.ended(), [(behind, CloseReason::TimedOut), (incoming, CloseReason::TimedOut)]);
        }
        lone.link(via, LinkEvent::Closed(CloseReason::Local));
        lone.tree.assert_idle();
        assert!(lone.tree.is_empty());
    }
}

#[test]
fn refusals_tell_why() {
    let failed = CloseReason::Failed("the other side gave up".into());
    for (why, reason) in [
        (Refusal::Refused, CloseReason::Refused),
        (Refusal::Busy, CloseReason::Busy),
        (Refusal::Connected, CloseReason::AlreadyConnected),
        (Refusal::Failed, failed),
    ] {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.dial(via, "b", 5);
        lone.turned_down(via, "b", 5, why);
        assert_eq!(lone.ended(), [], "nothing to refuse yet");
        lone.describe(node, "offer");
        lone.turned_down(via, "b", 6, why);
        lone.turned_down(via, "c", 5, why);
        assert_eq!(lone.ended(), []);
        lone.turned_down(via, "b", 5, why);
        lone.turned_down(via, "b", 5, why);
        assert_eq!(lone.ended(), [(node, reason)]);
        assert_eq!(lone.tree.counters().unexpected, 4);
    }
}

#[test]
fn policies_are_inherited_and_replaced_for_a_subtree() {
    for depth in 1..=5 {
        for replaced in 0..=depth {
            let (mut lone, mut via) = Lone::on_ramp();
            for level in 1..=depth {
                let name = format!("level {level}");
                via = if level == replaced {
                    let node = lone.call(via, super::super::Dial { policy: Some("replaced"), ..dial(&name, 5) });
                    lone.describe(node, "offer");
                    lone.answered(via, &name, Some(5), "");
                    lone.link(node, LinkEvent::Opened { extension: true });
                    node
                } else if level % 2 == 0 {
                    lone.peer(via, &name)
                } else {
                    let node = lone.offering(via, &name, 5);
                    lone.answered(via, &name, Some(5), "");
                    lone.link(node, LinkEvent::Opened { extension: true });
                    node
                };
            }
            lone.take();
            lone.offered(via, "stranger", Some(1), "");
            let expected = if replaced == 0 { "inherited" } else { "replaced" };
            assert!(
                matches!(lone.take()[..], [Out::Check { policy, .. }] if policy == expected),
                "depth {depth}, replaced at {replaced}"
            );
        }
    }
}

#[test]
fn a_replaced_policy_stays_with_the_node_that_gave_way() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.call(via, super::super::Dial { policy: Some("replaced"), ..dial("b", 5) });
    lone.offered(via, "b", Some(9), &sdp("b"));
    assert!(matches!(lone.outputs.back(), Some(Out::Check { policy: "inherited", .. })));
    lone.verdict(Verdict::Accept);
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.take();
    lone.offered(node, "stranger", Some(1), "");
    assert!(matches!(lone.take()[..], [Out::Check { policy: "replaced", .. }]));
}
