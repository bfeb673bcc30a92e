//! Why a server has opened no WebSocket, and what it says about that. Pure.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};

use crate::error::{CloseReason, Denied};

/// Most characters of a sentence.
const MAX_WHY: usize = 200;
/// Fewest characters of a secret: what is shorter stands in many a sentence.
const MIN_SECRET: usize = 4;
/// Most letters of a word for programs. A longer one is none of ours.
const MAX_CODE: usize = 32;

/// Why there is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Turned {
    /// The server has said no.
    #[error("{denied}")]
    Away {
        denied: Denied,
        /// When to try again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The server has answered by a status below 400: what is asked for is not there. Redirections are not followed.
    #[error("the server answers with status {status} and opens no WebSocket")]
    Elsewhere { status: u16 },
    /// What the server answers is no WebSocket; the text says how that showed.
    #[error("{0}")]
    NoWebSocket(String),
    /// Nothing was answered, or nothing was asked; the text says why.
    #[error("{0}")]
    Failed(String),
}

impl Turned {
    /// What has come of a request to this URL, with this value for `Authorization`.
    pub(super) fn new(error: Error, url: &str, authorization: Option<&str>) -> Self {
        match error {
            Error::Http(response) if response.status().as_u16() < 400 => {
                Self::Elsewhere { status: response.status().as_u16() }
            }
            Error::Http(response) => {
                let retry_after = header(&response, &RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
                let denied = denied(&response, |text| is_repeated(text, url, authorization));
                Self::Away { denied, retry_after: retry_after.map(Duration::from_secs) }
            }
            Error::Url(UrlError::UnsupportedUrlScheme) => {
                Self::Failed("the URL begins neither with ws:// nor with wss://".to_owned())
            }
            Error::Protocol(_) => Self::NoWebSocket(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<Turned> for CloseReason {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Away { denied, .. } => Self::Denied(denied),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn header<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// What is said in as much of the body as has come with the head: JSON with a code and a sentence, as by our servers, or plain text.
fn denied(response: &Response, is_secret: impl Fn(&str) -> bool) -> Denied {
    let body = response.body().as_deref().unwrap_or_default();
    let is_plain = header(response, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/plain"));
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = if is_plain { Some(String::from_utf8_lossy(body)) } else { json["message"].as_str().map(Cow::from) };
    let is_word =
        |code: &&str| (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    let code = json["code"].as_str().filter(is_word).filter(|code| !is_secret(code));
    let why = text.filter(|text| !is_secret(text)).map(|text| one_line(&text)).filter(|why| !why.is_empty());
    Denied {
        status: response.status().as_u16(),
        code: code.map(str::to_owned),
        why: why.unwrap_or_else(|| response.status().canonical_reason().unwrap_or_default().to_owned()),
    }
}

/// Whether a text has something of the credentials or of the query: servers repeat what they were asked for.
fn is_repeated(text: &str, url: &str, authorization: Option<&str>) -> bool {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    let credentials = authorization.and_then(|value| value.split(' ').next_back());
    values.chain(credentials).any(|secret| secret.len() >= MIN_SECRET && text.contains(secret))
}

/// As a part of a sentence: without blanks that are none, and without the dot at its end.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    line.trim_end_matches(['.', ' ']).chars().take(MAX_WHY).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::error::ProtocolError;

    use super::*;

    fn answered(status: u16, kind: &'static str, body: &[u8]) -> Error {
        let mut response = Response::new(Some(body.to_vec()));
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().insert(CONTENT_TYPE, kind.try_into().unwrap());
        response.headers_mut().insert(RETRY_AFTER, "7".try_into().unwrap());
        Error::Http(response.into())
    }

    fn away(status: u16, kind: &'static str, body: &[u8]) -> Denied {
        let turned = Turned::new(answered(status, kind, body), "ws://host/?token=T0pS&x#part", Some("Basic c2VjcmV0"));
        let Turned::Away { denied, retry_after } = turned else { panic!("{turned:?}") };
        assert_eq!((denied.status, retry_after), (status, Some(Duration::from_secs(7))));
        assert_eq!(
            CloseReason::from(Turned::Away { denied: denied.clone(), retry_after }),
            CloseReason::Denied(denied.clone())
        );
        denied
    }

    #[test]
    fn what_a_server_says_is_told_in_one_line() {
        let json = "application/json";
        for (status, kind, body, code, why) in [
            (401, json, r#"{"code":"noCredentials","message":"Log in first."}"#, Some("noCredentials"), "Log in first"),
            (403, json, r#"{"code":"two words","message":7}"#, None, "Forbidden"),
            (403, json, r#"{"code":403,"message":"No."}"#, None, "No"),
            (403, json, r#"{"code":"","message":"."}"#, None, "Forbidden"),
            (404, json, r#"{"message":"no route GET:/?token=T0pS"}"#, None, "Not Found"),
            (403, json, r#"{"code":"c2VjcmV0","message":"you are c2VjcmV0"}"#, None, "Forbidden"),
            (401, json, r#"{"code":"noCreden"#, None, "Unauthorized"),
            (429, "text/plain; charset=utf-8", "There are\r\n too many.\n", None, "There are too many"),
            (502, "text/html", "<html>\n", None, "Bad Gateway"),
            (500, "text/plain", "\x1b[2J\x07\u{9b}beep\u{85}\0 .", None, "[2J beep"),
            (599, "text/plain", " \n", None, ""),
        ] {
            let denied = away(status, kind, body.as_bytes());
            assert_eq!((denied.code.as_deref(), &*denied.why), (code, why), "{body}");
        }
        assert_eq!(away(401, json, b"").to_string(), "the server answers with status 401: Unauthorized");
        assert_eq!(away(599, json, b"").to_string(), "the server answers with status 599");
    }

    #[test]
    fn what_is_no_denial_fails() {
        for status in [200, 302] {
            let turned = Turned::new(answered(status, "text/plain", b"there"), "ws://host", None);
            assert_eq!(turned, Turned::Elsewhere { status });
            let CloseReason::Failed(why) = turned.into() else { panic!("not failed") };
            assert!(why.contains(&status.to_string()), "{why}");
        }
        let turned = Turned::new(Error::Protocol(ProtocolError::HandshakeIncomplete), "ws://host", None);
        assert!(matches!(&turned, Turned::NoWebSocket(_)));
        assert!(matches!(turned.into(), CloseReason::Failed(_)));
        assert!(matches!(Turned::new(Error::AttackAttempt, "ws://host", None), Turned::Failed(_)));
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_short_and_shown_as_it_is(
            json in any::<bool>(), code in ".{0,40}", text in "(\\PC|\\pC){0,400}", bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let body = if json { serde_json::json!({ "code": code, "message": text }).to_string().into_bytes() } else { bytes };
            for kind in ["application/json", "text/plain"] {
                let denied = away(500, kind, &body);
                prop_assert!(denied.why.chars().count() <= MAX_WHY && !denied.why.contains(char::is_control));
                prop_assert!(denied.code.is_none_or(|code| code.len() <= MAX_CODE));
            }
        }
    }
}
