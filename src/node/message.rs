use bytes::Bytes;
use serde_json::Value;

use crate::protocol::packet::Kind;

/// A user message: JSON (text is a JSON string), or bytes.
///
/// On P's wire a string and the JSON value of that string are the same message, so there is one variant for both.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A JSON value.
    Json(Value),
    /// Bytes. Cheap to clone. Small ones that arrive share memory with the packet they came in, of at most 64,960 bytes: who
    /// keeps a few of many for long should copy them.
    Binary(Bytes),
}

impl Message {
    /// The text, if the message is a JSON string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Json(value) => value.as_str(),
            Self::Binary(_) => None,
        }
    }

    /// The JSON value, if the message is one.
    pub fn as_json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Binary(_) => None,
        }
    }

    /// The bytes, if the message is binary.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match self {
            Self::Json(_) => None,
            Self::Binary(bytes) => Some(bytes),
        }
    }

    pub(crate) fn encode(&self) -> (Kind, Bytes) {
        match self {
            Self::Json(value) => (Kind::Json, value.to_string().into()),
            Self::Binary(bytes) => (Kind::Binary, bytes.clone()),
        }
    }

    pub(crate) fn into_encoded(self) -> (Kind, Bytes) {
        match self {
            Self::Json(value) => (Kind::Json, value.to_string().into()),
            Self::Binary(bytes) => (Kind::Binary, bytes),
        }
    }

    pub(crate) fn decode(kind: Kind, body: Bytes) -> serde_json::Result<Self> {
        match kind {
            Kind::Binary => Ok(Self::Binary(body)),
            _ => serde_json::from_slice(&body).map(Self::Json),
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Json(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Json(text.into())
    }
}

impl From<Value> for Message {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}
