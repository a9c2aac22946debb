//! The token that a request brings: in `Authorization: Bearer`, or in the page's cookie.
//!
//! # The trap
//! A field that comes twice is one thing to a proxy and another to us. Two tokens are none.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum_extra::extract::cookie::{Cookie, SameSite};
use axum_extra::headers::authorization::{Bearer, Credentials};
use axum_extra::headers::{Authorization, HeaderMapExt};
use ferricorn::Scheme;

/// The cookie's name.
pub(super) const NAME: &str = "ferricorn-token";

/// The credentials that a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// No token.
    Nothing,
    /// One token.
    Token(String),
    /// Several, or what is none.
    Nonsense,
}

/// Reads the token of a request. `Authorization` counts before the cookie; of a scheme other than
/// `Bearer` it is meant for a proxy.
pub(super) fn token(headers: &HeaderMap) -> Brought {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    match (fields.next(), fields.next()) {
        (None, _) => {}
        (Some(_), Some(_)) => return Brought::Nonsense,
        (Some(field), None) if !is_bearer(field) => {}
        (Some(_), None) => {
            return match headers.typed_get::<Authorization<Bearer>>() {
                Some(bearer) if !bearer.token().is_empty() => {
                    Brought::Token(bearer.token().to_owned())
                }
                _ => Brought::Nonsense,
            };
        }
    }
    let mut found = Brought::Nothing;
    for field in headers.get_all(COOKIE) {
        // A field that is no text has no token of ours.
        let Ok(text) = field.to_str() else { continue };
        for cookie in Cookie::split_parse(text).flatten().filter(|cookie| cookie.name() == NAME) {
            if found != Brought::Nothing {
                return Brought::Nonsense;
            }
            found = Brought::Token(cookie.value().to_owned());
        }
    }
    found
}

fn is_bearer(field: &HeaderValue) -> bool {
    let scheme = field.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(Bearer::SCHEME.as_bytes())
}

/// The cookie that gives the page its token, or takes it (`None`).
pub(super) fn cookie(token: Option<&str>, lifetime: Duration, scheme: Scheme) -> HeaderValue {
    let seconds = token.map_or(0, |_| lifetime.as_secs().max(1));
    let cookie = Cookie::build((NAME, token.unwrap_or_default()))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(scheme == Scheme::Https)
        .build();
    let text = format!("{cookie}; Max-Age={seconds}");
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn brought(fields: &[(HeaderName, &str)]) -> Brought {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        token(&headers)
    }

    fn is(text: &str) -> Brought {
        Brought::Token(text.to_owned())
    }

    #[test]
    fn token_is_the_bearers_or_the_cookies() {
        let table: [(&[(HeaderName, &str)], Brought); 17] = [
            (&[], Brought::Nothing),
            (&[(AUTHORIZATION, "Bearer a.b.c")], is("a.b.c")),
            (&[(AUTHORIZATION, "bEARER a.b.c")], is("a.b.c")),
            (&[(AUTHORIZATION, "Bearer")], Brought::Nonsense),
            (&[(AUTHORIZATION, "Bearer ")], Brought::Nonsense),
            (&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")], Brought::Nonsense),
            (&[(AUTHORIZATION, "Basic YTpi")], Brought::Nothing),
            (&[(AUTHORIZATION, "Basic YTpi"), (COOKIE, "ferricorn-token=c")], is("c")),
            (&[(AUTHORIZATION, "Bearer a"), (COOKIE, "ferricorn-token=c")], is("a")),
            (&[(COOKIE, "ferricorn-token=a.b.c")], is("a.b.c")),
            (&[(COOKIE, "x=1; ferricorn-token=a; y=2")], is("a")),
            (&[(COOKIE, "x=1"), (COOKIE, "ferricorn-token=a")], is("a")),
            (&[(COOKIE, "ferricorn-token=a; ferricorn-token=b")], Brought::Nonsense),
            (&[(COOKIE, "ferricorn-token=a"), (COOKIE, "ferricorn-token=a")], Brought::Nonsense),
            (&[(COOKIE, "Ferricorn-Token=a; ferricorn-token2=b")], Brought::Nothing),
            (&[(COOKIE, "ferricorn-token")], Brought::Nothing),
            (&[(COOKIE, ";;=;")], Brought::Nothing),
        ];
        for (fields, expected) in table {
            assert_eq!(brought(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn cookie_is_for_this_site_alone() {
        let hour = Duration::from_secs(3600);
        let given = cookie(Some("a.b.c"), hour, Scheme::Https);
        assert!(given.is_sensitive());
        assert_eq!(
            given.to_str().unwrap(),
            "ferricorn-token=a.b.c; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=3600"
        );
        let taken = cookie(None, hour, Scheme::Http);
        assert_eq!(
            taken.to_str().unwrap(),
            "ferricorn-token=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0"
        );
    }

    proptest! {
        #[test]
        fn any_fields_are_a_token_or_none(
            authorization in proptest::collection::vec(
                "(?i)(bearer|basic)? ?[ -~]{0,30}|\\PC{0,20}", 0..3),
            cookies in proptest::collection::vec(
                "((ferricorn-token|x)=[!-~]{0,9}; ?){0,3}|\\PC{0,40}", 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for (name, texts) in [(AUTHORIZATION, &authorization), (COOKIE, &cookies)] {
                for text in texts {
                    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                        headers.append(&name, value);
                    }
                }
            }
            if let Brought::Token(token) = token(&headers) {
                let all = authorization.concat() + &cookies.concat();
                prop_assert!(all.contains(&token), "{token:?} is in no field");
            }
        }
    }
}
