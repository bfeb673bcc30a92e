//! Peer ids, fingerprints, and the proofs of identity.

use arbitrary::{Result, Unstructured};
use serde_json::Value;

use crate::identity::{Identity, PeerId};
use crate::protocol::proof::{Base64, Confirmation, Fingerprint, Nonce, Offered, Proof, Terms};
use crate::protocol::signal::{Description, DescriptionKind, Extension, Session, Signal};
use crate::signal;

const LINE: &str = "a=fingerprint:sha-256 ";

/// Either any text is read as a peer id and as a session description; or a description is made of parts; or two peers
/// prove who they are.
pub fn check(data: &[u8]) {
    // An error means that the input is at its end: nothing to check.
    if let [0, data @ ..] = data {
        let _ = proofs(&mut Unstructured::new(data));
    } else if let [1, data @ ..] = data {
        let _ = parts(&mut Unstructured::new(data)).map(|sdp| fingerprint(&sdp));
    } else if let Ok(text) = std::str::from_utf8(data) {
        peer_id(text);
        fingerprint(text);
    }
}

/// There is one way to write a peer id, but for capitals.
fn peer_id(text: &str) {
    let Ok(id) = text.parse::<PeerId>() else { return };
    assert_eq!(id.to_string(), text.to_ascii_lowercase());
    assert_eq!(PeerId::from_bytes(*id.as_bytes()), Ok(id));
}

/// A description with a fingerprint has it in lines as they should be, and no other.
fn fingerprint(sdp: &str) {
    let Ok(fingerprint) = Fingerprint::of_description(sdp) else { return };
    let lower = sdp.to_ascii_lowercase();
    for (at, _) in lower.match_indices("fingerprint") {
        assert!(at == 2 || sdp[..at - 2].ends_with('\n'), "not at the beginning of a line");
        let line = sdp[at - 2..].lines().next().unwrap_or_default();
        let value = line.strip_prefix(LINE).expect("the line has the right form");
        assert_eq!(value.len(), 32 * 3 - 1);
        let canonical = format!("{LINE}{}\r\n", value.to_uppercase());
        assert_eq!(Fingerprint::of_description(&canonical), Ok(fingerprint));
    }
}

/// Lines with fingerprints, and what could be taken for some.
fn parts(input: &mut Unstructured<'_>) -> Result<String> {
    let lines = ["00", "ff", "FF"].map(|byte| format!("{LINE}{}", [byte; 32].join(":")));
    let others = ["a=fingerprint:sha-1 00", "A=Fingerprint:", "fingerprint", " ", "v=0", "\r", "\n", "\r\n", ":00"];
    (0..input.int_in_range(1..=8)?)
        .map(|_| match input.arbitrary()? {
            true => Ok(input.choose(&lines)?.clone() + "\r\n"),
            false => Ok(input.choose(&others)?.to_string()),
        })
        .collect()
}

pub(crate) fn any_identity(input: &mut Unstructured<'_>) -> Result<Identity> {
    Ok(Identity::from_secret([input.arbitrary()?; 32]))
}

pub(crate) fn any_proof(input: &mut Unstructured<'_>) -> Result<Proof> {
    let key = any_identity(input)?.peer_id();
    Ok(Proof { key, nonce: Base64(input.arbitrary()?), signature: Base64([input.arbitrary()?; 64]) })
}

/// What one end says in an offer or an answer.
#[derive(Debug, Clone, PartialEq)]
struct End {
    nonce: Nonce,
    terms: Terms,
    certificate: u8,
    more: String,
}

impl End {
    fn any(input: &mut Unstructured<'_>) -> Result<Self> {
        let terms =
            Terms { session: Session(input.arbitrary()?), window: input.arbitrary()?, max_message: input.arbitrary()? };
        let more = if input.arbitrary()? { "a=setup:actpass\r\n" } else { "" };
        Ok(Self { nonce: Base64(input.arbitrary()?), terms, certificate: input.arbitrary()?, more: more.into() })
    }

    fn certificate(&self) -> [u8; 3] {
        [self.certificate; 3]
    }

    fn sdp(&self) -> String {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(self.certificate());
        let bytes: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("v=0\r\n{LINE}{}\r\n{}", bytes.join(":"), self.more)
    }

    /// This with one thing that is signed changed.
    fn forged(&self, input: &mut Unstructured<'_>) -> Result<Self> {
        let mut forged = self.clone();
        match input.int_in_range(0..=5)? {
            0 => forged.nonce.0[input.int_in_range(0..=15)?] ^= 1,
            1 => forged.terms.session.0 ^= 1 << input.int_in_range(0..=63)?,
            2 => forged.terms.window.0 ^= 1 << input.int_in_range(0..=31)?,
            3 => forged.terms.window.1 ^= 1 << input.int_in_range(0..=31)?,
            4 => forged.terms.max_message = self.terms.max_message.map_or(Some(0), |_| None),
            _ => forged.certificate ^= 1 << input.int_in_range(0..=7)?,
        }
        Ok(forged)
    }
}

/// What is signed is accepted, also after its way through JSON; what is changed anywhere is not.
fn proofs(input: &mut Unstructured<'_>) -> Result<()> {
    let (alice, bob) = (any_identity(input)?, any_identity(input)?);
    let (offer, answer) = (End::any(input)?, End::any(input)?);
    let data = signal::any_value(input, 3)?;
    let (proof, ours) =
        Offered::sign(&alice, offer.nonce, offer.terms, &data, &offer.sdp()).expect("there is a fingerprint");

    let description = Description { kind: DescriptionKind::Offer, sdp: offer.sdp() };
    let ext = Some(Extension::new(offer.terms, proof.clone()));
    let text = Signal::Offer { description, data: data.clone(), ext }.to_json();
    let Ok(Signal::Offer { description, data: received, ext: Some(ext) }) =
        Signal::parse(serde_json::from_str(&text).expect("JSON"))
    else {
        assert!(data.to_string().len() > crate::protocol::limits::MAX_OFFER_DATA_BYTES);
        return Ok(());
    };
    assert_eq!((ext.terms(), ext.identity.as_ref()), (offer.terms, Some(&proof)));
    let theirs = Offered::verify(&proof, ext.terms(), &received, &description.sdp).expect("it is as it was signed");
    assert_eq!((&theirs, theirs.key()), (&ours, alice.peer_id()));
    assert_eq!(Offered::verify(&proof, offer.terms, &as_javascript(&data), &offer.sdp()).as_ref(), Ok(&ours));

    let forged = offer.forged(input)?;
    let signed = Proof { nonce: forged.nonce, ..proof.clone() };
    assert!(Offered::verify(&signed, forged.terms, &data, &forged.sdp()).is_err(), "{forged:?}");
    let other = signal::any_value(input, 3)?;
    if as_javascript(&other) != as_javascript(&data) {
        assert!(Offered::verify(&proof, offer.terms, &other, &offer.sdp()).is_err(), "{data} passes for {other}");
    }
    if alice != bob {
        let taken = Proof { key: bob.peer_id(), ..proof };
        assert!(Offered::verify(&taken, offer.terms, &data, &offer.sdp()).is_err());
    }

    let signed = theirs.sign_answer(&bob, answer.nonce, answer.terms, &answer.sdp());
    let (proof, at_bob) = signed.expect("there is a fingerprint");
    let at_alice = ours.verify_answer(&alice, &proof, answer.terms, &answer.sdp()).expect("it is as it was signed");
    let forged = answer.forged(input)?;
    let signed = Proof { nonce: forged.nonce, ..proof };
    assert!(ours.verify_answer(&alice, &signed, forged.terms, &forged.sdp()).is_err(), "{forged:?}");
    confirmed(&at_bob, &at_alice, alice.peer_id(), &offer);
    confirmed(&at_alice, &at_bob, bob.peer_id(), &answer);
    Ok(())
}

/// One end takes the other's first message, with its certificate, and nothing else.
fn confirmed(one: &Confirmation, other: &Confirmation, id: PeerId, end: &End) {
    assert_eq!(one.peer_id(), id);
    assert_eq!(one.check(other.message(), &end.certificate()), Ok(()));
    assert!(one.check(one.message(), &end.certificate()).is_err(), "its own message");
    assert!(one.check(&[], &end.certificate()).is_err() && one.check(other.message(), b"another").is_err());
}

/// The value as an original that relays it would write it: all numbers are floats, and there is one zero.
fn as_javascript(value: &Value) -> Value {
    match value {
        Value::Number(number) => (number.as_f64().unwrap_or_default() + 0.0).into(),
        Value::Array(values) => values.iter().map(as_javascript).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), as_javascript(value))).collect(),
        other => other.clone(),
    }
}
