//! Modules by name, which peers call: over any node of the tree, and over the overlay.
//!
//! ```
//! use pmesh::Node;
//! use pmesh::rpc::{CallError, Failure, Request, Rpc};
//! use serde_json::json;
//!
//! # async fn example(root: pmesh::Root, node: Node) -> Result<(), Box<dyn std::error::Error>> {
//! // One peer has a module, for all who are connected.
//! let rpc = Rpc::new();
//! let _echo = rpc.module("My.Echo.Module", async |request: Request| {
//!     Ok(json!({"text": format!("Not {}", request.body()["text"])}))
//! })?;
//! let _add = rpc.typed("Add", async |(a, b): (i64, i64), _caller| {
//!     a.checked_add(b).ok_or_else(|| Failure::new("too large").with_code("overflow"))
//! })?;
//! let _serving = rpc.serve(&root)?;
//!
//! // Another one calls it. Both may be the same program, and call each other.
//! let answer = rpc.on(&node).call("My.Echo.Module", json!({"text": "Friday"})).await?;
//! let sum: i64 = rpc.on(&node).call_typed("Add", &(1, 2)).await?;
//! match rpc.on(&node).call("Nothing", json!(null)).await {
//!     Err(CallError::UnknownModule) => println!("{answer}, {sum}"),
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Responses may also come as a stream, which is sent as fast as it is read:
//!
//! ```
//! # use tokio_stream::StreamExt;
//! # use pmesh::overlay::{Overlay, OverlayId};
//! # use pmesh::rpc::{Request, Responses, Rpc};
//! # use serde_json::json;
//! # async fn example(overlay: Overlay, peer: OverlayId) -> Result<(), Box<dyn std::error::Error>> {
//! let rpc = Rpc::new();
//! let _count = rpc.streaming("Count", async |request: Request, responses: Responses| {
//!     for n in 0..request.body().as_u64().unwrap_or(10) {
//!         responses.send(n).await?;
//!     }
//!     Ok(())
//! })?;
//! let _serving = rpc.serve_overlay(&overlay)?;
//!
//! let mut numbers = rpc.over(&overlay, peer).stream("Count", json!(1_000_000));
//! while let Some(number) = numbers.next().await {
//!     println!("{}", number?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - **Who may call** is up to the peers of the tree first, by its [firewall](crate::Firewall), and then to the [`CallFirewall`], call by
//!   call.
//! - **A call ends once**, with an answer or a [`CallError`]. It is not made again by itself: after [`CallError::Closed`] and
//!   [`CallError::TimedOut`] only the application knows whether that would do harm.
//! - **Giving up** cancels: when the future or stream of a call is dropped or its time is over, the other side drops the handler.
//! - **Everything has a bound**, see [`RpcBuilder`] and [`Target`]. Large bodies are cut, and small calls go between the pieces.
//!
//! Calls over a node need a message size of 17 KiB at least ([`RootBuilder::max_message_size`](crate::RootBuilder::max_message_size)).
//!
//! - `error`: why a call has no answer
//! - `wire`, `outbox`, `table`: what travels, in which order, and what is in progress (pure)
//! - `link`, `port`: carry the frames, run the handlers
//! - `modules`, `request`: what handlers are
//! - `handle`, `target`, `serve`: what an application holds

mod error;
mod handle;
mod link;
mod modules;
mod outbox;
mod port;
mod request;
mod serve;
mod table;
mod target;
mod wire;

pub use error::{CallError, Failure, ModuleError, ServeError};
pub use handle::{Rpc, RpcBuilder};
pub use modules::ModuleGuard;
pub use request::{CallFirewall, Caller, IncomingCall, Request, ResponseError, Responses};
pub use serve::Serving;
pub use target::{Responding, Target};
