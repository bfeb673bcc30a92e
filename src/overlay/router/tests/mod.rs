//! Routers against each other in virtual time.

mod links;
mod messages;
mod net;

mod foreign;
mod hostile;
mod performance;
