//! Offers that cross with those of an original P, which has no sessions and chokes on extensions.

use super::lone::*;
use crate::error::CloseReason;
use crate::node::firewall::Verdict;
use crate::transport::{Command, LinkEvent, Remote};

#[test]
fn towards_an_original_we_give_way() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "o", u64::MAX);
    lone.take();
    lone.offered(via, "o", None, &sdp("dialled"));
    let check = lone.check();
    // It answers ours too, with a connection that it does not keep under our address.
    lone.answered(via, "o", None, &sdp("orphan"));
    lone.candidate(via, "o", None, "orphan");
    lone.candidate(via, "o", None, "dialled");
    lone.verdict_on(check, Verdict::Accept);
    assert_eq!(lone.commands(node), [Command::Candidate(candidate_of("dialled"))]);
    lone.candidate(via, "o", None, "orphan");
    lone.answered(via, "o", None, &sdp("orphan"));
    lone.offered(via, "o", None, &sdp("dialled"));
    assert_eq!(lone.take(), [], "nothing of the orphan, nothing twice, and no refusals, at which it would choke");
    lone.link(node, LinkEvent::Opened { extension: false });
    assert_eq!(lone.take(), [Out::Opened { node, peer: None }]);
}

#[test]
fn the_answer_of_an_original_counts_if_its_offer_is_refused() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "o", 1);
    lone.offered(via, "o", None, &sdp("dialled"));
    let check = lone.check();
    lone.answered(via, "o", None, &sdp("orphan"));
    lone.answered(via, "o", None, &sdp("forged"));
    lone.candidate(via, "o", None, "orphan");
    lone.candidate(via, "o", None, "dialled");
    lone.take();
    lone.verdict_on(check, Verdict::Refuse);
    let answer = Command::Answer { description: answer_of(&sdp("orphan")), remote: Remote::Original };
    assert_eq!(lone.commands(node), [answer, Command::Candidate(candidate_of("orphan"))]);
}

#[test]
fn the_answer_of_an_original_counts_if_it_comes_before_its_offer() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "o", 1);
    lone.answered(via, "o", None, &sdp("accepted"));
    lone.offered(via, "o", None, &sdp("orphan"));
    lone.candidate(via, "o", None, "orphan");
    lone.candidate(via, "o", None, "accepted");
    assert!(matches!(&lone.commands(node)[..], [Command::Answer { .. }, Command::Candidate(candidate)]
        if *candidate == candidate_of("accepted")));
    lone.link(node, LinkEvent::Opened { extension: false });
    lone.tree.assert_idle();
}

#[test]
fn an_original_starts_over() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "o", None, &sdp("first"));
    let first = lone.check();
    lone.offered(via, "o", None, &sdp("first"));
    assert_eq!(lone.check(), first);
    let node = lone.verdict(Verdict::Accept);
    lone.offered(via, "o", None, &sdp("first"));
    assert_eq!(lone.ended(), []);
    lone.offered(via, "o", None, &sdp("second"));
    let check = lone.check();
    assert_eq!(lone.ended(), [(node, CloseReason::Remote)]);
    lone.verdict_on(check, Verdict::Ignore);
    assert_eq!(lone.sent(), []);
    lone.tree.assert_idle();
}
