//! Requests that are over: their lines, and their counts.
//!
//! # The order
//! The access line is written before the last bytes of an answer, since the client may run as soon as it has
//! them. The request is counted after these bytes. A worker may be killed in between, and during the write:
//! the kernel leaves a receipt of the write (`sys::receipt`). With it the master knows whether the answer
//! was sent, and counts the request under its status or as aborted, as the client does.

use std::sync::PoisonError;
use std::time::Duration;

use super::record::{ConnEntry, Departing, RequestRecord};
use crate::logging::{self, Outcome, Record};
use crate::request::client_certificate::ClientCertificate;
use crate::scoreboard::Code;
use crate::worker::connection::conns::Wait;

impl ConnEntry {
    /// Notes that the last bytes of an answer are about to be written, in one write, and logs the request if
    /// the socket is sure to take them. Returns true if the write is to have a receipt.
    pub(crate) fn note_last_write(&self, is_sure: bool) -> bool {
        if !matches!(self.conn.wait(), Wait::Answer | Wait::Body) {
            return false;
        }
        let Departing::One(record) = &mut *self.lock() else { return false };
        if is_sure && record.took.is_none() {
            self.log(record, self.body_waited(record));
        }
        let board = &self.server.board;
        if board.metrics().is_none() {
            return false;
        }
        let Some(entry) = board.entry(self.conn.number) else { return false };
        // Streams are written together.
        let (at, written) = match &self.connection {
            None => (self.conn.number, Some(entry)),
            Some(connection) => (connection.conn.number, board.entry(connection.conn.number)),
        };
        let Some(written) = written else { return false };
        // The receipt of the write before.
        written.receipt().clear();
        entry.note_write(Code::of_answer(record.outcome.answered()), at);
        true
    }

    /// Notes the same of all streams of a connection that have ended.
    pub(crate) fn note_last_writes(&self) -> bool {
        // Not under its lock: a line may have to wait for room.
        let mut ended = self.take_ended();
        if self.conn.unwritten() == 0 {
            // The write before took all that it was offered.
            ended.retain(|stream| !stream.is_logged() || stream.note_flushed());
        }
        let mut wants_receipt = false;
        for stream in &ended {
            wants_receipt |= stream.note_last_write(true);
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).append(&mut ended);
        wants_receipt
    }

    fn is_logged(&self) -> bool {
        matches!(&*self.lock(), Departing::One(record) if record.took.is_some())
    }

    /// The request is over.
    pub(super) fn end(&self, record: &mut RequestRecord) {
        if record.took.is_some() {
            self.await_next(record.body);
        } else {
            let waited = self.body_waited(record);
            self.await_next(record.body);
            self.log(record, waited);
        }
        self.count(record);
    }

    /// It was not answered, or not to the end: what the kernel has not taken was not sent. One that has its
    /// line already is aborted for the counts alone.
    pub(super) fn give_up(&self, mut record: Box<RequestRecord>) {
        let status = match record.outcome {
            Outcome::Status(status) | Outcome::Drained(status) | Outcome::Unread(status) => {
                Some(status)
            }
            Outcome::Aborted(status) | Outcome::Lost(status) => status,
        };
        let is_lost = self.server.is_cutting();
        record.outcome = if is_lost { Outcome::Lost(status) } else { Outcome::Aborted(status) };
        record.sent = record.sent.saturating_sub(self.conn.unwritten());
        self.end(&mut record);
    }

    /// Writes the line of the request. Its handler has waited so long for its body.
    fn log(&self, record: &mut RequestRecord, waited: Duration) {
        let server = &self.server;
        // The slot's count: the master adds no request to it that a killed worker had in hand.
        server.count_request();
        let elapsed = record.elapsed();
        record.took = Some(elapsed);
        let line = Record {
            remote: record.client.address(),
            started: record.started,
            elapsed,
            queue_wait: record.arrival.queue,
            method: &record.method,
            target: &record.target,
            version: record.version,
            request_headers: &record.request_headers,
            outcome: record.outcome,
            response_headers: &record.response_headers,
            bytes: record.sent,
            pid: server.pid,
            slot: server.slot,
            generation: server.generation,
            request_id: Some(record.id.as_bytes()),
            scheme: record.client.scheme().as_str(),
            listener: self.listener.name,
            client_certificate: self.conn.certificate().map(ClientCertificate::subject),
        };
        if !record.is_healthcheck || !record.outcome.is_fine() {
            let entry = server.board.entry(self.conn.number);
            logging::access(&line, |settled| {
                if let Some(entry) = &entry {
                    entry.note_line(settled);
                }
            });
        }
        self.report_if_slow(record, waited);
    }

    /// Counts the request, which is over, for the metrics.
    fn count(&self, record: &RequestRecord) {
        let server = &self.server;
        let entry = server.board.entry(self.conn.number);
        if let Some(metrics) = server.board.metrics() {
            let code = Code::of_answer(record.outcome.answered());
            // A worker that dies in between has left a note of it.
            if let Some(entry) = &entry {
                entry.note_count(code, metrics.requests(code));
            }
            metrics.request_ended();
            metrics.count_request(code, record.took.unwrap_or_default());
        }
        if let Some(entry) = &entry {
            entry.clear();
        }
    }
}
