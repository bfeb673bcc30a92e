//! What the router of a shared port has to know of a datagram (RFC 7983, RFC 8489). Nothing here trusts the sender.

/// Identifies a request and its response. Made at random by who asks.
pub(super) type Transaction = [u8; 12];

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING: u16 = 1;
const USERNAME: u16 = 6;

/// What a datagram is to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A Binding request, with its attributes.
    Request(Transaction, &'a [u8]),
    /// A response to a Binding request; whether it says success.
    Response(Transaction, bool),
    /// What a DTLS client says first.
    Hello,
    /// Other DTLS, or a Binding indication: known by the address only.
    Flow,
    /// What a client and a TURN server say to each other.
    Relay,
    /// Nothing that a link could use.
    Other,
}

/// Tells what a datagram is.
pub(super) fn classify(datagram: &[u8]) -> Kind<'_> {
    match datagram.first() {
        Some(0..4) => stun(datagram).unwrap_or(Kind::Other),
        // A record of a handshake, not encrypted, and the first message of all.
        Some(22) if datagram.get(3..5) == Some(&[0, 0]) && datagram.get(13) == Some(&1) => Kind::Hello,
        Some(20..64) => Kind::Flow,
        Some(64..80) => Kind::Relay,
        _ => Kind::Other,
    }
}

fn stun(datagram: &[u8]) -> Option<Kind<'_>> {
    let (header, attributes) = datagram.split_at_checked(HEADER)?;
    if header[4..8] != COOKIE || usize::from(number(header, 2)?) != attributes.len() {
        return None;
    }
    let transaction = header[8..HEADER].try_into().ok()?;
    let kind = number(header, 0)?;
    // The two bits of the class lie between those of the method.
    let method = kind & 0xf | kind >> 1 & 0x70 | kind >> 2 & 0xf80;
    Some(match (method, kind & 0x110) {
        (BINDING, 0) => Kind::Request(transaction, attributes),
        (BINDING, 0x10) => Kind::Flow,
        (BINDING, class) => Kind::Response(transaction, class == 0x100),
        _ => Kind::Relay,
    })
}

/// The user fragment of the agent that a request is for: what stands before the colon in its USERNAME.
pub(super) fn addressee(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let (kind, length) = (number(attributes, 0)?, usize::from(number(attributes, 2)?));
        let value = attributes.get(4..4 + length)?;
        if kind == USERNAME {
            return value.split(|byte| *byte == b':').next();
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn message(kind: u16, transaction: Transaction, attributes: &[u8]) -> Vec<u8> {
        let mut message = kind.to_be_bytes().to_vec();
        message.extend((attributes.len() as u16).to_be_bytes());
        message.extend(COOKIE);
        message.extend(transaction);
        message.extend(attributes);
        message
    }

    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = kind.to_be_bytes().to_vec();
        attribute.extend((value.len() as u16).to_be_bytes());
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    pub(in super::super) fn request(transaction: Transaction, username: &str) -> Vec<u8> {
        message(1, transaction, &attribute(USERNAME, username.as_bytes()))
    }

    pub(in super::super) fn success(transaction: Transaction) -> Vec<u8> {
        message(0x101, transaction, &[])
    }

    pub(in super::super) const HELLO: &[u8] = &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

    const ID: Transaction = [7; 12];

    #[test]
    fn kinds_are_told_apart() {
        assert!(matches!(classify(&message(0x001, ID, &[])), Kind::Request(ID, [])));
        assert_eq!(classify(&message(0x011, ID, &[])), Kind::Flow);
        assert_eq!(classify(&message(0x101, ID, &[])), Kind::Response(ID, true));
        assert_eq!(classify(&message(0x111, ID, &[])), Kind::Response(ID, false));
        // Allocate, a Data indication, the error of a CreatePermission; ChannelData; a DTLS record; RTP; nothing.
        for relayed in [0x003, 0x017, 0x118] {
            assert_eq!(classify(&message(relayed, ID, &[])), Kind::Relay);
        }
        assert_eq!(classify(&[0x40, 0, 0, 0]), Kind::Relay);
        assert_eq!(classify(&[22, 254, 253]), Kind::Flow);
        assert_eq!(classify(HELLO), Kind::Hello);
        let (mut encrypted, mut answer) = (HELLO.to_vec(), HELLO.to_vec());
        (encrypted[4], answer[13]) = (1, 2);
        assert_eq!((classify(&encrypted), classify(&answer)), (Kind::Flow, Kind::Flow));
        assert_eq!(classify(&[0x80; 40]), Kind::Other);
        assert_eq!(classify(&[]), Kind::Other);
    }

    #[test]
    fn a_request_names_its_addressee() {
        let attributes = [attribute(0x24, &[1, 2, 3]), attribute(USERNAME, b"mine:theirs")].concat();
        assert_eq!(addressee(&attributes), Some(&b"mine"[..]));
        assert_eq!(addressee(&attribute(USERNAME, b"alone")), Some(&b"alone"[..]));
        assert_eq!(addressee(&attribute(USERNAME, b"")), Some(&b""[..]));
        assert_eq!(addressee(&attribute(0x24, b"mine:theirs")), None);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_is_nothing() {
        let whole = request(ID, "mine:theirs");
        for length in 0..whole.len() {
            assert_eq!(classify(&whole[..length]), Kind::Other);
        }
        let attributes = &whole[HEADER..];
        for length in 0..attributes.len() - 1 {
            assert_eq!(addressee(&attributes[..length]), None);
        }
        assert_eq!(addressee(&[0, 6, 255, 255, 1]), None);
        assert_eq!(addressee(&[0, 1, 255, 255]), None);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(mut datagram in proptest::collection::vec(any::<u8>(), 0..80), cookie: bool) {
            if cookie && datagram.len() >= 8 {
                let length = (datagram.len().saturating_sub(HEADER) as u16).to_be_bytes();
                datagram[0] &= 3;
                datagram[2..4].copy_from_slice(&length);
                datagram[4..8].copy_from_slice(&COOKIE);
            }
            if let Kind::Request(_, attributes) = classify(&datagram) {
                addressee(attributes);
            }
            addressee(&datagram);
        }
    }
}
