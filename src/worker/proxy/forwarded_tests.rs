//! Forwarding headers: what is believed of them, and that no client can make itself another.

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::config::ForwardedFields::{Forwarded, XForwarded};

/// Trusts 10.0.0.0/8 and ::1; the peer is 10.0.0.1.
fn trusted() -> Trusted {
    let text = "forwarded_allow_ips = ['10.0.0.0/8', '::1']";
    Trusted::new(&Config::from_toml(text, &[]).unwrap().forwarded_allow_ips)
}

fn peer() -> Client {
    Client::direct(Some("10.0.0.1:40000".parse().unwrap()), Scheme::Http)
}

fn found(
    family: ForwardedFields,
    fields: &[(&'static str, &[u8])],
) -> Result<Client, Contradiction> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    client(&headers, peer(), &trusted(), family)
}

/// `address scheme`, as the client behind the peer is seen, or that it is refused.
fn seen_by(family: ForwardedFields, fields: &[(&'static str, &str)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let Ok(client) = found(family, &fields) else { return "contradiction".to_owned() };
    assert_eq!(client.peer(), peer().peer(), "the peer stays who it is");
    let address = client.address().map_or("-".to_owned(), |address| address.to_string());
    format!("{address} {}", client.scheme())
}

fn seen(fields: &[(&'static str, &str)]) -> String {
    seen_by(XForwarded, fields)
}

fn addresses(value: &str) -> String {
    seen(&[("x-forwarded-for", value)])
}

fn standard(value: &str) -> String {
    seen_by(Forwarded, &[("forwarded", value)])
}

const PEER: &str = "10.0.0.1 http";

#[test]
fn peers_are_trusted_by_their_network() {
    let trusted = trusted();
    for (peer, is) in [("10.9.9.9:1", true), ("[::ffff:10.1.1.1]:1", true), ("11.0.0.1:1", false)] {
        assert_eq!(trusted.has_peer(Some(peer.parse().unwrap())), is, "{peer}");
    }
    assert!(trusted.has_peer(None), "a unix socket");
}

#[test]
fn the_last_address_that_is_not_trusted_is_the_client() {
    assert_eq!(seen(&[]), PEER);
    assert_eq!(addresses("192.0.2.7"), "192.0.2.7 http");
    assert_eq!(addresses("198.51.100.1, 192.0.2.7"), "192.0.2.7 http", "the first is hearsay");
    assert_eq!(addresses("198.51.100.1,192.0.2.7 , 10.0.0.2,10.0.0.3"), "192.0.2.7 http");
    assert_eq!(addresses("10.0.0.2, 10.0.0.3"), "10.0.0.2 http", "all of them are trusted");
    let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "192.0.2.7, 10.0.0.2")];
    assert_eq!(seen(&lines), "192.0.2.7 http", "two fields are one list");
    assert_eq!(addresses("garbage, 192.0.2.7"), "192.0.2.7 http", "hearsay is not even read");
}

#[test]
fn addresses_come_in_several_shapes() {
    for (value, address) in [
        ("192.0.2.7:1234", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:1234", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (",, 192.0.2.7 ,", "192.0.2.7"),
        ("unknown", "-"),
        ("192.0.2.7, Unknown, 10.0.0.2", "-"),
    ] {
        assert_eq!(addresses(value), format!("{address} http"), "{value}");
    }
}

#[test]
fn what_is_malformed_is_not_believed_in_part() {
    for value in [
        "",
        " ",
        "192.0.2",
        "192.0.2.7.1",
        "192.0.2.07",
        "192.0.2.7:",
        "192.0.2.7:x",
        "a.example",
        "[192.0.2.7]",
        "[2001:db8::7",
        "2001:db8::7]",
        "192.0.2.7 192.0.2.8",
        "\"192.0.2.7\"",
        "192.0.2.7;10.0.0.2",
        "_hidden",
        "192.0.2.7, _hidden, 10.0.0.2",
    ] {
        assert_eq!(addresses(value), PEER, "{value:?}");
    }
}

#[test]
fn the_scheme_is_the_clients_own() {
    let both = |addresses, schemes| {
        seen(&[("x-forwarded-for", addresses), ("x-forwarded-proto", schemes)])
    };
    assert_eq!(seen(&[("x-forwarded-proto", "https")]), "10.0.0.1 https");
    assert_eq!(both("192.0.2.7", "HTTPS"), "192.0.2.7 https");
    assert_eq!(both("192.0.2.7", "http"), "192.0.2.7 http");
    assert_eq!(both("192.0.2.7, 10.0.0.2", "https"), "192.0.2.7 https", "one for all");
    assert_eq!(both("192.0.2.7, 10.0.0.2", "https, http"), "192.0.2.7 https", "one for each");
    assert_eq!(both("1.1.1.1, 192.0.2.7, 10.0.0.2", "https,http,https"), "192.0.2.7 http");
    assert_eq!(both("192.0.2.7", "https, https"), "192.0.2.7 https", "they agree");
    for (addresses, schemes) in [
        ("192.0.2.7", "https, http"),
        ("192.0.2.7, 10.0.0.2", "https, http, https"),
        ("", "http,https"),
        ("garbage, 10.0.0.2, 10.0.0.3", "http,https"),
    ] {
        assert_eq!(both(addresses, schemes), "contradiction", "{addresses:?} {schemes:?}");
    }
    let lines = [("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")];
    assert_eq!(seen(&lines), "contradiction", "two fields are one list");
    for wrong in ["", "wss", "https;", "https http", "on"] {
        assert_eq!(both("192.0.2.7", wrong), "192.0.2.7 http", "{wrong:?}");
    }
    assert_eq!(both("garbage", "https"), "10.0.0.1 https", "each for itself");
}

#[test]
fn the_standard_field_is_read_by_its_grammar() {
    for (value, expected) in [
        ("for=192.0.2.7", "192.0.2.7 http"),
        ("For=192.0.2.7;Proto=HTTPS", "192.0.2.7 https"),
        ("for=\"192.0.2.7:4711\"; proto=https ; by=10.0.0.1;host=a", "192.0.2.7 https"),
        ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17 http"),
        ("for=\"[2001:db8:cafe::17]\";proto=https", "2001:db8:cafe::17 https"),
        ("for=1.1.1.1;proto=https, for=192.0.2.7 ,for=10.0.0.2;proto=https", "192.0.2.7 http"),
        ("for=\"1\\92.0.2.7\"", "192.0.2.7 http"),
        ("for=\"_x:_y\";proto=https", "- https"),
        ("for=unknown", "- http"),
        ("for=192.0.2.7, for=_hidden, for=10.0.0.2", "- http"),
        ("proto=https", "10.0.0.1 https"),
        (";;for=192.0.2.7;;, ,", "192.0.2.7 http"),
        ("for=192.0.2.7;secret=\"a,b;for=9.9.9.9\"", "192.0.2.7 http"),
    ] {
        assert_eq!(standard(value), expected, "{value}");
    }
}

#[test]
fn a_standard_field_off_its_grammar_is_nothing() {
    for value in [
        "for",
        "for=",
        "for=192.0.2.7:80",
        "for=[2001:db8::7]",
        "for=\"2001:db8::7\"",
        "=1.1.1.1",
        "for=192.0.2.7;for=192.0.2.7",
        "for=\"192.0.2.7",
        "for=\"192.0.2.7\"x",
        "for=192.0.2.7 x",
        "for =192.0.2.7",
        "for= 192.0.2.7",
        "for=192.0.2.7;proto=gopher",
        "192.0.2.7",
        "for=_",
        "for=\"192.0.2.7:99999\"",
        "for=\"192.0.2.7:+80\"",
        "for=\"192.0.2.7\\",
        "for=\"_h?\"",
        "for=192.0.2.7\u{7f}",
        "for=\"\", for=192.0.2.7;proto=\"",
        "for=\", for=192.0.2.7",
    ] {
        let fields = [("forwarded", value.replace('\u{7f}', "\\"))];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(seen_by(Forwarded, &fields), PEER, "{value:?}");
    }
    for value in [
        "for=192.0.2.7;for=192.0.2.8",
        "for=192.0.2.7;proto=http;Proto=https",
        "for=192.0.2.7;FOR=_hidden, for=10.0.0.2",
    ] {
        assert_eq!(standard(value), "contradiction", "{value:?}");
    }
}

/// A proxy sees to one family, and may pass on the other as its client made it up.
#[test]
fn one_family_is_believed_and_the_other_ignored() {
    for (standard, addresses, schemes) in [
        ("for=203.0.113.9;proto=http", "192.0.2.7", "https"),
        ("for=127.0.0.1", "192.0.2.7", "https"),
        ("gibberish", "192.0.2.7", "https"),
        ("for=192.0.2.8;for=192.0.2.9", "192.0.2.7", "https"),
    ] {
        let fields = [
            ("forwarded", standard),
            ("x-forwarded-for", addresses),
            ("x-forwarded-proto", schemes),
        ];
        assert_eq!(seen(&fields), "192.0.2.7 https", "{standard}");
    }
    for (addresses, schemes) in
        [("203.0.113.9", "http"), ("gibberish", ""), ("203.0.113.9", "http, https")]
    {
        let fields = [
            ("forwarded", "for=192.0.2.7;proto=https"),
            ("x-forwarded-for", addresses),
            ("x-forwarded-proto", schemes),
        ];
        assert_eq!(seen_by(Forwarded, &fields), "192.0.2.7 https", "{addresses}");
    }
    assert_eq!(seen(&[("forwarded", "for=192.0.2.7;proto=https")]), PEER);
    assert_eq!(seen_by(Forwarded, &[("x-forwarded-for", "192.0.2.7")]), PEER);
}

#[test]
fn a_peer_that_trusts_everybody_gets_the_first_address() {
    let everybody = Config::from_toml("forwarded_allow_ips = '*'", &[]).unwrap();
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", HeaderValue::from_static("198.51.100.1, 192.0.2.7"));
    let trusted = Trusted::new(&everybody.forwarded_allow_ips);
    let client = client(&headers, peer(), &trusted, XForwarded).unwrap();
    assert_eq!(client.address(), Some("198.51.100.1".parse().unwrap()));
}

/// The values that a header field may hold, biased to what these fields are made of.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "for=",
            "proto=",
            "by=",
            "https",
            "http",
            "192.0.2.99",
            "10.0.0.9",
            "\"",
            "\\",
            ",",
            ";",
            "[2001:db8::9]",
            ":80",
            "unknown",
            "_x",
            " ",
            "=",
            "for=10.0.0.9,",
            "For=\"",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(0x20_u8..0x7f, 0..6),
        proptest::collection::vec(0x80_u8..=0xff, 0..3),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Many tries; more where `PROPTEST_CASES` says so.
fn many() -> ProptestConfig {
    let ordinary = ProptestConfig::default();
    ProptestConfig { cases: ordinary.cases.max(4096), ..ordinary }
}

proptest! {
    #![proptest_config(many())]

    /// A proxy that sees to `X-Forwarded-*`: whatever the client sends, it is seen as itself.
    #[test]
    fn nobody_becomes_another_behind_a_proxy_of_the_old_kind(
        evil in value(), standard in proptest::option::of(value()), apart in any::<bool>(),
    ) {
        let real: &[u8] = b"198.51.100.7, 10.0.0.2";
        let joined = [&evil[..], b", ", real].concat();
        let mut fields = vec![("x-forwarded-proto", &b"http"[..])];
        if apart {
            fields.extend([("x-forwarded-for", &evil[..]), ("x-forwarded-for", real)]);
        } else {
            fields.push(("x-forwarded-for", &joined));
        }
        if let Some(standard) = &standard {
            fields.push(("forwarded", standard));
        }
        let client = found(XForwarded, &fields).unwrap();
        prop_assert_eq!(client.address(), Some("198.51.100.7".parse().unwrap()));
        prop_assert_eq!(client.scheme(), Scheme::Http);
    }

    /// The same for one that sees to `Forwarded`: or as the peer, or refused, where it has broken the
    /// grammar of the one field that the proxy has added to.
    #[test]
    fn nobody_becomes_another_behind_a_proxy_of_the_new_kind(
        evil in value(), other in proptest::option::of(value()), apart in any::<bool>(),
    ) {
        let real: &[u8] = b"for=198.51.100.7;proto=http, for=10.0.0.2";
        let joined = [&evil[..], b", ", real].concat();
        let mut fields = if apart {
            vec![("forwarded", &evil[..]), ("forwarded", real)]
        } else {
            vec![("forwarded", &joined[..])]
        };
        if let Some(other) = &other {
            fields.extend([("x-forwarded-for", &other[..]), ("x-forwarded-proto", &other[..])]);
        }
        let own = Some("198.51.100.7".parse().unwrap());
        match found(Forwarded, &fields) {
            Ok(client) => {
                prop_assert!(client.address() == own || !apart && client == peer(), "{client:?}");
                prop_assert_eq!(client.scheme(), Scheme::Http);
            }
            Err(Contradiction) => prop_assert!(!apart),
        }
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic(
        standard in value(), addresses in value(), schemes in value(),
    ) {
        let fields = [
            ("forwarded", &standard[..]),
            ("x-forwarded-for", &addresses),
            ("x-forwarded-proto", &schemes),
        ];
        for family in [XForwarded, Forwarded] {
            for at in 0..3 {
                let _either = found(family, &fields[at..=at]);
            }
            let _either = found(family, &fields);
        }
    }
}
