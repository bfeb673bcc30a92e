//! The overlay of pmesh in virtual time: the same routers and tables as in programs, with simulated links.
//!
//! Everything follows from one seed. See `README.md` for how to run it.

pub mod attack;
pub mod check;
pub mod lookups;
pub mod observe;
pub mod plot;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod seal;
pub mod world;

/// The seed: the one that is given, else that of the environment variable `PMESH_SEED`, else 1.
pub fn seed(given: Option<u64>) -> u64 {
    let from_environment = || std::env::var("PMESH_SEED").ok()?.parse().ok();
    given.or_else(from_environment).unwrap_or(1)
}
