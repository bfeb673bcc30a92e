//! Kademlia's.

use arbitrary::{Result, Unstructured};

use super::MOST_MEMORY;
use crate::memory;
use crate::overlay::{any_id, any_ids};

#[path = "../../../../src/overlay/routing/kademlia/wire.rs"]
mod wire;

use wire::{MAX_FOUND, Message};

pub(super) fn any_bytes(data: &[u8]) {
    let (message, peak) = memory::peak(|| Message::decode(data));
    assert!(peak <= MOST_MEMORY, "{peak} bytes for {}", data.len());
    if let Some(message) = message {
        assert_eq!(message.encode(), data);
    }
}

pub(super) fn any_message(input: &mut Unstructured<'_>) -> Result<()> {
    let token = input.arbitrary()?;
    let find = Message::Find { token, hops: input.arbitrary()?, target: any_id(input)? };
    assert_eq!(Message::decode(&find.encode()), Some(find));
    let ids = any_ids(input, MAX_FOUND)?;
    let fits = ids.len() <= MAX_FOUND;
    let found = Message::Found { token, ids };
    assert_eq!(Message::decode(&found.encode()), fits.then_some(found));
    Ok(())
}
