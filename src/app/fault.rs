//! What a client is told when the database does not do its part: never why. The cause is in the
//! error log.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer;
use super::store::Error;

/// Why a request was not done. All are 503: the request was in order, and may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The database cannot be reached, or failed.
    Unavailable,
    /// More requests wait than may, or for longer than they may. Nothing was done.
    Overloaded,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(_) | Error::Silent(_) | Error::Moved => Self::Unavailable,
            Error::Crowded => Self::Overloaded,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = match self {
            Self::Unavailable => r#"{"error":"the database is not available"}"#,
            Self::Overloaded => r#"{"error":"too many requests are waiting for the database"}"#,
        };
        let mut response = answer::json(StatusCode::SERVICE_UNAVAILABLE, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
}
