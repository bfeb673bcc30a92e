//! The codecs of the overlay.

use arbitrary::{Result, Unstructured};

#[path = "../../../src/overlay/id.rs"]
mod id;
#[path = "../../../src/overlay/seal.rs"]
pub(crate) mod seal;

pub(crate) use id::OverlayId;

pub mod handshake;
pub mod peer_relay;
pub mod router;
pub mod routing;
pub(crate) mod stream;
pub mod topics;

fn any_id(input: &mut Unstructured<'_>) -> Result<OverlayId> {
    Ok(OverlayId::from_bytes(input.arbitrary()?))
}

/// Some ids: up to one more than `most`, which is often what there are.
fn any_ids(input: &mut Unstructured<'_>, most: usize) -> Result<Vec<OverlayId>> {
    let count = match input.int_in_range(0..=5)? {
        0 => most,
        1 => most + 1,
        _ => input.int_in_range(0..=most)?,
    };
    let id = any_id(input)?;
    (0..count).map(|at| if at < 3 { any_id(input) } else { Ok(id) }).collect()
}
