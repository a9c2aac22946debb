//! The text of each atom, against gunicorn's documentation; and that no request can make a line
//! anything but one line.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::header::USER_AGENT;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::{Generation, Slot};
use crate::logging::access::record::{Field, Outcome, values};

const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

#[derive(Debug)]
struct Request {
    method: Method,
    target: Uri,
    version: Version,
    remote: Option<IpAddr>,
    headers: Vec<Field>,
    answer: Vec<Field>,
    outcome: Outcome,
    bytes: u64,
    elapsed: Duration,
    queue_wait: Option<Duration>,
    request_id: Option<String>,
}

impl Request {
    /// `GET /data?page=2`, answered 200 with 512 bytes in 1.234567 s.
    fn new() -> Self {
        Self {
            method: Method::GET,
            target: Uri::from_static("/data?page=2"),
            version: Version::HTTP_11,
            remote: Some(IpAddr::from([203, 0, 113, 9])),
            headers: Vec::new(),
            answer: Vec::new(),
            outcome: Outcome::Status(StatusCode::OK),
            bytes: 512,
            elapsed: Duration::from_micros(1_234_567),
            queue_wait: Some(Duration::from_millis(12)),
            request_id: None,
        }
    }

    fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a value that hyper lets in");
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    fn record(&self) -> Record<'_> {
        Record {
            remote: self.remote,
            started: UNIX_EPOCH + Duration::from_millis(1_711_016_798_042),
            elapsed: self.elapsed,
            queue_wait: self.queue_wait,
            method: &self.method,
            target: &self.target,
            version: self.version,
            request_headers: &self.headers,
            outcome: self.outcome,
            response_headers: &self.answer,
            bytes: self.bytes,
            pid: 42,
            slot: Slot::new(3),
            generation: Generation::FIRST,
            request_id: self.request_id.as_deref().map(str::as_bytes),
            scheme: "http",
            listener: None,
            client_certificate: None,
        }
    }

    fn line(&self, format: &str) -> String {
        let format = AccessFormat::compile(format).expect("the format is valid");
        let mut writer = AccessWriter::with_clock(format, Clock::new(TimeZone::UTC));
        let mut out = b"before\n".to_vec();
        writer.write(&self.record(), &mut out);
        let line = String::from_utf8(out).expect("a line is text");
        let line = line.strip_prefix("before\n").expect("what was there stays");
        let line = line.strip_suffix('\n').expect("a line ends");
        assert!(!line.contains('\n'), "one line: {line:?}");
        line.to_owned()
    }

    fn object(&self) -> Value {
        serde_json::from_str(&self.line("json")).expect("a line is JSON")
    }
}

#[test]
fn each_atom_is_as_gunicorn_documents_it() {
    let request = Request::new()
        .header("referer", "http://example.com/start")
        .header("user-agent", "curl/8.5.0")
        .header("x-forwarded-for", "198.51.100.7")
        .header("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let table = [
        ("%(h)s", "203.0.113.9"),
        ("%(l)s", "-"),
        ("%(u)s", "Aladdin"),
        ("%(t)s", "[21/Mar/2024:10:26:38 +0000]"),
        ("%(r)s", "GET /data?page=2 HTTP/1.1"),
        ("%(m)s", "GET"),
        ("%(U)s", "/data"),
        ("%(q)s", "page=2"),
        ("%(H)s", "HTTP/1.1"),
        ("%(s)s", "200"),
        ("%(B)s", "512"),
        ("%(b)s", "512"),
        ("%(f)s", "http://example.com/start"),
        ("%(a)s", "curl/8.5.0"),
        ("%(T)s", "1"),
        ("%(M)s", "1234"),
        ("%(D)s", "1234567"),
        ("%(L)s", "1.234567"),
        ("%(p)s", "<42>"),
        ("%({X-Forwarded-For}i)s", "198.51.100.7"),
        ("%({x-missing}i)s", "-"),
        ("%({content-type}o)s", "-"),
        ("%({request_id}e)s", "-"),
        ("%({slot}e)s", "3"),
        ("%({generation}e)s", "1"),
        ("%({scheme}e)s", "http"),
        ("%({outcome}e)s", "ok"),
        ("%({queue_wait}e)s", "0.012000"),
        ("100%%", "100%"),
    ];
    for (format, expected) in table {
        assert_eq!(request.line(format), expected, "{format}");
    }
    assert_eq!(
        request.line(DEFAULT),
        "203.0.113.9 - Aladdin [21/Mar/2024:10:26:38 +0000] \"GET /data?page=2 HTTP/1.1\" 200 512 \
         \"http://example.com/start\" \"curl/8.5.0\""
    );
}

#[test]
fn what_is_missing_is_a_dash() {
    let mut request = Request::new();
    request.target = Uri::from_static("/");
    request.remote = None;
    request.bytes = 0;
    request.elapsed = Duration::from_micros(7);
    request.queue_wait = None;
    let format =
        "%(h)s|%(u)s|%(q)s|%(b)s|%(B)s|%(f)s|%(a)s|%(T)s|%(M)s|%(D)s|%(L)s|%({queue_wait}e)s";
    assert_eq!(request.line(format), "-|-||-|0|-|-|0|0|7|0.000007|-");
}

#[test]
fn a_request_without_an_answer_has_no_status() {
    for (outcome, word) in [(Outcome::Aborted(None), "aborted"), (Outcome::Lost(None), "lost")] {
        let mut request = Request::new();
        request.outcome = outcome;
        assert_eq!(request.line("%(s)s %({outcome}e)s"), format!("- {word}"));
        let object = request.object();
        assert_eq!(object["status"], Value::Null);
        assert_eq!(object["outcome"], word);
    }
}

#[test]
fn an_answer_that_was_cut_short_has_its_status() {
    let ok = Some(StatusCode::OK);
    for (outcome, word) in [(Outcome::Aborted(ok), "aborted"), (Outcome::Lost(ok), "lost")] {
        let request = Request { outcome, ..Request::new() };
        assert_eq!(request.line("%(s)s %(B)s %({outcome}e)s"), format!("200 512 {word}"));
        let object = request.object();
        assert_eq!((&object["status"], &object["outcome"]), (&json!(200), &json!(word)));
    }
}

/// The answer stands there; what was asked is not made up.
#[test]
fn what_was_never_read_has_a_status_and_nothing_else() {
    let outcome = Outcome::Unread(StatusCode::REQUEST_TIMEOUT);
    let request = Request { outcome, ..Request::new() };
    let format = r#""%(r)s" %(m)s %(U)s %(q)s %(H)s %(s)s %({outcome}e)s"#;
    assert_eq!(request.line(format), r#""-" - - - - 408 unread"#);
    let object = request.object();
    assert_eq!((&object["status"], &object["outcome"]), (&json!(408), &json!("unread")));
    for key in ["method", "path", "query", "protocol"] {
        assert_eq!(object[key], Value::Null, "{key}");
    }
}

#[test]
fn targets_are_written_as_they_came() {
    for (method, target) in [
        (Method::GET, "/a%20b%0A?x=%22"),
        (Method::GET, "http://example.com:81/a?b=c"),
        (Method::CONNECT, "example.com:443"),
        (Method::OPTIONS, "*"),
    ] {
        let mut request = Request::new();
        request.target = Uri::from_static(target);
        request.method = method;
        assert_eq!(request.line("%(r)s"), format!("{} {target} HTTP/1.1", request.method));
    }
}

#[test]
fn protocols_have_their_names() {
    for (version, name) in [
        (Version::HTTP_09, "HTTP/0.9"),
        (Version::HTTP_10, "HTTP/1.0"),
        (Version::HTTP_11, "HTTP/1.1"),
        (Version::HTTP_2, "HTTP/2.0"),
        (Version::HTTP_3, "HTTP/3.0"),
    ] {
        let mut request = Request::new();
        request.version = version;
        assert_eq!(request.line("%(H)s"), name);
    }
}

#[test]
fn users_are_read_from_basic_credentials_alone() {
    let long = "YTph".repeat(1000);
    for (credentials, expected) in [
        ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"),
        ("Basic  QTpi", "A"),
        ("Basic QSBCOmM=", r"A\x20B"),     // "A B:c"
        ("Basic IgpcOmM=", r#"\"\x0A\\"#), // "\"\n\\:c"
        ("Basic OmM=", "-"),               // ":c"
        ("Basic c2VjcmV0", "-"),           // "secret", without a colon
        ("Basic /zpj", "-"),               // not UTF-8
        ("Basic QTpi!", "-"),
        ("Basic", "-"),
        ("Bearer QTpi", "-"),
        (&format!("Basic {long}"), "-"),
    ] {
        let request = Request::new().header("authorization", credentials);
        assert_eq!(request.line("%(u)s"), expected, "{credentials}");
    }
}

#[test]
fn a_field_sent_twice_is_joined() {
    let request = Request::new().header("via", "a\"").header("via", "b");
    assert_eq!(request.line("%({via}i)s"), r#"a\", b"#);
}

#[test]
fn addresses_of_version_6_are_written() {
    let mut request = Request::new();
    request.remote = Some("2001:db8::1".parse().expect("an address"));
    assert_eq!(request.line("%(h)s"), "2001:db8::1");
    assert_eq!(request.object()["remote"], "2001:db8::1");
}

#[test]
fn json_is_typed_and_in_order() {
    let mut request = Request::new()
        .header("user-agent", b"caf\xe9 ")
        .header("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    request.request_id = Some("id \"1\" ü".to_owned());
    let line = request.line("json");
    assert_eq!(
        line,
        "{\"time\":\"2024-03-21T10:26:38.042+00:00\",\"remote\":\"203.0.113.9\",\
         \"user\":\"Aladdin\",\"method\":\"GET\",\"path\":\"/data\",\"query\":\"page=2\",\
         \"protocol\":\"HTTP/1.1\",\"status\":200,\"outcome\":\"ok\",\"bytes\":512,\
         \"referer\":null,\"user_agent\":\"caf\u{fffd} \",\"duration_us\":1234567,\
         \"queue_wait_us\":12000,\"pid\":42,\"slot\":3,\"generation\":1,\"request_id\":\"id \\\"1\\\" ü\",\
         \"trace_id\":null,\"span_id\":null,\"scheme\":\"http\"}"
    );
    request = Request::new();
    request.remote = None;
    request.queue_wait = None;
    request.target = Uri::from_static("/");
    let object = request.object();
    for key in ["remote", "user", "query", "referer", "user_agent", "request_id", "queue_wait_us"] {
        assert_eq!(object[key], Value::Null, "{key}");
    }
    assert_eq!(object.as_object().map(serde_json::Map::len), Some(21));
}

#[test]
fn lines_that_are_too_long_lose_the_ends_of_their_longest_values() {
    let agent = "A".repeat(LINE_MAX);
    let request = Request::new().header("user-agent", &agent).header("referer", "/short");
    let line = request.line(DEFAULT);
    assert!(line.len() < LINE_MAX, "{}", line.len());
    assert!(line.contains("\"/short\" \"AAAA"), "the short ones stay");
    assert!(line.ends_with("AAAA[cut]\""), "the long one is marked");
    let object = request.object();
    let cut = object["user_agent"].as_str().expect("a string");
    assert_eq!(cut, format!("{}[cut]", "A".repeat(json::VALUE_MAX)));
    assert_eq!(object["referer"], json!("/short"));
    // One byte below the limit nothing is cut.
    let frame = Request::new().header("user-agent", "").line(DEFAULT).len();
    let fitting = "A".repeat(LINE_MAX - 1 - frame);
    let line = Request::new().header("user-agent", &fitting).line(DEFAULT);
    assert_eq!(line.len(), LINE_MAX - 1);
    assert!(!line.contains("[cut]"));
    let line = Request::new().header("user-agent", format!("{fitting}A")).line(DEFAULT);
    assert!(line.contains("[cut]"));
}

/// Bytes that a header field's value may hold.
fn field_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, Just(b'"'), Just(b'\\'), 0x80..=0xff_u8];
    prop::collection::vec(byte, 0..200)
}

fn request() -> impl Strategy<Value = Request> {
    let target = prop::collection::vec(any::<u8>(), 0..60)
        .prop_map(|bytes| [b"/", bytes.as_slice()].concat())
        .prop_filter_map("not a target", |bytes| Uri::from_maybe_shared(bytes).ok());
    let method = "[A-Za-z!#$%&'*+.^_`|~-]{1,20}"
        .prop_filter_map("not a method", |text| Method::from_bytes(text.as_bytes()).ok());
    let fields = (field_value(), field_value(), field_value(), 1..1000_usize);
    let texts = prop::option::of("\\PC*|[\\x00-\\x7f]{0,40}");
    (target, method, fields, texts, any::<u64>()).prop_map(
        |(target, method, (agent, referer, user, times), request_id, bytes)| {
            let mut request = Request::new()
                .header("user-agent", agent.repeat(times))
                .header("referer", referer)
                .header("authorization", [b"Basic ", user.as_slice()].concat());
            (request.target, request.method) = (target, method);
            (request.request_id, request.bytes) = (request_id, bytes);
            request
        },
    )
}

proptest! {
    #[test]
    fn no_request_can_break_or_forge_a_text_line(request in request()) {
        let format = format!("{DEFAULT} \"%({{request_id}}e)s\" %(m)s \"%(U)s\" \"%(q)s\"");
        let line = request.line(&format);
        prop_assert!(line.len() < LINE_MAX);
        prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line:?}");
        // The quotes that are not escaped are those of the format.
        let unescaped = line.replace(r"\\", "").replace(r#"\""#, "");
        prop_assert_eq!(unescaped.matches('"').count(), 12, "{:?}", line);
    }

    #[test]
    fn json_is_valid_and_keeps_what_the_client_asked_for(request in request()) {
        let line = request.line("json");
        prop_assert!(line.len() < LINE_MAX);
        prop_assert!(!line.contains(|found: char| found.is_control()), "{line:?}");
        let object: Value = serde_json::from_str(&line).expect("it is JSON");
        prop_assert_eq!(object["method"].as_str(), Some(request.method.as_str()));
        prop_assert_eq!(object["path"].as_str(), Some(request.target.path()));
        prop_assert_eq!(object["query"].as_str(), request.target.query());
        prop_assert_eq!(object["bytes"].as_u64(), Some(request.bytes));
        if !line.contains("[cut]") {
            let agent = values(&request.headers, &USER_AGENT).next().expect("it has one");
            let agent = String::from_utf8_lossy(agent);
            prop_assert_eq!(object["user_agent"].as_str(), Some(&*agent));
            prop_assert_eq!(object["request_id"].as_str(), request.request_id.as_deref());
        }
    }
}
