//! Routers against each other in virtual time.

mod links;
mod messages;
mod net;
