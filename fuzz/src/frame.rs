//! The text frames.

use arbitrary::{Result, Unstructured};

use crate::memory;
use crate::protocol::Address;
use crate::protocol::frame::{self, Frame, FrameError, Undeliverable};
use crate::protocol::limits::MAX_ADDRESS_BYTES;
use crate::signal;

/// Reading a frame holds no more than an address beside the text itself, which it borrows from.
const MOST_MEMORY: usize = 4 * 1024;

/// Either any text is read, or, after a byte that no frame begins with, any frame is written.
pub fn check(data: &[u8]) {
    if let [0, data @ ..] = data {
        // The input is at its end: nothing to check.
        let _ = any_frame(&mut Unstructured::new(data));
    } else if let Ok(text) = std::str::from_utf8(data) {
        any_text(text);
    }
}

/// Every frame that is written is read as the same. A frame whose address is too long is none.
fn any_frame(input: &mut Unstructured<'_>) -> Result<()> {
    let name = signal::any_text(input, MAX_ADDRESS_BYTES)?;
    let payload = serde_json::Value::from(signal::any_text(input, 50)?).to_string();
    let Ok(address) = Address::new(&name) else {
        assert!(name.is_empty() || name.len() > MAX_ADDRESS_BYTES);
        let text = serde_json::to_string(&(input.choose(&[6, 7, 16, 17, 18])?, &name, 0)).expect("plain data");
        assert_eq!(Frame::parse(&text).err(), Some(FrameError::Malformed));
        return Ok(());
    };
    check_address(&address);
    let raw = serde_json::from_str(&payload).expect("JSON");
    let frame = match input.int_in_range(0..=6)? {
        0 => Frame::Message(raw),
        1 => Frame::Relay { to: address, payload: raw },
        2 => Frame::Relayed { from: address, payload: raw },
        3 => Frame::Welcome { address },
        4 => Frame::Undeliverable { to: address, why: Undeliverable::Busy },
        5 => Frame::Undeliverable { to: address, why: Undeliverable::Unknown },
        _ => Frame::Left { address },
    };
    let written = write(&frame);
    let read = Frame::parse(&written).expect("what is written is a frame");
    assert_eq!(format!("{frame:?}"), format!("{read:?}"));
    Ok(())
}

/// What is read as a frame is written as one that is read as the same; its payload stays as it is.
fn any_text(text: &str) {
    let (frame, peak) = memory::peak(|| Frame::parse(text));
    // A text with escapes is read into a buffer, of which there may be one for each of the few elements.
    assert!(peak <= MOST_MEMORY + 4 * text.len(), "{peak} bytes for {}", text.len());
    let Ok(frame) = frame else { return };
    let written = write(&frame);
    let again = Frame::parse(&written).expect("what is written is a frame");
    assert_eq!(format!("{frame:?}"), format!("{again:?}"));
    assert_eq!(written, write(&again));
    let within = |part: &str| part == "null" || text.as_bytes().as_ptr_range().contains(&part.as_ptr());
    match &frame {
        Frame::Message(payload) => assert!(within(payload.get())),
        Frame::Relay { to: address, payload } | Frame::Relayed { from: address, payload } => {
            check_address(address);
            assert!(within(payload.get()));
            signal::check_payload(payload);
        }
        Frame::Welcome { address } | Frame::Undeliverable { to: address, .. } | Frame::Left { address } => {
            check_address(address);
        }
    }
}

fn write(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Message(json) => frame::message(json.get()),
        Frame::Relay { to, payload } => frame::relay(to, payload.get()),
        Frame::Relayed { from, payload } => frame::relayed(from, payload.get()),
        Frame::Welcome { address } => frame::welcome(address),
        Frame::Undeliverable { to, why } => frame::undeliverable(to, *why),
        Frame::Left { address } => frame::left(address),
    }
}

fn check_address(address: &Address) {
    assert!((1..=MAX_ADDRESS_BYTES).contains(&address.as_str().len()));
    let text = frame::announcement(address);
    let Ok(Frame::Message(json)) = Frame::parse(&text) else { panic!("an announcement is a message") };
    assert_eq!(serde_json::from_str::<Address>(json.get()).ok().as_ref(), Some(address));
}
