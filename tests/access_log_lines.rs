//! Whatever the format and whatever the client: a line of the access log is one line.
//!
//! `PROPTEST_CASES` says how many tries there are; `./check fuzz` makes many.

use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use ferricorn::Slot;
use ferricorn::bench::{AccessFormat, AccessWriter, Field, Outcome, Record};
use proptest::prelude::*;

/// Every atom there is, and what is no atom.
const PIECES: &[&str] = &[
    "%(h)s",
    "%(l)s",
    "%(u)s",
    "%(t)s",
    "%(r)s",
    "%(s)s",
    "%(b)s",
    "%(f)s",
    "%(a)s",
    "%(m)s",
    "%(U)s",
    "%(q)s",
    "%(H)s",
    "%(B)s",
    "%(T)s",
    "%(M)s",
    "%(D)s",
    "%(L)s",
    "%(p)s",
    "%({x-mark}i)s",
    "%({x-mark}o)s",
    "%({request_id}e)s",
    "%({outcome}e)s",
    "%({slot}e)s",
    "%%",
    "\"",
    "\\",
    " ",
    "[x]",
];

fn format() -> impl Strategy<Value = String> {
    let text = proptest::collection::vec(proptest::sample::select(PIECES), 1..30);
    prop_oneof![4 => text.prop_map(|pieces| pieces.concat()), 1 => Just("json".to_owned())]
}

/// Any value that a header can have.
fn value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, Just(b'"'), Just(b'\\'), 0x80..=0xff_u8];
    let bytes = (proptest::collection::vec(byte, 0..80), 1..300_usize);
    bytes.prop_filter_map("not a value", |(bytes, times)| {
        HeaderValue::from_bytes(&bytes.repeat(times)).ok()
    })
}

fn headers() -> impl Strategy<Value = Vec<Field>> {
    let name = proptest::sample::select(vec!["authorization", "referer", "user-agent", "x-mark"]);
    proptest::collection::vec((name, value()), 0..6).prop_map(|fields| {
        let fields = fields.into_iter();
        fields.map(|(name, value)| (HeaderName::from_static(name), value)).collect()
    })
}

fn target() -> impl Strategy<Value = Uri> {
    let byte = prop_oneof![Just(b'!'), 0x23..=0x3b_u8, Just(b'\\'), 0x3f..=0x7e_u8, 0x80..=0xff_u8];
    proptest::collection::vec(byte, 0..60)
        .prop_map(|bytes| [b"/", bytes.as_slice()].concat())
        .prop_filter_map("not a target", |bytes| Uri::from_maybe_shared(bytes).ok())
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("it has three digits")
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Aborted(None)),
        Just(Outcome::Lost(None)),
        (100..600_u16).prop_map(|code| Outcome::Aborted(Some(status(code)))),
        (100..600_u16).prop_map(|code| Outcome::Status(status(code))),
        (400..500_u16).prop_map(|code| Outcome::Unread(status(code))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_one_line(
        format in format(),
        method in "[A-Za-z!#$%&'*+.^_`|~-]{1,20}",
        target in target(),
        (request, response) in (headers(), headers()),
        outcome in outcome(),
        (id, remote) in (proptest::option::of("\\PC*|[\\x00-\\x7f]{0,40}"), any::<Option<[u8; 16]>>()),
        (bytes, millis, micros) in (any::<u64>(), 0..4_000_000_000_000_u64, any::<u32>()),
    ) {
        let compiled = AccessFormat::compile(&format).expect("it is made of valid pieces");
        let method = Method::from_bytes(method.as_bytes()).expect("a token");
        let record = Record {
            remote: remote.map(Into::into),
            started: UNIX_EPOCH + Duration::from_millis(millis),
            elapsed: Duration::from_micros(micros.into()),
            queue_wait: Some(Duration::from_micros(micros.into())),
            method: &method,
            target: &target,
            version: Version::HTTP_11,
            request_headers: &request,
            outcome,
            response_headers: &response,
            bytes,
            pid: 4242,
            slot: Slot::new(3),
            generation: serde_json::from_str("1").expect("a generation is a number"),
            request_id: id.as_deref().map(str::as_bytes),
            scheme: "http",
            listener: None,
            client_certificate: None,
        };
        let mut line = Vec::new();
        AccessWriter::new(compiled).write(&record, &mut line);
        let line = String::from_utf8(line).expect("a line is UTF-8");
        let text = line.strip_suffix('\n').expect("a line has its end");
        prop_assert!(!text.contains(|found: char| found.is_control()), "{text:?}");
        if format == "json" {
            let object: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
            let known = !matches!(outcome, Outcome::Unread(_));
            prop_assert_eq!(object["method"].as_str(), known.then_some(method.as_str()));
        } else {
            prop_assert!(text.is_ascii(), "{text:?}");
        }
    }
}
