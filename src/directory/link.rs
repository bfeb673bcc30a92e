//! The directory as a node of the tree: like an onramp it announces peers and passes the frames of negotiations on, to numbers.
//!
//! The address of a peer is its number.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::identity::PeerId;
use crate::protocol::directory::{Introduction, Route};
use crate::protocol::limits::MAX_SIGNAL_BYTES;
use crate::protocol::signal::{Description, Signal};
use crate::protocol::{Address, PeerNumber};
use crate::transport::introducer::{self, Name};

/// What the tree wants passed on to other peers.
pub(super) type FromTree = introducer::FromTree<PeerNumber>;
/// What the directory says to the tree.
pub(super) type ToTree = introducer::ToTree<PeerNumber>;

/// The data of an introduction. An original of BoneValue reads `spd`; pmesh peers read `pmesh`, which holds everything.
#[derive(Serialize, Deserialize)]
struct Data<'a> {
    #[serde(flatten)]
    route: Route,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    spd: Option<Description>,
    #[serde(borrow)]
    pmesh: Option<&'a RawValue>,
}

/// What the directory is to pass on so that a peer gets a payload of the tree. `None` if the payload is none.
pub(super) fn introduction(own: PeerNumber, to: PeerNumber, payload: &str) -> Option<(Introduction, Route, String)> {
    let raw: &RawValue = serde_json::from_str(payload).ok()?;
    let (what, spd) = match Signal::parse(raw).ok()? {
        Signal::Offer { description, .. } => (Introduction::Request, Some(description)),
        Signal::Answer { description, .. } => (Introduction::Response, Some(description)),
        Signal::Candidate { .. } | Signal::Refusal { .. } => (Introduction::Response, None),
    };
    let route = Route { to, from: own, peer: Some(own) };
    let data = serde_json::to_string(&Data { route, spd, pmesh: Some(raw) }).ok()?;
    Some((what, route, data))
}

/// What the directory is to pass on so that a peer knows by which key the one of this number is known: whose connections stand since an
/// earlier login. The directory vouches for the number, and the connection for the key.
pub(super) fn again(own: PeerNumber, to: PeerNumber, key: &PeerId) -> String {
    json!({"to": to, "from": own, "peer": own, "again": key}).to_string()
}

/// The key in such data.
pub(super) fn key_of_again(data: &str) -> Option<PeerId> {
    #[derive(Deserialize)]
    struct Only {
        again: PeerId,
    }
    serde_json::from_str(data).ok().map(|Only { again }| again)
}

/// The payload for the tree in the data of an introduction. `None` if there is none: it is an original's, whose data channels are
/// others.
pub(super) fn payload(data: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Only<'a> {
        #[serde(borrow)]
        pmesh: &'a RawValue,
    }
    let Only { pmesh } = serde_json::from_str(data).ok()?;
    (pmesh.get().len() <= MAX_SIGNAL_BYTES).then_some(pmesh.get())
}

impl Name for PeerNumber {
    const ONE_NODE: &str = "a login is one node only";
    const INCOMING: usize = 256;

    fn address(&self) -> Address {
        Address::new(self.to_string()).expect("it has 1 to 16 bytes")
    }

    fn of_address(address: &Address) -> Option<Self> {
        address.as_str().parse().ok().filter(|number: &Self| number.to_string() == address.as_str())
    }

    /// All of it: it has been taken out of an introduction.
    fn payload<'a>(&self, sent: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(sent).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(number: u64) -> PeerNumber {
        PeerNumber::new(number).unwrap()
    }

    #[test]
    fn a_payload_arrives_as_it_was_and_an_original_finds_the_description() {
        let offer = r#"[3,{"type":"offer","sdp":"v=0\r\n"},{"secret":1.50},{"z":1,"a":2}]"#;
        let (what, route, data) = introduction(peer(1), peer(2), offer).unwrap();
        assert_eq!(what, Introduction::Request);
        assert_eq!(route, Route { to: peer(2), from: peer(1), peer: Some(peer(1)) });
        let start = r#"{"to":2,"from":1,"peer":1,"spd":{"type":"offer","sdp":"v=0\r\n"},"pmesh":[3,"#;
        assert!(data.starts_with(start), "{data}");
        assert_eq!(payload(&data), Some(offer));
        let answer = r#"[4,{"type":"answer","sdp":"v=0\r\n"}]"#;
        let (what, _, data) = introduction(peer(1), peer(2), answer).unwrap();
        assert!(what == Introduction::Response && data.contains("\"spd\""));
        for rest in [r#"[8,"00000000000000ff","busy"]"#, r#"[5,{"candidate":"candidate:1"}]"#] {
            let (what, _, data) = introduction(peer(1), peer(2), rest).unwrap();
            assert!(what == Introduction::Response && !data.contains("\"spd\""), "{data}");
            assert_eq!(payload(&data), Some(rest));
        }
    }

    #[test]
    fn a_key_is_told_apart_from_payloads() {
        let key = crate::identity::Identity::from_secret([1; 32]).peer_id();
        let data = again(peer(1), peer(2), &key);
        assert_eq!(serde_json::from_str(&data).ok(), Some(Route { to: peer(2), from: peer(1), peer: Some(peer(1)) }));
        assert_eq!((key_of_again(&data), payload(&data)), (Some(key), None));
        for other in
            ["", "[]", "{}", r#"{"again":1}"#, r#"{"again":"x"}"#, r#"{"pmesh":[8,"00000000000000ff","busy"]}"#]
        {
            assert_eq!(key_of_again(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_payload_is_none() {
        for bad in ["", "null", "[]", "[99]", "[3,1]", "{}"] {
            assert!(introduction(peer(1), peer(2), bad).is_none(), "{bad}");
        }
        for original in ["", "[]", "{}", r#"{"to":1,"from":2,"spd":{"type":"offer","sdp":"v=0"}}"#] {
            assert_eq!(payload(original), None, "{original}");
        }
        let huge = format!(r#"{{"pmesh":"{}"}}"#, "x".repeat(MAX_SIGNAL_BYTES));
        assert_eq!(payload(&huge), None);
    }

    #[test]
    fn only_plain_digits_are_an_address() {
        let number = |text: &str| PeerNumber::of_address(&Address::new(text).unwrap());
        assert_eq!(number("9007199254740991"), PeerNumber::new((1 << 53) - 1));
        assert_eq!(number("0"), PeerNumber::new(0));
        for other in ["01", "+1", " 1", "9007199254740992", "bob", "1.0"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,100}", number in 0u64..1 << 53) {
            let _ = (introduction(peer(number), peer(1), &text), payload(&text));
        }
    }
}
