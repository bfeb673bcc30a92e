//! Whoever connects as an original of peer-relay and says what it likes: to a link, and to a running overlay. Nothing of the
//! original is needed here; `tests/originals` has it at the other end.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod hostile;
mod overlay;
#[path = "../common/peer_relay.rs"]
mod shared;
