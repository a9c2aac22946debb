//! The trace that a request belongs to, as W3C Trace Context has it (`traceparent`).

use std::convert::Infallible;

use axum::extract::OptionalFromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::access_format::{TRACEPARENT, TraceParent};

/// The trace that the request in hand belongs to, and the client's span in it: an optional extractor for
/// handlers. The access log has both (`trace_id` and `span_id` in JSON).
///
/// ```
/// use ferricorn::TraceContext;
///
/// async fn work(trace: Option<TraceContext>) -> String {
///     trace.map_or("no trace".to_owned(), |trace| format!("trace {}", trace.trace_id()))
/// }
/// ```
///
/// An application with OpenTelemetry gives the whole header to its propagator: `examples/otel.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext(TraceParent);

impl TraceContext {
    /// Reads `traceparent` among these fields; `None` where it is absent, malformed or there twice.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => TraceParent::parse(value.as_bytes()).map(Self),
            _ => None,
        }
    }

    /// The id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        digits(&self.0.trace_id)
    }

    /// The id of the client's span: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        digits(&self.0.span_id)
    }

    /// Returns true if the client records the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.flags & 1 != 0
    }
}

fn digits(id: &[u8]) -> &str {
    std::str::from_utf8(id).expect("digits are text")
}

impl<S: Sync> OptionalFromRequestParts<S> for TraceContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn field_that_is_there_twice_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        let value = format!("00-{TRACE}-{SPAN}-01");
        headers.append(TRACEPARENT, value.parse().unwrap());
        assert!(TraceContext::of(&headers).is_some());
        headers.append(TRACEPARENT, value.parse().unwrap());
        assert_eq!(TraceContext::of(&headers), None);
    }
}
