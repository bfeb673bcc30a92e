//! Links to neighbours.
//!
//! - [`signal`]: how new WebRTC nodes come about, through the overlay itself

pub(crate) mod signal;
