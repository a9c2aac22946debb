//! The answers to requests that may not do what they ask for.

use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::site::Stranger;
use crate::app::answer;

/// The reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A page of another site makes it.
    OtherSite,
    /// `access.hosts` does not name its `Host`.
    UnknownHost,
    /// It takes a token, and brings none.
    NoToken,
    /// Its token is not in force.
    WrongToken,
    /// A login whose name and password do not fit.
    WrongPassword,
    /// A login that brings no name and password.
    NoLogin,
    /// A login where `access.users` names no users.
    NoUsers,
    /// Too many logins have failed; for how long.
    TooMany(Duration),
    /// Too many logins wait for their trial.
    Busy,
}

impl From<Stranger> for Refusal {
    fn from(stranger: Stranger) -> Self {
        match stranger {
            Stranger::OtherSite => Self::OtherSite,
            Stranger::UnknownHost => Self::UnknownHost,
        }
    }
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::OtherSite | Self::UnknownHost => StatusCode::FORBIDDEN,
            Self::NoToken | Self::WrongToken | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::NoLogin => StatusCode::BAD_REQUEST,
            Self::NoUsers => StatusCode::NOT_FOUND,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::OtherSite => "a page of another site made this request; it is refused",
            Self::UnknownHost => {
                "access.hosts does not name the Host of this request; it is refused"
            }
            Self::NoToken => "a token is required; POST /login gives one",
            Self::WrongToken => {
                "the token is not valid, or has expired; POST /login gives another one"
            }
            Self::WrongPassword => "the name or the password is wrong",
            Self::NoLogin => "expected name and password, as JSON or as a form",
            Self::NoUsers => "there are no users; a token is not required",
            Self::TooMany(_) => "too many failed logins; see Retry-After",
            Self::Busy => "too many logins at once; see Retry-After",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = answer::json(self.status(), format!(r#"{{"error":"{}"}}"#, self.text()));
        let headers = response.headers_mut();
        match self {
            Self::NoToken => {
                let realm = HeaderValue::from_static(r#"Bearer realm="ferricorn""#);
                headers.insert(WWW_AUTHENTICATE, realm);
            }
            Self::WrongToken => {
                let realm = r#"Bearer realm="ferricorn", error="invalid_token""#;
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(realm));
            }
            Self::TooMany(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            Self::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::OtherSite
            | Self::UnknownHost
            | Self::WrongPassword
            | Self::NoLogin
            | Self::NoUsers => {}
        }
        response
    }
}
