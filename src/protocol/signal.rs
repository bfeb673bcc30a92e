//! The payload of relayed frames: how two peers negotiate a connection through a third.
//!
//! ```text
//! [3, {"type":"offer","sdp":…}, offerData|null, ext]
//! [4, {"type":"answer","sdp":…}, ext]
//! [5, {"candidate":…,"sdpMid":…,"sdpMLineIndex":…,"usernameFragment":…}, session]
//! [8, session, why]                    refusal or giving up, only to a peer whose offer or answer carried an ext
//! ```
//!
//! The original P reads by position and ignores what follows, so `ext` and `session` are invisible to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::limits::{MAX_CANDIDATE_BYTES, MAX_OFFER_DATA_BYTES, MAX_SDP_BYTES, MAX_SIGNAL_BYTES};
use super::proof::{Proof, Terms};

/// A session description, as `RTCSessionDescription` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    #[serde(rename = "type")]
    pub(crate) kind: DescriptionKind,
    pub(crate) sdp: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DescriptionKind {
    Offer,
    Answer,
}

/// An ICE candidate, as `RTCIceCandidateInit` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Candidate {
    pub(crate) candidate: String,
    #[serde(default)]
    pub(crate) sdp_mid: Option<String>,
    #[serde(default, rename = "sdpMLineIndex")]
    pub(crate) sdp_m_line_index: Option<u16>,
    #[serde(default)]
    pub(crate) username_fragment: Option<String>,
}

/// Names one negotiation. Random, chosen by the side that offers, echoed in all that belongs to it. Of two offers that
/// cross, the one with the larger session wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Session(pub(crate) u64);

impl Serialize for Session {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text: JavaScript's numbers end at 2^53.
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Session {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(serde::de::Error::custom("a session is 16 hexadecimal digits"));
        }
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a pmesh peer adds to its offers and answers. Unknown members are ignored, so that later versions can add some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// The lowest version of the extension that is enough to understand the sender: 1.
    pub(crate) v: u32,
    pub(crate) session: Session,
    /// Credit that the sender grants at the start: bytes and packets.
    pub(crate) window: (u32, u32),
    /// The largest user message that the sender takes, in bytes. Not known of a peer that does not say.
    #[serde(rename = "maxMessage", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_message: Option<u64>,
    /// Who the sender is. Of a pmesh peer that shows nothing usable here, nothing is accepted.
    #[serde(default, deserialize_with = "usable", skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Proof>,
}

impl Extension {
    pub(crate) fn new(terms: Terms, identity: Proof) -> Self {
        let Terms { session, window, max_message } = terms;
        Self { v: 1, session, window, max_message, identity: Some(identity) }
    }

    /// What the proof covers.
    pub(crate) fn terms(&self) -> Terms {
        Terms { session: self.session, window: self.window, max_message: self.max_message }
    }
}

fn usable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Proof>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// Why an offer was turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Refusal {
    /// The firewall said no.
    Refused,
    /// A connection to this address is open already.
    Connected,
    /// Too many negotiations are going on.
    Busy,
    /// The description could not be used.
    Failed,
    /// The proof of identity is missing or does not fit.
    Identity,
    /// The offer is from the very root that it has come to.
    Own,
}

/// A parsed payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signal {
    Offer { description: Description, data: Value, ext: Option<Extension> },
    Answer { description: Description, ext: Option<Extension> },
    Candidate { candidate: Candidate, session: Option<Session> },
    Refusal { session: Session, why: Refusal },
}

/// The payload is none that we know. It is to be counted and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signalling payload")]
pub(crate) struct SignalError;

const OFFER: u64 = 3;
const ANSWER: u64 = 4;
const CANDIDATE: u64 = 5;
const REFUSAL: u64 = 8;

impl Signal {
    /// Reads a payload. An extension field that is not understood counts as absent.
    ///
    /// # Errors
    ///
    /// [`SignalError`] for everything that is no payload, without any effect.
    pub(crate) fn parse(payload: &RawValue) -> Result<Self, SignalError> {
        let text = payload.get();
        if text.len() > MAX_SIGNAL_BYTES {
            return Err(SignalError);
        }
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| SignalError)?;
        let kind: u64 = read(elements.first()).ok_or(SignalError)?;
        let ext = |index: usize| read::<Extension>(elements.get(index)).filter(|ext| ext.v == 1);
        match kind {
            OFFER => {
                let description = description(elements.get(1), DescriptionKind::Offer)?;
                let within = |data: &&&RawValue| data.get().len() <= MAX_OFFER_DATA_BYTES;
                let data = match elements.get(2) {
                    Some(data) => read(Some(data).filter(within)).ok_or(SignalError)?,
                    None => Value::Null,
                };
                Ok(Self::Offer { description, data, ext: ext(3) })
            }
            ANSWER => {
                let description = description(elements.get(1), DescriptionKind::Answer)?;
                Ok(Self::Answer { description, ext: ext(2) })
            }
            CANDIDATE => {
                let within = |candidate: &&&RawValue| candidate.get().len() <= MAX_CANDIDATE_BYTES;
                let candidate = read(elements.get(1).filter(within)).ok_or(SignalError)?;
                Ok(Self::Candidate { candidate, session: read(elements.get(2)) })
            }
            REFUSAL => {
                let session = read(elements.get(1)).ok_or(SignalError)?;
                Ok(Self::Refusal { session, why: read(elements.get(2)).unwrap_or(Refusal::Refused) })
            }
            _ => Err(SignalError),
        }
    }

    /// The payload as JSON text.
    pub(crate) fn to_json(&self) -> String {
        let text = match self {
            Self::Offer { description, data, ext: Some(ext) } => {
                serde_json::to_string(&(OFFER, description, data, ext))
            }
            Self::Offer { description, data, ext: None } => serde_json::to_string(&(OFFER, description, data)),
            Self::Answer { description, ext: Some(ext) } => serde_json::to_string(&(ANSWER, description, ext)),
            Self::Answer { description, ext: None } => serde_json::to_string(&(ANSWER, description)),
            Self::Candidate { candidate, session: Some(session) } => {
                serde_json::to_string(&(CANDIDATE, candidate, session))
            }
            Self::Candidate { candidate, session: None } => serde_json::to_string(&(CANDIDATE, candidate)),
            Self::Refusal { session, why } => serde_json::to_string(&(REFUSAL, session, why)),
        };
        text.expect("plain data with string keys always serialises")
    }
}

fn read<'a, T: Deserialize<'a>>(element: Option<&&'a RawValue>) -> Option<T> {
    serde_json::from_str(element?.get()).ok()
}

fn description(element: Option<&&RawValue>, kind: DescriptionKind) -> Result<Description, SignalError> {
    let usable = |description: &Description| description.kind == kind && description.sdp.len() <= MAX_SDP_BYTES;
    read(element).filter(usable).ok_or(SignalError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::protocol::proof::Base64;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Signal, SignalError> {
        Signal::parse(serde_json::from_str(text).unwrap())
    }

    fn offer() -> Description {
        Description { kind: DescriptionKind::Offer, sdp: "v=0".into() }
    }

    fn ext() -> Extension {
        let terms = Terms { session: Session(7), window: (900_000, 200), max_message: Some(5) };
        let (key, nonce) = (Identity::from_secret([1; 32]).peer_id(), Base64([2; 16]));
        Extension::new(terms, Proof { key, nonce, signature: Base64([3; 64]) })
    }

    #[test]
    fn what_the_original_sends() {
        assert_eq!(
            parse(r#"[3,{"type":"offer","sdp":"v=0"},"Hi!"]"#),
            Ok(Signal::Offer { description: offer(), data: "Hi!".into(), ext: None })
        );
        assert_eq!(
            parse(r#"[3,{"sdp":"v=0","type":"offer"}]"#),
            Ok(Signal::Offer { description: offer(), data: Value::Null, ext: None })
        );
        assert_eq!(
            parse(
                r#"[5,{"candidate":"candidate:1 1 udp 1 x.local 9 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"LcA4"}]"#
            ),
            Ok(Signal::Candidate {
                candidate: Candidate {
                    candidate: "candidate:1 1 udp 1 x.local 9 typ host".into(),
                    sdp_mid: Some("0".into()),
                    sdp_m_line_index: Some(0),
                    username_fragment: Some("LcA4".into()),
                },
                session: None,
            })
        );
    }

    #[test]
    fn the_original_reads_ours_by_position() {
        let text = Signal::Offer { description: offer(), data: Value::Null, ext: Some(ext()) }.to_json();
        assert_eq!(
            text,
            concat!(
                r#"[3,{"type":"offer","sdp":"v=0"},null,{"v":1,"session":"0000000000000007","window":[900000,200],"#,
                r#""maxMessage":5,"identity":{"key":"rkeohxlubhyzl7ks3mwtzos5olfgocn7dwkbeg7toseadnapn5oa","#,
                r#""nonce":"AgICAgICAgICAgICAgICAg","signature":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD"#,
                r#"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw"}}]"#,
            )
        );
        let candidate = Candidate { candidate: "c".into(), sdp_m_line_index: Some(0), ..Candidate::default() };
        assert_eq!(
            Signal::Candidate { candidate, session: None }.to_json(),
            r#"[5,{"candidate":"c","sdpMid":null,"sdpMLineIndex":0,"usernameFragment":null}]"#
        );
    }

    #[test]
    fn what_we_send_comes_back() {
        let answer = Description { kind: DescriptionKind::Answer, sdp: "v=0\r\n".into() };
        for signal in [
            Signal::Offer { description: offer(), data: serde_json::json!({"k": [1]}), ext: Some(ext()) },
            Signal::Answer { description: answer.clone(), ext: Some(ext()) },
            Signal::Answer { description: answer, ext: None },
            Signal::Candidate { candidate: Candidate::default(), session: Some(Session(u64::MAX)) },
            Signal::Refusal { session: Session(3), why: Refusal::Connected },
        ] {
            assert_eq!(parse(&signal.to_json()), Ok(signal));
        }
    }

    #[test]
    fn an_extension_that_is_not_understood_counts_as_absent() {
        for ext in ["5", "{}", r#"{"v":2,"session":"0000000000000007","window":[1,1]}"#, "null"] {
            let text = format!(r#"[3,{{"type":"offer","sdp":"v=0"}},null,{ext}]"#);
            assert_eq!(parse(&text), Ok(Signal::Offer { description: offer(), data: Value::Null, ext: None }));
        }
    }

    #[test]
    fn what_is_too_long_is_no_signal() {
        let sdp = "x".repeat(MAX_SDP_BYTES + 1);
        let data = "x".repeat(MAX_OFFER_DATA_BYTES);
        for text in [
            format!(r#"[3,{{"type":"offer","sdp":"{sdp}"}}]"#),
            format!(r#"[3,{{"type":"offer","sdp":""}},"{data}"]"#),
            format!(r#"[5,{{"candidate":"{}"}}]"#, "x".repeat(MAX_CANDIDATE_BYTES)),
        ] {
            assert_eq!(parse(&text), Err(SignalError));
        }
    }

    #[test]
    fn what_is_no_signal() {
        for text in [
            "null",
            "5",
            "{}",
            "[]",
            "[3]",
            "[3,null]",
            r#"[3,{"type":"answer","sdp":""}]"#,
            "[4,{}]",
            "[5]",
            "[5,null]",
            "[5,{}]",
            "[8]",
            r#"[8,"xyz"]"#,
            r#"[8,"+000000000000007"]"#,
            "[9]",
            "[[3]]",
        ] {
            assert_eq!(parse(text), Err(SignalError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_json_panics(text in "[\\[\\]{},:\"0-9a-z]{0,40}") {
            if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
                let _ = Signal::parse(raw);
            }
        }
    }
}
