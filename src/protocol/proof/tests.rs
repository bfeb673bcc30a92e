use proptest::prelude::*;
use serde_json::json;

use super::*;

fn sdp(certificate: &[u8]) -> String {
    format!("v=0\r\ns=-\r\n{}a=setup:actpass\r\n", Fingerprint::of_certificate(certificate).line())
}

fn terms() -> Terms {
    Terms { session: Session(7), window: (900_000, 200), max_message: Some(5) }
}

const NONCE: Nonce = Base64([1; 16]);
const OTHER_NONCE: Nonce = Base64([2; 16]);
const OURS: &[u8] = b"our certificate";
const THEIRS: &[u8] = b"their certificate";
const MALLORYS: &[u8] = b"Mallory's certificate";

/// An honest introduction: the offer, the answer, and what each end has to confirm.
struct Scene {
    alice: Identity,
    bob: Identity,
    offer: Proof,
    offered: Offered,
    answer: Proof,
    bobs: Confirmation,
}

impl Scene {
    fn new() -> Self {
        let (alice, bob) = (Identity::generate(), Identity::generate());
        let (offer, offered) = Offered::sign(&alice, NONCE, terms(), &json!("secret"), &sdp(OURS)).unwrap();
        let seen = Offered::verify(&offer, terms(), &json!("secret"), &sdp(OURS)).unwrap();
        assert_eq!(seen, offered);
        let (answer, bobs) = seen.sign_answer(&bob, OTHER_NONCE, terms(), &sdp(THEIRS)).unwrap();
        Self { alice, bob, offer, offered, answer, bobs }
    }

    fn answered(&self, answer: &Proof, terms: Terms, sdp: &str) -> Result<Confirmation, ProofError> {
        self.offered.verify_answer(&self.alice, answer, terms, sdp)
    }
}

#[test]
fn two_honest_ends_confirm_each_other() {
    let scene = Scene::new();
    let alices = scene.answered(&scene.answer, terms(), &sdp(THEIRS)).unwrap();
    assert_eq!(alices.peer_id(), scene.bob.peer_id());
    assert_eq!(scene.bobs.peer_id(), scene.alice.peer_id());
    assert_eq!(alices.check(scene.bobs.message(), THEIRS), Ok(()));
    assert_eq!(scene.bobs.check(alices.message(), OURS), Ok(()));
}

#[test]
fn whatever_is_altered_in_an_offer_is_noticed() {
    let Scene { offer, bob, .. } = Scene::new();
    let verify = |proof: &Proof, terms, data, certificate| Offered::verify(proof, terms, &data, &sdp(certificate));
    let secret = || json!("secret");
    assert!(verify(&offer, terms(), secret(), OURS).is_ok());
    let swapped_key = Proof { key: bob.peer_id(), ..offer.clone() };
    let nonce = Proof { nonce: OTHER_NONCE, ..offer.clone() };
    let mut signature = offer.clone();
    signature.signature.0[10] ^= 1;
    for proof in [swapped_key, nonce, signature] {
        assert_eq!(verify(&proof, terms(), secret(), OURS), Err(ProofError::Signature));
    }
    for altered in [
        Terms { session: Session(8), ..terms() },
        Terms { window: (900_001, 200), ..terms() },
        Terms { window: (900_000, 0), ..terms() },
        Terms { max_message: Some(6), ..terms() },
        Terms { max_message: None, ..terms() },
    ] {
        assert_eq!(verify(&offer, altered, secret(), OURS), Err(ProofError::Signature));
    }
    assert_eq!(verify(&offer, terms(), json!("other"), OURS), Err(ProofError::Signature));
    assert_eq!(verify(&offer, terms(), secret(), MALLORYS), Err(ProofError::Signature));
}

#[test]
fn whatever_is_altered_in_an_answer_is_noticed() {
    let scene = Scene::new();
    let answer = scene.answer.clone();
    assert!(scene.answered(&answer, terms(), &sdp(THEIRS)).is_ok());
    let swapped_key = Proof { key: scene.alice.peer_id(), ..answer.clone() };
    let nonce = Proof { nonce: NONCE, ..answer.clone() };
    // The offer for an answer, and so a reflection of it.
    for proof in [swapped_key, nonce, scene.offer.clone()] {
        assert_eq!(scene.answered(&proof, terms(), &sdp(THEIRS)), Err(ProofError::Signature));
    }
    assert_eq!(scene.answered(&answer, Terms { window: (1, 1), ..terms() }, &sdp(THEIRS)), Err(ProofError::Signature));
    assert_eq!(scene.answered(&answer, terms(), &sdp(MALLORYS)), Err(ProofError::Signature));
}

#[test]
fn an_answer_fits_one_offer_only() {
    let scene = Scene::new();
    for (nonce, session, certificate) in
        [(OTHER_NONCE, Session(7), OURS), (NONCE, Session(8), OURS), (NONCE, Session(7), MALLORYS)]
    {
        let terms = Terms { session, ..terms() };
        let (_, other) = Offered::sign(&scene.alice, nonce, terms, &json!("secret"), &sdp(certificate)).unwrap();
        let verified = other.verify_answer(&scene.alice, &scene.answer, terms, &sdp(THEIRS));
        assert_eq!(verified, Err(ProofError::Signature));
    }
}

/// An introducer that says the two certificates are its own, with valid signatures, is found out inside the channel.
#[test]
fn who_signs_for_the_certificates_of_others_gains_nothing() {
    let (alice, bob, mallory) = (Identity::generate(), Identity::generate(), Identity::generate());
    let (_, offered) = Offered::sign(&alice, NONCE, terms(), &json!(null), &sdp(OURS)).unwrap();
    let (forged, _) = Offered::sign(&mallory, NONCE, terms(), &json!(null), &sdp(OURS)).unwrap();
    let seen = Offered::verify(&forged, terms(), &json!(null), &sdp(OURS)).unwrap();
    let (_, bobs) = seen.sign_answer(&bob, OTHER_NONCE, terms(), &sdp(THEIRS)).unwrap();
    let (forged, _) = offered.sign_answer(&mallory, OTHER_NONCE, terms(), &sdp(THEIRS)).unwrap();
    let alices = offered.verify_answer(&alice, &forged, terms(), &sdp(THEIRS)).unwrap();
    assert_eq!(bobs.check(alices.message(), OURS), Err(ProofError::Signature));
    assert_eq!(alices.check(bobs.message(), THEIRS), Err(ProofError::Signature));
}

#[test]
fn a_confirmation_is_of_one_end_and_one_certificate() {
    let scene = Scene::new();
    let alices = scene.answered(&scene.answer, terms(), &sdp(THEIRS)).unwrap();
    assert_eq!(alices.check(alices.message(), THEIRS), Err(ProofError::Signature), "sent back");
    assert_eq!(alices.check(scene.bobs.message(), MALLORYS), Err(ProofError::Certificate));
    assert_eq!(alices.check(&scene.bobs.message()[1..], THEIRS), Err(ProofError::Signature));
    assert_eq!(alices.check(&[], THEIRS), Err(ProofError::Signature));
}

#[test]
fn descriptions_with_not_one_fingerprint_have_none() {
    let good = sdp(OURS);
    let line = good.lines().find(|line| line.starts_with("a=fingerprint")).unwrap();
    assert!(Fingerprint::of_description(&good).is_ok());
    // Once for the session and once for the media is usual.
    assert!(Fingerprint::of_description(&format!("{good}{line}\r\n")).is_ok());
    assert_eq!(Fingerprint::of_description(&good.replace("\r\n", "\n")), Fingerprint::of_description(&good));
    assert_eq!(
        Fingerprint::of_description(&good.replace(line, &line.to_lowercase())),
        Fingerprint::of_description(&good)
    );
    let other = sdp(THEIRS);
    let bad = [
        String::new(),
        good.replace(line, ""),
        format!("{good}{other}"),
        // What another parser might see.
        format!("{good}a=FINGERPRINT:sha-256 {}\r\n", &line[22..]),
        format!("{good} {line}\r\n"),
        format!("{good}x\r{line}\r\n"),
        format!("{good}a=fingerprint:sha-1 00\r\n"),
        good.replace("sha-256", "SHA-256"),
        good.replace("sha-256 ", "sha-256  "),
        good.replace(line, &line[..line.len() - 1]),
        good.replace(line, &format!("{line}:00")),
        good.replace(line, &format!("{line} ")),
        good.replace(line, &line.replace(':', "")),
    ];
    for sdp in bad {
        assert_eq!(Fingerprint::of_description(&sdp), Err(ProofError::Fingerprint), "{sdp}");
    }
}

fn digest(value: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash_value(&mut hash, value);
    hash.finalize().into()
}

#[test]
fn offer_data_that_javascript_wrote_anew_is_the_same() {
    for (ours, theirs) in [
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-0.0", "0"),
        ("0.1", "0.10000000000000001"),
        ("1e21", "1000000000000000000000"),
        ("9007199254740993", "9007199254740992"),
        (r#"{"b":1,"a":[null,true]}"#, r#"{ "a": [null, true], "b": 1 }"#),
        (r#""é\/""#, r#""\u00e9/""#),
    ] {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(digest(&parse(ours)), digest(&parse(theirs)), "{ours} {theirs}");
    }
}

#[test]
fn offer_data_of_one_digest_looks_the_same() {
    let texts = [
        "1",
        "1.0",
        "1e0",
        "-0",
        "0.5",
        "5e-1",
        "9007199254740993",
        "9007199254740992",
        "1e300",
        "[{\"a\":[1.0]}]",
        "[{\"a\":[1]}]",
    ];
    let values = texts.map(|text| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        let before = digest(&value);
        normalize(&mut value);
        assert_eq!(digest(&value), before, "{text}");
        value
    });
    for value in &values {
        for other in &values {
            assert_eq!(digest(value) == digest(other), value == other, "{value} {other}");
        }
    }
    assert_eq!(values[1], json!(1));
    assert_eq!(values[3], json!(0));
    assert_eq!(values[6], json!(9_007_199_254_740_992_i64));
}

#[test]
fn different_offer_data_differs() {
    let values = [
        json!(null),
        json!(false),
        json!(true),
        json!(0),
        json!(1),
        json!("0"),
        json!(""),
        json!([]),
        json!({}),
        json!([[]]),
        json!([[], []]),
        json!(["a", "b"]),
        json!(["ab"]),
        json!({"a": "b"}),
        json!({"b": "a"}),
        json!([{"a": 1}, {}]),
        json!([{}, {"a": 1}]),
    ];
    for (index, value) in values.iter().enumerate() {
        for other in &values[index + 1..] {
            assert_ne!(digest(value), digest(other), "{value} {other}");
        }
    }
}

proptest! {
    #[test]
    fn numbers_keep_their_digest_over_the_wire(number: f64) {
        let value = json!({ "n": number });
        let again: Value = serde_json::from_str(&value.to_string()).unwrap();
        prop_assert_eq!(digest(&value), digest(&again));
    }

    #[test]
    fn any_description_gives_a_fingerprint_or_an_error(sdp in "(a=fingerprint:sha-256 )?[0-9A-F:\r\n]{0,120}") {
        if Fingerprint::of_description(&sdp).is_ok() {
            prop_assert!(sdp.contains("a=fingerprint:sha-256 "));
        }
    }

    #[test]
    fn proofs_survive_json(secret: [u8; 32], nonce: [u8; 16]) {
        let identity = Identity::from_secret(secret);
        let (proof, _) = Offered::sign(&identity, Base64(nonce), terms(), &json!(null), &sdp(OURS)).unwrap();
        let text = serde_json::to_string(&proof).unwrap();
        prop_assert_eq!(serde_json::from_str::<Proof>(&text).unwrap(), proof);
    }
}
