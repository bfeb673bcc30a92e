//! Routers against each other in virtual time.

mod foreign;
mod hostile;
mod joining;
mod links;
mod messages;
mod net;
mod performance;
mod swarm;
