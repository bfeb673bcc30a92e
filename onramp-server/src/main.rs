//! The signalling server.
fn main() {}
