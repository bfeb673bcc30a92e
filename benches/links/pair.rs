//! Two peers with a link between them, of whichever kind.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use pmesh::{Binaries, Node};
use tokio::time::timeout;
use webrtc::data_channel::{DataChannel, DataChannelEvent};

use crate::bare::{self, BarePair};
use crate::tree::{self, TreePair};
use crate::{Error, Result};

/// How long opening or closing a pair may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    Pmesh,
    Same,
    Plain,
}

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::Pmesh, Self::Same, Self::Plain];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pmesh => "pmesh",
            Self::Same => "same",
            Self::Plain => "plain",
        })
    }
}

impl FromStr for Variant {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|variant| variant.to_string() == name);
        found.ok_or_else(|| format!("no variant {name}: pmesh, same or plain").into())
    }
}

/// Two open ends, and what keeps them open.
pub(crate) struct Pair {
    pub(crate) a: End,
    pub(crate) b: End,
    keep: Keep,
}

enum Keep {
    Tree(TreePair),
    Bare(BarePair),
}

impl Pair {
    /// Opens a pair for messages of about this size.
    pub(crate) async fn open(variant: Variant, message: usize) -> Result<Self> {
        timeout(PATIENCE, Self::open_now(variant, message)).await.map_err(|_| "stuck while opening")?
    }

    async fn open_now(variant: Variant, message: usize) -> Result<Self> {
        if variant == Variant::Pmesh {
            let tree = TreePair::new().await?;
            let (a, b) = tree.connect().await?;
            return Ok(Self { a: End::Tree(a), b: End::Tree(b), keep: Keep::Tree(tree) });
        }
        Ok(Self::bare(bare::open(variant == Variant::Same, bare::limit(message)).await?))
    }

    pub(crate) fn bare(pair: BarePair) -> Self {
        let (a, b) = (End::Bare(pair.a.channel.clone()), End::Bare(pair.b.channel.clone()));
        Self { a, b, keep: Keep::Bare(pair) }
    }

    pub(crate) async fn close(self) -> Result<()> {
        let closing = async {
            match self.keep {
                Keep::Tree(tree) => tree.close().await,
                Keep::Bare(pair) => pair.close().await,
            }
        };
        timeout(PATIENCE, closing).await.map_err(|_| "stuck while closing")?
    }
}

/// One end of a link.
#[derive(Clone)]
pub(crate) enum End {
    Tree(Node),
    Bare(Arc<dyn DataChannel>),
}

impl End {
    /// Sends a message that the application has just made: every variant pays for one copy into a buffer of its own.
    pub(crate) async fn send(&self, body: &[u8]) -> Result<()> {
        match self {
            Self::Tree(node) => node.send(Bytes::copy_from_slice(body)).await?,
            Self::Bare(channel) => channel.send(BytesMut::from(body)).await?,
        }
        Ok(())
    }

    /// Bytes that wait on the sending side. Not known of the bare crate.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Self::Tree(node) => node.buffered(),
            Self::Bare(_) => 0,
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        match self {
            Self::Tree(node) => Reader::Tree(tree::reader(node)),
            Self::Bare(channel) => Reader::Bare(channel.clone()),
        }
    }
}

/// Reads what arrives at one end.
pub(crate) enum Reader {
    Tree(Binaries),
    Bare(Arc<dyn DataChannel>),
}

impl Reader {
    pub(crate) async fn next(&mut self) -> Result<Bytes> {
        match self {
            Self::Tree(messages) => messages.next().await.ok_or_else(|| "the node is closed".into()),
            Self::Bare(channel) => loop {
                match channel.poll().await {
                    Some(DataChannelEvent::OnMessage(message)) => return Ok(message.data.freeze()),
                    Some(DataChannelEvent::OnClose) | None => return Err("the channel is closed".into()),
                    Some(_) => {}
                }
            },
        }
    }
}
