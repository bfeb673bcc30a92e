//! As much of `src/transport/mod.rs` as the pipe needs. The adapters stay outside.

use crate::error::CloseReason;
use crate::protocol::signal::{Candidate, Description};

#[path = "../../src/transport/pipe/mod.rs"]
pub(crate) mod pipe;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LinkEvent {
    Description(Description),
    Candidate(Candidate),
    Opened { extension: bool },
    Frame(String),
    Malformed,
    Closed(CloseReason),
}
