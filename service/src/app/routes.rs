//! The routes, and a handler for each: thin, since [`Service`] does the work.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use ferricorn::WorkerLoad;
use serde::Serialize;

use super::access::login::{login, logout, session};
use super::access::{MayRead, MayWrite};
use super::record::{More, Record, Span};
use super::service::Service;
use super::shield::Shield;
use super::unread::ReadOut;
use super::{answer, page};

/// Rows of a page of `GET /data`, when it does not say.
const LIMIT_DEFAULT: u8 = 20;
/// Rows of a page at the most.
const LIMIT_MAX: u8 = 100;

/// All routes of one worker. A body is read for the methods of a known path alone: any other request
/// is refused at once, so that a client with `Expect: 100-continue` does not send it.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let shield = Shield::new(service.slot());
    // A login's body means something.
    let login = Router::new()
        .route("/login", with_options(get(session).post(login), "GET,HEAD,POST,OPTIONS"))
        .with_state(Arc::clone(&service))
        .layer(shield.clone());
    Router::new()
        .route("/populate", with_options(post(populate), "POST,OPTIONS"))
        .route("/delete", with_options(delete(delete_all), "DELETE,OPTIONS"))
        .route("/logout", with_options(post(logout), "POST,OPTIONS"))
        .route("/data", readable(get(data)))
        .with_state(service)
        .merge(page::routes())
        .layer((shield.clone(), ReadOut))
        .merge(login)
        .fallback(not_found.layer(shield.clone()))
        .method_not_allowed_fallback(method_not_allowed.layer(shield))
}

/// Adds `OPTIONS` to a route that has `GET`.
pub(super) fn readable<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
) -> MethodRouter<S> {
    with_options(route, "GET,HEAD,OPTIONS")
}

/// Adds `OPTIONS`, which load balancers send as a health check, to a route with these methods.
fn with_options<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    methods: &'static str,
) -> MethodRouter<S> {
    route.options(move || async move { answer::options(methods) })
}

async fn populate(_: MayWrite, State(service): State<Arc<Service>>) -> Response {
    match service.populate().await {
        Ok(data) => answer::populated(data),
        Err(fault) => fault.into_response(),
    }
}

async fn delete_all(_: MayWrite, State(service): State<Arc<Service>>) -> Response {
    match service.delete().await {
        Ok(rows) => answer::json(StatusCode::OK, format!(r#"{{"message":"{rows} rows deleted"}}"#)),
        Err(fault) => fault.into_response(),
    }
}

async fn data(
    _: MayRead,
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
) -> Response {
    let span = match span(query.as_deref().unwrap_or_default()) {
        Ok(span) => span,
        Err(wrong) => return answer::json(StatusCode::BAD_REQUEST, wrong),
    };
    match service.page(span).await {
        Ok(page) => {
            let next = match page.more {
                More::Older => page.records.last().map(|record| record.id),
                More::None => None,
            };
            let listing = Listing {
                rows: &page.records,
                next,
                total: page.total,
                worker: service.slot().number(),
                workers: service.workers().into_iter().map(Served::from).collect(),
            };
            let body = serde_json::to_vec(&listing).expect("it is plain data");
            answer::json(StatusCode::OK, body)
        }
        Err(fault) => fault.into_response(),
    }
}

async fn not_found(method: Method, headers: HeaderMap) -> Response {
    let page = page::missing(StatusCode::NOT_FOUND, &method, &headers);
    page.unwrap_or_else(|| {
        answer::json(StatusCode::NOT_FOUND, r#"{"error":"there is nothing at this path"}"#)
    })
}

/// axum adds `Allow`.
async fn method_not_allowed(method: Method, headers: HeaderMap) -> Response {
    let page = page::missing(StatusCode::METHOD_NOT_ALLOWED, &method, &headers);
    page.unwrap_or_else(|| {
        answer::json(
            StatusCode::METHOD_NOT_ALLOWED,
            r#"{"error":"this path does not have this method; see Allow"}"#,
        )
    })
}

/// The body of `GET /data`.
#[derive(Serialize)]
struct Listing<'a> {
    rows: &'a [Record],
    /// The value of `before` for the next page; `null`: this is the last one.
    next: Option<i64>,
    /// All rows there are; `null`: more than it pays to count.
    total: Option<i64>,
    /// The slot of the worker that answers.
    worker: u16,
    /// The workers that serve now.
    workers: Vec<Served>,
}

/// A worker of [`Listing`].
#[derive(Serialize)]
struct Served {
    slot: u16,
    /// Requests answered in its slot since the start of the server.
    requests: u64,
}

impl From<WorkerLoad> for Served {
    fn from(load: WorkerLoad) -> Self {
        Self { slot: load.slot.number(), requests: load.requests }
    }
}

/// Which rows the query asks for. Keys that mean nothing here are left alone.
///
/// # Errors
/// A sentence for who asked.
fn span(query: &str) -> Result<Span, &'static str> {
    let mut span = Span { before: i64::MAX, limit: LIMIT_DEFAULT };
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                span.limit = limit.ok_or(r#"{"error":"limit is not a number from 1 to 100"}"#)?;
            }
            "before" => {
                let before = value.parse().ok().filter(|before| *before > 0);
                span.before = before.ok_or(r#"{"error":"before is not the id of a row"}"#)?;
            }
            _ => {}
        }
    }
    Ok(span)
}
