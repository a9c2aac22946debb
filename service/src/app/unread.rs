//! Bodies of requests, which mean nothing to this application. A body that comes with a method of a
//! known path is read to its end, and thrown away, before the request is done.
//!
//! # Why
//! Otherwise a body that is longer than allowed would be refused only where its length is told
//! beforehand, and a request whose client gives up in the middle of it would be done nevertheless.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use tower::{Layer, Service};

use super::answer;

/// Reads bodies before anything is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOut;

impl<S> Layer<S> for ReadOut {
    type Service = ReadingOut<S>;

    fn layer(&self, inner: S) -> ReadingOut<S> {
        ReadingOut { inner }
    }
}

/// A service whose requests have no bodies.
#[derive(Clone, Debug)]
pub(super) struct ReadingOut<S> {
    inner: S,
}

impl<S> Service<Request> for ReadingOut<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.body().is_end_stream() {
            return Answering::AtOnce { answer: self.inner.call(request) };
        }
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        let (head, mut body) = request.into_parts();
        let answer = Box::pin(async move {
            match read_out(&mut body).await {
                Ok(()) => ready.call(Request::from_parts(head, Body::empty())).await,
                // Where it is too long or too late, ferricorn says so instead.
                Err(_) => Ok(answer::json(
                    StatusCode::BAD_REQUEST,
                    r#"{"error":"the request body cannot be read"}"#,
                )),
            }
        });
        Answering::Later { answer }
    }
}

async fn read_out(body: &mut Body) -> Result<(), axum::Error> {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        frame?;
    }
    Ok(())
}

type Later<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

pin_project_lite::pin_project! {
    /// An answer on its way. Most requests have no body, and theirs costs nothing more.
    #[project = AnsweringProjection]
    pub(super) enum Answering<F, E> {
        AtOnce { #[pin] answer: F },
        Later { answer: Later<E> },
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Answering<F, E> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringProjection::AtOnce { answer } => answer.poll(cx),
            AnsweringProjection::Later { answer } => answer.as_mut().poll(cx),
        }
    }
}
