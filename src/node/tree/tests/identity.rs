//! What an introducer can do to proofs of identity, step by step, and what comes of it.

use serde_json::json;

use super::super::*;
use super::lone::*;
use crate::node::firewall::Verdict;
use crate::protocol::proof::{Base64, Fingerprint, Offered, Proof};
use crate::protocol::signal::{Description, Extension, Refusal, Signal};
use crate::transport::Target;

fn peer_of(name: &str) -> Option<PeerId> {
    Some(identity_of(name).peer_id())
}

/// A tree and an introducer: an onramp, then a peer.
fn introducers() -> [(Lone, NodeId); 2] {
    let (mut lone, onramp) = Lone::on_ramp();
    let peer = lone.peer(onramp, "relay");
    [Lone::on_ramp(), (lone, peer)]
}

fn requiring() -> (Lone, NodeId) {
    let mut lone = Lone::with(Settings { require_identity: true, ..settings("me") });
    let via = lone.onramp();
    (lone, via)
}

/// An honest offer of `b`, to be altered.
fn honest_offer() -> (Description, Extension) {
    let sdp = sdp("b");
    let ext = offer_ext("b", 5, &json!("data"), &sdp);
    (offer_of(&sdp), ext)
}

fn proof(ext: &mut Extension) -> &mut Proof {
    ext.identity.as_mut().unwrap()
}

/// Brings an altered offer. It must be refused, and nothing made or asked for it.
fn refused_offer(description: Description, data: Value, ext: Extension) {
    let session = ext.session;
    let offer = Signal::Offer { description, data, ext: Some(ext) };
    for (mut lone, via) in introducers() {
        lone.relayed(via, "b", &offer);
        assert!(!lone.outputs.iter().any(|output| matches!(output, Out::Check { .. } | Out::Start { .. })));
        assert_eq!(lone.sent(), [("b".to_owned(), Signal::Refusal { session, why: Refusal::Identity })]);
        assert_eq!(lone.tree.counters().unverified, 1);
        lone.tree.assert_idle();
    }
}

#[test]
fn the_firewall_is_told_who_offers() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(5), &sdp("b"));
    assert!(matches!(lone.outputs.back(), Some(Out::Check { peer, .. }) if *peer == peer_of("b")));
    lone.offered(via, "o", None, &sdp("o"));
    assert!(matches!(lone.outputs.back(), Some(Out::Check { peer: None, .. })));
}

#[test]
fn altered_offers_are_refused() {
    let data = || json!("data");
    let (honest, ext) = honest_offer();
    let altered = |alter: &dyn Fn(&mut Extension)| {
        let mut ext = ext.clone();
        alter(&mut ext);
        ext
    };
    let other_certificate = Fingerprint::of_certificate(b"mallory").line();
    let own_certificate = Fingerprint::of_certificate(b"b").line();
    let swapped = offer_of(&honest.sdp.replace(&own_certificate, &other_certificate));
    refused_offer(swapped.clone(), data(), ext.clone());
    refused_offer(swapped, data(), altered(&|ext| proof(ext).key = identity_of("mallory").peer_id()));
    refused_offer(honest.clone(), data(), altered(&|ext| proof(ext).key = identity_of("mallory").peer_id()));
    refused_offer(honest.clone(), data(), altered(&|ext| proof(ext).nonce = Base64([9; 16])));
    refused_offer(honest.clone(), data(), altered(&|ext| proof(ext).signature.0[63] ^= 1));
    refused_offer(honest.clone(), data(), altered(&|ext| ext.identity = None));
    refused_offer(honest.clone(), data(), altered(&|ext| ext.session = Session(6)));
    refused_offer(honest.clone(), data(), altered(&|ext| ext.window = (u32::MAX, u32::MAX)));
    refused_offer(honest.clone(), data(), altered(&|ext| ext.max_message = Some(1)));
    refused_offer(honest.clone(), json!("other data"), ext.clone());
    refused_offer(offer_of(&format!("{}{other_certificate}", honest.sdp)), data(), ext.clone());
    refused_offer(offer_of("v=0\r\n"), data(), ext);
}

#[test]
fn a_malformed_identity_is_not_taken_for_none() {
    let (mut lone, via) = Lone::on_ramp();
    let (honest, ext) = honest_offer();
    let text = Signal::Offer { description: honest, data: json!("data"), ext: Some(ext) }.to_json();
    for bad in ["null", "7", "{}", "\"x\""] {
        let mut payload: Value = serde_json::from_str(&text).unwrap();
        payload[3]["identity"] = serde_json::from_str(bad).unwrap();
        lone.frame(via, &format!("[7,\"b\",{payload}]"));
        assert!(matches!(&lone.sent()[..], [(_, Signal::Refusal { why: Refusal::Identity, .. })]), "{bad}");
    }
}

/// A call to `b`, and an altered answer to it. Returns how the call ended.
fn ended_by(alter: impl Fn(&mut Description, &mut Option<Extension>)) -> CloseReason {
    let [onramp, peer] = introducers().map(|introducer| ended_by_in(introducer, dial("b", 5), &alter));
    assert_eq!(onramp, peer);
    onramp
}

fn ended_by_in(
    (mut lone, via): (Lone, NodeId),
    dial: Dial<&'static str>,
    alter: impl FnOnce(&mut Description, &mut Option<Extension>),
) -> CloseReason {
    let node = lone.call(via, dial);
    lone.describe(node, &sdp("own"));
    let offered = lone.proven(via, "b").cloned();
    let mut description = answer_of(&sdp("b"));
    let mut ext = Some(answer_ext("b", 5, offered.as_ref(), &description.sdp));
    alter(&mut description, &mut ext);
    lone.take();
    let told = ext.is_some();
    lone.relayed(via, "b", &Signal::Answer { description, ext });
    let outputs: Vec<_> = lone.outputs.iter().cloned().collect();
    assert!(!outputs.iter().any(|output| matches!(output, Out::Command { .. })), "the link is not told of it");
    let refusals = lone.sent();
    let refusal = Signal::Refusal { session: Session(5), why: Refusal::Identity };
    assert_eq!(refusals, if told { vec![("b".to_owned(), refusal)] } else { vec![] }, "the other side need not wait");
    lone.tree.assert_idle();
    let reason = outputs
        .into_iter()
        .find_map(|output| match output {
            Out::Closed { node: closed, reason, .. } if closed == node => Some(reason),
            _ => None,
        })
        .expect("the call ends");
    let unverified = matches!(reason, CloseReason::Unverified(_) | CloseReason::NoIdentity);
    assert_eq!(lone.tree.counters().unverified, u64::from(unverified));
    reason
}

#[test]
fn altered_answers_end_the_call() {
    let signature = || CloseReason::Unverified("a signature does not fit".into());
    let mallory = Fingerprint::of_certificate(b"mallory").line();
    let swap = |description: &mut Description| {
        description.sdp = description.sdp.replace(&Fingerprint::of_certificate(b"b").line(), &mallory);
    };
    let swap_key = |ext: &mut Option<Extension>| {
        proof(ext.as_mut().unwrap()).key = identity_of("mallory").peer_id();
    };
    assert_eq!(ended_by(|description, _| swap(description)), signature());
    assert_eq!(ended_by(|_, ext| swap_key(ext)), signature());
    assert_eq!(
        ended_by(|description, ext| {
            swap(description);
            swap_key(ext);
        }),
        signature()
    );
    assert_eq!(ended_by(|_, ext| proof(ext.as_mut().unwrap()).nonce = Base64([9; 16])), signature());
    assert_eq!(ended_by(|_, ext| ext.as_mut().unwrap().window = (1, 1)), signature());
    assert_eq!(ended_by(|_, ext| ext.as_mut().unwrap().max_message = Some(1)), signature());
    let missing = CloseReason::Unverified("there is no usable proof".into());
    assert_eq!(ended_by(|_, ext| ext.as_mut().unwrap().identity = None), missing);
    let two = CloseReason::Unverified("the description has not one SHA-256 fingerprint".into());
    assert_eq!(ended_by(|description, _| description.sdp.push_str(&mallory)), two);
}

#[test]
fn an_old_answer_or_that_of_another_session_fits_no_new_offer() {
    // Another offer of ours: another certificate, another nonce, another session.
    let (_, other) = Offered::sign(
        &identity_of("me"),
        Base64([8; 16]),
        crate::protocol::proof::Terms { session: Session(5), window: (1000, 10), max_message: Some(1000) },
        &Value::Null,
        &sdp("own"),
    )
    .unwrap();
    let ended = ended_by(|description, ext| *ext = Some(answer_ext("b", 5, Some(&other), &description.sdp)));
    assert_eq!(ended, CloseReason::Unverified("a signature does not fit".into()));
    // Two calls at once, and the answer to one brought for the other.
    let (mut lone, via) = Lone::on_ramp();
    let (first, second) = (lone.offering(via, "b", 5), lone.offering(via, "c", 6));
    let ext = answer_ext("b", 5, lone.proven(via, "b"), &sdp("b"));
    lone.take();
    lone.relayed(via, "c", &Signal::Answer { description: answer_of(&sdp("b")), ext: Some(ext.clone()) });
    assert!(lone.commands(second).is_empty(), "another session");
    let ext = Extension { session: Session(6), ..ext };
    lone.relayed(via, "c", &Signal::Answer { description: answer_of(&sdp("b")), ext: Some(ext) });
    assert_eq!(lone.ended(), [(second, CloseReason::Unverified("a signature does not fit".into()))]);
    lone.answered(via, "b", Some(5), &sdp("b"));
    assert!(matches!(lone.commands(first)[..], [Command::Answer { .. }]), "the other is not harmed");
}

#[test]
fn an_offer_that_is_sent_back_is_refused_wherever_it_comes_from() {
    let (mut lone, via) = Lone::on_ramp();
    let relay = lone.peer(via, "relay");
    let node = lone.offering(via, "b", 5);
    let offer = lone.sent().pop().unwrap().1;
    for (from, by) in [("x", via), ("b", relay)] {
        lone.relayed(by, from, &offer);
        assert_eq!(lone.sent(), [(from.to_owned(), Signal::Refusal { session: Session(5), why: Refusal::Own })]);
    }
    lone.relayed(via, "b", &offer);
    assert_eq!(lone.ended(), [(node, CloseReason::OwnAddress)]);
    // An answer with our own key is none either.
    let reflected = ended_by(|description, ext| {
        *ext = ext.take().map(|_| {
            let ours = crate::protocol::proof::Terms { session: Session(5), window: (5, 5), max_message: None };
            let (_, offered) =
                Offered::sign(&identity_of("me"), Base64([4; 16]), ours, &Value::Null, &description.sdp).unwrap();
            answer_ext("me", 5, Some(&offered), &description.sdp)
        })
    });
    assert!(matches!(reflected, CloseReason::Unverified(_)));
}

#[test]
fn another_than_the_expected_is_turned_down() {
    let expecting = |name: &str| Dial { expect: peer_of(name), ..dial("b", 5) };
    let expected = identity_of("bob").peer_id();
    let reason = |found| CloseReason::UnexpectedPeer { expected, found };
    assert_eq!(ended_by_in(Lone::on_ramp(), expecting("bob"), |_, _| {}), reason(peer_of("b")));
    assert_eq!(ended_by_in(Lone::on_ramp(), expecting("bob"), |_, ext| *ext = None), reason(None));
    // The right one is not.
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.call(via, expecting("b"));
    lone.describe(node, &sdp("own"));
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.link(node, LinkEvent::Opened { extension: true });
    assert!(lone.take().contains(&Out::Opened { node, peer: peer_of("b") }));
    // Who asks for an open node gets it if it is the right one.
    let right = lone.call(via, expecting("b"));
    assert!(lone.take().contains(&Out::Redirect { node: right, instead: node }));
}

#[test]
fn calls_that_expect_different_peers_share_no_result() {
    let (mut lone, via) = Lone::on_ramp();
    let first = lone.call(via, Dial { expect: peer_of("b"), ..dial("b", 5) });
    lone.describe(first, &sdp("own"));
    let second = lone.call(via, Dial { expect: peer_of("bob"), ..dial("b", 6) });
    let third = lone.call(via, dial("b", 7));
    lone.answered(via, "b", Some(5), &sdp("b"));
    lone.link(first, LinkEvent::Opened { extension: true });
    let outputs = lone.take();
    assert!(outputs.contains(&Out::Redirect { node: third, instead: first }));
    assert!(!outputs.iter().any(|output| matches!(output, Out::Redirect { node, .. } if *node == second)));
    // The other way round the second tries for itself.
    let (mut lone, via) = Lone::on_ramp();
    let first = lone.call(via, Dial { expect: peer_of("bob"), ..dial("b", 5) });
    lone.describe(first, &sdp("own"));
    let second = lone.call(via, Dial { expect: peer_of("b"), ..dial("b", 6) });
    lone.answered(via, "b", Some(5), &sdp("b"));
    let outputs = lone.take();
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Out::Start { node, target: Target::Offer, .. } if *node == second))
    );
}

#[test]
fn an_offer_of_another_does_not_take_the_place_of_a_call() {
    for late in [true, false] {
        let (mut lone, via) = Lone::on_ramp();
        let call = |lone: &mut Lone| lone.call(via, Dial { expect: peer_of("bob"), ..dial("b", 5) });
        let node = if late {
            lone.offered(via, "b", Some(9), &sdp("b"));
            let check = lone.check();
            let node = call(&mut lone);
            lone.verdict_on(check, Verdict::Accept);
            node
        } else {
            let node = call(&mut lone);
            lone.offered(via, "b", Some(9), &sdp("b"));
            node
        };
        assert_eq!(lone.sent(), [("b".to_owned(), Signal::Refusal { session: Session(9), why: Refusal::Refused })]);
        lone.describe(node, &sdp("own"));
        assert!(matches!(&lone.sent()[..], [(_, Signal::Offer { .. })]), "our call goes on");
    }
}

#[test]
fn who_requires_identities_turns_others_down() {
    let (mut lone, via) = requiring();
    lone.offered(via, "o", None, &sdp("o"));
    assert_eq!(lone.take(), []);
    assert_eq!(lone.tree.counters().unverified, 1);
    let stripped = ended_by_in(requiring(), dial("b", 5), |_, ext| *ext = None);
    assert_eq!(stripped, CloseReason::NoIdentity);
}

/// Two open links to "b", the second to somebody else: over an onramp, then over a peer.
fn two_under_one_address(first: Option<u64>, expected: bool) -> (Lone, NodeId, NodeId) {
    let (mut lone, via) = Lone::on_ramp();
    let relay = lone.peer(via, "relay");
    let squatter = lone.accepted(relay, "b", first);
    let expect = expected.then(|| identity_of("bob").peer_id());
    let call = lone.call(via, Dial { expect, ..dial("b", 5) });
    lone.describe(call, &sdp("own"));
    let ext = answer_ext("bob", 5, lone.proven(via, "b"), &sdp("bob"));
    lone.relayed(via, "b", &Signal::Answer { description: answer_of(&sdp("bob")), ext: Some(ext) });
    lone.link(squatter, LinkEvent::Opened { extension: first.is_some() });
    lone.take();
    lone.link(call, LinkEvent::Opened { extension: true });
    (lone, squatter, call)
}

#[test]
fn under_one_address_the_first_peer_stays() {
    let (mut lone, squatter, call) = two_under_one_address(Some(1), false);
    let outputs = lone.take();
    assert!(!outputs.iter().any(|output| matches!(output, Out::Opened { .. } | Out::Redirect { .. })));
    assert!(outputs.contains(&Out::Closed { node: call, reason: CloseReason::Duplicate, via: Some(NodeId(1)) }));
    assert_eq!(lone.tree.open[&address("b")], squatter);
    lone.tree.assert_idle();
}

#[test]
fn who_is_expected_or_shows_an_identity_takes_the_address_over() {
    for (first, expected) in [(Some(1), true), (None, true), (None, false)] {
        let (mut lone, squatter, call) = two_under_one_address(first, expected);
        let outputs = lone.take();
        assert!(outputs.contains(&Out::Opened { node: call, peer: peer_of("bob") }));
        assert!(!outputs.iter().any(|output| matches!(output, Out::Redirect { .. })));
        assert_eq!(lone.tree.open[&address("b")], call);
        assert!(!lone.tree.nodes.contains_key(&squatter));
        lone.tree.assert_idle();
    }
}

#[test]
fn a_squatter_does_not_keep_a_call_from_whom_it_expects() {
    let (mut lone, via) = Lone::on_ramp();
    let relay = lone.peer(via, "relay");
    let squatter = lone.accepted(relay, "b", Some(1));
    lone.link(squatter, LinkEvent::Opened { extension: true });
    let call = lone.call(via, Dial { expect: peer_of("bob"), ..dial("b", 5) });
    assert!(lone.take().iter().any(|output| matches!(output, Out::Start { node, .. } if *node == call)));
    let any = lone.call(relay, dial("b", 6));
    assert!(lone.take().contains(&Out::Redirect { node: any, instead: squatter }));
}

#[test]
fn a_refused_call_does_not_wait_for_an_offer_that_it_turns_down() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(9), &sdp("b"));
    let check = lone.check();
    let call = lone.call(via, Dial { expect: peer_of("bob"), ..dial("b", 5) });
    lone.describe(call, &sdp("own"));
    lone.turned_down(via, "b", 5, Refusal::Refused);
    assert_eq!(lone.ended(), [], "perhaps theirs will do");
    lone.verdict_on(check, Verdict::Accept);
    assert_eq!(lone.ended(), [(call, CloseReason::Refused)]);
    lone.tree.assert_idle();
}

#[test]
fn an_accepted_offer_is_not_asked_about_again_when_our_call_fails() {
    let (mut lone, via) = Lone::on_ramp();
    lone.offered(via, "b", Some(3), &sdp("b"));
    let check = lone.check();
    let call = lone.offering(via, "b", 5);
    let kept = lone.verdict_on(check, Verdict::Accept);
    lone.take();
    lone.abandon(call);
    let outputs = lone.take();
    assert!(!outputs.iter().any(|output| matches!(output, Out::Check { .. })));
    assert!(outputs.contains(&Out::Create { node: kept, address: address("b"), via }));
    // One that was not looked at yet is asked about, with its data.
    let (mut lone, via) = Lone::on_ramp();
    let call = lone.offering(via, "b", 5);
    lone.offered(via, "b", Some(3), &sdp("b"));
    lone.abandon(call);
    assert!(lone.take().iter().any(|output| matches!(output, Out::Check { data, .. } if *data == "data")));
}

#[test]
fn the_firewall_sees_numbers_in_one_form() {
    let (mut lone, via) = Lone::on_ramp();
    let ext = offer_ext("b", 5, &json!({"level": 1}), &sdp("b"));
    let data = serde_json::from_str("{\"level\":1.0}").unwrap();
    lone.relayed(via, "b", &Signal::Offer { description: offer_of(&sdp("b")), data, ext: Some(ext) });
    assert!(matches!(lone.outputs.back(), Some(Out::Check { data, .. }) if *data == json!({"level": 1})));
}

#[test]
fn another_side_that_does_not_accept_our_proof_ends_the_call() {
    let (mut lone, via) = Lone::on_ramp();
    let node = lone.offering(via, "b", 5);
    lone.turned_down(via, "b", 5, Refusal::Identity);
    assert!(matches!(&lone.ended()[..], [(ended, CloseReason::Unverified(_))] if *ended == node));
}
