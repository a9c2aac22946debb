//! A request's own deadline, for handlers that know that they need longer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::{Connection, InHand};

/// The deadline of the request in hand: an extractor for handlers.
///
/// ```
/// # use std::time::Duration;
/// async fn export(deadline: ferricorn::Deadline) -> &'static str {
///     deadline.extend(Duration::from_secs(600));
///     "a long answer"
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Deadline(Option<(Arc<dyn Connection>, u64)>);

impl Deadline {
    /// Gives the request so much longer than the `timeout` of the configuration, in addition to what
    /// it was given before. Nothing happens when that request is over, and outside a ferricorn
    /// worker, as in a test of a handler.
    pub fn extend(&self, by: Duration) {
        if let Some((connection, request)) = &self.0 {
            connection.extend(*request, by);
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let in_hand: Option<&InHand> = parts.extensions.get();
        Ok(Self(in_hand.map(|hand| (Arc::clone(&hand.connection), hand.number))))
    }
}
