//! What the two ends of the service `pmesh.file` say to each other. Pure.
//!
//! | who | says |
//! |---|---|
//! | sender | [`Offer`] |
//! | receiver | [`Answer::Have`]: how much of the file it has, and the hash of that; or [`Answer::Refused`] |
//! | sender | [`Start`]: from there on if the hash fits, else from 0; then the bytes, then the SHA-256 of the whole file |
//! | receiver | [`Answer::Stored`], or [`Answer::Refused`] |
//!
//! Each message but the bytes and their hash is JSON, behind its length in two bytes, most significant first.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The service.
pub(super) const SERVICE: &str = "pmesh.file";

/// The longest message in bytes.
pub(super) const MAX_MESSAGE: usize = 4096;

/// The longest name of a file in bytes. With what is added to that of a part it is as long as file systems take.
pub(super) const MAX_NAME: usize = 200;

/// What is added to the name of a file that is not complete.
pub(super) const PART: &str = ".part";

/// Most of a reason that is said or shown, in characters.
const MAX_REASON: usize = 200;

pub(super) type Hash = [u8; 32];

/// The sender has a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) name: FileName,
    /// In bytes.
    pub(super) size: u64,
}

/// What the receiver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "lowercase", tag = "answer")]
pub(super) enum Answer {
    /// It has so many bytes from an earlier time, with this SHA-256.
    Have { bytes: u64, sha256: Hash },
    /// All of the file is there.
    Stored,
    /// It does not take the file.
    Refused {
        reason: String,
        /// Whether it may take it later.
        #[serde(default)]
        later: bool,
    },
}

/// The sender begins at this byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) from: u64,
}

/// A name that means a file in the folder that it is put into, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct FileName(String);

/// What is wrong with what the other side, or the user, says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    Name(&'static str),
    Message,
    Start,
    Missing,
    Hash,
}

impl FileName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the file while it is not complete.
    pub(super) fn part(&self) -> String {
        format!("{}{PART}", self.0)
    }
}

impl TryFrom<String> for FileName {
    type Error = Wrong;

    fn try_from(name: String) -> Result<Self, Wrong> {
        let wrong = if name.is_empty() {
            "it is empty"
        } else if name.len() > MAX_NAME {
            "it is too long"
        } else if name.contains(['/', '\\', ':']) {
            "it is a path"
        } else if name.chars().any(char::is_control) {
            "it has control characters"
        } else if name.starts_with('.') {
            // Among others, what a shell reads in a home folder.
            "it begins with a dot"
        } else if name.to_lowercase().ends_with(PART) {
            // It might be that of a part of another file.
            "it ends with .part"
        } else {
            return Ok(Self(name));
        };
        Err(Wrong::Name(wrong))
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(why) => write!(f, "not a name for a file: {why}"),
            Self::Message => f.write_str("the other side does not keep to the protocol"),
            Self::Start => f.write_str("the other side begins at a byte that was not agreed on"),
            Self::Missing => f.write_str("the transfer broke off"),
            Self::Hash => f.write_str("the file is not what was sent: its SHA-256 does not fit"),
        }
    }
}

impl std::error::Error for Wrong {}

impl Answer {
    pub(super) fn refused(reason: impl fmt::Display, later: bool) -> Self {
        Self::Refused { reason: Self::shown(&reason.to_string()), later }
    }

    /// The beginning of a reason.
    pub(super) fn shown(reason: &str) -> String {
        reason.chars().take(MAX_REASON).collect()
    }
}

/// A message as it is sent.
///
/// # Errors
///
/// If it is too long, which none of ours is.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, Wrong> {
    let body = serde_json::to_vec(message).map_err(|_| Wrong::Message)?;
    let length = u16::try_from(body.len()).ok().filter(|length| usize::from(*length) <= MAX_MESSAGE);
    let mut message = length.ok_or(Wrong::Message)?.to_be_bytes().to_vec();
    message.extend(body);
    Ok(message)
}

/// The message that came.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|_| Wrong::Message)
}

/// Where the sender begins: behind what the receiver has, if that is the beginning of the file. The hash is that of as many bytes
/// of the file.
pub(super) fn start(size: u64, have: u64, theirs: &Hash, ours: &Hash) -> Start {
    Start { from: if have <= size && theirs == ours { have } else { 0 } }
}

/// A file that comes: counts and hashes it.
#[derive(Debug)]
pub(super) struct Intake {
    size: u64,
    have: u64,
    hasher: Sha256,
}

impl Intake {
    /// A file of this size, of which so much is there, that has gone through this hasher.
    pub(super) fn new(size: u64, have: u64, hasher: Sha256) -> Self {
        Self { size, have, hasher }
    }

    /// The sender begins. Returns whether what was there is of no use.
    pub(super) fn start(&mut self, start: &Start) -> Result<bool, Wrong> {
        match start.from {
            from if from == self.have => Ok(false),
            0 => {
                (self.have, self.hasher) = (0, Sha256::new());
                Ok(true)
            }
            _ => Err(Wrong::Start),
        }
    }

    /// Bytes that are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.have
    }

    /// Takes bytes of the file, at most as many as are [missing](Self::missing).
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        if bytes.len() as u64 > self.missing() {
            return Err(Wrong::Message);
        }
        self.have += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Whether the file is complete and what was sent, by the hash at its end.
    pub(super) fn finish(self, theirs: &Hash) -> Result<(), Wrong> {
        if self.missing() > 0 {
            return Err(Wrong::Missing);
        }
        if Hash::from(self.hasher.finalize()) != *theirs {
            return Err(Wrong::Hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> Hash {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn only_plain_names_are_names() {
        for name in ["a", "report 2026.pdf", "Übung.txt", "a..b", "x.part.gz", &"n".repeat(MAX_NAME)] {
            assert_eq!(FileName::try_from(name.to_owned()).unwrap().as_str(), name);
        }
        let long = "n".repeat(MAX_NAME + 1);
        for name in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "../x",
            "a/b",
            "a\\b",
            "C:x",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            ".bashrc",
            "x.part",
            "x.PART",
            &long,
        ] {
            assert!(FileName::try_from(name.to_owned()).is_err(), "{name:?}");
            let offer = serde_json::json!({"name": name, "size": 1}).to_string();
            assert_eq!(decode::<Offer>(offer.as_bytes()), Err(Wrong::Message), "{name:?}");
        }
    }

    #[test]
    fn messages_come_as_they_were_sent_and_junk_does_not() {
        let offer = Offer { name: FileName("a".into()), size: u64::MAX };
        let encoded = encode(&offer).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([encoded[0], encoded[1]])), encoded.len() - 2);
        assert_eq!(decode(&encoded[2..]), Ok(offer));
        let answers = [
            Answer::Have { bytes: 3, sha256: hash(b"abc") },
            Answer::Stored,
            Answer::refused("no", true),
            Answer::refused("\u{1b}", false),
        ];
        for answer in answers {
            assert_eq!(decode(&encode(&answer).unwrap()[2..]), Ok(answer));
        }
        for junk in
            [&b""[..], b"{}", b"{\"name\":\"a\",\"size\":-1}", b"{\"name\":\"a\",\"size\":1e99}", b"\xff\xff", b"[[[["]
        {
            assert_eq!(decode::<Offer>(junk), Err(Wrong::Message));
        }
        assert_eq!(encode(&"x".repeat(MAX_MESSAGE)), Err(Wrong::Message));
        assert!(encode(&Answer::refused("\u{1b}".repeat(100_000), true)).is_ok());
    }

    #[test]
    fn a_transfer_goes_on_only_behind_what_is_the_same() {
        let (part, other) = (hash(b"part"), hash(b"other"));
        assert_eq!(start(10, 4, &part, &part), Start { from: 4 });
        assert_eq!(start(10, 4, &part, &other), Start { from: 0 });
        assert_eq!(start(3, 4, &part, &part), Start { from: 0 }, "it has more than there is");

        let mut intake = Intake::new(10, 4, Sha256::new_with_prefix(b"part"));
        assert_eq!(intake.start(&Start { from: 5 }), Err(Wrong::Start));
        assert_eq!(intake.start(&Start { from: 4 }), Ok(false));
        intake.take(b" whole").unwrap();
        assert_eq!(intake.finish(&hash(b"part whole")), Ok(()));

        let mut intake = Intake::new(5, 4, Sha256::new_with_prefix(b"part"));
        assert_eq!(intake.start(&Start { from: 0 }), Ok(true));
        intake.take(b"whole").unwrap();
        assert_eq!(intake.finish(&hash(b"whole")), Ok(()));
    }

    #[test]
    fn sizes_and_hashes_that_lie_are_found_out() {
        let mut intake = Intake::new(4, 0, Sha256::new());
        assert_eq!(intake.take(b"more than four"), Err(Wrong::Message));
        intake.take(b"tru").unwrap();
        assert_eq!(intake.missing(), 1);
        assert_eq!(intake.finish(&hash(b"tru")), Err(Wrong::Missing), "less than it said");
        let mut intake = Intake::new(4, 0, Sha256::new());
        intake.take(b"true").unwrap();
        assert_eq!(intake.finish(&hash(b"lies")), Err(Wrong::Hash));
    }
}
