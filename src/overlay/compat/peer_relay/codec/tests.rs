use proptest::prelude::*;

use super::*;

const HEX: &str = "59ab0102030405060708090a0b0c0d0e0f101112";
const BUFFER: &str = r#"{"type":"Buffer","data":[89,171,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18]}"#;

fn id() -> OverlayId {
    HEX.parse().unwrap()
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

fn message(data: &str) -> ForeignMessage {
    ForeignMessage { to: id(), from: id(), path: vec![id()], nonce: "359810839182053".into(), data: raw(data) }
}

#[test]
fn ids() {
    assert_eq!(encode_id(&id()), BUFFER);
    for text in [BUFFER, &format!("\"{HEX}\""), &format!(" \"{}\"\n", HEX.to_uppercase())] {
        assert_eq!(decode_id(text), Ok(id()), "{text}");
    }
    let junk = ["", "null", "5", "{}", "[]", "\"\"", "\"59ab\"", "[1,2]", r#"{"type":"Buffer"}"#, "{", HEX];
    let wrong = [BUFFER.replace("[89,", "["), BUFFER.replace("[89", "[256"), BUFFER.replace("Buffer", "buffer")];
    for text in junk.iter().copied().chain(wrong.iter().map(String::as_str)) {
        assert_eq!(decode_id(text), Err(Malformed), "{text}");
    }
}

#[test]
fn a_message_is_written_as_the_original_writes_it() {
    let text = format!(
        r#"{{"to":"{HEX}","from":"{HEX}","path":["{HEX}"],"nonce":"359810839182053","data":{{"type":"user","data":"ü\n\u001f"}}}}"#
    );
    let read = ForeignMessage::decode(&text).unwrap();
    assert_eq!(read.encode(), text);
    let relayed = text.replacen(&format!("\"{HEX}\""), BUFFER, 2);
    assert_eq!(ForeignMessage::decode(&relayed).unwrap().encode(), text);
}

#[test]
fn what_kills_an_original_is_no_message() {
    let whole = message(r#"{"type":"user"}"#).encode();
    assert!(ForeignMessage::decode(&whole).is_ok());
    let path = format!("[\"{HEX}\"]");
    let long = format!("[{}]", vec![format!("\"{HEX}\""); MAX_FOREIGN_PATH + 1].join(","));
    let wrong = [
        String::new(),
        "null".into(),
        "5".into(),
        "{}".into(),
        "[]".into(),
        "\"x\"".into(),
        whole[1..].into(),
        format!("{whole}}}"),
        whole.replace("\"path\"", "\"paht\""),
        whole.replace(&path, "[]"),
        whole.replace(&path, "null"),
        whole.replace(&path, "[null]"),
        whole.replace(&path, &long),
        whole.replace("\"359810839182053\"", "359810839182053"),
        whole.replace("359810839182053", &"1".repeat(MAX_FOREIGN_NONCE_BYTES + 1)),
        whole.replacen(HEX, &HEX[2..], 1),
        whole.replace(r#"{"type":"user"}"#, "null"),
        whole.replace(r#","data":{"type":"user"}"#, ""),
    ];
    for text in wrong {
        assert!(ForeignMessage::decode(&text).is_err(), "{text}");
    }
}

#[test]
fn what_kills_an_original_is_not_sent_to_it() {
    let found = format!(r#"{{"type":"foundPeers","data":["{HEX}"]}}"#);
    let answer = |ws: &str| format!(r#"{{"type":"handshake-answer","data":{{"ws":{ws},"wrtc":true}}}}"#);
    let harmless = [found.clone(), answer("null"), answer(r#""ws://localhost:1""#), r#"{"type":"new"}"#.into()];
    for data in harmless {
        assert!(message(&data).is_harmless(), "{data}");
        assert!(!ForeignMessage { path: Vec::new(), ..message(&data) }.is_harmless());
    }
    let wrong = ["null".into(), "5".into(), found.replace(']', ",null]"), answer(r#""ws://a:99999/""#), answer("\"\"")];
    for data in wrong {
        assert!(!message(&data).is_harmless(), "{data}");
    }
}

#[test]
fn urls() {
    for url in ["ws://localhost:1", "wss://[::1]:1/path?query", "ws://host"] {
        assert!(is_usable(url), "{url}");
    }
    let wrong = ["", "/path", "host:1", "http://host:1", "file:///etc/passwd", "ws://", "ws://:1", "ws://a b/", "ws:a"];
    for url in wrong.into_iter().chain(["ws://host:65536/", "ws://host:x/", "ws://me:secret@host/", "ws://me@host:1/"])
    {
        assert!(!is_usable(url), "{url}");
    }
}

#[test]
fn data_is_written_as_the_original_writes_it() {
    let json = raw("[1]");
    let answer = |ws: Option<&'static str>, wrtc| {
        Data::HandshakeAnswer(Answer { ws: ws.map(Cow::Borrowed), wrtc, pmesh: false })
    };
    let cases = [
        (Data::FindPeers(id()), format!(r#"{{"type":"findPeers","data":"{HEX}"}}"#)),
        (Data::FoundPeers(vec![id()]), format!(r#"{{"type":"foundPeers","data":["{HEX}"]}}"#)),
        (Data::HandshakeOffer, r#"{"type":"handshake-offer"}"#.into()),
        (answer(None, true), r#"{"type":"handshake-answer","data":{"ws":null,"wrtc":true}}"#.into()),
        (
            answer(Some("ws://localhost:1"), false),
            r#"{"type":"handshake-answer","data":{"ws":"ws://localhost:1","wrtc":false}}"#.into(),
        ),
        (Data::Signal(&json), r#"{"type":"signal","data":[1]}"#.into()),
        (Data::User(&json), r#"{"type":"user","data":[1]}"#.into()),
    ];
    for (data, text) in cases {
        assert_eq!(data.encode().get(), text);
        let written = text.clone();
        let read = Data::decode(written.as_bytes()).unwrap().unwrap();
        assert_eq!(read.encode().get(), text);
    }
}

#[test]
fn data_that_is_unusual() {
    assert!(matches!(Data::decode(r#"{"type":"other","data":1}"#.as_bytes()), Ok(None)));
    assert!(
        matches!(Data::decode(r#"{"type":"user"}"#.as_bytes()), Ok(Some(Data::User(json))) if json.get() == "null")
    );
    let wrong = [
        "5",
        "[]",
        "\"x\"",
        "{}",
        r#"{"type":5}"#,
        r#"{"type":"findPeers"}"#,
        r#"{"type":"findPeers","data":null}"#,
        r#"{"type":"foundPeers"}"#,
        r#"{"type":"foundPeers","data":5}"#,
        r#"{"type":"handshake-answer"}"#,
        r#"{"type":"handshake-answer","data":{"ws":5}}"#,
        r#"{"type":"signal"}"#,
    ];
    for text in wrong {
        assert!(Data::decode(text.as_bytes()).is_err(), "{text}");
    }
    let url = "ws://".to_owned() + &"x".repeat(MAX_URL_BYTES);
    assert!(Data::decode(format!(r#"{{"type":"handshake-answer","data":{{"ws":"{url}"}}}}"#).as_bytes()).is_err());
}

#[test]
fn of_many_candidates_a_few_are_taken_and_junk_is_none() {
    let junk = format!(r#"{{"type":"foundPeers","data":[null,5,"zz",{{}},[[]],"{HEX}"]}}"#);
    assert!(matches!(Data::decode(junk.as_bytes()), Ok(Some(Data::FoundPeers(found))) if found == [id()]));
    let many = format!(r#"{{"type":"foundPeers","data":[{}null]}}"#, format!("\"{HEX}\",").repeat(10_000));
    assert!(matches!(Data::decode(many.as_bytes()), Ok(Some(Data::FoundPeers(found))) if found.len() == MAX_FOUND));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = decode_id(&text);
        let _ = ForeignMessage::decode(&text);
        let _ = Data::decode(text.as_bytes());
    }

    #[test]
    fn a_message_arrives_as_it_was(ids in prop::collection::vec(any::<[u8; 20]>(), 3..20), nonce in "[0-9]{1,15}", json in "\\PC{0,30}") {
        let mut ids = ids.into_iter().map(OverlayId::from_bytes);
        let (to, from) = (ids.next().unwrap(), ids.next().unwrap());
        let data = raw(&serde_json::to_string(&json).unwrap());
        let sent = ForeignMessage { to, from, path: ids.collect(), nonce, data };
        let got = ForeignMessage::decode(&sent.encode()).unwrap();
        prop_assert_eq!((got.to, got.from, &got.path, &got.nonce), (sent.to, sent.from, &sent.path, &sent.nonce));
        prop_assert_eq!(got.data.get(), sent.data.get());
    }
}
