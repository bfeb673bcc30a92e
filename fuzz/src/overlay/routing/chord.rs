//! Chord's.

use arbitrary::{Result, Unstructured};

use super::MOST_MEMORY;
use crate::memory;
use crate::overlay::{any_id, any_ids};

#[path = "../../../../src/overlay/routing/chord/wire.rs"]
mod wire;

use wire::{MAX_IDS, Message, Status};

pub(super) fn any_bytes(data: &[u8]) {
    let (message, peak) = memory::peak(|| Message::decode(data));
    assert!(peak <= 2 * MOST_MEMORY, "{peak} bytes for {}", data.len());
    if let Some(message) = message {
        assert_eq!(message.encode(), data);
    }
}

/// Longer lists are cut when they are written.
pub(super) fn any_message(input: &mut Unstructured<'_>) -> Result<()> {
    let status = Status { settled: input.arbitrary()?, need: input.arbitrary()? };
    let (request, target, asker) = (input.arbitrary()?, any_id(input)?, any_id(input)?);
    let mut lists = [any_ids(input, MAX_IDS)?, any_ids(input, MAX_IDS)?, any_ids(input, MAX_IDS)?];
    let write = |[predecessors, successors, peers]: [Vec<_>; 3], ask| {
        [
            Message::Status(status),
            Message::State { status, ask, predecessors, successors },
            Message::Find { request, target, asker },
            Message::Found { request, asker, peers },
        ]
    };
    let ask = input.arbitrary()?;
    let written = write(lists.clone(), ask);
    lists.iter_mut().for_each(|list| list.truncate(MAX_IDS));
    for (message, read) in written.iter().zip(write(lists, ask)) {
        assert_eq!(Message::decode(&message.encode()), Some(read));
    }
    Ok(())
}
