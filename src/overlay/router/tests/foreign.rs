use bytes::Bytes;
use serde_json::value::RawValue;

use super::super::*;
use super::net::*;

/// 1 and 4 are originals; 2 and 3 are between them.
fn net() -> Net {
    let mut net = Net::new();
    net.config.compat = true;
    net.add(2);
    net.add(3);
    net.link(2, 3);
    net.with(2, |router, now| router.neighbour_up(id(1), None, now));
    net.with(3, |router, now| router.neighbour_up(id(4), None, now));
    net.run(SECOND);
    net.take_told();
    net
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn message(to: usize, from: usize, path: &[usize], nonce: &str) -> ForeignMessage {
    let path = path.iter().copied().map(id).collect();
    ForeignMessage { to: id(to), from: id(from), path, nonce: nonce.to_owned(), data: raw(r#"{"b":1.0,"a":"é"}"#) }
}

fn foreign(at: usize, to: usize, path: &[usize], nonce: &str, data: &str) -> (usize, Told) {
    (at, Told::Foreign { to, path: path.to_vec(), nonce: nonce.to_owned(), data: data.to_owned() })
}

const DATA: &str = r#"{"b":1.0,"a":"é"}"#;

#[test]
fn from_an_original_to_another() {
    let mut net = net();
    net.with(2, |router, now| router.receive_foreign(&id(1), message(4, 1, &[1], "359810839182053"), now));
    net.run(SECOND);
    assert_eq!(net.take_told(), [foreign(3, 4, &[1, 2, 3], "359810839182053", DATA)]);
    // Once each, whichever way it comes.
    net.with(2, |router, now| router.receive_foreign(&id(1), message(4, 1, &[1], "359810839182053"), now));
    net.with(3, |router, now| router.receive_foreign(&id(4), message(1, 1, &[1], "359810839182053"), now));
    net.run(SECOND);
    assert_eq!((net.take_told(), net.counters(2).duplicates), (vec![], 1));
}

#[test]
fn from_an_original_to_us_and_back() {
    let mut net = net();
    net.with(2, |router, now| router.receive_foreign(&id(1), message(3, 1, &[1], "1"), now));
    net.run(SECOND);
    let body = Bytes::from_static(DATA.as_bytes());
    assert_eq!(net.take_told(), [(3, Told::Delivered { from: 1, verified: false, kind: Kind::Foreign, body })]);
    net.with(3, |router, now| router.send_foreign(id(1), raw("[1]"), now)).unwrap();
    net.run(SECOND);
    let told = net.take_told();
    assert!(
        matches!(&told[..], [(2, Told::Foreign { to: 1, path, nonce, data })]
            if path == &[3, 2] && data == "[1]" && nonce.parse::<u64>().unwrap() < 1 << 53),
        "{told:?}"
    );
}

#[test]
fn a_message_to_an_original_goes_in_its_way() {
    let mut net = net();
    let json = Bytes::from_static(br#"{"hello":1}"#);
    for _ in 0..2 {
        net.with(2, |router, now| router.send(id(4), Kind::Json, json.clone(), None, now)).unwrap();
        net.run(SECOND);
        let told = net.take_told();
        assert!(
            matches!(&told[..], [(3, Told::Foreign { to: 4, data, .. })]
                if data == r#"{"type":"user","data":{"hello":1}}"#),
            "{told:?}"
        );
    }
    // To one that is a neighbour, without a question.
    net.with(2, |router, now| router.send(id(1), Kind::Json, json.clone(), None, now)).unwrap();
    assert!(matches!(&net.take_told()[..], [(2, Told::Foreign { to: 1, .. })]));

    let confirm = Some(SECOND);
    for (kind, confirm) in [(Kind::Binary, None), (Kind::Stream, None), (Kind::Json, confirm)] {
        let send = net.with(2, |router, now| router.send(id(4), kind, json.clone(), confirm, now)).unwrap();
        net.run(SECOND);
        assert_eq!(net.take_told(), [(2, Told::Failed(send, SendFailure::Original))]);
    }
    net.with(2, |router, now| router.send(id(4), Kind::Json, Bytes::from_static(b"{"), None, now)).unwrap();
    assert!(matches!(&net.take_told()[..], [(2, Told::Failed(_, SendFailure::Original))]));
}

#[test]
fn long_paths_and_large_messages_are_dropped() {
    let mut net = net();
    let path: Vec<usize> = (100..120).collect();
    net.with(2, |router, now| router.receive_foreign(&id(1), message(4, 1, &path, "1"), now));
    net.with(2, |router, now| router.receive_foreign(&id(1), message(4, 1, &path[1..], "2"), now));
    net.run(SECOND);
    assert_eq!(net.take_told(), [], "the last hop would be the 21st");
    net.with(2, |router, now| router.receive_foreign(&id(1), message(4, 1, &path[2..], "3"), now));
    net.run(SECOND);
    assert_eq!(net.take_told().len(), 1);
    let long = ForeignMessage { nonce: "1".repeat(MAX_FOREIGN_NONCE_BYTES + 1), ..message(4, 1, &[], "") };
    let large = ForeignMessage { data: raw(&"1".repeat(MAX_FOREIGN_BYTES + 1)), ..message(4, 1, &[], "4") };
    let longer = ForeignMessage { path: vec![id(9); MAX_FOREIGN_PATH + 1], ..message(4, 1, &[], "5") };
    for message in [long, large, longer] {
        net.with(2, |router, now| router.receive_foreign(&id(1), message, now));
    }
    assert_eq!((net.take_told(), net.counters(2).malformed), (vec![], 3));
    // The largest fits.
    let largest = ForeignMessage { data: raw(&"1".repeat(MAX_FOREIGN_BYTES)), ..message(4, 1, &path[2..], "6") };
    net.with(2, |router, now| router.receive_foreign(&id(1), largest, now));
    net.run(SECOND);
    assert_eq!(net.take_told().len(), 1);
}

#[test]
fn an_original_cannot_speak_for_a_peer() {
    let mut net = net();
    net.with(2, |router, now| router.receive_foreign(&id(1), message(3, 2, &[], "1"), now));
    net.with(2, |router, now| router.receive_foreign(&id(1), message(2, 3, &[], "2"), now));
    net.run(SECOND);
    assert!(matches!(net.take_told()[..], [(2, Told::Delivered { verified: false, .. })]));
    // And its link is for foreign messages only.
    net.with(2, |router, now| router.receive(&id(1), Bytes::from_static(&[wire::PING]), now));
    net.with(2, |router, now| router.receive_foreign(&id(3), message(2, 3, &[], "3"), now));
    assert_eq!((net.take_told(), net.counters(2).malformed), (vec![], 2));
}

#[test]
fn only_where_originals_are_wanted() {
    let mut net = Net::line(2..4);
    net.with(2, |router, now| router.neighbour_up(id(1), None, now));
    net.with(2, |router, now| router.receive_foreign(&id(1), message(3, 1, &[1], "1"), now));
    let head = Head {
        hops: 9,
        hop: 0,
        mode: Mode::Foreign,
        confirm: false,
        closest: false,
        purpose: Purpose::User(Kind::Foreign),
        nonce: [0; 12],
        to: id(3),
        from: id(1),
    };
    let packet = head.open(&wire::foreign("1", &[], "1"));
    net.with(3, |router, now| router.receive(&id(2), packet, now));
    assert_eq!((net.counters(2).foreign, net.counters(3).foreign), (1, 1));
    let refused = net.with(2, |router, now| router.send_foreign(id(1), raw("1"), now));
    assert_eq!(refused, Err(SendRefused::Foreign));
    let send = net.with(2, |router, now| router.send(id(1), Kind::Json, Bytes::from_static(b"1"), None, now)).unwrap();
    assert_eq!(net.take_told(), [(2, Told::Failed(send, SendFailure::Original))]);
}

/// To whom and what 2 sends in the way of originals, of what was told.
fn to_originals(told: &[(usize, Told)]) -> Vec<usize> {
    told.iter().filter_map(|(_, told)| if let Told::Foreign { to, .. } = told { Some(*to) } else { None }).collect()
}

#[test]
fn to_whom_nobody_is_closer_it_goes_as_originals_send_it() {
    let mut net = net();
    for original in [5, 6] {
        net.with(2, |router, now| router.neighbour_up(id(original), None, now));
    }
    net.take_told();
    // Not back, not to whom it comes from, and to two originals at most.
    net.with(2, |router, now| router.receive_foreign(&id(1), message(9, 7, &[7, 1], "1"), now));
    net.run(SECOND);
    let mut all = to_originals(&net.take_told());
    all.sort_unstable();
    assert_eq!(all, [4, 5, 6]);
    // Where it was last heard of comes first, whatever is closer.
    for (last, nonce) in [(5, "2"), (6, "3"), (1, "4")] {
        net.with(2, |router, now| router.receive_foreign(&id(last), message(2, 9, &[9, last], nonce), now));
        net.run(SECOND);
        net.take_told();
        net.with(2, |router, now| router.send_foreign(id(9), raw("1"), now)).unwrap();
        assert_eq!(to_originals(&net.take_told())[0], last);
        net.run(SECOND);
        net.take_told();
    }
}

#[test]
fn peers_that_are_no_originals_do_not_multiply_a_message() {
    let mut net = Net::new();
    net.config.compat = true;
    for peer in 2..20 {
        net.add(peer);
    }
    for peer in 2..20 {
        for other in 2..peer {
            net.link(peer, other);
        }
    }
    net.with(2, |router, now| router.neighbour_up(id(1), None, now));
    net.run(SECOND);
    net.with(2, |router, now| router.receive_foreign(&id(1), message(99, 1, &[1], "1"), now));
    net.run(SECOND);
    let sent: u64 = (2..20).map(|peer| net.counters(peer).forwarded).sum();
    assert!((1..20).contains(&sent), "{sent}");
}

#[test]
fn one_whose_key_is_known_is_not_looked_for_among_originals() {
    let mut net = net();
    net.add(7);
    net.link(3, 7);
    net.run(SECOND);
    let json = Bytes::from_static(b"1");
    net.with(2, |router, now| router.send(id(7), Kind::Json, json.clone(), None, now)).unwrap();
    net.run(SECOND);
    assert!(matches!(net.take_told()[..], [(7, Told::Delivered { verified: true, .. })]));
    // An original claims that it is behind it.
    net.with(2, |router, now| router.receive_foreign(&id(1), message(2, 7, &[7, 1], "1"), now));
    net.with(2, |router, _| router.named(id(7), id(1)));
    net.run(SECOND);
    net.take_told();
    net.with(2, |router, now| router.send(id(7), Kind::Json, json.clone(), None, now)).unwrap();
    net.run(SECOND);
    assert!(matches!(net.take_told()[..], [(7, Told::Delivered { verified: true, .. })]));
    net.cut(2, 3);
    net.run(SECOND);
    net.take_told();
    let send = net.with(2, |router, now| router.send(id(7), Kind::Json, json, None, now)).unwrap();
    net.run(SECOND);
    assert_eq!(net.take_told(), [(2, Told::Failed(send, SendFailure::NoRoute))]);
}

#[test]
fn where_all_neighbours_are_originals_one_of_them_is_asked_at_once() {
    let mut net = Net::new();
    net.config.compat = true;
    net.add(2);
    net.with(2, |router, now| router.neighbour_up(id(1), None, now));
    net.take_told();
    let json = Bytes::from_static(b"1");
    net.with(2, |router, now| router.send(id(9), Kind::Json, json.clone(), None, now)).unwrap();
    assert!(matches!(&net.take_told()[..], [(2, Told::Foreign { to: 1, .. })]));
    for (kind, confirm) in [(Kind::Binary, None), (Kind::Json, Some(SECOND))] {
        let send = net.with(2, |router, now| router.send(id(9), kind, json.clone(), confirm, now)).unwrap();
        assert_eq!(net.take_told(), [(2, Told::Failed(send, SendFailure::NoRoute))]);
    }
}

#[test]
fn an_original_behind_an_original_is_found_by_whom_it_was_named_to() {
    let mut net = net();
    net.with(3, |router, _| router.named(id(9), id(4)));
    let json = Bytes::from_static(b"1");
    net.with(2, |router, now| router.send(id(9), Kind::Json, json, None, now)).unwrap();
    net.run(SECOND);
    assert!(to_originals(&net.take_told()).contains(&4));
}
