//! The log events about one request.

use std::time::Duration;

use super::phases::{Answered, Arrival, Phases};
use super::record::{ConnEntry, InFlight, RequestRecord};
use crate::logging;
use crate::sys::clock;
use crate::worker::connection::waits::Wait;
use crate::worker::events::WorkerEvent;
use crate::worker::long::LongKind;

impl ConnEntry {
    /// The phases that are over when the head of a request has been read, and is about to be noted.
    pub(crate) fn arrival(&self) -> Arrival {
        let queue = self.connection().unwrap_or(&self.conn).take_queue_wait();
        if self.server.slow.is_none() {
            return Arrival { queue, ..Arrival::default() };
        }
        let head = (self.conn.wait() == Wait::Head).then(|| self.conn.waited());
        Arrival { queue, head, ..Arrival::default() }
    }

    /// For how long the handler of this request has waited for its body, where that matters.
    pub(crate) fn body_waited(&self, record: &RequestRecord) -> Duration {
        match self.server.slow {
            Some(_) => {
                let began = record.arrival.began;
                self.conn.note(|machine, now| machine.body_waited(began, now))
            }
            None => Duration::ZERO,
        }
    }

    /// Logs the request, which is over, if it was slow.
    pub(crate) fn report_if_slow(&self, record: &RequestRecord, waited: Duration) {
        let Some(slow) = self.server.slow else { return };
        let RequestRecord { arrival, clock: begun, answered, .. } = *record;
        let phases = Phases::of(arrival, begun, answered, clock::now(), waited);
        let taken = phases.total();
        if taken < slow {
            return;
        }
        let (method, path) = record.method_and_path();
        logging::emit(&WorkerEvent::SlowRequest {
            slot: self.server.slot,
            method,
            path,
            seconds: taken.as_secs_f32(),
            phases,
            status: record.outcome.status(),
            outcome: record.outcome.word(),
            request_id: record.id.as_str().to_owned(),
        });
    }
}

impl InFlight {
    /// Notes the time of the response's head, where that matters.
    pub(crate) fn note_answered(&mut self, long: Option<LongKind>) {
        if self.server.slow.is_none() {
            return;
        }
        let body = self.body_waited(self.record());
        // A response of unknown length that is a document ends by itself.
        let is_endless = long.is_some_and(|kind| kind != LongKind::Stream);
        let at = clock::now();
        self.record_mut().answered = Some(Answered { at, body, is_endless });
    }

    pub(crate) fn warn_of_timeout(&self) {
        let record = self.record();
        let seconds = record.elapsed().as_secs_f32();
        let (method, path) = record.method_and_path();
        logging::emit(&WorkerEvent::RequestTimedOut { method, path, seconds });
    }

    /// Logs an event about it, which names its method and its path.
    pub(crate) fn warn(&self, event: impl FnOnce(String, String) -> WorkerEvent) {
        let (method, path) = self.record().method_and_path();
        logging::emit(&event(method, path));
    }
}

impl RequestRecord {
    fn method_and_path(&self) -> (String, String) {
        // A tunnel has no path.
        let path = Some(self.target.path()).filter(|path| !path.is_empty());
        let path = path.map_or_else(|| self.target.to_string(), str::to_owned);
        (self.method.to_string(), path)
    }
}
