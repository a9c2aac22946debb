//! What is kept of a request until it is over: for its access line, its limits and its counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, Version, request};

use super::conns::{Conn, Wait};
use super::server::Server;
use crate::client::{Client, Scheme};
use crate::logging::{self, Field, Outcome, Record};
use crate::request_id::RequestId;
use crate::sys::clock;

/// One request in hand. Dropped when its answer is out, or when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) server: Arc<Server>,
    pub(super) conn: Arc<Conn>,
    /// Length of the request's body; `None`: it comes in chunks.
    pub(super) body: Option<u64>,
    /// Bytes of the answer's body that were handed to the connection.
    pub(super) sent: u64,
    client: Client,
    pub(super) id: RequestId,
    started: SystemTime,
    clock: Instant,
    method: Method,
    target: Uri,
    version: Version,
    /// The fields that the access log names.
    request_headers: Vec<Field>,
    response_headers: Vec<Field>,
    outcome: Outcome,
}

impl Ticket {
    pub(super) fn new(
        server: &Arc<Server>,
        conn: &Arc<Conn>,
        head: &request::Parts,
        (client, id, request_headers): (Client, RequestId, Vec<Field>),
    ) -> Box<Self> {
        let started = clock::wall();
        if let Some(entry) = server.board.entry(conn.number) {
            entry.fill(client.address(), started, &head.method, &head.uri, head.version);
        }
        // In a place of its own: it passes through many hands, each of which would move all of it.
        Box::new(Self {
            server: Arc::clone(server),
            conn: Arc::clone(conn),
            body: None,
            sent: 0,
            client,
            id,
            started,
            clock: clock::now(),
            method: head.method.clone(),
            target: head.uri.clone(),
            version: head.version,
            request_headers,
            response_headers: Vec::new(),
            outcome: Outcome::Aborted,
        })
    }

    /// The head of the answer stands.
    pub(super) fn note_head<B>(&mut self, response: &Response<B>) {
        self.outcome = Outcome::Status(response.status());
        self.response_headers = kept(response.headers(), &self.server.fields.response);
    }

    pub(super) fn warn_of_timeout(&self) {
        let seconds = self.elapsed().as_secs_f32();
        tracing::warn!(
            "answered 504 to {method} {path}: no answer after {seconds:.1} s",
            method = self.method,
            path = self.target.path(),
        );
    }

    pub(super) fn warn_of_panic(&self) {
        tracing::error!(
            "answered 500 to {method} {path}: its handler panicked",
            method = self.method,
            path = self.target.path(),
        );
    }

    fn elapsed(&self) -> Duration {
        clock::now().duration_since(self.clock)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.conn.wait() != Wait::Other {
            self.conn.set(Wait::Next);
        }
        self.server.count_request();
        if self.outcome == Outcome::Aborted && self.server.is_cutting() {
            self.outcome = Outcome::Lost;
        }
        let record = Record {
            remote: self.client.address(),
            started: self.started,
            elapsed: self.elapsed(),
            method: &self.method,
            target: &self.target,
            version: self.version,
            request_headers: &self.request_headers,
            outcome: self.outcome,
            response_headers: &self.response_headers,
            bytes: self.sent,
            pid: self.server.pid,
            slot: self.server.slot,
            generation: self.server.generation,
            request_id: Some(self.id.as_str()),
            scheme: self.client.scheme().as_str(),
        };
        // A worker that dies in between has left a note whether the line was written.
        let entry = self.server.board.entry(self.conn.number);
        logging::access(&record, |position| {
            if let Some(entry) = &entry {
                entry.note_line(position);
            }
        });
        if let Some(entry) = &entry {
            entry.clear();
        }
    }
}

/// The fields with these names.
fn kept(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Field> {
    let values = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let fields = names.iter().flat_map(values);
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Accounts for an answer to what never became a request: its head took too long, or was none.
pub(super) fn log_unread(server: &Server, conn: &Conn, client: Option<IpAddr>, status: StatusCode) {
    let elapsed = conn.waited();
    server.count_request();
    let record = Record {
        remote: client,
        started: clock::wall().checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH),
        elapsed,
        method: &Method::GET,
        target: &Uri::default(),
        version: Version::HTTP_11,
        request_headers: &[],
        outcome: Outcome::Unread(status),
        response_headers: &[],
        bytes: 0,
        pid: server.pid,
        slot: server.slot,
        generation: server.generation,
        request_id: None,
        scheme: Scheme::Http.as_str(),
    };
    logging::access(&record, |_| {});
}
