//! The record of a request until it is over: for its access line, its limits and its counters.
//!
//! # When a request is over
//! hyper drops an answer as soon as it has taken the last of it, which may be long before the client
//! has: an answer of 64 MiB is one piece. So the record of a request waits beside its connection until
//! all that hyper had to write is with the kernel, or is so little that the next write gives it the
//! kernel whole. What is there still when the stream ends was not answered, whatever its head said; and
//! what a worker had in hand that is killed is on its board.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, Method, Response, Uri, Version, request};

use super::phases::{Answered, Arrival};
use super::strict;
use crate::logging::{Field, Outcome};
use crate::request::InHand;
use crate::request::client::{Client, Scheme};
use crate::request::id::RequestId;
use crate::request::local::Origin;
use crate::request::peer::PeerCredentials;
use crate::sys::clock;
use crate::worker::connection::conns::{CloseReason, Conn, Wait};
use crate::worker::connection::machine::Machine;
use crate::worker::connection::stream::Stream;
use crate::worker::long::Long;
use crate::worker::long::upgraded::{UpgradeEnd, Upgraded};
use crate::worker::server::Server;
use crate::worker::turns;

/// A connection's entry among the open ones, shared by its stream and its requests. Its number is free
/// for another connection when all of them are gone: a request has its place on the board by it.
#[derive(Debug)]
pub(crate) struct ConnEntry {
    pub(crate) conn: Arc<Conn>,
    pub(crate) server: Arc<Server>,
    /// The other end of the socket; `None` on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Of the client on a unix socket.
    pub(crate) credentials: Option<PeerCredentials>,
    /// The listener that the connection came in by.
    pub(crate) listener: Origin,
    pub(crate) departing: Mutex<Departing>,
    /// The stream, while the connection is parked.
    pub(crate) parked: Mutex<Stream>,
    /// The protocol that the connection goes on with, until its stream takes it.
    pub(crate) upgrade: Mutex<Option<Long>>,
    /// The connection, of a stream of HTTP/2.
    pub(crate) connection: Option<Arc<Self>>,
    /// Streams of this connection that have ended, and whose last bytes may not be with the kernel yet.
    pub(crate) ended: Mutex<Vec<Arc<Self>>>,
}

/// The request whose answer hyper has taken, but not yet the kernel.
#[derive(Debug, Default)]
pub(crate) enum Departing {
    #[default]
    None,
    One(Box<RequestRecord>),
    /// There is no stream any more.
    Closed,
}

impl ConnEntry {
    /// A connection was accepted.
    pub(crate) fn new(
        server: &Arc<Server>,
        peer: Option<SocketAddr>,
        credentials: Option<PeerCredentials>,
        listener: Origin,
    ) -> Self {
        let conn = server.conns.enter();
        Self {
            conn,
            server: Arc::clone(server),
            peer,
            credentials,
            listener,
            departing: Mutex::default(),
            parked: Mutex::default(),
            upgrade: Mutex::default(),
            connection: None,
            ended: Mutex::default(),
        }
    }

    /// A request has come in.
    pub(crate) fn begin(&self) -> Arrival {
        // The answer before it may be on its way: it was given before all of its request had come.
        self.note_flushed();
        let arrival = self.arrival();
        turns::note_request();
        self.conn.note(|machine, now| {
            let number = machine.begun(now);
            Arrival { number, began: now, ..arrival }
        })
    }

    /// Notes that the kernel has all that hyper had to write. Returns true if a request is still in
    /// hand, so that more is to come.
    pub(crate) fn note_flushed(&self) -> bool {
        let wait = self.conn.wait();
        // At other times none is on its way, and another protocol is logged at its end.
        if !matches!(wait, Wait::Answer | Wait::Body) {
            return false;
        }
        match self.replace(Departing::None) {
            Some(Departing::One(mut record)) => self.end(&mut record),
            Some(Departing::None | Departing::Closed) => {}
            None => return true,
        }
        false
    }

    /// The connection is parked: nothing reads the stream until it is taken back. One of HTTP/2 does not.
    pub(crate) fn park(&self, stream: Stream) {
        if !self.conn.is_multiplexed() {
            self.server.conns.note_parked(&self.conn);
        }
        self.place(stream);
    }

    /// Leaves the stream here, until it is taken.
    pub(crate) fn place(&self, stream: Stream) {
        *self.parked() = stream;
    }

    fn parked(&self) -> MutexGuard<'_, Stream> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stream of a parked connection.
    pub(crate) fn take_parked(&self) -> Stream {
        std::mem::take(&mut *self.parked())
    }

    /// Waits until the stream of a parked connection is needed again, where it lies: something came in, or it
    /// is time to end it. Returns false if it has ended already, or this client's connection was handed over.
    pub(crate) async fn is_woken(&self, client: &Client) -> bool {
        if self.parked().is_taken() {
            return false;
        }
        if self.conn.is_multiplexed() {
            return true;
        }
        loop {
            if self.server.hand_over(self, &self.parked(), client) {
                drop(self.take_parked());
                return false;
            }
            tokio::select! {
                // An error is hyper's to find.
                _ = poll_fn(|cx| self.parked().poll_read_ready(cx)) => break,
                // The reason to park may come once more.
                () = self.conn.woken.notified() => {
                    if self.server.is_cutting() {
                        drop(self.take_parked());
                        return false;
                    }
                    if !self.conn.is_closed_for(CloseReason::Park) {
                        break;
                    }
                }
            }
        }
        self.conn.with(Machine::unparked);
        true
    }

    /// The stream has ended.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), Departing::Closed);
        for stream in self.take_ended() {
            stream.close();
        }
        if let Departing::One(record) = before {
            self.give_up(record);
        }
    }

    /// The connection goes on with another protocol.
    pub(crate) fn begin_upgrade(&self, long: Long) {
        self.conn.note(Machine::upgraded);
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(long);
    }

    /// The protocol that the connection goes on with; `None`: it was taken.
    pub(crate) fn take_upgrade(&self) -> Option<Upgraded> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take().map(Upgraded::new)
    }

    /// The stream has ended, on which another protocol was spoken.
    pub(crate) fn close_upgraded(&self, upgraded: &Upgraded) {
        let before = std::mem::replace(&mut *self.lock(), Departing::Closed);
        let Departing::One(mut record) = before else { return };
        record.sent = upgraded.sent();
        if let Outcome::Status(status) = record.outcome {
            record.outcome = match upgraded.end() {
                UpgradeEnd::Own => Outcome::Status(status),
                UpgradeEnd::Broken => Outcome::Aborted(Some(status)),
                UpgradeEnd::Closed => Outcome::Drained(status),
                UpgradeEnd::Cut => Outcome::Lost(Some(status)),
            };
        }
        self.end(&mut record);
    }

    /// hyper has all of the answer, or nothing waits for it any more.
    fn depart(&self, record: Box<RequestRecord>) {
        let mut departing = self.lock();
        if matches!(*departing, Departing::Closed) || matches!(record.outcome, Outcome::Aborted(_))
        {
            drop(departing);
            self.give_up(record);
        } else {
            *departing = Departing::One(record);
        }
    }

    /// Returns the departing request, if there is one: this stands in its place from now on.
    fn replace(&self, by: Departing) -> Option<Departing> {
        let mut departing = self.lock();
        match &*departing {
            Departing::One(_) => Some(std::mem::replace(&mut *departing, by)),
            Departing::None | Departing::Closed => None,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Departing> {
        self.departing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn await_next(&self, body: Option<u64>) {
        self.conn.note(|machine, now| machine.answered(body, now));
        if self.conn.wait() == Wait::Next && self.server.hands_over(self) {
            self.conn.decide(Machine::park);
        }
    }
}

impl Drop for ConnEntry {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            self.server.conns.leave_stream(&self.conn);
            connection.conn.note(Machine::stream_ended);
            return;
        }
        self.server.conns.leave(&self.conn);
    }
}

/// One request in hand. Dropped when hyper has its answer, or when nothing waits for it any more.
#[derive(Debug)]
pub(crate) struct InFlight {
    entry: Arc<ConnEntry>,
    /// Taken when it is dropped.
    record: Option<Box<RequestRecord>>,
    /// Length of the request's body; `None`: it comes in chunks.
    pub(crate) body: Option<u64>,
}

/// The record of a request that is over.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    /// Bytes of the answer's body that were handed to the connection.
    pub(super) sent: u64,
    pub(super) client: Client,
    pub(crate) id: RequestId,
    pub(super) started: SystemTime,
    pub(crate) clock: Instant,
    pub(crate) arrival: Arrival,
    /// `None` before the head of the response, and where `log.slow` is off.
    pub(crate) answered: Option<Answered>,
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(super) version: Version,
    /// The fields that the access log names.
    pub(super) request_headers: Vec<Field>,
    pub(super) response_headers: Vec<Field>,
    pub(crate) outcome: Outcome,
    /// Length of the request's body; `None`: it comes in chunks.
    pub(super) body: Option<u64>,
    /// Its time, when its line is written.
    pub(super) took: Option<Duration>,
    /// True if it leaves no access line when it is answered 2xx or 3xx.
    pub(super) is_healthcheck: bool,
}

impl InFlight {
    pub(crate) fn new(
        entry: &Arc<ConnEntry>,
        head: &request::Parts,
        arrival: Arrival,
        client: Client,
        id: RequestId,
        request_headers: Vec<Field>,
    ) -> Self {
        let started = clock::wall();
        if let Some(entry) = entry.server.board.entry(entry.conn.number) {
            entry.fill(client.address(), started, &head.method, &head.uri, head.version);
        }
        entry.server.board.metrics().inspect(|metrics| metrics.request_begun());
        // In a place of its own: it passes through many hands, each of which would move all of it.
        let record = Box::new(RequestRecord {
            sent: 0,
            client,
            id,
            started,
            clock: clock::now(),
            arrival,
            answered: None,
            method: head.method.clone(),
            target: strict::target(head),
            version: head.version,
            request_headers,
            response_headers: Vec::new(),
            outcome: Outcome::Aborted(None),
            body: None,
            took: None,
            is_healthcheck: false,
        });
        Self { entry: Arc::clone(entry), record: Some(record), body: None }
    }

    pub(crate) fn record(&self) -> &RequestRecord {
        self.record.as_ref().expect("it is there until the end")
    }

    pub(crate) fn record_mut(&mut self) -> &mut RequestRecord {
        self.record.as_mut().expect("it is there until the end")
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.record().id
    }

    /// The application gave the request another id.
    pub(crate) fn set_id(&mut self, id: RequestId) {
        self.record_mut().id = id;
    }

    /// Returns the facts that extractors may know of it.
    pub(crate) fn in_hand(&self) -> InHand {
        let connection = Arc::clone(&self.conn);
        let RequestRecord { client, id, arrival, .. } = self.record();
        InHand {
            connection,
            number: arrival.number,
            client: *client,
            id: id.clone(),
            credentials: self.credentials,
            listener: self.listener.clone(),
        }
    }

    /// Returns the scheme by which its client reaches the service.
    pub(crate) fn scheme(&self) -> Scheme {
        self.record().client.scheme()
    }

    /// The request calls itself one of `ferricorn healthcheck`. It is believed of a client on this
    /// machine, for what that asks.
    pub(crate) fn note_healthcheck(&mut self) {
        let is_asked = self.server.routes.health.is_probe(self.record().target.path());
        let record = self.record_mut();
        let is_here = record.client.address().is_none_or(|address| address.is_loopback());
        record.is_healthcheck = is_here && is_asked && record.method == Method::GET;
    }

    /// The head of the answer stands.
    pub(crate) fn note_head<B>(&mut self, response: &Response<B>) {
        self.record_mut().outcome = Outcome::Status(response.status());
        if !self.server.fields.response.is_empty() {
            let headers = kept(response.headers(), &self.server.fields.response);
            self.record_mut().response_headers = headers;
        }
    }

    /// The answer ends here, since the worker drains.
    pub(crate) fn note_drained(&mut self) {
        let record = self.record_mut();
        if let Outcome::Status(status) = record.outcome {
            record.outcome = Outcome::Drained(status);
        }
    }

    /// So many bytes more of the answer's body were handed to the connection.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.conn.note_handed(bytes);
        self.record_mut().sent += bytes as u64;
    }
}

impl RequestRecord {
    pub(crate) fn elapsed(&self) -> Duration {
        clock::now().duration_since(self.clock)
    }
}

impl Deref for InFlight {
    type Target = ConnEntry;

    fn deref(&self) -> &ConnEntry {
        &self.entry
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.body = self.body;
            self.note_reset(&record);
            self.entry.depart(record);
            self.entry.end_stream();
        }
    }
}

/// The fields with these names.
fn kept(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Field> {
    let values = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let fields = names.iter().flat_map(values);
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}
