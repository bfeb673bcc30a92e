//! Sessions at a real directory, with calls over real WebRTC, all on 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod accounts;
mod again;
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod ended;
mod lost;
mod scripted;
mod server;
#[path = "../common/tls.rs"]
mod tls;
