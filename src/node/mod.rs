//! The node tree: what an application holds, and what happens behind it.

mod budget;
mod firewall;
mod tree;

pub use firewall::{Firewall, Offer, Policy, Verdict};
pub use tree::Counters;
