//! An onramp with accounts over real sockets: the original's messages, every way in, and what attackers get.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod attacks;
mod harness;
mod logins;
mod presence;
mod requests;
mod rounds;
mod shared;
