//! Accounts: who is there of those whom a user trusts, and calls to their peers.
//!
//! A *directory* is a server where users log in. It tells each login who else is there of the users that this one trusts, and
//! introduces them; calls then go over WebRTC from peer to peer. This is the protocol of BoneValue (p2p-platform).
//!
//! ```no_run
//! use pmesh::directory::{Directory, SessionEvent};
//! use serde_json::json;
//! use tokio_stream::StreamExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Directory::connect("wss://p2p.example.com", "admin", "correct horse").await?;
//!
//! // A module that peers may call.
//! let _echo = session.module("My.Echo.Module", async |request| {
//!     Ok(json!({"text": format!("Not {}", request.body()["text"])}))
//! })?;
//!
//! // Whenever a peer connects, send it a request: who is there already comes first.
//! let mut events = session.events();
//! while let Some(event) = events.next().await {
//!     let SessionEvent::PeerConnect { name, number } = event else { continue };
//!     let mut replies = session.get(number).message("My.Echo.Module", json!({"text": "Friday"}));
//!     while let Some(reply) = replies.next().await {
//!         println!("{name}: {:?}", reply.result);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Trust
//!
//! Users see and reach the peers of those whom they trust, and their own other logins under the alias `Us`. Trust is mutual, and each
//! side calls the other as it likes. It is made by a token, which one side asks for and the other one claims:
//!
//! ```no_run
//! # use pmesh::directory::{RequestError, Session};
//! # async fn example(alice: Session, bob: Session) -> Result<(), RequestError> {
//! let token = alice.request_token("Bob").await?; // to be brought to Bob in another way
//! bob.claim_token("Alice", &token).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The directory decides who is who: it can let anybody pass for a user. What peers say to each other it cannot read, unless it has made
//! itself one of the two. Where that matters, compare [`Node::peer_id`](crate::Node::peer_id).
//!
//! # The node tree
//!
//! To the tree the directory is one more onramp: it is a [node](Session::node), whose [announcements](crate::Node::announcements) are
//! numbers, and it introduces peers by their number. So identity, the firewall and its inheritance are as always, and a peer of a
//! session can introduce others. A number means a peer only where the directory itself has introduced it.
//!
//! Connections for calls are made when there are calls, and closed after them, within the bounds of [`PoolConfig`]. One that exists
//! already is used, whoever made it. [`Session::connect`] makes one that stays.
//!
//! Originals of BoneValue are seen and see this peer, but cannot be called: their data channels are others. Their introductions are
//! counted ([`SessionCounters::originals`]) and dropped, and calls to them fail as
//! [unreachable](crate::ConnectError::Unreachable).
//!
//! # When the directory is lost
//!
//! The session logs in again by itself, after a second at first and a minute at most. Connections and calls over them go on; who was
//! there counts as there, and calls to whom there is no connection wait. After the login what has changed comes as events. Each login
//! has another number, so a connection that stood before is known to the other side by the old one, and not used for its calls to
//! the new one: those may have to wait until the old connection is closed. A password that is wrong then ends the session. So does a directory
//! that has ended the login, with its account or because of another password, also if it would take the old one again soon after: only
//! the session that has changed the password itself logs in again.
//!
//! # Who is believed to be who
//!
//! A peer counts as one of its user as long as the directory names it. When its account has another password or is closed, or the trust
//! ends, the directory ends its logins and says so: then everything that goes on with the peer ends at once, over open connections too.
//! A peer that has left in another way, or is missing after an absence, may have lost the directory only; but nobody
//! would say any more that its account is closed. So its calls are taken for a [grace period](DirectoryBuilder::grace) only, in which
//! the directory is there and does not name it. A peer that logs in again says its key to those to whom it is connected, and is known
//! by it: then all goes on, and ends with its new login. While the directory is away nobody is named, and all goes on as it was: who wants to
//! be sure that nobody is called or served by mistake then, looks at [`Session::is_connected`].
//!
//! - `presence`, `doubts`, `pool`: who is there; who has left, and is connected; which connections there are (pure)
//! - `link`: the directory as a node; `login`: the way to its socket
//! - `parting`: how the two ends of a connection agree to close it
//! - `core`, `connections`, `tasks`: bring what happens to these, and carry out what follows
//! - `builder`, `session`, `selection`, `target`, `event`, `error`: what an application holds

mod again;
mod builder;
mod connections;
mod core;
mod doubts;
mod error;
mod event;
mod introductions;
mod link;
mod login;
mod parting;
mod pool;
mod presence;
mod selection;
mod session;
mod target;
mod tasks;

pub use self::core::SessionCounters;
pub use builder::{Directory, DirectoryBuilder};
pub use error::{CallError, LoginError, RequestError};
pub use event::{SessionEvent, SessionEvents};
pub use login::{Backoff, Credentials, is_loopback};
pub use pool::PoolConfig;
pub use selection::{Replies, Reply, Selection};
pub use session::{Invitation, Peer, Session};
pub use target::Target;

pub use crate::protocol::{InvalidPeerNumber, PeerNumber};
