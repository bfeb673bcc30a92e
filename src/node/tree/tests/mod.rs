//! The tree under test. `lone` drives one tree by hand; `sim` lets many talk in virtual time.

mod dials;
mod frames;
mod glare;
mod hostile;
mod identity;
mod invariants;
mod lone;
mod net;
mod original;
mod originals;
mod performance;
mod sim;
mod swarm;
