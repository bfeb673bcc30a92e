use std::time::Duration;

/// How many neighbours a [`Kademlia`](super::Kademlia) table keeps, and how often it looks for others.
///
/// The defaults suit links that cost something, as WebRTC connections do. More links make fewer hops; as links have two ends,
/// a peer has about twice as many as it looks for. Measured with peers that came one by one:
///
/// | peers | target | links, mean | hops, mean |
/// |---|---|---|---|
/// | 1,000 | 20 | 40 | 2.8 |
/// | 1,000 | 40 | 65 | 2.4 |
/// | 1,000 | 50 | 72 | 2.3 |
/// | 10,000 | 20 | 50 | 3.9 |
///
/// A target above half of the [`cap`](Self::cap) makes peers turn away many calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KademliaConfig {
    /// Neighbours that the table looks for. Default: 20.
    ///
    /// It wishes for no more, but accepts those of others up to the [`cap`](Self::cap). A bucket of which it knows a peer gets
    /// one whatever the target, or some ids could not be reached.
    pub target: usize,
    /// Neighbours that the table holds at most. Default: 80.
    ///
    /// Once there are as many, a newcomer takes the place of the youngest of a bucket that has more than its own, or is not
    /// admitted. Should be four times [`near`](Self::near) or more, so that far peers have room.
    pub cap: usize,
    /// Neighbours that a bucket holds at most. Default: 20, the k of the Kademlia paper and of peer-relay.
    ///
    /// Once it has as many, a newcomer is admitted only in place of one that does not answer.
    pub bucket: usize,
    /// Of the closest peers, how many the table always wishes for. At least 1. Default: 8.
    ///
    /// With them a message jumps to its destination once it is near.
    pub near: usize,
    /// How often the table, when it has nothing to look for, asks two neighbours whether there is somebody new. Default: 10
    /// minutes.
    ///
    /// A question is passed on a few times, so that makes some 40 messages an hour for each peer, of 405 bytes at most. When
    /// neighbours are lost, it asks within 2 seconds, and then each time after twice as long.
    pub refresh: Duration,
    /// Links that the table tries to make at once. At least 1. Default: 4.
    pub parallel: usize,
}

impl Default for KademliaConfig {
    fn default() -> Self {
        Self { target: 20, cap: 80, bucket: 20, near: 8, refresh: Duration::from_secs(600), parallel: 4 }
    }
}

impl KademliaConfig {
    /// How many of the closest peers are not given up for others. A peer that counts us among its closest may have us further
    /// down on its own list, so these are more than we wish for.
    pub(super) fn kept(&self) -> usize {
        (self.near * 3).min(self.cap / 2)
    }
}
