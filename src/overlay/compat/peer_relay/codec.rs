//! Messages of peer-relay, as JSON text.
//!
//! ```text
//! {"type":"Buffer","data":[89,171,…]}      the id, 20 numbers: what each side says first; a hex string is taken too
//! {"to":"<hex>","from":"<hex>","path":["<hex>",…],"nonce":"359810839182053","data":D}
//! D: {"type":"findPeers","data":"<hex>"}   {"type":"foundPeers","data":["<hex>",…]}
//!    {"type":"handshake-offer"}            {"type":"handshake-answer","data":{"ws":null|"ws://…","wrtc":true|false}}
//!    {"type":"signal","data":…}            {"type":"user","data":<json>}
//! ```
//!
//! Who relays a message writes `to` and `from` in the form of the id above. Both forms are read, hex is written.
//! What an original cannot take without dying is no message here, so it is not passed on either.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::overlay::OverlayId;
use crate::overlay::router::{ForeignMessage, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH};

/// Longest message that is taken or sent, in bytes of its text. At a longer one the link is closed.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Most ids that are taken from, or put into, an answer to `findPeers`. Further ones are ignored.
pub const MAX_FOUND: usize = 20;

/// Longest URL in a handshake, in bytes. A longer one is malformed.
const MAX_URL_BYTES: usize = 1024;

/// Not a message of peer-relay, or one that an original could not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of peer-relay")]
pub struct Malformed;

#[derive(Deserialize)]
struct Read<'a> {
    to: AnyId,
    from: AnyId,
    path: Path,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// In the order of the original.
#[derive(Serialize)]
struct Written<'a> {
    to: &'a OverlayId,
    from: &'a OverlayId,
    path: &'a [OverlayId],
    nonce: &'a str,
    data: &'a RawValue,
}

impl ForeignMessage {
    /// Reads a text message of an original.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is no JSON object with these five members, if an id, the path or the nonce is not within its bounds,
    /// if the path is empty, or if the data is `null`: originals die of these.
    pub fn decode(text: &str) -> Result<Self, Malformed> {
        let Read { to, from, path, nonce, data } = serde_json::from_str(text).map_err(|_| Malformed)?;
        if path.0.is_empty() || nonce.len() > MAX_FOREIGN_NONCE_BYTES || data.get() == "null" {
            return Err(Malformed);
        }
        Ok(Self { to: to.0, from: from.0, path: path.0, nonce: nonce.into_owned(), data: data.to_owned() })
    }

    /// Whether an original can take this without dying, as far as can be told: one without WebRTC dies of every signal.
    ///
    /// What a peer of ours sends in the way of originals may be anything, so this is asked before it goes to one.
    pub fn is_harmless(&self) -> bool {
        let data = match Data::decode(self.data.get().as_bytes()) {
            Ok(Some(Data::FoundPeers(_))) => part::<All>(self.data.get()).is_ok(),
            Ok(Some(Data::HandshakeAnswer(answer))) => answer.ws.is_none_or(|url| is_usable(&url)),
            data => data.is_ok(),
        };
        data && !self.path.is_empty()
    }

    /// The text message, as an original writes one of its own.
    pub fn encode(&self) -> String {
        let Self { to, from, path, nonce, data } = self;
        json(&Written { to, from, path, nonce, data })
    }
}

/// Reads the first text message on a link: who is there, by what it says.
///
/// # Errors
///
/// [`Malformed`] if it is no id in either form.
pub fn decode_id(text: &str) -> Result<OverlayId, Malformed> {
    serde_json::from_str(text).map(|AnyId(id)| id).map_err(|_| Malformed)
}

/// The first text message on a link, as an original writes it.
pub fn encode_id(id: &OverlayId) -> String {
    json(&BufferObject { kind: Tag::Buffer, data: *id.as_bytes() })
}

/// What a [`ForeignMessage`] says to the peer that it is for.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// Which peers do you know that are closest to this id?
    FindPeers(OverlayId),
    /// These. At most [`MAX_FOUND`]; what is no id is left out.
    FoundPeers(Vec<OverlayId>),
    /// How can I connect to you?
    HandshakeOffer,
    /// Like this.
    HandshakeAnswer(Answer<'a>),
    /// An offer, an answer or a candidate, of simple-peer.
    Signal(&'a RawValue),
    /// Something of the application.
    User(&'a RawValue),
}

/// How a peer can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<'a> {
    /// The URL of its WebSocket server, if it has one. Whoever sent this may have written anything, up to 1024 bytes.
    #[serde(borrow, default)]
    pub ws: Option<Cow<'a, str>>,
    /// Whether it can do WebRTC.
    #[serde(default)]
    pub wrtc: bool,
    /// Whether it is a pmesh peer: then neighbours of its kind come to the same URL. Originals do not know this, and do not mind.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pmesh: bool,
}

/// Whether this is a `ws` or `wss` URL, without a user name or password: these are nobody else's business.
pub(crate) fn is_usable(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return false };
    let port = authority.as_str().strip_prefix(host);
    matches!(url.scheme_str(), Some("ws" | "wss"))
        && !host.is_empty()
        && port.is_some_and(|port| port.is_empty() || url.port_u16().is_some())
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl<'a> Data<'a> {
    /// Reads the data of a message. `None` if it is of a kind that nobody here knows.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is no JSON object, has no type, or not what its type needs.
    pub fn decode(data: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Typed { kind, data } = serde_json::from_slice(data).map_err(|_| Malformed)?;
        let text = data.map_or("null", RawValue::get);
        Ok(Some(match &*kind {
            "findPeers" => Self::FindPeers(part::<AnyId>(text)?.0),
            "foundPeers" => Self::FoundPeers(part::<Found>(text)?.0),
            "handshake-offer" => Self::HandshakeOffer,
            "handshake-answer" => {
                let answer: Answer<'a> = part(text)?;
                if answer.ws.as_ref().is_some_and(|url| url.len() > MAX_URL_BYTES) {
                    return Err(Malformed);
                }
                Self::HandshakeAnswer(answer)
            }
            "signal" => Self::Signal(data.ok_or(Malformed)?),
            // An original leaves out what JSON has no word for.
            "user" => Self::User(data.unwrap_or(RawValue::NULL)),
            _ => return Ok(None),
        }))
    }

    /// The data as an original writes it.
    pub fn encode(&self) -> Box<RawValue> {
        #[derive(Serialize)]
        struct With<'a, T> {
            r#type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<T>,
        }
        fn raw<T: Serialize>(kind: &str, data: Option<T>) -> Box<RawValue> {
            serde_json::value::to_raw_value(&With { r#type: kind, data }).expect("strings and numbers only")
        }
        match self {
            Self::FindPeers(target) => raw("findPeers", Some(target)),
            Self::FoundPeers(found) => raw("foundPeers", Some(found)),
            Self::HandshakeOffer => raw("handshake-offer", None::<()>),
            Self::HandshakeAnswer(answer) => raw("handshake-answer", Some(answer)),
            Self::Signal(signal) => raw("signal", Some(signal)),
            Self::User(json) => raw("user", Some(json)),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers only")
}

fn part<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|_| Malformed)
}

/// An id in either of its forms.
struct AnyId(OverlayId);

/// How node.js writes a buffer.
#[derive(Serialize, Deserialize)]
struct BufferObject {
    #[serde(rename = "type")]
    kind: Tag,
    data: [u8; OverlayId::BYTES],
}

#[derive(Serialize, Deserialize)]
enum Tag {
    Buffer,
}

impl<'de> Deserialize<'de> for AnyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = AnyId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_str<E: Error>(self, hex: &str) -> Result<AnyId, E> {
                hex.parse().map(AnyId).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AnyId, A::Error> {
                let buffer = BufferObject::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AnyId(OverlayId::from_bytes(buffer.data)))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// At most [`MAX_FOREIGN_PATH`] ids.
struct Path(Vec<OverlayId>);

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Path;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_FOREIGN_PATH} ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Path, A::Error> {
                let mut path = Vec::new();
                while let Some(AnyId(id)) = ids.next_element()? {
                    if path.len() == MAX_FOREIGN_PATH {
                        return Err(A::Error::invalid_length(MAX_FOREIGN_PATH + 1, &self));
                    }
                    path.push(id);
                }
                Ok(Path(path))
            }
        }
        deserializer.deserialize_seq(Ids)
    }
}

/// An answer to `findPeers` with nothing but ids in it.
#[derive(Deserialize)]
struct All {
    #[serde(rename = "data")]
    _data: Vec<AnyId>,
}

/// The first [`MAX_FOUND`] ids of a list, whatever else is in it.
struct Found(Vec<OverlayId>);

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Found;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
                let mut found = Vec::new();
                while found.len() < MAX_FOUND {
                    let Some(element) = list.next_element::<&RawValue>()? else { return Ok(Found(found)) };
                    if let Ok(AnyId(id)) = serde_json::from_str(element.get()) {
                        found.push(id);
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Found(found))
            }
        }
        deserializer.deserialize_seq(Ids)
    }
}

// The fuzz crate has this file by its path, too.
#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
