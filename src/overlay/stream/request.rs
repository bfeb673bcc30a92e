//! The first bytes of a stream: for which service it is, and the answer.
//!
//! Who dials sends a byte that is the length of the service's name, and the name; the other side answers with one byte.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::DialError;

/// Longest name of a service in bytes.
pub const MAX_SERVICE_NAME: usize = 255;

/// What the peer says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted = 0,
    NoSuchService = 1,
    Busy = 2,
}

impl Answer {
    pub(super) fn byte(self) -> u8 {
        self as u8
    }

    pub(super) fn check(byte: u8) -> Result<(), DialError> {
        match byte {
            0 => Ok(()),
            1 => Err(DialError::NoSuchService),
            2 => Err(DialError::Busy),
            _ => Err(DialError::Lost),
        }
    }
}

/// Whether a service can have this name.
pub(super) fn is_name(service: &str) -> bool {
    (1..=MAX_SERVICE_NAME).contains(&service.len())
}

/// A request for a service whose name [is one](is_name).
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut request = Vec::with_capacity(1 + service.len());
    request.push(service.len() as u8);
    request.extend_from_slice(service.as_bytes());
    request
}

/// Reads a request, and no byte more.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut name = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut name).await?;
    String::from_utf8(name).ok().filter(|name| is_name(name)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests() {
        for service in ["a", "files", &"x".repeat(MAX_SERVICE_NAME)] {
            let sent = [&request(service)[..], b"data"].concat();
            let mut rest = &sent[..];
            assert_eq!(read_request(&mut rest).await.unwrap(), service);
            assert_eq!(rest, b"data");
            assert!(read_request(&mut &sent[..service.len()]).await.is_err(), "cut");
        }
        for wrong in [&b"\0"[..], b"\x02\xff\xff", b""] {
            assert!(read_request(&mut &wrong[..]).await.is_err(), "{wrong:?}");
        }
        assert!(!is_name("") && !is_name(&"x".repeat(MAX_SERVICE_NAME + 1)));
    }

    #[test]
    fn answers() {
        for (answer, result) in [
            (Answer::Accepted, Ok(())),
            (Answer::NoSuchService, Err(DialError::NoSuchService)),
            (Answer::Busy, Err(DialError::Busy)),
        ] {
            assert_eq!(Answer::check(answer.byte()), result);
        }
        assert_eq!(Answer::check(3), Err(DialError::Lost));
    }
}
