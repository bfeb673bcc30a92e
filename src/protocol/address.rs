use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::MAX_ADDRESS_BYTES;

/// The name of a node: the URL of an onramp, or the name by which an introducer knows a peer.
///
/// Onramps give every peer a random address (a UUID); an introducing peer uses the address by which it knows
/// the other. Addresses are opaque text of 1 to 512 bytes, cheap to clone, and compared byte by byte. An
/// address says how to reach somebody, not who it is: an introducer can lie about it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

/// The text is empty or longer than an address may be (512 bytes).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an address has 1 to {MAX_ADDRESS_BYTES} bytes, this text has {0}")]
pub struct InvalidAddress(usize);

impl Address {
    /// Makes an address of a text.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] if the text is empty or longer than 512 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > MAX_ADDRESS_BYTES {
            return Err(InvalidAddress(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?})", &*self.0)
    }
}

impl AsRef<str> for Address {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Address {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Address {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl std::str::FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Address {
    type Error = InvalidAddress;
    fn try_from(text: &str) -> Result<Self, InvalidAddress> {
        Self::new(text)
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        Self::new(text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert!(Address::new("").is_err());
        assert!(Address::new("x".repeat(MAX_ADDRESS_BYTES)).is_ok());
        assert_eq!(Address::new("x".repeat(MAX_ADDRESS_BYTES + 1)), Err(InvalidAddress(MAX_ADDRESS_BYTES + 1)));
    }

    #[test]
    fn names_that_javascript_objects_inherit_are_ordinary_addresses() {
        for name in ["__proto__", "toString", "constructor"] {
            assert_eq!(Address::new(name).unwrap().as_str(), name);
        }
    }
}
