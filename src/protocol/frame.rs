//! The text frames of P, one JSON array each, and the extension frames of pmesh.
//!
//! ```text
//! [0, json]              a message from the neighbour
//! [6, "to", payload]     please relay the payload to your peer
//! [7, "from", payload]   a relayed payload
//! ```
//!
//! Payloads stay raw: a relay neither parses them nor changes their bytes. The frames below go only to a neighbour
//! that agreed to the extension, by the WebSocket subprotocol or by the `ext` of offer and answer:
//!
//! ```text
//! [16, "address"]        the address by which the sender knows the receiver
//! [17, "to", "why"]      a frame could not be relayed to this destination: "unknown" or "busy"
//! [18, "address"]        this peer has left
//! ```

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Address;

/// Why a relay could not pass a frame on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Undeliverable {
    /// The relay has no open peer of that name.
    Unknown,
    /// The relay's budget for this source is used up, or the destination does not keep up.
    Busy,
}

/// A text frame, borrowing from the text it was read from.
#[derive(Debug, Clone)]
pub(crate) enum Frame<'a> {
    /// `[0, json]`. A missing second element is `null`, as in P.
    Message(&'a RawValue),
    /// `[6, to, payload]`
    Relay { to: Address, payload: &'a RawValue },
    /// `[7, from, payload]`
    Relayed { from: Address, payload: &'a RawValue },
    /// `[16, address]`
    Welcome { address: Address },
    /// `[17, to, why]`
    Undeliverable { to: Address, why: Undeliverable },
    /// `[18, address]`
    Left { address: Address },
}

/// The text is not a frame. It is to be counted and dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("not a JSON array that starts with a frame type")]
    Malformed,
    #[error("unknown frame type {0}")]
    UnknownType(u64),
}

const MESSAGE: u64 = 0;
const RELAY: u64 = 6;
const RELAYED: u64 = 7;
const WELCOME: u64 = 16;
const UNDELIVERABLE: u64 = 17;
const LEFT: u64 = 18;

impl<'a> Frame<'a> {
    /// Reads a frame. Elements beyond those of its type are ignored, as the original does.
    ///
    /// # Errors
    ///
    /// [`FrameError`] for everything else, without any effect.
    pub(crate) fn parse(text: &'a str) -> Result<Self, FrameError> {
        let Elements { kind, second, third } = serde_json::from_str(text).map_err(|_| FrameError::Malformed)?;
        let null = RawValue::NULL;
        let address = || -> Result<Address, FrameError> {
            second.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or(FrameError::Malformed)
        };
        match kind {
            MESSAGE => Ok(Self::Message(second.unwrap_or(null))),
            RELAY => Ok(Self::Relay { to: address()?, payload: third.unwrap_or(null) }),
            RELAYED => Ok(Self::Relayed { from: address()?, payload: third.unwrap_or(null) }),
            WELCOME => Ok(Self::Welcome { address: address()? }),
            UNDELIVERABLE => {
                let busy = third.is_some_and(|raw| raw.get() == "\"busy\"");
                let why = if busy { Undeliverable::Busy } else { Undeliverable::Unknown };
                Ok(Self::Undeliverable { to: address()?, why })
            }
            LEFT => Ok(Self::Left { address: address()? }),
            other => Err(FrameError::UnknownType(other)),
        }
    }
}

/// The text of `[0, json]`. The JSON is trusted to be valid.
pub(crate) fn message(json: &str) -> String {
    format!("[{MESSAGE},{json}]")
}

/// The text of `[0, "address"]`, which announces a peer.
pub(crate) fn announcement(address: &Address) -> String {
    message(&quoted(address.as_str()))
}

/// The text of `[6, to, payload]`. The payload is trusted to be valid JSON.
pub(crate) fn relay(to: &Address, payload: &str) -> String {
    format!("[{RELAY},{},{payload}]", quoted(to.as_str()))
}

/// The text of `[7, from, payload]`. The payload is trusted to be valid JSON.
pub(crate) fn relayed(from: &Address, payload: &str) -> String {
    format!("[{RELAYED},{},{payload}]", quoted(from.as_str()))
}

/// The text of `[16, address]`.
pub(crate) fn welcome(address: &Address) -> String {
    format!("[{WELCOME},{}]", quoted(address.as_str()))
}

/// The text of `[17, to, why]`.
pub(crate) fn undeliverable(to: &Address, why: Undeliverable) -> String {
    let why = match why {
        Undeliverable::Unknown => "unknown",
        Undeliverable::Busy => "busy",
    };
    format!("[{UNDELIVERABLE},{},\"{why}\"]", quoted(to.as_str()))
}

/// The text of `[18, address]`.
pub(crate) fn left(address: &Address) -> String {
    format!("[{LEFT},{}]", quoted(address.as_str()))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Elements<'a> {
    kind: u64,
    second: Option<&'a RawValue>,
    third: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array that starts with a frame type")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let kind = array.next_element()?.ok_or_else(|| serde::de::Error::custom("no frame type"))?;
                let second = array.next_element()?;
                let third = array.next_element()?;
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements { kind, second, third })
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every row of the table of inputs that the original ignores or dies of.
    #[test]
    fn inputs_that_are_no_frames() {
        for text in [
            "",
            " ",
            "nonsense",
            "{",
            "[",
            "[6",
            "[6,",
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
            "[16]",
            "[17,1]",
            "[18,{}]",
            "[0,1]]",
        ] {
            assert_eq!(Frame::parse(text).err(), Some(FrameError::Malformed), "{text:?}");
        }
        assert_eq!(Frame::parse("[99,1]").err(), Some(FrameError::UnknownType(99)));
    }

    #[test]
    fn inputs_of_the_original_that_are_frames() {
        assert!(matches!(Frame::parse("[0]"), Ok(Frame::Message(raw)) if raw.get() == "null"));
        assert!(matches!(Frame::parse("[0,\"a\"]"), Ok(Frame::Message(raw)) if raw.get() == "\"a\""));
        for name in ["__proto__", "toString", "constructor", "d1"] {
            let text = format!("[6,\"{name}\"]");
            assert!(
                matches!(Frame::parse(&text), Ok(Frame::Relay { to, payload }) if to == *name && payload.get() == "null")
            );
        }
    }

    #[test]
    fn relaying_keeps_the_bytes_of_the_payload_and_drops_extra_elements() {
        let text = r#"[6,"b", {"z":1, "a":[1,  2]} ,"extra",{}]"#;
        let Ok(Frame::Relay { to, payload }) = Frame::parse(text) else { panic!("not a relay frame") };
        assert_eq!(to, "b");
        let a = Address::new("a\"\\").unwrap();
        let out = relayed(&a, payload.get());
        assert_eq!(out, r#"[7,"a\"\\",{"z":1, "a":[1,  2]}]"#);
        assert!(matches!(Frame::parse(&out), Ok(Frame::Relayed { from, .. }) if from == a));
    }

    #[test]
    fn extension_frames_come_back() {
        let a = Address::new("a").unwrap();
        assert!(matches!(Frame::parse(&welcome(&a)), Ok(Frame::Welcome { address }) if address == a));
        assert!(matches!(Frame::parse(&left(&a)), Ok(Frame::Left { address }) if address == a));
        for why in [Undeliverable::Unknown, Undeliverable::Busy] {
            assert!(
                matches!(Frame::parse(&undeliverable(&a, why)), Ok(Frame::Undeliverable { to, why: w }) if to == a && w == why)
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Frame::parse(&text);
        }

        #[test]
        fn no_array_panics(kind in 0u64..20, a in "[\\[\\]\",a0 :{}]{0,8}", b in "[\\[\\]\",a0 :{}]{0,8}") {
            let _ = Frame::parse(&format!("[{kind},{a},{b}]"));
        }
    }
}
