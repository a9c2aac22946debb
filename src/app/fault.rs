//! What a client is told when the database does not do its part: never why. The cause is in the
//! error log.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer;

/// Why a request was not done. All are 503: the request was in order, and may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The database cannot be reached, or failed.
    Unavailable,
    /// More rows wait to be stored than may. Nothing was stored.
    Overloaded,
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
