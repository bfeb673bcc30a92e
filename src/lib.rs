//! Transitive mesh networks over WebRTC: any peer can introduce any other, so the server can go away.
//!
//! A program makes a [`Root`]. The root connects to an *onramp*, a WebSocket server where peers meet. Through the onramp
//! it connects to peers, over WebRTC data channels. Through any of these it connects to further peers, and nobody is in
//! the middle of a connection once it stands. The other peers may be programs with this crate, or web pages with the
//! npm package `internet` (P), whose protocol it speaks.
//!
//! ```
//! use pmesh::onramp::Onramp;
//! use pmesh::{Connect, Offer, Root};
//! use tokio_stream::StreamExt;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Where peers meet: most often a server elsewhere, here a part of the program.
//!     let onramp = Onramp::bind("127.0.0.1:0").await?;
//!     let url = onramp.url();
//!     let server = tokio::spawn(onramp.run(std::future::pending::<()>()));
//!
//!     // One peer waits, and lets in only who knows the secret.
//!     let local = Root::builder().loopback(true).mdns(false);
//!     let alice = local.clone().firewall(|offer: &Offer| offer.data() == "secret").build();
//!     let connecting = alice.connect(&url);
//!     let mut callers = connecting.node().connections();
//!     connecting.await?;
//!
//!     // Another one is told by the onramp who is here, and calls.
//!     let bob = local.build();
//!     let onramp = bob.connect(&url).await?;
//!     let announced = onramp.messages().next().await.ok_or("the onramp is gone")?;
//!     let address = announced.as_str().ok_or("an onramp announces addresses")?;
//!     let to_alice = onramp.connect(Connect::to(address).offer_data("secret")).await?;
//!
//!     // They talk, and the onramp is not needed any more.
//!     server.abort();
//!     to_alice.send("Hi, I'm Bob!").await?;
//!     let caller = callers.next().await.ok_or("nobody called")?;
//!     assert_eq!(caller.messages().next().await, Some("Hi, I'm Bob!".into()));
//!
//!     bob.close().await;
//!     alice.close().await;
//!     Ok(())
//! }
//! ```
//!
//! It needs a [Tokio](https://docs.rs/tokio) runtime, and `StreamExt` of `tokio-stream` or `futures-util` for the streams.
//! There are no cargo features.
//!
//! # Concepts
//!
//! - **Root.** [`Root`] is one peer of a mesh: it has the settings, made by [`Root::builder`], and all nodes. A program may
//!   have several.
//! - **Node.** [`Node`] is one connection: to an onramp by WebSocket, to a peer by WebRTC, or the [overlay](overlay::Overlay::node)
//!   ([`NodeKind`]). The first two are used in the same way; the overlay only introduces. A node is made by a connect call, or because
//!   somebody called.
//! - **Via.** [`Node::connect`] makes a connection *via* that node: it relays an offer, an answer and network
//!   candidates between the two, until they are connected. Roots do this for their peers by themselves; [`Counters`]
//!   says how much.
//! - **Address.** An [`Address`] is the name by which the via knows a peer. It says how to reach somebody, not who it is: that is
//!   the [`PeerId`].
//! - **Offer and firewall.** Who calls sends an [`Offer`], with data if it likes ([`Connect::offer_data`]). The
//!   [`Firewall`] of the called side accepts, refuses or ignores it ([`Verdict`]), before anything is made for the
//!   connection. It is a closure, sync or async, or a composed [`Policy`]. New nodes inherit the firewall of their via, at
//!   any depth; [`Connect::firewall`] replaces it for a node and all below it.
//! - **Events.** [`Root::events`] and [`Node::events`] tell what happens ([`Event`]). A reader that is too slow gets
//!   [`Event::Lagged`], and reads the state again: [`Root::peers`], [`Node::state`].
//!   [`connections`](Node::connections) and [`disconnections`](Node::disconnections) are the most used events as streams
//!   of nodes; [`opened`](Node::opened) and [`closed`](Node::closed) wait for a node's.
//! - **Messages.** A [`Message`] is a JSON value, of which a string is one, or bytes. [`Node::messages`] and
//!   [`Root::messages`] give them in the order of arrival. They arrive whole, and none is lost while the connection lasts.
//! - **Channel.** A [`Channel`] is a sequence of messages of its own between two pmesh peers, with a name, made by
//!   [`Node::channel`] on either side. Messages keep their order within a channel; a small one does not wait for a large one
//!   of another channel, and who does not read one channel holds up no other. [`ChannelOptions`] allow messages to overtake
//!   each other, or to get lost where only the newest counts.
//! - **Backpressure.** [`Node::send`] waits while the other side does not read, [`Node::try_send`] gives the message back.
//!   A node that nobody reads from slows down its sender, and no other node. Every queue has a bound.
//!
//! # Life cycle
//!
//! - [`connect`](Node::connect) does nothing until the [`Connecting`] is awaited or [detached](Connecting::detach), so its
//!   [node](Connecting::node) can be listened to before anything can happen to it. Dropping it while it is not done gives
//!   the attempt up.
//! - A node goes from [`Connecting`](NodeState::Connecting) to [`Open`](NodeState::Open) to
//!   [`Closed`](NodeState::Closed), with a [`CloseReason`] that never changes.
//! - Dropping a [`Node`] does nothing: the root keeps the connection. [`Node::close`] ends it, after sending what is queued.
//! - When a node closes, the nodes that it introduced stay. Connections that still need it to be made fail.
//! - Dropping a stream stops listening.
//! - Dropping the last [`Root`] closes everything in the background; [`Root::close`] waits for it.
//!
//! # Networks
//!
//! By default peers are found on every network interface but loopback, and there are no STUN servers. Peers behind NATs
//! need [`RootBuilder::ice_servers`]; peers on the same machine without a network, as in tests, need
//! [`RootBuilder::loopback`]. Behind a firewall, one UDP port for all peers is enough with [`RootBuilder::shared_port`].
//!
//! # Identity and trust
//!
//! Data channels are encrypted by DTLS, with certificates made for the occasion. Their fingerprints travel in the offer and the
//! answer, through the via. So between peers of this crate each end proves who it is, and that nothing was altered:
//!
//! - Every root has an Ed25519 key, its [`Identity`]; the [`PeerId`] is the public key. By default a root makes a new one;
//!   [`RootBuilder::identity`] keeps one.
//! - The offer carries the caller's key, a fresh random number and a signature over these, the fingerprint of its certificate, the
//!   session, its limits, its role and the offer data. The answer carries the same of the other side, and its signature covers the
//!   offer too. The [`Firewall`] is asked only about offers whose signature fits: see [`Offer::peer_id`].
//! - Candidates and the rest of the descriptions are not signed. They decide which way the encrypted packets take, and no more.
//! - Once the data channel stands, each end signs, inside it, both keys, both fingerprints, both random numbers and its role,
//!   as it knows them, and checks the other's signature and the certificate that DTLS has seen. Only then the node is open
//!   and [`Node::peer_id`] known: no message goes either way before.
//!
//! A via, onramp or peer, may read introductions, delay them and drop them. If it exchanges a fingerprint or a key, alters the
//! proof, repeats an old offer or answer, sends an offer back to where it comes from, brings an answer to another offer, or puts its
//! own key on other people's certificates (unknown key share), the connection fails, most often as
//! [`Unverified`](ConnectError::Unverified).
//!
//! What this does not do:
//!
//! - *Say who belongs to an address.* A via can call itself, with its own key, whatever it likes. Say whom you expect
//!   ([`Connect::expect`]), or decide by id in the firewall.
//! - *Tell an original P from a peer whose proof was removed.* Originals have no identity, and a via that takes the
//!   proofs away makes both ends look like two of them: [`Node::peer_id`] is `None`, and the via may be in the middle. [`Connect::expect`] and
//!   [`RootBuilder::require_identity`] turn those away.
//! - *Hide anything from the via*: addresses, keys and offer data can be read. A secret in offer data keeps strangers out, not
//!   the via. Use `wss://` for onramps across networks.
//! - *Protect a stolen key.* Who has it is that peer.
//!
//! It follows RFC 8827 (fingerprints bound to an identity), RFC 8844 (unknown key share attacks), and libp2p's WebRTC transport (a
//! handshake inside the channel over both fingerprints); keys and signatures are those of RFC 8032.
//!
//! # More
//!
//! The module [`overlay`] has messages, datagrams and streams to any peer of a mesh by its id, over others where there is no direct
//! connection, and topics.
//!
//! The module [`rpc`] has modules by name, which peers call over nodes and over the overlay. With [`directory`] users log in, meet the
//! peers of those whom they trust, and call them.
//!
//! The module [`onramp`] is the server, to embed in a program or a test. The repository has examples (`party`,
//! `ping_pong`, `firewall`, `onramp_embedded`, `relay_chain`, `chat_topic`, `file_transfer`), the program `onramp-server`, and the
//! command `pmesh`, which is a peer for the shell and other languages.

pub mod directory;
mod error;
mod identity;
mod lock;
mod node;
pub mod onramp;
pub mod overlay;
mod protocol;
pub mod rpc;
mod transport;

pub use error::{CloseReason, Denied};
pub use identity::{Identity, IdentityFileError, InvalidPeerId, PeerId};
pub use node::{
    Announcements, Binaries, Channel, ChannelError, ChannelOptions, Channels, Connect, ConnectError, Connecting,
    Counters, Event, Events, Firewall, Message, Messages, Node, NodeError, NodeId, NodeKind, NodeState, Nodes, Offer,
    Policy, Root, RootBinaries, RootBuilder, RootMessages, SendError, TrySendError, Verdict,
};
pub use protocol::{Address, Delivery, InvalidAddress, InvalidPeerNumber, PeerNumber, Reliability};
pub use transport::webrtc::IceServer;

/// The code blocks of the README, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
