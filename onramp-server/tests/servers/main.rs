//! Servers with accounts as processes of their own, over the databases that there are: one that is killed, and several at one database.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod harness;
mod killed;
mod several;
