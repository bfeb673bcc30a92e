//! The tree under test. `lone` drives one tree by hand; `sim` lets many talk in virtual time.

mod dials;
mod frames;
mod glare;
mod invariants;
mod lone;
mod original;
mod sim;
mod swarm;
