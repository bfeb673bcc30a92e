//! The discovery protocol of BoneValue (p2p-platform): JSON texts between a peer and the directory, `{"type":…,"data":…}`.
//!
//! ```text
//! to a peer that has logged in, in this order:
//!   userAdd "Us"   setPeerId {"peerId":N}   userList [alias…]   peerList [{"name":alias,"id":N}…]
//! later:
//!   userAdd alias   peerConnect {"name":alias,"id":N}   peerDisconnect N, beside which "ended":true *   userRemove alias *
//!   peerRequest, peerResponse {"to":N,"from":N,"peer":N,"spd":{"type":…,"sdp":…},"pmesh":payload *}
//!   tokenResponse {"token":…}   error
//! to the directory:
//!   peerRequest, peerResponse   inviteUser {"email":…}   requestToken {"name":alias}   claimToken {"name":alias,"token":…}
//!   listTrusted   revokeTrust {"name":alias}   changePassword {"old":…,"new":…}   deleteAccount {"password":…}   all *
//! ```
//!
//! What is marked * the original does not know. `ended` says that the login was ended by the directory, or the trust: who it was is not
//! to be believed any more. A login whose connection is lost or closed, by either side and in whatever order, has left without that: its
//! peer may come again. Then a `peerResponse` has `"again":key` in the place of `pmesh`: so its connections of before are known. A request may carry an `id` beside type and data; then it is answered by exactly one
//! `{"type":"ok","id":…,"data":…}` or `{"type":"error","id":…,"data":{"code":…,"message":…}}`, and by nothing else.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The path of the directory on a server.
pub(crate) const PATH: &str = "/directory";

/// The WebSocket subprotocol of the directory, for those who must have one: browsers that offer their token as another.
pub(crate) const DIRECTORY_PROTOCOL: &str = "pmesh.directory.1";

/// The close code of a session whose account was closed or has another password: logging in as before will not help.
pub(crate) const ACCOUNT_CLOSED: u16 = 4001;

/// The alias under which the other logins of the same account appear.
pub(crate) const OWN_ALIAS: &str = "Us";

/// Numbers of peers are below this: JavaScript's integers end there.
const END: u64 = 1 << 53;

/// Most bytes of an alias, an account's name or an email address.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// The number that a directory gives a peer when it logs in; BoneValue calls it a peer id. It says nothing about who the peer is:
/// that the directory knows, and, between pmesh peers, their keys prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PeerNumber(u64);

impl PeerNumber {
    /// This number, if it is below 2^53.
    pub fn new(number: u64) -> Option<Self> {
        (number < END).then_some(Self(number))
    }

    /// As an integer below 2^53.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PeerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Not the number of a peer: that is an integer below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the number of a peer")]
pub struct InvalidPeerNumber;

impl FromStr for PeerNumber {
    type Err = InvalidPeerNumber;

    fn from_str(text: &str) -> Result<Self, InvalidPeerNumber> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).and_then(Self::new).ok_or(InvalidPeerNumber)
    }
}

impl<'de> Deserialize<'de> for PeerNumber {
    /// From a number, or its digits as text: the original keeps numbers as keys of objects.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64().and_then(Self::new),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| serde::de::Error::custom(InvalidPeerNumber))
    }
}

/// A peer that is there, and by which alias its user is known to the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub(crate) name: String,
    pub(crate) id: PeerNumber,
}

/// The two messages that peers have passed on to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// An offer.
    Request,
    /// An answer.
    Response,
}

impl Introduction {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "peerRequest",
            Self::Response => "peerResponse",
        }
    }
}

/// Whom an introduction is for, and from whom it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) to: PeerNumber,
    pub(crate) from: PeerNumber,
    /// One of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<PeerNumber>,
}

/// What a peer asks of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "they are called as in the protocol")]
pub(crate) enum Request<'a> {
    /// Pass this on as it is.
    Introduce { what: Introduction, route: Route, data: &'a str },
    /// A login for somebody who has none.
    InviteUser { email: String },
    /// A token for whoever is to be trusted and known by this alias.
    RequestToken { name: String },
    /// Trust whose token this is, and know them by this alias.
    ClaimToken { name: String, token: String },
    /// The aliases of all who are trusted.
    ListTrusted,
    /// Trust them no more.
    RevokeTrust { name: String },
    /// Another password.
    ChangePassword { old: String, new: String },
    /// The account is to be no more.
    DeleteAccount { password: String },
}

/// A text of a peer. It is none that we know, or its data are not what its type says: it is to be counted and, with an `id`,
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a request to a directory")]
pub(crate) struct Malformed {
    /// The `id` that came with it, if as much could be read.
    pub(crate) id: Option<u64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default)]
    ended: Option<&'a RawValue>,
}

impl Envelope<'_> {
    fn read<'a, T: Deserialize<'a>>(data: Option<&'a RawValue>) -> Option<T> {
        serde_json::from_str(data?.get()).ok()
    }
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

impl<'a> Request<'a> {
    /// Reads a text of a peer, and the `id` by which it wants an answer, if it does.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub(crate) fn parse(text: &'a str) -> Result<(Self, Option<u64>), Malformed> {
        let Envelope { kind, data, id, .. } = serde_json::from_str(text).map_err(|_| Malformed { id: None })?;
        Self::read(&kind, data).map(|request| (request, id)).ok_or(Malformed { id })
    }

    fn read(kind: &str, data: Option<&'a RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Email {
            email: String,
        }
        #[derive(Deserialize)]
        struct Claim {
            name: String,
            token: String,
        }
        #[derive(Deserialize)]
        struct Passwords {
            old: String,
            new: String,
        }
        #[derive(Deserialize)]
        struct Password {
            password: String,
        }
        let introduce = |what| {
            let route: Route = Envelope::read(data)?;
            Some(Self::Introduce { what, route, data: data?.get() })
        };
        match kind {
            "peerRequest" => introduce(Introduction::Request),
            "peerResponse" => introduce(Introduction::Response),
            "inviteUser" => Envelope::read(data).map(|Email { email }| Self::InviteUser { email }),
            "requestToken" => Envelope::read(data).map(|Name { name }| Self::RequestToken { name }),
            "claimToken" => Envelope::read(data).map(|Claim { name, token }| Self::ClaimToken { name, token }),
            "listTrusted" => Some(Self::ListTrusted),
            "revokeTrust" => Envelope::read(data).map(|Name { name }| Self::RevokeTrust { name }),
            "changePassword" => Envelope::read(data).map(|Passwords { old, new }| Self::ChangePassword { old, new }),
            "deleteAccount" => Envelope::read(data).map(|Password { password }| Self::DeleteAccount { password }),
            _ => None,
        }
    }

    /// The text, with an `id` if an answer is wanted.
    pub(crate) fn to_json(&self, id: Option<u64>) -> String {
        let (kind, data) = match self {
            Self::Introduce { what, data, .. } => return introduction(*what, data, id),
            Self::InviteUser { email } => ("inviteUser", json!({ "email": email })),
            Self::RequestToken { name } => ("requestToken", json!({ "name": name })),
            Self::ClaimToken { name, token } => ("claimToken", json!({ "name": name, "token": token })),
            Self::ListTrusted => ("listTrusted", Value::Null),
            Self::RevokeTrust { name } => ("revokeTrust", json!({ "name": name })),
            Self::ChangePassword { old, new } => ("changePassword", json!({ "old": old, "new": new })),
            Self::DeleteAccount { password } => ("deleteAccount", json!({ "password": password })),
        };
        text(kind, Some(&data), id)
    }
}

/// An introduction with these data, which are JSON, as they are.
pub(crate) fn introduction(what: Introduction, data: &str, id: Option<u64>) -> String {
    let id = id.map(|id| format!(",\"id\":{id}")).unwrap_or_default();
    format!("{{\"type\":\"{}\",\"data\":{data}{id}}}", what.name())
}

/// Why a request was turned down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// For programs, such as `expired`.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

/// What the directory says to a peer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A user whose peers may be reached.
    UserAdd(String),
    /// A user whose peers may be reached no more.
    UserRemove(String),
    /// The reader's own number.
    SetPeerId(PeerNumber),
    /// All users besides the reader's own.
    UserList(Vec<String>),
    /// All peers that are there.
    PeerList(Vec<Presence>),
    /// A peer has come.
    PeerConnect(Presence),
    /// A peer has left, or may not be seen any more.
    PeerDisconnect {
        number: PeerNumber,
        /// Whether its login was ended, or the trust: see the [module](self).
        ended: bool,
    },
    /// A peer wants to connect, or answers.
    Introduce { what: Introduction, route: Route, data: String },
    /// The token that was asked for, without an `id`.
    TokenResponse { token: String },
    /// A request with this `id` is done.
    Ok { id: u64, data: Value },
    /// A request is turned down. The original has neither `id` nor data.
    Error { id: Option<u64>, refused: Option<Refused> },
}

impl Notice {
    /// Reads a text of the directory.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| Malformed { id: None })?;
        let id = envelope.id;
        Self::read(envelope).ok_or(Malformed { id })
    }

    fn read(Envelope { kind, data, id, ended }: Envelope<'_>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            peer_id: PeerNumber,
        }
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        let introduce =
            |what| Some(Self::Introduce { what, route: Envelope::read(data)?, data: data?.get().to_owned() });
        match &*kind {
            "userAdd" => Envelope::read(data).map(Self::UserAdd),
            "userRemove" => Envelope::read(data).map(Self::UserRemove),
            "setPeerId" => Envelope::read(data).map(|Own { peer_id }| Self::SetPeerId(peer_id)),
            "userList" => Envelope::read(data).map(Self::UserList),
            "peerList" => Envelope::read(data).map(Self::PeerList),
            "peerConnect" => Envelope::read(data).map(Self::PeerConnect),
            "peerDisconnect" => {
                let ended = ended.is_some_and(|ended| ended.get() == "true");
                Envelope::read(data).map(|number| Self::PeerDisconnect { number, ended })
            }
            "peerRequest" => introduce(Introduction::Request),
            "peerResponse" => introduce(Introduction::Response),
            "tokenResponse" => Envelope::read(data).map(|Token { token }| Self::TokenResponse { token }),
            "ok" => Some(Self::Ok { id: id?, data: Envelope::read(data).unwrap_or_default() }),
            "error" => Some(Self::Error { id, refused: Envelope::read(data) }),
            _ => None,
        }
    }

    /// The text.
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::UserAdd(name) => text("userAdd", Some(name), None),
            Self::UserRemove(name) => text("userRemove", Some(name), None),
            Self::SetPeerId(number) => text("setPeerId", Some(&json!({ "peerId": number })), None),
            Self::UserList(names) => text("userList", Some(names), None),
            Self::PeerList(peers) => text("peerList", Some(peers), None),
            Self::PeerConnect(peer) => text("peerConnect", Some(peer), None),
            Self::PeerDisconnect { number, ended: false } => text("peerDisconnect", Some(number), None),
            Self::PeerDisconnect { number, ended: true } => {
                format!("{{\"type\":\"peerDisconnect\",\"data\":{number},\"ended\":true}}")
            }
            Self::Introduce { what, data, .. } => introduction(*what, data, None),
            Self::TokenResponse { token } => text("tokenResponse", Some(&json!({ "token": token })), None),
            Self::Ok { id, data } => text("ok", Some(data), Some(*id)),
            Self::Error { id, refused } => text("error", refused.as_ref(), *id),
        }
    }
}

fn text<T: Serialize + ?Sized>(kind: &str, data: Option<&T>, id: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Outgoing<'a, T: ?Sized> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a T>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    }
    serde_json::to_string(&Outgoing { kind, data, id }).expect("plain data with string keys always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(number: u64) -> PeerNumber {
        PeerNumber::new(number).unwrap()
    }

    #[test]
    fn numbers_are_integers_that_javascript_has() {
        let read = |text: &str| serde_json::from_str::<PeerNumber>(text).ok();
        assert_eq!(read("9007199254740991"), PeerNumber::new((1 << 53) - 1));
        assert_eq!(read("\"17\""), PeerNumber::new(17));
        for bad in ["9007199254740992", "-1", "1.5", "\"\"", "\"+1\"", "\"x\"", "null", "[1]", "true"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn notices_are_written_as_the_original_writes_them() {
        let bob = Presence { name: "Bob".into(), id: number(5) };
        for (notice, text) in [
            (Notice::UserAdd("Us".into()), r#"{"type":"userAdd","data":"Us"}"#),
            (Notice::SetPeerId(number(9_846_338_397_524)), r#"{"type":"setPeerId","data":{"peerId":9846338397524}}"#),
            (Notice::UserList(vec!["Bob".into(), "Dave".into()]), r#"{"type":"userList","data":["Bob","Dave"]}"#),
            (Notice::PeerList(vec![bob.clone()]), r#"{"type":"peerList","data":[{"name":"Bob","id":5}]}"#),
            (Notice::PeerConnect(bob), r#"{"type":"peerConnect","data":{"name":"Bob","id":5}}"#),
            (Notice::PeerDisconnect { number: number(5), ended: false }, r#"{"type":"peerDisconnect","data":5}"#),
            (
                Notice::PeerDisconnect { number: number(5), ended: true },
                r#"{"type":"peerDisconnect","data":5,"ended":true}"#,
            ),
            (Notice::TokenResponse { token: "==OTAw".into() }, r#"{"type":"tokenResponse","data":{"token":"==OTAw"}}"#),
            (Notice::Error { id: None, refused: None }, r#"{"type":"error"}"#),
        ] {
            assert_eq!(notice.to_json(), text);
            assert_eq!(Notice::parse(text), Ok(notice));
        }
    }

    #[test]
    fn who_has_not_been_ended_has_left() {
        for ended in ["false", "null", "1", "[true]", "{\"ended\":true}", "\"true\""] {
            let text = format!(r#"{{"type":"peerDisconnect","data":"5","ended":{ended}}}"#);
            assert_eq!(Notice::parse(&text), Ok(Notice::PeerDisconnect { number: number(5), ended: false }), "{ended}");
        }
    }

    #[test]
    fn introductions_pass_as_they_are() {
        let text =
            r#"{"type":"peerRequest","data":{"to":1,"from":"2","peer":2,"spd":{"type":"offer","sdp":"v=0"},"x":1.50}}"#;
        let (request, id) = Request::parse(text).unwrap();
        let Request::Introduce { what, route, data } = &request else { panic!("{request:?}") };
        assert_eq!((*what, id), (Introduction::Request, None));
        assert_eq!(*route, Route { to: number(1), from: number(2), peer: Some(number(2)) });
        assert!(data.ends_with(r#""x":1.50}"#));
        assert_eq!(request.to_json(None), text);
    }

    #[test]
    fn requests_come_back_as_they_were_with_their_id() {
        let requests = [
            Request::InviteUser { email: "a@example.org".into() },
            Request::RequestToken { name: "Bob".into() },
            Request::ClaimToken { name: "Bob".into(), token: "t".into() },
            Request::ListTrusted,
            Request::RevokeTrust { name: "Bob".into() },
            Request::ChangePassword { old: "a".into(), new: "b".into() },
            Request::DeleteAccount { password: "a".into() },
        ];
        for request in requests {
            for id in [None, Some(7)] {
                assert_eq!(Request::parse(&request.to_json(id)), Ok((request.clone(), id)));
            }
        }
    }

    #[test]
    fn what_is_no_request_is_told_by_its_id_if_it_has_one() {
        for (text, id) in [
            ("", None),
            ("[]", None),
            ("{}", None),
            (r#"{"type":"peerRequest"}"#, None),
            (r#"{"type":"peerRequest","data":{"to":1},"id":3}"#, Some(3)),
            (r#"{"type":"claimToken","data":{"name":"x"},"id":4}"#, Some(4)),
            (r#"{"type":"constructor","data":{}}"#, None),
        ] {
            assert_eq!(Request::parse(text), Err(Malformed { id }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = (Request::parse(&text), Notice::parse(&text));
        }
    }
}
