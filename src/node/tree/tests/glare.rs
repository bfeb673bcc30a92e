//! Offers that cross. Here "b" is the other side; its offers have the session that the test gives them.

use serde_json::json;

use super::lone::*;
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::protocol::signal::{Refusal, Session, Signal};
use crate::transport::{Command, LinkEvent, Remote, Target};

fn starts(lone: &mut Lone) -> Vec<Target> {
    lone.take()
        .into_iter()
        .filter_map(|output| match output {
            Out::Start { target, .. } => Some(target),
            _ => None,
        })
        .collect()
}

#[test]
fn the_smaller_session_answers_on_the_same_node() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    let old = lone.tree.nodes[&node].link;
    lone.offered(via, "b", Some(9), &sdp("b"));
    lone.candidate(via, "b", Some(9), "b");
    lone.verdict(Verdict::Accept);
    let new = lone.tree.nodes[&node].link;
    let outputs = lone.take();
    assert!(outputs.contains(&Out::Drop { link: old }));
    let target =
        Target::Answer { offer: offer_of(&sdp("b")), remote: Remote::Pmesh { window: (5, 5), max_message: None } };
    assert!(outputs.contains(&Out::Start { node, link: new, target }));
    let early = Command::Candidate(candidate_of("b"));
    assert!(outputs.contains(&Out::Command { link: new, command: early }), "what came before the verdict is passed on");
    // Late frames of our own link, and of the other side about our offer, change nothing.
    lone.tree.handle_link(old, LinkEvent::Description(offer_of(&sdp("own"))), lone.now);
    lone.tree.handle_link(old, LinkEvent::Closed(CloseReason::Remote), lone.now);
    lone.settle();
    assert!(lone.take().is_empty());
    lone.link(node, LinkEvent::Description(answer_of(&sdp("own"))));
    assert!(
        matches!(&lone.sent()[..], [(to, Signal::Answer { ext: Some(ext), .. })] if to == "b" && ext.session == Session(9))
    );
    lone.link(node, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Opened { node, peer: Some(identity_of("b").peer_id()) }));
    lone.tree.assert_idle();
}

#[test]
fn the_larger_session_goes_on_and_is_answered() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    let link = lone.tree.nodes[&node].link;
    lone.take();
    lone.offered(via, "b", Some(5), &sdp("loser"));
    lone.candidate(via, "b", Some(5), "loser");
    lone.offered(via, "b", Some(5), &sdp("loser"));
    lone.candidate(via, "b", Some(9), "b");
    assert_eq!(lone.take(), [], "the firewall is not asked, the link is not told");
    lone.answered(via, "b", Some(9), &sdp("b"));
    // The loser's late candidates find no home.
    lone.candidate(via, "b", Some(5), "loser");
    let answer = Command::Answer {
        description: answer_of(&sdp("b")),
        remote: Remote::Pmesh { window: (5, 5), max_message: None },
    };
    assert!(matches!(&lone.outputs[0], Out::Command { link: to, command: Command::Confirm(_) } if *to == link));
    assert_eq!(lone.commands(node), [answer, Command::Candidate(candidate_of("b"))]);
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.tree.assert_idle();
}

#[test]
fn an_offer_that_has_not_left_gives_way_whatever_its_session() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.dial(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.verdict(Verdict::Accept);
    assert!(matches!(&starts(&mut lone)[..], [.., Target::Answer { .. }]));
    lone.link(node, LinkEvent::Description(answer_of(&sdp("own"))));
    assert!(matches!(&lone.sent()[..], [(_, Signal::Answer { .. })]), "our offer never leaves");
}

#[test]
fn an_offer_that_leaves_while_the_firewall_looks_at_theirs_is_decided_by_session() {
    for (ours, theirs) in [(9, 5), (5, 9)] {
        let (mut lone, via) = Lone::on_ramp();
        lone.offered(via, "b", Some(theirs), &sdp("b"));
        let check = lone.check();
        let node = lone.offering(via, "b", ours);
        lone.take();
        lone.verdict_on(check, Verdict::Accept);
        if ours > theirs {
            assert_eq!(lone.take(), [], "the other side finds its session smaller, and answers ours");
            lone.answered(via, "b", Some(ours), &sdp("b"));
            assert!(matches!(lone.commands(node)[..], [Command::Answer { .. }]));
        } else {
            assert!(matches!(starts(&mut lone)[..], [Target::Answer { .. }]));
        }
    }
}

#[test]
fn when_the_winner_is_refused_the_loser_is_next() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.candidate(via, "b", Some(5), "b");
    lone.turned_down(via, "b", 9, Refusal::Refused);
    lone.turned_down(via, "b", 9, Refusal::Refused);
    lone.answered(via, "b", Some(9), "refused and answered");
    assert_eq!(lone.tree.counters().unexpected, 2);
    lone.verdict(Verdict::Accept);
    assert!(matches!(lone.commands(node)[..], [Command::Candidate(_)]));
    lone.link(node, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Opened { node, peer: Some(identity_of("b").peer_id()) }));

    // Whoever refuses the loser too ends with the first refusal.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.turned_down(via, "b", 9, Refusal::Refused);
    lone.verdict(Verdict::Refuse);
    assert_eq!(lone.ended(), [(node, CloseReason::Refused)]);
    lone.tree.assert_idle();
}

#[test]
fn a_refusal_while_the_firewall_looks_at_theirs_waits_for_the_verdict() {
    for verdict in [Verdict::Accept, Verdict::Refuse] {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.offering(via, "b", 5);
        lone.offered(via, "b", Some(9), &sdp("b"));
        let check = lone.check();
        lone.turned_down(via, "b", 5, Refusal::Refused);
        assert_eq!(lone.ended(), []);
        lone.verdict_on(check, verdict);
        if verdict == Verdict::Accept {
            assert!(matches!(starts(&mut lone)[..], [Target::Answer { .. }]));
        } else {
            assert_eq!(lone.ended(), [(node, CloseReason::Refused)]);
        }
    }
}

#[test]
fn an_offer_that_was_accepted_but_lost_is_not_asked_about_again() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.dial(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    let check = lone.check();
    lone.describe(node, "ours");
    lone.verdict_on(check, Verdict::Accept);
    lone.take();
    lone.turned_down(via, "b", 9, Refusal::Refused);
    assert!(matches!(lone.take()[..], [Out::Drop { .. }, Out::Start { target: Target::Answer { .. }, .. }]));
}

#[test]
fn who_refuses_or_ignores_the_winner_says_so_and_goes_on_with_its_own() {
    for verdict in [Verdict::Refuse, Verdict::Ignore] {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.offering(via, "b", 5);
        lone.take();
        lone.offered(via, "b", Some(9), &sdp("b"));
        lone.verdict(verdict);
        let refusal = Signal::Refusal { session: Session(9), why: Refusal::Refused };
        assert_eq!(lone.sent(), [("b".to_owned(), refusal)]);
        lone.answered(via, "b", Some(5), &sdp("b"));
        assert!(matches!(lone.commands(node)[..], [Command::Answer { .. }]));
    }
}

#[test]
fn a_winner_that_stays_unanswered_gives_way_after_a_while() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.pass(5);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.take();
    lone.pass(2);
    lone.offered(via, "b", Some(5), &sdp("b"));
    assert_eq!(lone.take(), []);
    lone.pass(1);
    lone.verdict(Verdict::Accept);
    assert!(matches!(starts(&mut lone)[..], [Target::Answer { .. }]));
    lone.pass(12);
    assert_eq!(lone.ended(), [(node, CloseReason::TimedOut)], "its own time goes on");

    // An answer in time ends the wait.
    let (mut lone, via) = Lone::on_ramp();
    lone.offering(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.answered(via, "b", Some(9), &sdp("b"));
    lone.take();
    lone.pass(10);
    assert_eq!(lone.take(), []);
}

#[test]
fn an_answer_makes_the_question_moot() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.offered(via, "b", Some(9), &sdp("other"));
    let check = lone.check();
    lone.answered(via, "b", Some(5), &sdp("b"));
    assert!(lone.take().contains(&Out::CancelCheck { check }));
    lone.verdict_on(check, Verdict::Accept);
    assert_eq!(lone.take(), [], "the verdict comes too late");
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.tree.assert_idle();
}

#[test]
fn the_loser_is_next_however_ours_ends() {
    for end in 0..4 {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.offering(via, "b", 9);
        lone.offered(via, "b", Some(5), &sdp("b"));
        let reason = match end {
            0 => {
                lone.abandon(node);
                CloseReason::Cancelled
            }
            1 => {
                lone.pass(20);
                CloseReason::TimedOut
            }
            2 => {
                lone.close(node);
                CloseReason::Local
            }
            _ => {
                lone.link(node, LinkEvent::Closed(CloseReason::Failed("no socket".into())));
                CloseReason::Failed("no socket".into())
            }
        };
        let check = lone.check();
        assert_eq!(lone.ended(), [(node, reason)]);
        let fresh = lone.verdict_on(check, Verdict::Accept);
        assert!(lone.take().iter().any(|output| matches!(output, Out::Create { node, .. } if *node == fresh)));
        lone.link(fresh, LinkEvent::Opened { extension: true });
        lone.tree.assert_idle();
    }
}

#[test]
fn an_offer_that_comes_after_the_answer_waits_for_what_becomes_of_the_link() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.take();
    lone.offered(via, "b", Some(9), &sdp("again"));
    assert_eq!(lone.take(), []);
    lone.link(node, LinkEvent::Closed(CloseReason::Remote));
    lone.verdict(Verdict::Accept);
    assert_eq!(lone.ended(), [(node, CloseReason::Remote)]);
}

#[test]
fn who_answered_an_offer_that_was_given_up_is_told_and_makes_its_own() {
    // The side that gave up.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.abandon(node);
    lone.take();
    lone.answered(via, "b", Some(9), &sdp("b"));
    let refusal = Signal::Refusal { session: Session(9), why: Refusal::Failed };
    assert_eq!(lone.sent(), [("b".to_owned(), refusal)]);

    // The side that gave way to it.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.dial_with(via, "b", 5, json!("mine"), 20);
    lone.describe(node, "first");
    lone.offered(via, "b", Some(9), &sdp("b"));
    lone.verdict(Verdict::Accept);
    lone.take();
    lone.turned_down(via, "b", 9, Refusal::Failed);
    assert_eq!(starts(&mut lone), [Target::Offer]);
    lone.describe(node, "second");
    assert!(matches!(&lone.sent()[..], [(_, Signal::Offer { data, ext: Some(ext), .. })]
        if data == "mine" && ext.session == Session(6)));
    lone.answered(via, "b", Some(5), &sdp("to the first"));
    assert!(lone.commands(node).is_empty());
    lone.answered(via, "b", Some(6), &sdp("b"));
    lone.link(node, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Opened { node, peer: Some(identity_of("b").peer_id()) }));

    // The side that only accepted.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.accepted(via, "b", Some(9));
    lone.turned_down(via, "b", 8, Refusal::Failed);
    lone.turned_down(via, "b", 9, Refusal::Failed);
    assert_eq!(lone.ended(), [(node, CloseReason::Remote)]);
    lone.tree.assert_idle();
}

#[test]
fn the_other_side_starts_over() {
    // While the firewall looks at its first offer.
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(5), &sdp("first"));
    let first = lone.check();
    lone.offered(via, "b", Some(5), &sdp("first"));
    assert_eq!(lone.check(), first, "a duplicate is not asked about");
    lone.offered(via, "b", Some(6), &sdp("second"));
    assert!(lone.outputs.contains(&Out::CancelCheck { check: first }));
    let node = lone.verdict(Verdict::Accept);
    // After it was accepted: the old node ends, as nobody here asked for it.
    lone.offered(via, "b", Some(6), &sdp("second"));
    lone.offered(via, "b", Some(7), &sdp("third"));
    let check = lone.check();
    assert_eq!(lone.ended(), [(node, CloseReason::Remote)]);
    let node = lone.verdict_on(check, Verdict::Accept);
    lone.link(node, LinkEvent::Description(answer_of(&sdp("own"))));
    lone.link(node, LinkEvent::Opened { extension: true });
    lone.take();
    // After it is open.
    lone.offered(via, "b", Some(8), &sdp("fourth"));
    let refusal = Signal::Refusal { session: Session(8), why: Refusal::Connected };
    assert_eq!(lone.sent(), [("b".to_owned(), refusal)]);
    lone.tree.assert_idle();
}

#[test]
fn a_newer_offer_takes_the_place_of_the_one_that_was_kept() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.offered(via, "b", Some(3), &sdp("first"));
    lone.offered(via, "b", Some(9), &sdp("second"));
    let check = lone.check();
    lone.take();
    lone.pass(3);
    lone.abandon(node);
    assert!(!lone.outputs.iter().any(|output| matches!(output, Out::Check { .. })));
    lone.verdict_on(check, Verdict::Accept);
    let second = offer_of(&sdp("second"));
    assert!(starts(&mut lone).iter().any(|target| matches!(target, Target::Answer { offer, .. } if *offer == second)));
}

#[test]
fn the_other_side_starts_over_after_ours_gave_way() {
    for verdict in [Verdict::Accept, Verdict::Refuse] {
        let (mut lone, via) = Lone::on_ramp();
        let node = lone.offering(via, "b", 5);
        lone.offered(via, "b", Some(9), &sdp("first"));
        lone.verdict(Verdict::Accept);
        lone.link(node, LinkEvent::Description(answer_of(&sdp("own"))));
        lone.take();
        lone.offered(via, "b", Some(7), &sdp("second"));
        let check = lone.check();
        assert_eq!(lone.ended(), [], "our call goes on");
        lone.verdict_on(check, verdict);
        let expected = starts(&mut lone);
        assert_eq!(matches!(expected[..], [Target::Answer { .. }]), verdict == Verdict::Accept);
        assert_eq!(expected == [Target::Offer], verdict == Verdict::Refuse, "it is our turn");
    }
}

#[test]
fn our_own_offer_comes_back() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "me", 5);
    lone.offered(via, "me", Some(5), &sdp("own"));
    assert_eq!(lone.ended(), [(node, CloseReason::OwnAddress)]);
    // Nobody waits for it, or it comes through another node.
    lone.offered(via, "me", Some(5), &sdp("own"));
    assert_eq!(lone.sent(), [("me".to_owned(), Signal::Refusal { session: Session(5), why: Refusal::Own })]);
    // Then our call is told so.
    let node = lone.offering(via, "me", 7);
    lone.take();
    lone.turned_down(via, "me", 7, Refusal::Own);
    assert_eq!(lone.ended(), [(node, CloseReason::OwnAddress)]);
    lone.tree.assert_idle();
}

#[test]
fn over_two_introducers_the_larger_session_stays() {
    for (first, second) in [(5, 9), (9, 5)] {
        let (mut lone, via) = Lone::on_ramp();
        let peer = lone.peer(via, "relay");
        let dialled = lone.offering(via, "b", first);
        let accepted = lone.accepted(peer, "b", Some(second));
        lone.answered(via, "b", Some(first), &sdp("b"));
        lone.link(dialled, LinkEvent::Opened { extension: true });
        lone.take();
        lone.link(accepted, LinkEvent::Opened { extension: true });
        let (kept, gone) = if first > second { (dialled, accepted) } else { (accepted, dialled) };
        let outputs = lone.take();
        let link = lone.tree.nodes[&gone].link;
        assert!(outputs.contains(&Out::Command { link, command: Command::Close }));
        assert_eq!(
            outputs.contains(&Out::Opened { node: accepted, peer: Some(identity_of("b").peer_id()) }),
            kept == accepted
        );
        assert!(outputs.contains(&Out::Redirect { node: gone, instead: kept }));
        assert_eq!(lone.tree.open[&address("b")], kept);
        lone.link(gone, LinkEvent::Closed(CloseReason::Local));
        assert_eq!(lone.ended(), [(gone, CloseReason::Duplicate)]);
        lone.tree.assert_idle();
    }
}

#[test]
fn a_call_whose_attempt_lost_to_another_connection_gets_that() {
    for open_first in [true, false] {
        let (mut lone, via) = Lone::on_ramp();
        let peer = lone.peer(via, "relay");
        let call = lone.offering(via, "b", 5);
        let accepted = lone.accepted(peer, "b", Some(9));
        if open_first {
            lone.link(accepted, LinkEvent::Opened { extension: true });
        }
        lone.take();
        // The other side has it open already.
        lone.turned_down(via, "b", 5, Refusal::Connected);
        if !open_first {
            assert_eq!(lone.ended(), [], "the call waits");
            lone.link(accepted, LinkEvent::Opened { extension: true });
        }
        let outputs = lone.take();
        let at = outputs.iter().position(|output| *output == Out::Redirect { node: call, instead: accepted }).unwrap();
        let closed = Out::Closed { node: call, reason: CloseReason::Duplicate, via: Some(via) };
        assert_eq!(outputs[at + 1], closed);
        lone.tree.assert_idle();
    }
}

#[test]
fn a_loser_that_answered_is_out() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 9);
    lone.offered(via, "b", Some(5), &sdp("b"));
    lone.answered(via, "b", Some(9), &sdp("b"));
    lone.take();
    lone.abandon(node);
    assert!(
        matches!(lone.take()[..], [Out::Drop { .. }, Out::Closed { .. }]),
        "its own offer is not looked at any more"
    );
}

#[test]
fn of_two_connections_without_a_session_the_first_stays() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "relay");
    let (first, second) = (lone.accepted(via, "o", None), lone.accepted(peer, "o", None));
    lone.link(first, LinkEvent::Opened { extension: false });
    lone.take();
    lone.link(second, LinkEvent::Opened { extension: false });
    assert!(!lone.take().contains(&Out::Opened { node: second, peer: None }));
    assert_eq!(lone.tree.open[&address("o")], first);
}

#[test]
fn a_call_that_waited_for_a_call_through_another_introducer_tries_itself() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "relay");
    let (call, other) = (lone.offering(via, "b", 5), lone.offering(peer, "b", 9));
    lone.turned_down(via, "b", 5, Refusal::Connected);
    assert_eq!(lone.ended(), []);
    lone.frame(peer, "[17,\"b\",\"unknown\"]");
    assert_eq!(lone.ended(), [(other, CloseReason::Unreachable)]);
    assert_eq!(lone.tree.pending.get(via, &address("b")), Some(call));
}

#[test]
fn a_call_that_waited_for_another_attempt_in_vain_tries_again() {
    let (mut lone, via) = Lone::on_ramp();
    let peer = lone.peer(via, "relay");
    let call = lone.offering(via, "b", 5);
    let accepted = lone.accepted(peer, "b", Some(9));
    lone.turned_down(via, "b", 5, Refusal::Connected);
    lone.take();
    lone.link(accepted, LinkEvent::Closed(CloseReason::Lost("gone".into())));
    let outputs = lone.take();
    assert!(
        outputs.iter().any(|output| matches!(output, Out::Start { node, target: Target::Offer, .. } if *node == call))
    );
    assert!(!outputs.iter().any(|output| matches!(output, Out::Connection { .. })), "it has been told of before");
    lone.pass(20);
    assert_eq!(lone.ended(), [(call, CloseReason::TimedOut)]);
}
