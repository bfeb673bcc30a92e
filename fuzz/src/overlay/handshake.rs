//! How neighbours prove who they are over a WebSocket.

use arbitrary::{Result, Unstructured};

use crate::proof::any_identity;
use crate::signal::any_text;

#[path = "../../../src/overlay/link/handshake.rs"]
#[allow(clippy::module_inception, reason = "it is named as its source is")]
mod handshake;

use handshake::{Answered, Dialling, HandshakeError};

/// Either any bytes are read, in the place of each message, or, after a byte that no message begins with, two peers prove who they are.
pub fn check(data: &[u8]) {
    // An error means that the input is at its end: nothing to check.
    if let [0, data @ ..] = data {
        let _ = two_peers(&mut Unstructured::new(data));
    } else {
        any_bytes(data);
    }
}

/// Whatever it is, nobody has signed it.
fn any_bytes(data: &[u8]) {
    let ours = crate::identity::Identity::from_secret([1; 32]);
    if let Ok((answered, answer)) = Answered::new(&ours, [2; 32], &[], data) {
        assert!((65..=65 + 255).contains(&data.len()) && answer.len() == 128);
        assert!(answered.proof(data).is_err());
    }
    let dialling = Dialling::new(ours, [3; 32], String::new()).expect("a host may be empty");
    assert!(dialling.answer(data).is_err());
}

/// Both know who the other is, unless a bit of any message was changed on its way, or the host is not that of the listener.
fn two_peers(input: &mut Unstructured<'_>) -> Result<()> {
    let (here, there) = (any_identity(input)?, any_identity(input)?);
    let (own, others) = (here.peer_id(), there.peer_id());
    let (host, hosts) = (any_text(input, 255)?, [any_text(input, 255)?]);
    let hosts = &hosts[..usize::from(input.arbitrary::<bool>()?)];
    let (broken, at, change): (u8, usize, u8) = input.arbitrary()?;
    let tamper = |message: &mut Vec<u8>, number| {
        let is_changed = broken % 4 == number && change != 0;
        if is_changed {
            let at = at % message.len();
            message[at] ^= change;
        }
        is_changed
    };
    let dialling = match Dialling::new(here, input.arbitrary()?, host.clone()) {
        Ok(dialling) => dialling,
        Err(error) => {
            assert!(host.len() > 255 && error == HandshakeError::Malformed);
            return Ok(());
        }
    };
    let mut hello = dialling.hello();
    let mut is_changed = tamper(&mut hello, 0);
    let (answered, mut answer) = match Answered::new(&there, input.arbitrary()?, hosts, &hello) {
        Ok(answered) => answered,
        Err(_) => {
            assert!(is_changed || hosts.first().is_some_and(|known| *known != host));
            return Ok(());
        }
    };
    is_changed |= tamper(&mut answer, 1);
    let mut proof = match dialling.answer(&answer) {
        Ok((listener, proof)) => {
            assert!(!is_changed && listener == others);
            proof
        }
        Err(error) => {
            assert!(is_changed || (own == others && error == HandshakeError::OwnId));
            return Ok(());
        }
    };
    is_changed |= tamper(&mut proof, 2);
    assert_eq!(answered.proof(&proof).ok(), (!is_changed).then_some(own));
    Ok(())
}
