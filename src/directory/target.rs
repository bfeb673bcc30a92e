//! Whom a selection means.

use crate::protocol::PeerNumber;

/// Whom a selection means: `"*"` is every peer, a number is one peer, and any other text is an alias, for all peers of a user; `"Us"` are
/// the other logins of the own account. A number may be an integer or its digits.
///
/// ```
/// use pmesh::directory::Target;
///
/// assert_eq!(Target::from(6_826_386_814_235), Target::from("6826386814235"));
/// assert_ne!(Target::from("Oli"), Target::from("*"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    User(String),
    Peer(PeerNumber),
    /// A number that no peer has.
    Nobody,
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(match text.parse() {
            Ok(number) => Kind::Peer(number),
            Err(_) if text == "*" => Kind::All,
            Err(_) => Kind::User(text.to_owned()),
        })
    }
}

impl From<&String> for Target {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<PeerNumber> for Target {
    fn from(number: PeerNumber) -> Self {
        Self(Kind::Peer(number))
    }
}

impl From<u64> for Target {
    fn from(number: u64) -> Self {
        Self(PeerNumber::new(number).map_or(Kind::Nobody, Kind::Peer))
    }
}
