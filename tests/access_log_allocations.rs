//! An access line costs no allocation: not in text, not in JSON, not for the requests that somebody
//! makes up, and not when the second changes.
//!
//! A target of its own, for it replaces the allocator with one that counts.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use allocation_counter::measure;
use axum::http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use ferricorn::Slot;
use ferricorn::bench::{AccessFormat, AccessWriter, Outcome, Record};

/// Every atom there is.
const ALL: &str = concat!(
    r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(m)s %(U)s %(q)s %(H)s %(B)s "#,
    r"%(T)s %(M)s %(D)s %(L)s %(p)s %({via}i)s %({server}o)s %({request_id}e)s %({slot}e)s %%",
);

#[test]
fn a_line_allocates_nothing() {
    let plain = [(header::USER_AGENT, HeaderValue::from_static("curl/8.5.0"))];
    let credentials = HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let bytes = HeaderValue::from_bytes(b"\"\\\t\xff\xfe\xc3\xa4\xc2\x85").expect("it is a value");
    let strange = [
        (header::AUTHORIZATION, credentials),
        (header::USER_AGENT, bytes),
        (header::VIA, HeaderValue::from_static("a")),
        (header::VIA, HeaderValue::from_static("b")),
    ];
    let value = HeaderValue::from_str(&"x".repeat(100_000)).expect("letters are a value");
    let long = [(header::REFERER, value)];

    for format in [ALL, "json"] {
        let mut writer = AccessWriter::new(AccessFormat::compile(format).expect("it is valid"));
        let mut out = Vec::with_capacity(1024 * 1024);
        for (headers, status) in [
            (&plain[..], Outcome::Status(StatusCode::OK)),
            (&strange, Outcome::Aborted(None)),
            (&long, Outcome::Lost(None)),
        ] {
            for remote in ["192.0.2.1", "2001:db8::1"] {
                let remote: IpAddr = remote.parse().expect("an address");
                // Every line in a second of its own, so that each date is worked out.
                for second in 0..20 {
                    let record = Record {
                        remote: Some(remote),
                        started: UNIX_EPOCH
                            + Duration::from_millis(1_711_016_798_042 + second * 1000),
                        elapsed: Duration::from_micros(1234),
                        queue_wait: Some(Duration::from_millis(4)),
                        method: &Method::GET,
                        target: &Uri::from_static("/articles?page=2"),
                        version: Version::HTTP_11,
                        request_headers: headers,
                        outcome: status,
                        response_headers: &[],
                        bytes: 5316,
                        pid: 4242,
                        slot: Slot::new(3),
                        generation: serde_json::from_str("1").expect("a generation is a number"),
                        request_id: Some("id \u{85}".as_bytes()),
                        scheme: "http",
                        listener: None,
                        client_certificate: None,
                    };
                    out.clear();
                    let counted = measure(|| writer.write(&record, &mut out));
                    assert_eq!(counted.count_total, 0, "{format}: {record:?}");
                    assert!(out.ends_with(b"\n") && out.len() > 100);
                }
            }
        }
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1_u8]))).count_total, 1);
}
