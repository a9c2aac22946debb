//! A request as a browser sends it, with its access line.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use ferricorn::bench::{Field, Outcome, Record};
use ferricorn::{Generation, Slot};

/// The default of `log.access_format`, which is gunicorn's.
pub(crate) const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// A request as a browser sends it.
#[derive(Debug)]
pub(crate) struct Request {
    method: Method,
    target: Uri,
    headers: Vec<Field>,
    answer: Vec<Field>,
    generation: Generation,
    started: SystemTime,
}

impl Request {
    pub(crate) fn new() -> Self {
        let fields = [
            (header::HOST, "shop.example:5000"),
            (
                header::USER_AGENT,
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            ),
            (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            (header::ACCEPT_LANGUAGE, "en-US,en;q=0.5"),
            (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
            (header::REFERER, "https://shop.example/articles?page=2"),
            (header::CONNECTION, "keep-alive"),
        ];
        let headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value))).to_vec();
        Self {
            method: Method::GET,
            target: Uri::from_static("/articles/iron-unicorn?colour=silver&page=3"),
            headers,
            answer: Vec::new(),
            generation: serde_json::from_str("1").expect("a generation is a number"),
            started: UNIX_EPOCH + Duration::from_millis(1_711_016_798_042),
        }
    }

    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            remote: Some(IpAddr::from([203, 0, 113, 195])),
            started: self.started,
            elapsed: Duration::from_micros(1234),
            queue_wait: Some(Duration::from_millis(4)),
            method: &self.method,
            target: &self.target,
            version: Version::HTTP_11,
            request_headers: &self.headers,
            outcome: Outcome::Status(StatusCode::OK),
            response_headers: &self.answer,
            bytes: 5316,
            pid: 4242,
            slot: Slot::new(3),
            generation: self.generation,
            request_id: Some(b"0191f7a2-6a4e-7c1b-9a53-2f0d8f4e1c77"),
            scheme: "http",
            listener: None,
            client_certificate: None,
        }
    }
}
