//! The answer to a client when the database does not do its part: never why. The cause is in the
//! error log.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer;
use super::store::Error;

/// Why a request was not done. All are 503: the request was in order, and may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The database cannot be reached, or failed.
    #[error("the database is not available")]
    Unavailable,
    /// The database answers, and takes no writes.
    #[error("the database takes no writes")]
    Unwritable,
    /// More requests wait than may, or for longer than they may. Nothing was done.
    #[error("too many requests are waiting for the database")]
    Overloaded,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(_) | Error::Locked { .. } | Error::Silent(_) | Error::Moved => {
                Self::Unavailable
            }
            Error::Crowded => Self::Overloaded,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = format!(r#"{{"error":"{self}"}}"#);
        let mut response = answer::json(StatusCode::SERVICE_UNAVAILABLE, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
}
