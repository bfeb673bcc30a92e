//! The command `pmesh`.
fn main() {}
