//! Pairs of pmesh: two roots that meet on an onramp.

use futures_util::StreamExt;
use pmesh::{Address, Binaries, Event, Node, NodeKind, Root, RootBuilder};

use crate::onramp::Onramp;
use crate::{Result, options};

pub(crate) struct Peer {
    pub(crate) root: Root,
    pub(crate) onramp: Node,
    pub(crate) address: Address,
}

impl Peer {
    pub(crate) async fn new(onramp: &Onramp) -> Result<Self> {
        Self::with(Root::builder(), onramp).await
    }

    async fn with(builder: RootBuilder, onramp: &Onramp) -> Result<Self> {
        let mut builder = builder.bind([([127, 0, 0, 1], 0).into()]).mdns(false);
        if options::shared_port().is_some() {
            builder = builder.shared_port(0);
        }
        let root = builder.build();
        // What the first who listens costs is the root's, and not that of a link.
        drop(root.events());
        let node = root.connect(onramp.url()).await?;
        let address = node.own_address().ok_or("the onramp does not say who we are")?.clone();
        Ok(Self { root, onramp: node, address })
    }

    /// Dials another peer, and returns both ends once both are open.
    pub(crate) async fn connect(&self, other: &Self) -> Result<(Node, Node)> {
        let mut events = other.root.events();
        let accepted = async {
            while let Some(event) = events.next().await {
                match event {
                    Event::Open { node } if node.kind() == NodeKind::WebRtc && *node.address() == self.address => {
                        return Ok(node);
                    }
                    _ => {}
                }
            }
            Err("the root is closed".into())
        };
        let dialled = async { Ok(self.onramp.connect(&other.address).await?) };
        tokio::try_join!(dialled, accepted)
    }
}

pub(crate) struct TreePair {
    pub(crate) a: Peer,
    pub(crate) b: Peer,
    onramp: Onramp,
}

impl TreePair {
    pub(crate) async fn new() -> Result<Self> {
        let onramp = Onramp::start().await?;
        Ok(Self { a: Peer::new(&onramp).await?, b: Peer::new(&onramp).await?, onramp })
    }

    /// A pair that takes messages of so many bytes.
    pub(crate) async fn with_messages_of(bytes: usize) -> Result<Self> {
        let onramp = Onramp::start().await?;
        let builder = Root::builder().max_message_size(bytes);
        let (a, b) = (Peer::with(builder.clone(), &onramp).await?, Peer::with(builder, &onramp).await?);
        Ok(Self { a, b, onramp })
    }

    pub(crate) async fn connect(&self) -> Result<(Node, Node)> {
        self.a.connect(&self.b).await
    }

    pub(crate) async fn close(self) -> Result<()> {
        tokio::join!(self.a.root.close(), self.b.root.close());
        self.onramp.stop().await;
        Ok(())
    }
}

pub(crate) fn reader(node: &Node) -> Binaries {
    node.binaries()
}
