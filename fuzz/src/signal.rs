//! The payloads of relayed frames.

use arbitrary::{Result, Unstructured};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::memory;
use crate::proof;
use crate::protocol::limits::{MAX_CANDIDATE_BYTES, MAX_OFFER_DATA_BYTES, MAX_SDP_BYTES, MAX_SIGNAL_BYTES};
use crate::protocol::signal::{
    Candidate, Description, DescriptionKind, Extension, Refusal, Session, Signal, SignalError,
};

/// Reading a payload holds at most so many bytes for each byte of it: a map with one short member costs most.
const MEMORY_FACTOR: usize = 256;

const REFUSALS: [Refusal; 6] =
    [Refusal::Refused, Refusal::Connected, Refusal::Busy, Refusal::Failed, Refusal::Identity, Refusal::Own];

/// How deep generated data may be nested.
const DEPTH: usize = 5;

/// Either any JSON is read, or, after a byte that no JSON begins with, any payload is written.
pub fn check(data: &[u8]) {
    if let [0, data @ ..] = data {
        if let Ok(signal) = any_signal(&mut Unstructured::new(data)) {
            check_written(&signal);
        }
    } else if let Ok(payload) = serde_json::from_slice::<&RawValue>(data) {
        check_payload(payload);
    }
}

/// Text with few different characters, at times about as long as allowed.
pub(crate) fn any_text(input: &mut Unstructured<'_>, limit: usize) -> Result<String> {
    let length = match input.int_in_range(0..=9)? {
        0 => limit,
        1 => limit + 1,
        2 => limit - input.int_in_range(0..=limit.min(200))?,
        _ => input.int_in_range(0..=20)?,
    };
    let filling: char = match input.arbitrary()? {
        true => *input.choose(&['x', '"', '\\', '\n', '\u{7f}', '\u{2028}'])?,
        false => input.arbitrary()?,
    };
    let mut text: String = input.arbitrary()?;
    let missing = length.saturating_sub(text.len());
    text.push_str(&filling.to_string().repeat(missing / filling.len_utf8()));
    Ok(text)
}

pub(crate) fn any_value(input: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let kinds = if depth == 0 { 5 } else { 7 };
    Ok(match input.int_in_range(0..=kinds)? {
        0 => Value::Null,
        1 => input.arbitrary::<bool>()?.into(),
        2 => input.arbitrary::<i64>()?.into(),
        3 => input.arbitrary::<u64>()?.into(),
        4 if input.arbitrary()? => (*input.choose(&[0.0, -0.0, 0.1, 1.7e30, 1e308, 9_007_199_254_740_993.0])?).into(),
        4 => input.arbitrary::<f64>()?.into(),
        5 => any_text(input, MAX_OFFER_DATA_BYTES)?.into(),
        6 => (0..input.int_in_range(0..=4)?).map(|_| any_value(input, depth - 1)).collect::<Result<Vec<_>>>()?.into(),
        _ => (0..input.int_in_range(0..=4)?)
            .map(|_| Ok((any_text(input, 8)?, any_value(input, depth - 1)?)))
            .collect::<Result<serde_json::Map<_, _>>>()?
            .into(),
    })
}

fn any_extension(input: &mut Unstructured<'_>) -> Result<Option<Extension>> {
    Ok(match input.arbitrary()? {
        true => Some(Extension {
            v: 1,
            session: Session(input.arbitrary()?),
            window: input.arbitrary()?,
            max_message: input.arbitrary()?,
            identity: if input.arbitrary()? { Some(proof::any_proof(input)?) } else { None },
        }),
        false => None,
    })
}

pub(crate) fn any_signal(input: &mut Unstructured<'_>) -> Result<Signal> {
    Ok(match input.int_in_range(0..=3)? {
        0 => Signal::Offer {
            description: Description { kind: DescriptionKind::Offer, sdp: any_text(input, MAX_SDP_BYTES)? },
            data: any_value(input, DEPTH)?,
            ext: any_extension(input)?,
        },
        1 => Signal::Answer {
            description: Description { kind: DescriptionKind::Answer, sdp: any_text(input, MAX_SDP_BYTES)? },
            ext: any_extension(input)?,
        },
        2 => Signal::Candidate {
            candidate: Candidate {
                candidate: any_text(input, MAX_CANDIDATE_BYTES)?,
                sdp_mid: input.arbitrary()?,
                sdp_m_line_index: input.arbitrary()?,
                username_fragment: input.arbitrary()?,
            },
            session: input.arbitrary::<Option<u64>>()?.map(Session),
        },
        _ => Signal::Refusal { session: Session(input.arbitrary()?), why: *input.choose(&REFUSALS)? },
    })
}

/// What is written is read as the same, unless it is longer than allowed: then it is no payload.
fn check_written(signal: &Signal) {
    let text = signal.to_json();
    let written: &RawValue = serde_json::from_str(&text).expect("what is written is JSON");
    let within = text.len() <= MAX_SIGNAL_BYTES
        && match signal {
            Signal::Offer { description, data, .. } => {
                description.sdp.len() <= MAX_SDP_BYTES && data.to_string().len() <= MAX_OFFER_DATA_BYTES
            }
            Signal::Answer { description, .. } => description.sdp.len() <= MAX_SDP_BYTES,
            Signal::Candidate { candidate, .. } => {
                serde_json::to_string(candidate).expect("plain data").len() <= MAX_CANDIDATE_BYTES
            }
            Signal::Refusal { .. } => true,
        };
    let read = Signal::parse(written);
    if within {
        assert_eq!(read.as_ref(), Ok(signal), "{text}");
    } else {
        assert_eq!(read, Err(SignalError), "{} bytes", text.len());
    }
}

/// What is read keeps to the limits, and is written as one that is read as the same.
pub(crate) fn check_payload(payload: &RawValue) {
    let size = payload.get().len();
    let (signal, peak) = memory::peak(|| Signal::parse(payload));
    assert!(peak <= 1024 + MEMORY_FACTOR * size.min(MAX_SIGNAL_BYTES), "{peak} bytes for {size}");
    let Ok(signal) = signal else { return };
    assert!(size <= MAX_SIGNAL_BYTES);
    match &signal {
        Signal::Offer { description, ext, .. } | Signal::Answer { description, ext } => {
            assert!(description.sdp.len() <= MAX_SDP_BYTES && ext.as_ref().is_none_or(|ext| ext.v == 1));
        }
        Signal::Candidate { candidate, .. } => assert!(candidate.candidate.len() <= MAX_CANDIDATE_BYTES),
        Signal::Refusal { .. } => {}
    }
    // The same data may take more bytes when it is written in full.
    check_written(&signal);
}
