//! Axum's answer in place of a handler that takes `ConnectInfo<SocketAddr>`, where the client is on a
//! unix socket: that an extension is missing, which sends the reader to the wrong place.
//!
//! axum's extractor is not ours to change, so its answer is known by its text; a test holds that to the
//! axum of today.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::Response;
use http_body::{Body as _, Frame, SizeHint};

/// axum's words.
const MISSING: &[u8] = b"Missing request extension: Extension of type \
    `axum::extract::connect_info::ConnectInfo<core::net::socket_addr::SocketAddr>` was not found. \
    Perhaps you forgot to add it? See `axum::Extension`.";

/// The answer as it was, unless it is that one.
pub(crate) fn read(response: Response<Body>, cx: &mut Context<'_>) -> Option<Response<Body>> {
    if response.body().size_hint().exact() != Some(MISSING.len() as u64) {
        return Some(response);
    }
    let (head, mut body) = response.into_parts();
    let begun = Pin::new(&mut body).poll_frame(cx);
    let data = match &begun {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref(),
        Poll::Ready(_) | Poll::Pending => None,
    };
    if data.is_some_and(|data| data == MISSING) {
        return None;
    }
    let first = match begun {
        Poll::Ready(Some(first)) => Some(first),
        Poll::Ready(None) | Poll::Pending => None,
    };
    Some(Response::from_parts(head, Body::new(Begun { first, rest: body })))
}

/// A body of which something was taken.
struct Begun {
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    rest: Body,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let taken = self.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
        let taken = taken.map_or(0, Bytes::len) as u64;
        self.rest
            .size_hint()
            .exact()
            .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(taken + rest))
    }
}
