//! With the real npm package `peer-relay` at the other end. `scripts/test.sh` runs these; by hand, after `npm install` in
//! `tests/browser`: `cargo test --test originals`.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod links;
mod original;
mod overlay;
#[path = "../common/peer_relay.rs"]
mod shared;
