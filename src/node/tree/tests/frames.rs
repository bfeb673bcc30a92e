//! Frames as they come from the wire: who may say what, relaying, and every limit.

use std::time::Duration;

use serde_json::json;

use super::super::{Counters, MAX_CHECKS_PER_VIA, MAX_INCOMING, MAX_INCOMING_PER_PEER, NodeId, OFFERS, RELAYS};
use super::lone::*;
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::protocol::signal::{Candidate, Refusal, Session, Signal};
use crate::transport::Account;
use crate::transport::{Command, LinkEvent};

fn frames_to(lone: &mut Lone, to: NodeId) -> Vec<String> {
    lone.take()
        .into_iter()
        .filter_map(|output| match output {
            Out::Frame { node, text } | Out::Relay { node, text, .. } if node == to => Some(text),
            _ => None,
        })
        .collect()
}

#[test]
fn every_input_that_killed_or_puzzled_the_original() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "a");
    let malformed = [
        "",
        " ",
        "nonsense",
        "{",
        "[",
        "[6",
        "null",
        "5",
        "{}",
        "[]",
        "true",
        "\"text\"",
        "[null]",
        "[\"6\"]",
        "[-1]",
        "[0.5]",
        "[6]",
        "[6,null]",
        "[6,5,{}]",
        "[6,\"\",{}]",
        "[7]",
        "[7,\"x\"]",
        "[7,\"x\",null]",
        "[7,\"x\",[]]",
        "[7,\"x\",[3]]",
        "[7,\"x\",[3,null]]",
        "[7,\"x\",[4,{}]]",
        "[7,\"x\",[5]]",
        "[7,\"x\",[8]]",
        "[7,\"x\",[99]]",
        "[7,\"x\",\"[3]\"]",
        "[7,null,[5,{\"candidate\":\"\"}]]",
        "[16]",
        "[17,1]",
        "[18,{}]",
        "[99,1]",
        "[0,1]",
        "[0]",
    ];
    for node in [via, peer] {
        let before = lone.tree.counters().malformed;
        for text in malformed {
            lone.frame(node, text);
            assert_eq!(lone.take(), [], "{text:?}");
        }
        assert_eq!(lone.tree.counters().malformed - before, malformed.len() as u64);
    }
    // Destinations that are properties of every JavaScript object.
    for name in ["__proto__", "toString", "constructor"] {
        lone.frame(peer, &format!("[6,\"{name}\",[5]]"));
        assert_eq!(frames_to(&mut lone, peer), [format!("[17,\"{name}\",\"unknown\"]")]);
        lone.frame(via, &format!("[7,\"{name}\",[5,{{\"candidate\":\"\"}}]]"));
        assert_eq!(lone.take(), []);
    }
    lone.link(peer, LinkEvent::Malformed);
    let malformed = 2 * malformed.len() as u64 + 1;
    let expected = Counters { malformed, undeliverable: 3, unexpected: 3, offers_accepted: 1, ..Counters::default() };
    assert_eq!(lone.tree.counters(), expected);
}

#[test]
fn frames_of_nodes_that_are_not_open_are_ignored() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.accepted(via, "b", Some(1));
    lone.take();
    for text in
        ["[6,\"b\",1]", "[7,\"x\",[3,{\"type\":\"offer\",\"sdp\":\"\"}]]", "nonsense", "[16,\"x\"]", "[18,\"b\"]"]
    {
        lone.frame(node, text);
    }
    assert_eq!(lone.take(), []);
}

#[test]
fn a_peer_relays_between_its_open_peers_only() {
    let (mut lone, via) = Lone::on_ramp();
    let (a, b) = (lone.peer(via, "a"), lone.peer(via, "b"));
    lone.accepted(via, "c", Some(1));
    let original = lone.accepted(via, "o", None);
    lone.link(original, LinkEvent::Opened { extension: false });
    lone.take();
    lone.frame(a, "[6,\"b\", {\"z\":1,  \"a\":[ ]} ,\"extra\"]");
    assert_eq!(
        lone.take(),
        [Out::Relay { source: a, node: b, text: "[7,\"a\",{\"z\":1,  \"a\":[ ]}]".into() }],
        "byte by byte, without extra elements"
    );
    lone.frame(a, "[6,\"a\",null]");
    assert_eq!(frames_to(&mut lone, a), ["[7,\"a\",null]"], "to itself, as the original");
    for name in ["c", "x", "ws://onramp"] {
        lone.frame(a, &format!("[6,\"{name}\",1]"));
        assert_eq!(frames_to(&mut lone, a), [format!("[17,\"{name}\",\"unknown\"]")]);
        lone.frame(original, &format!("[6,\"{name}\",1]"));
        assert_eq!(lone.take(), [], "an original would choke on it");
    }
    lone.frame(via, "[6,\"a\",1]");
    assert_eq!(frames_to(&mut lone, via), ["[17,\"a\",\"unknown\"]"], "onramps have no business here");
    lone.frame(original, "[6,\"a\",1]");
    assert_eq!(frames_to(&mut lone, a), ["[7,\"o\",1]"]);
    // A destination that does not keep up.
    lone.tree.relay_failed(original, a);
    lone.tree.relay_failed(a, b);
    lone.settle();
    assert_eq!(lone.tree.counters().relayed, 1);
    assert_eq!(lone.take(), [Out::Frame { node: a, text: "[17,\"b\",\"busy\"]".into() }]);
    // Closing and closed ones.
    lone.close(b);
    lone.take();
    lone.frame(a, "[6,\"b\",1]");
    assert_eq!(frames_to(&mut lone, a), ["[17,\"b\",\"unknown\"]"]);
    lone.tree.relay_failed(a, NodeId(999));
    lone.settle();
    assert_eq!(lone.take(), []);
}

#[test]
fn the_relay_budget_is_one_source_s_and_comes_back() {
    let (mut lone, via) = Lone::on_ramp();
    let (a, b) = (lone.peer(via, "a"), lone.peer(via, "b"));
    let relayed = |lone: &mut Lone, source, to: &str, count: u32| -> u32 {
        (0..count)
            .map(|_| {
                lone.frame(source, &format!("[6,\"{to}\",1]"));
                u32::from(lone.take().iter().any(|output| matches!(output, Out::Relay { .. })))
            })
            .sum()
    };
    let burst = 1024;
    assert_eq!(relayed(&mut lone, a, "b", burst + 10), burst);
    lone.frame(a, "[6,\"b\",1]");
    assert_eq!(frames_to(&mut lone, a), ["[17,\"b\",\"busy\"]"]);
    assert_eq!(relayed(&mut lone, b, "a", 1), 1, "others are not held up");
    lone.now += Duration::from_secs(1);
    assert_eq!(relayed(&mut lone, a, "b", burst), 256);
    assert_eq!(format!("{RELAYS:?}"), format!("{:?}", crate::node::Budget::new(burst, 256)));
}

#[test]
fn the_offer_budget_is_one_introducer_s_and_comes_back() {
    let (mut lone, via) = Lone::on_ramp();
    let other = lone.peer(via, "relay");
    lone.now += Duration::from_secs(60);
    let accepted = |lone: &mut Lone, via, count: u32| -> u32 {
        (0..count)
            .map(|n| {
                lone.offered(via, &format!("p{n}"), Some(u64::from(n) + 1), "");
                let asked = lone.outputs.iter().any(|output| matches!(output, Out::Check { .. }));
                if asked {
                    lone.verdict(Verdict::Refuse);
                }
                lone.take();
                u32::from(asked)
            })
            .sum()
    };
    assert_eq!(accepted(&mut lone, via, 300), 256);
    assert_eq!(lone.tree.counters().over_budget, 44);
    assert_eq!(accepted(&mut lone, other, 10), 10);
    lone.now += Duration::from_secs(1);
    assert_eq!(accepted(&mut lone, via, 100), 64);
    // Answers that nobody waits for are refused within the same budget.
    for n in 0..100 {
        lone.answered(via, &format!("p{n}"), Some(1), "");
    }
    assert_eq!(lone.sent(), []);
    lone.now += Duration::from_secs(1);
    for n in 0..100 {
        lone.answered(via, &format!("p{n}"), Some(1), "");
    }
    assert_eq!(lone.sent().len(), 64);
    assert_eq!(format!("{OFFERS:?}"), format!("{:?}", crate::node::Budget::new(256, 64)));
}

#[test]
fn questions_for_one_introducer_are_limited() {
    let (mut lone, via) = Lone::on_ramp();
    let other = lone.peer(via, "relay");
    for n in 0..MAX_CHECKS_PER_VIA {
        lone.offered(via, &format!("p{n}"), Some(1), "");
    }
    let check = lone.check();
    lone.take();
    lone.offered(via, "late", Some(7), "");
    let busy = Signal::Refusal { session: Session(7), why: Refusal::Busy };
    assert_eq!(lone.sent(), [("late".to_owned(), busy)]);
    lone.offered(via, "original", None, "");
    assert_eq!(lone.sent(), []);
    lone.offered(other, "late", Some(7), "");
    assert!(matches!(lone.take()[..], [Out::Check { .. }]));
    lone.verdict_on(check, Verdict::Refuse);
    lone.take();
    lone.offered(via, "late", Some(7), "");
    assert!(matches!(lone.take()[..], [Out::Check { .. }]));
}

#[test]
fn who_has_many_ids_leaves_questions_for_others() {
    let (mut lone, via) = Lone::on_ramp();
    let account = |number| Account { number, background: false };
    assert_eq!(lone.offered_on(via, account(1), MAX_CHECKS_PER_VIA), MAX_CHECKS_PER_VIA / 2);
    assert_eq!(lone.offered_on(via, account(2), MAX_CHECKS_PER_VIA), MAX_CHECKS_PER_VIA / 4);
    assert_eq!(lone.offered_on(via, account(3), 1), 1);
    // As soon as the firewall has decided, there is room again.
    let check = lone.check();
    lone.verdict_on(check, Verdict::Ignore);
    lone.now += Duration::from_secs(4);
    lone.take();
    assert_eq!(lone.offered_on(via, account(4), 1), 1);
}

#[test]
fn offers_that_no_application_waits_for_leave_questions_for_those_that_one_does() {
    let (mut lone, via) = Lone::on_ramp();
    let account = |number, background| Account { number, background };
    let asked: usize = (0..64).map(|n| lone.offered_on(via, account(n, true), 1)).sum();
    assert_eq!(asked, MAX_CHECKS_PER_VIA / 2);
    let asked: usize = (64..90).map(|n| lone.offered_on(via, account(n, false), 1)).sum();
    assert_eq!(asked, 26);
}

#[test]
fn a_refused_call_whose_rival_finds_us_busy_ends_at_once() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    for n in 0..MAX_CHECKS_PER_VIA {
        lone.offered(via, &format!("p{n}"), Some(1), "");
    }
    lone.take();
    lone.turned_down(via, "b", 9, Refusal::Refused);
    assert_eq!(lone.ended(), [(node, CloseReason::Refused)]);
}

#[test]
fn incoming_negotiations_are_limited_for_one_peer_and_for_all() {
    let (mut lone, via) = Lone::on_ramp();
    lone.thorough = false;
    let accept = |lone: &mut Lone, via, prefix: &str, count: usize| {
        let mut accepted = Vec::new();
        for n in 0..count {
            if n % 200 == 0 {
                lone.now += Duration::from_secs(4);
            }
            lone.take();
            lone.offered(via, &format!("{prefix}{n}"), Some(1), "");
            if !lone.outputs.iter().any(|output| matches!(output, Out::Check { .. })) {
                assert!(matches!(&lone.sent()[..], [(_, Signal::Refusal { why: Refusal::Busy, .. })]));
                break;
            }
            accepted.push(lone.verdict(Verdict::Accept));
        }
        accepted
    };
    let peer = lone.peer(via, "hostile");
    let through_peer = accept(&mut lone, peer, "h", 1000);
    assert_eq!(through_peer.len(), MAX_INCOMING_PER_PEER);
    let through_onramp = accept(&mut lone, via, "o", 2000);
    assert_eq!(through_onramp.len(), MAX_INCOMING - MAX_INCOMING_PER_PEER, "a peer does not use up the room of others");
    // Each that opens or ends makes room for one.
    lone.link(through_onramp[0], LinkEvent::Opened { extension: true });
    lone.close(through_peer[0]);
    assert_eq!(accept(&mut lone, via, "x", 3).len(), 2);
    lone.pass(60);
    lone.take();
    assert_eq!(accept(&mut lone, peer, "y", 5).len(), 5);
    lone.tree.assert_invariants();
}

#[test]
fn held_candidates_are_limited() {
    let (mut lone, via) = Lone::on_ramp();
    // Local ones before the description.
    let node = lone.dial(via, "b", 5);
    for n in 0..100 {
        lone.link(node, LinkEvent::Candidate(candidate_of(&n.to_string())));
    }
    assert_eq!(lone.sent(), []);
    lone.describe(node, "offer");
    assert_eq!(lone.sent().len(), 1 + 64);
    lone.link(node, LinkEvent::Candidate(candidate_of("late")));
    lone.link(node, LinkEvent::Description(offer_of(&sdp("own"))));
    assert!(matches!(&lone.sent()[..], [(_, Signal::Candidate { session: Some(Session(5)), .. })]));
    // Those of the other side before its answer.
    for _ in 0..100 {
        lone.candidate(via, "b", Some(5), "b");
    }
    lone.answered(via, "b", Some(5), &sdp("b"));
    assert_eq!(lone.commands(node).len(), 1 + 64);
    lone.candidate(via, "b", Some(5), "b");
    assert_eq!(lone.commands(node).len(), 1);
    // And before the verdict.
    lone.offered(via, "c", Some(1), &sdp("c"));
    for _ in 0..100 {
        lone.candidate(via, "c", Some(1), "c");
    }
    let node = lone.verdict(Verdict::Accept);
    assert_eq!(lone.commands(node).len(), 64);
    // A candidate that is too long is none.
    let candidate = Candidate { candidate: "x".repeat(1025), ..Candidate::default() };
    lone.relayed(via, "c", &Signal::Candidate { candidate, session: Some(Session(1)) });
    assert_eq!(lone.take(), []);
    assert_eq!(lone.tree.counters().malformed, 1);
}

#[test]
fn only_the_introducer_of_a_negotiation_is_heard_about_it() {
    let (mut lone, via) = Lone::on_ramp();
    let other = lone.peer(via, "relay");
    let node = lone.offering(via, "b", 5);
    lone.take();
    lone.answered(other, "b", None, &sdp("forged"));
    lone.candidate(other, "b", Some(5), "forged");
    lone.turned_down(other, "b", 5, Refusal::Refused);
    lone.frame(other, "[17,\"b\",\"unknown\"]");
    assert_eq!(lone.take(), []);
    assert_eq!(lone.tree.counters().unexpected, 3);
    lone.frame(other, "[18,\"b\"]");
    assert_eq!(lone.take(), [], "only onramps say who has left");
    lone.answered(via, "b", Some(6), &sdp("another session"));
    lone.answered(via, "c", Some(5), &sdp("another peer"));
    assert_eq!(lone.sent().len(), 2, "both are told that nobody waits for their answers");
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.answered(via, "b", Some(5), &sdp("b"));
    assert_eq!(lone.commands(node).len(), 1);
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.take();
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.candidate(other, "b", Some(5), "forged");
    lone.candidate(via, "b", Some(4), "old");
    assert_eq!(lone.take(), []);
    lone.candidate(via, "b", Some(5), "b");
    assert_eq!(lone.commands(node), [Command::Candidate(candidate_of("b"))], "a better path may come later");
}

#[test]
fn an_answer_before_our_offer_is_sent_is_unexpected() {
    let (mut lone, via) = Lone::on_ramp();
    lone.dial(via, "b", 5);
    lone.take();
    lone.answered(via, "b", None, &sdp("b"));
    lone.offered(via, "b", Some(9), &sdp("b"));
    lone.verdict(Verdict::Accept);
    lone.take();
    lone.answered(via, "b", None, &sdp("b"));
    assert_eq!(lone.take(), []);
    assert_eq!(lone.tree.counters().unexpected, 2);
}

#[test]
fn what_an_introducer_cannot_deliver_ends_the_negotiation() {
    for (frame, reason) in [
        ("[17,\"b\",\"unknown\"]", CloseReason::Unreachable),
        ("[17,\"b\",\"busy\"]", CloseReason::Busy),
        ("[17,\"b\"]", CloseReason::Unreachable),
        ("[18,\"b\"]", CloseReason::Unreachable),
    ] {
        let (mut lone, via) = Lone::on_ramp();
        let (node, joined) = (lone.offering(via, "b", 5), lone.dial(via, "b", 6));
        lone.take();
        lone.frame(via, frame);
        assert_eq!(lone.ended(), [(node, reason.clone()), (joined, reason)]);
        // Once both descriptions are exchanged, it is not needed.
        let node = lone.offering(via, "b", 5);
        lone.answered(via, "b", Some(5), &sdp("b"));
        lone.take();
        lone.frame(via, frame);
        assert_eq!(lone.ended(), []);
        lone.link(node, LinkEvent::Opened { extension: true });
        lone.take();
        lone.frame(via, frame);
        assert_eq!(lone.ended(), [], "an open link does not need it either");
    }
}

#[test]
fn offers_of_peers_that_left_are_moot() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(1), "");
    let check = lone.check();
    lone.take();
    lone.frame(via, "[18,\"b\"]");
    assert_eq!(lone.take(), [Out::CancelCheck { check }, Out::PeerLeft { node: via, address: address("b") }]);
    lone.verdict_on(check, Verdict::Accept);
    assert_eq!(lone.take(), []);
    lone.tree.assert_idle();
}

#[test]
fn own_addresses_are_told_and_learned() {
    let (mut lone, via) = Lone::on_ramp();
    lone.frame(via, "[16,\"me\"]");
    assert_eq!(lone.take(), [Out::OwnAddress { node: via, address: address("me") }]);
    let node = lone.accepted(via, "b", Some(1));
    lone.take();
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.link(node, LinkEvent::Opened { extension: true });
    assert_eq!(
        lone.take(),
        [Out::Opened { node, peer: Some(identity_of("b").peer_id()) }, Out::Frame { node, text: "[16,\"b\"]".into() }]
    );
    let original = lone.accepted(via, "o", None);
    lone.take();
    lone.link(original, LinkEvent::Opened { extension: false });
    assert_eq!(lone.take(), [Out::Opened { node: original, peer: None }]);
}

#[test]
fn the_firewall_sees_the_offer_data_and_a_silent_one_says_nothing() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(1), "");
    assert!(
        matches!(lone.outputs.back(), Some(Out::Check { data, from, .. }) if *data == json!("data") && from == "b")
    );
    lone.verdict(Verdict::Ignore);
    assert_eq!(lone.sent(), []);
    lone.offered(via, "b", Some(2), "");
    lone.verdict(Verdict::Refuse);
    assert!(matches!(&lone.sent()[..], [(_, Signal::Refusal { session: Session(2), why: Refusal::Refused })]));
    let expected = Counters { offers_refused: 2, ..Counters::default() };
    assert_eq!(lone.tree.counters(), expected);
    // A verdict on an address that is connected by now.
    let other = lone.peer(via, "relay");
    lone.offered(other, "b", Some(3), "");
    let check = lone.check();
    lone.peer(via, "b");
    lone.verdict_on(check, Verdict::Accept);
    assert!(matches!(&lone.sent()[..], [(_, Signal::Refusal { session: Session(3), why: Refusal::Connected })]));
    lone.tree.assert_idle();
}

#[test]
fn closing_all_leaves_nothing() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "relay");
    lone.offered(peer, "x", Some(3), "");
    let dialling = lone.offering(peer, "b", 5);
    lone.take();
    lone.tree.close_all(&CloseReason::RootClosed);
    lone.settle();
    assert_eq!(lone.ended(), [(dialling, CloseReason::ViaClosed)]);
    lone.link(peer, LinkEvent::Closed(CloseReason::Lost("too late".into())));
    lone.link(via, LinkEvent::Closed(CloseReason::Local));
    let lost = CloseReason::Lost("too late".into());
    assert_eq!(lone.ended(), [(peer, lost), (via, CloseReason::RootClosed)]);
    assert!(lone.tree.is_empty());
    lone.tree.assert_idle();
}

#[test]
fn a_negotiation_whose_frame_is_lost_ends_at_once() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.take();
    lone.tree.frame_dropped(via, "[6,\"c\",[3]]");
    lone.settle();
    assert_eq!(lone.ended(), []);
    lone.tree.frame_dropped(via, "[6,\"b\",[3]]");
    lone.settle();
    assert_eq!(lone.ended(), [(node, CloseReason::Busy)]);
}
