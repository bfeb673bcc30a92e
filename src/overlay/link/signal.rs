//! The overlay as a node of the tree: like an onramp it passes the frames of negotiations on, to any overlay id.
//!
//! Who sends a payload is proven to the overlay, and here that its offer or answer shows that peer's key: so behind an address that is an
//! overlay id there is no other peer.

use serde_json::value::RawValue;

use crate::overlay::OverlayId;
use crate::protocol::Address;
use crate::protocol::signal::{Extension, Signal};
use crate::transport::introducer::{self, Name};

/// What the tree wants passed on to other peers.
pub(crate) type FromTree = introducer::FromTree<OverlayId>;
/// What other peers have passed on to the tree.
pub(crate) type ToTree = introducer::ToTree<OverlayId>;

/// How the frame of an offer begins.
pub(crate) const OFFER: &[u8] = b"[3,";

impl Name for OverlayId {
    const ONE_NODE: &str = "the overlay is one node only";
    const INCOMING: usize = 64;

    fn address(&self) -> Address {
        Address::new(self.to_string()).expect("it has 40 bytes")
    }

    fn of_address(to: &Address) -> Option<Self> {
        to.as_str().parse().ok().filter(|id: &Self| id.address() == *to)
    }

    /// The payload, if it is one, and an offer or an answer shows the key of its sender. The tree checks the proof.
    fn payload<'a>(&self, sent: &'a [u8]) -> Option<&'a str> {
        let raw: &RawValue = serde_json::from_slice(sent).ok()?;
        let shows_key = |ext: &Option<Extension>| {
            let proof = ext.as_ref().and_then(|ext| ext.identity.as_ref());
            proof.is_some_and(|proof| Self::of(&proof.key) == *self)
        };
        let fits = match Signal::parse(raw).ok()? {
            // Who writes offers in another way would get around what looks for them on the way here.
            Signal::Offer { .. } if !sent.starts_with(OFFER) => false,
            Signal::Offer { ext, .. } | Signal::Answer { ext, .. } => shows_key(&ext),
            Signal::Candidate { .. } | Signal::Refusal { .. } => true,
        };
        fits.then_some(raw.get())
    }
}

#[cfg(test)]
pub(in crate::overlay) mod tests;
