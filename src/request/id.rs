//! A request's id: the same in the answer's `X-Request-Id`, in the logs and for handlers.
//!
//! # Why every request has one
//! It is in every answer, so it cannot be made when it is asked for. Making it is cheap instead:
//! 16 random bytes in hexadecimal, of a fast generator since an id is no secret, written into a piece of
//! memory that some hundred ids share, so that hardly any of them asks for memory of its own.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderName, HeaderValue};
use bytes::BytesMut;
use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::InHand;

/// The header field that carries it, both ways.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of the longest id that is taken over.
const LENGTH_MAX: usize = 128;
/// Bytes of an id of our own.
const LENGTH: usize = 32;
/// Bytes of memory that ids are cut from: short enough that one id in use, as of a slow request, does
/// not hold on to much.
const PIECE: usize = 128 * LENGTH;

/// The id of the request in hand: an extractor for handlers. Layers ask [`RequestId::of`].
///
/// It is what the client sent in `X-Request-Id`, if that was one value of 1 to 128 letters, digits,
/// `.`, `_` or `-`; any other request gets an id of 32 hexadecimal digits. The answer carries it, and
/// so does the access log (`%({request_id}e)s`, and `request_id` in JSON). If the application sets
/// `X-Request-Id` on its answer, the answer keeps that id, and the access log has it.
///
/// ```
/// async fn work(id: ferricorn::RequestId) -> String {
///     format!("this is {id}\n")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id in the request's one field, or a new one.
    pub(crate) fn of_request(said: Option<&HeaderValue>) -> Self {
        match said {
            Some(id) if is_well_formed(id.as_bytes()) => Self(id.clone()),
            Some(_) | None => Self::new(),
        }
    }

    /// Returns the id in the application's answer, if that is a text.
    pub(crate) fn of_answer(said: &HeaderValue) -> Option<Self> {
        std::str::from_utf8(said.as_bytes()).is_ok().then(|| Self(said.clone()))
    }

    /// A new one.
    fn new() -> Self {
        thread_local! {
            // Begun by the system's own random source, at the first request: after every fork.
            static MAKER: RefCell<(SmallRng, BytesMut)> =
                RefCell::new((rand::make_rng(), BytesMut::new()));
        }
        let id = MAKER.with_borrow_mut(|(random, memory)| {
            if memory.capacity() < LENGTH {
                memory.reserve(PIECE);
            }
            memory.extend_from_slice(&hexadecimal(random.random()));
            memory.split().freeze()
        });
        Self(HeaderValue::from_maybe_shared(id).expect("digits are a value"))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Not `to_str`, which looks at one byte at a time.
        std::str::from_utf8(self.0.as_bytes()).expect("only texts are taken")
    }

    /// As text, which is not looked at again.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As a header field has it: to send it on with requests to other services.
    #[must_use]
    pub fn to_value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The id of the request with these extensions. Outside a ferricorn worker, as in a test of a
    /// router, it is the one that was inserted, or `None`.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let inserted = extensions.get::<Self>();
        inserted.or_else(|| extensions.get::<InHand>().map(|in_hand| &in_hand.id)).cloned()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    /// Outside a worker, where the request has none: a new one.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions).unwrap_or_else(Self::new))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=LENGTH_MAX).contains(&id.len()) && id.iter().all(allowed)
}

fn hexadecimal(number: u128) -> [u8; LENGTH] {
    let mut text = [0; LENGTH];
    let (places, _) = text.as_chunks_mut::<8>();
    let bytes = number.to_be_bytes();
    let (parts, _) = bytes.as_chunks::<4>();
    for (place, part) in places.iter_mut().zip(parts) {
        *place = eight_digits(u32::from_be_bytes(*part));
    }
    text
}

/// Eight digits at once, each in a byte of one number: this is done for every request.
fn eight_digits(number: u32) -> [u8; 8] {
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // With six more, what is above nine has a fifth bit.
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let beyond_nine = u64::from(b'a' - b'0' - 10);
    (digits + 0x3030_3030_3030_3030 + letters * beyond_nine).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(value: &[u8]) -> RequestId {
        RequestId::of_request(Some(&HeaderValue::from_bytes(value).unwrap()))
    }

    fn is_new(id: &RequestId) -> bool {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        id.as_str().len() == 32 && id.as_str().bytes().all(digit)
    }

    #[test]
    fn a_well_formed_id_is_kept() {
        let long = "a".repeat(128);
        for id in ["7", "Root-1.67891233_abcdef", long.as_str()] {
            assert_eq!(of(id.as_bytes()).as_str(), id);
        }
    }

    #[test]
    fn anything_else_gets_a_new_one() {
        let long = "a".repeat(129);
        let wrong: [&[u8]; 7] =
            [b"", b"a b", b"a,b", b"a\"b", "ä".as_bytes(), b"${jndi:x}", long.as_bytes()];
        for id in wrong {
            assert!(is_new(&of(id)), "{id:?}");
        }
        assert!(is_new(&RequestId::of_request(None)));
    }

    #[test]
    fn ids_differ_and_stay_what_they_are_while_others_are_made() {
        let ids: Vec<RequestId> = (0..1000).map(|_| RequestId::of_request(None)).collect();
        let texts: HashSet<String> = ids.iter().map(RequestId::to_string).collect();
        assert_eq!(texts.len(), 1000);
        assert!(ids.iter().all(is_new));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        let orders = [0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 0x0f1f_2f3f_4f5f_6f7f << 60];
        for number in [0, 1, 0x9a << 120, u128::MAX].into_iter().chain(orders) {
            let text = hexadecimal(number);
            assert_eq!(std::str::from_utf8(&text).unwrap(), format!("{number:032x}"));
        }
    }
}
