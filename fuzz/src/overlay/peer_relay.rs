//! The messages of the original peer-relay.

use arbitrary::{Result, Unstructured};
use serde_json::value::RawValue;

use super::router::{ForeignMessage, MAX_FOREIGN_NONCE_BYTES, MAX_FOREIGN_PATH};
use super::{any_id, any_ids};
use crate::memory;
use crate::signal::{any_text, any_value};

#[path = "../../../src/overlay/compat/peer_relay/codec.rs"]
mod codec;

use codec::{Answer, Data, MAX_FOUND, decode_id, encode_id, is_usable};

/// Reading a text holds at most so many bytes for each byte of it, and so many beside.
const MEMORY_FACTOR: usize = 16;
const MOST_MEMORY: usize = 4 * 1024;

/// How deep generated data may be nested.
const DEPTH: usize = 3;

/// Either any text is read, or, after a byte that no JSON begins with, any message is written.
pub fn check(data: &[u8]) {
    if let [0, data @ ..] = data {
        // The input is at its end: nothing to check.
        let _ = any_message(&mut Unstructured::new(data));
    } else if let Ok(text) = std::str::from_utf8(data) {
        let (_, peak) = memory::peak(|| any_words(text));
        assert!(peak <= MOST_MEMORY + MEMORY_FACTOR * text.len(), "{peak} bytes for {}", text.len());
    }
}

/// What is read is written as something that is read as the same.
fn any_words(text: &str) {
    is_usable(text);
    if let Ok(id) = decode_id(text) {
        assert_eq!(decode_id(&encode_id(&id)), Ok(id));
    }
    check_data(text.as_bytes());
    if let Ok(message) = ForeignMessage::decode(text) {
        check_message(&message);
        if message.is_harmless() {
            check_data(message.data.get().as_bytes());
        }
    }
}

fn check_message(message: &ForeignMessage) {
    assert!((1..=MAX_FOREIGN_PATH).contains(&message.path.len()) && message.nonce.len() <= MAX_FOREIGN_NONCE_BYTES);
    let written = message.encode();
    let again = ForeignMessage::decode(&written).expect("what is written is a message");
    assert_eq!(again.encode(), written);
    assert_eq!((again.to, again.from, again.path), (message.to, message.from, message.path.clone()));
    assert_eq!((again.nonce, again.data.get()), (message.nonce.clone(), message.data.get()));
}

fn check_data(data: &[u8]) {
    let Ok(Some(data)) = Data::decode(data) else { return };
    if let Data::FoundPeers(found) = &data {
        assert!(found.len() <= MAX_FOUND);
    }
    let written = data.encode();
    let again = Data::decode(written.get().as_bytes()).expect("what is written is data");
    assert_eq!(again.expect("of a kind that is known").encode().get(), written.get());
}

/// A message within its bounds is read as it was written; no other is read.
fn any_message(input: &mut Unstructured<'_>) -> Result<()> {
    let value = any_value(input, DEPTH)?;
    let json = serde_json::value::to_raw_value(&value).expect("JSON");
    let ids = any_ids(input, MAX_FOUND)?;
    let url = any_text(input, 1024)?;
    let data = match input.int_in_range(0..=6)? {
        0 => Data::FindPeers(any_id(input)?).encode(),
        1 => Data::FoundPeers(ids.iter().copied().take(MAX_FOUND).collect()).encode(),
        2 => Data::HandshakeOffer.encode(),
        3 => {
            let ws = input.arbitrary::<bool>()?.then_some(url.as_str().into());
            Data::HandshakeAnswer(Answer { ws, wrtc: input.arbitrary()?, pmesh: input.arbitrary()? }).encode()
        }
        4 => Data::Signal(&json).encode(),
        5 => Data::User(&json).encode(),
        _ => json,
    };
    check_data(data.get().as_bytes());
    let is_null = data.get() == RawValue::NULL.get();
    let path = any_ids(input, MAX_FOREIGN_PATH)?;
    let nonce = any_text(input, MAX_FOREIGN_NONCE_BYTES)?;
    let fits = (1..=MAX_FOREIGN_PATH).contains(&path.len()) && nonce.len() <= MAX_FOREIGN_NONCE_BYTES && !is_null;
    let message = ForeignMessage { to: any_id(input)?, from: any_id(input)?, path, nonce, data };
    assert_eq!(ForeignMessage::decode(&message.encode()).is_ok(), fits);
    if fits {
        check_message(&message);
    }
    Ok(())
}
