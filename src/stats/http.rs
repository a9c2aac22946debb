//! The stats process's small HTTP server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::exposition::Format;
use super::snapshot::Source;
use super::{families, page, status};
use crate::sys::clock;
use crate::time::Instant;

/// Connections at one time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 128;
/// A connection without a further request for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// A response that a client does not take is given up after this.
const CONNECTION_MAX: Duration = Duration::from_secs(3600);
/// From one failed accept to the next.
const RETRY: Duration = Duration::from_millis(100);

/// Accepts and serves connections without end.
pub(super) async fn accept(listener: TcpListener, source: Arc<Source>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&source)));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            // However it ended: a client's matter.
            let _ended = tokio::time::timeout(CONNECTION_MAX, serving).await;
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    source: Arc<Source>,
) -> Result<Response<Body>, Infallible> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get_all(ACCEPT).iter();
            let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
            let format = Format::of_accept(&accept.join(","));
            let snapshot = source.snapshot().await;
            let text = families::text(&snapshot, &source.application(), format);
            respond(StatusCode::OK, format.content_type(), text)
        }
        "/status.json" => {
            let snapshot = source.snapshot().await;
            let now = Instant::from_millis(clock::monotonic_millis());
            let status = status::json(&snapshot, &source.status(), now, clock::wall());
            let text = format!("{status}\n");
            respond(StatusCode::OK, "application/json", text)
        }
        path => match page::file(path) {
            Some(file) => {
                let mut response = respond(StatusCode::OK, file.content_type, file.content);
                let policy = HeaderValue::from_static(page::POLICY);
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                response
            }
            None => {
                plain(StatusCode::NOT_FOUND, "not found: see /metrics, /status, /status.json\n")
            }
        },
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
