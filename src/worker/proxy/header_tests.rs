//! PROXY headers: by the letter of the specification, against another parser, and bounded.

use proptest::prelude::*;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

use super::*;

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

fn header(bytes: &[u8]) -> Proxied {
    match parse(bytes) {
        Parsed::Header(proxied, length) => {
            assert_eq!(length, bytes.len(), "all of it");
            proxied
        }
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0xc3, 0x50, 0, 80];

fn with_v4(additions: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&V4, additions].concat())
}

#[test]
fn text_headers_name_the_source() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.7 192.0.2.1 50000 80\r\n", address("192.0.2.7:50000")),
        ("PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", address("[2001:db8::7]:0")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN 192.0.2.7 whatever this is\r\n", None),
    ] {
        assert_eq!(header(line.as_bytes()), Proxied { source, scheme: None }, "{line:?}");
    }
    let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
    assert_eq!(longest.len(), TEXT_MAX);
    assert_eq!(header(longest.as_bytes()).source, None);
}

#[test]
fn text_headers_off_their_grammar_are_none() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.7 192.0.2.1 50000 80\r\n",
        "PROXY\tTCP4 192.0.2.7 192.0.2.1 50000 80\r\n",
        "PROXY  TCP4 192.0.2.7 192.0.2.1 50000 80\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 50000 80\n",
        "PROXY TCP4 192.0.2.7  192.0.2.1 50000 80\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 50000 80 \r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 50000\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 050000 80\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 +50000 80\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 50000 65536\r\n",
        "PROXY TCP4 192.0.2.07 192.0.2.1 50000 80\r\n",
        "PROXY TCP4 ::1 ::1 50000 80\r\n",
        "PROXY TCP6 192.0.2.7 192.0.2.1 50000 80\r\n",
        "PROXY UDP4 192.0.2.7 192.0.2.1 50000 80\r\n",
        "PROXY TCP4\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\rx\n",
        "PROXY UNKNOWN \u{e9}\n",
    ] {
        assert!(matches!(parse(line.as_bytes()), Parsed::Wrong(_)), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(TEXT_MAX - "PROXY UNKNOWN ".len()));
    assert_eq!(parse(&long.as_bytes()[..TEXT_MAX - 1]), Parsed::More);
    assert!(matches!(parse(long.as_bytes()), Parsed::Wrong(_)), "it has no room for its end");
}

#[test]
fn binary_headers_name_the_source() {
    assert_eq!(header(&with_v4(&[])).source, address("192.0.2.7:50000"));
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    v6[32..34].copy_from_slice(&50000_u16.to_be_bytes());
    assert_eq!(header(&v2(0x21, 0x21, &v6)).source, address("[2001:db8::7]:50000"));
    assert_eq!(header(&v2(0x21, 0x22, &v6)).source, address("[2001:db8::7]:50000"), "over QUIC");
    assert_eq!(header(&v2(0x21, 0x31, &[b'/'; 216])).source, None, "a unix socket");
    assert_eq!(header(&v2(0x21, 0x00, &[])).source, None);
}

#[test]
fn a_proxys_own_connection_has_no_source_whatever_it_says() {
    for family in [0x00, 0x11, 0x22, 0xff] {
        assert_eq!(header(&v2(0x20, family, &[])), Proxied::default());
        assert_eq!(header(&v2(0x20, family, &[0x20, 0, 1])), Proxied::default());
        assert_eq!(header(&v2(0x20, family, &V4)), Proxied::default());
    }
}

#[test]
fn an_addition_says_whether_the_client_came_over_tls() {
    let no_op = [0x04, 0, 2, 9, 9];
    let ssl = |flags: u8| [0x20, 0, 5, flags, 0, 0, 0, 0];
    let scheme = |additions: &[u8]| header(&with_v4(additions)).scheme;
    assert_eq!(scheme(&[]), None);
    assert_eq!(scheme(&no_op), None);
    assert_eq!(scheme(&ssl(0x01)), Some(Scheme::Https));
    assert_eq!(scheme(&[&no_op[..], &ssl(0x07), &no_op].concat()), Some(Scheme::Https));
    assert_eq!(scheme(&ssl(0x02)), Some(Scheme::Http));
}

#[test]
fn binary_headers_off_their_grammar_are_none() {
    for wrong in [
        v2(0x11, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x21, 0x10, &V4),
        v2(0x21, 0x13, &V4),
        v2(0x21, 0x41, &V4),
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x21, &V4),
        v2(0x21, 0x31, &[0; 215]),
        with_v4(&[4]),
        with_v4(&[4, 0]),
        with_v4(&[4, 0, 2, 9]),
        with_v4(&[0x20, 0, 0]),
        v2(0x20, 0x00, &[0; 4081]),
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
    ] {
        assert!(matches!(parse(&wrong), Parsed::Wrong(_)), "{}", wrong.escape_ascii());
    }
    assert_eq!(parse(&v2(0x20, 0x00, &[0; 4080])), Parsed::Header(Proxied::default(), HEADER_MAX));
    let long = v2(0x21, 0x11, &[0; 5000]);
    assert!(matches!(parse(&long[..FIXED]), Parsed::Wrong(_)), "a length is judged at once");
}

fn some_header() -> impl Strategy<Value = Vec<u8>> {
    let any_address = || (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    let pairs = (any_address(), any_address(), any::<bool>(), any::<bool>());
    let valid = pairs.prop_map(|(source, destination, is_text, is_local)| {
        let destination = match (source, destination) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
                destination
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => source,
        };
        let address = ProxiedAddress { protocol: Protocol::Stream, source, destination };
        let header =
            if is_local { ProxyHeader::with_local() } else { ProxyHeader::with_address(address) };
        let mut bytes = [0; 256];
        let length = if is_text {
            header.encode_to_slice_v1(&mut bytes)
        } else {
            header.encode_to_slice_v2(&mut bytes)
        };
        bytes[..length.expect("there is room")].to_vec()
    });
    prop_oneof![
        3 => valid,
        1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(|rest| {
            [&SIGNATURE[..], &[0x21, 0x11, 0, 32], &rest].concat()
        }),
        1 => "PROXY (TCP4|TCP6|UNKNOWN) [ -~]{0,100}(\r\n)?".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Many tries; more where `PROPTEST_CASES` says so.
fn many() -> ProptestConfig {
    let ordinary = ProptestConfig::default();
    ProptestConfig { cases: ordinary.cases.max(4096), ..ordinary }
}

proptest! {
    #![proptest_config(many())]

    /// Another parser reads the same; and it is the same whatever follows, however much
    /// of that has come.
    #[test]
    fn headers_mean_what_another_parser_takes_them_for(
        bytes in some_header(), place in any::<prop::sample::Index>(), by in 0_u8..4,
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = bytes;
        if by > 0 && !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = bytes[place].wrapping_add(by);
        }
        let parsed = parse(&bytes);
        if let Parsed::Header(proxied, length) = parsed {
            prop_assert!(length <= bytes.len() && length <= HEADER_MAX);
            let is_odd_local = bytes.get(12) == Some(&0x20) && bytes.get(13) != Some(&0);
            if !is_odd_local || bytes[0] == b'P' {
                let (theirs, taken) =
                    ProxyHeader::parse(&bytes, ParseConfig::default()).expect("they read it, too");
                prop_assert_eq!(taken, length);
                prop_assert_eq!(theirs.proxied_address().map(|address| address.source), proxied.source);
            }
            prop_assert_eq!(parse(&[&bytes, &behind[..]].concat()), parsed);
        }
        for end in 0..bytes.len() {
            match (parse(&bytes[..end]), parsed) {
                (Parsed::More, _) | (Parsed::Wrong(_), Parsed::Wrong(_)) => {}
                (early, late) => prop_assert_eq!(early, late, "at {}", end),
            }
        }
    }

    #[test]
    fn more_is_never_asked_for_beyond_the_bound(bytes in some_header(), fill in any::<u8>()) {
        let mut bytes = bytes;
        bytes.resize(HEADER_MAX.max(bytes.len()), fill);
        prop_assert_ne!(parse(&bytes), Parsed::More);
    }
}
