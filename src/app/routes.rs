//! The routes, and a handler for each: thin, since [`Service`] does the work.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;

use super::record::{More, Record, Span};
use super::service::Service;
use super::shield::Shield;
use super::unread::ReadOut;
use super::{answer, page};

/// Rows of a page of `GET /data`, when it does not say.
const LIMIT_DEFAULT: u8 = 20;
/// Rows of a page at the most.
const LIMIT_MAX: u8 = 100;

/// All routes of one worker.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let slot = service.slot();
    Router::new()
        .route("/populate", post(populate))
        .route("/delete", delete(delete_all))
        .route("/data", get(data))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(service)
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer((Shield::new(slot), ReadOut))
}

async fn populate(State(service): State<Arc<Service>>) -> Response {
    match service.populate().await {
        Ok(data) => answer::populated(data),
        Err(fault) => fault.into_response(),
    }
}

async fn delete_all(State(service): State<Arc<Service>>) -> Response {
    match service.delete().await {
        Ok(rows) => answer::json(StatusCode::OK, format!(r#"{{"message":"{rows} rows deleted"}}"#)),
        Err(fault) => fault.into_response(),
    }
}

async fn data(State(service): State<Arc<Service>>, RawQuery(query): RawQuery) -> Response {
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
            };
            let body = serde_json::to_vec(&listing).expect("it is plain data");
            answer::json(StatusCode::OK, body)
        }
        Err(fault) => fault.into_response(),
    }
}

async fn healthz() -> Response {
    answer::json(StatusCode::OK, r#"{"status":"alive"}"#)
}

async fn readyz(State(service): State<Arc<Service>>) -> Response {
    match service.ready().await {
        Ok(()) => answer::json(StatusCode::OK, r#"{"status":"ready"}"#),
        Err(fault) => fault.into_response(),
    }
}

async fn not_found() -> Response {
    answer::json(StatusCode::NOT_FOUND, r#"{"error":"there is nothing at this path"}"#)
}

/// axum adds `Allow`.
async fn method_not_allowed() -> Response {
    answer::json(
        StatusCode::METHOD_NOT_ALLOWED,
        r#"{"error":"this path does not have this method; see Allow"}"#,
    )
}

/// The body of `GET /data`.
#[derive(Serialize)]
struct Listing<'a> {
    rows: &'a [Record],
    /// What `before` has to be for the next page; `null`: this is the last one.
    next: Option<i64>,
    /// All rows there are; `null`: more than it pays to count.
    total: Option<i64>,
    /// The slot of the worker that answers.
    worker: u16,
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
