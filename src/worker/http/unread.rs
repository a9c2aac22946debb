//! The access lines of answers to what never became a request.

use std::time::SystemTime;

use axum::http::{Method, StatusCode, Uri, Version};

use crate::logging::{self, Outcome, Record};
use crate::request::client::Client;
use crate::request::client_certificate::ClientCertificate;
use crate::scoreboard::Code;
use crate::sys::clock;
use crate::worker::connection::conns::Conn;
use crate::worker::server::Server;

/// Accounts for an answer to what never became a request: its head took too long, or was none.
pub(crate) fn log(
    server: &Server,
    conn: &Conn,
    listener: Option<&str>,
    client: Client,
    status: StatusCode,
    bytes: u64,
) {
    let elapsed = conn.waited();
    server.count_request();
    server.board.metrics().inspect(|metrics| {
        metrics.count_request(Code::of_answer(Some(status)), elapsed);
    });
    let record = Record {
        remote: client.address(),
        started: clock::wall().checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH),
        elapsed,
        queue_wait: conn.take_queue_wait(),
        method: &Method::GET,
        target: &Uri::default(),
        version: Version::HTTP_11,
        request_headers: &[],
        outcome: Outcome::Unread(status),
        response_headers: &[],
        bytes,
        pid: server.pid,
        slot: server.slot,
        generation: server.generation,
        request_id: None,
        scheme: client.scheme().as_str(),
        listener,
        client_certificate: conn.certificate().map(ClientCertificate::subject),
    };
    logging::access(&record, |_| {});
}
