//! The header field `traceparent` of W3C Trace Context.

use axum::http::HeaderName;

/// The header field.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bytes of a version 00: `00-` trace id `-` span id `-` flags.
const LENGTH: usize = 55;

/// Its ids, in lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: [u8; 32],
    pub(crate) span_id: [u8; 16],
    pub(crate) flags: u8,
}

impl TraceParent {
    /// Reads the text of a field (W3C Trace Context, section 3.2): of a later version, what this one
    /// has.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = hexadecimal(&head[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let trace_id: [u8; 32] = head[3..35].try_into().ok()?;
        let span_id: [u8; 16] = head[36..52].try_into().ok()?;
        let flags = hexadecimal(&head[53..])?;
        let is_id = |id: &[u8]| id.iter().all(is_digit) && id.iter().any(|digit| *digit != b'0');
        let is_valid = is_whole && dashes && is_id(&trace_id) && is_id(&span_id);
        is_valid.then_some(Self { trace_id, span_id, flags })
    }
}

/// Lower-case, as the standard has it.
fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn hexadecimal(text: &[u8]) -> Option<u8> {
    let text =
        std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| is_digit(&byte)))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn ids_and_flags_are_read() {
        let trace = TraceParent::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        assert_eq!((&trace.trace_id[..], &trace.span_id[..]), (TRACE.as_bytes(), SPAN.as_bytes()));
        assert_eq!(trace.flags, 1);
        let later = format!("cc-{TRACE}-{SPAN}-00-what the future will be like");
        assert!(TraceParent::parse(later.as_bytes()).unwrap().flags == 0);
    }

    #[test]
    fn malformed_fields_are_none() {
        let zeros = |count| "0".repeat(count);
        for text in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{}-{SPAN}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-+1"),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }
}
