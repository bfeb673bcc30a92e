//! What the tables say to each other.

use arbitrary::Unstructured;

mod chord;
mod kademlia;

/// Reading a message holds no more than the ids in it.
const MOST_MEMORY: usize = 1024;

/// The first byte says which table's it is, and whether any bytes are read or any message is written.
pub fn check(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let input = &mut Unstructured::new(data);
    // An error means that the input is at its end: nothing to check.
    let _ = match kind {
        0 => Ok(kademlia::any_bytes(data)),
        1 => Ok(chord::any_bytes(data)),
        2 => kademlia::any_message(input),
        _ => chord::any_message(input),
    };
}
